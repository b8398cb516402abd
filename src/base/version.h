/* The version of this build; a symbol, so that a test links a second build that differs in it. */
#pragma once
extern const char bt_version[];
