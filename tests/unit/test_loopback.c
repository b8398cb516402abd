/* Addresses on the loopback, by the kernel of this machine: in a network namespace of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/str.h"
#include "driver/arp.h"
#include "driver/loopback.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const vips[] = {"192.0.2.10", "2001:db8::10"};
static const struct bt_loopback both = {vips, 2, "lo"};
static const struct bt_loopback four = {vips, 1, "lo"};
static const struct bt_loopback six = {vips + 1, 1, "lo"};

static const char *why_not; /* NULL: the kernel lets us */

static void ip(const char *args)
{
	BT_FREE char *line = bt_asprintf("ip %s", args);
	if (system(line) != 0)
		fail_msg("%s", line);
}

static void set(const char *name, const char *value)
{
	BT_FREE char *path = bt_asprintf("/proc/sys/net/ipv4/conf/%s", name);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fprintf(f, "%s\n", value) > 0);
	assert_int_equal(fclose(f), 0);
}

static int value(const char *name)
{
	BT_FREE char *path = bt_asprintf("/proc/sys/net/ipv4/conf/%s", name);
	FILE *f = fopen(path, "re");
	int v = -1;
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &v), 1);
	fclose(f);
	return v;
}

static int setup(void **state)
{
	(void)state;
	if (geteuid() != 0)
		why_not = "needs root";
	else if (unshare(CLONE_NEWNET) < 0)
		why_not = "needs a network namespace of its own";
	if (!why_not) {
		ip("link set lo up");
		ip("link add eth7 type veth peer name eth8");
		ip("addr add 198.51.100.1/24 dev eth7");
		ip("link set eth7 up");
		ip("link set eth8 up");
	}
	return 0;
}

#define NEED_ROOT                                                                                  \
	(void)state;                                                                               \
	if (why_not) {                                                                             \
		print_message("skipped: %s\n", why_not);                                           \
		skip();                                                                            \
	}

static void there(const struct bt_loopback *l, bool is, const char *trouble)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_seen_vip *seen = NULL;
	struct bt_err err = {0};
	if (bt_loopback_see(l, a, &seen, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < l->n_vips; i++) {
		assert_string_equal(seen[i].address, l->vips[i]);
		assert_int_equal(seen[i].there, is);
		if (trouble ? !seen[i].trouble || !strstr(seen[i].trouble, trouble)
			    : seen[i].trouble != NULL)
			fail_msg("%s: trouble '%s', expected '%s'", l->vips[i],
				seen[i].trouble ? seen[i].trouble : "none",
				trouble ? trouble : "none");
	}
}

static void put(const struct bt_loopback *l)
{
	struct bt_err err = {0};
	if (bt_loopback_put(l, &err) < 0)
		fail_msg("%s", err.text);
}

static void take(const struct bt_loopback *l)
{
	struct bt_err err = {0};
	if (bt_loopback_take(l, &err) < 0)
		fail_msg("%s", err.text);
}

static void fails(int r, int code, const struct bt_err *err, const char *words)
{
	assert_int_equal(r, code);
	if (!strstr(err->text, words))
		fail_msg("'%s' has no '%s'", err->text, words);
}

static void test_put_and_take(void **state)
{
	NEED_ROOT
	assert_int_equal(value("all/arp_ignore"), 0);
	there(&both, false, NULL);
	take(&both); /* nothing to do */
	put(&both);
	there(&both, true, NULL);
	assert_int_equal(value("all/arp_ignore"), 1);
	assert_int_equal(value("all/arp_announce"), 2);
	assert_int_equal(
		system("ip -4 addr show dev lo | grep -q 'inet 192.0.2.10/32 scope host'"), 0);
	assert_int_equal(
		system("ip -6 addr show dev lo | grep -q 'inet6 2001:db8::10/128.*deprecated'"), 0);
	put(&both);
	there(&both, true, NULL);
	take(&six);
	there(&four, true, NULL);
	there(&six, false, NULL);
	take(&both);
	there(&both, false, NULL);
	assert_int_equal(value("all/arp_ignore"), 1); /* others may need it */
}

/* As `ip addr add … dev lo` has put it there. */
static void test_one_that_others_added(void **state)
{
	NEED_ROOT
	ip("addr add 192.0.2.10/32 dev lo");
	there(&four, true, NULL);
	put(&four);
	take(&four);
	there(&four, false, NULL);
}

