#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "index/flat.h"
#include "index/index_internal.h"
#include "index/index_tune.h"
#include "index/top.h"

// Hot path: a search. What is not linked yet is scanned, then the graph is asked, and the best that
// it finds by their codes are compared at full precision. Everything is scanned where that is
// asked for, or takes no longer, or the graph has found too little.

enum {
    WIDTH_FACTOR = 3,  // of top_k, at least
    WIDTH_OF_EF = 4,   // hard searches may keep so many times ef
    STOP_K_MIN = 10,   // fewer hits are not searched for with less effort
    RESCORED_FOR = 10, // hits: what the tuner says holds for so many
    OFFER_EVERY = 16,  // searches: keep the query
    SCAN_FACTOR = 40,  // the graph compares more than so many points for a hit
};

static void destroy_beam(void *kept)
{
    beam_deinit(kept);
    mem_free(kept);
}

void index_search_deinit(struct index *index)
{
    epoch_deinit(&index->epoch, destroy_beam);
}

struct beam *index_beam_of(const struct index_view *view)
{
    if (view->reader->kept == NULL) {
        struct beam *beam = mem_alloc(sizeof(*beam));
        beam_init(beam);
        view->reader->kept = beam;
    }
    return view->reader->kept;
}

static bool is_scanned(const struct index_view *view, const struct index_search *search)
{
    const struct index *index = view->index;
    uint64_t points = index_point_count(index);
    return search->is_exact || search->allowed != NULL ||
           atomic_load_explicit(&index->graph, memory_order_acquire) == NULL ||
           index_unlinked_count(index) > points / 2 ||
           (uint64_t)search->top_k * SCAN_FACTOR > points;
}

static bool is_visible(const struct index_view *view, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(view->index, view->directory, slot);
    uint32_t place = index_place_of(view->index, slot);
    uint64_t mask = index_visible_slots(view, chunk, place / INDEX_BLOCK);
    return (mask >> place % INDEX_BLOCK & 1) != 0;
}

// What a hit needs: its block's state and its vector.
static void prefetch_slot(const struct index_view *view, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(view->index, view->directory, slot);
    uint32_t place = index_place_of(view->index, slot);
    const char *row = (const char *)(chunk->vectors + (size_t)place * view->index->stride);
    size_t size = view->index->stride * sizeof(float);
    if (size > 1024)
        size = 1024; // the processor goes on by itself
    __builtin_prefetch(&chunk->blocks[place / INDEX_BLOCK]);
    for (size_t k = 0; k < size; k += EPOCH_CACHE_LINE)
        __builtin_prefetch(row + k);
}

// The beam's bits, which the search is done with, now say which slots top holds.
static void mark_hits(struct beam *beam, const struct top *top)
{
    memset(beam->visited, 0, beam->visited_capacity / 8);
    for (uint32_t i = 0; i < top->count; i++) {
        uint32_t slot = top->hits[i].slot;
        if (slot < beam->visited_capacity)
            beam->visited[slot / 32] |= 1U << slot % 32;
    }
}

// Compare the nearest by code at full precision. A slot can be there twice, when its link was moved
// while the row was read; then at the same distance. And what was scanned may have been linked
// meanwhile: only if something was scanned are there marks.
static void rescore(const struct index_view *view, const struct index_search *search,
                    uint32_t for_ten, struct top *top, struct index_stats *stats)
{
    enum { AHEAD = 8 };
    struct beam *beam = index_beam_of(view);
    bool has_marks = top->count > 0;
    if (has_marks)
        mark_hits(beam, top);
    struct flat_scan scan;
    flat_scan_init(&scan, view, search, top);
    // As large a part for other numbers of hits, but no fewer for few, and not all for many.
    uint64_t wanted = (uint64_t)for_ten * search->top_k / RESCORED_FOR;
    if (wanted < for_ten)
        wanted = for_ten;
    if (search->top_k > RESCORED_FOR && wanted > 2 * (uint64_t)search->top_k + for_ten)
        wanted = 2 * (uint64_t)search->top_k + for_ten;
    uint32_t count = 0;
    for (uint32_t i = 0; i < AHEAD && i < beam->count; i++)
        prefetch_slot(view, beam->slots[i]);
    for (uint32_t i = 0; i < beam->count && count < wanted; i++) {
        uint32_t slot = beam->slots[i];
        if (i + AHEAD < beam->count)
            prefetch_slot(view, beam->slots[i + AHEAD]);
        bool is_double = has_marks && (beam->visited[slot / 32] >> slot % 32 & 1) != 0;
        for (uint32_t k = i; k > 0 && beam->distances[k - 1] == beam->distances[i]; k--)
            is_double = is_double || beam->slots[k - 1] == slot;
        if (is_double || slot >= view->slot_count || !is_visible(view, slot))
            continue;
        count++;
        flat_scan_slot(&scan, index_chunk_of(view->index, view->directory, slot), slot);
    }
    stats->rows_rescored += count;
}

