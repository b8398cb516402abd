/* Which configuration does a worker have? It read the files when it was started, so a worker that
 * serves while a confirmed file lies there has that one for life. A drain need not wait for a
 * worker that never sent to the instance: one that a long request still holds from two switches
 * ago, say. What is not known (the agent was restarted, a person changed the file) is waited for.
 */
#include "driver/nginx_unit.h"

#include "base/fs.h"

#include <string.h>

#define FILE_MAX (1u << 20)

static void forget_dead(struct bt_nginx_site *site)
{
	size_t n = 0;
	for (size_t i = 0; i < site->n_known; i++)
		if (bt_nginx_proc_alive(&site->known[i].proc))
			site->known[n++] = site->known[i];
		else
			free(site->known[i].in);
	site->n_known = n;
}

static bool is_known(const struct bt_nginx_site *site, const struct bt_nginx_proc *p)
{
	for (size_t i = 0; i < site->n_known; i++)
		if (bt_nginx_proc_in(&site->known[i].proc, 1, p))
			return true;
	return false;
}

/* ",127.0.0.1:8081,127.0.0.1:8082," */
static char *list_in(const struct bt_nginx_target *t)
{
	BT_STR struct bt_str list = {0};
	char addr[300];
	bt_str_addc(&list, ',');
	for (size_t i = 0; i < t->n_members; i++)
		if (t->members[i].in)
			bt_str_addf(&list, "%s,",
				bt_nginx_address(t->members[i].address, t->members[i].port, addr,
					sizeof addr));
	return bt_str_steal(&list);
}

static bool file_is_confirmed(const struct bt_nginx_state *s)
{
	BT_FREE char *text = NULL;
	return s && s->has_confirmed && !s->has_pending &&
	       bt_fs_read(s->file, FILE_MAX, &text, NULL, NULL) == 0 &&
	       bt_streq(text, s->confirmed.text);
}

void bt_nginx_learn(struct bt_nginx_unit *u)
{
	struct bt_nginx_proc master;
	struct bt_nginx_workers now;
	if (!u->facts_known || u->running || bt_nginx_master(u->facts.pid_file, &master) != 0)
		return;
	bt_nginx_workers_read(&master, &now);
	for (struct bt_nginx_site *s = bt_nginx_driver()->sites; s; s = s->next) {
		if (s->unit != u)
			continue;
		forget_dead(s);
		bool good = file_is_confirmed(s->state);
		for (size_t i = 0; good && i < now.n_serving; i++) {
			if (is_known(s, &now.serving[i]))
				continue;
			s->known = bt_realloc(s->known, (s->n_known + 1) * sizeof *s->known);
			s->known[s->n_known++] = (struct bt_nginx_known){
				now.serving[i], list_in(&s->state->confirmed)};
		}
	}
	bt_nginx_workers_done(&now);
}

static bool sends_to(const struct bt_nginx_known *k, const struct bt_nginx_peer *peers, size_t n)
{
	char addr[300], word[310];
	for (size_t i = 0; i < n; i++) {
		bt_nginx_address(peers[i].address, peers[i].port, addr, sizeof addr);
		snprintf(word, sizeof word, ",%s,", addr);
		if (strstr(k->in, word))
			return true;
	}
	return false;
}

size_t bt_nginx_strangers(const struct bt_nginx_site *site, const struct bt_nginx_peer *peers,
	size_t n, struct bt_nginx_proc **ret)
{
	size_t count = 0;
	*ret = bt_calloc(site->n_known + 1, sizeof **ret);
	for (size_t i = 0; i < site->n_known; i++)
		if (!sends_to(&site->known[i], peers, n))
			(*ret)[count++] = site->known[i].proc;
	return count;
}
