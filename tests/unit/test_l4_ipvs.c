/* IPVS: messages against what a real kernel said (tests/golden/ipvs, written by ipvs-probe in
 * user-mode Linux), what is changed, what is remembered, and this machine's own kernel. */
#include "base/fs.h"
#include "base/str.h"
#include "driver/l4.h"
#include "driver/l4_ipvs_checks.h"
#include "driver/l4_ipvs_link.h"
#include "driver/l4_ipvs_work.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- golden messages ------------------------------------------------------------------------- */

struct message {
	uint8_t *data; /* of just its size: a step too far is seen */
	size_t n;
};
struct exchange {
	char name[64];
	struct message request, replies[8];
	size_t n_replies;
};
static struct exchange golden[64];
static size_t n_golden;

static struct message unhex(const char *text)
{
	struct message m = {.n = strlen(text) / 2};
	m.data = bt_malloc(m.n);
	assert_int_equal(bt_unhex(text, m.data, m.n), 0);
	return m;
}

static int load_golden(void **state)
{
	(void)state;
	BT_FREE char *text = NULL;
	char *save = NULL;
	assert_int_equal(
		bt_fs_read(GOLDEN_DIR "/ipvs/kernel-6.1.hex", 1 << 20, &text, NULL, NULL), 0);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (bt_str_starts(line, "case "))
			snprintf(golden[n_golden++].name, sizeof golden->name, "%s", line + 5);
		struct exchange *x = &golden[n_golden - 1];
		if (line[0] == '>')
			x->request = unhex(line + 2);
		else if (line[0] == '<')
			x->replies[x->n_replies++] = unhex(line + 2);
	}
	return 0;
}

static int free_golden(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_golden; i++) {
		free(golden[i].request.data);
		for (size_t k = 0; k < golden[i].n_replies; k++)
			free(golden[i].replies[k].data);
	}
	return 0;
}

static const struct exchange *find(const char *name)
{
	for (size_t i = 0; i < n_golden; i++)
		if (bt_streq(golden[i].name, name))
			return &golden[i];
	fail_msg("no golden message %s", name);
	return NULL;
}

static uint32_t seq_of(const struct exchange *x)
{
	uint32_t seq;
	memcpy(&seq, x->request.data + 8, sizeof seq);
	return seq;
}

static uint16_t type_of(const struct exchange *x)
{
	uint16_t type;
	memcpy(&type, x->request.data + 4, sizeof type);
	return type;
}

static struct bt_ipvs_address address(const char *text)
{
	struct bt_ipvs_address a = {0};
	assert_int_equal(bt_ipvs_address_parse(text, &a, NULL), 0);
	return a;
}

/* Every reply to it, in order; how many. */
static size_t replies(const struct exchange *x, int ip, struct bt_ipvs_reply *out, size_t max)
{
	size_t n = 0;
	struct bt_err err = {0};
	for (size_t i = 0; i < x->n_replies; i++) {
		const void *at = x->replies[i].data;
		size_t left = x->replies[i].n;
		int r;
		while (n < max && (r = bt_ipvs_next(&at, &left, seq_of(x), type_of(x), ip, &out[n],
					   &err)) > 0)
			n++;
		assert_int_equal(left, 0);
	}
	return n;
}