// The stop that is as much effort as a beam of ef is on word vectors of 100 dimensions: measured at
// 70 (1.1), 140 (1.15), 250 (1.2), 420 (1.26) and 600 (1.33).
static float stop_of_ef(uint32_t ef)
{
    return 1 + 0.1F * powf((float)ef / 70, 0.55F);
}

static struct graph_search effort_of(const struct index_search *search, struct tune_effort tuned)
{
    struct graph_search effort = {
        .vector = search->vector,
        .width = search->ef > 0 ? search->ef * WIDTH_OF_EF : tuned.width,
        .k = search->top_k < STOP_K_MIN ? STOP_K_MIN : search->top_k,
        .stop = search->stop,
    };
    if (search->ef == 0 && effort.width < search->top_k * WIDTH_FACTOR)
        effort.width = search->top_k * WIDTH_FACTOR;
    if (effort.width < search->top_k)
        effort.width = search->top_k;
    if (effort.stop <= 0)
        effort.stop = search->ef > 0 ? stop_of_ef(search->ef) : tuned.stop;
    return effort;
}

static enum status search_graph(const struct index_view *view, const struct index_search *search,
                                struct top *top, struct index_stats *stats)
{
    struct index *index = view->index;
    struct beam *beam = index_beam_of(view);
    uint64_t size = beam_memory_size(beam);
    uint64_t compared = beam->compared;
    struct tuner *tuner = atomic_load_explicit(&index->tuner, memory_order_acquire);
    struct tune_effort tuned = tuner_effort(tuner);
    const struct graph_search wanted = effort_of(search, tuned);
    if (beam->searches++ % OFFER_EVERY == 0 || tuner_is_short(tuner))
        tuner_offer(tuner, search->vector, index->options.dimension);
    TRY(graph_search(atomic_load_explicit(&index->graph, memory_order_acquire), beam, &wanted));
    stats->rows_compared += beam->compared - compared;
    rescore(view, search, tuned.rescored, top, stats);
    uint64_t size_now = beam_memory_size(beam);
    if (size_now != size)
        (void)atomic_fetch_add(&index->memory_size, size_now - size);
    return STATUS_OK;
}

// CANCELLED or TIMEOUT before anything is begun; a scan looks again while it runs.
static enum status check_begin(const struct index_search *search)
{
    if (search->cancelled != NULL && atomic_load_explicit(search->cancelled, memory_order_relaxed))
        return STATUS_CANCELLED;
    if (search->deadline_ns != UINT64_MAX && clock_monotonic_ns() >= search->deadline_ns)
        return STATUS_TIMEOUT;
    return STATUS_OK;
}

enum status index_search(const struct index_view *view, const struct index_search *search,
                         struct index_hit *hits, uint32_t *out_hit_count,
                         struct index_stats *out_stats)
{
    struct top top = {.view = view, .hits = hits, .top_k = search->top_k};
    struct index_stats stats = {0};
    bool is_scan = is_scanned(view, search);
    if (!is_scan) {
        TRY(check_begin(search));
        if (index_unlinked_count(view->index) > 0)
            TRY(flat_search(view, search, true, &top, &stats));
        TRY(search_graph(view, search, &top, &stats));
        // Fewer hits than asked for come back only when there are fewer points.
        is_scan = !top_is_full(&top);
    }
    if (is_scan) {
        top.count = 0;
        TRY(flat_search(view, search, false, &top, &stats));
    }
    top_sort(&top);
    *out_hit_count = top.count;
    if (out_stats != NULL)
        *out_stats = stats;
    return STATUS_OK;
}

uint64_t index_search_cost_ns(const struct index *index, uint32_t top_k)
{
    // Ten bytes a nanosecond from memory, some 300 ns for each hit's way through the heap, and some
    // 50 µs for the graph, more for many hits.
    enum { GRAPH_NS = 50000, GRAPH_HIT_NS = 3000 };
    uint64_t row_ns = 2 + index->stride * sizeof(float) / 10;
    uint64_t rows = atomic_load_explicit(&index->slot_count, memory_order_relaxed);
    uint64_t scan = rows * row_ns + (uint64_t)top_k * 300;
    uint64_t unlinked = index_unlinked_count(index);
    uint64_t points = index_point_count(index);
    if (atomic_load_explicit(&index->graph, memory_order_acquire) == NULL ||
        unlinked > points / 2 || (uint64_t)top_k * SCAN_FACTOR > points)
        return scan;
    uint64_t graph = GRAPH_NS + (uint64_t)top_k * GRAPH_HIT_NS + unlinked * row_ns;
    return graph < scan ? graph : scan;
}
