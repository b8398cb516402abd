#include "driver/l4_haproxy_parse.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define WORDS_MAX 256
#define SERVERS_MAX 8192

bool bt_haproxy_is_served(const struct bt_haproxy_server *s)
{
	return bt_haproxy_is_in(s) && s->op_state == BT_HAPROXY_RUNNING &&
	       (!(s->check_state & BT_HAPROXY_CHECKED) ||
		       s->check_result == BT_HAPROXY_CHECK_PASSED);
}

/* The line at *p without its end, and *p after it; false: no more. */
static bool next_line(const char **p, const char **ret_line, size_t *ret_n)
{
	if (!**p)
		return false;
	const char *end = strchr(*p, '\n');
	*ret_line = *p;
	*ret_n = end ? (size_t)(end - *p) : strlen(*p);
	*p = end ? end + 1 : *p + *ret_n;
	if (*ret_n && (*ret_line)[*ret_n - 1] == '\r')
		--*ret_n;
	return true;
}

const char *bt_haproxy_complaint(const char *text, char *buf, size_t n)
{
	const char *line;
	size_t len;
	buf[0] = 0;
	while (!buf[0] && next_line(&text, &line, &len))
		snprintf(buf, n, "%.*s", (int)(len < 400 ? len : 400), line);
	return buf;
}

static int unknown(struct bt_err *err, const char *command, const char *text)
{
	char said[300];
	bt_haproxy_complaint(text, said, sizeof said);
	return bt_err_set(err, BT_E_PROTOCOL, "haproxy's answer to '%s' is not understood: %s",
		command, *said ? said : "it is empty");
}

/* ---- show info ---------------------------------------------------------------------------- */

static bool number_after(const char *line, size_t n, const char *name, int64_t *ret)
{
	size_t k = strlen(name);
	if (n <= k || strncmp(line, name, k) != 0)
		return false;
	BT_FREE char *value = bt_strndup(line + k, n - k);
	return bt_int_parse(value, 0, INT64_MAX, ret, NULL) == 0;
}

int bt_haproxy_info(
	const char *text, struct bt_arena *a, struct bt_haproxy_view *v, struct bt_err *err)
{
	const char *p = text, *line;
	size_t n;
	while (next_line(&p, &line, &n)) {
		if (n > 9 && !strncmp(line, "Version: ", 9))
			v->version = bt_arena_strndup(a, line + 9, n - 9);
		number_after(line, n, "Pid: ", &v->pid);
		number_after(line, n, "Start_time_sec: ", &v->start_s);
	}
	return v->pid ? 0 : unknown(err, "show info", text);
}

/* ---- show servers state ------------------------------------------------------------------- */

struct row {
	char *words[WORDS_MAX]; /* within text */
	size_t n;
	char *text;
};

static void row_free(struct row *r)
{
	free(r->text);
	*r = (struct row){0};
}

static void split_blanks(const char *line, size_t n, struct row *r)
{
	char *save = NULL;
	row_free(r);
	r->text = bt_strndup(line, n);
	for (char *w = strtok_r(r->text, " ", &save); w && r->n < WORDS_MAX;
		w = strtok_r(NULL, " ", &save))
		r->words[r->n++] = w;
}

static const char *word(const struct row *head, const struct row *r, const char *name)
{
	for (size_t i = 0; i < head->n; i++)
		if (bt_streq(head->words[i], name))
			return i < r->n ? r->words[i] : NULL;
	return NULL;
}

static bool small(
	const struct row *head, const struct row *r, const char *name, int64_t max, int64_t *ret)
{
	const char *w = word(head, r, name);
	return w && bt_int_parse(w, 0, max, ret, NULL) == 0;
}

static bool read_server(const struct row *head, const struct row *r, struct bt_arena *a,
	struct bt_haproxy_server *s)
{
	int64_t op, admin, result, state, port = 0;
	const char *name = word(head, r, "srv_name"), *address = word(head, r, "srv_addr");
	if (!name || !address || !small(head, r, "srv_op_state", 255, &op) ||
		!small(head, r, "srv_admin_state", 255, &admin) ||
		!small(head, r, "srv_check_result", 255, &result) ||
		!small(head, r, "srv_check_state", 255, &state))
		return false;
	(void)small(head, r, "srv_port", 65535, &port);
	*s = (struct bt_haproxy_server){.name = bt_arena_strdup(a, name),
		.address = bt_arena_strdup(a, address),
		.port = (uint16_t)port,
		.op_state = (int)op,
		.admin_state = (int)admin,
		.check_result = (int)result,
		.check_state = (int)state,
		.status = "",
		.check = ""};
	return true;
}

