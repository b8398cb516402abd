/* Reading a server.xml that people wrote: which ports it takes and where it looks for applications.
 *
 * Not an XML parser, and none is needed: the few elements that count have all they say in their
 * attributes. Comments, CDATA, instructions and declarations are passed over, and what is not well
 * formed is refused rather than guessed at. Properties (${…}) that are not baton's own have their
 * values elsewhere; what they would say is left open. Pure. */
#include "base/str.h"
#include "driver/tomcat.h"

#include <string.h>

#define MAX_ATTRIBUTES 64
#define MAX_VALUE 4096

struct attribute {
	const char *name, *value; /* in the text, not terminated */
	size_t name_n, value_n;
};
struct tag {
	const char *name;
	size_t name_n;
	bool closing;
	struct attribute attributes[MAX_ATTRIBUTES];
	size_t n;
};
struct reader {
	const char *at, *end;
	const struct bt_kv *properties;
	size_t n_properties;
	struct bt_err *err;
};

static int bad(struct reader *r, const char *what)
{
	return bt_err_set(r->err, BT_E_CONFIG, "it is no server.xml: %s", what);
}

/* ---- tags ------------------------------------------------------------------------------------ */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_name(char c)
{
	return c && !is_blank(c) && !strchr("<>/=\"'", c);
}

static void skip_blanks(struct reader *r)
{
	while (r->at < r->end && is_blank(*r->at))
		r->at++;
}

static bool starts(const struct reader *r, const char *word)
{
	size_t n = strlen(word);
	return (size_t)(r->end - r->at) >= n && memcmp(r->at, word, n) == 0;
}

/* Past the next `word`; false: there is none. */
static bool skip_past(struct reader *r, const char *word)
{
	const char *found = memmem(r->at, (size_t)(r->end - r->at), word, strlen(word));
	if (found)
		r->at = found + strlen(word);
	return found != NULL;
}

static size_t take_name(struct reader *r, const char **ret)
{
	*ret = r->at;
	while (r->at < r->end && is_name(*r->at))
		r->at++;
	return (size_t)(r->at - *ret);
}

static int read_attribute(struct reader *r, struct tag *t)
{
	struct attribute a;
	a.name_n = take_name(r, &a.name);
	skip_blanks(r);
	if (!a.name_n || r->at == r->end || *r->at != '=')
		return bad(r, "an attribute without a value");
	r->at++;
	skip_blanks(r);
	if (r->at == r->end || (*r->at != '"' && *r->at != '\''))
		return bad(r, "an attribute's value without quotes");
	const char quote[2] = {*r->at++, 0};
	a.value = r->at;
	if (!skip_past(r, quote))
		return bad(r, "an attribute's value has no end");
	a.value_n = (size_t)(r->at - 1 - a.value);
	if (t->n == MAX_ATTRIBUTES || a.value_n > MAX_VALUE)
		return bad(r, "too many or too long attributes");
	t->attributes[t->n++] = a;
	return 0;
}

/* After '<', or after "</". */
static int read_tag(struct reader *r, struct tag *t)
{
	t->n = 0;
	t->closing = starts(r, "/");
	r->at += t->closing;
	t->name_n = take_name(r, &t->name);
	if (!t->name_n)
		return bad(r, "an element without a name");
	for (;;) {
		skip_blanks(r);
		if (r->at == r->end)
			return bad(r, "an element has no end");
		if (*r->at == '>' || starts(r, "/>")) {
			r->at += *r->at == '>' ? 1 : 2;
			return 0;
		}
		int e = read_attribute(r, t);
		if (e < 0)
			return e;
	}
}

/* 1 with the next element's tag, 0 at the end. */
static int next_tag(struct reader *r, struct tag *t)
{
	static const struct {
		const char *begin, *end;
	} others[] = {{"!--", "-->"}, {"![CDATA[", "]]>"}, {"?", "?>"}, {"!", ">"}};
	while (skip_past(r, "<")) {
		size_t i = 0;
		while (i < BT_ARRAY_LEN(others) && !starts(r, others[i].begin))
			i++;
		if (i == BT_ARRAY_LEN(others)) {
			int e = read_tag(r, t);
			return e < 0 ? e : 1;
		}
		if (!skip_past(r, others[i].end))
			return bad(r, "a comment or a declaration has no end");
	}
	return 0;
}

static bool tag_is(const struct tag *t, const char *name)
{
	return !t->closing && t->name_n == strlen(name) && !memcmp(t->name, name, t->name_n);
}

/* ---- values ---------------------------------------------------------------------------------- */

static const char *property(const struct reader *r, const char *name, size_t n)
{
	for (size_t i = 0; i < r->n_properties; i++)
		if (strlen(r->properties[i].key) == n && !memcmp(r->properties[i].key, name, n))
			return r->properties[i].value;
	return NULL;
}

