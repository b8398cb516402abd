/* nftables as a family of L4 balancers: read and write, each a chain of steps.
 *
 *     write   what the host needs, neighbours → tables → list → one transaction → list: is it so?
 *     read    what the host lacks → list → connections
 *     drain   connections of the members that it asks about
 *
 * All tables are listed only before a write, which takes away those of another mode. Connections
 * are counted where somebody asks for them: a dump walks the whole hash of the kernel's table,
 * tens of milliseconds however few there are. nft is a child each time (its library is GPL). What
 * asks the kernel and waits for it runs on a thread; an operation that is cancelled meanwhile ends
 * when that thread does, and nobody hears of it. */
#include "driver/l4_nft.h"

#include "base/json.h"
#include "base/str.h"
#include "driver/members.h"
#include "driver/op.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NFT_TIMEOUT_MS 20000
#define NEIGHBOURS_MS 4000 /* the kernel asks three times, a second apart */
#define NO_TABLE_EPOCH UINT64_MAX

static struct bt_driver_env env;

enum step { LIST_TABLES, LIST_TABLE, APPLY };

struct nft_op {
	struct bt_op op;
	bool writes, written, cancelled, in_thread;
	struct bt_arena *arena;
	struct bt_l4_target target; /* a copy: threads read it, also after a cancel */
	struct bt_nft_found found;
	enum step step;
	struct bt_child *child;
	char *input;
	char trouble[256];
	struct bt_err refuses, err; /* why the host cannot serve it; of the thread's step */
	int result;
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn written_fn;
	bt_l4_seen_fn seen_fn;
	void *arg;
};

static void op_free(struct nft_op *op)
{
	bt_child_cancel(op->child);
	bt_arena_free(op->arena);
	free(op->input);
	free(op);
}

static void op_cancel(struct bt_op *base)
{
	struct nft_op *op = (struct nft_op *)base;
	op->cancelled = true;
	if (!op->in_thread)
		op_free(op);
}

/* Members as the service has them, however nft spells their addresses. */
static void name_members(struct nft_op *op)
{
	for (size_t i = 0; i < op->found.n_members; i++)
		for (size_t k = 0; k < op->target.n_members; k++) {
			struct bt_seen_member *seen = &op->found.members[i];
			const struct bt_pool_member *m = &op->target.members[k];
			if (seen->port != m->port ||
				!bt_nft_same_address(seen->address, m->address))
				continue;
			seen->address = m->address;
			seen->host = m->host;
			seen->slot = m->slot;
		}
}

static void finish(struct nft_op *op, int result, const struct bt_err *err)
{
	name_members(op);
	struct bt_l4_seen seen = {
		.running = result == 0,
		.epoch = op->found.handle && op->found.leads ? op->found.handle : NO_TABLE_EPOCH,
		.members = op->found.members,
		.n_members = op->found.n_members,
		.trouble = op->trouble[0] ? op->trouble : NULL,
		.refuses = op->refuses.code ? op->refuses.text : NULL,
	};
	if (op->writes)
		op->written_fn(op->arg, result, err);
	else
		op->seen_fn(op->arg, result, result < 0 ? NULL : &seen, err);
	op_free(op);
}

static void in_thread(struct nft_op *op, void (*run)(void *), void (*done)(void *))
{
	op->in_thread = true;
	bt_work_submit(env.work, run, done, op);
}

/* Back from a thread; false: it was cancelled meanwhile, and is gone. */
static bool still_wanted(struct nft_op *op)
{
	op->in_thread = false;
	if (!op->cancelled)
		return true;
	op_free(op);
	return false;
}

/* ---- nft
 * ------------------------------------------------------------------------------------------- */

