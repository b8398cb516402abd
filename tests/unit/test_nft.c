/* What baton writes for nftables: byte for byte as in tests/golden/nft, taken by the real nft in a
 * network of its own, and read back as what was meant. */
#include "expect.h"

#include "base/fs.h"
#include "driver/l4_nft.h"
#include "driver/op.h"

#include <arpa/inet.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static const struct bt_pool_member both[] = {{.address = "10.9.0.11",
						     .port = 8080,
						     .slot = "main",
						     .host = "was1",
						     .in = true,
						     .one = false},
	{.address = "10.9.0.12",
		.port = 8080,
		.slot = "main",
		.host = "was2",
		.in = true,
		.one = false}};
static const struct bt_pool_member first[] = {{.address = "10.9.0.11",
						      .port = 8080,
						      .slot = "main",
						      .host = "was1",
						      .in = true,
						      .one = false},
	{.address = "10.9.0.12",
		.port = 8080,
		.slot = "main",
		.host = "was2",
		.in = false,
		.one = false}};
static const struct bt_pool_member nobody[] = {{.address = "10.9.0.11",
						       .port = 8080,
						       .slot = "main",
						       .host = "was1",
						       .in = false,
						       .one = false},
	{.address = "10.9.0.12",
		.port = 8080,
		.slot = "main",
		.host = "was2",
		.in = false,
		.one = false}};
static const struct bt_pool_member others[] = {{.address = "10.9.0.12",
						       .port = 8080,
						       .slot = "main",
						       .host = "was2",
						       .in = true,
						       .one = false},
	{.address = "10.9.0.13",
		.port = 8080,
		.slot = "main",
		.host = "was3",
		.in = true,
		.one = false}};
static const struct bt_pool_member slots[] = {{.address = "10.9.0.11",
						      .port = 8081,
						      .slot = "a",
						      .host = "was1",
						      .in = true,
						      .one = false},
	{.address = "10.9.0.11",
		.port = 8082,
		.slot = "b",
		.host = "was1",
		.in = true,
		.one = false},
	{.address = "10.9.0.12",
		.port = 8081,
		.slot = "a",
		.host = "was2",
		.in = false,
		.one = false}};
static const struct bt_pool_member six[] = {{.address = "fd00:9::11",
						    .port = 8080,
						    .slot = "main",
						    .host = "was1",
						    .in = true,
						    .one = false},
	{.address = "fd00:9:0::12",
		.port = 8080,
		.slot = "main",
		.host = "was2",
		.in = true,
		.one = false}};

static const struct bt_l4 nat = {.kind = BT_BALANCER_NFTABLES,
	.vip = "10.9.0.100",
	.port = 80,
	.nftables = {.masquerade = true}};
static const struct bt_l4 routed = {.kind = BT_BALANCER_NFTABLES, .vip = "10.9.0.100", .port = 80};
static const struct bt_l4 nat6 = {.kind = BT_BALANCER_NFTABLES,
	.vip = "fd00:9::100",
	.port = 80,
	.nftables = {.masquerade = true}};
static const struct bt_l4 routed6 = {
	.kind = BT_BALANCER_NFTABLES, .vip = "fd00:9::100", .port = 80};
static const struct bt_l4 dsr = {.kind = BT_BALANCER_NFTABLES,
	.mode = BT_L4_DSR,
	.vip = "10.9.0.100",
	.port = 8080,
	.nftables = {.interface = "lan"}};
static const struct bt_l4 dsr6 = {.kind = BT_BALANCER_NFTABLES,
	.mode = BT_L4_DSR,
	.vip = "fd00:9::100",
	.port = 8080,
	.nftables = {.interface = "lan"}};