static void encodes_what_the_kernel_took(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		uint8_t command;
		bool v6;
		int dest; /* 1, 2: which; 0: none */
		int64_t weight;
	} rows[] = {
		{"no-service-4", IPVS_CMD_GET_SERVICE, false, 0, 0},
		{"no-dests-4", IPVS_CMD_GET_DEST, false, 0, 0},
		{"new-service-4", IPVS_CMD_NEW_SERVICE, false, 0, 0},
		{"new-dest-4", IPVS_CMD_NEW_DEST, false, 1, 100},
		{"second-dest-4", IPVS_CMD_NEW_DEST, false, 2, 7},
		{"out-4", IPVS_CMD_SET_DEST, false, 1, 0},
		{"del-dest-4", IPVS_CMD_DEL_DEST, false, 2, 7},
		{"del-service-4", IPVS_CMD_DEL_SERVICE, false, 0, 0},
		{"new-service-6", IPVS_CMD_NEW_SERVICE, true, 0, 0},
		{"new-dest-6", IPVS_CMD_NEW_DEST, true, 1, 100},
		{"out-6", IPVS_CMD_SET_DEST, true, 1, 0},
		{"dests-6", IPVS_CMD_GET_DEST, true, 0, 0},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		const struct exchange *x = find(rows[i].name);
		bool first = rows[i].dest == 1, v6 = rows[i].v6;
		struct bt_ipvs_service s = {
			.address = address(v6 ? "2001:db8::100" : "10.0.0.100"),
			.port = 80,
			.scheduler = "wrr",
		};
		struct bt_ipvs_dest d = {
			.address = address(first ? v6 ? "2001:db8::11" : "10.0.0.11"
					   : v6	 ? "2001:db8::12"
						 : "10.0.0.12"),
			.port = 8080,
			.forward = first ? IP_VS_CONN_F_DROUTE : IP_VS_CONN_F_MASQ,
			.weight = rows[i].weight,
		};
		_Alignas(8) char buf[BT_IPVS_REQUEST_MAX];
		memset(buf, 0xa5, sizeof buf);
		size_t n = bt_ipvs_ask(
			buf, seq_of(x), type_of(x), rows[i].command, &s, rows[i].dest ? &d : NULL);
		assert_int_equal(n, x->request.n);
		assert_memory_equal(buf, x->request.data, n);
	}
	_Alignas(8) char buf[BT_IPVS_REQUEST_MAX];
	assert_int_equal(bt_ipvs_ask_family(buf, 1), find("family")->request.n);
	assert_memory_equal(buf, find("family")->request.data, find("family")->request.n);
}

static void decodes_services(void **state)
{
	(void)state;
	struct bt_ipvs_reply r[8];
	assert_int_equal(replies(find("family"), AF_INET, r, 8), 2);
	assert_int_equal(r[0].kind, BT_IPVS_FAMILY);
	assert_int_equal(r[0].family, type_of(find("service-4")));
	assert_int_equal(r[1].kind, BT_IPVS_END);
	assert_int_equal(replies(find("service-4"), AF_INET, r, 8), 2);
	assert_int_equal(r[0].kind, BT_IPVS_SERVICE);
	struct bt_ipvs_address vip = address("10.0.0.100");
	assert_true(bt_ipvs_address_equal(&r[0].service.address, &vip));
	assert_int_equal(r[0].service.port, 80);
	assert_string_equal(r[0].service.scheduler, "wrr");
	assert_int_equal(r[0].service.flags & IP_VS_SVC_F_PERSISTENT, 0);
	assert_int_equal(r[1].kind, BT_IPVS_END);
	assert_int_equal(r[1].error, 0);
	assert_int_equal(replies(find("service-6"), AF_INET6, r, 8), 2);
	vip = address("2001:db8::100");
	assert_true(bt_ipvs_address_equal(&r[0].service.address, &vip));
}

static void decodes_real_servers(void **state)
{
	(void)state;
	struct bt_ipvs_reply r[8];
	char text[46];
	assert_int_equal(replies(find("dests-4"), AF_INET, r, 8), 3);
	for (int i = 0; i < 2; i++) {
		const struct bt_ipvs_dest *d = &r[i].dest;
		bool first = d->forward == IP_VS_CONN_F_DROUTE;
		assert_int_equal(r[i].kind, BT_IPVS_DEST);
		assert_string_equal(
			bt_ipvs_address_text(&d->address, text), first ? "10.0.0.11" : "10.0.0.12");
		assert_int_equal(d->port, 8080);
		assert_int_equal(d->weight, first ? 0 : 7);
		assert_int_equal(d->active, 0);
	}
	assert_true(r[0].dest.forward != r[1].dest.forward);
	assert_int_equal(r[2].kind, BT_IPVS_END);
	assert_int_equal(replies(find("dests-6"), AF_INET6, r, 8), 3);
	assert_int_equal(r[0].dest.address.family, AF_INET6);
	assert_int_equal(replies(find("no-dests-4"), AF_INET, r, 8), 1);
	assert_int_equal(r[0].kind, BT_IPVS_END);
}

