/* apply and diff: the config as the server has it, and as the file has it. */
#include "cli/stored.h"

#include "cli/answer.h"
#include "cli/files.h"

#include <stdio.h>
#include <string.h>

#define CONTEXT 2 /* lines around a difference */
#define MAX_LINES 4000

int bt_stored_config(struct bt_client *c, const char *service, struct bt_config **ret,
	json_t **ret_answer, struct bt_err *err)
{
	BT_JSON json_t *answer = NULL;
	BT_FREE char *name = bt_url_escape(service);
	BT_FREE char *path = bt_asprintf("/v1/services/%s/config", name);
	int r = bt_client_get(c, path, &answer, err);
	if (r == 0)
		r = bt_config_service_from_json(json_object_get(answer, "config"), ret, err);
	if (r == 0 && ret_answer)
		*ret_answer = json_incref(answer);
	return r;
}

int bt_stored_post(struct bt_client *c, const char *service, const char *what, const json_t *body,
	json_t **ret, struct bt_err *err)
{
	BT_FREE char *name = bt_url_escape(service);
	BT_FREE char *path = bt_asprintf("/v1/services/%s/%s", name, what);
	return bt_client_post(c, path, body, ret, err);
}

static int make_body(const struct bt_service *s, json_t **ret, struct bt_err *err)
{
	json_t *files = NULL;
	int r = bt_files_contents(s, &files, err);
	if (r == 0)
		*ret = json_pack(
			"{s:o, s:o}", "config", bt_config_service_to_json(s), "files", files);
	return r;
}

/* ---- apply ------------------------------------------------------------------------------- */

static int apply_one(struct bt_cli *cli, struct bt_client *c, const struct bt_service *s,
	json_t *answers, struct bt_err *err)
{
	BT_JSON json_t *body = NULL;
	BT_JSON json_t *answer = NULL;
	int r = make_body(s, &body, err);
	if (r == 0 && (bt_cli_has(cli, "lock") || bt_cli_has(cli, "unlock")))
		json_object_set_new(body, "lock", json_boolean(bt_cli_has(cli, "lock")));
	if (r == 0)
		r = bt_stored_post(c, s->name, "config", body, &answer, err);
	if (r < 0)
		return r;
	json_array_append(answers, answer);
	if (bt_cli_has(cli, "json"))
		return 0;
	char version[32];
	bt_answer_number(answer, "version", version);
	const char *locked = bt_answer_text(answer, "locked_by");
	printf("%s: %s %s%s%s%s\n", s->name,
		json_is_true(json_object_get(answer, "changed")) ? "stored as version"
								 : "unchanged, version",
		version, *locked ? ", locked by " : "", locked,
		json_is_true(json_object_get(answer, "changed"))
			? "; what runs changes with the next deploy or restart"
			: "");
	return 0;
}

int bt_cmd_apply(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answers = json_array();
	struct bt_config *config = NULL;
	const struct bt_service *one = NULL;
	int r = bt_cli_has(cli, "lock") && bt_cli_has(cli, "unlock")
			? bt_err_set(err, BT_E_CONFIG, "--lock and --unlock: give one of them")
			: bt_files_config(cli, &config, err);
	if (r == 0 && cli->n_args)
		r = bt_files_service(cli, config, &one, err);
	if (r == 0)
		r = bt_client_open(cli, &c, err);
	for (size_t i = 0; r == 0 && i < config->n_services; i++)
		if (!one || one == &config->services[i])
			r = apply_one(cli, c, &config->services[i], answers, err);
	if (r == 0 && bt_cli_has(cli, "json")) {
		BT_FREE char *text = json_dumps(answers, JSON_INDENT(2));
		puts(text);
	}
	bt_config_free(config);
	return r;
}

/* ---- diff -------------------------------------------------------------------------------- */

struct lines {
	char *text;
	const char *list[MAX_LINES];
	size_t n;
};

static struct lines *split(const struct bt_config *c)
{
	struct lines *l = bt_calloc(1, sizeof *l);
	BT_STR struct bt_str out = {0};
	bt_config_print(c, &out);
	l->text = bt_str_steal(&out);
	for (char *save = NULL, *t = strtok_r(l->text, "\n", &save); t && l->n < MAX_LINES;
		t = strtok_r(NULL, "\n", &save))
		l->list[l->n++] = t;
	return l;
}

static struct lines *lines_free(struct lines *l)
{
	free(l->text);
	free(l);
	return NULL;
}

