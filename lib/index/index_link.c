#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "index/image.h"
#include "index/index_internal.h"
#include "index/index_tune.h"

// The way of points into the graph and out of it.
//
// A point that was put shows at once: a search scans what is not linked. The writer links it later,
// between writes, in the order of putting. A removed point shows no more, but the graph holds it
// until no view shows it; then the graph is told, and once many were (a part of all points), it
// takes them out. When no reader is left that could come to it, its slot is free.
//
// Codes are learned when the graph is begun, and again when there are many times as many points.

enum {
    LINK_FLOATS_MIN = 1 << 19, // a scan of fewer values takes less time than the graph
    LINK_POINTS_MIN = 1000,
    TAIL_POINTS_MAX = 32768, // that are not linked before writers must wait
    TAIL_POINTS_MIN = 1024,
    TAIL_FLOATS_MAX = 8 << 20, // and their values: a scan of them takes a few milliseconds
    QUEUE_CAPACITY_MIN = 1024,
    SWEEP_POINTS_MIN = 64,
    SWEEP_PART = 128, // one of so many is removed: time to sweep
    SWEEP_ROWS = 256, // as much work as linking a point, about
    LEARN_FACTOR = 8, // so many times as many points: learn again
    CHECK_CHANGES_MIN = 1000,
    CHECK_PART = 4, // one of so many points has changed: look the graph over
    REPAIRS_MAX = 3,
};

// --- Marks

static void set_unlinked(struct index_chunk *chunk, uint32_t place, bool is_unlinked)
{
    uint32_t block = place / INDEX_BLOCK;
    _Atomic uint64_t *slots = &chunk->blocks[block].unlinked;
    _Atomic uint64_t *blocks = &chunk->unlinked_blocks[block / 64];
    uint64_t bit = UINT64_C(1) << place % INDEX_BLOCK;
    uint64_t block_bit = UINT64_C(1) << block % 64;
    if (is_unlinked) {
        (void)atomic_fetch_or_explicit(slots, bit, memory_order_release);
        (void)atomic_fetch_or_explicit(blocks, block_bit, memory_order_release);
        return;
    }
    // Release: who does not find it here finds it in the graph.
    uint64_t before = atomic_fetch_and_explicit(slots, ~bit, memory_order_release);
    if ((before & ~bit) == 0)
        (void)atomic_fetch_and_explicit(blocks, ~block_bit, memory_order_release);
}

static struct index_chunk *chunk_of(const struct index *index, uint32_t slot)
{
    return index_chunk_of(index, atomic_load_explicit(&index->directory, memory_order_relaxed),
                          slot);
}

static const float *vector_of(void *context, uint32_t slot)
{
    return index_vector(context, slot);
}

static bool is_removed(const struct index_chunk *chunk, uint32_t place)
{
    return atomic_load_explicit(&chunk->died[place], memory_order_relaxed) != UINT64_MAX;
}

static void mark_linked(struct index *index, struct index_chunk *chunk, uint32_t place)
{
    set_unlinked(chunk, place, false);
    (void)atomic_fetch_sub_explicit(&index->unlinked_count, 1, memory_order_relaxed);
}

// --- The queue

static void push(struct index *index, uint32_t slot)
{
    if (index->link_count == index->link_capacity) {
        uint32_t capacity =
            index->link_capacity == 0 ? QUEUE_CAPACITY_MIN : index->link_capacity * 2;
        uint32_t *queue = mem_alloc(capacity * sizeof(*queue));
        for (uint32_t i = 0; i < index->link_count; i++)
            queue[i] = index->link_queue[(index->link_first + i) & (index->link_capacity - 1)];
        mem_free(index->link_queue);
        index->link_queue = queue;
        index->link_first = 0;
        index->link_capacity = capacity;
    }
    index->link_queue[(index->link_first + index->link_count++) & (index->link_capacity - 1)] =
        slot;
}

static uint32_t pop(struct index *index)
{
    uint32_t slot = index->link_queue[index->link_first];
    index->link_first = (index->link_first + 1) & (index->link_capacity - 1);
    index->link_count--;
    if (index->backlog > 0)
        index->backlog--;
    if (index->link_count == 0 && index->link_capacity > QUEUE_CAPACITY_MIN) {
        mem_free(index->link_queue);
        index->link_queue = NULL;
        index->link_capacity = 0;
        index->link_first = 0;
    }
    return slot;
}

void index_link_put(struct index *index, struct index_chunk *chunk, uint32_t slot)
{
    uint32_t place = index_place_of(index, slot);
    set_unlinked(chunk, place, true);
    (void)atomic_fetch_add_explicit(&index->unlinked_count, 1, memory_order_relaxed);
    chunk->links[place] = INDEX_UNLINKED;
    if (atomic_load_explicit(&index->graph, memory_order_relaxed) == NULL)
        return;
    chunk->links[place] = INDEX_QUEUED;
    push(index, slot);
}

