/* Which boot this is, and what is held in it: state_dir/boot. */
#include "agent/boot_priv.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "shim/proc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX (1u << 20)

static json_t *to_json(const struct bt_boot *b)
{
	json_t *held = json_array();
	for (const struct bt_boot_slot *s = b->slots; s; s = s->next)
		json_array_append_new(held,
			json_pack("{s:s, s:s, s:i, s:I}", "service", s->service->name, "slot",
				s->name, "port", (int)s->port, "release", (json_int_t)s->release));
	return json_pack("{s:i, s:s, s:o}", "version", 1, "boot", b->id, "held", held);
}

struct save {
	char *path, *text;
};

static void save_run(void *arg)
{
	struct save *s = arg;
	/* Not written: the next start of the agent holds, once more, what is healthy already. */
	(void)bt_fs_write_atomic(s->path, s->text, strlen(s->text), 0600, NULL);
}

static void save_done(void *arg)
{
	struct save *s = arg;
	free(s->path);
	free(s->text);
	free(s);
}

void bt_boot_save(struct bt_boot *b)
{
	struct save *s = bt_calloc(1, sizeof *s);
	BT_JSON json_t *j = to_json(b);
	s->path = bt_strdup(b->path);
	s->text = bt_json_dump(j);
	bt_work_submit(b->env->driver->work, save_run, save_done, s);
}

static struct bt_boot_service *service_of(struct bt_boot *b, const char *name)
{
	struct bt_boot_service **p = &b->services;
	for (; *p; p = &(*p)->next)
		if (strcmp((*p)->name, name) == 0)
			return *p;
	*p = bt_calloc(1, sizeof **p);
	(*p)->boot = b;
	(*p)->name = bt_strdup(name);
	return *p;
}

static void add(
	struct bt_boot *b, const char *service, const char *slot, uint16_t port, uint32_t release)
{
	struct bt_boot_slot *s = bt_calloc(1, sizeof *s);
	s->service = service_of(b, service);
	s->name = bt_strdup(slot);
	s->port = port;
	s->release = release;
	s->next = b->slots;
	b->slots = s;
}

static void take_held(struct bt_boot *b, const json_t *held)
{
	size_t i;
	json_t *one;
	json_array_foreach (held, i, one) {
		const char *service = json_string_value(json_object_get(one, "service"));
		const char *slot = json_string_value(json_object_get(one, "slot"));
		if (service && slot)
			add(b, service, slot,
				(uint16_t)json_integer_value(json_object_get(one, "port")),
				(uint32_t)json_integer_value(json_object_get(one, "release")));
	}
}

static void take_wanted(struct bt_boot *b, const struct bt_known *known)
{
	for (size_t i = 0; i < bt_known_count(known); i++) {
		const struct bt_known_service *s = bt_known_at(known, i);
		for (size_t k = 0; k < s->n_slots; k++)
			if (s->slots[k].run)
				add(b, s->name, s->slots[k].slot, s->slots[k].port,
					s->slots[k].release);
	}
}

/* The kernel's boot, and process 1's: a container is booted without the kernel, and what it shows
 * of the kernel's boot id depends on who mounted what over it. */
static int boot_id(char id[static 80], struct bt_err *err)
{
	struct bt_proc_stat first = {0};
	char kernel[40] = "";
	int r = bt_proc_boot_id(kernel, sizeof kernel);
	if (r < 0)
		return bt_err_errno(err, r, "read the kernel's boot id");
	(void)bt_proc_stat(1, &first); /* hidden from us: the kernel's has to do */
	snprintf(id, 80, "%s %lld", kernel, (long long)first.start_ticks);
	return 0;
}

int bt_boot_load(const char *state_dir, const struct bt_known *known, struct bt_driver_env *env,
	struct bt_boot **ret, struct bt_err *err)
{
	struct bt_boot *b = bt_calloc(1, sizeof *b);
	BT_FREE char *text = NULL;
	BT_JSON json_t *j = NULL;
	size_t n = 0;
	b->path = bt_asprintf("%s/boot", state_dir);
	int r = boot_id(b->id, err);
	if (r == 0)
		r = bt_fs_read(b->path, FILE_MAX, &text, &n, err);
	bool first = r == -ENOENT &&
		     b->id[0]; /* an agent before this file, or a new host: all goes on */
	if (first)
		r = 0;
	else if (r == 0)
		r = bt_json_parse(text, n, FILE_MAX, &j, err);
	if (r < 0) {
		bt_err_wrap(err, "%s", b->path);
		bt_boot_free(b);
		return r;
	}
	if (bt_streq(json_string_value(json_object_get(j, "boot")), b->id))
		take_held(b, json_object_get(j, "held"));
	else if (!first)
		take_wanted(b, known);
	/* Durable before anything is started or held in this boot. */
	BT_JSON json_t *now = to_json(b);
	BT_FREE char *dump = bt_json_dump(now);
	/* An agent that starts again in the same boot has nothing to write, and so needs no room.
	 */
	r = bt_streq(text, dump) ? 0 : bt_fs_write_atomic(b->path, dump, strlen(dump), 0600, err);
	if (r < 0) {
		bt_boot_free(b);
		return r;
	}
	env->hold = b->slots != NULL;
	*ret = b;
	return 0;
}