#define M(list) list, BT_ARRAY_LEN(list)
static const struct {
	const char *name;
	const struct bt_l4 *l4;
	const struct bt_pool_member *members;
	size_t n;
} cases[] = {
	{"nat", &nat, M(both)},
	{"nat_one_out", &nat, M(first)},
	{"nat_nobody", &nat, M(nobody)},
	{"nat_slots", &nat, M(slots)},
	{"nat_routed", &routed, M(both)},
	{"nat_ipv6", &nat6, M(six)},
	{"nat_ipv6_routed", &routed6, M(six)},
	{"dsr", &dsr, M(both)},
	{"dsr_one_out", &dsr, M(first)},
	{"dsr_nobody", &dsr, M(nobody)},
	{"dsr_ipv6", &dsr6, M(six)},
};

static struct bt_service service;

static struct bt_l4_target target(const struct bt_l4 *l4, const struct bt_pool_member *m, size_t n)
{
	service = (struct bt_service){.name = "shop@release", .l4 = l4};
	return (struct bt_l4_target){.service = &service, .members = m, .n_members = n};
}

static void test_golden(void **state)
{
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		struct bt_nft_found none = {0};
		struct bt_l4_target t = target(cases[i].l4, cases[i].members, cases[i].n);
		BT_FREE char *text = bt_nft_render(&t, &none);
		is_golden(text, "nft/%s.json", cases[i].name);
	}
}

/* A member that is gone takes its chain and its set with it, and an older mode its table. */
static void test_golden_change(void **state)
{
	(void)state;
	const char *chains[] = {"on_lan", "on_old", "service", "opening", "choose",
		"to_10.9.0.11_8080", "to_10.9.0.12_8080"};
	const char *sets[] = {"young", "closing", "flows_10.9.0.11_8080", "flows_10.9.0.12_8080"};
	struct bt_nft_found found = {.handle = 7,
		.others = {[BT_NFT_IP] = true},
		.chains = chains,
		.n_chains = BT_ARRAY_LEN(chains),
		.sets = sets,
		.n_sets = BT_ARRAY_LEN(sets)};
	struct bt_l4_target t = target(&dsr, M(others));
	BT_FREE char *text = bt_nft_render(&t, &found);
	is_golden(text, "nft/dsr_change.json");
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static void test_bad_listings(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "{", "[]", "{}", "{\"nftables\":{}}", "{\"nftables\":[", "{\"nftables\":[]}x"};
	static const char *const odd[] = {"{\"nftables\":[]}", "{\"nftables\":[1,null,[],{}]}",
		"{\"nftables\":[{\"rule\":7},{\"chain\":[]},{\"set\":{\"name\":4}}]}",
		"{\"nftables\":[{\"rule\":{\"chain\":\"to_x\",\"expr\":[{\"dnat\":{\"addr\":4}}]}},"
		"{\"rule\":{\"chain\":\"to_y\",\"expr\":[{\"dnat\":{\"addr\":\"1.2.3.4\",\"port\":"
		"99999}}]}},{\"rule\":{\"chain\":\"choose\",\"expr\":[{\"vmap\":{\"data\":{\"set\":"
		"[[0],[0,7],8]}}}]}}]}"};
	struct bt_l4_target t = target(&nat, M(both));
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		BT_ARENA struct bt_arena *a = bt_arena_new();
		struct bt_nft_found f = {0};
		struct bt_err err = {0};
		assert_true(bt_nft_tables_read(bad[i], strlen(bad[i]), t.service, &f, &err) < 0);
		assert_true(bt_nft_table_read(bad[i], strlen(bad[i]), t.service, a, &f, &err) < 0);
	}
	for (size_t i = 0; i < BT_ARRAY_LEN(odd); i++) {
		BT_ARENA struct bt_arena *a = bt_arena_new();
		struct bt_nft_found f = {0};
		struct bt_err err = {0};
		assert_int_equal(
			bt_nft_table_read(odd[i], strlen(odd[i]), t.service, a, &f, &err), 0);
		assert_int_equal(f.n_members, 0);
		assert_false(f.leads);
	}
}

