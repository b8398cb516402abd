#include "agent/redact.h"

#include <string.h>

struct bt_redact {
	char **items; /* longest first, so that a secret that holds another one goes as a whole */
	size_t n;
};

struct bt_redact *bt_redact_new(void)
{
	return bt_calloc(1, sizeof(struct bt_redact));
}

struct bt_redact *bt_redact_free(struct bt_redact *r)
{
	if (!r)
		return NULL;
	for (size_t i = 0; i < r->n; i++)
		free(r->items[i]);
	free(r->items);
	free(r);
	return NULL;
}

static void add_one(struct bt_redact *r, const char *text, size_t n)
{
	if (n == 0)
		return;
	size_t at = 0;
	for (size_t i = 0; i < r->n; i++) {
		size_t have = strlen(r->items[i]);
		if (have == n && memcmp(r->items[i], text, n) == 0)
			return;
		if (have > n)
			at = i + 1;
	}
	r->items = bt_realloc(r->items, (r->n + 1) * sizeof *r->items);
	memmove(r->items + at + 1, r->items + at, (r->n - at) * sizeof *r->items);
	r->items[at] = bt_strndup(text, n);
	r->n++;
}

void bt_redact_add(struct bt_redact *r, const char *secret)
{
	add_one(r, secret, strlen(secret));
	/* A log shows a secret of several lines one line at a time. A line of a few characters
	 * ("}" of a JSON key) says nothing, and hiding it would spoil every text. */
	for (const char *line = secret; strchr(secret, '\n') && line;) {
		size_t n = strcspn(line, "\r\n");
		if (n >= 4)
			add_one(r, line, n);
		line = strchr(line, '\n');
		if (line)
			line++;
	}
}

/* Length of the well-formed UTF-8 sequence at s, 0 where there is none. */
static size_t utf8_len(const unsigned char *s)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (s[0] > 0xf4 || (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
		(s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* Programs print what they like; JSON carries UTF-8 only. Tabs stay, other controls go. */
static void clean(char *s)
{
	while (*s) {
		size_t n = utf8_len((unsigned char *)s);
		if (n == 0 || ((unsigned char)*s < 0x20 && *s != '\t' && *s != '\n'))
			*s = '?';
		s += n ? n : 1;
	}
}

void bt_redact_into(const struct bt_redact *r, const char *text, struct bt_str *out)
{
	const char *plain = text;
	size_t from = out->len;
	while (*text) {
		size_t hit = 0;
		for (size_t i = 0; i < r->n && !hit; i++)
			if (r->items[i][0] == *text &&
				strncmp(text, r->items[i], strlen(r->items[i])) == 0)
				hit = strlen(r->items[i]);
		if (!hit) {
			text++;
			continue;
		}
		bt_str_addn(out, plain, (size_t)(text - plain));
		bt_str_add(out, "***");
		text += hit;
		plain = text;
	}
	bt_str_add(out, plain);
	if (out->data)
		clean(out->data + from);
}

char *bt_redact_dup(const struct bt_redact *r, const char *text)
{
	if (!text)
		return NULL;
	struct bt_str s = {0};
	bt_redact_into(r, text, &s);
	return bt_str_steal(&s);
}
