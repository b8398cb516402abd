/* The kernel is asked and not nginx: it knows which workers are old, and what they hold. A worker
 * says by its process title what it does; that title is part of nginx's documented behaviour
 * ("worker process is shutting down") and has not changed since 0.x. */
#include "driver/nginx_proc.h"

#include "base/fs.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SMALL_FILE 65536

static bool read_stat(pid_t pid, pid_t *ret_parent, uint64_t *ret_start, char *ret_state)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	BT_FREE char *text = NULL;
	if (bt_fs_read(path, SMALL_FILE, &text, NULL, NULL) < 0)
		return false;
	const char *p = strrchr(text, ')'); /* the name before it may hold anything */
	int parent = 0;
	unsigned long long start = 0;
	char state = 0;
	if (!p || sscanf(p + 1,
			  " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
			  "%*d %llu",
			  &state, &parent, &start) != 3)
		return false;
	*ret_parent = parent;
	*ret_start = start;
	*ret_state = state;
	return true;
}

bool bt_nginx_proc_alive(const struct bt_nginx_proc *p)
{
	pid_t parent;
	uint64_t start;
	char state;
	return read_stat(p->pid, &parent, &start, &state) && start == p->start && state != 'Z' &&
	       state != 'X';
}

/* The title: its arguments up to the first NUL. Caller frees; NULL where it is gone. */
char *bt_nginx_title(pid_t pid)
{
	char path[64], *text = NULL;
	snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
	if (bt_fs_read(path, SMALL_FILE, &text, NULL, NULL) < 0)
		return NULL;
	return text;
}

int bt_nginx_master(const char *pid_file, struct bt_nginx_proc *ret)
{
	BT_FREE char *text = NULL, *title = NULL;
	if (bt_fs_read(pid_file, 64, &text, NULL, NULL) < 0)
		return 1;
	text[strcspn(text, "\r\n ")] = 0;
	int64_t pid = 0;
	if (bt_int_parse(text, 1, INT32_MAX, &pid, NULL) < 0)
		return 1;
	struct bt_nginx_proc p = {.pid = (pid_t)pid};
	pid_t parent;
	char state;
	title = bt_nginx_title(p.pid);
	if (!title || !bt_str_starts(title, "nginx: master process") ||
		!read_stat(p.pid, &parent, &p.start, &state) || state == 'Z')
		return 1;
	*ret = p;
	return 0;
}

void bt_nginx_proc_add(struct bt_nginx_proc **list, size_t *n, struct bt_nginx_proc p)
{
	*list = bt_realloc(*list, (*n + 1) * sizeof **list);
	(*list)[(*n)++] = p;
}

static void sort_worker(struct bt_nginx_workers *w, const struct bt_nginx_proc *p)
{
	BT_FREE char *title = bt_nginx_title(p->pid);
	if (!title)
		return;
	if (bt_str_starts(title, "nginx: worker process is shutting down"))
		bt_nginx_proc_add(&w->leaving, &w->n_leaving, *p);
	else if (bt_str_starts(title, "nginx: worker process"))
		bt_nginx_proc_add(&w->serving, &w->n_serving, *p);
	else if (bt_str_starts(title, "nginx: master process"))
		w->n_starting++; /* a fork that has not set its title */
}

/* Every process by /proc; on() for each with its parent and start time. */
void bt_nginx_each_process(
	void (*on)(void *arg, const struct bt_nginx_proc *p, pid_t parent), void *arg)
{
	DIR *d = opendir("/proc");
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		int64_t pid;
		pid_t parent;
		char state;
		if (!isdigit((unsigned char)e->d_name[0]) ||
			bt_int_parse(e->d_name, 1, INT32_MAX, &pid, NULL) < 0)
			continue;
		struct bt_nginx_proc p = {.pid = (pid_t)pid};
		if (read_stat(p.pid, &parent, &p.start, &state) && state != 'Z')
			on(arg, &p, parent);
	}
	closedir(d);
}

struct children {
	pid_t parent;
	struct bt_nginx_workers *workers;
};

static void on_process(void *arg, const struct bt_nginx_proc *p, pid_t parent)
{
	struct children *c = arg;
	if (parent == c->parent)
		sort_worker(c->workers, p);
}

void bt_nginx_workers_read(const struct bt_nginx_proc *master, struct bt_nginx_workers *ret)
{
	*ret = (struct bt_nginx_workers){0};
	char path[96];
	BT_FREE char *list = NULL;
	snprintf(
		path, sizeof path, "/proc/%d/task/%d/children", (int)master->pid, (int)master->pid);
	if (bt_fs_read(path, SMALL_FILE, &list, NULL, NULL) < 0) { /* a kernel without that file */
		struct children c = {master->pid, ret};
		bt_nginx_each_process(on_process, &c);
		return;
	}
	for (char *save = NULL, *word = strtok_r(list, " \n", &save); word;
		word = strtok_r(NULL, " \n", &save)) {
		int64_t pid;
		pid_t parent;
		char state;
		struct bt_nginx_proc p = {0};
		if (bt_int_parse(word, 1, INT32_MAX, &pid, NULL) < 0)
			continue;
		p.pid = (pid_t)pid;
		if (read_stat(p.pid, &parent, &p.start, &state) && parent == master->pid &&
			state != 'Z')
			sort_worker(ret, &p);
	}
}

void bt_nginx_workers_done(struct bt_nginx_workers *w)
{
	free(w->serving);
	free(w->leaving);
	*w = (struct bt_nginx_workers){0};
}

bool bt_nginx_proc_in(const struct bt_nginx_proc *list, size_t n, const struct bt_nginx_proc *p)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].pid == p->pid && list[i].start == p->start)
			return true;
	return false;
}

/* ---- low ports ---------------------------------------------------------------------------- */

static uint64_t capability_set(const char *status, const char *name)
{
	const char *p = strstr(status, name);
	return p ? strtoull(p + strlen(name), NULL, 16) : 0;
}

bool bt_nginx_can_bind_low(uint16_t port)
{
	BT_FREE char *start = NULL, *status = NULL;
	int64_t first = 1024;
	if (bt_fs_read("/proc/sys/net/ipv4/ip_unprivileged_port_start", 64, &start, NULL, NULL) ==
		0) {
		start[strcspn(start, "\n")] = 0;
		(void)bt_int_parse(start, 0, 65536, &first, NULL);
	}
	if (port >= first)
		return true;
	if (bt_fs_read("/proc/self/status", SMALL_FILE, &status, NULL, NULL) < 0)
		return false;
	/* What an exec'd program keeps: everything in the bounding set for root, else ambient. */
	const uint64_t bind_service = 1ull << 10;
	uint64_t have = geteuid() == 0 ? capability_set(status, "CapEff:\t") &
						 capability_set(status, "CapBnd:\t")
				       : capability_set(status, "CapAmb:\t");
	return have & bind_service;
}
