#include "driver/nginx_conf.h"

#include "base/str.h"

#include <string.h>

/* ---- the language ------------------------------------------------------------------------- */

struct lexer {
	const char *p, *end;
	int line;
};

static void skip_blank(struct lexer *l)
{
	while (l->p < l->end) {
		if (*l->p == '#')
			while (l->p < l->end && *l->p != '\n')
				l->p++;
		else if (strchr(" \t\r\n", *l->p) && *l->p)
			l->line += *l->p++ == '\n';
		else
			return;
	}
}

/* A word into `word`. `${name}` does not open a block. */
static int read_word(struct lexer *l, struct bt_str *word, struct bt_err *err)
{
	char quote = *l->p == '"' || *l->p == '\'' ? *l->p++ : 0;
	int line = l->line;
	while (l->p < l->end) {
		char c = *l->p;
		if (quote ? c == quote : strchr(" \t\r\n;", c) != NULL)
			break;
		if (!quote && (c == '{' || c == '}') &&
			!(word->len > 0 && c == '{' && word->data[word->len - 1] == '$')) {
			if (c == '}' && memchr(bt_str_get(word), '{', word->len)) {
				bt_str_addc(word, c);
				l->p++;
				continue;
			}
			break;
		}
		if (c == '\\' && l->p + 1 < l->end) {
			if (strchr("\"'\\", l->p[1]))
				l->p++;
			else
				bt_str_addc(word, *l->p++);
			c = *l->p;
		}
		l->line += c == '\n';
		bt_str_addc(word, c);
		l->p++;
	}
	if (quote && l->p >= l->end)
		return bt_err_set(err, BT_E_CONFIG, "line %d: a quote is not closed", line);
	l->p += quote != 0;
	return 0;
}

static int next_statement(
	struct lexer *l, struct bt_str *words, size_t *ret_n, char *ret_end, struct bt_err *err)
{
	size_t n = 0;
	for (;;) {
		skip_blank(l);
		if (l->p >= l->end)
			return n ? bt_err_set(err, BT_E_CONFIG, "line %d: ';' is missing", l->line)
				 : 1;
		char c = *l->p;
		if (c == ';' || c == '{' || c == '}') {
			if (c == '}' && n)
				return bt_err_set(
					err, BT_E_CONFIG, "line %d: ';' is missing", l->line);
			l->p++;
			*ret_n = n;
			*ret_end = c;
			return 0;
		}
		if (n == BT_NGINX_WORDS_MAX) { /* long lists (types, ssl_ciphers): the rest is not
						  read */
			BT_STR struct bt_str rest = {0};
			int r = read_word(l, &rest, err);
			if (r < 0)
				return r;
			continue;
		}
		bt_str_reset(&words[n]);
		int r = read_word(l, &words[n], err);
		if (r < 0)
			return r;
		n++;
	}
}

int bt_nginx_conf_read(
	const char *text, size_t n, bt_nginx_statement_fn on, void *arg, struct bt_err *err)
{
	struct lexer l = {text, text + strnlen(text, n), 1};
	struct bt_str words[BT_NGINX_WORDS_MAX] = {0};
	const char *list[BT_NGINX_WORDS_MAX];
	int depth = 0, r;
	size_t k = 0;
	char end = 0;
	while ((r = next_statement(&l, words, &k, &end, err)) == 0) {
		for (size_t i = 0; i < k; i++)
			list[i] = bt_str_get(&words[i]);
		if (end == '}')
			depth--;
		if (depth < 0) {
			r = bt_err_set(err, BT_E_CONFIG, "line %d: '}' closes nothing", l.line);
			break;
		}
		if (!on(arg, depth, end, k, list))
			break;
		if (end == '{')
			depth++;
	}
	for (size_t i = 0; i < BT_NGINX_WORDS_MAX; i++)
		bt_str_done(&words[i]);
	return r < 0 ? r : 0;
}

/* ---- members ------------------------------------------------------------------------------ */

/* "http://127.0.0.1:8081/", "[::1]:8081", "8081" → address and port; false where it is none
 * (a unix socket, a name without a port means 80). */
static bool split_address(
	const char *text, struct bt_arena *a, const char **ret_address, uint16_t *ret_port)
{
	const char *p = strstr(text, "://");
	p = p ? p + 3 : text;
	if (bt_str_starts(p, "unix:"))
		return false;
	size_t len = strcspn(p, "/");
	int64_t port = 80;
	const char *host = p, *colon = NULL;
	size_t host_len = len;
	if (*p == '[') {
		const char *close = memchr(p, ']', len);
		if (!close)
			return false;
		host = p + 1;
		host_len = (size_t)(close - host);
		colon = close + 1 < p + len && close[1] == ':' ? close + 1 : NULL;
	} else {
		colon = memchr(p, ':', len);
		host_len = colon ? (size_t)(colon - p) : len;
	}
	if (colon) {
		BT_FREE char *digits = bt_strndup(colon + 1, len - (size_t)(colon + 1 - p));
		if (bt_int_parse(digits, 1, 65535, &port, NULL) < 0)
			return false;
	}
	*ret_address = bt_arena_strndup(a, host, host_len);
	*ret_port = (uint16_t)port;
	return host_len > 0;
}

