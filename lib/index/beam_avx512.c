#include "index/beam_internal.h"

#if defined(BEAM_HAS_AVX512)

#include <immintrin.h>

#include "vector/code_avx512.h"

// Hot path: the beam with AVX-512. Links are tested sixteen at a time and merged in blocks of
// sixteen; what comes out is the same as from the portable one.
//
// Links are loaded as a whole register: on x86 each of its words is whole, and what hangs on a
// link (its code) was written before it.

#define BEAM_TARGET   target(CODE_AVX512_TARGET)
#define BEAM_FUNCTION static inline __attribute__((always_inline, BEAM_TARGET))

// Without optimisation gcc's gather and scatter are macros that change the sign of their mask.
#pragma GCC diagnostic ignored "-Wsign-conversion"

struct beam_state;

BEAM_FUNCTION uint32_t discover_row(const struct beam_state *state, const _Atomic uint32_t *row,
                                    uint32_t *list, uint32_t count);
BEAM_FUNCTION void compare_codes(const struct beam_state *state, uint32_t *list, uint32_t count,
                                 int32_t *distances);
BEAM_FUNCTION void merge_block(struct beam_state *state, const uint32_t *slots,
                               const int32_t *distances, uint32_t count);

#include "index/beam_body.h"

BEAM_FUNCTION uint32_t discover_row(const struct beam_state *state, const _Atomic uint32_t *row,
                                    uint32_t *list, uint32_t count)
{
    const uint32_t *visited = state->beam->visited;
    const __m512i slot_count = _mm512_set1_epi32((int32_t)state->search->slot_count);
    for (uint32_t i = 0; i < state->search->layer.degree; i += BLOCK) {
        __m512i links = _mm512_load_si512(beam_row_memory(row + i));
        __mmask16 used = _mm512_cmpneq_epi32_mask(links, _mm512_set1_epi32(-1));
        // A row is filled from the front.
        used = (__mmask16)(used & ~((unsigned)used + 1));
        if (used == 0)
            break;
        __m512i slots = _mm512_and_si512(links, _mm512_set1_epi32(LINK_SLOT));
        __mmask16 known = _mm512_mask_cmplt_epi32_mask(used, slots, slot_count);
        __m512i words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), known,
                                                    _mm512_srli_epi32(slots, 5), visited, 4);
        __m512i bits =
            _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(slots, _mm512_set1_epi32(31)));
        __mmask16 fresh = _mm512_mask_testn_epi32_mask(known, words, bits);
        _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(fresh, slots));
        count += (uint32_t)__builtin_popcount(fresh);
        if (used != 0xffff)
            break;
    }
    return count;
}

BEAM_FUNCTION void compare_codes(const struct beam_state *state, uint32_t *list, uint32_t count,
                                 int32_t *distances)
{
    const uint8_t *first = state->search->codes.first;
    for (uint32_t i = count; i < count + CODE_AVX512_ROWS - 1; i++)
        list[i] = list[count - 1];
    for (uint32_t i = 0; i < count; i += CODE_AVX512_ROWS)
        _mm_storeu_si128((__m128i *)(void *)(distances + i),
                         code_avx512_l2(state->code_size, state->beam->query, first, list + i));
}

BEAM_FUNCTION __mmask16 first_lanes(uint32_t count)
{
    return (__mmask16)((1U << count) - 1);
}

// How many of the first count distances, which are ordered, are below the value.
BEAM_FUNCTION uint32_t count_below(const int32_t *distances, uint32_t count, int32_t value)
{
    uint32_t start = 0;
    while (count > 128) {
        uint32_t half = count / 2;
        start = distances[start + half - 1] < value ? start + half : start;
        count -= half;
    }
    uint32_t below = 0;
    __m512i wanted = _mm512_set1_epi32(value);
    uint32_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK)
        below += (uint32_t)__builtin_popcount(
            _mm512_cmplt_epi32_mask(_mm512_loadu_si512(distances + start + i), wanted));
    if (i < count) {
        __mmask16 mask = first_lanes(count - i);
        below += (uint32_t)__builtin_popcount(_mm512_mask_cmplt_epi32_mask(
            mask, _mm512_maskz_loadu_epi32(mask, distances + start + i), wanted));
    }
    return start + below;
}

