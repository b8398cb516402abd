/* Inside the runtime `tomcat`: an instance is a process (process.h) whose directory is a
 * CATALINA_BASE, and whose release is placed there before it starts. */
#pragma once
#include "base/str.h"
#include "driver/driver.h"

/* ---- names (tomcat_text.c; pure) --------------------------------------------------------------
 */

/* "/" → "ROOT", "/api/v1" → "api#v1", "/shop##2" → "shop##2": Tomcat's base name of a context,
 * which its WAR, its directory and its work directory have. The caller frees. */
char *bt_tomcat_name(const char *context);

/* ---- texts of a base that baton makes (tomcat_text.c; pure) ------------------------------------
 */

struct bt_tomcat_server {
	uint16_t port;
	uint16_t shutdown_port; /* 0: none */
	const char *shutdown;	/* the word that it waits for; with a port */
	const struct bt_kv *connector;
	size_t n_connector;
	bool access_log;
};
void bt_tomcat_render(const struct bt_tomcat_server *s, struct bt_str *out);
extern const char bt_tomcat_logging[]; /* logging.properties: all to the console */

/* ---- what a server.xml says (tomcat_xml.c; pure) -----------------------------------------------
 */

#define BT_TOMCAT_XML_MAX (1u << 20)
#define BT_TOMCAT_PORTS 32

struct bt_tomcat_facts {
	uint16_t ports[BT_TOMCAT_PORTS]; /* of its Connectors, as far as they are numbers */
	size_t n_ports;
	bool open;	    /* a Connector's port is not a number, but a property */
	int shutdown_port;  /* -1: none; 0: a property */
	char shutdown[128]; /* its word */
	char engine[128], host[128], app_base[512]; /* of the engine's default host */
};
/* Baton's own system properties are put in for ${…}. BT_E_CONFIG: it is no server.xml. */
int bt_tomcat_facts_read(const char *text, size_t n, const struct bt_kv *properties,
	size_t n_properties, struct bt_tomcat_facts *ret, struct bt_err *err);

/* ---- the base (tomcat_base.c, tomcat_place.c, tomcat_files.c); on a thread: they block
 * -------------------------- */

struct bt_tomcat_owner { /* whom Tomcat runs as; -1: the agent's own user */
	int64_t uid, gid;
};
/* Everything of one start, strings borrowed. */
struct bt_tomcat_plan {
	const char *service, *slot, *version;
	uint32_t release;
	uint16_t port;
	const char *artifact; /* a WAR, or a directory */
	const char *home, *base, *name;
	bool take_over;
	const char *jars_to_skip; /* NULL: as the distribution */
	struct bt_tomcat_server server;
	const struct bt_kv *properties;
	size_t n_properties;
	struct bt_tomcat_owner owner;
};
/* What baton keeps in the base: BASE/.baton-tomcat.json. */
struct bt_tomcat_state {
	bool made; /* the base is baton's: its server.xml is rendered at each start */
	const char *service, *slot;
	const char *const *placed; /* names of contexts; more than one only in mid-placing */
	size_t n_placed;
	int shutdown_port; /* of what was started last; -1: none */
	const char *shutdown;
};
#define BT_TOMCAT_STATE ".baton-tomcat.json"
#define BT_TOMCAT_BEFORE ".before-baton"

/* Makes or checks the base and places the release; durable once it returns. */
int bt_tomcat_prepare(const struct bt_tomcat_plan *p, struct bt_err *err);

/* BT_E_NOTFOUND where there is none. Strings into the arena. */
int bt_tomcat_state_read(
	int base, struct bt_arena *a, struct bt_tomcat_state *ret, struct bt_err *err);
int bt_tomcat_state_write(int base, const struct bt_tomcat_state *s, struct bt_err *err);
/* Opens a directory in `at`, part by part. A symbolic link on the way is followed where root or the
 * agent's user made it, and refused otherwise: the user that Tomcat runs as may write here, and the
 * agent, which may be root, is not to be led elsewhere. -errno; -ELOOP: such a link. */
int bt_tomcat_open_dir(int at, const char *path);
/* A path for functions that take one: below an open directory, wherever that was moved. */
char *bt_tomcat_below(int dir, const char *name); /* the caller frees */
/* The file or directory `from` as `name` in `dir`, which has none of it: for the owner, durable but
 * for the directory's own entry. Links are copied as links. A half is removed again. */
int bt_tomcat_copy(const char *from, int dir, const char *name, const struct bt_tomcat_owner *owner,
	struct bt_err *err);
/* The release into appBase, what was placed before it out of it. */
int bt_tomcat_place(int base, const struct bt_tomcat_plan *p, const struct bt_tomcat_facts *facts,
	struct bt_tomcat_state *state, struct bt_err *err);

/* ---- stopping (tomcat_stop.c) ------------------------------------------------------------------
 */

struct bt_op *bt_tomcat_stop(const struct bt_driver_env *env, const struct bt_instance_ref *ref,
	const struct bt_service *service, bt_progress_fn progress, bt_done_fn done, void *arg);

/* ---- shared (tomcat.c) -------------------------------------------------------------------------
 */

/* The slot's CATALINA_BASE; into the arena. */
int bt_tomcat_base_path(const struct bt_driver_env *env, const struct bt_service *service,
	const struct bt_instance_ref *ref, struct bt_arena *a, const char **ret,
	struct bt_err *err);
/* The ref's further ports with the shutdown port among them; into the arena. */
void bt_tomcat_ports(
	const struct bt_service *service, struct bt_arena *a, struct bt_instance_ref *ref);
