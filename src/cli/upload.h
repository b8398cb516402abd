/* An artifact to the server: in parts that resume, the same bytes never twice. */
#pragma once
#include "cli/client.h"
#include "cli/files.h"
#include "cli/view.h"

#define BT_UPLOAD_PART (8 << 20)
int bt_upload(
	struct bt_client *c, const struct bt_artifact *a, struct bt_view *v, struct bt_err *err);
