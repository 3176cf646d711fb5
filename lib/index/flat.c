#include "index/flat.h"

#include <float.h>
#include <math.h>

#include "base/assert.h"
#include "base/clock.h"
#include "index/index_internal.h"
#include "index/top.h"
#include "vector/kernel.h"

// Hot path: the exact scan. No allocation, no lock, no system call but the clock.
//
// A float32 sum over each row, as fast as memory delivers, only decides whether the row can be
// among the best: it is compared to the worst score so far, widened by how wrong a float32 sum can
// be. What passes is scored in double, so the result is the exact one: as if all rows had been.
// With rows in random order about k * ln(n / k) pass.
//
// Where float32 could overflow or lose everything (norms far from 1), the norm kept with the row
// makes the comparison fail towards passing: 1 / norm is NaN (cosine), the norm is infinite (dot).

enum { FLOATS_BETWEEN_CHECKS = 1 << 20 };

#define NORM_SAFE_MIN 1e-12F
#define NORM_SAFE_MAX 1e15F

float index_norm_for(enum distance distance, const float *vector, uint32_t dimension)
{
    double norm = sqrt(distance_norm_squared(vector, dimension));
    bool is_safe = norm >= (double)NORM_SAFE_MIN && norm <= (double)NORM_SAFE_MAX;
    if (distance == DISTANCE_COSINE)
        return is_safe ? (float)(1 / norm) : NAN;
    // Rounded up: it is the width of a margin.
    return norm <= (double)NORM_SAFE_MAX ? (float)norm * 1.000001F : INFINITY;
}

// The worst score of a full top, in terms of what sift compares, on the safe side.
static void tighten(struct flat_scan *scan)
{
    if (!top_is_full(scan->top))
        return;
    double worst = (double)top_worst_score(scan->top);
    double relative = (double)scan->relative;
    double limit = 0;
    switch (scan->query.distance) {
    case DISTANCE_EUCLIDEAN:
        limit = worst * worst * (1 + 4 * relative) + 4 * (double)scan->absolute;
        scan->limit = limit >= (double)FLT_MAX / 2 ? INFINITY : (float)limit * 1.000001F + FLT_MIN;
        break;
    case DISTANCE_COSINE:
        // 1 - sum / norms <= worst, with both sides off by at most `relative`.
        limit = (1 - worst - 4 * relative) * (double)scan->query_norm;
        scan->limit = (float)(limit - fabs(limit) * 1e-6);
        break;
    case DISTANCE_DOT:
        limit = -worst - fabs(worst) * 2e-6 - 4 * (double)scan->absolute;
        scan->limit = limit <= -(double)FLT_MAX ? -INFINITY : (float)limit;
        break;
    }
}

static void rescore(struct flat_scan *scan, const struct index_chunk *chunk, uint32_t place,
                    uint32_t slot)
{
    const float *row = chunk->vectors + (size_t)place * scan->view->index->stride;
    float score = distance_query_score(&scan->query, row);
    scan->stats.rows_rescored++;
    top_push(scan->top, (struct index_hit){score, slot});
    tighten(scan);
}

// The comparisons are written so that NaN passes.
static bool can_be_near(const struct flat_scan *scan, float sum, float norm)
{
    switch (scan->query.distance) {
    case DISTANCE_EUCLIDEAN:
        return !(sum > scan->limit);
    case DISTANCE_COSINE:
        return !(sum * norm < scan->limit);
    case DISTANCE_DOT:
        return !(sum + 2 * scan->relative * scan->query_norm * norm < scan->limit);
    }
    return true;
}

static void scan_run(struct flat_scan *scan, const struct index_chunk *chunk, uint32_t place,
                     uint32_t slot, uint32_t count)
{
    float sums[INDEX_BLOCK];
    const struct kernel_rows rows = {
        .first = chunk->vectors + (size_t)place * scan->view->index->stride,
        .stride = scan->view->index->stride,
        .count = count,
        .dimension = scan->query.dimension,
    };
    bool is_euclidean = scan->query.distance == DISTANCE_EUCLIDEAN;
    (is_euclidean ? scan->kernel->l2_squared : scan->kernel->dot)(scan->query.vector, &rows, sums);
    for (uint32_t i = 0; i < count; i++) {
        float norm = is_euclidean ? 0 : chunk->norms[place + i];
        if (can_be_near(scan, sums[i], norm))
            rescore(scan, chunk, place + i, slot + i);
    }
    scan->stats.rows_compared += count;
    scan->floats_unchecked += (uint64_t)count * scan->query.dimension;
}

static uint64_t allowed_slots(const struct index_search *search, uint32_t slot)
{
    if (search->allowed == NULL)
        return UINT64_MAX;
    return slot < search->allowed_count ? search->allowed[slot / INDEX_BLOCK] : 0;
}