struct members {
	const struct bt_nginx *nginx;
	const char *block, *variable; /* the one that is looked for */
	const char *block_one;	      /* who of them serves routes to one; NULL: no such block */
	int inside;		      /* depth of the block's body, 0: outside */
	bool inside_one;
	bool targets; /* nothing is looked for: everything counts */
	struct bt_seen_member one;
	struct bt_arena *arena;
	struct bt_seen_member *items;
	size_t n, cap;
};

static void add_member(struct members *m, const char *text, bool in)
{
	struct bt_seen_member seen = {.in = in};
	if (!split_address(text, m->arena, &seen.address, &seen.port))
		return;
	if (m->n == m->cap) {
		m->cap = m->cap ? 2 * m->cap : 8;
		struct bt_seen_member *more =
			BT_ARENA_ARRAY(m->arena, struct bt_seen_member, m->cap);
		if (m->n)
			memcpy(more, m->items, m->n * sizeof *more);
		m->items = more;
	}
	m->items[m->n++] = seen;
}

/* Everything that a whole file sends to: servers of any upstream, and addresses it proxies to. */
static bool on_target(struct members *m, char end, size_t n, const char *const *w)
{
	bool in = true;
	if (end == ';' && n == 2 && bt_streq(w[0], "proxy_pass"))
		add_member(m, w[1], true);
	if (end != ';' || n < 2 || !bt_streq(w[0], "server"))
		return true;
	for (size_t i = 2; i < n; i++)
		in = in && !bt_streq(w[i], "backup") && !bt_streq(w[i], "down");
	add_member(m, w[1], in);
	return true;
}

static bool on_member(void *arg, int depth, char end, size_t n, const char *const *w)
{
	struct members *m = arg;
	if (m->targets)
		return on_target(m, end, n, w);
	if (m->variable) {
		bool hit = end == ';' && n == 3 && bt_streq(w[0], "set") && w[1][0] == '$' &&
			   bt_streq(w[1] + 1, m->variable);
		if (!hit)
			return true;
		m->n = 0; /* the last one counts, as it does for nginx */
		if (m->nginx->form == BT_NGINX_SERVICE_PORT) {
			BT_FREE char *addr = bt_asprintf("127.0.0.1:%s", w[2]);
			add_member(m, addr, true);
		} else {
			add_member(m, w[2], true);
		}
		return true;
	}
	if (end == '}') {
		m->inside = depth < m->inside ? 0 : m->inside;
		return true;
	}
	if (end == '{' && n == 2 && bt_streq(w[0], "upstream")) {
		m->inside_one = m->block_one && bt_streq(w[1], m->block_one);
		m->inside = m->inside_one || bt_streq(w[1], m->block) ? depth + 1 : m->inside;
	}
	if (end != ';' || !m->inside || depth != m->inside || n < 2 || !bt_streq(w[0], "server"))
		return true;
	bool in = true;
	for (size_t i = 2; i < n; i++)
		in = in && !bt_streq(w[i], "backup") && !bt_streq(w[i], "down");
	if (!m->inside_one)
		add_member(m, w[1], in);
	else if (in)
		(void)split_address(w[1], m->arena, &m->one.address, &m->one.port);
	return true;
}

int bt_nginx_conf_members(const char *text, size_t n, const struct bt_nginx *nginx,
	const char *service_name, struct bt_arena *a, struct bt_seen_member **ret, size_t *ret_n,
	struct bt_err *err)
{
	struct members m = {.nginx = nginx, .arena = a};
	if (nginx->mode == BT_NGINX_MANAGED) {
		m.block = "baton_all";
		m.block_one = "baton_one";
	} else if (nginx->form == BT_NGINX_SITE) {
		m.targets = true;
	} else if (nginx->form == BT_NGINX_UPSTREAM) {
		m.block = nginx->upstream ? nginx->upstream : service_name;
		m.block_one = nginx->one;
	} else {
		m.variable = nginx->variable			    ? nginx->variable
			     : nginx->form == BT_NGINX_SERVICE_PORT ? "service_port"
								    : "service_url";
		m.variable += m.variable[0] == '$';
	}
	int r = bt_nginx_conf_read(text, n, on_member, &m, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < m.n; i++)
		m.items[i].one = m.items[i].in && m.items[i].port == m.one.port &&
				 bt_streq(m.items[i].address, m.one.address);
	*ret = m.items;
	*ret_n = m.n;
	return 0;
}

/* ---- what nginx says ---------------------------------------------------------------------- */

static const char section_mark[] = "# configuration file ";

