/* Any bytes as a world: never a crash, and whatever is planned from it is a plan that holds. */
#include "fuzz.h"

#include "base/json.h"
#include "base/str.h"
#include "plan/plan.h"

static const char *const hosts[] = {"was1", "was2"};
static const struct bt_slot slots[] = {{"blue", 8081, NULL, 0}, {"green", 8082, NULL, 0}};
static const struct bt_stop_step stop[] = {{15, 1000}};
static const char *const on[] = {"was1", "web1"};
static const struct bt_nginx adopt = {.on = on, .n_on = 2, .mode = BT_NGINX_ADOPT};
static const struct bt_nginx managed = {
	.on = on + 1, .n_on = 1, .mode = BT_NGINX_MANAGED, .listen = "80"};

static void plan_one(const struct bt_service *s, const struct bt_world *w, uint32_t release)
{
	static int (*const planners[])(const struct bt_plan_request *, struct bt_plan **,
		struct bt_err *) = {bt_plan_deploy, bt_plan_rollback, bt_plan_retire};
	const struct bt_plan_request rq = {
		.service = s, .world = w, .release = {release, "v", NULL}, .first_task_id = 1};
	for (size_t i = 0; i < 3; i++) {
		struct bt_plan *p = NULL, *again = NULL;
		struct bt_err err = {0};
		if (i == 0 && release == 0)
			continue; /* nothing is no release to deploy */
		int r = planners[i](&rq, &p, &err);
		FUZZ_CHECK((r == 0) == (p != NULL) && (r == 0 || err.text[0]));
		if (r < 0)
			continue;
		BT_JSON json_t *j = bt_plan_to_json(p);
		FUZZ_CHECK(bt_plan_from_json(j, &again, &err) == 0);
		bt_plan_free(p);
		bt_plan_free(again);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct bt_nginx *const balancers[] = {NULL, &adopt, &managed};
	BT_JSON json_t *j = NULL;
	struct bt_world *w = NULL;
	struct bt_err err = {0};
	if (bt_json_parse((const char *)data, size, 1 << 20, &j, &err) < 0 ||
		bt_world_from_json(j, &w, &err) < 0)
		return 0;
	for (int strategy = 0; strategy < 3; strategy++)
		for (size_t b = 0; b < 3; b++) {
			const struct bt_service s = {.name = "shop",
				.hosts = hosts,
				.n_hosts = 1 + (b > 0),
				.run = {.slots = slots, .n_slots = 2, .stop = stop, .n_stop = 1},
				.identity = {.path = "/profile", .expect = "{slot}"},
				.nginx = balancers[b],
				.deploy = {.strategy = (enum bt_strategy)strategy,
					.batch = 1,
					.min_in_rotation = -1,
					.keep_warm_ms = (int64_t)b}};
			for (uint32_t release = 0; release < 3; release++)
				plan_one(&s, w, release);
		}
	BT_JSON json_t *x = bt_world_to_json(w);
	bt_world_free(w);
	FUZZ_CHECK(bt_world_from_json(x, &w, &err) == 0);
	bt_world_free(w);
	return 0;
}