// Move words from … to - 1 up by some places, from the back.
BEAM_FUNCTION void move_up(void *words, uint32_t from, uint32_t to, uint32_t places)
{
    int32_t *array = words;
    uint32_t end = to;
    for (; end - from >= BLOCK; end -= BLOCK)
        _mm512_storeu_si512(array + end - BLOCK + places, _mm512_loadu_si512(array + end - BLOCK));
    if (end > from) {
        __mmask16 mask = first_lanes(end - from);
        __m512i rest = _mm512_maskz_loadu_epi32(mask, array + from);
        _mm512_mask_storeu_epi32(array + from + places, mask, rest);
    }
}

// Order the first count lanes by distance, equal ones as they are, into the arrays: each lane's
// place is how many come before it.
BEAM_FUNCTION void sort_lanes(__m512i distances, __m512i slots, uint32_t count,
                              int32_t *out_distances, uint32_t *out_slots)
{
    int32_t values[BLOCK];
    _mm512_storeu_si512(values, distances);
    __m512i place = _mm512_setzero_si512();
    for (uint32_t i = 0; i < count; i++) {
        __m512i value = _mm512_set1_epi32(values[i]);
        __mmask16 later = (__mmask16)(0xffffU << (i + 1));
        __mmask16 before = _mm512_cmplt_epi32_mask(value, distances);
        before |= _mm512_cmpeq_epi32_mask(value, distances) & later;
        place = _mm512_mask_add_epi32(place, before, place, _mm512_set1_epi32(1));
    }
    __mmask16 mask = first_lanes(count);
    _mm512_mask_i32scatter_epi32(out_distances, mask, place, distances, 4);
    _mm512_mask_i32scatter_epi32(out_slots, mask, place, slots, 4);
}

BEAM_FUNCTION void merge_block(struct beam_state *state, const uint32_t *slots,
                               const int32_t *distances, uint32_t count)
{
    struct beam *beam = state->beam;
    int32_t limit = state->limit;
    if (state->count == state->search->width && beam->distances[state->count - 1] < limit)
        limit = beam->distances[state->count - 1];
    __mmask16 mask = count == BLOCK ? 0xffff : first_lanes(count);
    __m512i block = _mm512_maskz_loadu_epi32(mask, distances);
    mask = _mm512_mask_cmplt_epi32_mask(mask, block, _mm512_set1_epi32(limit));
    if (mask == 0)
        return;
    uint32_t new_count = (uint32_t)__builtin_popcount(mask);
    int32_t new_distances[BLOCK];
    uint32_t new_slots[BLOCK];
    sort_lanes(_mm512_maskz_compress_epi32(mask, block),
               _mm512_maskz_compress_epi32(mask, _mm512_maskz_loadu_epi32(mask, slots)), new_count,
               new_distances, new_slots);
    uint32_t end = state->count;
    for (uint32_t left = new_count; left > 0; left--) {
        uint32_t place = count_below(beam->distances, end, new_distances[left - 1]);
        if (place < end) {
            move_up(beam->distances, place, end, left);
            move_up(beam->slots, place, end, left);
        }
        beam->distances[place + left - 1] = new_distances[left - 1];
        beam->slots[place + left - 1] = new_slots[left - 1];
        end = place;
    }
    if (end < state->next)
        state->next = end;
    state->count += new_count;
    if (state->count > state->search->width)
        state->count = state->search->width;
}

__attribute__((BEAM_TARGET)) void beam_run_avx512(struct beam *beam,
                                                  const struct beam_search *search)
{
    // Codes of the usual dimensions have no loops.
    switch (search->codes.size / CODE_AVX512_WIDTH) {
    case 1:
        run_beam(beam, search, CODE_AVX512_WIDTH);
        break;
    case 2:
        run_beam(beam, search, (size_t)2 * CODE_AVX512_WIDTH);
        break;
    case 6:
        run_beam(beam, search, (size_t)6 * CODE_AVX512_WIDTH);
        break;
    default:
        run_beam(beam, search, search->codes.size);
    }
}

#endif
