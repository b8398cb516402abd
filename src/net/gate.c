#include "net/gate.h"

#include "base/mem.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static int violation(struct bt_gate *g, int status, struct bt_err *err, const char *what)
{
	g->status = status;
	return bt_err_set(err, BT_E_PROTOCOL, "malformed request: %s", what);
}

static bool is_token(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)p[i]) && (!p[i] || !strchr("!#$%&'*+-.^_`|~", p[i])))
			return false;
	return n > 0;
}

static bool is_word(const char *p, size_t n, const char *word)
{
	return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

static bool is_digits(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isdigit((unsigned char)p[i]))
			return false;
	return n > 0;
}

/* name | IPv4 | [IPv6], and perhaps a port */
static bool is_host(const char *p, size_t n)
{
	const char *name = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
	const char *ip6 = "abcdefABCDEF0123456789:.";
	size_t i = 0;
	if (n > 262)
		return false;
	if (p[0] == '[') {
		for (i = 1; i < n && p[i] && strchr(ip6, p[i]); i++)
			;
		if (i >= n || i == 1 || p[i++] != ']')
			return false;
	} else {
		for (; i < n && p[i] && strchr(name, p[i]); i++)
			;
		if (i == 0)
			return false;
	}
	if (i == n)
		return true;
	return p[i] == ':' && n - i <= 6 && is_digits(p + i + 1, n - i - 1);
}

/* ---- the request line ---- */

static int request_line(
	struct bt_gate *g, const char *data, size_t at, size_t n, struct bt_err *err)
{
	const char *p = data + at;
	const char *first = memchr(p, ' ', n);
	size_t method = first ? (size_t)(first - p) : n;
	if (!first || method == 0 || method > BT_GATE_METHOD_MAX)
		return violation(g, 400, err, "expected METHOD TARGET HTTP/1.1");
	for (size_t i = 0; i < method; i++)
		if (!isupper((unsigned char)p[i]))
			return violation(g, 400, err, "a method is upper-case letters");
	const char *target = first + 1;
	size_t rest = n - method - 1;
	const char *second = memchr(target, ' ', rest);
	size_t len = second ? (size_t)(second - target) : rest;
	if (!second || len == 0)
		return violation(g, 400, err, "expected METHOD TARGET HTTP/1.1");
	if (len > BT_GATE_TARGET_MAX)
		return violation(g, 414, err, "the target is longer than 8 KiB");
	const char *version = second + 1;
	if (rest - len - 1 != 8 || memcmp(version, "HTTP/1.", 7) != 0 ||
		(version[7] != '0' && version[7] != '1'))
		return violation(g, 400, err, "expected HTTP/1.1 or HTTP/1.0");
	for (size_t i = 0; i < len; i++)
		if (target[i] < 0x21 || target[i] > 0x7e || target[i] == '#')
			return violation(g, 400, err, "a character that no target may hold");
	g->method = (struct bt_gate_span){(uint16_t)at, (uint16_t)method};
	g->target = (struct bt_gate_span){(uint16_t)(target - data), (uint16_t)len};
	g->minor = version[7] - '0';
	g->close = g->minor == 0;
	g->has_request_line = true;
	return 0;
}

/* Absolute form is allowed where it says what Host says; what is left is the path. */
static int origin_form(struct bt_gate *g, const char *data, struct bt_err *err)
{
	const char *p = data + g->target.at;
	size_t n = g->target.len;
	if (p[0] == '/')
		return 0;
	size_t scheme = n > 7 && strncasecmp(p, "http://", 7) == 0    ? 7
			: n > 8 && strncasecmp(p, "https://", 8) == 0 ? 8
								      : 0;
	const char *slash = scheme ? memchr(p + scheme, '/', n - scheme) : NULL;
	size_t authority = slash ? (size_t)(slash - p) - scheme : 0;
	if (!slash || authority != g->host.len ||
		strncasecmp(p + scheme, data + g->host.at, authority) != 0)
		return violation(g, 400, err, "the target is neither a path nor that of Host");
	g->target.at = (uint16_t)(g->target.at + scheme + authority);
	g->target.len = (uint16_t)(n - scheme - authority);
	return 0;
}

/* ---- header fields: those that mean something here, and those that count once ---- */

