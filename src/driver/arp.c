/* What counts for an interface is the larger of its own value and that of `all`
 * (IN_DEV_MAXCONF in Linux's include/linux/inetdevice.h).
 *
 * arp_ignore: 1 and 2 answer for addresses of the interface that was asked at alone, 8 for none at
 * all. 3 answers for every address but those of scope host, which an address that others put there
 * may not have; 4 to 7 mean nothing and answer for all. arp_announce: 2 asks in the name of an
 * address of the interface; every other value may name the one on the loopback, and so teach the
 * neighbours that it is here. */
#include "driver/arp.h"

#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROOT "/proc/sys/net/ipv4/conf"

struct need {
	const char *name;
	int least;
	bool (*good)(int64_t value);
	const char *expected;
};

static bool ignores(int64_t v)
{
	return v == 1 || v == 2 || v == 8;
}

static bool announces(int64_t v)
{
	return v == 2;
}

static const struct need needs[] = {
	{"arp_ignore", 1, ignores, "1, 2 or 8"},
	{"arp_announce", 2, announces, "2"},
};

/* -1: it cannot be read (the interface has just gone). */
static int64_t value_of(const char *interface, const char *name)
{
	char path[256], text[32];
	int64_t v;
	snprintf(path, sizeof path, ROOT "/%s/%s", interface, name);
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return bt_int_parse(text, 0, INT32_MAX, &v, NULL) < 0 ? -1 : v;
}

static int raise_one(const struct need *need, struct bt_err *err)
{
	char path[256], text[16];
	int64_t now = value_of("all", need->name);
	if (now >= need->least)
		return 0;
	snprintf(path, sizeof path, ROOT "/all/%s", need->name);
	size_t n = (size_t)snprintf(text, sizeof text, "%d\n", need->least);
	BT_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, text, n) == (ssize_t)n)
		return 0;
	return bt_err_errno(err, errno,
		"set sysctl net.ipv4.conf.all.%s=%d (the agent needs CAP_NET_ADMIN and a writable "
		"/proc/sys; or set it in /etc/sysctl.d)",
		need->name, need->least);
}

int bt_arp_set(struct bt_err *err)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(needs); i++)
		r = raise_one(&needs[i], err);
	return r;
}

static const char *trouble_of(struct bt_arena *a, const char *interface)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(needs); i++) {
		int64_t all = value_of("all", needs[i].name);
		int64_t own = value_of(interface, needs[i].name);
		int64_t counts = all > own ? all : own;
		if (own >= 0 && !needs[i].good(counts))
			return bt_arena_printf(a,
				"%s answers ARP for it: net.ipv4.conf.%s.%s is %lld, expected %s",
				interface, counts == own ? interface : "all", needs[i].name,
				(long long)counts, needs[i].expected);
	}
	return NULL;
}

const char *bt_arp_trouble(struct bt_arena *a)
{
	const char *found = NULL;
	DIR *d = opendir(ROOT);
	if (!d)
		return bt_arena_printf(a, "%s cannot be read: %s", ROOT, strerror(errno));
	for (struct dirent *e; !found && (e = readdir(d));)
		if (e->d_name[0] != '.' && !bt_streq(e->d_name, "all") &&
			!bt_streq(e->d_name, "default") && !bt_streq(e->d_name, "lo"))
			found = trouble_of(a, e->d_name);
	closedir(d);
	return found;
}