static void test_tables(void **state)
{
	(void)state;
	static const char text[] =
		"{\"nftables\":[{\"metainfo\":{}},{\"table\":{\"family\":\"ip\",\"name\":"
		"\"baton_shop\",\"handle\":3}},{\"table\":{\"family\":\"ip\",\"name\":"
		"\"baton_shop/release\",\"handle\":9}},{\"table\":{\"family\":\"netdev\",\"name\":"
		"\"baton_shop/release\",\"handle\":4}}]}";
	struct bt_l4_target t = target(&nat, M(both));
	struct bt_nft_found f = {0};
	struct bt_err err = {0};
	assert_int_equal(bt_nft_tables_read(text, strlen(text), t.service, &f, &err), 0);
	assert_int_equal(f.handle, 9);
	assert_true(f.others[BT_NFT_NETDEV]);
	assert_false(f.others[BT_NFT_IP] || f.others[BT_NFT_IP6]);
}

static void test_addresses(void **state)
{
	(void)state;
	assert_true(bt_nft_same_address("10.0.0.1", "10.0.0.1"));
	assert_true(bt_nft_same_address("fd00:0::1", "fd00::1"));
	assert_false(bt_nft_same_address("10.0.0.1", "10.0.0.2"));
	assert_false(bt_nft_same_address("10.0.0.1", "::ffff:10.0.0.1"));
	assert_false(bt_nft_same_address("shop", "shop"));
}

/* ---- the real nft, in a network of our own
 * ------------------------------------------------------- */

struct ended {
	struct event_base *base;
	int result;
	struct bt_err err;
	/* of a read */
	bool running;
	uint64_t epoch;
	size_t n;
	char in[64]; /* "was1 was2 " */
	char trouble[256], refuses[512];
	int64_t connections;
	bool counted;
};
static struct bt_driver_env env;

static int setup(void **state)
{
	struct bt_err err = {0};
	*state = NULL;
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		return 0; /* those tests are skipped */
	*state = &env;
	env.base = event_base_new();
	env.work = bt_work_new(env.base, 2);
	env.host = "l4";
	assert_int_equal(bt_l4_nftables.init(&env, &err), 0);
	return system(
		"ip link set lo up && ip link add lan type veth peer name far && "
		"ip link set lan up && ip link set far up && "
		"ip addr add 10.9.0.2/24 dev lan && ip -6 addr add fd00:9::2/64 dev lan nodad "
		"&& ip addr add 10.9.0.100/32 dev lan && "
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && "
		"for i in 11 12 13; do ip neigh add 10.9.0.$i lladdr 02:00:00:00:00:$i dev "
		"lan && ip neigh add fd00:9::$i lladdr 02:00:00:00:00:$i dev lan; done");
}

static int teardown(void **state)
{
	if (*state) {
		bt_work_free(env.work);
		event_base_free(env.base);
	}
	return 0;
}

static void on_written(void *arg, int result, const struct bt_err *err)
{
	struct ended *e = arg;
	e->result = result;
	if (result < 0)
		e->err = *err;
	event_base_loopbreak(env.base);
}

static void on_read(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	struct ended *e = arg;
	e->result = result;
	if (result < 0) {
		e->err = *err;
	} else {
		e->running = seen->running;
		e->epoch = seen->epoch;
		e->n = seen->n_members;
		snprintf(e->trouble, sizeof e->trouble, "%s", seen->trouble ? seen->trouble : "");
		snprintf(e->refuses, sizeof e->refuses, "%s", seen->refuses ? seen->refuses : "");
		for (size_t i = 0; i < seen->n_members; i++) {
			const struct bt_seen_member *m = &seen->members[i];
			size_t at = strlen(e->in);
			if (m->in)
				snprintf(e->in + at, sizeof e->in - at, "%s ",
					m->host ? m->host : m->address);
			e->connections += m->connections;
			e->counted = e->counted || m->counted;
		}
	}
	event_base_loopbreak(env.base);
}

