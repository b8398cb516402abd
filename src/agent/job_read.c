/* What several rows need: reading params, looking at the slot, reading its log. */
#include "agent/job.h"

#include "base/fs.h"
#include "base/json.h"
#include "driver/log_tail.h"

#include <stdio.h>
#include <string.h>

#define RELEASE_JSON_MAX (2u << 20)
#define MAX_MEMBERS 8192
#define LOOK_MS 200

static int take_service(struct bt_job *j, const json_t *service, struct bt_err *err)
{
	struct bt_config *c = NULL;
	int r = bt_config_service_from_json(service, &c, err);
	if (r < 0)
		return r;
	bt_config_free(j->config);
	j->config = c;
	j->service = &c->services[0];
	if (bt_streq(j->service->name, j->service_name))
		return 0;
	return bt_err_set(err, BT_E_PROTOCOL, "a command for %s carries the service %s",
		j->service_name, j->service->name);
}

int bt_job_take_service(struct bt_job *j, struct bt_err *err)
{
	json_t *service = NULL;
	int r = bt_json_object(j->params, "service", &service, err);
	return r < 0 ? r : take_service(j, service, err);
}

int bt_job_read_service(struct bt_job *j, struct bt_err *err)
{
	int r = bt_job_take_service(j, err);
	return r < 0 ? r
		     : bt_known_learn(
			       bt_job_exec(j)->known, json_object_get(j->params, "service"), err);
}

size_t bt_job_secrets(struct bt_job *j, json_t *secrets, struct bt_kv **ret)
{
	const char *name;
	json_t *value;
	size_t n = 0;
	*ret = BT_ARENA_ARRAY(j->arena, struct bt_kv, json_object_size(secrets) + 1);
	json_object_foreach (secrets, name, value)
		if (json_is_string(value))
			(*ret)[n++] = (struct bt_kv){name, json_string_value(value)};
	return n;
}

int bt_job_read_slot(struct bt_job *j, struct bt_err *err)
{
	int64_t port = 0, release = 0;
	const char *slot = NULL;
	int r = bt_json_str(j->params, "slot", &slot, err);
	if (r == 0)
		r = bt_json_int(j->params, "port", 1, 65535, &port, err);
	if (r == 0)
		r = bt_json_int_opt(j->params, "release", 0, UINT32_MAX, &release, err);
	if (r < 0)
		return r;
	if (strlen(slot) > BT_NAME_MAX || strchr(slot, '/') || slot[0] == '.' || !slot[0])
		return bt_err_set(err, BT_E_PROTOCOL, "params.slot: unusable name '%.80s'", slot);
	j->slot = slot;
	j->port = (uint16_t)port;
	j->release = (uint32_t)release;
	return bt_policy_port(bt_job_exec(j)->policy, j->port, err);
}

static int read_member(struct bt_job *j, const json_t *m, struct bt_err *err)
{
	struct bt_pool_member *to = &j->members[j->n_members];
	int64_t port = 0;
	int r = bt_json_str(m, "address", &to->address, err);
	if (r == 0)
		r = bt_json_int(m, "port", 1, 65535, &port, err);
	if (r == 0)
		r = bt_json_str_opt(m, "slot", &to->slot, err);
	if (r == 0)
		r = bt_json_str_opt(m, "host", &to->host, err);
	if (r == 0)
		r = bt_json_bool_opt(m, "in", &to->in, err);
	if (r == 0)
		r = bt_json_bool_opt(m, "one", &to->one, err);
	if (r < 0)
		return r;
	to->port = (uint16_t)port;
	j->n_members++;
	return 0;
}

int bt_job_read_members(struct bt_job *j, const char *key, struct bt_err *err)
{
	json_t *list = NULL, *m;
	size_t i;
	int r = bt_json_array(j->params, key, &list, err);
	if (r < 0)
		return r;
	if (json_array_size(list) > MAX_MEMBERS)
		return bt_err_set(err, BT_E_PROTOCOL, "params.%s: more than %d", key, MAX_MEMBERS);
	j->members = BT_ARENA_ARRAY(j->arena, struct bt_pool_member, json_array_size(list) + 1);
	json_array_foreach (list, i, m) {
		r = read_member(j, m, err);
		if (r < 0)
			return bt_err_wrap(err, "params.%s[%zu]", key, i);
	}
	return 0;
}

int bt_release_service(const struct bt_release_on_disk *release, json_t **ret, struct bt_err *err)
{
	const char *json = release->release_json; /* the text, or a path to it */
	BT_FREE char *text = NULL;
	BT_JSON json_t *doc = NULL;
	size_t n = 0;
	int r = 0;
	if (json[0] == '{')
		n = strlen(text = bt_strdup(json));
	else
		r = bt_fs_read(json, RELEASE_JSON_MAX, &text, &n, err);
	if (r == 0)
		r = bt_json_parse(text, n, RELEASE_JSON_MAX, &doc, err);
	json_t *service = json_object_get(doc, "service");
	if (r == 0)
		*ret = json_incref(json_is_object(service) ? service : doc);
	return r;
}

