/* What commands that run or plan a flow share. */
#pragma once
#include "cli/cli.h"
#include "config/config.h"
#include <jansson.h>

/* Puts the flow, and --hosts and --instances where given, into a request's body. */
int bt_flow_put(const struct bt_cli *cli, const char *flow, json_t *body, struct bt_err *err);
/* Whether the flow brings a release. BT_E_CONFIG names the nearest where there is no such flow. */
int bt_flow_needs_release(
	const struct bt_service *s, const char *name, bool *ret, struct bt_err *err);
/* flows_doc.c: docs/flows.md */
void bt_flows_markdown(struct bt_str *out);
