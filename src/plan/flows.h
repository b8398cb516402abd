/* The flows that come with baton: templates of the company tool by their names, and the strategies
 * seen as flows. */
#pragma once
#include "model/service.h"

extern const struct bt_flow bt_flows_built_in[];
extern const size_t bt_n_flows_built_in;

/* What a strategy does, in words: it makes its stages from what is there, so they are no list. */
struct bt_flow_strategy {
	enum bt_strategy strategy;
	const char *doc;
	const char *const *stages; /* ended by NULL */
};
extern const struct bt_flow_strategy bt_flows_strategies[];
extern const size_t bt_n_flows_strategies;

/* By name: the service's own (service may be NULL), then the built-in ones. NULL: unknown, with the
 * nearest name or NULL. */
const struct bt_flow *bt_flow_find(
	const struct bt_service *service, const char *name, const char **ret_near);
/* BT_E_CONFIG, and one line that says so; near: what bt_flow_find gave; service may be NULL. */
int bt_flow_unknown(
	const struct bt_service *service, const char *name, const char *near, struct bt_err *err);
/* Whether it brings a release to the hosts, so that one has to be given. */
bool bt_flow_deploys(const struct bt_flow *f);
