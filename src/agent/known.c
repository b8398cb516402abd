#include "agent/known.h"

#include "base/fs.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define FILE_LIMIT (2u << 20)
#define MAX_SERVICES 1024

struct bt_known {
	char *dir;
	struct bt_ledger_file *ledger;
	struct bt_redact *redact;
	void (*on_failed)(const struct bt_err *err);
	struct bt_known_service **items;
	size_t n;
};

/* ---- writing, on the ledger's thread ------------------------------------------------------ */

struct save {
	char *path, *text;
	void (*on_failed)(const struct bt_err *err);
	int result;
	struct bt_err err;
};

static void save_run(void *arg)
{
	struct save *s = arg;
	s->result = bt_fs_write_atomic(s->path, s->text, strlen(s->text), 0600, &s->err);
}

static void save_done(void *arg)
{
	struct save *s = arg;
	if (s->result < 0 && s->on_failed)
		s->on_failed(&s->err);
	free(s->path);
	free(s->text);
	free(s);
}

static void save(struct bt_known *k, const char *kind, const char *name, char *text)
{
	struct save *s = bt_calloc(1, sizeof *s);
	s->path = bt_asprintf("%s/%s/%s.json", k->dir, kind, name);
	s->text = text;
	s->on_failed = k->on_failed;
	bt_ledger_file_job(k->ledger, save_run, save_done, s);
}

static json_t *loopback_to_json(const struct bt_wanted_loopback *l)
{
	json_t *vips = json_array();
	for (size_t i = 0; i < l->n_vips; i++)
		json_array_append_new(vips, json_string(l->vips[i]));
	return json_pack(
		"{s:b,s:s,s:o}", "on", (int)l->on, "interface", l->interface, "vips", vips);
}

static json_t *desired_to_json(const struct bt_known_service *s)
{
	json_t *slots = json_object(), *balancers = json_object(), *secrets = json_object();
	for (size_t i = 0; i < s->n_slots; i++) {
		const struct bt_wanted_slot *w = &s->slots[i];
		json_t *j = json_pack("{s:i,s:I,s:b}", "port", (int)w->port, "release",
			(json_int_t)w->release, "run", (int)w->run);
		if (w->secrets)
			json_object_set(j, "secrets", w->secrets);
		json_object_set_new(slots, w->slot, j);
	}
	for (size_t i = 0; i < s->n_balancers; i++) {
		const struct bt_wanted_balancer *b = &s->balancers[i];
		json_object_set_new(balancers, b->name, json_integer((json_int_t)b->generation));
		if (b->secrets)
			json_object_set(secrets, b->name, b->secrets);
	}
	json_t *j = json_pack("{s:i,s:o,s:o,s:o}", "version", 1, "slots", slots, "balancers",
		balancers, "balancer_secrets", secrets);
	if (s->loopback.told)
		json_object_set_new(j, "loopback", loopback_to_json(&s->loopback));
	return j;
}

static void save_desired(struct bt_known *k, const struct bt_known_service *s)
{
	BT_JSON json_t *j = desired_to_json(s);
	save(k, "desired", s->name, bt_json_dump(j));
}

/* ---- memory ------------------------------------------------------------------------------- */

static void loopback_forget(struct bt_wanted_loopback *l)
{
	for (size_t i = 0; i < l->n_vips; i++)
		free(l->vips[i]);
	free(l->vips);
	free(l->interface);
	*l = (struct bt_wanted_loopback){0};
}

static void service_free(struct bt_known_service *s)
{
	bt_config_free(s->config);
	for (size_t i = 0; i < s->n_slots; i++) {
		free(s->slots[i].slot);
		json_decref(s->slots[i].secrets);
	}
	for (size_t i = 0; i < s->n_balancers; i++) {
		free(s->balancers[i].name);
		json_decref(s->balancers[i].secrets);
	}
	loopback_forget(&s->loopback);
	free(s->slots);
	free(s->balancers);
	free(s->text);
	free(s->name);
	free(s);
}

struct bt_known *bt_known_free(struct bt_known *k)
{
	if (!k)
		return NULL;
	for (size_t i = 0; i < k->n; i++)
		service_free(k->items[i]);
	free(k->items);
	free(k->dir);
	free(k);
	return NULL;
}

size_t bt_known_count(const struct bt_known *k)
{
	return k->n;
}

