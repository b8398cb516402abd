/* Texts of baton.yaml that tests read. */
#pragma once
#include "config/config.h"

/* What a good one says; the caller frees. */
struct bt_config *config_of(const char *text, bt_config_env env);
/* It is refused with exactly these lines; the file's name in them is "f". */
void config_refused(const char *text, bt_config_env env, const char *const *lines, size_t n);
/* Printed as YAML and as JSON, it reads back to the same. */
void config_same_again(const struct bt_config *c);
