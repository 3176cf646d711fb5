#include "index/beam.h"

#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "index/beam_internal.h"

// Hot path: beam_run and beam_descend.

enum {
    WIDTH_SLACK = 2 * BEAM_LINKS_MAX, // a block is merged before the beam is cut to its width
    VISITED_STEP = 1 << 16,           // slots
};

void beam_init(struct beam *beam)
{
    *beam = (struct beam){0};
}

void beam_deinit(struct beam *beam)
{
    mem_free(beam->distances);
    mem_free(beam->slots);
    mem_free(beam->visited);
    mem_free(beam->query_memory);
    *beam = (struct beam){0};
}

static enum status reserve_width(struct beam *beam, uint32_t width)
{
    if (width <= beam->width_capacity)
        return STATUS_OK;
    size_t size = ((size_t)width + WIDTH_SLACK) * sizeof(uint32_t);
    int32_t *distances = mem_try_alloc(size);
    uint32_t *slots = mem_try_alloc(size);
    if (distances == NULL || slots == NULL) {
        mem_free(distances);
        mem_free(slots);
        return STATUS_EXHAUSTED;
    }
    mem_free(beam->distances);
    mem_free(beam->slots);
    beam->distances = distances;
    beam->slots = slots;
    beam->width_capacity = width;
    return STATUS_OK;
}

static enum status reserve_visited(struct beam *beam, uint32_t slot_count)
{
    if (slot_count <= beam->visited_capacity)
        return STATUS_OK;
    uint32_t capacity = (slot_count + VISITED_STEP - 1) / VISITED_STEP * VISITED_STEP;
    uint32_t *visited = mem_try_alloc(capacity / 8);
    if (visited == NULL)
        return STATUS_EXHAUSTED;
    mem_free(beam->visited);
    beam->visited = visited;
    beam->visited_capacity = capacity;
    return STATUS_OK;
}

static enum status reserve_query(struct beam *beam, uint32_t code_size)
{
    if (code_size <= beam->query_size)
        return STATUS_OK;
    uint8_t *memory = mem_try_alloc((size_t)code_size + BEAM_ALIGNMENT);
    if (memory == NULL)
        return STATUS_EXHAUSTED;
    mem_free(beam->query_memory);
    beam->query_memory = memory;
    beam->query = memory + (BEAM_ALIGNMENT - (uintptr_t)memory % BEAM_ALIGNMENT);
    beam->query_size = code_size;
    return STATUS_OK;
}

enum status beam_reserve(struct beam *beam, uint32_t width, uint32_t slot_count, uint32_t code_size)
{
    TRY(reserve_width(beam, width));
    TRY(reserve_visited(beam, slot_count));
    return reserve_query(beam, code_size);
}

uint64_t beam_memory_size(const struct beam *beam)
{
    return (uint64_t)beam->width_capacity * 2 * sizeof(uint32_t) + beam->visited_capacity / 8 +
           beam->query_size;
}

void beam_run(struct beam *beam, const struct beam_search *search)
{
    ASSERT(search->width > 0 && search->width <= beam->width_capacity);
    ASSERT(search->slot_count <= beam->visited_capacity && search->entry < search->slot_count);
    ASSERT(search->breadth > 0 && search->breadth <= BEAM_BREADTH_MAX);
    memset(beam->visited, 0, ((size_t)search->slot_count + 63) / 64 * 8);
    if (search->has_excluded && search->excluded < search->slot_count)
        beam->visited[search->excluded / 32] |= 1U << search->excluded % 32;
#if defined(BEAM_HAS_AVX512)
    if (strcmp(kernel_get()->name, "avx512") == 0) {
        beam_run_avx512(beam, search);
        return;
    }
#endif
    beam_run_portable(beam, search);
}

// The row's links, as far as they go.
static uint32_t load_row(const struct beam_search *search, uint32_t slot, uint32_t *list)
{
    const _Atomic uint32_t *row = beam_row(&search->layer, slot);
    uint32_t count = 0;
    for (uint32_t i = 0; i < search->layer.degree; i++) {
        uint32_t link = atomic_load_explicit(&row[i], memory_order_acquire);
        if (link == LINK_NONE)
            break;
        if ((link & LINK_SLOT) < search->slot_count)
            list[count++] = link & LINK_SLOT;
    }
    return count;
}

uint32_t beam_descend(struct beam *beam, const struct beam_search *search)
{
    const struct kernel *kernel = kernel_get();
    uint32_t list[BEAM_LINKS_MAX];
    int32_t distances[BEAM_LINKS_MAX];
    uint32_t nearest = search->entry;
    int32_t distance = 0;
    kernel->code_l2(beam->query, &search->codes, &nearest, 1, &distance);
    for (bool is_nearer = true; is_nearer;) {
        is_nearer = false;
        uint32_t count = load_row(search, nearest, list);
        for (uint32_t i = 0; i < count; i++) {
            for (size_t k = 0; k < search->codes.size; k += BEAM_ALIGNMENT)
                __builtin_prefetch(search->codes.first + search->codes.size * list[i] + k);
        }
        kernel->code_l2(beam->query, &search->codes, list, count, distances);
        beam->compared += count;
        for (uint32_t i = 0; i < count; i++) {
            if (distances[i] < distance) {
                distance = distances[i];
                nearest = list[i];
                is_nearer = true;
            }
        }
    }
    return nearest;
}
