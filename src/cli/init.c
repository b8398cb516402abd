#include "base/fs.h"
#include "cli/cli.h"
#include "cli/init_guess.h"
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_there(const char *path, struct bt_err *err)
{
	return bt_err_set(err, BT_E_EXISTS,
		"%s is there already and is left as it is: `baton init --print` shows what would "
		"be written",
		path);
}

/* Never over a file that is there, and whole or not at all. */
static int write_new(const char *path, const char *text, struct bt_err *err)
{
	BT_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST)
		return is_there(path, err);
	if (fd < 0)
		return bt_err_errno(err, errno, "write %s", path);
	int r = bt_fs_write_all(fd, text, strlen(text));
	if (r < 0) {
		unlink(path);
		return bt_err_errno(err, -r, "write %s", path);
	}
	return 0;
}

static void say(const struct bt_guess *g, const char *path)
{
	printf("%s is written: ", path);
	if (g->app)
		printf("service %s, found as pid %d on port %u", g->service, (int)g->app->pid,
			g->app->port);
	else
		printf("nothing was found that serves here, so it is a template");
	printf("\nread it, then: baton lint%s\n",
		g->app ? ", and `baton adopt` takes it over" : "");
}

int bt_cmd_init(struct bt_cli *cli, struct bt_err *err)
{
	const char *path = bt_cli_get(cli, "file");
	bool print = bt_cli_has(cli, "print");
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_STR struct bt_str text = {0};
	struct bt_survey survey;
	struct bt_guess guess;
	if (!path)
		path = "baton.yaml";
	if (!print && bt_fs_exists(path)) /* before the host is looked at */
		return is_there(path, err);
	int r = bt_survey(a, &survey, err);
	if (r < 0)
		return r;
	bt_guess_from(a, &survey, &guess);
	bt_guess_write(&guess, &text);
	if (print)
		fputs(bt_str_get(&text), stdout);
	else if ((r = write_new(path, bt_str_get(&text), err)) == 0)
		say(&guess, path);
	return r;
}
