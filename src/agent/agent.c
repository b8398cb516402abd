/* Putting the parts together, in the order that makes a crash harmless: lock, policy, ledger,
 * drivers (which adopt what runs), executor, link; what the ledger holds open goes on last. */
#include "agent/agent.h"

#include "agent/boot.h"
#include "agent/identity.h"
#include "agent/loopback.h"
#include "agent/upgrade_priv.h"
#include "base/fs.h"
#include "base/str.h"
#include "base/version.h"
#include "driver/places.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEEP_FREE_BYTES (64 << 20)

struct bt_agent {
	struct event_base *base;
	int lock_fd;
	struct bt_log log;
	char *state_dir, *server_url, *host, *address, *shim_path, *self_path, *artifact_url;
	struct bt_identity_files files;
	struct bt_tls_identity tls;
	struct bt_policy *policy;
	struct bt_redact *redact;
	struct bt_work *work;
	struct bt_http_client *http;
	struct bt_driver_env driver;
	struct bt_ledger_file *ledger;
	struct bt_known *known;
	struct bt_boot *boot;
	struct bt_addresses *addresses;
	struct bt_exec_env exec_env;
	struct bt_exec *exec;
	struct bt_link *link;
	struct bt_renewal *renewal;
	struct bt_upgrade *upgrade; /* to be tried when the loop has ended */
	bool is_process;
};

static int settle_names(struct bt_agent *a, const struct bt_agent_spec *spec, struct bt_err *err)
{
	const struct bt_identity_files *f = &a->files;
	const char *server = spec->server_url ? spec->server_url : f->server_url;
	const char *host = spec->host ? spec->host : f->host;
	const char *address = spec->address ? spec->address : f->address;
	if (!server || !host)
		return bt_err_set(err, BT_E_NOTFOUND,
			"%s/agent.json is missing: run 'baton agent join URL --token T' first",
			a->state_dir);
	a->server_url = bt_strdup(server);
	while (bt_str_ends(a->server_url, "/"))
		a->server_url[strlen(a->server_url) - 1] = '\0';
	a->host = bt_strdup(host);
	a->address = bt_strdup(address ? address : "127.0.0.1");
	a->self_path = spec->self_path ? bt_strdup(spec->self_path) : bt_place_self();
	a->shim_path = spec->shim_path ? bt_strdup(spec->shim_path) : bt_place_shim(a->self_path);
	a->artifact_url = bt_asprintf("%s/v1/agent/artifacts", a->server_url);
	a->tls = (struct bt_tls_identity){
		.ca_file = f->ca, .cert_file = f->cert, .key_file = f->key};
	snprintf(a->log.context, sizeof a->log.context, "host=%.64s ", a->host);
	return 0;
}

static int load_policy(struct bt_agent *a, const struct bt_agent_spec *spec, struct bt_err *err)
{
	struct bt_policy_spec p = {
		.path = spec->policy_file ? spec->policy_file : BT_AGENT_POLICY_FILE,
		.must_exist = spec->policy_file != NULL,
		.own_machine = spec->own_machine,
		.state_dir = a->state_dir,
	};
	return bt_policy_load(&p, &a->policy, err);
}

static void on_known_failed(const struct bt_err *err)
{
	bt_log(NULL, BT_LOG_ERROR, "%s", err->text);
}

static int open_memory(struct bt_agent *a, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/ledger", a->state_dir);
	struct bt_ledger_file_spec spec = {.path = path};
	size_t cut = 0;
	int r = bt_ledger_file_open(a->base, &spec, &a->ledger, &cut, err);
	if (r < 0)
		return r;
	if (cut)
		bt_log(&a->log, BT_LOG_WARN,
			"the ledger ended in the middle of a line: %zu bytes of it are dropped",
			cut);
	return bt_known_load(a->state_dir, a->ledger, a->redact, on_known_failed, &a->known, err);
}

static const char *on_secret(void *arg, const char *service, const char *name)
{
	return bt_known_balancer_secret(((struct bt_agent *)arg)->known, service, name);
}

static int start_drivers(struct bt_agent *a, struct bt_err *err)
{
	a->driver = (struct bt_driver_env){
		.base = a->base,
		.work = a->work,
		.http = a->http,
		.state_dir = a->state_dir,
		.host = a->host,
		.shim_path = a->shim_path,
		.self_path = a->self_path,
		.tls = &a->tls,
		.secret = on_secret,
		.secret_arg = a,
	};
	int load = bt_boot_load(a->state_dir, a->known, &a->driver, &a->boot, err);
	if (load < 0)
		return load;
	int r = 0;
	const struct bt_runtime_ops *rt;
	const struct bt_balancer_ops *lb;
	for (int kind = 0; r == 0 && kind <= BT_RUNTIME_BUNDLE; kind++)
		if ((rt = bt_runtime_find((enum bt_runtime)kind)) && rt->init)
			r = rt->init(&a->driver, err);
	for (size_t i = 0; r == 0 && (lb = bt_balancer_at(i)); i++)
		r = lb->init(&a->driver, err);
	return r;
}

static void on_upgrade(void *arg, struct bt_upgrade *u)
{
	struct bt_agent *a = arg;
	a->upgrade = u;
	event_base_loopbreak(a->base);
}

