/* Processes by what names them for ever: pid, start time and boot id together. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct bt_proc_stat {
	char name[32]; /* comm */
	char state;    /* 'Z' zombie … */
	pid_t ppid, pgid, sid;
	int64_t start_ticks;
	bool kernel; /* a thread of the kernel */
};
int bt_proc_stat(pid_t pid, struct bt_proc_stat *ret); /* 0, or -errno (-ESRCH: gone) */
int bt_proc_boot_id(char *buf, size_t n);	       /* n ≥ 37 */
/* A pidfd of just that process, alive: fd, or -ESRCH when it is gone or another has its pid. */
int bt_proc_open(pid_t pid, int64_t start_ticks, const char *boot_id);
int bt_proc_signal(int pidfd, int sig); /* 0, or -errno */
bool bt_proc_alive(int pidfd);		/* not even a zombie */
/* Whether the process was started with "NAME=value" in its environment. */
bool bt_proc_has_env(pid_t pid, const char *assignment);
/* Calls fn for every process there is; a true answer ends it and is returned. */
bool bt_proc_each(bool (*fn)(void *arg, pid_t pid, const struct bt_proc_stat *st), void *arg);
