/* Joining and renewing. Key and certificate live in one file, so that a crash never leaves a
 * certificate beside the key of another; a new key is made for every certificate. */
#include "agent/identity.h"

#include "agent/agent.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "net/pki.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PEM_MAX 65536
#define RENEW_CHECK_S 3600
#define JOIN_TIMEOUT_MS 30000

/* ---- the files ----------------------------------------------------------------------------- */

static char *in_dir(const char *dir, const char *name)
{
	return bt_asprintf("%s/%s", dir, name);
}

bool bt_agent_is_joined(const char *dir)
{
	BT_FREE char *cert = in_dir(dir, "agent.pem");
	BT_FREE char *json = in_dir(dir, "agent.json");
	return bt_fs_exists(cert) && bt_fs_exists(json);
}

int bt_agent_csr(const char *dir, const char *host, char **ret_csr_pem, struct bt_err *err)
{
	BT_FREE char *key = in_dir(dir, "agent.key.new");
	/* Apps of other users pass through to their release; every private file has its own mode.
	 */
	int r = bt_fs_mkdirs(dir, 0711, err);
	return r < 0 ? r : bt_pki_make_csr(key, host, ret_csr_pem, err);
}

/* agent.key.new and the certificate become agent.pem. */
static int place_certificate(const char *dir, const char *cert_pem, struct bt_err *err)
{
	BT_FREE char *key_path = in_dir(dir, "agent.key.new");
	BT_FREE char *pem_path = in_dir(dir, "agent.pem");
	BT_FREE char *key = NULL;
	int r = bt_fs_read(key_path, PEM_MAX, &key, NULL, err);
	if (r < 0)
		return r;
	BT_FREE char *both =
		bt_asprintf("%s%s%s", key, bt_str_ends(key, "\n") ? "" : "\n", cert_pem);
	r = bt_fs_write_atomic(pem_path, both, strlen(both), 0600, err);
	OPENSSL_cleanse(key, strlen(key));
	OPENSSL_cleanse(both, strlen(both));
	if (r == 0)
		unlink(key_path);
	return r;
}

int bt_agent_place(const char *dir, const char *server_url, const char *host, const char *address,
	const char *cert_pem, const char *ca_pem, struct bt_err *err)
{
	BT_FREE char *ca = in_dir(dir, "ca.pem");
	BT_FREE char *json = in_dir(dir, "agent.json");
	int r = bt_fs_write_atomic(ca, ca_pem, strlen(ca_pem), 0644, err);
	if (r == 0)
		r = place_certificate(dir, cert_pem, err);
	if (r < 0)
		return r;
	BT_JSON json_t *j = json_pack("{s:i,s:s,s:s,s:s}", "version", 1, "server", server_url,
		"host", host, "address", address);
	BT_FREE char *text = bt_json_dump(j);
	return bt_fs_write_atomic(json, text, strlen(text), 0644, err);
}

static int load_json(const char *dir, struct bt_identity_files *f, struct bt_err *err)
{
	BT_FREE char *path = in_dir(dir, "agent.json");
	BT_FREE char *text = NULL;
	BT_JSON json_t *j = NULL;
	const char *server = NULL, *host = NULL, *address = NULL;
	size_t n;
	if (!bt_fs_exists(path))
		return 0;
	int r = bt_fs_read(path, PEM_MAX, &text, &n, err);
	if (r == 0)
		r = bt_json_parse(text, n, PEM_MAX, &j, err);
	if (r == 0)
		r = bt_json_str(j, "server", &server, err);
	if (r == 0)
		r = bt_json_str(j, "host", &host, err);
	if (r == 0)
		r = bt_json_str(j, "address", &address, err);
	if (r < 0)
		return bt_err_wrap(err, "%s", path);
	f->server_url = bt_strdup(server);
	f->host = bt_strdup(host);
	f->address = bt_strdup(address);
	return 0;
}

int bt_identity_load(const char *dir, struct bt_identity_files *ret, struct bt_err *err)
{
	struct bt_identity_files f = {0};
	BT_FREE char *pem = NULL;
	f.ca = in_dir(dir, "ca.pem");
	f.cert = in_dir(dir, "agent.pem");
	int r = load_json(dir, &f, err);
	if (r == 0 && (bt_fs_read(f.cert, PEM_MAX, &pem, NULL, NULL) < 0 || !bt_fs_exists(f.ca)))
		r = bt_err_set(err, BT_E_NOTFOUND,
			"%s has no certificate yet: run 'baton agent join URL --token T' first",
			dir);
	if (r < 0) {
		bt_identity_done(&f);
		return r;
	}
	/* One file holds both since the first renewal; a server beside us may have written two. */
	f.key = strstr(pem, "PRIVATE KEY-----") ? bt_strdup(f.cert) : in_dir(dir, "agent.key");
	OPENSSL_cleanse(pem, strlen(pem));
	*ret = f;
	return 0;
}

