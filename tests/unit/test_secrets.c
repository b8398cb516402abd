/* Secrets at rest: what is sealed opens again, and nothing else does. */
#include "base/fs.h"
#include "server/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char text[] = "{\"DB_PASSWORD\":\"sentinel\"}";

static char *seal(const unsigned char *key)
{
	unsigned char *out = NULL;
	size_t n = 0;
	struct bt_err err;
	if (bt_secrets_seal(key, text, &out, &n, &err) < 0)
		fail_msg("%s", err.text);
	char *hex = bt_malloc(2 * n + 1);
	bt_hex(out, n, hex);
	free(out);
	return hex;
}

static void test_there_and_back(void **state)
{
	unsigned char key[BT_KEY_BYTES] = {1, 2, 3};
	char *back = NULL;
	(void)state;
	BT_FREE char *one = seal(key), *two = seal(key);
	assert_string_not_equal(one, two); /* a nonce of its own each */
	assert_int_equal(0, bt_secrets_open(key, one, &back, NULL));
	assert_string_equal(text, back);
	free(back);
}

static void test_every_changed_byte_is_noticed(void **state)
{
	unsigned char key[BT_KEY_BYTES] = {1, 2, 3}, other[BT_KEY_BYTES] = {1, 2, 4};
	char *back = NULL;
	struct bt_err err;
	(void)state;
	BT_FREE char *hex = seal(key);
	assert_int_equal(BT_E_CORRUPT, bt_secrets_open(other, hex, &back, &err));
	for (size_t i = 0; hex[i]; i++) {
		char was = hex[i];
		hex[i] = was == '0' ? '1' : '0';
		assert_int_equal(BT_E_CORRUPT, bt_secrets_open(key, hex, &back, &err));
		hex[i] = was;
	}
	for (size_t n = strlen(hex); n > 0; n--) {
		hex[n - 1] = '\0';
		assert_int_equal(BT_E_CORRUPT, bt_secrets_open(key, hex, &back, &err));
	}
	assert_null(back);
}

static void test_key_file(void **state)
{
	char dir[] = "/tmp/bt-secrets-XXXXXX", path[64];
	unsigned char key[BT_KEY_BYTES], again[BT_KEY_BYTES];
	struct stat st;
	struct bt_err err;
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/secret.key", dir);
	assert_int_equal(0, bt_secrets_make_key(path, &err));
	assert_int_equal(0, stat(path, &st));
	assert_int_equal(0600, st.st_mode & 0777);
	assert_int_equal(0, bt_secrets_load_key(path, key, &err));
	assert_int_equal(0, bt_secrets_load_key(path, again, &err));
	assert_memory_equal(key, again, sizeof key);
	assert_int_equal(0, bt_fs_write_atomic(path, "short", 5, 0600, &err));
	assert_int_equal(BT_E_CORRUPT, bt_secrets_load_key(path, key, &err));
	assert_non_null(strstr(err.text, path));
	assert_int_equal(0, bt_fs_remove_tree(dir, NULL));
}

static void test_what_an_end_means_for_the_caller(void **state)
{
	(void)state;
	static const struct {
		const char *end;
		int code;
	} rows[] = {{"done", 0}, {"rolled_back", 1}, {"refused", 1}, {"halted", 3}, {"parked", 3},
		{"what nobody knows", 3}};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++)
		assert_int_equal(rows[i].code, bt_end_exit_code(rows[i].end));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_every_changed_byte_is_noticed),
		cmocka_unit_test(test_key_file),
		cmocka_unit_test(test_what_an_end_means_for_the_caller),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
