/* Runs a fuzz target over every file of a directory: its seeds and what fuzzing once found. */
#include "fuzz.h"

#include "base/fs.h"

#include <dirent.h>
#include <stdio.h>

static int replay(const char *dir, const char *name)
{
	BT_FREE char *path = bt_asprintf("%s/%s", dir, name);
	BT_FREE char *data = NULL;
	size_t n = 0;
	struct bt_err err = {0};
	if (bt_fs_read(path, 4 << 20, &data, &n, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	LLVMFuzzerTestOneInput((const uint8_t *)data, n);
	return 0;
}

int main(int argc, char **argv)
{
	int n = 0;
	DIR *dir = argc > 1 ? opendir(argv[1]) : NULL;
	if (!dir) {
		fprintf(stderr, "usage: replay DIRECTORY\n");
		return 1;
	}
	for (struct dirent *e; (e = readdir(dir));)
		if (e->d_name[0] != '.') {
			if (replay(argv[1], e->d_name) < 0)
				return 1;
			n++;
		}
	closedir(dir);
	printf("%d inputs\n", n);
	return n > 0 ? 0 : 1;
}
