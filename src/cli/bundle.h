/* CodeDeploy bundles at the client. */
#pragma once
#include "base/err.h"

/* Checks the bundle's appspec (under the asked name, then the usual ones); every problem goes to
 * standard error, a line each. A directory is packed, and *path becomes the tar's. *ret_dir: a
 * temporary directory that the caller removes, and frees; also after a failure; NULL: none. */
int bt_bundle_prepare(char **path, const char *asked, char **ret_dir, struct bt_err *err);
