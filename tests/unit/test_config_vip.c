/* traffic.ipvs, traffic.nftables and what every balancer with an address of its own has: what is
 * taken, what follows, and what is refused with its line. */
#include "config_text.h"

#include "base/str.h"
#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define SERVICE(slots, traffic)                                                                    \
	"service: a\nhosts: [w1, w2]\nrun: {command: ./a, slots: {" slots "}}\n"                   \
	"deploy: {strategy: rolling}\ntraffic: {" traffic "}\n"

/* Refused, with one problem at that place whose text has these words. */
static void refused(const char *text, const char *at, const char *words)
{
	struct bt_config *c = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	assert_int_equal(bt_config_parse(text, strlen(text), "f", NULL, NULL, &c, &problems, &err),
		BT_E_CONFIG);
	if (problems.n != 1)
		fail_msg("%zu problems in:\n%s", problems.n, text);
	if (!bt_str_starts(problems.items[0].line, at) || !strstr(problems.items[0].line, words))
		fail_msg("%s", problems.items[0].line);
	bt_config_problems_done(&problems);
}

static void defaults(void **state)
{
	(void)state;
	struct bt_config *c = config_of(SERVICE("main: 8080", "ipvs: {vip: 192.0.2.10}"), NULL);
	const struct bt_l4 *l = c->services[0].l4;
	assert_int_equal(l->kind, BT_BALANCER_IPVS);
	assert_int_equal(l->n_on, 1);
	assert_string_equal(l->on[0], "w1");
	assert_int_equal(l->port, 8080);
	assert_int_equal(l->mode, BT_L4_NAT);
	assert_string_equal(l->ipvs.scheduler, "wrr");
	assert_int_equal(l->ipvs.weight, 0);
	assert_false(bt_service_has_loopback(&c->services[0]));
	config_same_again(c);
	bt_config_free(c);
}

static void direct_return(void **state)
{
	(void)state;
	static const char *const modes[] = {"dsr", "dr"};
	for (size_t i = 0; i < BT_ARRAY_LEN(modes); i++) {
		BT_FREE char *text = bt_asprintf(
			SERVICE("main: 80", "ipvs: {on: [l4, l5], vip: '2001:db8::10', port: 80, "
					    "mode: %s, scheduler: mh, weight: 7}"),
			modes[i]);
		struct bt_config *c = config_of(text, NULL);
		const struct bt_service *s = &c->services[0];
		assert_int_equal(s->l4->mode, BT_L4_DSR);
		assert_int_equal(s->l4->n_on, 2);
		assert_int_equal(s->l4->ipvs.weight, 7);
		assert_int_equal(s->loopback.n_vips, 1);
		assert_string_equal(s->loopback.vips[0], "2001:db8::10");
		config_same_again(c);
		bt_config_free(c);
	}
}

static void nftables(void **state)
{
	(void)state;
	struct bt_config *c = config_of(SERVICE("main: 8080", "nftables: {vip: 192.0.2.10}"), NULL);
	const struct bt_l4 *l = c->services[0].l4;
	assert_int_equal(l->kind, BT_BALANCER_NFTABLES);
	assert_string_equal(l->on[0], "w1");
	assert_int_equal(l->port, 8080);
	assert_int_equal(l->mode, BT_L4_NAT);
	assert_true(l->nftables.masquerade);
	assert_null(l->nftables.interface);
	config_same_again(c);
	bt_config_free(c);
	c = config_of(
		SERVICE("a: 8081, b: 8082",
			"nftables: {on: l4, vip: '2001:db8::10', port: 80, masquerade: false}"),
		NULL);
	l = c->services[0].l4;
	assert_int_equal(l->port, 80);
	assert_false(l->nftables.masquerade);
	config_same_again(c);
	bt_config_free(c);
	c = config_of(
		SERVICE("main: 80",
			"nftables: {on: [l4, l5], vip: 192.0.2.10, mode: dsr, interface: br0.7}"),
		NULL);
	const struct bt_service *s = &c->services[0];
	assert_int_equal(s->l4->mode, BT_L4_DSR);
	assert_string_equal(s->l4->nftables.interface, "br0.7");
	assert_int_equal(s->loopback.n_vips, 1);
	assert_string_equal(s->loopback.vips[0], "192.0.2.10");
	config_same_again(c);
	bt_config_free(c);
}