static void start_executor(struct bt_agent *a)
{
	a->exec_env = (struct bt_exec_env){
		.driver = &a->driver,
		.drivers = bt_drivers_real(),
		.policy = a->policy,
		.ledger = a->ledger,
		.known = a->known,
		.redact = a->redact,
		.boot = a->boot,
		.agent_version = bt_version,
		.address = a->address,
		.artifact_url = a->artifact_url,
		.keep_free_bytes = KEEP_FREE_BYTES,
		.on_accepted = bt_link_on_accepted,
		.on_result = bt_link_on_result,
		.on_refused = bt_link_on_refused,
		.on_progress = bt_link_on_progress,
		.on_changed = bt_link_on_changed,
	};
	/* The executor tells the link and the link feeds the executor: the second gets to know the
	 * first by its environment, which the executor copies when it is made. */
	struct bt_link_env env = {
		.exec = &a->exec_env,
		.http = a->http,
		.server_url = a->server_url,
		.tls = &a->tls,
		.state_dir = a->state_dir,
		.host = a->host,
		.address = a->address,
		.version = bt_version,
		.log = &a->log,
		.on_upgrade = a->is_process ? on_upgrade : NULL,
		.on_upgrade_arg = a,
	};
	a->link = bt_link_new(&env);
	a->exec_env.arg = a->link;
	a->exec = bt_exec_new(&a->exec_env);
	bt_link_start(a->link, a->exec);
	a->renewal = bt_renewal_new(a->link, a->state_dir, a->files.cert);
}

static int take_dir(struct bt_agent *a, const char *dir, struct bt_err *err)
{
	BT_FREE char *real = realpath(dir, NULL);
	if (!real)
		return bt_err_errno(err, errno, "state directory %s", dir);
	a->state_dir = bt_strdup(real);
	BT_FREE char *lock = bt_asprintf("%s/lock", real);
	struct bt_err own = {0};
	int r = bt_fs_lock(lock, &a->lock_fd, &own);
	if (r == BT_E_REFUSED)
		return bt_err_set(err, r, "another agent runs on %s already", dir);
	return r < 0 ? bt_err_set(err, r, "%s", own.text) : 0;
}

/* Leaves instances and balancers as they are. */
static void agent_free(struct bt_agent *a)
{
	if (!a)
		return;
	bt_renewal_free(a->renewal);
	bt_exec_free(a->exec);
	bt_boot_free(a->boot);
	bt_addresses_free(a->addresses);
	bt_link_free(a->link);
	bt_ledger_file_free(a->ledger);
	bt_known_free(a->known);
	bt_http_client_free(a->http);
	bt_work_free(a->work);
	bt_policy_free(a->policy);
	bt_redact_free(a->redact);
	bt_identity_done(&a->files);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	free(a->state_dir);
	free(a->server_url);
	free(a->host);
	free(a->address);
	free(a->shim_path);
	free(a->self_path);
	free(a->artifact_url);
	free(a);
}

/* Starts on the loop and returns. */
static int start(struct event_base *base, const struct bt_agent_spec *spec, struct bt_agent **ret,
	struct bt_err *err)
{
	struct bt_agent *a = bt_calloc(1, sizeof *a);
	a->base = base;
	a->is_process = spec->is_process;
	a->lock_fd = -1;
	a->redact = bt_redact_new();
	int r = take_dir(a, spec->state_dir, err);
	if (r == 0)
		r = bt_identity_load(a->state_dir, &a->files, err);
	if (r == 0)
		r = settle_names(a, spec, err);
	if (r == 0)
		r = load_policy(a, spec, err);
	if (r == 0)
		r = open_memory(a, err);
	if (r == 0) {
		a->work = bt_work_new(base, 1);
		a->http = bt_http_client_new(base);
		r = start_drivers(a, err);
	}
	if (r < 0) {
		agent_free(a);
		return r;
	}
	start_executor(a);
	/* Before anybody is asked whether this host may get requests. */
	a->addresses = bt_addresses_start(&a->exec_env, &a->log);
	bt_boot_start(a->boot, &a->exec_env, &a->log);
	size_t open = bt_exec_recover(a->exec);
	const struct bt_upgrade_start *up = bt_upgrade_started();
	if (up->failed)
		bt_log(&a->log, BT_LOG_ERROR, "not upgraded, this is the agent of before: %s",
			up->failed);
	bt_log(&a->log, BT_LOG_INFO, "%sagent %s on %s, policy %s%s",
		up->trial_fd >= 0 ? "on trial: " : "", bt_version, a->state_dir, a->policy->file,
		open ? "; going on with what was begun" : "");
	*ret = a;
	return 0;
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	event_base_loopbreak(arg);
}

int bt_agent_main(const struct bt_agent_spec *spec, struct bt_err *err)
{
	/* One arena for all threads: the agent is small and shares its host with the apps. */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TRIM_THRESHOLD, 128 * 1024);
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	struct event_base *base = event_base_new();
	struct event *term = evsignal_new(base, SIGTERM, on_signal, base);
	struct event *intr = evsignal_new(base, SIGINT, on_signal, base);
	event_add(term, NULL);
	event_add(intr, NULL);
	struct bt_agent *a = NULL;
	struct bt_agent_spec own = *spec;
	own.is_process = getenv("BATON_UP") == NULL;
	int r = start(base, &own, &a, err);
	if (r == 0)
		event_base_dispatch(base);
	struct bt_upgrade *upgrade = a ? BT_STEAL(a->upgrade) : NULL;
	if (upgrade)
		bt_upgrade_leave_loop(upgrade);
	agent_free(a);
	event_free(term);
	event_free(intr);
	event_base_free(base);
	if (upgrade)
		bt_upgrade_finish(upgrade);
	return r;
}
