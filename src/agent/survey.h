/* What runs on this host, for who wants to write a first baton.yaml: listening processes, and what
 * nginx's configuration says. Only looks: /proc, and `nginx -T` of the nginx that runs. Blocks. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/service.h"
#include <sys/types.h>

struct bt_survey_listener {
	uint16_t port;
	pid_t pid;
	const char *name, *command, *user, *unit, *cwd; /* unit: NULL where there is none */
	const char *const *argv;
	size_t n_argv;
};
/* Something in nginx's configuration that says where requests go. */
struct bt_survey_target {
	enum bt_nginx_form form;
	const char *name;  /* of the upstream, or of the variable without its $ */
	const char *file;  /* where it stands */
	bool own_file;	   /* nothing else stands in that file: baton can own it */
	uint16_t ports[8]; /* it sends to */
	size_t n_ports;
};
struct bt_survey {
	const struct bt_survey_listener *listeners; /* without nginx's own, ascending by port */
	size_t n_listeners;
	size_t n_nginx;		     /* masters that run; what follows is about the first */
	const char *config, *prefix; /* as its -c and -p said; NULL: its defaults */
	const char *trouble;	     /* why its configuration cannot be read; NULL */
	const char *listen; /* where it listens first: "8080", "127.0.0.1:80"; NULL: not told */
	const struct bt_survey_target *targets;
	size_t n_targets;
	uint16_t proxied[8]; /* ports that a proxy_pass names itself */
	size_t n_proxied;
};
/* Strings live in the arena. */
int bt_survey(struct bt_arena *a, struct bt_survey *ret, struct bt_err *err);
