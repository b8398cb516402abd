/* Who the agent is: agent.json, ca.pem, agent.pem in its state directory, and renewing them. */
#pragma once
#include "agent/link_priv.h"

struct bt_identity_files {
	char *server_url, *host, *address; /* from agent.json; NULL where there is none */
	char *ca, *cert, *key;		   /* paths; key may be cert: one file holds both */
};
/* What is there; BT_E_NOTFOUND without a certificate, with what to do. */
int bt_identity_load(const char *dir, struct bt_identity_files *ret, struct bt_err *err);
void bt_identity_done(struct bt_identity_files *f);
/* Renews over the link when it is due: checked at the start and every hour. */
struct bt_renewal;
struct bt_renewal *bt_renewal_new(struct bt_link *l, const char *state_dir, const char *cert);
struct bt_renewal *bt_renewal_free(struct bt_renewal *r); /* NULL is fine; returns NULL */