static int on_host(struct bt_gate *g, const char *v, size_t n, struct bt_err *err)
{
	if (!is_host(v, n))
		return violation(g, 400, err, "expected Host: NAME[:PORT]");
	g->host = g->fields[g->n_fields].value;
	return 0;
}

static int on_content_length(struct bt_gate *g, const char *v, size_t n, struct bt_err *err)
{
	if (!is_digits(v, n) || n > 15)
		return violation(g, 400, err, "expected Content-Length: DIGITS");
	g->content_length = 0;
	for (size_t i = 0; i < n; i++)
		g->content_length = g->content_length * 10 + (v[i] - '0');
	if (g->body == BT_GATE_BODY_CHUNKED)
		return violation(g, 400, err, "Content-Length with Transfer-Encoding");
	g->body = BT_GATE_BODY_LENGTH;
	return 0;
}

static int on_transfer_encoding(struct bt_gate *g, const char *v, size_t n, struct bt_err *err)
{
	if (!is_word(v, n, "chunked") || g->minor == 0)
		return violation(g, 400, err, "a Transfer-Encoding other than HTTP/1.1's chunked");
	if (g->body == BT_GATE_BODY_LENGTH)
		return violation(g, 400, err, "Content-Length with Transfer-Encoding");
	g->body = BT_GATE_BODY_CHUNKED;
	return 0;
}

static int on_connection(struct bt_gate *g, const char *v, size_t n, struct bt_err *err)
{
	(void)err;
	while (n > 0) {
		const char *comma = memchr(v, ',', n);
		size_t len = comma ? (size_t)(comma - v) : n, word = len;
		const char *p = v;
		while (word > 0 && (*p == ' ' || *p == '\t')) {
			p++;
			word--;
		}
		while (word > 0 && (p[word - 1] == ' ' || p[word - 1] == '\t'))
			word--;
		if (is_word(p, word, "close"))
			g->close = true;
		v += comma ? len + 1 : len;
		n -= comma ? len + 1 : len;
	}
	return 0;
}

static int on_expect(struct bt_gate *g, const char *v, size_t n, struct bt_err *err)
{
	if (!is_word(v, n, "100-continue"))
		return violation(g, 400, err, "expected Expect: 100-continue");
	g->expects = g->minor > 0;
	return 0;
}

static const struct field_row {
	const char *name;
	bool once;
	int (*take)(struct bt_gate *g, const char *v, size_t n, struct bt_err *err);
} field_rows[] = {
	{"Host", true, on_host},
	{"Content-Length", true, on_content_length},
	{"Transfer-Encoding", true, on_transfer_encoding},
	{"Connection", false, on_connection},
	{"Expect", true, on_expect},
	{"Authorization", true, NULL},
	{"Content-Type", true, NULL},
	{"Cookie", true, NULL},
	{"Origin", true, NULL},
	{"Range", true, NULL},
	{"Sec-Fetch-Site", true, NULL},
	{"Upload-Offset", true, NULL},
};

static bool seen(const struct bt_gate *g, const char *data, const char *name)
{
	for (size_t i = 0; i < g->n_fields; i++)
		if (is_word(data + g->fields[i].name.at, g->fields[i].name.len, name))
			return true;
	return false;
}

static int field_line(struct bt_gate *g, const char *data, size_t at, size_t n, struct bt_err *err)
{
	const char *p = data + at;
	const char *colon = memchr(p, ':', n);
	if (p[0] == ' ' || p[0] == '\t')
		return violation(g, 400, err, "a folded header line");
	if (!colon || !is_token(p, (size_t)(colon - p)))
		return violation(g, 400, err, "expected NAME: VALUE with a token for a name");
	if (g->n_fields == BT_GATE_FIELDS_MAX)
		return violation(g, 431, err, "more than 100 headers");
	const char *value = colon + 1, *end = p + n;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	struct bt_gate_field *f = &g->fields[g->n_fields];
	f->name = (struct bt_gate_span){(uint16_t)at, (uint16_t)(colon - p)};
	f->value = (struct bt_gate_span){(uint16_t)(value - data), (uint16_t)(end - value)};
	int r = 0;
	for (size_t i = 0; i < BT_ARRAY_LEN(field_rows) && r == 0; i++) {
		const struct field_row *row = &field_rows[i];
		if (!is_word(p, f->name.len, row->name))
			continue;
		if (row->once && seen(g, data, row->name))
			r = violation(g, 400, err, "a second header of a kind that counts once");
		else if (row->take)
			r = row->take(g, value, f->value.len, err);
		break;
	}
	g->n_fields++;
	return r;
}

