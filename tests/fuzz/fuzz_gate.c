/* libFuzzer: the gate gives one verdict however its bytes are cut, and what it accepts holds. */
#include "net/gate.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEMAND(what)                                                                               \
	do {                                                                                       \
		if (!(what))                                                                       \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_head(struct bt_gate *g, const char *p, size_t n, size_t step)
{
	int r = 0;
	memset(g, 0, sizeof *g);
	for (size_t have = 0; have < n && r == 0;) {
		have = have + step < n ? have + step : n;
		r = bt_gate_head(g, p, have, NULL);
	}
	return r;
}

static void check_head(const struct bt_gate *g, const char *p, size_t n)
{
	DEMAND(g->len <= n && g->len <= BT_GATE_HEAD_MAX && g->len >= 4);
	DEMAND(memcmp(p + g->len - 4, "\r\n\r\n", 4) == 0);
	DEMAND(memmem(p, g->len - 4, "\r\n\r\n", 4) == NULL);
	DEMAND(memchr(p, 0, g->len) == NULL);
	DEMAND(p[g->target.at] == '/' && g->host.len > 0);
	int hosts = 0, lengths = 0, codings = 0;
	for (size_t i = 0; i < g->n_fields; i++) {
		const struct bt_gate_field *f = &g->fields[i];
		DEMAND(f->name.at + f->name.len < f->value.at + 1u);
		DEMAND(f->value.at + f->value.len + 2u <= g->len);
		DEMAND(p[f->name.at + f->name.len] == ':');
		hosts += f->name.len == 4 && !strncasecmp(p + f->name.at, "host", 4);
		lengths += f->name.len == 14 && !strncasecmp(p + f->name.at, "content-length", 14);
		codings +=
			f->name.len == 17 && !strncasecmp(p + f->name.at, "transfer-encoding", 17);
	}
	DEMAND(hosts == 1 && lengths + codings <= 1);
	DEMAND((lengths == 1) == (g->body == BT_GATE_BODY_LENGTH));
	DEMAND((codings == 1) == (g->body == BT_GATE_BODY_CHUNKED));
}

static int run_chunks(const char *p, size_t n, size_t step, struct bt_str *body, size_t *ret_used)
{
	struct bt_gate_chunked c = {0};
	size_t at = 0;
	int r = 0;
	while (at < n && r == 0) {
		size_t have = n - at < step ? n - at : step, used = 0, len = 0;
		const char *data = NULL;
		r = bt_gate_chunked(&c, p + at, have, &used, &data, &len, NULL);
		DEMAND(used >= 1 && used <= have);
		DEMAND(len == 0 || (data >= p + at && data + len <= p + at + used));
		bt_str_addn(body, data, len);
		at += used;
	}
	*ret_used = at;
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	if (size < 1)
		return 0;
	size_t step = (bytes[0] & 31u) + 1u, used = 0, used_cut = 0;
	/* an exact copy, so that a byte read too far is seen */
	char *p = malloc(size);
	size_t n = size - 1;
	memcpy(p, bytes + 1, n);
	struct bt_gate whole, cut;
	int a = run_head(&whole, p, n, n ? n : 1), b = run_head(&cut, p, n, step);
	DEMAND(a == b && whole.status == cut.status && whole.len == cut.len);
	if (a == 1)
		check_head(&whole, p, n);
	struct bt_str body = {0}, body_cut = {0};
	const char *rest = a == 1 ? p + whole.len : p;
	size_t left = a == 1 ? n - whole.len : n;
	a = run_chunks(rest, left, left ? left : 1, &body, &used);
	b = run_chunks(rest, left, step, &body_cut, &used_cut);
	DEMAND(a == b && body.len == body_cut.len);
	DEMAND(a != 1 || used == used_cut);
	DEMAND(body.len == 0 || memcmp(body.data, body_cut.data, body.len) == 0);
	bt_str_done(&body);
	bt_str_done(&body_cut);
	free(p);
	return 0;
}
