#include "nginx_fixture.h"

#include "base/clock.h"
#include "driver/nginx_driver.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

char world_dir[64];
struct bt_driver_env world_env;

static pid_t processes[256];
static size_t n_processes;

static void remember(pid_t pid)
{
	assert_true(n_processes < BT_ARRAY_LEN(processes));
	processes[n_processes++] = pid;
}

/* ---- the world ---------------------------------------------------------------------------- */

void world_open(const char *dir)
{
	snprintf(world_dir, sizeof world_dir, "%s", dir);
	struct event_base *base = event_base_new();
	world_env = (struct bt_driver_env){.base = base,
		.work = bt_work_new(base, 2),
		.http = bt_http_client_new(base),
		.host = "was1"};
	world_env.state_dir = bt_asprintf("%s/state", world_dir);
}

int world_setup(void **state)
{
	char dir[] = "/tmp/baton-nginx-XXXXXX";
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return -1;
	world_open(dir);
	return bt_balancer_nginx.init(&world_env, NULL);
}

/* Managed ones that a failed test left. */
static void end_managed(void)
{
	BT_FREE char *dir = bt_asprintf("%s/balancers", world_env.state_dir);
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		BT_FREE char *pid = bt_asprintf("%s/%s/nginx/nginx.pid", dir, e->d_name);
		struct bt_nginx_proc master = {0};
		if (bt_nginx_master(pid, &master) == 0)
			process_end(master.pid, SIGTERM);
	}
	if (d)
		closedir(d);
}

int world_teardown(void **state)
{
	(void)state;
	end_managed();
	for (size_t i = 0; i < n_processes; i++)
		if (processes[i]) /* TERM: a killed nginx would leave its workers */
			process_end(processes[i], SIGTERM);
	bt_work_free(world_env.work);
	bt_http_client_free(world_env.http);
	bt_fs_remove_tree(world_dir, NULL);
	free((char *)world_env.state_dir);
	return 0;
}

static bool is_free(uint16_t port)
{
	BT_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	return bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0;
}

#define PORTS_FIRST 26000
#define PORTS_END 32000 /* the kernel's own choice for outgoing connections begins above */
#define PORTS_BLOCK 300

/* A block of ports of our own, held by a lock that ends with the process. */
static uint16_t take_block(void)
{
	for (int port = PORTS_FIRST; port < PORTS_END; port += PORTS_BLOCK) {
		char path[64];
		snprintf(path, sizeof path, "/tmp/baton-unit-ports-%d", port);
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			return (uint16_t)port;
		if (fd >= 0)
			close(fd);
	}
	fail_msg("all blocks of ports from %d to %d are taken", PORTS_FIRST, PORTS_END);
	return 0;
}

uint16_t next_port(void)
{
	static uint16_t port, end;
	if (port == 0) {
		port = take_block();
		end = (uint16_t)(port + PORTS_BLOCK);
	}
	while (!is_free(port))
		port++;
	assert_true(port < end);
	return port++;
}

/* A daemon's zombie waits for whoever reaps in this container. */
static bool is_gone(pid_t pid)
{
	char path[64], state = 'Z';
	BT_FREE char *text = NULL;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (bt_fs_read(path, 4096, &text, NULL, NULL) < 0)
		return true;
	const char *p = strrchr(text, ')');
	return !p || sscanf(p + 1, " %c", &state) != 1 || state == 'Z' || state == 'X';
}

void process_end(pid_t pid, int sig)
{
	kill(pid, sig);
	waitpid(pid, NULL, 0);
	for (int64_t end = bt_clock_boot_ms() + 10000; !is_gone(pid) && bt_clock_boot_ms() < end;)
		poll(NULL, 0, 10); /* not our child: a daemon */
	for (size_t i = 0; i < n_processes; i++)
		if (processes[i] == pid)
			processes[i] = 0;
}

void put_file(const char *path, const char *text)
{
	assert_int_equal(bt_fs_write_atomic(path, text, strlen(text), 0644, NULL), 0);
}

char *get_file(const char *path)
{
	char *text = NULL;
	return bt_fs_read(path, 1 << 20, &text, NULL, NULL) == 0 ? text : NULL;
}

/* ---- backends ----------------------------------------------------------------------------- */

