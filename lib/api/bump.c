#include "api/bump_internal.h"

enum {
    CHUNK_SIZE_MIN = 256,
    CHUNK_SIZE_MAX = 65536,
    BUDGET_BASE = 1 << 20,
};

void bump_init(struct bump *bump, struct arena *arena, size_t bytes_in, size_t factor)
{
    size_t chunk_size = bytes_in / 2;
    if (chunk_size < CHUNK_SIZE_MIN)
        chunk_size = CHUNK_SIZE_MIN;
    if (chunk_size > CHUNK_SIZE_MAX)
        chunk_size = CHUNK_SIZE_MAX;
    size_t budget =
        bytes_in > (SIZE_MAX - BUDGET_BASE) / factor ? SIZE_MAX : bytes_in * factor + BUDGET_BASE;
    *bump = (struct bump){.arena = arena, .chunk_size = chunk_size, .budget = budget};
}

static void *ask_arena(struct bump *bump, size_t size)
{
    if (size > bump->budget)
        return NULL;
    void *memory = arena_try_alloc(bump->arena, size);
    if (memory != NULL)
        bump->budget -= size;
    return memory;
}

void *bump_alloc(struct bump *bump, size_t size, size_t alignment)
{
    size_t padding = (size_t)(-(uintptr_t)bump->at & (alignment - 1));
    size_t left = (size_t)(bump->end - bump->at);
    if (left >= padding && left - padding >= size && bump->at != NULL) {
        uint8_t *memory = bump->at + padding;
        bump->at = memory + size;
        return memory;
    }
    // What is large gets memory of its own, so that the rest of a chunk is not thrown away for it.
    if (size > bump->chunk_size / 4)
        return ask_arena(bump, size);
    uint8_t *chunk = ask_arena(bump, bump->chunk_size);
    if (chunk == NULL)
        return NULL;
    bump->at = chunk + size;
    bump->end = chunk + bump->chunk_size;
    return chunk;
}
