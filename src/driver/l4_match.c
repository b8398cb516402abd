/* Who is who: a family tells members by host and slot where it knows them so, else by address. */
#include "driver/l4_site.h"

bool bt_l4_is_member(const struct bt_seen_member *seen, const struct bt_pool_member *m)
{
	if (seen->host && seen->slot)
		return bt_streq(seen->host, m->host) && bt_streq(seen->slot, m->slot);
	return seen->port == m->port && bt_streq(seen->address, m->address);
}

const struct bt_seen_member *bt_l4_find(
	const struct bt_l4_seen *seen, const struct bt_pool_member *m)
{
	for (size_t i = 0; i < seen->n_members; i++)
		if (bt_l4_is_member(&seen->members[i], m))
			return &seen->members[i];
	return NULL;
}

static const char *word(bool in)
{
	return in ? "in rotation" : "out of rotation";
}

bool bt_l4_as_told(const char *family, const struct bt_l4_seen *seen,
	const struct bt_pool_member *members, size_t n, struct bt_str *out)
{
	for (size_t i = 0; i < n; i++) {
		const struct bt_pool_member *m = &members[i];
		const struct bt_seen_member *s = bt_l4_find(seen, m);
		if (m->in == (s && s->in))
			continue;
		const char *own = s && seen->words ? seen->words[s - seen->members] : NULL;
		bt_str_addf(out, "%s has %s/%s %s, baton's last word was %s", family, m->host,
			m->slot, own ? own : word(s && s->in), word(m->in));
		return false;
	}
	return true;
}
