#include <string.h>

#include "index/beam_internal.h"

// Hot path: the beam in plain C.

#define BEAM_FUNCTION static inline

struct beam_state;

static inline uint32_t discover_row(const struct beam_state *state, const _Atomic uint32_t *row,
                                    uint32_t *list, uint32_t count);
static inline void compare_codes(const struct beam_state *state, uint32_t *list, uint32_t count,
                                 int32_t *distances);
static inline void merge_block(struct beam_state *state, const uint32_t *slots,
                               const int32_t *distances, uint32_t count);

#include "index/beam_body.h"

static inline uint32_t discover_row(const struct beam_state *state, const _Atomic uint32_t *row,
                                    uint32_t *list, uint32_t count)
{
    const uint32_t *visited = state->beam->visited;
    for (uint32_t i = 0; i < state->search->layer.degree; i++) {
        uint32_t link = atomic_load_explicit(&row[i], memory_order_acquire);
        if (link == LINK_NONE)
            break;
        uint32_t slot = link & LINK_SLOT;
        if (slot >= state->search->slot_count)
            continue;
        list[count] = slot;
        count += (visited[slot / 32] >> slot % 32 & 1) == 0;
    }
    return count;
}

static inline void compare_codes(const struct beam_state *state, uint32_t *list, uint32_t count,
                                 int32_t *distances)
{
    kernel_get()->code_l2(state->beam->query, &state->search->codes, list, count, distances);
}

// Those of the block that may enter, the nearest first, in the block's order where they are equal.
static uint32_t sort_block(const struct beam_state *state, const uint32_t *slots,
                           const int32_t *distances, uint32_t count, uint32_t *out_slots,
                           int32_t *out_distances)
{
    const struct beam *beam = state->beam;
    int32_t limit = state->limit;
    if (state->count == state->search->width && beam->distances[state->count - 1] < limit)
        limit = beam->distances[state->count - 1];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (distances[i] >= limit)
            continue;
        uint32_t place = kept++;
        for (; place > 0 && out_distances[place - 1] > distances[i]; place--) {
            out_distances[place] = out_distances[place - 1];
            out_slots[place] = out_slots[place - 1];
        }
        out_distances[place] = distances[i];
        out_slots[place] = slots[i];
    }
    return kept;
}

// New ones go before equal ones that are there.
static inline void merge_block(struct beam_state *state, const uint32_t *slots,
                               const int32_t *distances, uint32_t count)
{
    uint32_t new_slots[BLOCK];
    int32_t new_distances[BLOCK];
    struct beam *beam = state->beam;
    uint32_t new_count = sort_block(state, slots, distances, count, new_slots, new_distances);
    uint32_t old = state->count;
    uint32_t left = new_count;
    while (left > 0) {
        uint32_t place = old + left - 1;
        if (old > 0 && beam->distances[old - 1] >= new_distances[left - 1]) {
            old--;
            beam->distances[place] = beam->distances[old];
            beam->slots[place] = beam->slots[old];
        } else {
            left--;
            beam->distances[place] = new_distances[left];
            beam->slots[place] = new_slots[left];
            if (left == 0 && place < state->next)
                state->next = place;
        }
    }
    state->count += new_count;
    if (state->count > state->search->width)
        state->count = state->search->width;
}

void beam_run_portable(struct beam *beam, const struct beam_search *search)
{
    run_beam(beam, search, search->codes.size);
}