static void problems(void **state)
{
	(void)state;
	static const struct {
		const char *text, *at, *words;
	} rows[] = {
		{SERVICE("x: 1", "ipvs: {port: 1}"), "f:5:17: ", "vip is missing"},
		{SERVICE("x: 1, y: 2", "ipvs: {vip: 192.0.2.1}"), "f:5:17: ", "port is missing"},
		{SERVICE("x: 1", "ipvs: {vip: l4.example.com}"), "f:5:23: ", "an IPv4 or IPv6"},
		{SERVICE("x: 1", "ipvs: {vip: 127.0.0.1}"), "f:5:23: ", "an IPv4 or IPv6"},
		{SERVICE("x: 1", "ipvs: {vip: 192.0.2.1, port: 0}"), "f:5:40: ", "1"},
		{SERVICE("x: 1", "ipvs: {vip: 192.0.2.1, port: 65536}"), "f:5:40: ", "65535"},
		{SERVICE("x: 1", "ipvs: {vip: 192.0.2.1, mode: tun}"), "f:5:40: ", "nat"},
		{SERVICE("x: 1", "ipvs: {vip: 192.0.2.1, scheduler: a b}"),
			"f:5:45: ", "a scheduler such as"},
		{SERVICE("x: 1", "ipvs: {vip: 192.0.2.1, weight: 65536}"), "f:5:42: ", "65535"},
		{SERVICE("x: 1, y: 2", "ipvs: {vip: 192.0.2.1, port: 1, mode: dsr}"),
			"f:5:49: ", "one slot"},
		{SERVICE("x: 1", "ipvs: {vip: 192.0.2.1, port: 2, mode: dsr}"),
			"f:5:49: ", "slot x's"},
		{SERVICE("x: 1", "nftables: {port: 1}"), "f:5:21: ", "vip is missing"},
		{SERVICE("x: 1", "nftables: {vip: 192.0.2.1, mode: dsr, on: l4}"),
			"f:5:21: ", "interface: is missing"},
		{SERVICE("x: 1", "nftables: {vip: 192.0.2.1, interface: eth0}"),
			"f:5:49: ", "mode: dsr"},
		{SERVICE("x: 1", "nftables: {vip: 192.0.2.1, interface: 'a b', mode: dsr, on: l}"),
			"f:5:49: ", "an interface's name"},
		{SERVICE("x: 1", "nftables: {vip: 192.0.2.1, on: l, mode: dsr, interface: eth0, "
				 "masquerade: false}"),
			"f:5:85: ", "mode: nat"},
		{SERVICE("x: 1", "nftables: {vip: 192.0.2.1, on: w2, mode: dsr, interface: eth0}"),
			"f:5:42: ", "a host of its own"},
		{SERVICE("x: 1, y: 2",
			 "nftables: {vip: 192.0.2.1, port: 1, mode: dsr, on: l, interface: e}"),
			"f:5:53: ", "one slot"},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++)
		refused(rows[i].text, rows[i].at, rows[i].words);
}

static void of_two_services(void **state)
{
	(void)state;
	refused("services:\n  a:\n    hosts: [w1]\n    run: {command: x, slots: {x: 1}}\n"
		"    deploy: {strategy: rolling}\n"
		"    traffic: {ipvs: {on: l4, vip: 192.0.2.1, port: 80}}\n"
		"  b:\n    hosts: [w2]\n    run: {command: x, slots: {x: 1}}\n"
		"    deploy: {strategy: rolling}\n"
		"    traffic: {ipvs: {on: l4, vip: 192.0.2.1, port: 80}}\n",
		"f:", "is that of a too");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(direct_return),
		cmocka_unit_test(nftables),
		cmocka_unit_test(problems),
		cmocka_unit_test(of_two_services),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
