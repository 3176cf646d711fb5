#include "base/arena.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

// Blocks in a list, the newest first; the last one is the arena's own, so a small request costs one
// allocation and a steady stream of them none. What is behind `used` in a block is always zero.
// Under the address sanitizer it is poisoned as well, so that use after a reset is reported.

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#endif
#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, size)   ((void)(memory), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(memory, size) ((void)(memory), (void)(size))
#endif

enum {
    ALIGNMENT = 16,
    FIRST_SIZE = 4096,      // of the arena with its own block
    SPARE_SIZE = 8192,      // of the next one, which is kept for the time after a reset
    BLOCK_SIZE_MAX = 65536, // blocks double up to this
};

struct block {
    struct block *next;
    size_t capacity;
    size_t used;
    uint8_t *data;
};

struct arena {
    struct block *blocks; // the one that is being filled; never NULL
    size_t size;          // handed out, rounded up
    size_t size_max;
    size_t block_size_next;
    struct block *spare; // zeroed, of the first size after the own one; NULL: none
    struct block own;
};

static size_t round_up(size_t size)
{
    return (size + (ALIGNMENT - 1)) & ~(size_t)(ALIGNMENT - 1);
}

struct arena *arena_create(size_t size_max)
{
    struct arena *arena = mem_alloc(FIRST_SIZE);
    size_t header = round_up(sizeof(*arena));
    arena->size_max = size_max;
    arena->block_size_next = FIRST_SIZE;
    arena->own.data = (uint8_t *)arena + header;
    arena->own.capacity = FIRST_SIZE - header;
    arena->blocks = &arena->own;
    ASAN_POISON_MEMORY_REGION(arena->own.data, arena->own.capacity);
    return arena;
}

static void clear_block(struct block *block)
{
    ASAN_UNPOISON_MEMORY_REGION(block->data, block->used);
    memset(block->data, 0, block->used);
    ASAN_POISON_MEMORY_REGION(block->data, block->capacity);
    block->used = 0;
}

static void free_block(struct block *block)
{
    ASAN_UNPOISON_MEMORY_REGION(block->data, block->capacity);
    mem_free(block);
}

static void free_blocks(struct arena *arena, bool keeps_spare)
{
    struct block *block = arena->blocks;
    while (block != &arena->own) {
        struct block *next = block->next;
        if (keeps_spare && arena->spare == NULL && block->capacity == SPARE_SIZE) {
            clear_block(block);
            arena->spare = block;
        } else {
            free_block(block);
        }
        block = next;
    }
    arena->blocks = &arena->own;
}

void arena_destroy(struct arena *arena)
{
    if (arena == NULL)
        return;
    free_blocks(arena, false);
    if (arena->spare != NULL)
        free_block(arena->spare);
    ASAN_UNPOISON_MEMORY_REGION(arena->own.data, arena->own.capacity);
    mem_free(arena);
}

void arena_reset(struct arena *arena)
{
    free_blocks(arena, true);
    clear_block(&arena->own);
    arena->size = 0;
    arena->block_size_next = FIRST_SIZE;
}

size_t arena_size(const struct arena *arena)
{
    return arena->size;
}

static struct block *block_create(size_t capacity)
{
    size_t header = round_up(sizeof(struct block));
    struct block *block = mem_try_alloc(header + capacity);
    if (block == NULL)
        return NULL;
    block->data = (uint8_t *)block + header;
    block->capacity = capacity;
    ASAN_POISON_MEMORY_REGION(block->data, block->capacity);
    return block;
}

static struct block *take_block(struct arena *arena, size_t capacity)
{
    struct block *spare = arena->spare;
    if (spare == NULL || capacity != SPARE_SIZE)
        return block_create(capacity);
    arena->spare = NULL;
    spare->next = NULL;
    return spare;
}

// A block that has room for size bytes. Something large gets one of its own, behind the block that
// is being filled, so that what is left there is not wasted.
static struct block *find_room(struct arena *arena, size_t size)
{
    struct block *current = arena->blocks;
    if (size <= current->capacity - current->used)
        return current;

    if (size > arena->block_size_next / 4 && current != &arena->own) {
        struct block *block = block_create(size);
        if (block == NULL)
            return NULL;
        block->next = current->next;
        current->next = block;
        return block;
    }
    if (arena->block_size_next < BLOCK_SIZE_MAX)
        arena->block_size_next *= 2;
    size_t capacity = size > arena->block_size_next ? size : arena->block_size_next;
    struct block *block = take_block(arena, capacity);
    if (block == NULL)
        return NULL;
    block->next = current;
    arena->blocks = block;
    return block;
}

static void *allocate(struct arena *arena, size_t size)
{
    if (size > PTRDIFF_MAX - FIRST_SIZE)
        return NULL;
    size_t rounded = round_up(size > 0 ? size : 1);
    struct block *block = find_room(arena, rounded);
    if (block == NULL)
        return NULL;
    void *memory = block->data + block->used;
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
    block->used += rounded;
    arena->size += rounded;
    return memory;
}

void *arena_try_alloc(struct arena *arena, size_t size)
{
    if (arena->size > arena->size_max || size > arena->size_max - arena->size)
        return NULL;
    return allocate(arena, size);
}

void *arena_alloc(struct arena *arena, size_t size)
{
    void *memory = allocate(arena, size);
    ASSERT(memory != NULL);
    return memory;
}

char *arena_cstr(struct arena *arena, struct str str)
{
    char *copy = arena_alloc(arena, str.len + 1);
    if (str.len > 0)
        memcpy(copy, str.data, str.len);
    return copy;
}

struct str arena_str(struct arena *arena, struct str str)
{
    return (struct str){arena_cstr(arena, str), str.len};
}

struct str arena_format(struct arena *arena, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    ASSERT(len >= 0);
    char *text = arena_alloc(arena, (size_t)len + 1);
    (void)vsnprintf(text, (size_t)len + 1, format, again); // measured above
    va_end(again);
    return (struct str){text, (size_t)len};
}
