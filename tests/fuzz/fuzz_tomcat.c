/* Any bytes as a server.xml that people wrote, and as a file that is said to be a WAR. */
#include "fuzz.h"

#include "base/fs.h"
#include "driver/tomcat.h"
#include "driver/zip_check.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void xml(const char *data, size_t size)
{
	static const struct bt_kv properties[] = {{"baton.port", "8080"}};
	struct bt_tomcat_facts f;
	struct bt_err err = {0};
	if (bt_tomcat_facts_read(data, size, properties, 1, &f, &err) < 0) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	FUZZ_CHECK(f.n_ports <= BT_TOMCAT_PORTS && f.app_base[0]);
	FUZZ_CHECK(f.shutdown_port >= -1 && f.shutdown_port <= 65535);
	FUZZ_CHECK(strlen(f.host) < sizeof f.host && strlen(f.engine) < sizeof f.engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bt_err err = {0};
	/* Exactly as many bytes as there are, so that one read past them is seen. */
	BT_FREE char *copy = size ? bt_malloc(size) : NULL;
	if (size)
		memcpy(copy, data, size);
	xml(copy ? copy : "", size);
	BT_CLOSE int fd = memfd_create("war", MFD_CLOEXEC);
	FUZZ_CHECK(fd >= 0 && bt_fs_write_all(fd, data, size) == 0);
	if (bt_zip_check_fd(fd, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	return 0;
}