static struct ended apply(const struct bt_l4 *l4, const struct bt_pool_member *m, size_t n)
{
	struct ended e = {.result = 1};
	struct bt_l4_target t = target(l4, m, n);
	assert_non_null(bt_l4_nftables.write(&t, NULL, NULL, on_written, &e));
	assert_int_equal(e.result, 1); /* never from inside the verb */
	event_base_dispatch(env.base);
	return e;
}

static struct ended look(const struct bt_l4 *l4, const struct bt_pool_member *m, size_t n)
{
	struct ended e = {.result = 1};
	struct bt_l4_target t = target(l4, m, n);
	assert_non_null(bt_l4_nftables.read(&t, on_read, &e));
	event_base_dispatch(env.base);
	return e;
}

static void flush(void)
{
	assert_int_equal(system("nft flush ruleset"), 0);
}

#define NEEDS_ROOT(state)                                                                          \
	do {                                                                                       \
		if (!*(state))                                                                     \
			skip();                                                                    \
	} while (0)

static void test_every_case_is_taken(void **state)
{
	NEEDS_ROOT(state);
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		flush();
		struct ended e = apply(cases[i].l4, cases[i].members, cases[i].n);
		assert_string_equal(e.err.text, "");
		e = look(cases[i].l4, cases[i].members, cases[i].n);
		assert_string_equal(e.err.text, "");
		assert_true(e.running && e.epoch);
		assert_int_equal(e.n, cases[i].n);
		char want[64] = "";
		for (size_t k = 0; k < cases[i].n; k++)
			if (cases[i].members[k].in) {
				strcat(want, cases[i].members[k].host);
				strcat(want, " ");
			}
		assert_string_equal(e.in, want);
		assert_string_equal(e.refuses, "");
		assert_int_equal(e.counted, cases[i].l4->mode == BT_L4_NAT);
	}
}

static void test_changes(void **state)
{
	NEEDS_ROOT(state);
	flush();
	struct ended e = look(&nat, M(both));
	assert_int_equal(e.result, 0);
	uint64_t nothing = e.epoch;
	assert_true(e.running && e.n == 0 && nothing);

	for (int mode = 0; mode < 2; mode++) {
		const struct bt_l4 *l4 = mode ? &dsr : &nat;
		assert_string_equal(apply(l4, M(both)).err.text, "");
		uint64_t epoch = look(l4, M(both)).epoch;
		assert_true(epoch != nothing);
		assert_string_equal(apply(l4, M(first)).err.text, "");
		e = look(l4, M(first));
		assert_string_equal(e.in, "was1 ");
		assert_int_equal(e.epoch, epoch); /* an own change is no new beginning */
		assert_string_equal(apply(l4, M(first)).err.text, "");
		assert_string_equal(apply(l4, M(others)).err.text, "");
		e = look(l4, M(others));
		assert_int_equal(e.n, 2);
		assert_string_equal(e.in, "was2 was3 ");
	}
	/* the other mode's table is gone */
	assert_int_equal(system("nft list table netdev baton_shop/release >/dev/null"), 0);
	assert_int_not_equal(
		system("nft list table ip baton_shop/release >/dev/null 2>/dev/null"), 0);

	e = look(&dsr, M(others));
	flush();
	assert_string_equal(apply(&dsr, M(others)).err.text, "");
	assert_true(look(&dsr, M(others)).epoch != e.epoch);
}

/* What others did to the table is seen: nobody is in where no rule leads there. */
static void test_tampered(void **state)
{
	NEEDS_ROOT(state);
	flush();
	assert_string_equal(apply(&nat, M(both)).err.text, "");
	struct ended before = look(&nat, M(both));
	assert_int_equal(system("nft flush chain ip baton_shop/release prerouting"), 0);
	struct ended e = look(&nat, M(both));
	assert_string_equal(e.in, "");
	assert_true(e.epoch != before.epoch);
	assert_string_equal(apply(&nat, M(both)).err.text, "");
	assert_int_equal(system("nft add rule ip baton_shop/release choose counter && "
				"nft add chain ip baton_shop/release mine"),
		0);
	e = look(&nat, M(both));
	assert_string_equal(e.in, "was1 was2 ");
	assert_string_equal(apply(&nat, M(first)).err.text, "");
	assert_string_equal(look(&nat, M(first)).in, "was1 ");
}