static int read_head(int fd, char *buf, size_t n)
{
	size_t used = 0;
	while (used < n - 1) {
		ssize_t k = read(fd, buf + used, n - 1 - used);
		if (k <= 0)
			return -1;
		used += (size_t)k;
		buf[used] = 0;
		if (strstr(buf, "\r\n\r\n"))
			return 0;
	}
	return -1;
}

struct connection {
	int fd;
	const char *name;
};

static atomic_int n_held;
static atomic_bool released; /* from then on nothing is held */

static void *serve(void *arg)
{
	struct connection *c = arg;
	char head[8192], out[512];
	while (read_head(c->fd, head, sizeof head) == 0) {
		int status = strstr(head, " /fail") ? 500 : 200;
		const char *body = c->name;
		char number[16];
		if (strstr(head, " /hold ")) {
			atomic_fetch_add(&n_held, 1);
			while (!atomic_load(&released))
				poll(NULL, 0, 5);
			atomic_fetch_sub(&n_held, 1);
		} else if (strstr(head, " /held ")) {
			snprintf(number, sizeof number, "%d", atomic_load(&n_held));
			body = number;
		} else if (strstr(head, " /release ")) {
			atomic_store(&released, true);
		}
		if (strstr(head, "Upgrade: websocket")) {
			static const char up[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: "
						 "websocket\r\nConnection: upgrade\r\n\r\nhello";
			bt_fs_write_all(c->fd, up, sizeof up - 1);
			continue;
		}
		int n = snprintf(out, sizeof out,
			"HTTP/1.1 %d X\r\nContent-Type: text/plain\r\nContent-Length: "
			"%zu\r\n\r\n%s\n",
			status, strlen(body) + 1, body);
		if (bt_fs_write_all(c->fd, out, (size_t)n) < 0 || strstr(head, "Connection: close"))
			break;
	}
	close(c->fd);
	free(c);
	return NULL;
}

static void backend_main(const char *name, int listener)
{
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		struct connection *c = malloc(sizeof *c);
		*c = (struct connection){fd, name};
		pthread_t t;
		if (pthread_create(&t, NULL, serve, c) == 0)
			pthread_detach(t);
	}
}

#define BACKEND_FD 3

/* A backend is this program again, not a fork of it: a fork of a program with threads may hold
 * their locks for ever, the allocator's among them. */
__attribute__((constructor)) static void become_backend(void)
{
	const char *name = getenv("BATON_TEST_BACKEND");
	if (name)
		backend_main(name, BACKEND_FD);
}

pid_t backend_start(const char *name, uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1024), 0);
	BT_FREE char *who = bt_asprintf("BATON_TEST_BACKEND=%s", name);
	char *const argv[] = {(char *)name, NULL}, *const env[] = {who, NULL};
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent &&
			(fd == BACKEND_FD ? fcntl(fd, F_SETFD, 0) : dup2(fd, BACKEND_FD)) >= 0 &&
			close_range(BACKEND_FD + 1, ~0u, 0) == 0)
			execve("/proc/self/exe", argv, env);
		_exit(127);
	}
	close(fd);
	remember(pid);
	return pid;
}

/* ---- nginx -------------------------------------------------------------------------------- */

char *user_nginx(const char *name, uint16_t port, const char *http, const char *server)
{
	BT_FREE char *dir = bt_asprintf("%s/%s", world_dir, name);
	assert_int_equal(bt_fs_mkdirs(dir, 0755, NULL), 0);
	char *conf = bt_asprintf("%s/nginx.conf", dir);
	BT_FREE char *text = bt_asprintf(
		"%sworker_processes 2;\npid nginx.pid;\nerror_log error.log notice;\n"
		"events {}\nhttp {\n"
		"access_log off;\nclient_body_temp_path t1; proxy_temp_path t2;"
		"fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n"
		"map $http_upgrade $up { default upgrade; '' ''; }\n"
		"%s\n"
		"server { listen 127.0.0.1:%u; proxy_http_version 1.1;\n"
		"proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $up;\n"
		"%s } }\n",
		geteuid() == 0 ? "user root;\n" : "", http, port, server);
	put_file(conf, text);
	return conf;
}

