/* Time. Only server, agent, cli, drivers and shim call these: the pure layers get time in events.
 */
#pragma once
#include <stdint.h>
int64_t bt_clock_boot_ms(void); /* CLOCK_BOOTTIME: never jumps; counts through suspend */
int64_t bt_clock_boot_us(void);
int64_t bt_clock_wall_ms(void); /* CLOCK_REALTIME since 1970: for people and between hosts */
/* "2026-11-21T06:39:02.123Z"; buf ≥ 32 bytes; returns buf. */
const char *bt_clock_format(int64_t wall_ms, char buf[static 32]);
/* The other way, with or without fractions of a second; -1 where it is no such time (NULL, too). */
int64_t bt_clock_parse(const char *rfc3339);