static void test_refusals(void **state)
{
	NEEDS_ROOT(state);
	static const struct bt_pool_member own[] = {{.address = "10.9.0.2",
		.port = 8080,
		.slot = "main",
		.host = "l4",
		.in = true,
		.one = false}};
	static const struct bt_pool_member here[] = {{.address = "127.0.0.1",
		.port = 8080,
		.slot = "main",
		.host = "was1",
		.in = true,
		.one = false}};
	static const struct bt_pool_member named[] = {
		{"was1.example.com", 8080, "main", "was1", true, false, false}};
	static const struct bt_pool_member mixed[] = {{.address = "fd00:9::11",
		.port = 8080,
		.slot = "main",
		.host = "was1",
		.in = true,
		.one = false}};
	static const struct bt_pool_member silent[] = {{.address = "10.9.0.11",
							       .port = 8080,
							       .slot = "main",
							       .host = "was1",
							       .in = true,
							       .one = false},
		{.address = "10.9.0.99",
			.port = 8080,
			.slot = "main",
			.host = "was9",
			.in = true,
			.one = false}};
	static const struct bt_pool_member quiet[] = {{.address = "10.9.0.11",
							      .port = 8080,
							      .slot = "main",
							      .host = "was1",
							      .in = true,
							      .one = false},
		{.address = "10.9.0.99",
			.port = 8080,
			.slot = "main",
			.host = "was9",
			.in = false,
			.one = false}};
	struct bt_l4 nowhere = dsr;
	nowhere.nftables.interface = "nolan0";
	flush();
	assert_int_equal(apply(&nowhere, M(both)).result, BT_E_REFUSED);
	assert_non_null(strstr(look(&nowhere, M(both)).refuses, "nolan0"));
	assert_int_equal(apply(&dsr, M(own)).result, BT_E_REFUSED);
	assert_int_equal(apply(&nat, M(here)).result, BT_E_REFUSED);
	assert_int_equal(apply(&nat, M(named)).result, BT_E_REFUSED);
	assert_int_equal(apply(&nat, M(mixed)).result, BT_E_REFUSED);
	assert_int_equal(look(&dsr, M(both)).n, 0); /* nothing was written */
	struct ended e = apply(&dsr, M(silent));
	assert_int_equal(e.result, BT_E_FAILED);
	assert_non_null(strstr(e.err.text, "was9"));
	assert_string_equal(apply(&dsr, M(quiet)).err.text, ""); /* who is out need not answer */
	assert_int_equal(system("sysctl -qw net.ipv4.ip_forward=0"), 0);
	e = apply(&nat, M(both));
	assert_int_equal(e.result, BT_E_REFUSED);
	assert_non_null(strstr(e.err.text, "net.ipv4.ip_forward"));
	assert_int_equal(system("sysctl -qw net.ipv4.ip_forward=1"), 0);
	struct bt_l4 away = nat;
	away.vip = "10.9.0.101";
	assert_string_equal(apply(&away, M(both)).err.text, "");
	assert_non_null(strstr(look(&away, M(both)).trouble, "10.9.0.101"));
	assert_string_equal(look(&nat, M(both)).trouble, "");
}

/* With IPv6 the kernel chooses among all addresses of the host whom it speaks as. */
static void test_a_host_that_speaks_as_the_vip(void **state)
{
	NEEDS_ROOT(state);
	flush();
	assert_int_equal(system("ip -6 addr add fd00:9::100/128 dev lan nodad"), 0);
	struct ended e = look(&dsr6, M(six));
	assert_non_null(
		strstr(e.refuses, "ip addr change fd00:9::100/128 dev lan preferred_lft 0"));
	assert_string_equal(look(&nat6, M(six)).refuses, "");
	assert_string_equal(
		apply(&dsr6, M(six)).err.text, ""); /* packets are sent on all the same */
	assert_int_equal(system("ip addr change fd00:9::100/128 dev lan preferred_lft 0"), 0);
	assert_string_equal(look(&dsr6, M(six)).refuses, "");
	assert_int_equal(system("ip -6 addr del fd00:9::100/128 dev lan"), 0);
	assert_string_equal(look(&dsr6, M(six)).refuses, "");
}