void bt_identity_done(struct bt_identity_files *f)
{
	free(f->server_url);
	free(f->host);
	free(f->address);
	free(f->ca);
	free(f->cert);
	free(f->key);
	*f = (struct bt_identity_files){0};
}

/* ---- joining ------------------------------------------------------------------------------- */

struct join {
	struct event_base *base;
	int status;
	json_t *answer;
	struct bt_err err;
};

static void on_join(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct join *j = arg;
	j->status = r->status;
	if (!r->status)
		j->err = *err;
	else if (bt_json_parse(r->body, r->body_len, 1 << 20, &j->answer, &j->err) < 0)
		bt_err_wrap(&j->err, "the server's answer");
	event_base_loopbreak(j->base);
}

static void ask_to_join(struct join *j, const char *url, const char *pin, const char *body)
{
	static const struct bt_http_header json = {"Content-Type", "application/json"};
	BT_FREE char *join_url = bt_asprintf("%s/v1/join", url);
	struct bt_tls_identity tls = {.pin_sha256 = pin};
	struct bt_http_client *http = bt_http_client_new(j->base);
	struct bt_http_request rq = {.method = "POST",
		.url = join_url,
		.headers = &json,
		.n_headers = 1,
		.body = body,
		.body_len = strlen(body),
		.tls = &tls,
		.timeout_ms = JOIN_TIMEOUT_MS};
	bt_http_start(http, &rq, on_join, j);
	event_base_dispatch(j->base);
	bt_http_client_free(http);
}

static int split_token(const char *token, char **ret_pin, struct bt_err *err)
{
	const char *dot = strrchr(token, '.');
	unsigned char print[32];
	if (!bt_str_starts(token, "btj_") || !dot || strlen(dot + 1) != 64 ||
		bt_unhex(dot + 1, print, sizeof print) < 0)
		return bt_err_set(err, BT_E_CONFIG,
			"this is no join token: expected btj_… with the CA's fingerprint after the "
			"dot, "
			"as 'baton join-token HOST' prints it");
	*ret_pin = bt_strdup(dot + 1);
	return 0;
}

/* The address that packets to the server leave from: no packet is sent. */
static char *own_address(const char *url)
{
	const char *name = strstr(url, "://");
	name = name ? name + 3 : url;
	size_t n = name[0] == '[' ? strcspn(++name, "]") : strcspn(name, ":/");
	BT_FREE char *host = bt_strndup(name, n);
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list = NULL;
	if (getaddrinfo(host, "9", &hints, &list) != 0)
		return NULL;
	char text[64] = "";
	BT_CLOSE int fd = socket(list->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_storage own;
	socklen_t len = sizeof own;
	if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) == 0 &&
		getsockname(fd, (struct sockaddr *)&own, &len) == 0)
		getnameinfo(
			(struct sockaddr *)&own, len, text, sizeof text, NULL, 0, NI_NUMERICHOST);
	freeaddrinfo(list);
	return text[0] ? bt_strdup(text) : NULL;
}

static int check_answer(struct join *j, const char *url, const char *pin, const char *dir,
	const char **ret_cert, const char **ret_ca, struct bt_err *err)
{
	char words[BT_ERR_MAX], print[65];
	if (j->status != 200 && j->status != 201) {
		bt_link_words(j->status, j->answer, &j->err, words, sizeof words);
		return bt_err_set(err, j->status == 0 ? BT_E_UNREACHABLE : BT_E_REFUSED,
			"join %s: %s", url, words);
	}
	int r = j->answer ? bt_json_str(j->answer, "certificate", ret_cert, err)
			  : bt_err_set(err, BT_E_PROTOCOL, "%s", j->err.text);
	if (r == 0)
		r = bt_json_str(j->answer, "ca", ret_ca, err);
	if (r < 0)
		return bt_err_wrap(err, "join %s", url);
	/* What will be trusted from now on must be the CA of the token, not what was sent. */
	BT_FREE char *tmp = in_dir(dir, "ca.pem.new");
	r = bt_fs_write_atomic(tmp, *ret_ca, strlen(*ret_ca), 0644, err);
	if (r == 0)
		r = bt_pki_fingerprint(tmp, print, err);
	unlink(tmp);
	if (r == 0 && strcasecmp(print, pin) != 0)
		r = bt_err_set(err, BT_E_AUTH,
			"join %s: the server's CA has another fingerprint than the token says",
			url);
	return r;
}

