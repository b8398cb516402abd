/* What `files:` names: read beside the config, checked where it is a template, base64 for the way.
 */
#include "cli/files.h"

#include "base/base64.h"
#include "base/fs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *lookup(void *arg, const char *name)
{
	(void)arg;
	return getenv(name);
}

static int read_one(
	const struct bt_file *f, const char *path, char **ret, size_t *ret_n, struct bt_err *err)
{
	struct stat st;
	int r = stat(path, &st) < 0 ? -errno : 0;
	if (r == 0 && !S_ISREG(st.st_mode))
		return bt_err_set(err, BT_E_CONFIG, "files: %s is not a file", f->from);
	if (r == 0)
		r = bt_fs_read(path, BT_FILES_MAX_BYTES, ret, ret_n, NULL);
	if (r == BT_E_REFUSED)
		return bt_err_set(err, BT_E_CONFIG, "files: %s is larger than %d KiB", f->from,
			BT_FILES_MAX_BYTES / 1024);
	return r < 0 ? bt_err_set(err, BT_E_CONFIG, "files: %s: %s", f->from, strerror(-r)) : 0;
}

static int add(const struct bt_service *s, const struct bt_file *f, json_t *to, size_t *total,
	struct bt_config_problems *problems, struct bt_err *err)
{
	BT_FREE char *path = bt_files_beside(s, f->from, NULL);
	BT_FREE char *data = NULL;
	BT_STR struct bt_str text = {0};
	size_t n = 0;
	int r = read_one(f, path, &data, &n, err);
	if (r == 0 && f->template) {
		const struct bt_template t = {s, f, path, data, n, lookup, NULL};
		r = bt_config_template(&t, problems, &text, err);
	}
	if (r < 0)
		return r;
	if (f->template)
		n = text.len;
	*total += n;
	if (*total > BT_FILES_MAX_BYTES)
		return bt_err_set(err, BT_E_CONFIG,
			"files: more than %d KiB with %s: put large files into the artifact",
			BT_FILES_MAX_BYTES / 1024, f->from);
	BT_FREE char *content = bt_base64(f->template ? bt_str_get(&text) : data, n);
	json_object_set_new(to, f->to, json_string(content));
	return 0;
}

int bt_files_contents(const struct bt_service *s, json_t **ret, struct bt_err *err)
{
	BT_JSON json_t *all = json_object();
	struct bt_config_problems problems = {0};
	size_t total = 0, n = 0;
	for (size_t i = 0; i < s->n_files; i++) {
		const struct bt_file *f = &s->files[i];
		size_t before = problems.n;
		struct bt_err one = {0};
		if (add(s, f, all, &total, &problems, &one) == 0)
			continue;
		for (size_t k = before; k < problems.n; k++)
			fprintf(stderr, "%s\n", problems.items[k].line);
		if (problems.n == before)
			fprintf(stderr, "%s:%d:%d: %s\n", s->file ? s->file : "baton.yaml", f->line,
				f->column, one.text);
		n += problems.n == before ? 1 : problems.n - before;
	}
	bt_config_problems_done(&problems);
	if (n)
		return bt_err_set(err, BT_E_CONFIG, "%zu problem%s in the files of service %s", n,
			n == 1 ? "" : "s", s->name);
	*ret = BT_STEAL(all);
	return 0;
}
