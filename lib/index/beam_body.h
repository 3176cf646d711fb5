#pragma once

// The loop of beam.h, included once for each instruction set by a file that defines BEAM_FUNCTION
// and the steps that have vector forms:
//
//   compare_codes the distances of a list of codes from the query; both arrays have room for
//                 BLOCK more
//   discover_row  appends the row's links that were not visited to list, returns the new count
//   merge_block   takes up to 16 of what was compared into the beam

#include <stdbool.h>

enum { BLOCK = 16, LIST_MAX = BEAM_BREADTH_MAX * BEAM_LINKS_MAX + BLOCK };

// What is expanded next while the codes of what was discovered are on their way from memory.
struct beam_state {
    struct beam *beam;
    const struct beam_search *search;
    size_t code_size; // a constant for the compiler, where that pays
    uint32_t count;   // of the beam
    uint32_t next;    // nothing before it is unexpanded
    int32_t limit;    // what is not below does not enter
    uint32_t picked[BEAM_BREADTH_MAX];
    uint32_t picked_count;
};

BEAM_FUNCTION void prefetch_code(const struct beam_state *state, uint32_t slot)
{
    const uint8_t *code = state->search->codes.first + state->code_size * slot;
    for (size_t k = 0; k < state->code_size; k += BEAM_ALIGNMENT)
        __builtin_prefetch(code + k);
}

BEAM_FUNCTION uint32_t discover(struct beam_state *state, uint32_t *list)
{
    const struct beam_search *search = state->search;
    uint32_t count = 0;
    for (uint32_t i = 0; i < state->picked_count; i++) {
        uint32_t first = count;
        count = discover_row(state, beam_row(&search->layer, state->picked[i]), list, count);
        for (uint32_t k = first; k < count; k++) {
            uint32_t slot = list[k];
            state->beam->visited[slot / 32] |= 1U << slot % 32;
            prefetch_code(state, slot);
        }
    }
    return count;
}

BEAM_FUNCTION void compare(struct beam_state *state, uint32_t *list, uint32_t count)
{
    int32_t distances[LIST_MAX + BLOCK];
    state->beam->compared += count;
    compare_codes(state, list, count, distances);
    for (uint32_t i = 0; i < count; i += BLOCK)
        merge_block(state, list + i, distances + i, count - i < BLOCK ? count - i : BLOCK);
}

BEAM_FUNCTION bool is_bounded(const struct beam_state *state)
{
    return state->search->stop > 0 && state->count >= state->search->k;
}

BEAM_FUNCTION void set_limit(struct beam_state *state)
{
    state->limit = INT32_MAX;
    if (!is_bounded(state))
        return;
    // In double, where the product of a float and a whole number below 2^29 is exact.
    double reach =
        (double)state->beam->distances[state->search->k - 1] + (double)state->search->noise;
    double limit = (double)state->search->stop * reach;
    if (limit < (double)INT32_MAX)
        state->limit = (int32_t)limit;
}

BEAM_FUNCTION void pick(struct beam_state *state)
{
    struct beam *beam = state->beam;
    state->picked_count = 0;
    while (state->next < state->count && (beam->slots[state->next] & LINK_OCCLUDED) != 0)
        state->next++;
    set_limit(state);
    if (state->next < state->count && beam->distances[state->next] > state->limit)
        return;
    for (uint32_t i = state->next; i < state->count && state->picked_count < state->search->breadth;
         i++) {
        if ((beam->slots[i] & LINK_OCCLUDED) != 0)
            continue;
        uint32_t slot = beam->slots[i];
        state->picked[state->picked_count++] = slot;
        beam_prefetch_row(&state->search->layer, slot);
        beam->slots[i] = slot | LINK_OCCLUDED; // here: it was expanded
    }
}

BEAM_FUNCTION void run_beam(struct beam *beam, const struct beam_search *search, size_t code_size)
{
    struct beam_state state = {
        .beam = beam, .search = search, .code_size = code_size, .limit = INT32_MAX};
    uint32_t lists[2][LIST_MAX];
    uint32_t count = 1;
    uint32_t turn = 0;
    lists[0][0] = search->entry;
    beam->visited[search->entry / 32] |= 1U << search->entry % 32;
    // Each turn compares what the turn before discovered, whose codes it has prefetched, discovers
    // the links of those that were picked then, whose rows it has prefetched, and picks the next.
    for (;;) {
        if (count > 0)
            compare(&state, lists[turn], count);
        turn ^= 1;
        count = discover(&state, lists[turn]);
        pick(&state);
        if (count == 0 && state.picked_count == 0)
            break;
    }
    for (uint32_t i = 0; i < state.count; i++)
        beam->slots[i] &= LINK_SLOT;
    beam->count = state.count;
}
