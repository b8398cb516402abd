/* Listener, TLS context and the caps on connections.
 *
 * Where there is no room, the oldest connection that has not shown who it is makes way; a peer that
 * authenticated is never dropped for a stranger. */
#include "net/http_internal.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	MAX_CONNECTIONS = 12000,
	MAX_BUFFERED = 64 << 20,
	HEAD_TIMEOUT_MS = 15000,
	IDLE_TIMEOUT_MS = 120000,
	STRANGERS_SHARE = 4, /* a quarter of the connections */
	KEPT_BACK = 256,     /* descriptors */
};

/* ---- TLS ---- */

static int tls_error(struct bt_err *err, const char *what, const char *path)
{
	unsigned long e = ERR_peek_last_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;
	int r = bt_err_set(
		err, BT_E_CONFIG, "%s %s: %s", what, path, reason ? reason : "not usable");
	ERR_clear_error();
	return r;
}

static int tls_files(SSL_CTX *ctx, const struct bt_http_server *s, struct bt_err *err)
{
	if (SSL_CTX_use_certificate_chain_file(ctx, s->cert_file) != 1)
		return tls_error(err, "certificate", s->cert_file);
	if (SSL_CTX_use_PrivateKey_file(ctx, s->key_file, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(ctx) != 1)
		return tls_error(err, "private key", s->key_file);
	if (!s->client_ca_file)
		return 0;
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(s->client_ca_file);
	if (!names || SSL_CTX_load_verify_locations(ctx, s->client_ca_file, NULL) != 1) {
		sk_X509_NAME_pop_free(names, X509_NAME_free);
		return tls_error(err, "client authority", s->client_ca_file);
	}
	SSL_CTX_set_client_CA_list(ctx, names);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	return 0;
}

static int tls_new(const struct bt_http_server *s, SSL_CTX **ret, struct bt_err *err)
{
	static const unsigned char id[] = "baton";
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	if (!ctx)
		return tls_error(err, "TLS for", s->cert_file);
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx,
		SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	/* sessions resume by tickets; without an id those with a client certificate would not */
	SSL_CTX_set_session_id_context(ctx, id, sizeof id - 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	int r = tls_files(ctx, s, err);
	if (r < 0) {
		SSL_CTX_free(ctx);
		return r;
	}
	*ret = ctx;
	return 0;
}

int bt_http_server_reload_tls(struct bt_http_server *s, struct bt_err *err)
{
	SSL_CTX *ctx = NULL;
	if (!s->cert_file)
		return 0;
	int r = tls_new(s, &ctx, err);
	if (r < 0)
		return r;
	SSL_CTX_free(s->tls); /* connections keep their reference */
	s->tls = ctx;
	return 0;
}

/* ---- accepting ---- */

static bool make_room(struct bt_http_server *s)
{
	size_t max = s->spec.max_connections;
	bool full = s->strangers.n + s->known.n >= max;
	if (full || s->strangers.n >= (max + STRANGERS_SHARE - 1) / STRANGERS_SHARE) {
		if (!s->strangers.last)
			return false;
		bt_http_conn_close(s->strangers.last);
	}
	return true;
}

static void format_peer(const struct sockaddr *sa, char *buf, size_t n)
{
	const void *address = NULL;
	if (sa->sa_family == AF_INET)
		address = &((const struct sockaddr_in *)(const void *)sa)->sin_addr;
	else if (sa->sa_family == AF_INET6)
		address = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
	if (!address || !evutil_inet_ntop(sa->sa_family, address, buf, n))
		snprintf(buf, n, "unknown");
}

/* A peer that vanished without a word (power, network) is found within two minutes, so that a held
 * request or a quiet stream does not stay for ever. */
static void set_up_socket(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 60},
		{IPPROTO_TCP, TCP_KEEPINTVL, 15},
		{IPPROTO_TCP, TCP_KEEPCNT, 4},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(options); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			sizeof options[i].value);
}

static void on_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	struct bt_http_server *s = arg;
	struct bufferevent *bev = NULL;
	char peer[64];
	const int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
	(void)l;
	(void)len;
	if (!make_room(s)) {
		close(fd);
		return;
	}
	set_up_socket(fd);
	SSL *ssl = s->tls ? SSL_new(s->tls) : NULL;
	if (ssl)
		bev = bufferevent_openssl_socket_new(
			s->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, options);
	else if (!s->tls)
		bev = bufferevent_socket_new(s->base, fd, options);
	if (!bev) {
		SSL_free(ssl);
		close(fd);
		return;
	}
	if (ssl) /* a peer may close without close_notify: lengths say where answers end */
		bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	format_peer(sa, peer, sizeof peer);
	bt_http_conn_new(s, bev, peer);
}

/* Out of descriptors: the listener would spin, so it rests for a moment. */
static void on_accept_error(struct evconnlistener *l, void *arg)
{
	struct bt_http_server *s = arg;
	evconnlistener_disable(l);
	bt_timer_in(s->accept_again, 100);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	struct bt_http_server *s = arg;
	(void)fd;
	(void)what;
	evconnlistener_enable(s->listener);
}

