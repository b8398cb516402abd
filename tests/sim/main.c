/* tests/sim/run: many seeds; a crash after every effect; planted bugs; figures.
 *
 *     sim --seeds N --from S     N runs; every fault and every outcome must occur
 *     sim --seed S --verbose     replays one, event by event
 *     sim --crash                crash after effect k, for every k, strategy, and who crashes
 *     sim --planted SEEDS        each planted bug must be caught by the seeds
 *     sim --bench                deployments a second on one core
 *     sim --scale N              the engine's own time for a run over N hosts
 *     sim --journal S            the records of seed S as JSON lines (for golden files) */
#include "sim.h"

#include <string.h>
#include <time.h>

enum bt_planted_bug bt_planted_bug;
uint64_t counters[COUNTER_COUNT];
uint64_t requests, deployments;
const char *const counter_words[COUNTER_COUNT] = {
#define X(id, words) [C_##id] = words,
	COUNTERS(X)
#undef X
};

static const struct options plain = {.crash_after = -1, .strategy = -1};

static int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* of one core, whoever else is busy */
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void say_failure(uint64_t seed, const char *why, const char *more)
{
	printf("FAILED seed %llu%s: %s\n  replay: tests/sim/run --seed %llu%s --verbose\n",
		(unsigned long long)seed, more, why, (unsigned long long)seed, more);
}

/* 0, or the number of seeds that failed (at most 10 are looked for). */
static int many(uint64_t from, uint64_t n, const struct options *o)
{
	int failed = 0;
	char why[512];
	for (uint64_t i = 0; i < n && failed < 10; i++)
		if (!run(from + i, o, why, NULL, NULL)) {
			say_failure(from + i, why, "");
			failed++;
		}
	return failed;
}

static int report(void)
{
	int zero = 0;
	for (int i = 0; i < COUNTER_COUNT; i++) {
		printf("%10llu  %s\n", (unsigned long long)counters[i], counter_words[i]);
		if (!counters[i]) {
			printf("FAILED: it never occurred: %s\n", counter_words[i]);
			zero++;
		}
	}
	printf("%10llu  requests, %llu deployments\n", (unsigned long long)requests,
		(unsigned long long)deployments);
	return zero;
}

static int seeds(uint64_t from, uint64_t n, bool demand_all)
{
	int64_t t0 = now_us();
	int failed = many(from, n, &plain);
	double seconds = (double)(now_us() - t0) / 1e6;
	int zero = report();
	printf("sim: %llu deployments, seeds %llu to %llu, %.0f a second, %d failed\n",
		(unsigned long long)deployments, (unsigned long long)from,
		(unsigned long long)(from + n - 1), (double)deployments / seconds, failed);
	return failed || (demand_all && zero);
}

/* ── crash after effect k ── */

static int crash_one(struct options *o, uint64_t seed, uint64_t *ret_runs)
{
	char why[512];
	uint64_t effects = 0;
	enum bt_end expected, end;
	static const char *const who[] = {"", "server", "agent", "server and agent"};
	o->crash_after = -1;
	if (!run(seed, o, why, &effects, &expected)) {
		say_failure(seed, why, " (calm)");
		return 1;
	}
	for (uint64_t k = 0; k < effects; k++)
		for (o->crash_who = 1; o->crash_who <= 3; o->crash_who++) {
			o->crash_after = (int64_t)k;
			bool good = run(seed, o, why, NULL, &end);
			++*ret_runs;
			if (good && end == expected)
				continue;
			printf("FAILED seed %llu strategy %d bad %d, %s crashed after effect %llu: "
			       "%s\n",
				(unsigned long long)seed, o->strategy, o->bad_release,
				who[o->crash_who], (unsigned long long)k,
				good ? bt_end_name(end) : why);
			return 1;
		}
	return 0;
}