/* One character of text, entities read; *ret_n is what it took. */
static char character(const char *t, size_t left, size_t *ret_n)
{
	static const struct {
		const char *entity;
		char c;
	} all[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
	for (size_t i = 0; *t == '&' && i < BT_ARRAY_LEN(all); i++) {
		size_t n = strlen(all[i].entity);
		if (left >= n && !memcmp(t, all[i].entity, n)) {
			*ret_n = n;
			return all[i].c;
		}
	}
	*ret_n = 1;
	return *t;
}

/* The attribute's value with what is known put in; false: it has none. The caller frees. */
static char *value(const struct reader *r, const struct tag *t, const char *name)
{
	const struct attribute *a = NULL;
	for (size_t i = 0; i < t->n; i++)
		if (t->attributes[i].name_n == strlen(name) &&
			!memcmp(t->attributes[i].name, name, t->attributes[i].name_n))
			a = &t->attributes[i];
	if (!a)
		return NULL;
	BT_STR struct bt_str out = {0};
	for (size_t i = 0, n; i < a->value_n; i += n) {
		const char *p = a->value + i, *close = NULL;
		if (p[0] == '$' && i + 1 < a->value_n && p[1] == '{')
			close = memchr(p, '}', a->value_n - i);
		const char *known = close ? property(r, p + 2, (size_t)(close - p - 2)) : NULL;
		if (known) {
			bt_str_add(&out, known);
			n = (size_t)(close - p) + 1;
		} else {
			bt_str_addc(&out, character(p, a->value_n - i, &n));
		}
	}
	return bt_str_steal(&out);
}

static bool is_open(const char *text)
{
	return strstr(text, "${") != NULL;
}

static void take_text(
	const struct reader *r, const struct tag *t, const char *name, char *ret, size_t n)
{
	BT_FREE char *text = value(r, t, name);
	if (text)
		snprintf(ret, n, "%s", text);
}

/* ---- elements -------------------------------------------------------------------------------- */

struct reading {
	struct bt_tomcat_facts *f;
	int64_t offset;
	bool server, in_engine, host_found;
};

static int read_server(struct reader *r, const struct tag *t, struct reading *to)
{
	BT_FREE char *port = value(r, t, "port");
	BT_FREE char *offset = value(r, t, "portOffset");
	int64_t v = 8005;
	to->server = true;
	take_text(r, t, "shutdown", to->f->shutdown, sizeof to->f->shutdown);
	if (offset && bt_int_parse(offset, 0, 65535, &to->offset, NULL) < 0)
		to->f->open = true;
	if ((port && is_open(port)) || to->f->open)
		to->f->shutdown_port = 0;
	else if (port && bt_streq(port, "-1"))
		to->f->shutdown_port = -1;
	else if (port && bt_int_parse(port, 1, 65535, &v, NULL) < 0)
		return bad(r, "the port of Server is no port");
	else
		to->f->shutdown_port = (int)(v + to->offset <= 65535 ? v + to->offset : -1);
	return 0;
}

static int read_connector(struct reader *r, const struct tag *t, struct reading *to)
{
	BT_FREE char *port = value(r, t, "port");
	BT_FREE char *protocol = value(r, t, "protocol");
	int64_t v;
	if (protocol && (bt_str_starts(protocol, "AJP") || strstr(protocol, ".ajp.")))
		return 0;
	if (!port || bt_streq(port, "-1"))
		return 0;
	if (is_open(port)) {
		to->f->open = true;
		return 0;
	}
	if (bt_int_parse(port, 0, 65535, &v, NULL) < 0)
		return bad(r, "the port of a Connector is no port");
	if (to->f->n_ports < BT_TOMCAT_PORTS && v + to->offset <= 65535)
		to->f->ports[to->f->n_ports++] = (uint16_t)(v + to->offset);
	return 0;
}

/* Of the first engine: its default host, else the first one. */
static void read_host(struct reader *r, const struct tag *t, struct reading *to)
{
	BT_FREE char *name = value(r, t, "name");
	if (!to->in_engine || to->host_found || !name)
		return;
	bool wanted = bt_streq(name, to->f->host) || !to->f->host[0];
	if (!wanted && to->f->app_base[0])
		return;
	to->host_found = wanted;
	snprintf(to->f->app_base, sizeof to->f->app_base, "webapps");
	take_text(r, t, "appBase", to->f->app_base, sizeof to->f->app_base);
	if (!to->f->host[0])
		snprintf(to->f->host, sizeof to->f->host, "%s", name);
}

static int read_element(struct reader *r, const struct tag *t, struct reading *to)
{
	if (t->closing && t->name_n == 6 && !memcmp(t->name, "Engine", 6))
		to->in_engine = false;
	if (tag_is(t, "Server"))
		return to->server ? bad(r, "two Server elements") : read_server(r, t, to);
	if (tag_is(t, "Connector"))
		return read_connector(r, t, to);
	if (tag_is(t, "Engine") && !to->f->engine[0]) {
		to->in_engine = true;
		snprintf(to->f->engine, sizeof to->f->engine, "Catalina");
		take_text(r, t, "name", to->f->engine, sizeof to->f->engine);
		take_text(r, t, "defaultHost", to->f->host, sizeof to->f->host);
	}
	if (tag_is(t, "Host"))
		read_host(r, t, to);
	return 0;
}

int bt_tomcat_facts_read(const char *text, size_t n, const struct bt_kv *properties,
	size_t n_properties, struct bt_tomcat_facts *ret, struct bt_err *err)
{
	struct reader r = {text, text + n, properties, n_properties, err};
	struct bt_tomcat_facts f = {.shutdown_port = -1, .shutdown = "SHUTDOWN"};
	struct reading to = {.f = &f};
	struct tag *t = bt_malloc(sizeof *t);
	BT_FREE void *hold = t;
	int e;
	while ((e = next_tag(&r, t)) > 0)
		if ((e = read_element(&r, t, &to)) < 0)
			break;
	if (e < 0)
		return e;
	if (!to.server)
		return bad(&r, "there is no Server element");
	if (!f.app_base[0])
		return bad(&r, "there is no Host for applications");
	*ret = f;
	return 0;
}