/* libevent's parser takes no port 0, which means a free one: it is put in afterwards. */
static int parse_address(const char *text, struct sockaddr_storage *ss, int *len)
{
	bool any = bt_str_ends(text, ":0");
	BT_FREE char *numbered =
		bt_asprintf("%.*s%s", (int)(strlen(text) - any), text, any ? "1" : "");
	memset(ss, 0, sizeof *ss);
	*len = sizeof *ss;
	if (evutil_parse_sockaddr_port(numbered, (struct sockaddr *)ss, len) != 0)
		return -1;
	in_port_t *port = ss->ss_family == AF_INET6
				  ? &((struct sockaddr_in6 *)(void *)ss)->sin6_port
				  : &((struct sockaddr_in *)(void *)ss)->sin_port;
	if (*port == 0) /* none was given */
		return -1;
	if (any)
		*port = 0;
	return 0;
}

static int start_listening(struct bt_http_server *s, const char *listen, struct bt_err *err)
{
	struct sockaddr_storage ss;
	int len;
	if (parse_address(listen, &ss, &len) != 0)
		return bt_err_set(err, BT_E_CONFIG,
			"listen on '%s': expected ADDRESS:PORT such as 127.0.0.1:7070 or "
			"[::]:7071",
			listen);
	s->listener = evconnlistener_new_bind(s->base, on_accept, s,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 1024,
		(struct sockaddr *)&ss, len);
	if (!s->listener)
		return bt_err_errno(err, errno, "listen on %s", listen);
	evconnlistener_set_error_cb(s->listener, on_accept_error);
	socklen_t n = sizeof ss;
	if (getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&ss, &n) == 0)
		s->port = ntohs(ss.ss_family == AF_INET6
					? ((struct sockaddr_in6 *)(void *)&ss)->sin6_port
					: ((struct sockaddr_in *)(void *)&ss)->sin_port);
	return 0;
}

/* Descriptors for everything else are kept back: a full house must not stop the store or a log. */
static size_t connections_max(size_t wanted)
{
	struct rlimit limit;
	size_t max = wanted ? wanted : MAX_CONNECTIONS;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
		size_t room = limit.rlim_cur > 2 * KEPT_BACK ? limit.rlim_cur - KEPT_BACK
							     : limit.rlim_cur / 2;
		max = room < max ? room : max;
	}
	return max;
}

static void copy_spec(struct bt_http_server *s, const struct bt_http_server_spec *spec)
{
	s->spec = *spec;
	s->cert_file = bt_strdup(spec->cert_file);
	s->key_file = bt_strdup(spec->key_file);
	s->client_ca_file = bt_strdup(spec->client_ca_file);
	s->allowed_hosts = bt_calloc(spec->n_allowed_hosts, sizeof(char *));
	for (size_t i = 0; i < spec->n_allowed_hosts; i++)
		s->allowed_hosts[i] = bt_strdup(spec->allowed_hosts[i]);
	s->spec.allowed_hosts = (const char *const *)s->allowed_hosts;
	s->spec.max_connections = connections_max(spec->max_connections);
	if (!s->spec.max_buffered)
		s->spec.max_buffered = MAX_BUFFERED;
	if (!s->spec.head_timeout_ms)
		s->spec.head_timeout_ms = HEAD_TIMEOUT_MS;
	if (!s->spec.idle_timeout_ms)
		s->spec.idle_timeout_ms = IDLE_TIMEOUT_MS;
}

int bt_http_server_start(struct event_base *base, const struct bt_http_server_spec *spec,
	struct bt_http_server **ret, struct bt_err *err)
{
	struct bt_http_server *s = bt_calloc(1, sizeof *s);
	s->base = base;
	copy_spec(s, spec);
	s->accept_again = evtimer_new(base, on_accept_again, s);
	int r = s->cert_file ? tls_new(s, &s->tls, err) : 0;
	if (r == 0)
		r = start_listening(s, spec->listen, err);
	if (r < 0) {
		bt_http_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct bt_http_server *bt_http_server_free(struct bt_http_server *s)
{
	if (!s)
		return NULL;
	while (s->strangers.first)
		bt_http_conn_close(s->strangers.first);
	while (s->known.first)
		bt_http_conn_close(s->known.first);
	if (s->listener)
		evconnlistener_free(s->listener);
	event_free(s->accept_again);
	SSL_CTX_free(s->tls);
	for (size_t i = 0; i < s->spec.n_allowed_hosts; i++)
		free(s->allowed_hosts[i]);
	free(s->allowed_hosts);
	free(s->cert_file);
	free(s->key_file);
	free(s->client_ca_file);
	free(s);
	return NULL;
}

uint16_t bt_http_server_port(const struct bt_http_server *s)
{
	return s->port;
}