int bt_haproxy_servers(
	const char *text, struct bt_arena *a, struct bt_haproxy_view *v, struct bt_err *err)
{
	const char *p = text, *line;
	size_t n, count = 0;
	struct row head = {0}, r = {0};
	bool good = next_line(&p, &line, &n) && n == 1 && *line == '1' &&
		    next_line(&p, &line, &n) && n > 2 && line[0] == '#';
	if (good)
		split_blanks(line + 1, n - 1, &head);
	for (const char *c = p; good && *c; c++)
		count += *c == '\n';
	if (count > SERVERS_MAX)
		count = SERVERS_MAX;
	v->servers = BT_ARENA_ARRAY(a, struct bt_haproxy_server, count + 1);
	v->n_servers = 0;
	while (good && v->n_servers < count && next_line(&p, &line, &n)) {
		split_blanks(line, n, &r);
		if (r.n > 0 && (good = read_server(&head, &r, a, &v->servers[v->n_servers])))
			v->n_servers++;
	}
	row_free(&head);
	row_free(&r);
	return good ? 0 : unknown(err, "show servers state", text);
}

/* ---- show stat ---------------------------------------------------------------------------- */

/* How long the record is, its end of line included. */
static size_t record_length(const char *p)
{
	bool quoted = false;
	size_t n = 0;
	for (; p[n]; n++) {
		quoted ^= p[n] == '"';
		if (!quoted && p[n] == '\n')
			return n + 1;
	}
	return n;
}

/* One record of CSV; within quotes "" is a quote, and an end of line is itself. Words beyond the
 * bound are dropped. false: no more. */
static bool next_record(const char **p, struct row *r)
{
	row_free(r);
	if (!**p)
		return false;
	size_t n = record_length(*p);
	const char *in = *p, *end = in + n;
	char *out = r->text = bt_malloc(n + 1);
	bool quoted = false;
	r->words[r->n++] = out;
	for (; in < end && (quoted || *in != '\n'); in++) {
		if (quoted && *in == '"' && in + 1 < end && in[1] == '"') {
			*out++ = *in++;
		} else if (*in == '"') {
			quoted = !quoted;
		} else if (!quoted && *in == ',') {
			*out++ = 0;
			if (r->n < WORDS_MAX)
				r->words[r->n++] = out;
		} else {
			*out++ = *in;
		}
	}
	*out = 0;
	*p = end;
	return true;
}

static int64_t count_of(const struct row *head, const struct row *r, const char *name)
{
	int64_t v = 0;
	(void)small(head, r, name, INT64_MAX >> 4, &v);
	return v;
}

static void read_totals(const struct row *head, const struct row *r, struct bt_haproxy_totals *t)
{
	static const char *const all[] = {
		"hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"};
	const char *failed = word(head, r, "hrsp_5xx");
	*t = (struct bt_haproxy_totals){.http = failed && *failed};
	for (size_t i = 0; t->http && i < BT_ARRAY_LEN(all); i++)
		t->answers += count_of(head, r, all[i]);
	t->failed = count_of(head, r, "hrsp_5xx");
}

static const char *text_of(const struct row *head, const struct row *r, const char *name)
{
	const char *w = word(head, r, name);
	return w ? w : "";
}

static void read_stat(const struct row *head, const struct row *r, struct bt_arena *a,
	struct bt_haproxy_server *s)
{
	int64_t now = 0;
	const char *check = text_of(head, r, "check_status");
	check += strncmp(check, "* ", 2) ? 0 : 2; /* the last one's; another is on its way */
	const char *last = text_of(head, r, "last_chk");
	s->counted = small(head, r, "scur", UINT32_MAX >> 1, &now);
	s->connections = (uint32_t)now;
	if (small(head, r, "qcur", UINT32_MAX >> 1, &now))
		s->connections += (uint32_t)now;
	s->backup = count_of(head, r, "bck") > 0;
	s->status = bt_arena_strdup(a, text_of(head, r, "status"));
	s->check = bt_arena_printf(a, "%.80s%s%.160s", check, *last ? " " : "", last);
}

int bt_haproxy_stat(
	const char *text, struct bt_arena *a, struct bt_haproxy_view *v, struct bt_err *err)
{
	const char *p = text;
	struct row head = {0}, r = {0};
	bool good = next_record(&p, &head) && !strncmp(head.words[0], "# pxname", 8);
	while (good && next_record(&p, &r)) {
		const char *name = text_of(&head, &r, "svname");
		if (bt_streq(name, "BACKEND"))
			read_totals(&head, &r, &v->totals);
		for (size_t i = 0; i < v->n_servers; i++)
			if (bt_streq(name, v->servers[i].name))
				read_stat(&head, &r, a, &v->servers[i]);
	}
	row_free(&head);
	row_free(&r);
	return good ? 0 : unknown(err, "show stat", text);
}

/* ---- show backend ------------------------------------------------------------------------- */

size_t bt_haproxy_backends(const char *text, struct bt_arena *a, const char ***ret)
{
	const char *line;
	size_t n, count = 0, max = 0;
	for (const char *c = text; *c; c++)
		max += *c == '\n';
	if (max > SERVERS_MAX)
		max = SERVERS_MAX;
	*ret = BT_ARENA_ARRAY(a, const char *, max + 1);
	while (count < max && next_line(&text, &line, &n))
		if (n > 0 && line[0] != '#')
			(*ret)[count++] = bt_arena_strndup(a, line, n);
	return count;
}
