/* appspec.yml, as a CodeDeploy bundle for servers has it: which files go where, with which
 * permissions, and which scripts run at which lifecycle event. Pure: the caller has the text.
 *
 * Format: https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file.html
 * Every problem is told at once, with line and column. What cannot be done here (ACLs, SELinux
 * contexts) is a problem too, since passing over it would leave files more open than was meant. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "config/config.h"
#include "model/lifecycle.h"
#include <stdbool.h>
#include <stdint.h>

#define BT_APPSPEC_MAX_BYTES (1u << 20)

enum bt_appspec_exists { /* what becomes of a file that is there and is none of the bundle's */
	BT_APPSPEC_DISALLOW,
	BT_APPSPEC_OVERWRITE,
	BT_APPSPEC_RETAIN,
};

struct bt_appspec_file {
	const char *source;	 /* relative to the revision, normal; "" is all of it */
	const char *destination; /* absolute, normal: the directory that it goes into */
	int line, column;
};

struct bt_appspec_permission {
	const char *object;  /* absolute, normal */
	const char *pattern; /* "**", or of names directly in it */
	const char *const *except;
	size_t n_except;
	const char *owner, *group; /* NULL: as it is */
	int mode;		   /* -1: as it is */
	bool files, directories;   /* what it is for */
	int line, column;
};

struct bt_appspec_script {
	const char *location; /* relative to the revision, normal */
	int64_t timeout_ms;
	const char *runas; /* NULL: the service's run.user, or the agent's own */
	int line, column;
};

struct bt_appspec_event {
	const struct bt_appspec_script *scripts; /* in order */
	size_t n;
};

struct bt_appspec {
	struct bt_arena *arena; /* owns everything */
	const char *name;	/* of the file, for messages */
	enum bt_appspec_exists exists;
	const struct bt_appspec_file *files;
	size_t n_files;
	const struct bt_appspec_permission *permissions;
	size_t n_permissions;
	struct bt_appspec_event events[BT_LIFECYCLES];
};
/* All scripts of an event together may not take longer. */
#define BT_APPSPEC_EVENT_MS ((int64_t)3600 * 1000)

/* 0 and *ret; or BT_E_CONFIG with problems filled, and err has the first. */
int bt_appspec_parse(const char *text, size_t n, const char *file_name, struct bt_appspec **ret,
	struct bt_config_problems *problems, struct bt_err *err);
struct bt_appspec *bt_appspec_free(struct bt_appspec *a); /* NULL is fine; returns NULL */

/* The names under which a bundle's appspec is looked for, in order; `asked` may be NULL. Returns
 * how many. */
size_t bt_appspec_names(const char *asked, const char *ret[static 3]);

/* Whether the permission is for what lies at the (absolute, normal) path. */
bool bt_appspec_permits(const struct bt_appspec_permission *p, const char *path, bool is_directory);
