#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

// Many tiny pieces out of an arena, packed as tightly as their alignment allows, with a budget that
// follows from the size of what is being decoded: a small message that would unfold into a huge one
// stops here and not at the maximum of the whole request. One thread. Nothing is freed; it goes
// with the arena.

struct bump {
    struct arena *arena;
    uint8_t *at;
    uint8_t *end;
    size_t chunk_size;
    size_t budget; // bytes that may still be asked of the arena
};

// What a decoder may use for bytes_in bytes of input: factor times as much and 1 MiB. 16 is enough
// for whatever our messages hold when they are meant well.
enum { BUMP_FACTOR = 16 };
void bump_init(struct bump *bump, struct arena *arena, size_t bytes_in, size_t factor);
// Zeroed. NULL: over the budget or the arena's maximum. alignment is a power of two, at most 16.
void *bump_alloc(struct bump *bump, size_t size, size_t alignment);