/* ---- lines ---- */

static int end_of_line(struct bt_gate *g, const char *data, size_t i, struct bt_err *err)
{
	size_t at = g->line, n = i - 1 - at;
	g->line = i + 1;
	if (!g->has_request_line)
		return request_line(g, data, at, n, err);
	if (n > 0)
		return field_line(g, data, at, n, err);
	if (g->host.len == 0 && !(g->host_optional && g->minor == 0))
		return violation(g, 400, err, "no Host header");
	int r = origin_form(g, data, err);
	if (r < 0)
		return r;
	g->len = i + 1;
	return 1;
}

int bt_gate_head(struct bt_gate *g, const char *data, size_t n, struct bt_err *err)
{
	for (size_t i = g->at; i < n; i++) {
		unsigned char c = (unsigned char)data[i];
		bool after_cr = i > g->line && data[i - 1] == '\r';
		g->at = i + 1;
		if (i >= BT_GATE_HEAD_MAX)
			return violation(g, 431, err, "the head is larger than 32 KiB");
		if (!g->has_request_line &&
			i >= BT_GATE_TARGET_MAX + BT_GATE_METHOD_MAX + sizeof "  HTTP/1.1\r\n")
			return violation(g, 414, err, "the target is longer than 8 KiB");
		if (c == '\n' && !after_cr)
			return violation(g, 400, err, "a line feed without a carriage return");
		if (c != '\n' && after_cr)
			return violation(g, 400, err, "a carriage return without a line feed");
		if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f)
			return violation(g, 400, err, "a control character");
		int r = c == '\n' ? end_of_line(g, data, i, err) : 0;
		if (r != 0)
			return r;
	}
	return 0;
}

/* ---- chunked bodies ---- */

enum { SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, LAST_CR, LAST_LF, ENDED };

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int bad_chunk(struct bt_err *err, const char *what)
{
	return bt_err_set(err, BT_E_PROTOCOL, "malformed request: %s", what);
}

static int chunk_byte(struct bt_gate_chunked *c, char byte, struct bt_err *err)
{
	static const struct {
		char byte;
		int next;
	} fixed[] = {[SIZE_LF] = {'\n', DATA},
		[DATA_CR] = {'\r', DATA_LF},
		[DATA_LF] = {'\n', SIZE},
		[LAST_CR] = {'\r', LAST_LF},
		[LAST_LF] = {'\n', ENDED}};
	if (c->state == SIZE && byte != '\r') {
		int v = hex_value(byte);
		if (v < 0 || ++c->digits > 12)
			return bad_chunk(err, "expected a chunk's size in hexadecimal");
		c->left = c->left * 16 + (uint64_t)v;
		return 0;
	}
	if (c->state == SIZE) {
		if (c->digits == 0)
			return bad_chunk(err, "a chunk without a size");
		c->state = SIZE_LF;
		return 0;
	}
	if (byte != fixed[c->state].byte)
		return bad_chunk(err, "a chunk that does not end where its size says");
	c->state = fixed[c->state].next;
	if (c->state == DATA && c->left == 0)
		c->state = LAST_CR; /* a trailer's letter is not that byte */
	c->digits = 0;
	return c->state == ENDED;
}

int bt_gate_chunked(struct bt_gate_chunked *c, const char *data, size_t n, size_t *ret_used,
	const char **ret_data, size_t *ret_len, struct bt_err *err)
{
	size_t i = 0, take = 0;
	int r = 0;
	*ret_data = data;
	while (i < n && c->state != DATA && c->state != ENDED && r == 0)
		r = chunk_byte(c, data[i++], err);
	if (r == 0 && c->state == DATA && i < n) {
		take = n - i < c->left ? n - i : (size_t)c->left;
		*ret_data = data + i;
		c->left -= take;
		i += take;
		if (c->left == 0)
			c->state = DATA_CR;
	}
	*ret_used = i;
	*ret_len = take;
	return r;
}