pid_t nginx_start(const char *conf, const char *prefix)
{
	BT_FREE char *pid_file = bt_asprintf("%s/nginx.pid", prefix);
	pid_t pid = fork();
	if (pid == 0) {
		execlp("nginx", "nginx", "-p", prefix, "-c", conf, (char *)NULL);
		_exit(127);
	}
	int status = -1;
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	struct bt_nginx_proc master = {0};
	for (int64_t end = bt_clock_boot_ms() + 10000;
		bt_nginx_master(pid_file, &master) != 0 && bt_clock_boot_ms() < end;)
		poll(NULL, 0, 5);
	assert_true(master.pid > 0);
	remember(master.pid);
	return master.pid;
}

/* ---- clients ------------------------------------------------------------------------------ */

int dial(uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {20, 0};
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int get(uint16_t port, const char *path, char *body, size_t n)
{
	char buf[8192];
	size_t used = 0;
	int fd = dial(port), status = 0;
	body[0] = 0;
	if (fd < 0)
		return 0;
	int k = snprintf(buf, sizeof buf,
		"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", path);
	if (bt_fs_write_all(fd, buf, (size_t)k) == 0)
		for (ssize_t r; used < sizeof buf - 1 &&
				(r = read(fd, buf + used, sizeof buf - 1 - used)) > 0;)
			used += (size_t)r;
	close(fd);
	buf[used] = 0;
	const char *start = strstr(buf, "\r\n\r\n");
	if (!start || sscanf(buf, "HTTP/1.1 %d", &status) != 1)
		return 0;
	snprintf(body, n, "%s", start + 4);
	body[strcspn(body, "\r\n")] = 0;
	return status;
}

int open_websocket(uint16_t port)
{
	static const char rq[] = "GET /profile HTTP/1.1\r\nHost: test\r\nUpgrade: "
				 "websocket\r\nConnection: Upgrade\r\n\r\n";
	char buf[1024];
	int fd = dial(port);
	assert_true(fd >= 0);
	assert_int_equal(bt_fs_write_all(fd, rq, sizeof rq - 1), 0);
	assert_int_equal(read_head(fd, buf, sizeof buf), 0);
	assert_non_null(strstr(buf, " 101 "));
	return fd;
}

static void *load_main(void *arg)
{
	struct load *l = arg;
	char body[256];
	do {
		const char *only = atomic_load(&l->only);
		int status = get(l->port, l->path, body, sizeof body);
		bool good = status == 200 && (!only || !strcmp(only, body));
		atomic_fetch_add(&l->requests, 1);
		if (!good && atomic_fetch_add(&l->failed, 1) == 0)
			snprintf(l->complaint, sizeof l->complaint,
				"request %d: status %d, '%.60s', expected %.60s",
				atomic_load(&l->requests), status, body, only ? only : "200");
	} while (!atomic_load(&l->stop));
	return NULL;
}

void load_start(struct load *l, uint16_t port, const char *path)
{
	*l = (struct load){.port = port, .path = path};
	assert_int_equal(pthread_create(&l->thread, NULL, load_main, l), 0);
}

void load_stop(struct load *l)
{
	atomic_store(&l->stop, true);
	pthread_join(l->thread, NULL);
	if (l->failed)
		fail_msg("%d of %d requests failed; first: %s", l->failed, l->requests,
			l->complaint);
	assert_true(l->requests > 0);
}

/* ---- the loop ----------------------------------------------------------------------------- */

void on_done(void *arg, int result, const struct bt_err *err)
{
	struct answer *a = arg;
	assert_false(a->done);
	a->done = true;
	a->result = result;
	a->err = *err;
}

void on_progress(void *arg, const char *line)
{
	struct answer *a = arg;
	size_t n = strlen(a->progress);
	snprintf(a->progress + n, sizeof a->progress - n, "%s\n", line);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

void run_until(const bool *flag)
{
	bool late = false;
	struct timeval limit = {30, 0};
	struct event *e = evtimer_new(world_env.base, on_limit, &late);
	event_add(e, &limit);
	while (!*flag && !late)
		event_base_loop(world_env.base, EVLOOP_ONCE);
	event_free(e);
	if (!*flag)
		fail_msg("no answer within 30 s");
}

void run_for(int ms)
{
	bool over = false;
	struct timeval t = {ms / 1000, ms % 1000 * 1000};
	struct event *e = evtimer_new(world_env.base, on_limit, &over);
	event_add(e, &t);
	while (!over)
		event_base_loop(world_env.base, EVLOOP_ONCE);
	event_free(e);
}