/* An agent's PATH may lack the directories of administration. */
static const char *program(char *buf, size_t n)
{
	const char *path = getenv("PATH");
	BT_FREE char *list = bt_asprintf("%s:/usr/sbin:/sbin:/usr/local/sbin", path ? path : "");
	char *save = NULL;
	for (char *dir = strtok_r(list, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		snprintf(buf, n, "%s/nft", dir);
		if (dir[0] == '/' && access(buf, X_OK) == 0)
			return buf;
	}
	return NULL;
}

/* "internal:0:0-0: Error: Could not process rule: No such file or directory" */
static void first_line(const char *text, char *buf, size_t n)
{
	const char *error = strstr(text, "Error: ");
	text = error ? error + 7 : text;
	snprintf(buf, n, "%.*s", (int)strcspn(text, "\n"), text);
}

static int nft_error(const struct nft_op *op, const struct bt_child_result *c, struct bt_err *err)
{
	char line[256], how[256];
	if (c->timed_out || c->signal || !c->output_len)
		return bt_err_set(
			err, BT_E_FAILED, "nft: %s", bt_child_describe(c, how, sizeof how));
	first_line(c->output, line, sizeof line);
	if (strstr(c->output, "Operation not permitted"))
		return bt_err_set(err, BT_E_REFUSED,
			"nft: %s: the agent needs to be root, or CAP_NET_ADMIN in its network",
			line);
	if (op->step == APPLY && (strstr(c->output, "No such file or directory") ||
					 strstr(c->output, "not supported")))
		return bt_err_set(err, BT_E_FAILED,
			"nft: %s: this kernel lacks what the rules need (%s)", line,
			op->target.service->l4->mode == BT_L4_DSR
				? "nf_tables with netdev, nft_hash and nft_fwd_netdev"
				: "nf_tables with nft_nat, nft_masq, nft_numgen and nft_ct");
	return bt_err_set(err, BT_E_FAILED, "nft: %s", line);
}

static void on_nft(void *arg, const struct bt_child_result *c);

static void run_nft(struct nft_op *op, enum step step)
{
	char path[512], table[BT_NFT_NAME_MAX];
	const char *family = bt_nft_family_name(bt_nft_family_of(op->target.service->l4));
	struct bt_err err = {0};
	bt_nft_table_name(op->target.service->name, table);
	const char *argv[8] = {program(path, sizeof path), "-j"};
	const char *const words[][5] = {
		[LIST_TABLES] = {"list", "tables"},
		[LIST_TABLE] = {"-t", "list", "table", family, table},
		[APPLY] = {"-f", "-"},
	};
	for (size_t i = 0; i < 5 && words[step][i]; i++)
		argv[2 + i] = words[step][i];
	op->step = step;
	if (!argv[0]) {
		finish(op,
			bt_err_set(&err, BT_E_NOTFOUND,
				"there is no program nft on this host: install the package "
				"nftables"),
			&err);
		return;
	}
	struct bt_child_spec spec = {
		.argv = argv,
		.input = step == APPLY ? op->input : NULL,
		.input_len = step == APPLY ? strlen(op->input) : 0,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.timeout_ms = NFT_TIMEOUT_MS,
		.max_output = BT_NFT_LISTING_MAX,
	};
	int r = bt_child_start(env.base, &spec, on_nft, op, &op->child, &err);
	if (r < 0)
		finish(op, r, &err);
}

/* ---- the ends
 * -------------------------------------------------------------------------------------- */

static bool is_so(const struct nft_op *op)
{
	const struct bt_l4_target *t = &op->target;
	for (size_t i = 0; i < t->n_members; i++) {
		bool found = false;
		for (size_t k = 0; k < op->found.n_members; k++) {
			const struct bt_seen_member *m = &op->found.members[k];
			found = found ||
				(m->port == t->members[i].port && m->in == t->members[i].in &&
					bt_nft_same_address(m->address, t->members[i].address));
		}
		if (!found)
			return false;
	}
	return op->found.handle && op->found.leads && op->found.n_members == t->n_members;
}

static void on_counted(void *arg)
{
	struct nft_op *op = arg;
	if (!still_wanted(op))
		return;
	if (op->result < 0 && !op->trouble[0])
		snprintf(op->trouble, sizeof op->trouble, "%.250s", op->err.text);
	finish(op, 0, NULL);
}

static void count(void *arg)
{
	struct nft_op *op = arg;
	op->result = bt_nft_count(
		op->target.service->l4, op->found.members, op->found.n_members, &op->err);
}

static void tell(const struct nft_op *op)
{
	char table[BT_NFT_NAME_MAX], line[BT_NFT_NAME_MAX + 64];
	if (!op->progress)
		return;
	bt_nft_table_name(op->target.service->name, table);
	snprintf(line, sizeof line, "%s table %s %s", op->found.handle ? "changes" : "makes",
		bt_nft_family_name(bt_nft_family_of(op->target.service->l4)), table);
	op->progress(op->progress_arg, line);
}

/* The table is listed, or known to be absent. */
static void listed(struct nft_op *op)
{
	struct bt_err err = {0};
	if (op->writes && !op->written) {
		tell(op);
		op->input = bt_nft_render(&op->target, &op->found);
		run_nft(op, APPLY);
	} else if (op->writes && !is_so(op)) {
		finish(op,
			bt_err_set(&err, BT_E_FAILED,
				"the rules were taken, but what is there now is not what was "
				"written: somebody else changes the same table"),
			&err);
	} else if (!op->writes && !op->target.uncounted && op->found.n_members &&
		   op->target.service->l4->mode == BT_L4_NAT) {
		in_thread(op, count, on_counted);
	} else {
		finish(op, 0, NULL);
	}
}

static int understand(struct nft_op *op, const struct bt_child_result *c, struct bt_err *err)
{
	const struct bt_service *s = op->target.service;
	if (c->cut)
		return bt_err_set(
			err, BT_E_REFUSED, "nft lists more than %u MiB", BT_NFT_LISTING_MAX >> 20);
	/* A table's list tells its handle, too; of those of another mode only `list tables` knows.
	 */
	struct bt_nft_found found = op->found;
	int r = bt_nft_tables_read(c->output, c->output_len, s, &found, err);
	if (r < 0)
		return r;
	if (op->step == LIST_TABLE)
		memcpy(found.others, op->found.others, sizeof found.others);
	op->found = found;
	return op->step == LIST_TABLES
		       ? 0
		       : bt_nft_table_read(c->output, c->output_len, s, op->arena, &op->found, err);
}

static void on_nft(void *arg, const struct bt_child_result *c)
{
	struct nft_op *op = arg;
	struct bt_err err = {0};
	op->child = NULL;
	bool good = c->exit_code == 0;
	bool gone = !good && op->step == LIST_TABLE && strstr(c->output, "No such file");
	int r = good ? 0 : gone ? 0 : nft_error(op, c, &err);
	if (r == 0 && gone) /* taken away between the two lists */
		op->found = (struct bt_nft_found){0};
	else if (r == 0 && op->step != APPLY)
		r = understand(op, c, &err);
	if (r < 0) {
		finish(op, r, &err);
	} else if (op->step == APPLY) {
		op->written = true;
		if (op->target.read_back) {
			finish(op, 0, &err);
			return;
		}
		op->found = (struct bt_nft_found){0};
		run_nft(op, LIST_TABLE);
	} else if (op->step == LIST_TABLES && op->found.handle) {
		run_nft(op, LIST_TABLE);
	} else {
		listed(op);
	}
}

/* ---- the beginning
 * ------------------------------------------------------------------------------------ */

/* Where connections go was decided when they began: the rules of now need not be read. */
static void count_asked(struct nft_op *op)
{
	const struct bt_l4_target *t = &op->target;
	op->found.members = BT_ARENA_ARRAY(op->arena, struct bt_seen_member, t->n_members + 1);
	op->found.n_members = t->n_members;
	for (size_t i = 0; i < t->n_members; i++)
		op->found.members[i] = (struct bt_seen_member){.address = t->members[i].address,
			.port = t->members[i].port,
			.in = t->members[i].in};
	in_thread(op, count, on_counted);
}

static void on_looked(void *arg)
{
	struct nft_op *op = arg;
	if (!still_wanted(op))
		return;
	if (op->result < 0)
		finish(op, op->result, &op->err);
	else if (op->target.counting && op->target.service->l4->mode == BT_L4_NAT)
		count_asked(op);
	else
		run_nft(op, op->writes ? LIST_TABLES : LIST_TABLE);
}

static void look(void *arg)
{
	struct nft_op *op = arg;
	const struct bt_l4 *l4 = op->target.service->l4;
	if (!op->writes) {
		/* The second is a reason to begin nothing, and none to leave rules unwritten. */
		if (bt_nft_host_check(&op->target, &op->refuses) == 0)
			bt_nft_source_check(l4, &op->refuses);
		bt_nft_host_trouble(l4, op->trouble, sizeof op->trouble);
		return;
	}
	op->result = bt_nft_host_check(&op->target, &op->err);
	if (op->result == 0 && l4->mode == BT_L4_DSR)
		op->result = bt_nft_neighbours(&op->target, NEIGHBOURS_MS, &op->err);
}

static struct bt_l4_target copy_target(struct bt_arena *a, const struct bt_l4_target *t)
{
	struct bt_l4 *l4 = BT_ARENA_NEW(a, struct bt_l4);
	struct bt_service *s = BT_ARENA_NEW(a, struct bt_service);
	*l4 = (struct bt_l4){
		.kind = t->service->l4->kind,
		.mode = t->service->l4->mode,
		.vip = bt_arena_strdup(a, t->service->l4->vip),
		.port = t->service->l4->port,
		.nftables = {.interface = bt_arena_strdup(a, t->service->l4->nftables.interface),
			.masquerade = t->service->l4->nftables.masquerade},
	};
	s->name = bt_arena_strdup(a, t->service->name);
	s->l4 = l4;
	return (struct bt_l4_target){.service = s,
		.members = bt_members_copy(a, t->members, t->n_members),
		.n_members = t->n_members,
		.uncounted = t->uncounted,
		.read_back = t->read_back,
		.counting = t->counting};
}

static struct nft_op *begin(const struct bt_l4_target *t, bool writes, void *arg)
{
	struct nft_op *op = bt_calloc(1, sizeof *op);
	op->op.cancel = op_cancel;
	op->writes = writes;
	op->arena = bt_arena_new();
	op->target = copy_target(op->arena, t);
	op->arg = arg;
	in_thread(op, look, on_looked);
	return op;
}

static struct bt_op *nft_write(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct nft_op *op = begin(t, true, arg);
	op->progress = progress;
	op->progress_arg = progress_arg;
	op->written_fn = done;
	return &op->op;
}

static struct bt_op *nft_read(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg)
{
	struct nft_op *op = begin(t, false, arg);
	op->seen_fn = done;
	return &op->op;
}

static int nft_init(const struct bt_driver_env *e, struct bt_err *err)
{
	(void)err;
	env = *e;
	return 0;
}

const struct bt_l4_family bt_l4_nftables = {
	.kind = BT_BALANCER_NFTABLES,
	.init = nft_init,
	.write = nft_write,
	.read = nft_read,
};