/* Counts of connections, which the probe's service has none of: put into the kernel's message. */
static void decodes_counts(void **state)
{
	(void)state;
	const struct exchange *x = find("dests-4");
	struct exchange copy = *x;
	copy.n_replies = 1;
	copy.replies[0].data = bt_malloc(x->replies[0].n);
	memcpy(copy.replies[0].data, x->replies[0].data, x->replies[0].n);
	const uint8_t kinds[] = {IPVS_DEST_ATTR_ACTIVE_CONNS, IPVS_DEST_ATTR_INACT_CONNS,
		IPVS_DEST_ATTR_PERSIST_CONNS};
	for (uint8_t i = 0; i < 3; i++) {
		const uint8_t head[] = {8, 0, kinds[i], 0};
		uint8_t *at = memmem(copy.replies[0].data, copy.replies[0].n, head, sizeof head);
		assert_non_null(at);
		at[4] = (uint8_t)(i + 1);
		at[5] = 1;
	}
	struct bt_ipvs_reply r[8];
	assert_int_equal(replies(&copy, AF_INET, r, 8), 2);
	assert_int_equal(r[0].dest.active, 257);
	assert_int_equal(r[0].dest.inactive, 258);
	assert_int_equal(r[0].dest.persistent, 259);
	free(copy.replies[0].data);
}

static void decodes_errors(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		int error;
	} rows[] = {{"no-service-4", ESRCH}, {"same-service-4", EEXIST}, {"same-dest-6", EEXIST},
		{"gone-dest-4", ENOENT}, {"no-scheduler", ENOENT}, {"out-4", 0}};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		struct bt_ipvs_reply r[8];
		assert_int_equal(replies(find(rows[i].name), AF_INET, r, 8), 1);
		assert_int_equal(r[0].kind, BT_IPVS_END);
		assert_int_equal(r[0].error, rows[i].error);
	}
	/* of another request: not ours */
	struct exchange x = *find("no-service-4");
	const void *at = x.replies[0].data;
	size_t left = x.replies[0].n;
	struct bt_ipvs_reply r;
	assert_int_equal(bt_ipvs_next(&at, &left, 999, type_of(&x), AF_INET, &r, NULL), 1);
	assert_int_equal(r.kind, BT_IPVS_OTHER);
}

static void decodes_why(void **state)
{
	(void)state;
	/* an error -1 that was cut (0x100) and has a sentence (0x200) */
	static _Alignas(8) const uint8_t bytes[] = {48, 0, 0, 0, 2, 0, 0, 3, 7, 0, 0, 0, 0, 0, 0, 0,
		0xff, 0xff, 0xff, 0xff, 20, 0, 0, 0, 28, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 11, 0, 1,
		0, 'n', 'o', ' ', 'w', 'a', 'y', 0, 0};
	const void *at = bytes;
	size_t left = sizeof bytes;
	struct bt_ipvs_reply r;
	assert_int_equal(bt_ipvs_next(&at, &left, 7, 28, AF_INET, &r, NULL), 1);
	assert_int_equal(r.error, 1);
	assert_string_equal(r.why, "no way");
	assert_int_equal(left, 0);
}

