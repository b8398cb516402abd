/* Reading nginx's configuration language, as far as baton needs it: what its own file sends to,
 * and what `nginx -T` says about the whole. Pure. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/service.h"
#include "model/world.h"

#define BT_NGINX_WORDS_MAX 64

/* One statement: its words, and what ended it: ';' or '{'. A '}' comes alone (n_words 0).
 * depth counts the blocks around it. Return false to stop reading. */
typedef bool (*bt_nginx_statement_fn)(
	void *arg, int depth, char end, size_t n_words, const char *const *words);
/* 0, or BT_E_CONFIG where the text is not nginx's language (with the line). */
int bt_nginx_conf_read(
	const char *text, size_t n, bt_nginx_statement_fn on, void *arg, struct bt_err *err);

/* What baton's file sends to, from its directives alone (comments may lie). Members and their
 * strings go into the arena. For a managed nginx it is the upstream "baton_all". A file of a
 * person's own is read just the same. */
int bt_nginx_conf_members(const char *text, size_t n, const struct bt_nginx *nginx,
	const char *service_name, struct bt_arena *a, struct bt_seen_member **ret, size_t *ret_n,
	struct bt_err *err);

/* From the output of `nginx -V` and a successful `nginx -T`. */
struct bt_nginx_facts {
	char *pid_file, *error_log; /* absolute; error_log NULL where it is no file */
};
void bt_nginx_facts_done(struct bt_nginx_facts *f);
/* prefix: what -p gave, or NULL. */
void bt_nginx_facts_read(const char *version_output, const char *dump, const char *prefix,
	struct bt_nginx_facts *ret);
/* Calls for each configuration file that the dump names. */
void bt_nginx_dump_files(const char *dump, bool (*on)(void *arg, const char *path), void *arg);
/* The reason in nginx's output: its first [emerg] line without the prefix, else its last line.
 * Caller frees. */
char *bt_nginx_reason(const char *output);
