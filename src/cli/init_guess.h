/* What a first baton.yaml should say, guessed from what runs on this host. */
#pragma once
#include "agent/survey.h"
#include "base/str.h"

struct bt_guess_slot {
	const char *name;
	uint16_t port;
	const struct bt_survey_listener *runs; /* NULL: nothing yet */
};
struct bt_guess {
	struct bt_arena *arena;
	const struct bt_survey *survey;
	const struct bt_survey_listener *app;	 /* NULL: none found */
	const struct bt_survey_target *target;	 /* that nginx sends by; NULL */
	const struct bt_survey_target *variable; /* another one beside an upstream: `/` to one */
	const char *service, *artifact;
	size_t artifact_arg; /* index into the app's argv; n_argv: none */
	const char *const *command;
	size_t n_command;
	bool port_in_command, profile; /* profile: the slots' names are Spring profiles */
	struct bt_guess_slot slots[8];
	size_t n_slots;
	bool rolling;
	const char *nginx_url;
	/* asked of the app */
	const char *health_path; /* NULL: none of the usual ones answers */
	bool health_is_json, identity;
};
/* Asks the app a few GETs, as a health check would. Strings live in the arena. */
void bt_guess_from(struct bt_arena *a, const struct bt_survey *s, struct bt_guess *ret);
void bt_guess_write(const struct bt_guess *g, struct bt_str *out);
