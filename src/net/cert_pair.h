/* A certificate and its key as files, before somebody serves them. */
#pragma once
#include "base/err.h"
#include <stdint.h>

/* 0, or BT_E_CONFIG (or -errno) in one line: a file cannot be read, is no PEM, or the certificate
 * does not fit the key. Blocks for a few file reads; asks for no pass phrase. */
int bt_cert_pair_check(const char *certificate, const char *key, struct bt_err *err);
/* What tells that one of the files is another one than before: inode, size and time of both,
 * links followed; of one that is not there "-". Caller frees. */
char *bt_cert_pair_stamp(const char *certificate, const char *key);