const struct bt_known_service *bt_known_at(const struct bt_known *k, size_t i)
{
	return k->items[i];
}

const struct bt_known_service *bt_known_find(const struct bt_known *k, const char *name)
{
	for (size_t i = 0; i < k->n; i++)
		if (bt_streq(k->items[i]->name, name))
			return k->items[i];
	return NULL;
}

static struct bt_known_service *take(struct bt_known *k, const char *name)
{
	struct bt_known_service *s = (struct bt_known_service *)bt_known_find(k, name);
	if (s)
		return s;
	s = bt_calloc(1, sizeof *s);
	s->name = bt_strdup(name);
	k->items = bt_realloc(k->items, (k->n + 1) * sizeof *k->items);
	k->items[k->n++] = s;
	return s;
}

/* Takes text over. Returns 1 when it is news. */
static int learn_text(struct bt_known *k, const json_t *service, char *text, struct bt_err *err)
{
	struct bt_config *c = NULL;
	int r = bt_config_service_from_json(service, &c, err);
	if (r == 0 && !bt_service_name_valid(c->services[0].name))
		r = bt_err_set(err, BT_E_PROTOCOL, "a service with an unusable name");
	if (r == 0 && k->n >= MAX_SERVICES && !bt_known_find(k, c->services[0].name))
		r = bt_err_set(
			err, BT_E_REFUSED, "more than %d services on one host", MAX_SERVICES);
	if (r < 0) {
		bt_config_free(c);
		free(text);
		return r;
	}
	struct bt_known_service *s = take(k, c->services[0].name);
	if (s->text && strcmp(s->text, text) == 0) {
		bt_config_free(c);
		free(text);
		return 0;
	}
	bt_config_free(s->config);
	free(s->text);
	s->config = c;
	s->service = &c->services[0];
	s->text = text;
	return 1;
}

int bt_known_learn(struct bt_known *k, const json_t *service, struct bt_err *err)
{
	const char *name = json_string_value(json_object_get(service, "service"));
	const struct bt_known_service *have = name ? bt_known_find(k, name) : NULL;
	char *text = bt_json_dump(service);
	if (have && have->text && strcmp(have->text, text) == 0) {
		free(text);
		return 0;
	}
	const char *copy = text;
	int r = learn_text(k, service, text, err);
	if (r == 1)
		for (size_t i = 0; i < k->n; i++)
			if (k->items[i]->text == copy)
				save(k, "services", k->items[i]->name, bt_strdup(copy));
	return r < 0 ? r : 0;
}

static struct bt_wanted_slot *take_slot(struct bt_known_service *s, const char *slot)
{
	for (size_t i = 0; i < s->n_slots; i++)
		if (bt_streq(s->slots[i].slot, slot))
			return &s->slots[i];
	s->slots = bt_realloc(s->slots, (s->n_slots + 1) * sizeof *s->slots);
	struct bt_wanted_slot *w = &s->slots[s->n_slots++];
	*w = (struct bt_wanted_slot){.slot = bt_strdup(slot)};
	return w;
}

static void keep_secrets(struct bt_known *k, json_t **at, json_t *secrets)
{
	const char *name;
	json_t *value;
	if (!secrets)
		return;
	json_incref(secrets);
	json_decref(*at);
	*at = secrets;
	json_object_foreach (secrets, name, value)
		if (json_is_string(value))
			bt_redact_add(k->redact, json_string_value(value));
}

void bt_known_want_slot(struct bt_known *k, const char *service, const char *slot, uint16_t port,
	uint32_t release, bool run, json_t *secrets)
{
	struct bt_known_service *s = take(k, service);
	struct bt_wanted_slot *w = take_slot(s, slot);
	if (w->port == port && w->release == release && w->run == run &&
		(!secrets || (w->secrets && json_equal(w->secrets, secrets))))
		return;
	w->port = port;
	w->release = release;
	w->run = run;
	keep_secrets(k, &w->secrets, secrets);
	save_desired(k, s);
}

static struct bt_wanted_balancer *take_balancer(struct bt_known_service *s, const char *name)
{
	for (size_t i = 0; i < s->n_balancers; i++)
		if (bt_streq(s->balancers[i].name, name))
			return &s->balancers[i];
	s->balancers = bt_realloc(s->balancers, (s->n_balancers + 1) * sizeof *s->balancers);
	struct bt_wanted_balancer *b = &s->balancers[s->n_balancers++];
	*b = (struct bt_wanted_balancer){.name = bt_strdup(name)};
	return b;
}