bool index_link_forget(struct index *index, struct index_chunk *chunk, uint32_t slot)
{
    uint32_t place = index_place_of(index, slot);
    switch ((enum index_link_state)chunk->links[place]) {
    case INDEX_LINKED:
        graph_remove(atomic_load_explicit(&index->graph, memory_order_relaxed), slot);
        return false;
    case INDEX_QUEUED:
        // Nobody sees it any more; only its place in the queue keeps the slot.
        chunk->links[place] = INDEX_LEFT;
        mark_linked(index, chunk, place);
        return false;
    case INDEX_UNLINKED:
    case INDEX_LEFT:
        break;
    }
    uint64_t bit = UINT64_C(1) << place % INDEX_BLOCK;
    if ((atomic_load_explicit(&chunk->blocks[place / INDEX_BLOCK].unlinked, memory_order_relaxed) &
         bit) != 0)
        mark_linked(index, chunk, place);
    return true;
}

void index_link_destroy(struct index *index)
{
    graph_destroy(atomic_load(&index->graph));
    tuner_destroy(atomic_load(&index->tuner));
    mem_free(index->link_queue);
}

// --- Beginning

// Points that stand for all: evenly from all slots.
static struct quantizer_sample take_sample(const struct index *index, const float **vectors)
{
    struct quantizer_sample sample = {.vectors = vectors};
    uint32_t slots = atomic_load_explicit(&index->slot_count, memory_order_relaxed);
    uint32_t step = slots / QUANTIZER_SAMPLE_MAX + 1;
    for (uint32_t slot = 0; slot < slots; slot += step) {
        const struct index_chunk *chunk = chunk_of(index, slot);
        uint32_t place = index_place_of(index, slot);
        if (atomic_load_explicit(&chunk->born[place], memory_order_relaxed) != 0 &&
            !is_removed(chunk, place))
            vectors[sample.count++] = chunk->vectors + (size_t)place * index->stride;
    }
    return sample;
}

static bool is_worth_linking(const struct index *index)
{
    uint64_t points = index_point_count(index);
    if (index->options.graph_points_min > 0)
        return points >= index->options.graph_points_min;
    return points >= LINK_POINTS_MIN && points * index->stride >= LINK_FLOATS_MIN;
}

// False: no memory; everything is scanned as before.
static bool begin(struct index *index)
{
    const float **vectors = mem_alloc(QUANTIZER_SAMPLE_MAX * sizeof(*vectors));
    struct quantizer_sample sample = take_sample(index, vectors);
    uint32_t slots = atomic_load_explicit(&index->slot_count, memory_order_relaxed);
    struct graph *graph = NULL;
    if (sample.count > 0)
        graph = graph_create(&(struct graph_options){.distance = index->options.distance,
                                                     .dimension = index->options.dimension,
                                                     .epoch = &index->epoch,
                                                     .build_width = index->options.build_width},
                             &sample);
    mem_free(vectors);
    uint64_t room = (uint64_t)index->chunk_count * index->chunk_slots;
    if (graph == NULL || graph_reserve(graph, (uint32_t)room) != STATUS_OK) {
        graph_destroy(graph);
        return false;
    }
    for (uint32_t slot = 0; slot < slots; slot++) {
        struct index_chunk *chunk = chunk_of(index, slot);
        uint32_t place = index_place_of(index, slot);
        if (atomic_load_explicit(&chunk->born[place], memory_order_relaxed) == 0 ||
            is_removed(chunk, place))
            continue;
        chunk->links[place] = INDEX_QUEUED;
        push(index, slot);
    }
    index->backlog = index->link_count;
    index->learned_count = index_point_count(index);
    atomic_store(&index->tuner, tuner_create(index->options.dimension));
    atomic_store(&index->graph, graph);
    return true;
}

static void learn(struct index *index, struct graph *graph)
{
    const float **vectors = mem_alloc(QUANTIZER_SAMPLE_MAX * sizeof(*vectors));
    struct quantizer_sample sample = take_sample(index, vectors);
    // Without memory the codes stay as they are, which is less exact and not wrong.
    if (sample.count > 0)
        (void)graph_learn(graph, &sample, vector_of, index);
    mem_free(vectors);
    index->learned_count = index_point_count(index);
}

void index_link_restore(struct index *index, struct graph *graph, uint64_t learned_count)
{
    uint32_t slots = index_slot_count(index);
    atomic_store(&index->tuner, tuner_create(index->options.dimension));
    atomic_store(&index->graph, graph);
    index->learned_count = learned_count;
    for (uint32_t slot = 0; slot < slots; slot++) {
        struct index_chunk *chunk = chunk_of(index, slot);
        uint32_t place = index_place_of(index, slot);
        if (atomic_load_explicit(&chunk->born[place], memory_order_relaxed) == 0 ||
            is_removed(chunk, place) || chunk->links[place] != INDEX_UNLINKED)
            continue;
        chunk->links[place] = INDEX_QUEUED;
        push(index, slot);
    }
    index->backlog = index->link_count;
}

uint64_t index_change_count(const struct index *index)
{
    return index->change_count;
}