static void test_arp_is_checked(void **state)
{
	NEED_ROOT
	put(&four);
	set("all/arp_ignore", "0");
	there(&four, true, "arp_ignore is 0");
	put(&four);
	there(&four, true, NULL);
	set("eth7/arp_announce", "3"); /* means nothing, and the larger one counts */
	there(&four, true, "net.ipv4.conf.eth7.arp_announce is 3, expected 2");
	struct bt_err err = {0};
	fails(bt_loopback_put(&four, &err), BT_E_FAILED, &err, "eth7.arp_announce");
	set("eth7/arp_announce", "0");
	set("all/arp_ignore", "0"); /* each interface by itself is as good */
	set("eth7/arp_ignore", "1");
	set("eth8/arp_ignore", "8");
	there(&four, true, NULL);
	set("eth7/arp_ignore", "0");
	set("eth8/arp_ignore", "0");
	set("all/arp_ignore", "1");
	take(&four);
}

static void test_on_another_interface(void **state)
{
	NEED_ROOT
	struct bt_err err = {0};
	ip("addr add 192.0.2.10/24 dev eth7");
	there(&four, false, "it is on eth7, which answers ARP for it");
	fails(bt_loopback_put(&four, &err), BT_E_REFUSED, &err, "192.0.2.10 is on interface eth7");
	fails(bt_loopback_take(&four, &err), BT_E_REFUSED, &err, "eth7");
	ip("addr del 192.0.2.10/24 dev eth7");
	ip("addr add 2001:db8::10/64 dev eth7 nodad");
	there(&six, false, "answers neighbour discovery");
	fails(bt_loopback_put(&both, &err), BT_E_REFUSED, &err,
		"2001:db8::10 is on interface eth7");
	there(&four, false, NULL); /* nothing was changed */
	ip("addr del 2001:db8::10/64 dev eth7");
}

static void test_a_network_on_the_loopback(void **state)
{
	NEED_ROOT
	struct bt_err err = {0};
	ip("addr add 192.0.2.10/24 dev lo");
	there(&four, true, "as /24");
	fails(bt_loopback_put(&four, &err), BT_E_FAILED, &err, "expected /32");
	take(&four);
	there(&four, false, NULL);
}

static void test_interfaces(void **state)
{
	NEED_ROOT
	struct bt_loopback other = four;
	struct bt_err err = {0};
	other.interface = "eth7";
	fails(bt_loopback_put(&other, &err), BT_E_REFUSED, &err, "eth7 answers to the network");
	other.interface = "none7";
	fails(bt_loopback_put(&other, &err), -ENODEV, &err, "interface none7");
	if (system("ip link add dummy7 type dummy 2>/dev/null") != 0) {
		print_message("skipped: this kernel has no dummy interfaces\n");
		return;
	}
	other.interface = "dummy7";
	fails(bt_loopback_put(&other, &err), BT_E_FAILED, &err, "dummy7 is down");
	ip("link set dummy7 up");
	put(&other);
	there(&other, true, NULL);
	there(&four, false, "it is on dummy7");
	take(&other);
}

static void test_no_addresses(void **state)
{
	NEED_ROOT
	const char *wrong = "192.0.2";
	struct bt_loopback l = {&wrong, 1, "lo"};
	struct bt_err err = {0};
	fails(bt_loopback_put(&l, &err), BT_E_PROTOCOL, &err, "'192.0.2' is no address");
}

/* Last: there is no way back. */
static void test_no_permission(void **state)
{
	NEED_ROOT
	struct bt_err err = {0};
	put(&four);
	assert_int_equal(setuid(65534), 0);
	put(&four); /* looking and finding all as it should be needs no right */
	fails(bt_loopback_take(&four, &err), -EPERM, &err, "CAP_NET_ADMIN");
	fails(bt_loopback_put(&six, &err), -EPERM, &err, "CAP_NET_ADMIN");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_and_take),
		cmocka_unit_test(test_one_that_others_added),
		cmocka_unit_test(test_arp_is_checked),
		cmocka_unit_test(test_on_another_interface),
		cmocka_unit_test(test_a_network_on_the_loopback),
		cmocka_unit_test(test_interfaces),
		cmocka_unit_test(test_no_addresses),
		cmocka_unit_test(test_no_permission),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
