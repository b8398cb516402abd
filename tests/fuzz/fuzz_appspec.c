/* Any bytes as appspec.yml: never a crash, and what is read holds what whoever uses it relies on.
 */
#include "fuzz.h"

#include "config/appspec.h"

#include <string.h>

/* Normal: no empty part, no "." and no "..". */
static void check_path(const char *path)
{
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");
		FUZZ_CHECK(n > 0 && !(n == 1 && p[0] == '.') && !(n == 2 && !strncmp(p, "..", 2)));
		p += n;
		FUZZ_CHECK(!*p || p[1]);
		p += *p == '/';
	}
}

static void check_absolute(const char *path)
{
	FUZZ_CHECK(path[0] == '/');
	check_path(path + 1);
}

static void check(const struct bt_appspec *a)
{
	for (size_t i = 0; i < a->n_files; i++) {
		check_path(a->files[i].source);
		check_absolute(a->files[i].destination);
	}
	for (size_t i = 0; i < a->n_permissions; i++) {
		const struct bt_appspec_permission *p = &a->permissions[i];
		check_absolute(p->object);
		FUZZ_CHECK(p->mode >= -1 && p->mode <= 07777);
		bt_appspec_permits(p, "/srv/a/b.sh", false);
		bt_appspec_permits(p, p->object, true);
	}
	for (int e = 0; e < BT_LIFECYCLES; e++) {
		FUZZ_CHECK(a->events[e].n == 0 || bt_lifecycles[e].scripts);
		for (size_t i = 0; i < a->events[e].n; i++) {
			const struct bt_appspec_script *s = &a->events[e].scripts[i];
			FUZZ_CHECK(s->location[0]);
			check_path(s->location);
			FUZZ_CHECK(s->timeout_ms >= 1000 && s->timeout_ms <= BT_APPSPEC_EVENT_MS);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bt_appspec *a = NULL;
	struct bt_config_problems problems = {0};
	int r = bt_appspec_parse((const char *)data, size, "fuzz", &a, &problems, NULL);
	FUZZ_CHECK((r == 0) == (problems.n == 0) && (r == 0) == (a != NULL));
	for (size_t i = 0; i < problems.n; i++)
		FUZZ_CHECK(!strchr(problems.items[i].line, '\n'));
	if (r == 0)
		check(a);
	bt_appspec_free(a);
	bt_config_problems_done(&problems);
	return 0;
}
