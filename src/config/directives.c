/* Raw directives of nginx that a baton.yaml may add to a server or a route.
 *
 * A list of what is allowed, since nginx reads files and loads code by directive (root, alias,
 * include, auth_basic_user_file, proxy_store, js_*, …) with the rights of the agent, and whoever
 * writes a baton.yaml need not have them. What is on the list shapes requests and answers only.
 * One directive a text: no character that ends one and begins another. nginx judges the rest. */
#include "config/keys.h"

#include "base/str.h"

#include <ctype.h>
#include <string.h>

const char *const bt_nginx_directives[] = {
	"absolute_redirect",
	"add_header",
	"add_trailer",
	"allow",
	"charset",
	"chunked_transfer_encoding",
	"client_body_buffer_size",
	"client_body_timeout",
	"client_header_buffer_size",
	"client_header_timeout",
	"client_max_body_size",
	"default_type",
	"deny",
	"etag",
	"expires",
	"gzip",
	"gzip_buffers",
	"gzip_comp_level",
	"gzip_disable",
	"gzip_http_version",
	"gzip_min_length",
	"gzip_proxied",
	"gzip_types",
	"gzip_vary",
	"http2_max_concurrent_streams",
	"ignore_invalid_headers",
	"keepalive_disable",
	"keepalive_requests",
	"keepalive_time",
	"keepalive_timeout",
	"large_client_header_buffers",
	"limit_rate",
	"limit_rate_after",
	"lingering_close",
	"lingering_time",
	"lingering_timeout",
	"max_ranges",
	"merge_slashes",
	"port_in_redirect",
	"postpone_output",
	"proxy_buffer_size",
	"proxy_buffering",
	"proxy_buffers",
	"proxy_busy_buffers_size",
	"proxy_connect_timeout",
	"proxy_cookie_domain",
	"proxy_cookie_flags",
	"proxy_cookie_path",
	"proxy_force_ranges",
	"proxy_headers_hash_bucket_size",
	"proxy_headers_hash_max_size",
	"proxy_hide_header",
	"proxy_http_version",
	"proxy_ignore_client_abort",
	"proxy_ignore_headers",
	"proxy_limit_rate",
	"proxy_max_temp_file_size",
	"proxy_next_upstream",
	"proxy_next_upstream_timeout",
	"proxy_next_upstream_tries",
	"proxy_pass_header",
	"proxy_pass_request_body",
	"proxy_pass_request_headers",
	"proxy_read_timeout",
	"proxy_redirect",
	"proxy_request_buffering",
	"proxy_send_timeout",
	"proxy_set_header",
	"proxy_socket_keepalive",
	"proxy_temp_file_write_size",
	"real_ip_header",
	"real_ip_recursive",
	"reset_timedout_connection",
	"satisfy",
	"send_timeout",
	"server_name_in_redirect",
	"server_tokens",
	"set_real_ip_from",
	"ssl_buffer_size",
	"ssl_ciphers",
	"ssl_early_data",
	"ssl_ecdh_curve",
	"ssl_prefer_server_ciphers",
	"ssl_protocols",
	"ssl_session_cache",
	"ssl_session_tickets",
	"ssl_session_timeout",
	"tcp_nodelay",
	"tcp_nopush",
	"underscores_in_headers",
	NULL,
};

static bool known(const char *text, size_t n)
{
	for (size_t i = 0; bt_nginx_directives[i]; i++)
		if (strlen(bt_nginx_directives[i]) == n &&
			!strncmp(bt_nginx_directives[i], text, n))
			return true;
	return false;
}

/* A quoted word ends before a blank or the end; a bare one has no quote in it, and does not begin
 * a comment. */
static const char *word_end(const char *p)
{
	if (*p == '"' || *p == '\'') {
		const char *end = strchr(p + 1, *p);
		return end && (end[1] == ' ' || !end[1]) ? end + 1 : NULL;
	}
	if (*p == '#')
		return NULL;
	size_t n = strcspn(p, " \"'");
	return p[n] == ' ' || !p[n] ? p + n : NULL;
}

bool bt_check_directive(const char *t)
{
	size_t n = strspn(t, "abcdefghijklmnopqrstuvwxyz_0123456789");
	if (!known(t, n) || t[n] != ' ')
		return false;
	for (const char *p = t; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f || strchr(";{}\\", *p))
			return false;
	size_t words = 0;
	for (const char *p = t + n; *p; words++) {
		p += strspn(p, " ");
		if (!*p)
			return false;
		p = word_end(p);
		if (!p)
			return false;
	}
	return words > 0;
}