/* One script of the shortest ones: '=' both, '-' of a alone, '+' of b alone. The caller frees. */
static char *script(const struct lines *a, const struct lines *b)
{
	size_t w = b->n + 1, n = 0;
	BT_FREE uint16_t *common = bt_calloc((a->n + 1) * w, sizeof *common);
	char *ops = bt_malloc(a->n + b->n + 1);
	for (size_t i = a->n; i-- > 0;)
		for (size_t j = b->n; j-- > 0;) {
			uint16_t down = common[(i + 1) * w + j], right = common[i * w + j + 1];
			common[i * w + j] = bt_streq(a->list[i], b->list[j])
						    ? (uint16_t)(common[(i + 1) * w + j + 1] + 1)
					    : down >= right ? down
							    : right;
		}
	for (size_t i = 0, j = 0; i < a->n || j < b->n;) {
		if (i < a->n && j < b->n && bt_streq(a->list[i], b->list[j])) {
			ops[n++] = '=';
			i++;
			j++;
		} else if (i < a->n &&
			   (j == b->n || common[(i + 1) * w + j] >= common[i * w + j + 1])) {
			ops[n++] = '-';
			i++;
		} else {
			ops[n++] = '+';
			j++;
		}
	}
	ops[n] = 0;
	return ops;
}

/* Whether a line that both have stands near one that differs. */
static bool is_near(const char *ops, size_t at)
{
	size_t n = strlen(ops), from = at > CONTEXT ? at - CONTEXT : 0;
	for (size_t i = from; i <= at + CONTEXT && i < n; i++)
		if (ops[i] != '=')
			return true;
	return false;
}

static void print_difference(const struct lines *a, const struct lines *b, const char *ops)
{
	bool gap = false;
	for (size_t k = 0, i = 0, j = 0; ops[k]; k++) {
		if (ops[k] != '=') {
			printf("%c%s\n", ops[k], ops[k] == '-' ? a->list[i] : b->list[j]);
			gap = false;
		} else if (is_near(ops, k)) {
			printf(" %s\n", a->list[i]);
			gap = false;
		} else if (!gap) {
			puts("@@");
			gap = true;
		}
		i += ops[k] != '+';
		j += ops[k] != '-';
	}
}

static int compare(
	const struct bt_config *here, const json_t *answer, const char *file, struct bt_err *err)
{
	struct bt_config *there = NULL;
	char version[32], at[32];
	const json_t *name;
	size_t i;
	int r = bt_config_service_from_json(json_object_get(answer, "config"), &there, err);
	if (r < 0)
		return r;
	bt_answer_number(answer, "version", version);
	bt_answer_time(answer, "at", at);
	const json_t *files = json_object_get(answer, "files");
	struct lines *a = split(there), *b = split(here);
	BT_FREE char *ops = script(a, b);
	r = strspn(ops, "=") < strlen(ops) || json_array_size(files);
	if (r)
		printf("--- stored: version %s, %s (%s, %s)\n+++ %s\n", version, at,
			bt_answer_text(answer, "who"), bt_answer_text(answer, "why"), file);
	if (strspn(ops, "=") < strlen(ops))
		print_difference(a, b, ops);
	json_array_foreach (files, i, name)
		printf("!%s: its content differs\n", json_string_value(name));
	lines_free(a);
	lines_free(b);
	bt_config_free(there);
	return r;
}

static int diff(struct bt_cli *cli, const struct bt_service *s, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *body = NULL;
	BT_JSON json_t *answer = NULL;
	const struct bt_config alone = {.services = s, .n_services = 1};
	int r = make_body(s, &body, err);
	if (r == 0)
		r = bt_client_open(cli, &c, err);
	if (r == 0) {
		json_object_set_new(body, "check", json_true());
		r = bt_stored_post(c, s->name, "config", body, &answer, err);
	}
	if (r == 0 && !json_is_object(json_object_get(answer, "config")))
		r = bt_err_set(err, BT_E_CONFIG,
			"no config of %s is stored on the server: `baton apply` stores one",
			s->name);
	if (r == 0)
		r = compare(&alone, answer, s->file ? s->file : "baton.yaml", err);
	return r;
}

int bt_cmd_diff(struct bt_cli *cli, struct bt_err *err)
{
	struct bt_config *config = NULL;
	const struct bt_service *s = NULL;
	int r = bt_files_config(cli, &config, err);
	if (r == 0)
		r = bt_files_service(cli, config, &s, err);
	if (r == 0)
		r = diff(cli, s, err);
	bt_config_free(config);
	return r < 0 ? BT_E_CONFIG : r; /* as diff has it: 2 is trouble, whatever it was */
}
