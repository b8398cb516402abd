/* A small world for tests with a real nginx: backends that name themselves, an nginx of a user's
 * own, load, and the driver on a loop. Everything below one temporary directory; every process
 * that is started here is ended here, by its pid. */
#pragma once
#include "base/fs.h"
#include "base/loop.h"
#include "base/str.h"
#include "driver/driver.h"
#include "driver/nginx_proc.h"
#include "net/http_client.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <cmocka.h>

extern char world_dir[64];
extern struct bt_driver_env world_env;
int world_setup(void **state);	  /* cmocka group setup */
int world_teardown(void **state); /* ends everything that is left */
void world_open(const char *dir); /* the same without cmocka, on a directory that exists */

uint16_t next_port(void);

/* A backend process: GET /profile answers `name`, /hold only once /release was asked, /held how
 * many are held, /fail 500, an Upgrade holds the connection. */
pid_t backend_start(const char *name, uint16_t port);
void process_end(pid_t pid, int signal); /* and waits */

/* A user's own nginx below world_dir/NAME: returns its conf path. `http` goes into the http
 * block (or into its server block where in_server). Caller frees. */
char *user_nginx(const char *name, uint16_t port, const char *http, const char *server);
pid_t nginx_start(const char *conf, const char *prefix); /* the master */
void put_file(const char *path, const char *text);
char *get_file(const char *path); /* NULL: none; caller frees */

/* One GET on a connection of its own: status (0: failed) and body. */
int get(uint16_t port, const char *path, char *body, size_t n);
int dial(uint16_t port); /* a connection, or -1 */
/* A connection that was upgraded through nginx; the fd, or fails. */
int open_websocket(uint16_t port);

struct load {
	pthread_t thread;
	uint16_t port;
	const char *path;
	atomic_bool stop;
	atomic_int requests, failed;
	_Atomic(const char *) only; /* once set: every answer to a request begun later is this */
	char complaint[256];
};
void load_start(struct load *l, uint16_t port, const char *path);
void load_stop(struct load *l); /* fails the test where a request failed */

/* The driver's answer. */
struct answer {
	bool done;
	int result;
	struct bt_err err;
	char progress[4096];
};
void on_done(void *arg, int result, const struct bt_err *err);
void on_progress(void *arg, const char *line);
/* Runs the loop until *flag, at most 30 s. */
void run_until(const bool *flag);
void run_for(int ms);