static void scan_block(struct flat_scan *scan, const struct index_chunk *chunk, uint32_t block,
                       uint32_t slot)
{
    uint64_t mask = allowed_slots(scan->search, slot);
    if (scan->only_unlinked)
        mask &= atomic_load_explicit(&chunk->blocks[block].unlinked, memory_order_acquire);
    if (mask != 0)
        mask &= index_visible_slots(scan->view, chunk, block);
    while (mask != 0) {
        uint32_t start = (uint32_t)__builtin_ctzll(mask);
        uint64_t rest = ~(mask >> start);
        uint32_t count = rest == 0 ? INDEX_BLOCK : (uint32_t)__builtin_ctzll(rest);
        if (count > INDEX_BLOCK - start)
            count = INDEX_BLOCK - start;
        scan_run(scan, chunk, block * INDEX_BLOCK + start, slot + start, count);
        mask = start + count == INDEX_BLOCK ? 0 : mask >> (start + count) << (start + count);
    }
}

static enum status check_end(struct flat_scan *scan)
{
    if (scan->floats_unchecked < FLOATS_BETWEEN_CHECKS)
        return STATUS_OK;
    scan->floats_unchecked = 0;
    const struct index_search *search = scan->search;
    if (search->cancelled != NULL && atomic_load_explicit(search->cancelled, memory_order_relaxed))
        return STATUS_CANCELLED;
    if (search->deadline_ns != UINT64_MAX && clock_monotonic_ns() >= search->deadline_ns)
        return STATUS_TIMEOUT;
    return STATUS_OK;
}

// The blocks of a chunk that hold what is not linked.
static enum status scan_unlinked(struct flat_scan *scan, const struct index_chunk *chunk,
                                 uint32_t slot)
{
    uint32_t blocks = scan->view->index->chunk_slots / INDEX_BLOCK;
    for (uint32_t group = 0; group * 64 < blocks; group++) {
        uint64_t mask = atomic_load_explicit(&chunk->unlinked_blocks[group], memory_order_acquire);
        for (; mask != 0; mask &= mask - 1) {
            uint32_t block = group * 64 + (uint32_t)__builtin_ctzll(mask);
            scan_block(scan, chunk, block, slot + block * INDEX_BLOCK);
            TRY(check_end(scan));
        }
    }
    return STATUS_OK;
}

static enum status scan_chunk(struct flat_scan *scan, const struct index_chunk *chunk,
                              uint32_t slot)
{
    uint32_t end = slot + scan->view->index->chunk_slots;
    if (end > scan->view->slot_count)
        end = scan->view->slot_count;
    for (uint32_t block = 0; slot < end; slot += INDEX_BLOCK, block++) {
        scan_block(scan, chunk, block, slot);
        TRY(check_end(scan));
    }
    return STATUS_OK;
}

void flat_scan_init(struct flat_scan *scan, const struct index_view *view,
                    const struct index_search *search, struct top *top)
{
    ASSERT(search->top_k > 0);
    *scan = (struct flat_scan){
        .view = view,
        .search = search,
        .kernel = kernel_get(),
        .top = top,
    };
    distance_query_init(&scan->query, view->index->options.distance, search->vector,
                        view->index->options.dimension);
    uint32_t dimension = scan->query.dimension;
    double norm = sqrt(scan->query.norm_squared);
    bool is_safe = norm >= (double)NORM_SAFE_MIN && norm <= (double)NORM_SAFE_MAX;
    scan->relative = kernel_error_bound(dimension);
    scan->absolute = (float)dimension * 4 * FLT_TRUE_MIN;
    if (scan->query.distance == DISTANCE_COSINE)
        scan->query_norm = is_safe ? (float)norm : NAN;
    else
        scan->query_norm = norm <= (double)NORM_SAFE_MAX ? (float)norm * 1.000001F : INFINITY;
    scan->limit = scan->query.distance == DISTANCE_EUCLIDEAN ? INFINITY : -INFINITY;
    tighten(scan);
}

void flat_scan_slot(struct flat_scan *scan, const struct index_chunk *chunk, uint32_t slot)
{
    scan_run(scan, chunk, index_place_of(scan->view->index, slot), slot, 1);
}

enum status flat_search(const struct index_view *view, const struct index_search *search,
                        bool only_unlinked, struct top *top, struct index_stats *stats)
{
    const struct index *index = view->index;
    struct flat_scan scan;
    flat_scan_init(&scan, view, search, top);
    scan.only_unlinked = only_unlinked;
    for (uint32_t slot = 0; slot < view->slot_count; slot += index->chunk_slots) {
        const struct index_chunk *chunk = index_chunk_of(index, view->directory, slot);
        if (only_unlinked)
            TRY(scan_unlinked(&scan, chunk, slot));
        else
            TRY(scan_chunk(&scan, chunk, slot));
    }
    stats->rows_compared += scan.stats.rows_compared;
    stats->rows_rescored += scan.stats.rows_rescored;
    return STATUS_OK;
}