int bt_agent_join(const char *url, const char *token, const char *dir, const char *host,
	const char *address, struct bt_err *err)
{
	BT_FREE char *pin = NULL;
	BT_FREE char *csr = NULL;
	BT_FREE char *server = bt_strdup(url);
	char own[256] = "";
	while (bt_str_ends(server, "/"))
		server[strlen(server) - 1] = '\0';
	if (!bt_str_starts(server, "https://"))
		return bt_err_set(err, BT_E_CONFIG,
			"%s: expected the agents' listener, such as https://deploy:7071", url);
	if (bt_agent_is_joined(dir))
		return bt_err_set(err, BT_E_EXISTS,
			"%s is joined already; to join again, remove its agent.json first", dir);
	if (!host) {
		gethostname(own, sizeof own - 1);
		own[strcspn(own, ".")] = '\0';
		host = own;
	}
	int r = split_token(token, &pin, err);
	if (r == 0)
		r = bt_agent_csr(dir, host, &csr, err);
	if (r < 0)
		return r;
	BT_FREE char *found = address ? NULL : own_address(server);
	BT_JSON json_t *ask = json_pack("{s:s,s:s,s:s}", "token", token, "csr", csr, "host", host);
	BT_FREE char *body = bt_json_dump(ask);
	struct join j = {.base = event_base_new()};
	const char *cert = NULL, *ca = NULL;
	ask_to_join(&j, server, pin, body);
	r = check_answer(&j, server, pin, dir, &cert, &ca, err);
	if (r == 0)
		r = bt_agent_place(dir, server, host,
			address ? address
			: found ? found
				: "127.0.0.1",
			cert, ca, err);
	json_decref(j.answer);
	event_base_free(j.base);
	return r;
}

/* ---- renewing ------------------------------------------------------------------------------ */

struct bt_renewal {
	struct bt_link *l;
	char *dir, *cert;
	struct event *timer;
	struct bt_link_call *call;
};

static int64_t wall_of(const ASN1_TIME *t)
{
	struct tm tm = {0};
	return ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) * 1000 : 0;
}

/* *ret_due: the certificate's last third of life has begun; now in wall ms. */
static int is_due(const char *cert, int64_t now_ms, bool *ret_due, struct bt_err *err)
{
	FILE *f = fopen(cert, "re");
	if (!f)
		return bt_err_errno(err, errno, "read %s", cert);
	X509 *x = PEM_read_X509(f, NULL, NULL, NULL);
	fclose(f);
	if (!x)
		return bt_err_set(err, BT_E_CORRUPT, "%s holds no certificate", cert);
	int64_t from = wall_of(X509_get0_notBefore(x)), to = wall_of(X509_get0_notAfter(x));
	X509_free(x);
	*ret_due = to - now_ms <= (to - from) / 3;
	return 0;
}

static void check_later(struct bt_renewal *r, int seconds)
{
	bt_timer_in(r->timer, seconds * 1000LL);
}

static void on_renewed(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct bt_renewal *r = arg;
	struct bt_err bad = {0};
	const char *cert = NULL;
	char words[BT_ERR_MAX];
	r->call = NULL;
	check_later(r, RENEW_CHECK_S);
	if (status != 200) {
		bt_log(r->l->env.log, BT_LOG_WARN, "the certificate is not renewed: %s",
			bt_link_words(status, answer, err, words, sizeof words));
		return;
	}
	if (bt_json_str(answer, "certificate", &cert, &bad) < 0 ||
		place_certificate(r->dir, cert, &bad) < 0)
		bt_log(r->l->env.log, BT_LOG_ERROR, "renew the certificate: %s", bad.text);
	else
		bt_log(r->l->env.log, BT_LOG_INFO, "the certificate is renewed");
}

static void on_check(evutil_socket_t fd, short what, void *arg)
{
	struct bt_renewal *r = arg;
	struct bt_err err = {0};
	BT_FREE char *csr = NULL;
	bool due = false;
	(void)fd;
	(void)what;
	int e = is_due(r->cert, bt_clock_wall_ms(), &due, &err);
	if (e == 0 && due && r->l->up)
		e = bt_agent_csr(r->dir, r->l->env.host, &csr, &err);
	if (e < 0)
		bt_log(r->l->env.log, BT_LOG_ERROR, "renew the certificate: %s", err.text);
	if (!csr) {
		check_later(r, due && !r->l->up ? 10 : RENEW_CHECK_S);
		return;
	}
	r->call = bt_link_call(r->l, "POST", "/v1/agent/renew", json_pack("{s:s}", "csr", csr),
		JOIN_TIMEOUT_MS, on_renewed, r);
}

struct bt_renewal *bt_renewal_new(struct bt_link *l, const char *state_dir, const char *cert)
{
	struct bt_renewal *r = bt_calloc(1, sizeof *r);
	r->l = l;
	r->dir = bt_strdup(state_dir);
	r->cert = bt_strdup(cert);
	r->timer = evtimer_new(l->env.exec->driver->base, on_check, r);
	check_later(r, 2);
	return r;
}

struct bt_renewal *bt_renewal_free(struct bt_renewal *r)
{
	if (!r)
		return NULL;
	bt_link_call_cancel(r->call);
	event_free(r->timer);
	free(r->dir);
	free(r->cert);
	free(r);
	return NULL;
}
