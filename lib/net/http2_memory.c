#include "net/http2_memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

// Sizes are powers of two with a header in front, which says which. The address sanitizer has to
// see each piece as its own, so under it everything goes to the heap.

#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_PIECES 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_PIECES 0
#endif
#endif
#ifndef KEEPS_PIECES
#define KEEPS_PIECES 1
#endif

enum {
    CLASSES = 7, // 64 to 4096 bytes, the header included
    SIZE_MIN = 64,
    KEPT_BYTES_MAX = 1 << 18, // of each size
};

// As large as malloc's alignment.
union header {
    struct {
        union header *next; // while it waits
        uint32_t size_class;
    } piece;
    max_align_t alignment;
};

struct http2_memory {
    nghttp2_mem functions;
    union header *kept[CLASSES];
    uint32_t kept_count[CLASSES];
};

static uint32_t class_of(size_t size)
{
    uint32_t size_class = 0;
    while (size_class < CLASSES && ((size_t)SIZE_MIN << size_class) < size)
        size_class++;
    return size_class; // CLASSES: too large to be kept
}

static size_t room_of(const union header *header)
{
    return ((size_t)SIZE_MIN << header->piece.size_class) - sizeof(*header);
}

static void *take(size_t size, void *user)
{
    struct http2_memory *memory = user;
    if (size > SIZE_MAX - sizeof(union header))
        return NULL;
    size_t whole = size + sizeof(union header);
    uint32_t size_class = class_of(whole);
    union header *header = NULL;
    if (size_class < CLASSES && memory->kept[size_class] != NULL) {
        header = memory->kept[size_class];
        memory->kept[size_class] = header->piece.next;
        memory->kept_count[size_class]--;
    } else {
        header = mem_try_alloc(size_class < CLASSES ? (size_t)SIZE_MIN << size_class : whole);
    }
    if (header == NULL)
        return NULL;
    header->piece.size_class = size_class;
    return header + 1;
}

static void give(void *piece, void *user)
{
    struct http2_memory *memory = user;
    if (piece == NULL)
        return;
    union header *header = (union header *)piece - 1;
    uint32_t size_class = header->piece.size_class;
    bool keeps =
        KEEPS_PIECES && size_class < CLASSES &&
        ((size_t)memory->kept_count[size_class] + 1) << size_class <= KEPT_BYTES_MAX / SIZE_MIN;
    if (!keeps) {
        mem_free(header);
        return;
    }
    header->piece.next = memory->kept[size_class];
    memory->kept[size_class] = header;
    memory->kept_count[size_class]++;
}

static void *take_zeroed(size_t count, size_t size, void *user)
{
    if (size > 0 && count > SIZE_MAX / size)
        return NULL;
    void *piece = take(count * size, user);
    if (piece != NULL)
        memset(piece, 0, count * size);
    return piece;
}

static void *resize(void *piece, size_t size, void *user)
{
    if (piece == NULL)
        return take(size, user);
    union header *header = (union header *)piece - 1;
    if (header->piece.size_class == CLASSES) {
        if (size > SIZE_MAX - sizeof(*header))
            return NULL;
        union header *moved = mem_try_resize(header, size + sizeof(*header));
        return moved != NULL ? moved + 1 : NULL;
    }
    if (size <= room_of(header))
        return piece;
    void *larger = take(size, user);
    if (larger == NULL)
        return NULL;
    memcpy(larger, piece, room_of(header));
    give(piece, user);
    return larger;
}

struct http2_memory *http2_memory_create(void)
{
    struct http2_memory *memory = mem_alloc(sizeof(*memory));
    memory->functions = (nghttp2_mem){memory, take, give, take_zeroed, resize};
    return memory;
}

void http2_memory_destroy(struct http2_memory *memory)
{
    for (uint32_t i = 0; memory != NULL && i < CLASSES; i++) {
        while (memory->kept[i] != NULL) {
            union header *header = memory->kept[i];
            memory->kept[i] = header->piece.next;
            mem_free(header);
        }
    }
    mem_free(memory);
}

nghttp2_mem *http2_memory_functions(struct http2_memory *memory)
{
    return &memory->functions;
}
