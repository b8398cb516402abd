/* Where this program and the small ones beside it are installed. */
#pragma once

char *bt_place_self(void); /* the caller frees */
/* The shim of the program at self: beside it or in libexec; in a build tree in src/shim. The
 * unpacker lies in the same directory. The caller frees. */
char *bt_place_shim(const char *self);