static void test_no_nft(void **state)
{
	NEEDS_ROOT(state);
	/* Where mounts are our own, there is no nft but an empty place. */
	if (unshare(CLONE_NEWNS) < 0 ||
		system("mount --make-rprivate / && mount --bind /dev/null /usr/sbin/nft") != 0)
		skip();
	struct ended e = apply(&nat, M(both));
	assert_int_equal(e.result, BT_E_NOTFOUND);
	assert_non_null(strstr(e.err.text, "nftables"));
	assert_int_equal(system("umount /usr/sbin/nft"), 0);
}

static void test_cancel(void **state)
{
	NEEDS_ROOT(state);
	struct ended e[4];
	bool cancelled[4];
	struct bt_l4_target t = target(&nat, M(both));
	for (int turns = 0; turns < 4; turns++) {
		e[turns] = (struct ended){.result = 1};
		struct bt_op *op = bt_l4_nftables.read(&t, on_read, &e[turns]);
		for (int i = 0; i < turns && e[turns].result == 1; i++)
			event_base_loop(env.base, EVLOOP_ONCE);
		cancelled[turns] = e[turns].result == 1; /* two things may have come in one turn */
		if (cancelled[turns])
			bt_op_cancel(op);
	}
	assert_true(cancelled[0]);
	assert_int_equal(look(&nat, M(both)).result, 0); /* and none of the others has answered */
	for (int turns = 0; turns < 4; turns++)
		assert_int_equal(e[turns].result, cancelled[turns] ? 1 : 0);
}

static socklen_t place(const char *address, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
		memcpy(ret, &v4, sizeof v4);
		return sizeof v4;
	}
	assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
	memcpy(ret, &v6, sizeof v6);
	return sizeof v6;
}

/* Connections to the VIP count for who answers them, until they are closed. */
static void counts(const struct bt_l4 *l4, const struct bt_pool_member *local)
{
	struct sockaddr_storage at, vip;
	socklen_t n = place(local->address, local->port, &at);
	place(l4->vip, l4->port, &vip);
	int listener = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	assert_int_equal(bind(listener, (struct sockaddr *)&at, n), 0);
	assert_int_equal(listen(listener, 8), 0);
	flush();
	assert_string_equal(apply(l4, local, 1).err.text, "");
	assert_int_equal(look(l4, local, 1).connections, 0);
	int clients[3], servers[3];
	for (int i = 0; i < 3; i++) {
		clients[i] = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(clients[i], (struct sockaddr *)&vip, n), 0);
		servers[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		assert_true(servers[i] >= 0);
		assert_int_equal(look(l4, local, 1).connections, i + 1);
	}
	for (int i = 0; i < 3; i++) {
		char c;
		close(clients[i]);
		assert_int_equal(read(servers[i], &c, 1), 0);
		close(servers[i]);
	}
	assert_int_equal(look(l4, local, 1).connections, 0);
	close(listener);
}

static void test_counts(void **state)
{
	NEEDS_ROOT(state);
	static const struct bt_pool_member local = {
		.address = "10.9.0.2", .port = 8080, .slot = "main", .host = "l4", .in = true};
	static const struct bt_pool_member local6 = {
		.address = "fd00:9::2", .port = 8080, .slot = "main", .host = "l4", .in = true};
	counts(&nat, &local);
	counts(&nat6, &local6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_golden_change),
		cmocka_unit_test(test_bad_listings),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_every_case_is_taken),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_tampered),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_a_host_that_speaks_as_the_vip),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_no_nft),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