void bt_known_want_balancer(struct bt_known *k, const char *service, const char *name,
	uint64_t generation, json_t *secrets)
{
	struct bt_known_service *s = take(k, service);
	struct bt_wanted_balancer *b = take_balancer(s, name);
	bool same = !secrets || (b->secrets && json_equal(b->secrets, secrets));
	if (b->generation >= generation && same)
		return;
	if (generation > b->generation)
		b->generation = generation;
	keep_secrets(k, &b->secrets, secrets);
	save_desired(k, s);
}

const char *bt_known_balancer_secret(
	const struct bt_known *k, const char *service, const char *name)
{
	const struct bt_known_service *s = bt_known_find(k, service);
	const char *value = NULL;
	for (size_t i = 0; s && i < s->n_balancers && !value; i++)
		value = json_string_value(json_object_get(s->balancers[i].secrets, name));
	return value;
}

static bool wants_just(const struct bt_wanted_loopback *w, const struct bt_loopback *l, bool on)
{
	bool same = w->told && w->on == on && w->n_vips == l->n_vips &&
		    bt_streq(w->interface, l->interface);
	for (size_t i = 0; same && i < l->n_vips; i++)
		same = bt_streq(w->vips[i], l->vips[i]);
	return same;
}

static void keep_loopback(struct bt_wanted_loopback *w, const struct bt_loopback *l, bool on)
{
	struct bt_wanted_loopback now = {.told = true,
		.on = on,
		.interface = bt_strdup(l->interface),
		.vips = bt_calloc(l->n_vips + 1, sizeof *now.vips)};
	for (size_t i = 0; i < l->n_vips; i++)
		now.vips[now.n_vips++] = bt_strdup(l->vips[i]);
	loopback_forget(w);
	*w = now;
}

void bt_known_want_loopback(
	struct bt_known *k, const char *service, const struct bt_loopback *l, bool on)
{
	struct bt_known_service *s = take(k, service);
	if (wants_just(&s->loopback, l, on))
		return;
	keep_loopback(&s->loopback, l, on);
	save_desired(k, s);
}

struct bt_loopback bt_known_loopback(const struct bt_known_service *s, struct bt_arena *a)
{
	const struct bt_wanted_loopback *w = &s->loopback;
	struct bt_loopback l = {.interface = w->interface};
	const char **vips = BT_ARENA_ARRAY(a, const char *, w->n_vips + 1);
	for (size_t i = 0; w->on && i < w->n_vips; i++)
		vips[l.n_vips++] = w->vips[i];
	l.vips = vips;
	return l;
}

const char *bt_known_holder(const struct bt_known *k, const char *service, const char *vip)
{
	for (size_t i = 0; i < k->n; i++) {
		const struct bt_wanted_loopback *w = &k->items[i]->loopback;
		for (size_t j = 0; w->on && j < w->n_vips; j++)
			if (bt_streq(w->vips[j], vip) && !bt_streq(k->items[i]->name, service))
				return k->items[i]->name;
	}
	return NULL;
}

const struct bt_wanted_slot *bt_known_slot(
	const struct bt_known *k, const char *service, const char *slot)
{
	const struct bt_known_service *s = bt_known_find(k, service);
	for (size_t i = 0; s && i < s->n_slots; i++)
		if (bt_streq(s->slots[i].slot, slot))
			return &s->slots[i];
	return NULL;
}

/* ---- reading ------------------------------------------------------------------------------ */

static int load_slot(struct bt_known *k, struct bt_known_service *s, const char *slot,
	const json_t *j, struct bt_err *err)
{
	int64_t port = 0, release = 0;
	bool run = false;
	int r = bt_json_int(j, "port", 0, 65535, &port, err);
	if (r == 0)
		r = bt_json_int(j, "release", 0, UINT32_MAX, &release, err);
	if (r == 0)
		r = bt_json_bool(j, "run", &run, err);
	if (r < 0)
		return r;
	struct bt_wanted_slot *w = take_slot(s, slot);
	w->port = (uint16_t)port;
	w->release = (uint32_t)release;
	w->run = run;
	keep_secrets(k, &w->secrets, json_object_get(j, "secrets"));
	return 0;
}