/* Cut anywhere, and with any length that an attribute can claim: told or refused, never beyond. */
static void survives_nonsense(void **state)
{
	(void)state;
	struct bt_ipvs_reply r;
	for (size_t i = 0; i < n_golden; i++)
		for (size_t k = 0; k < golden[i].n_replies; k++) {
			const struct message *m = &golden[i].replies[k];
			for (size_t n = 1; n < m->n; n++) {
				uint8_t *data = bt_malloc(n);
				memcpy(data, m->data, n);
				const void *at = data;
				size_t left = n;
				int got;
				while ((got = bt_ipvs_next(&at, &left, seq_of(&golden[i]),
						type_of(&golden[i]), AF_INET, &r, NULL)) > 0)
					;
				assert_true(got < 0 || left == 0);
				free(data);
			}
		}
	const struct exchange *x = find("dests-4");
	for (size_t where = 16; where + 1 < x->replies[0].n; where += 2)
		for (unsigned value = 0; value < 0x200; value += 3) {
			uint8_t *data = bt_malloc(x->replies[0].n);
			memcpy(data, x->replies[0].data, x->replies[0].n);
			data[where] = (uint8_t)value;
			data[where + 1] = (uint8_t)(value >> 8);
			const void *at = data;
			size_t left = x->replies[0].n;
			while (bt_ipvs_next(&at, &left, seq_of(x), type_of(x), AF_INET, &r, NULL) >
				0)
				assert_true(left < x->replies[0].n);
			free(data);
		}
}

/* ---- what is changed ------------------------------------------------------------------------- */

#define MEMBERS(...)                                                                               \
	.members = (const struct bt_ipvs_member[]){__VA_ARGS__},                                   \
	.n_members =                                                                               \
		sizeof((struct bt_ipvs_member[]){__VA_ARGS__}) / sizeof(struct bt_ipvs_member)

static struct bt_ipvs_member member(const char *a, bool in)
{
	return (struct bt_ipvs_member){
		.address = address(a), .port = 80, .in = in, .slot = "main", .host = a};
}

static struct bt_ipvs_dest dest(const char *a, int64_t weight)
{
	return (struct bt_ipvs_dest){.address = address(a),
		.port = 80,
		.forward = IP_VS_CONN_F_DROUTE,
		.weight = weight};
}

static const struct bt_ipvs_memory nothing;

/* "10.0.0.1+100 10.0.0.2=0 10.0.0.3-" */
static const char *shown(const struct bt_ipvs_plan *p, struct bt_str *out)
{
	char text[46];
	bt_str_reset(out);
	for (size_t i = 0; i < p->n_changes; i++) {
		const struct bt_ipvs_change *c = &p->changes[i];
		bt_str_addf(out, "%s%s", i ? " " : "", bt_ipvs_address_text(&c->to.address, text));
		if (c->command == IPVS_CMD_DEL_DEST)
			bt_str_add(out, "-");
		else
			bt_str_addf(out, "%c%d", c->command == IPVS_CMD_NEW_DEST ? '+' : '=',
				(int)c->to.weight);
	}
	return bt_str_get(out);
}

