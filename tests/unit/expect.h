/* Texts as tests expect them. */
#pragma once

void contains(const char *text, const char *part);
/* The same as that file below tests/golden, byte for byte. With BATON_GOLDEN_UPDATE=1 in the
 * environment the file becomes what the text is. */
void is_golden(const char *text, const char *file, ...) __attribute__((format(printf, 2, 3)));
