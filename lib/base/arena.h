#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// Memory of one request: many small pieces, freed together. It has a maximum, because what a
// request holds is decided by whoever sent it. One thread at a time. The first block is embedded in
// the owner's allocation; an arena that has been reset keeps it, and the next one, so that steady
// traffic allocates nothing.

struct arena;

struct arena *arena_create(size_t size_max);
void arena_destroy(struct arena *arena); // arena may be NULL
void arena_reset(struct arena *arena);   // everything handed out is gone
size_t arena_size(const struct arena *arena);

// Zeroed, 16-byte aligned. NULL when the arena's maximum would be passed.
void *arena_try_alloc(struct arena *arena, size_t size);
// The same for small things whose size no user decides; stops the process instead of NULL. May
// exceed the maximum.
void *arena_alloc(struct arena *arena, size_t size) __attribute__((returns_nonnull));

char *arena_cstr(struct arena *arena, struct str str); // NUL-terminated copy
struct str arena_str(struct arena *arena, struct str str);
struct str arena_format(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
