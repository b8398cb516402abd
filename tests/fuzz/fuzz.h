/* A fuzz target is one function over bytes. With -Dfuzz=true libFuzzer calls it; else replay.c
 * does, with every file of the target's corpus. */
#pragma once
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold; unlike assert it is never compiled out. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : __builtin_trap())
