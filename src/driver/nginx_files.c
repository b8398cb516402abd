/* The durable side of a change, on a thread: state.json first, then the file that nginx reads; and
 * back. What a step could not write stays `pending` on disk, so that it is tried again. */
#include "driver/nginx_step.h"

#include "base/fs.h"
#include "driver/nginx_link.h"
#include "net/cert_pair.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static int save_state(const struct bt_nginx_apply *op, struct bt_err *err)
{
	const struct bt_nginx_state *s = op->want;
	if (!s->has_confirmed && !s->has_pending)
		return bt_fs_remove(op->site->state_path, err);
	BT_FREE char *text = bt_nginx_state_dump(s);
	return bt_fs_write_atomic(op->site->state_path, text, strlen(text), 0600, err);
}

static int make_dirs(const struct bt_nginx_apply *op, struct bt_err *err)
{
	/* 0711: nginx's workers, of another user, reach their temporary files */
	int r = bt_fs_mkdirs(op->site->dir, 0711, err);
	if (r < 0 || !op->want->managed)
		return r;
	BT_FREE char *logs = bt_asprintf("%s/logs", op->want->prefix);
	BT_FREE char *temp = bt_asprintf("%s/tmp", op->want->prefix);
	r = bt_fs_mkdirs(op->want->prefix, 0711, err);
	if (r == 0)
		r = bt_fs_mkdirs(logs, 0755, err);
	return r == 0 ? bt_fs_mkdirs(temp, 0711, err) : r;
}

static int write_one(struct bt_nginx_apply *op, struct bt_err *err)
{
	struct bt_nginx_state *w = op->want;
	BT_FREE char *prior = NULL;
	int r = make_dirs(op, err);
	if (r == 0)
		r = bt_nginx_value_read(w->file, w->link, &prior, err);
	if (r < 0)
		return r;
	/* A user's `include` of a whole directory would read it. */
	bt_fs_remove_aside(w->file);
	w->prior = bt_arena_strdup(w->arena, prior);
	if (w->link && !*w->pending.text) { /* no slot is in rotation: it stays as it is */
		if (!prior)
			return bt_err_set(err, BT_E_REFUSED,
				"%s does not exist: link it to one of adopt.sites", w->file);
		w->pending.text = w->prior;
	}
	w->has_pending = true;
	r = save_state(op, err);
	if (r < 0)
		return r;
	bt_nginx_step("state");
	r = bt_nginx_value_write(w->file, w->pending.text, err);
	if (r == 0)
		bt_nginx_step("file");
	return r;
}

/* The stamp comes before the look: a file that changes in between is seen to be another one. */
int bt_nginx_files_certificate(struct bt_nginx_batch *b, struct bt_err *err)
{
	for (size_t i = 0; i < b->n; i++) {
		struct bt_nginx_state *w = b->ops[i]->want;
		if (!w->certificate)
			continue;
		BT_FREE char *stamp = bt_cert_pair_stamp(w->certificate, w->certificate_key);
		int r = bt_cert_pair_check(w->certificate, w->certificate_key, err);
		if (r < 0)
			return bt_err_wrap(err, "nginx");
		w->certificate_stamp = bt_arena_strdup(w->arena, stamp);
	}
	return 0;
}

int bt_nginx_files_write(struct bt_nginx_batch *b, struct bt_err *err)
{
	int r = bt_nginx_files_certificate(b, err);
	for (size_t i = 0; r == 0 && i < b->n; i++) {
		r = write_one(b->ops[i], err);
		if (r < 0)
			return bt_err_wrap(err, "nginx");
	}
	return r;
}

static int restore_one(struct bt_nginx_apply *op, struct bt_err *err)
{
	struct bt_nginx_state *w = op->want;
	BT_FREE char *now = NULL;
	int r = bt_nginx_value_read(w->file, w->link, &now, err);
	if (r < 0)
		return r;
	if (bt_streq(now, w->prior))
		return 0;
	if (now && !bt_streq(now, w->pending.text))
		return 0; /* somebody else wrote it meanwhile: theirs */
	if (w->prior)
		return bt_nginx_value_write(w->file, w->prior, err);
	return bt_fs_remove(w->file, err);
}

int bt_nginx_files_restore(struct bt_nginx_batch *b, struct bt_err *err)
{
	int r = 0;
	for (size_t i = 0; i < b->n; i++) {
		struct bt_err e = {0};
		if (b->ops[i]->want->has_pending && restore_one(b->ops[i], &e) < 0 && r == 0) {
			*err = e;
			r = e.code;
		}
	}
	bt_nginx_step("restored");
	return r;
}

int bt_nginx_files_clear(struct bt_nginx_batch *b, struct bt_err *err)
{
	int r = 0;
	for (size_t i = 0; i < b->n && r == 0; i++) {
		b->ops[i]->want->has_pending = false;
		r = save_state(b->ops[i], err);
		if (r < 0)
			b->ops[i]->want->has_pending = true;
	}
	return r;
}

int bt_nginx_files_commit(struct bt_nginx_batch *b, struct bt_err *err)
{
	if (b->kind == BT_NGINX_CERTIFICATE)
		return save_state(b->ops[0], err);
	for (size_t i = 0; i < b->n; i++) {
		struct bt_nginx_state *w = b->ops[i]->want;
		struct bt_nginx_target was = w->confirmed;
		bool had = w->has_confirmed;
		w->confirmed = w->pending;
		w->has_confirmed = true;
		w->has_pending = false;
		int r = save_state(b->ops[i], err);
		if (r < 0) { /* the file stays pending on disk, and so it does here */
			w->confirmed = was;
			w->has_confirmed = had;
			w->has_pending = true;
			return r;
		}
	}
	bt_nginx_step("committed");
	return 0;
}

/* RECOVER: what did the crash leave? */
int bt_nginx_files_judge(struct bt_nginx_batch *b, struct bt_err *err)
{
	struct bt_nginx_state *w = b->ops[0]->want;
	BT_FREE char *now = NULL;
	int r = bt_nginx_value_read(w->file, w->link, &now, err);
	if (r < 0)
		return r;
	bt_fs_remove_aside(w->file);
	b->backwards = !bt_streq(now, w->pending.text);
	return 0;
}