int bt_job_release_service(
	struct bt_job *j, uint32_t id, struct bt_release_on_disk *ret, struct bt_err *err)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	BT_JSON json_t *service = NULL;
	int r = x->drivers->release_find(x->driver, j->service_name, id, j->arena, ret, err);
	if (r < 0)
		return r;
	r = bt_release_service(ret, &service, err);
	if (r == 0)
		r = take_service(j, service, err);
	if (r < 0)
		return bt_err_wrap(err, "release %u of %s on this host", id, j->service_name);
	return 0;
}

static const struct bt_runtime_ops *runtime(struct bt_job *j)
{
	enum bt_runtime kind = j->service ? j->service->run.as : BT_RUNTIME_PROCESS;
	return bt_job_exec(j)->drivers->runtime(kind);
}

struct bt_instance_ref bt_job_ref(const struct bt_job *j)
{
	const struct bt_slot *slot = j->service ? bt_service_slot(j->service, j->slot) : NULL;
	return (struct bt_instance_ref){j->service_name, j->slot, j->port, slot ? slot->more : NULL,
		slot ? slot->n_more : 0};
}

bool bt_job_slot_seen(struct bt_job *j, struct bt_arena *a, struct bt_seen_instance *ret)
{
	const struct bt_runtime_ops *rt = runtime(j);
	struct bt_instance_ref ref = bt_job_ref(j);
	*ret = (struct bt_seen_instance){0};
	return rt && rt->observe(&ref, a, ret, NULL) >= 0;
}

/* "…Z baton: pid 12: exit code 3", as the shim writes it between the app's lines → "exit code 3" */
static const char *exit_of(const char *line)
{
	const char *mark = strstr(line, " baton: pid ");
	const char *reason = mark ? strstr(mark + 12, ": ") : NULL;
	return reason ? reason + 2 : NULL;
}

void bt_job_log_tail(struct bt_job *j, int lines, const char **ret_last, const char **ret_exit)
{
	const struct bt_runtime_ops *rt = runtime(j);
	struct bt_instance_ref ref = bt_job_ref(j);
	BT_STR struct bt_str tail = {0};
	const char *last = NULL, *ended = NULL;
	char path[4096];
	if (rt && rt->log_path) {
		rt->log_path(&ref, path, sizeof path);
		bt_log_tail_last(path, (size_t)lines, &tail, NULL);
	}
	for (char *save = NULL, *l = tail.len ? strtok_r(tail.data, "\n", &save) : NULL; l;
		l = strtok_r(NULL, "\n", &save)) {
		BT_FREE char *line = bt_asprintf("%s | %.2000s", j->slot, l);
		bt_job_log(j, line);
		if (exit_of(l))
			ended = exit_of(l);
		else if (!strstr(l, "Z baton: "))
			last = l;
	}
	if (ret_last)
		*ret_last = bt_arena_strdup(j->arena, last);
	if (ret_exit)
		*ret_exit = bt_arena_strdup(j->arena, ended);
}

static void died(struct bt_job *j, const struct bt_seen_instance *seen)
{
	const char *last, *ended;
	bt_job_log_tail(j, 20, &last, &ended);
	if (seen->state == BT_RUN_ABSENT)
		ended = NULL; /* of an earlier run, perhaps */
	bt_job_finish(j, BT_OUTCOME_FAILED, "%s on port %d %s%s%s", j->slot, j->port,
		seen->state == BT_RUN_ABSENT ? "does not run any more"
		: ended			     ? ended
					     : "exited and is started again and again",
		last ? "; its log ends: " : "; its log is empty", last ? last : "");
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct bt_job *j = arg;
	struct bt_seen_instance seen;
	(void)fd;
	(void)what;
	BT_ARENA struct bt_arena *a = bt_arena_new(); /* a bake may look for hours */
	if (!bt_job_slot_seen(j, a, &seen))
		return;
	if (j->restarts < 0)
		j->restarts = seen.restarts;
	if (seen.state == BT_RUN_ABSENT || seen.state == BT_RUN_CRASHING ||
		seen.restarts > j->restarts)
		died(j, &seen);
}

void bt_job_look_for_death(struct bt_job *j)
{
	struct timeval every = {0, LOOK_MS * 1000};
	/* A bundle's scripts have ended, and what they started may take its time before it listens:
	 * only its health can tell. */
	if (j->service && j->service->run.as == BT_RUNTIME_BUNDLE)
		return;
	j->look = event_new(bt_job_env(j)->base, -1, EV_PERSIST, on_look, j);
	event_add(j->look, &every);
	on_look(-1, 0, j);
}

int bt_job_read_env(struct bt_job *j, const char *(*value)(struct bt_job *j, const char *text),
	struct bt_err *err)
{
	json_t *env = NULL;
	int r = bt_json_object(j->params, "env", &env, err);
	if (r < 0)
		return r;
	const struct bt_run *run = &j->service->run;
	struct bt_kv *own,
		*all = BT_ARENA_ARRAY(j->arena, struct bt_kv, run->n_env + json_object_size(env));
	size_t n = bt_job_secrets(j, env, &own);
	if (run->n_env)
		memcpy(all, run->env, run->n_env * sizeof *all);
	for (size_t i = 0; i < n; i++)
		all[run->n_env + i] =
			(struct bt_kv){own[i].key, value ? value(j, own[i].value) : own[i].value};
	j->program.env = all;
	j->program.n_env = run->n_env + n;
	return 0;
}