/* The next section of a dump: its path (caller frees) and text; NULL at the end. */
static char *next_section(const char **at, const char **ret_text, size_t *ret_len)
{
	const char *p = *at;
	while (p && !bt_str_starts(p, section_mark)) {
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	if (!p)
		return NULL;
	const char *eol = strchrnul(p, '\n');
	size_t n = (size_t)(eol - p) - (sizeof section_mark - 1);
	while (n > 0 && (p[sizeof section_mark - 1 + n - 1] == ':' ||
				p[sizeof section_mark - 1 + n - 1] == '\r'))
		n--;
	char *path = bt_strndup(p + sizeof section_mark - 1, n);
	const char *text = *eol ? eol + 1 : eol, *stop = text;
	while (*stop && !bt_str_starts(stop, section_mark)) {
		stop = strchrnul(stop, '\n');
		stop += *stop == '\n';
	}
	*ret_text = text;
	*ret_len = (size_t)(stop - text);
	*at = stop;
	return path;
}

void bt_nginx_dump_files(const char *dump, bool (*on)(void *arg, const char *path), void *arg)
{
	const char *at = dump, *text;
	size_t n;
	for (char *path; (path = next_section(&at, &text, &n));) {
		bool more = on(arg, path);
		free(path);
		if (!more)
			return;
	}
}

struct main_context {
	char *pid, *error_log;
	bool first_file;
};

static bool on_main(void *arg, int depth, char end, size_t n, const char *const *w)
{
	struct main_context *m = arg;
	if (depth != 0 || end != ';' || n < 2)
		return true;
	if (bt_streq(w[0], "pid")) {
		free(m->pid);
		m->pid = bt_strdup(w[1]);
	} else if (m->first_file && !m->error_log && bt_streq(w[0], "error_log")) {
		m->error_log = bt_strdup(w[1]);
	}
	return true;
}

/* --pid-path=/run/nginx.pid out of `nginx -V`; NULL where it is not named. Caller frees. */
static char *build_option(const char *version, const char *name)
{
	BT_FREE char *key = bt_asprintf(" --%s=", name);
	const char *p = version ? strstr(version, key) : NULL;
	if (!p)
		return NULL;
	p += strlen(key);
	return bt_strndup(p, strcspn(p, " \n'"));
}

static char *absolute(char *path, const char *prefix)
{
	if (!path || path[0] == '/')
		return path;
	char *full = bt_asprintf("%s%s%s", prefix, bt_str_ends(prefix, "/") ? "" : "/", path);
	free(path);
	return full;
}

void bt_nginx_facts_read(const char *version_output, const char *dump, const char *prefix,
	struct bt_nginx_facts *ret)
{
	struct main_context m = {.first_file = true};
	const char *at = dump, *text;
	size_t n;
	for (char *path; (path = next_section(&at, &text, &n));) {
		(void)bt_nginx_conf_read(text, n, on_main, &m, NULL); /* nginx itself accepted it */
		m.first_file = false;
		free(path);
	}
	BT_FREE char *built = build_option(version_output, "prefix");
	const char *base = prefix ? prefix : built ? built : "/usr/local/nginx";
	if (!m.pid)
		m.pid = build_option(version_output, "pid-path");
	if (!m.error_log)
		m.error_log = build_option(version_output, "error-log-path");
	if (!m.pid)
		m.pid = bt_strdup("logs/nginx.pid");
	if (!m.error_log)
		m.error_log = bt_strdup("logs/error.log");
	if (bt_streq(m.error_log, "stderr") || bt_str_starts(m.error_log, "syslog:") ||
		bt_str_starts(m.error_log, "memory:")) {
		free(m.error_log);
		m.error_log = NULL;
	}
	ret->pid_file = absolute(m.pid, base);
	ret->error_log = absolute(m.error_log, base);
}

void bt_nginx_facts_done(struct bt_nginx_facts *f)
{
	free(f->pid_file);
	free(f->error_log);
	*f = (struct bt_nginx_facts){0};
}

char *bt_nginx_reason(const char *output)
{
	static const char *const levels[] = {"[emerg] ", "[alert] ", "[error] ", "[crit] "};
	for (size_t i = 0; i < BT_ARRAY_LEN(levels); i++) {
		const char *p = strstr(output, levels[i]);
		if (!p)
			continue;
		p += strlen(levels[i]);
		/* the error log puts "PID#TID: " there */
		size_t digits = strspn(p, "0123456789#");
		if (digits && !strncmp(p + digits, ": ", 2))
			p += digits + 2;
		return bt_strndup(p, strcspn(p, "\r\n"));
	}
	size_t end = strlen(output);
	while (end > 0 && strchr(" \r\n", output[end - 1]))
		end--;
	size_t start = end;
	while (start > 0 && output[start - 1] != '\n')
		start--;
	return end > start ? bt_strndup(output + start, end - start) : bt_strdup("no reason given");
}