static void makes_what_is_missing(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_STR struct bt_str s = {0};
	struct bt_ipvs_plan p;
	const struct bt_ipvs_want want = {
		MEMBERS(member("10.0.0.1", true), member("10.0.0.2", false)),
		.forward = IP_VS_CONN_F_MASQ};
	bt_ipvs_plan(&want, NULL, 0, &nothing, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.1+100");
	assert_int_equal(p.changes[0].to.forward, IP_VS_CONN_F_MASQ);
	assert_true(p.remembers && p.memory.n == 1 && p.memory.list[0].made);
	/* done again: nothing */
	const struct bt_ipvs_dest seen[] = {dest("10.0.0.1", 100)};
	const struct bt_ipvs_memory before = p.memory;
	bt_ipvs_plan(&want, seen, 1, &before, a, &p);
	assert_int_equal(p.n_changes, 0);
	assert_false(p.remembers);
	assert_null(bt_ipvs_differs(&want, seen, 1, &before));
	assert_ptr_equal(bt_ipvs_differs(&want, NULL, 0, &before), &want.members[0]);
}

static void weights_come_back(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_STR struct bt_str s = {0};
	struct bt_ipvs_plan p;
	struct bt_ipvs_dest seen[] = {
		dest("10.0.0.1", 3), dest("10.0.0.2", 5), dest("10.0.0.9", 7)};
	seen[0].upper = 1000;
	/* one goes out, the other comes and stays what it was, a stranger is left alone */
	const struct bt_ipvs_want out = {
		MEMBERS(member("10.0.0.1", false), member("10.0.0.2", true))};
	bt_ipvs_plan(&out, seen, 3, &nothing, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.1=0");
	assert_int_equal(p.changes[0].to.upper, 1000);
	assert_int_equal(p.changes[0].to.forward, IP_VS_CONN_F_DROUTE);
	assert_int_equal(p.memory.n, 1);
	assert_int_equal(p.memory.list[0].weight, 3);
	assert_false(p.memory.list[0].made);
	struct bt_ipvs_memory memory = p.memory;
	/* told again while it is out: still 3 */
	seen[0].weight = 0;
	bt_ipvs_plan(&out, seen, 3, &memory, a, &p);
	assert_int_equal(p.n_changes, 0);
	assert_false(p.remembers);
	/* it comes before the other goes */
	const struct bt_ipvs_want turn = {
		MEMBERS(member("10.0.0.1", true), member("10.0.0.2", false))};
	bt_ipvs_plan(&turn, seen, 3, &memory, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.1=3 10.0.0.2=0");
	/* taken away by others meanwhile: made again as it was */
	bt_ipvs_plan(&turn, seen + 1, 2, &memory, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.1+3 10.0.0.2=0");
}

static void weights_of_the_config_count(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_STR struct bt_str s = {0};
	struct bt_ipvs_plan p;
	const struct bt_ipvs_dest seen[] = {dest("10.0.0.1", 3), dest("10.0.0.9", 7)};
	struct bt_ipvs_want want = {
		MEMBERS(member("10.0.0.1", true), member("10.0.0.2", true)), .weight = 50};
	bt_ipvs_plan(&want, seen, 2, &nothing, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.1=50 10.0.0.2+50");
	/* none said: a newcomer gets the highest of those that are there */
	want.weight = 0;
	bt_ipvs_plan(&want, seen, 2, &nothing, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.2+7");
}

static void parts_with_the_dropped(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_STR struct bt_str s = {0};
	struct bt_ipvs_plan p;
	const struct bt_ipvs_known known[] = {
		{.address = address("10.0.0.7"), .port = 80, .made = true},
		{.address = address("10.0.0.8"), .port = 80, .weight = 4},
	};
	const struct bt_ipvs_memory memory = {.list = known, .n = 2};
	const struct bt_ipvs_want want = {MEMBERS(member("10.0.0.1", true))};
	struct bt_ipvs_dest seen[] = {
		dest("10.0.0.1", 1), dest("10.0.0.7", 1), dest("10.0.0.8", 4)};
	seen[1].inactive = 1;
	/* both go to 0; ours is kept in mind until it is empty, the other is nobody's of us now */
	bt_ipvs_plan(&want, seen, 3, &memory, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.7=0 10.0.0.8=0");
	assert_int_equal(p.memory.n, 1);
	const struct bt_ipvs_memory after = p.memory;
	seen[1].weight = seen[2].weight = 0;
	bt_ipvs_plan(&want, seen, 3, &after, a, &p);
	assert_int_equal(p.n_changes, 0); /* it has a connection */
	seen[1].inactive = 0;
	seen[2].weight = 4; /* a person wants it */
	bt_ipvs_plan(&want, seen, 3, &after, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.7-");
	assert_int_equal(p.memory.n, 0);
}

/* keepalived takes real servers away and puts them back; baton makes none in its services. */
static void leaves_real_servers_to_their_owner(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_STR struct bt_str s = {0};
	struct bt_ipvs_plan p;
	struct bt_ipvs_member members[] = {
		member("10.0.0.1", true), member("10.0.0.2", false), member("10.0.0.3", true)};
	const struct bt_ipvs_want want = {.vip = address("192.0.2.1"),
		.port = 80,
		.adopted = true,
		.members = members,
		.n_members = 3};
	struct bt_ipvs_dest seen[] = {dest("10.0.0.1", 4), dest("10.0.0.2", 5)};
	/* the third is away, and that is nobody's to mend while another goes out */
	bt_ipvs_plan(&want, seen, 2, &nothing, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.2=0");
	assert_true(p.memory.adopted && p.memory.n == 1 && p.memory.list[0].out);
	const struct bt_ipvs_memory memory = p.memory;
	seen[1].weight = 0;
	assert_true(bt_ipvs_is_away(&want, &members[2], seen, 2, &memory));
	assert_null(bt_ipvs_differs(&want, seen, 2, &memory));
	assert_null(bt_ipvs_awaited(&want, seen, 2, &memory));
	/* where it comes in by the change, its owner is waited for */
	members[2].fresh = true;
	assert_ptr_equal(bt_ipvs_awaited(&want, seen, 2, &memory), &members[2]);
	/* and where the last that serves is to go; when it is only said again nobody waits */
	members[0].in = members[2].fresh = false;
	assert_ptr_equal(bt_ipvs_awaited(&want, seen, 2, &memory), &members[2]);
	struct bt_ipvs_want again = want;
	again.again = true;
	assert_null(bt_ipvs_awaited(&again, seen, 2, &memory));
	members[0].in = true;
	/* a 0 of the owner's stays, one of baton's goes, one of who comes in goes, too */
	struct bt_ipvs_dest zero[] = {
		dest("10.0.0.1", 0), dest("10.0.0.2", 0), dest("10.0.0.3", 0)};
	members[1].in = true;
	members[2].fresh = false;
	bt_ipvs_plan(&want, zero, 3, &memory, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.2=5");
	members[0].fresh = true;
	bt_ipvs_plan(&want, zero, 3, &memory, a, &p);
	assert_string_equal(shown(&p, &s), "10.0.0.1=100 10.0.0.2=5");
	/* all of the service is gone: nothing is made */
	bt_ipvs_plan(&want, NULL, 0, &memory, a, &p);
	assert_int_equal(p.n_changes, 0);
}

static void knows_whose_a_service_is(void **state)
{
	(void)state;
	struct bt_ipvs_known made = {.address = address("10.0.0.1"), .port = 80, .made = true};
	struct bt_ipvs_memory m = {0};
	assert_true(bt_ipvs_memory_adopted(&m, true));
	assert_false(bt_ipvs_memory_adopted(&m, false));
	m = (struct bt_ipvs_memory){.list = &made, .n = 1}; /* of an older agent */
	assert_false(bt_ipvs_memory_adopted(&m, true));
	m.vip = address("192.0.2.1");
	m.port = 80;
	m.adopted = true;
	const struct bt_ipvs_service same = {.address = m.vip, .port = 80},
				     other = {.address = m.vip, .port = 81};
	bt_ipvs_memory_keep(&m, &same);
	assert_true(bt_ipvs_memory_adopted(&m, false)); /* its owner may make it again */
	bt_ipvs_memory_keep(&m, &other);
	assert_true(m.n == 0 && !bt_ipvs_memory_adopted(&m, false));
}

static void remembers_on_disk(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	const struct bt_ipvs_known known[] = {
		{.address = address("10.0.0.7"),
			.port = 80,
			.weight = 12,
			.out = true,
			.made = true},
		{.address = address("2001:db8::1"), .port = 8080, .weight = 0, .made = false},
	};
	const struct bt_ipvs_memory memory = {address("192.0.2.1"), 80, true, known, 2};
	struct bt_ipvs_memory again;
	BT_FREE char *text = bt_ipvs_memory_dump(&memory);
	assert_int_equal(bt_ipvs_memory_parse(text, strlen(text), a, &again, NULL), 0);
	assert_true(bt_ipvs_memory_equal(&memory, &again));
	assert_true(again.adopted && again.list[0].out && !again.list[1].out);
	/* of an older agent: whose the service is was not written, a weight meant out */
	const char *old = "{\"version\":1,\"servers\":[{\"address\":\"10.0.0.1\",\"port\":80,"
			  "\"weight\":3,\"made\":false}]}";
	assert_int_equal(bt_ipvs_memory_parse(old, strlen(old), a, &again, NULL), 0);
	assert_true(again.vip.family == 0 && again.list[0].out);
	assert_true(bt_ipvs_memory_adopted(&again, true));
	static const char *const bad[] = {"", "{}", "{\"version\":2,\"servers\":[]}",
		"{\"version\":1,\"servers\":[{\"address\":\"x\",\"port\":1,\"weight\":1,"
		"\"made\":true}]}",
		"{\"version\":1,\"servers\":[{\"address\":\"10.0.0.1\",\"port\":70000,"
		"\"weight\":1,\"made\":true}]}"};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		struct bt_err err = {0};
		assert_true(bt_ipvs_memory_parse(bad[i], strlen(bad[i]), a, &again, &err) < 0);
		assert_true(err.text[0]);
	}
}

/* ---- settings -------------------------------------------------------------------------------- */

static void set(const char *proc, const char *path, const char *value)
{
	BT_FREE char *file = bt_asprintf("%s/%s", proc, path);
	BT_FREE char *dir = bt_strdup(file);
	*strrchr(dir, '/') = 0;
	assert_int_equal(bt_fs_mkdirs(dir, 0700, NULL), 0);
	assert_int_equal(bt_fs_write_atomic(file, value, strlen(value), 0600, NULL), 0);
}

static void names_wrong_settings(void **state)
{
	(void)state;
	char proc[] = "/tmp/baton-test-XXXXXX";
	assert_non_null(mkdtemp(proc));
	struct bt_ipvs_service s = {.address = address("10.0.0.100"), .port = 80};
	BT_STR struct bt_str out = {0};
	bt_ipvs_check_settings(proc, &s, BT_L4_NAT, &out);
	assert_int_equal(out.len, 0); /* what is not there cannot be wrong */
	set(proc, "net/ipv4/vs/expire_nodest_conn", "1\n");
	set(proc, "net/ipv4/vs/conn_reuse_mode", "1\n");
	set(proc, "net/ipv4/vs/expire_quiescent_template", "0\n");
	set(proc, "net/ipv4/ip_forward", "0\n");
	set(proc, "net/ipv6/conf/all/forwarding", "0\n");
	bt_ipvs_check_settings(proc, &s, BT_L4_DSR, &out);
	assert_int_equal(out.len, 0);
	bt_ipvs_check_settings(proc, &s, BT_L4_NAT, &out);
	assert_true(bt_str_starts(bt_str_get(&out), "net.ipv4.ip_forward is 0, expected 1: "));
	assert_null(strchr(bt_str_get(&out), ';'));
	bt_str_reset(&out);
	s.address = address("2001:db8::100");
	bt_ipvs_check_settings(proc, &s, BT_L4_NAT, &out);
	assert_true(bt_str_starts(bt_str_get(&out), "net.ipv6.conf.all.forwarding is 0, "));
	bt_str_reset(&out);
	s.flags = IP_VS_SVC_F_PERSISTENT;
	set(proc, "net/ipv4/vs/expire_nodest_conn", "0\n");
	set(proc, "net/ipv4/vs/conn_reuse_mode", "0\n");
	bt_ipvs_check_settings(proc, &s, BT_L4_DSR, &out);
	assert_non_null(strstr(bt_str_get(&out), "net.ipv4.vs.expire_nodest_conn is 0"));
	assert_non_null(strstr(bt_str_get(&out), "net.ipv4.vs.conn_reuse_mode is 0"));
	assert_non_null(strstr(bt_str_get(&out), "net.ipv4.vs.expire_quiescent_template is 0"));
	assert_int_equal(bt_fs_remove_tree(proc, NULL), 0);
}

static void knows_its_own_addresses(void **state)
{
	(void)state;
	struct bt_ipvs_address own = address("127.0.0.1"), other = address("192.0.2.77");
	assert_true(bt_ipvs_is_local(&own));
	assert_false(bt_ipvs_is_local(&other));
	assert_true(bt_ipvs_asks_from(&own, &own));
	assert_false(bt_ipvs_asks_from(&other, &own));
}

static void parses_addresses(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "was1", "10.0.0", "10.0.0.256", "1:2", "10.0.0.1/32", "::g"};
	struct bt_ipvs_address a;
	struct bt_err err;
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++)
		assert_int_equal(bt_ipvs_address_parse(bad[i], &a, &err), BT_E_CONFIG);
}

/* ---- this machine's kernel ------------------------------------------------------------------- */

static struct event_base *base;
static bool ended;

/* Root, and a kernel that has IPVS by now: asking may have loaded it. */
static bool can(void)
{
	return geteuid() == 0 && access("/proc/net/ip_vs", F_OK) == 0;
}

static void on_seen(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	(void)arg;
	(void)err;
	assert_int_equal(result, 0);
	assert_int_equal(seen->running, can());
	assert_int_equal(seen->refuses == NULL, can());
	ended = true;
}

static void on_refused(
	void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	(void)arg;
	(void)err;
	assert_int_equal(result, 0);
	assert_false(seen->running);
	assert_non_null(seen->refuses);
	ended = true;
}

static void on_done(void *arg, int result, const struct bt_err *err)
{
	(void)arg;
	assert_true(result < 0 && err->text[0]);
	ended = true;
}

static void never(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	(void)arg;
	(void)result;
	(void)seen;
	(void)err;
	fail_msg("a cancelled operation was heard");
}

static void until_ended(void)
{
	for (ended = false; !ended;)
		assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

static void this_kernel(void **state)
{
	(void)state;
	char dir[] = "/tmp/baton-test-XXXXXX";
	assert_non_null(mkdtemp(dir));
	base = event_base_new();
	struct bt_work *work = bt_work_new(base, 1);
	struct bt_driver_env env = {.base = base, .work = work, .state_dir = dir, .host = "l4"};
	assert_int_equal(bt_l4_ipvs.init(&env, NULL), 0);
	const char *on[] = {"l4"};
	struct bt_l4 l4 = {.kind = BT_BALANCER_IPVS,
		.on = on,
		.n_on = 1,
		.vip = "192.0.2.77", /* for documents: nobody's */
		.port = 65001,
		.ipvs = {.scheduler = "no such"}};
	struct bt_service service = {.name = "shop", .l4 = &l4};
	struct bt_pool_member m = {
		.address = "192.0.2.78", .port = 1, .slot = "main", .host = "was1", .in = true};
	struct bt_l4_target t = {.service = &service};
	bt_l4_ipvs.read(&t, on_seen, NULL);
	until_ended();
	t.members = &m;
	t.n_members = 1;
	/* without IPVS, without the right or without the scheduler: in any case not */
	bt_l4_ipvs.write(&t, NULL, NULL, on_done, NULL);
	until_ended();
	m.address = "was1.example.com";
	bt_l4_ipvs.read(&t, on_refused, NULL);
	until_ended();
	m.address = "2001:db8::1"; /* the VIP is IPv4 */
	bt_l4_ipvs.read(&t, on_refused, NULL);
	until_ended();
	bt_op_cancel(bt_l4_ipvs.read(&t, never, NULL));
	bt_l4_ipvs.read(&t, on_refused, NULL); /* in order: the cancelled one is over then */
	until_ended();
	bt_work_free(work);
	event_base_free(base);
	assert_int_equal(bt_fs_remove_tree(dir, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encodes_what_the_kernel_took),
		cmocka_unit_test(decodes_services),
		cmocka_unit_test(decodes_real_servers),
		cmocka_unit_test(decodes_counts),
		cmocka_unit_test(decodes_errors),
		cmocka_unit_test(decodes_why),
		cmocka_unit_test(survives_nonsense),
		cmocka_unit_test(makes_what_is_missing),
		cmocka_unit_test(weights_come_back),
		cmocka_unit_test(weights_of_the_config_count),
		cmocka_unit_test(parts_with_the_dropped),
		cmocka_unit_test(leaves_real_servers_to_their_owner),
		cmocka_unit_test(knows_whose_a_service_is),
		cmocka_unit_test(remembers_on_disk),
		cmocka_unit_test(names_wrong_settings),
		cmocka_unit_test(knows_its_own_addresses),
		cmocka_unit_test(parses_addresses),
		cmocka_unit_test(this_kernel),
	};
	return cmocka_run_group_tests(tests, load_golden, free_golden);
}