static int crashes(void)
{
	int failed = 0;
	uint64_t n = 0;
	for (int strategy = 0; strategy <= BUNDLE_BLUE_GREEN; strategy++)
		for (int bad = 0; bad < 2; bad++)
			for (uint64_t seed = 1; seed <= 12; seed++) {
				struct options o = {.calm = true,
					.json = true,
					.strategy = strategy,
					.bad_release = bad};
				failed += crash_one(&o, seed, &n);
			}
	printf("sim: %llu runs crashed after effect k and replayed, %d failed\n",
		(unsigned long long)n, failed);
	return failed;
}

/* ── planted bugs ── */

static int planted(uint64_t n)
{
	static const char *const names[] = {
#define X(id, words) [BT_BUG_##id] = words,
		BT_PLANTED(X)
#undef X
	};
	int missed = 0;
	for (int bug = 1; bug < BT_BUGS; bug++) {
		char why[512];
		uint64_t seed = 1;
		bt_planted_bug = (enum bt_planted_bug)bug;
		while (seed <= n && run(seed, &plain, why, NULL, NULL))
			seed++;
		bt_planted_bug = BT_BUG_NONE;
		if (seed > n)
			missed++;
		printf("%s planted bug %2d: %s: %s\n", seed > n ? "MISSED" : "caught", bug,
			names[bug], seed > n ? "no seed found it" : why);
	}
	printf("sim: %d planted bugs, %d missed\n", BT_BUGS - 1, missed);
	return missed;
}

static int bench(uint64_t n)
{
	struct options o = plain;
	char why[512];
	int64_t t0 = now_us();
	for (uint64_t i = 1; i <= n; i++)
		if (!run(i, &o, why, NULL, NULL)) {
			say_failure(i, why, "");
			return 1;
		}
	double each = (double)deployments / ((double)(now_us() - t0) / 1e6);
	printf("{\"bench\":\"sim\",\"subject\":\"engine\",\"metric\":\"deployments_per_second\","
	       "\"value\":%.0f,\"unit\":\"1/s\",\"of\":%llu}\n",
		each, (unsigned long long)deployments);
	return 0;
}

static int one(const struct options *o, uint64_t seed)
{
	char why[512];
	enum bt_end end;
	if (!run(seed, o, why, NULL, &end)) {
		say_failure(seed, why, "");
		return 1;
	}
	if (!o->journal)
		printf("seed %llu: %s\n", (unsigned long long)seed, bt_end_name(end));
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t n = 20000, from = 1, seed = 0;
	int scale = 0;
	struct options o = plain;
	bool do_crash = false, do_bench = false, do_planted = false;
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
		if (!strcmp(a, "--verbose"))
			o.verbose = true;
		else if (!strcmp(a, "--crash"))
			do_crash = true;
		else if (!strcmp(a, "--bench"))
			do_bench = true;
		else if (!strcmp(a, "--json"))
			o.json = true;
		else if (!strcmp(a, "--calm"))
			o.calm = true;
		else if (!strcmp(a, "--bad"))
			o.bad_release = true;
		else if (*v && i++) {
			uint64_t x = strtoull(v, NULL, 10);
			if (!strcmp(a, "--seeds"))
				n = x;
			else if (!strcmp(a, "--from"))
				from = x;
			else if (!strcmp(a, "--seed"))
				seed = x;
			else if (!strcmp(a, "--strategy"))
				o.strategy = (int)x;
			else if (!strcmp(a, "--crash-after"))
				o.crash_after = (int64_t)x;
			else if (!strcmp(a, "--crash-who"))
				o.crash_who = (int)x;
			else if (!strcmp(a, "--scale"))
				scale = (int)x;
			else if (!strcmp(a, "--bug"))
				bt_planted_bug = (enum bt_planted_bug)x;
			else if (!strcmp(a, "--planted")) {
				do_planted = true;
				n = x;
			} else if (!strcmp(a, "--journal")) {
				seed = x;
				o.journal = stdout;
			} else
				return 2;
		} else
			return 2;
	}
	if (seed)
		return one(&o, seed);
	if (do_crash)
		return crashes() != 0;
	if (do_planted)
		return planted(n) != 0;
	if (scale)
		return sim_scale(scale) != 0;
	if (do_bench)
		return bench(n);
	return seeds(from, n, n >= 20000);
}