#define MAX_VIPS 64

static int load_loopback(struct bt_known_service *s, const json_t *j, struct bt_err *err)
{
	const char *vips[MAX_VIPS];
	struct bt_loopback l = {.vips = vips};
	json_t *list = NULL, *vip;
	bool on = false;
	size_t i;
	int r = bt_json_bool(j, "on", &on, err);
	if (r == 0)
		r = bt_json_str(j, "interface", &l.interface, err);
	if (r == 0)
		r = bt_json_array(j, "vips", &list, err);
	if (r < 0)
		return r;
	json_array_foreach (list, i, vip) {
		if (!json_is_string(vip) || i == MAX_VIPS)
			return bt_err_set(err, BT_E_CORRUPT, "loopback.vips[%zu]", i);
		vips[l.n_vips++] = json_string_value(vip);
	}
	keep_loopback(&s->loopback, &l, on);
	return 0;
}

static int load_desired(struct bt_known *k, const char *name, const json_t *j, struct bt_err *err)
{
	json_t *slots, *balancers, *value;
	const char *key;
	int r = bt_json_object(j, "slots", &slots, err);
	if (r == 0)
		r = bt_json_object(j, "balancers", &balancers, err);
	if (r < 0)
		return r;
	struct bt_known_service *s = take(k, name);
	json_object_foreach (slots, key, value) {
		r = load_slot(k, s, key, value, err);
		if (r < 0)
			return r;
	}
	json_object_foreach (balancers, key, value)
		take_balancer(s, key)->generation = (uint64_t)json_integer_value(value);
	json_object_foreach (json_object_get(j, "balancer_secrets"), key, value)
		if (json_is_object(value))
			keep_secrets(k, &take_balancer(s, key)->secrets, value);
	value = json_object_get(j, "loopback");
	return value ? load_loopback(s, value, err) : 0;
}

static int load_service(struct bt_known *k, const char *name, const json_t *j, struct bt_err *err)
{
	(void)name;
	int r = learn_text(k, j, bt_json_dump(j), err);
	return r < 0 ? r : 0;
}

typedef int (*load_fn)(struct bt_known *k, const char *name, const json_t *j, struct bt_err *err);

static int load_file(
	struct bt_known *k, const char *dir, const char *file, load_fn load, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/%s", dir, file);
	BT_FREE char *text = NULL;
	BT_FREE char *name = bt_strndup(file, strlen(file) - strlen(".json"));
	BT_JSON json_t *j = NULL;
	size_t n;
	int r = bt_fs_read(path, FILE_LIMIT, &text, &n, err);
	if (r == 0)
		r = bt_json_parse(text, n, FILE_LIMIT, &j, err);
	if (r == 0)
		r = load(k, name, j, err);
	return r < 0 ? bt_err_wrap(err, "%s", path) : 0;
}

static int load_dir(struct bt_known *k, const char *kind, load_fn load, struct bt_err *err)
{
	BT_FREE char *dir = bt_asprintf("%s/%s", k->dir, kind);
	int r = bt_fs_mkdirs(dir, 0700, err);
	if (r < 0)
		return r;
	DIR *d = opendir(dir);
	if (!d)
		return bt_err_errno(err, errno, "read %s", dir);
	for (struct dirent *e; r == 0 && (e = readdir(d));) {
		BT_FREE char *path = bt_asprintf("%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.' && bt_str_ends(e->d_name, ".json"))
			r = load_file(k, dir, e->d_name, load, err);
		else if (strstr(e->d_name, ".json.tmp.")) /* a crash left it half written */
			unlink(path);
	}
	closedir(d);
	return r;
}

int bt_known_load(const char *state_dir, struct bt_ledger_file *ledger, struct bt_redact *redact,
	void (*on_failed)(const struct bt_err *err), struct bt_known **ret, struct bt_err *err)
{
	struct bt_known *k = bt_calloc(1, sizeof *k);
	k->dir = bt_strdup(state_dir);
	k->ledger = ledger;
	k->redact = redact;
	k->on_failed = on_failed;
	int r = load_dir(k, "services", load_service, err);
	if (r == 0)
		r = load_dir(k, "desired", load_desired, err);
	if (r < 0) {
		bt_known_free(k);
		return r;
	}
	*ret = k;
	return 0;
}
