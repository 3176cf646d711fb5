#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/index_internal.h"

// Memory of slots. Chunks are mapped, not allocated: pages that no point has touched cost nothing,
// and what is given back goes to the system.

enum { HUGE_PAGE_SIZE = 2 << 20, ID_IN_PLACE_MAX = 15, ID_ON_HEAP = 255 };

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

// A mapping that starts where a huge page can: over-map, then cut both ends.
static void *map_aligned(size_t size)
{
    size_t whole = size + HUGE_PAGE_SIZE;
    char *start = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return MAP_FAILED;
    size_t over = (uintptr_t)start % HUGE_PAGE_SIZE;
    size_t before = over > 0 ? HUGE_PAGE_SIZE - over : 0;
    if (before > 0)
        (void)munmap(start, before);
    if (HUGE_PAGE_SIZE - before > 0)
        (void)munmap(start + before + size, HUGE_PAGE_SIZE - before);
    // Advice: a kernel without huge pages does without.
    (void)madvise(start + before, size, MADV_HUGEPAGE);
    return start + before;
}

struct index_chunk *index_chunk_create(const struct index *index, bool is_first)
{
    size_t slots = index->chunk_slots;
    bool has_norms = index->options.distance != DISTANCE_EUCLIDEAN;
    const size_t sizes[] = {
        slots * index->stride * sizeof(float),
        slots / INDEX_BLOCK * sizeof(struct index_block),
        slots * sizeof(uint64_t),
        slots * sizeof(uint64_t),
        slots * sizeof(struct index_id_cell),
        has_norms ? slots * sizeof(float) : 0,
        (slots / INDEX_BLOCK + 63) / 64 * sizeof(uint64_t),
        slots,
    };
    enum { PARTS = sizeof(sizes) / sizeof(sizes[0]) };
    size_t offsets[PARTS];
    size_t size = 0;
    for (size_t i = 0; i < PARTS; i++) {
        offsets[i] = size;
        size += round_up(sizes[i], EPOCH_CACHE_LINE);
    }
    size = round_up(size, 4096);
    // The first chunk of a small shard is not to take a huge page for a few points.
    char *mapping =
        is_first ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                 : map_aligned(size);
    if (mapping == MAP_FAILED)
        return NULL;
    struct index_chunk *chunk = mem_alloc(sizeof(*chunk));
    *chunk = (struct index_chunk){
        .vectors = (void *)mapping,
        .blocks = (void *)(mapping + offsets[1]),
        .born = (void *)(mapping + offsets[2]),
        .died = (void *)(mapping + offsets[3]),
        .ids = (void *)(mapping + offsets[4]),
        .norms = has_norms ? (void *)(mapping + offsets[5]) : NULL,
        .unlinked_blocks = (void *)(mapping + offsets[6]),
        .links = (void *)(mapping + offsets[7]),
        .mapping = mapping,
        .mapping_size = size,
    };
    return chunk;
}

void index_chunk_destroy(const struct index *index, struct index_chunk *chunk, uint32_t used)
{
    ASSERT(used <= index->chunk_slots);
    for (uint32_t i = 0; i < used; i++)
        (void)index_id_cell_clear(&chunk->ids[i]);
    (void)munmap(chunk->mapping, chunk->mapping_size);
    mem_free(chunk);
}

// --- Ids. The first byte is the size, or says that a size and a pointer follow.

struct id_on_heap {
    uint8_t tag;
    uint8_t unused;
    uint16_t size;
    uint32_t unused_too;
    char *data;
};
_Static_assert(sizeof(struct id_on_heap) <= sizeof(struct index_id_cell), "fits into a cell");
_Static_assert(LIMIT_POINT_ID_SIZE_MAX <= UINT16_MAX, "the size of an id fits");

struct str index_id_cell_get(const struct index_id_cell *cell)
{
    if (cell->bytes[0] != ID_ON_HEAP)
        return (struct str){(const char *)cell->bytes + 1, cell->bytes[0]};
    struct id_on_heap heap;
    memcpy(&heap, cell->bytes, sizeof(heap));
    return (struct str){heap.data, heap.size};
}

size_t index_id_cell_set(struct index_id_cell *cell, struct str id)
{
    if (id.len <= ID_IN_PLACE_MAX) {
        cell->bytes[0] = (uint8_t)id.len;
        memcpy(cell->bytes + 1, id.data, id.len);
        return 0;
    }
    ASSERT(id.len <= LIMIT_POINT_ID_SIZE_MAX);
    struct id_on_heap heap = {.tag = ID_ON_HEAP, .size = (uint16_t)id.len};
    heap.data = mem_alloc(id.len);
    memcpy(heap.data, id.data, id.len);
    memcpy(cell->bytes, &heap, sizeof(heap));
    return id.len;
}

size_t index_id_cell_clear(struct index_id_cell *cell)
{
    size_t size = 0;
    if (cell->bytes[0] == ID_ON_HEAP) {
        struct id_on_heap heap;
        memcpy(&heap, cell->bytes, sizeof(heap));
        mem_free(heap.data);
        size = heap.size;
    }
    cell->bytes[0] = 0;
    return size;
}