bool index_has_graph(const struct index *index)
{
    return atomic_load_explicit(&index->graph, memory_order_relaxed) != NULL;
}

// --- Working

static void link_next(struct index *index, struct graph *graph)
{
    uint32_t slot = pop(index);
    struct index_chunk *chunk = chunk_of(index, slot);
    uint32_t place = index_place_of(index, slot);
    if (chunk->links[place] == INDEX_LEFT) {
        index_retire(index, slot);
        return;
    }
    ASSERT(chunk->links[place] == INDEX_QUEUED);
    // A removed point may still show in a view, which scans it.
    if (is_removed(chunk, place)) {
        chunk->links[place] = INDEX_UNLINKED;
        return;
    }
    graph_insert(graph, slot, index_vector(index, slot));
    chunk->links[place] = INDEX_LINKED;
    mark_linked(index, chunk, place);
}

static bool must_sweep(const struct graph *graph)
{
    uint32_t removed = graph_removed_count(graph);
    return removed >= SWEEP_POINTS_MIN && removed >= graph_point_count(graph) / SWEEP_PART;
}

static void sweep(struct index *index, struct graph *graph)
{
    if (!graph_is_sweeping(graph))
        graph_sweep_begin(graph);
    if (graph_sweep_step(graph, SWEEP_ROWS))
        return;
    uint32_t count = 0;
    const uint32_t *released = graph_released(graph, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct index_chunk *chunk = chunk_of(index, released[i]);
        chunk->links[index_place_of(index, released[i])] = INDEX_UNLINKED;
        index_retire(index, released[i]);
    }
}

// All is linked. A repaired link can be another's loss, so it is done again until nobody is lost.
static void look_over(struct index *index, struct graph *graph)
{
    uint64_t changes = index->change_count - index->checked_changes;
    if (changes < CHECK_CHANGES_MIN || changes < graph_point_count(graph) / CHECK_PART)
        return;
    index->checked_changes = index->change_count;
    uint64_t lost = graph_repair(graph);
    for (uint32_t i = 0; i < REPAIRS_MAX && lost > 0; i++) {
        (void)atomic_fetch_add(&index->found_count, lost);
        lost = graph_repair(graph);
    }
    atomic_store(&index->lost_count, lost);
}

bool index_wants_link(const struct index *index)
{
    const struct tuner *tuner = atomic_load_explicit(&index->tuner, memory_order_acquire);
    return index_unlinked_count(index) > 0 ||
           (tuner != NULL && tuner_wants(tuner, index_point_count(index)));
}

struct index_effort index_effort(const struct index *index)
{
    const struct tuner *tuner = atomic_load_explicit(&index->tuner, memory_order_acquire);
    if (tuner == NULL)
        return (struct index_effort){.recall = 1};
    return (struct index_effort){
        .stop = tuner_effort(tuner).stop,
        .rescored = tuner_effort(tuner).rescored,
        .recall = (float)atomic_load_explicit(&tuner->recall, memory_order_relaxed) / 10000};
}

uint64_t index_lost_count(const struct index *index)
{
    return atomic_load_explicit(&index->lost_count, memory_order_relaxed);
}

uint64_t index_found_count(const struct index *index)
{
    return atomic_load_explicit(&index->found_count, memory_order_relaxed);
}

bool index_link(struct index *index, uint32_t count)
{
    ASSERT(index->pending_count == 0);
    index_reclaim(index);
    struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    if (graph == NULL) {
        if (!is_worth_linking(index) || !begin(index))
            return false;
        graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    }
    graph_forget_old(graph);
    if (index_point_count(index) / LEARN_FACTOR > index->learned_count)
        learn(index, graph);
    for (; count > 0; count--) {
        if (graph_is_sweeping(graph) || must_sweep(graph))
            sweep(index, graph);
        else if (index->link_count > 0)
            link_next(index, graph);
        else
            break;
    }
    if (count == 0)
        return true;
    look_over(index, graph);
    struct tuner *tuner = atomic_load_explicit(&index->tuner, memory_order_relaxed);
    return tuner_wants(tuner, index_point_count(index)) && tuner_step(tuner, index);
}

bool index_is_behind(const struct index *index)
{
    uint64_t most = TAIL_FLOATS_MAX / index->stride;
    if (most > TAIL_POINTS_MAX)
        most = TAIL_POINTS_MAX;
    if (most < TAIL_POINTS_MIN)
        most = TAIL_POINTS_MIN;
    const struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    if (graph == NULL)
        return index_point_count(index) > most && is_worth_linking(index);
    return index->link_count - index->backlog > most ||
           graph_removed_count(graph) > most + graph_point_count(graph) / 4;
}

uint64_t index_unlinked_count(const struct index *index)
{
    return atomic_load_explicit(&index->unlinked_count, memory_order_relaxed);
}

enum status index_check(const struct index *index, struct error *error)
{
    const struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    return graph == NULL ? STATUS_OK : graph_check(graph, error);
}
