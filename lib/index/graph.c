#include "index/graph.h"

#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/mem.h"
#include "index/graph_internal.h"

// Life cycle, memory, insertion and search. Codes and links are mapped for many more slots than
// there are: pages that nothing was written to cost nothing, and arrays that do not move need no
// table on the way to a row. When they are full, larger ones are made and the old ones stay until
// all readers have left.

enum {
    CAPACITY_FIRST = 1 << 20, // slots
    CAPACITY_LEAST = 1 << 14, // when the system gives no more address space
    CAPACITY_FACTOR = 4,
};

// --- Which slots are in which layer

// A mix of two words; any would do that spreads them. (Murmur3's finalizer.)
static uint32_t mix(uint32_t level, uint32_t group)
{
    uint32_t word = group * 0x9e3779b1U + level * 0x85ebca6bU;
    word ^= word >> 16;
    word *= 0x85ebca6bU;
    word ^= word >> 13;
    word *= 0xc2b2ae35U;
    word ^= word >> 16;
    return word;
}

// Of each group of 16 rows of the layer below, one is in this layer. Which one follows no pattern
// that the order of points could have.
static uint32_t chosen_of(uint32_t level, uint32_t group)
{
    return group << GRAPH_LEVEL_SHIFT | (mix(level, group) & ((1 << GRAPH_LEVEL_SHIFT) - 1));
}

uint32_t graph_level_of(uint32_t slot)
{
    uint32_t level = 0;
    uint32_t row = slot;
    while (level + 1 < GRAPH_LEVELS_MAX && chosen_of(level + 1, row >> GRAPH_LEVEL_SHIFT) == row) {
        level++;
        row >>= GRAPH_LEVEL_SHIFT;
    }
    return level;
}

uint32_t graph_slot_of_row(uint32_t level, uint32_t row)
{
    for (; level > 0; level--)
        row = chosen_of(level, row);
    return row;
}

struct beam_layer graph_layer(const struct graph_links *links, uint32_t level)
{
    return (struct beam_layer){.links = links->rows[level],
                               .degree = graph_degree(level),
                               .shift = level * GRAPH_LEVEL_SHIFT};
}

struct beam_layer graph_layer_of(const struct graph *graph, uint32_t level)
{
    return graph_layer(atomic_load_explicit(&graph->links, memory_order_relaxed), level);
}

// --- Memory

static void *map_lazily(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    // Advice: a kernel without huge pages does without.
    (void)madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

static struct graph_codes *create_codes(struct quantizer *quantizer, uint32_t capacity)
{
    uint32_t size = quantizer_code_size(quantizer);
    size_t mapping_size = (size_t)size * capacity;
    uint8_t *memory = map_lazily(mapping_size);
    if (memory == NULL)
        return NULL;
    struct graph_codes *codes = mem_alloc(sizeof(*codes));
    *codes = (struct graph_codes){.quantizer = quantizer,
                                  .first = memory,
                                  .size = size,
                                  .capacity = capacity,
                                  .mapping_size = mapping_size};
    return codes;
}

static size_t rows_size(uint32_t level, uint32_t capacity)
{
    size_t rows = ((size_t)capacity >> (level * GRAPH_LEVEL_SHIFT)) + 1;
    return rows * graph_degree(level) * sizeof(uint32_t);
}

static struct graph_links *create_links(uint32_t capacity)
{
    size_t offsets[GRAPH_LEVELS_MAX];
    size_t size = 0;
    for (uint32_t level = 0; level < GRAPH_LEVELS_MAX; level++) {
        offsets[level] = size;
        size += (rows_size(level, capacity) + BEAM_ALIGNMENT) / BEAM_ALIGNMENT * BEAM_ALIGNMENT;
    }
    char *memory = map_lazily(size);
    if (memory == NULL)
        return NULL;
    struct graph_links *links = mem_alloc(sizeof(*links));
    *links = (struct graph_links){.capacity = capacity, .mapping = memory, .mapping_size = size};
    memcpy(links->offsets, offsets, sizeof(offsets));
    for (uint32_t level = 0; level < GRAPH_LEVELS_MAX; level++)
        links->rows[level] = (void *)(memory + offsets[level]);
    return links;
}

static void destroy_codes(struct graph_codes *codes, bool with_quantizer)
{
    if (codes == NULL)
        return;
    if (with_quantizer)
        quantizer_destroy(codes->quantizer);
    (void)munmap(codes->first, codes->mapping_size);
    mem_free(codes);
}

static void destroy_links(struct graph_links *links)
{
    if (links == NULL)
        return;
    (void)munmap(links->mapping, links->mapping_size);
    mem_free(links);
}

static void destroy_old(struct graph_old *old, const struct graph_codes *current)
{
    bool with_quantizer =
        old->codes != NULL && (current == NULL || old->codes->quantizer != current->quantizer);
    destroy_codes(old->codes, with_quantizer);
    destroy_links(old->links);
    mem_free(old);
}

void graph_forget_old(struct graph *graph)
{
    if (graph->old == NULL)
        return;
    uint64_t passed = epoch_passed(graph->options.epoch);
    struct graph_old **end = &graph->old;
    while (*end != NULL) {
        struct graph_old *old = *end;
        if (old->ticket >= passed) {
            end = &old->next;
            continue;
        }
        *end = old->next;
        destroy_old(old, graph_codes_of(graph));
    }
}

static void retire(struct graph *graph, struct graph_codes *codes, struct graph_links *links)
{
    struct graph_old *old = mem_alloc(sizeof(*old));
    *old = (struct graph_old){.codes = codes,
                              .links = links,
                              .ticket = epoch_ticket(graph->options.epoch),
                              .next = graph->old};
    graph->old = old;
}

// The writer's arrays; new places are zero.
static void grow_arrays(struct graph *graph, uint32_t capacity)
{
    size_t old_words = ((size_t)graph->capacity + 63) / 64;
    size_t words = ((size_t)capacity + 63) / 64;
    graph->linked = mem_resize(graph->linked, words * sizeof(uint64_t));
    graph->removed = mem_resize(graph->removed, words * sizeof(uint64_t));
    graph->swept = mem_resize(graph->swept, words * sizeof(uint64_t));
    graph->in_counts = mem_resize(graph->in_counts, (size_t)capacity * sizeof(uint16_t));
    memset(graph->linked + old_words, 0, (words - old_words) * sizeof(uint64_t));
    memset(graph->removed + old_words, 0, (words - old_words) * sizeof(uint64_t));
    memset(graph->swept + old_words, 0, (words - old_words) * sizeof(uint64_t));
    memset(graph->in_counts + graph->capacity, 0,
           (size_t)(capacity - graph->capacity) * sizeof(uint16_t));
    graph->capacity = capacity;
}

static enum status grow_mappings(struct graph *graph, uint32_t wanted)
{
    struct graph_codes *old_codes = graph_codes_of(graph);
    struct graph_links *old_links = atomic_load_explicit(&graph->links, memory_order_relaxed);
    uint64_t capacity = old_codes->capacity;
    while (capacity < wanted)
        capacity *= CAPACITY_FACTOR;
    if (capacity > GRAPH_SLOTS_MAX)
        capacity = GRAPH_SLOTS_MAX;
    struct graph_codes *codes = create_codes(old_codes->quantizer, (uint32_t)capacity);
    struct graph_links *links = create_links((uint32_t)capacity);
    if (codes == NULL || links == NULL) {
        destroy_codes(codes, false);
        destroy_links(links);
        return STATUS_EXHAUSTED;
    }
    uint32_t used = atomic_load_explicit(&graph->slot_count, memory_order_relaxed);
    memcpy(codes->first, old_codes->first, (size_t)used * codes->size);
    for (uint32_t level = 0; level < GRAPH_LEVELS_MAX; level++)
        memcpy(links->mapping + links->offsets[level],
               old_links->mapping + old_links->offsets[level], rows_size(level, used));
    atomic_store(&graph->codes, codes);
    atomic_store(&graph->links, links);
    retire(graph, old_codes, old_links);
    return STATUS_OK;
}

enum status graph_reserve(struct graph *graph, uint32_t slot_count)
{
    if (slot_count > GRAPH_SLOTS_MAX)
        return STATUS_EXHAUSTED;
    if (slot_count > graph_codes_of(graph)->capacity)
        TRY(grow_mappings(graph, slot_count));
    if (slot_count > graph->capacity) {
        uint64_t capacity = (uint64_t)graph->capacity + graph->capacity / 4 + 4096;
        grow_arrays(graph, capacity < slot_count ? slot_count : (uint32_t)capacity);
    }
    return beam_reserve(&graph->beam, graph->options.build_width, slot_count,
                        graph_codes_of(graph)->size);
}

// Takes over the quantizer. NULL: no memory, and it is the caller's.
static struct graph *create(const struct graph_options *options, struct quantizer *quantizer)
{
    struct graph_codes *codes = NULL;
    struct graph_links *links = NULL;
    for (uint32_t capacity = CAPACITY_FIRST; capacity >= CAPACITY_LEAST; capacity /= 4) {
        codes = create_codes(quantizer, capacity);
        links = create_links(capacity);
        if (codes != NULL && links != NULL)
            break;
        destroy_codes(codes, false);
        destroy_links(links);
        codes = NULL;
        links = NULL;
    }
    if (codes == NULL)
        return NULL;
    struct graph *graph = mem_alloc(sizeof(*graph));
    graph->options = *options;
    if (graph->options.build_width == 0)
        graph->options.build_width = GRAPH_BUILD_WIDTH;
    atomic_init(&graph->codes, codes);
    atomic_init(&graph->links, links);
    atomic_init(&graph->entry, GRAPH_NO_ENTRY);
    beam_init(&graph->beam);
    return graph;
}

struct graph *graph_create(const struct graph_options *options,
                           const struct quantizer_sample *sample)
{
    struct quantizer *quantizer = quantizer_create(options->distance, options->dimension, sample);
    struct graph *graph = create(options, quantizer);
    if (graph == NULL)
        quantizer_destroy(quantizer);
    return graph;
}

struct graph *graph_restore(const struct graph_options *options, struct quantizer *quantizer,
                            uint32_t slot_count)
{
    struct graph *graph = create(options, quantizer);
    if (graph == NULL || graph_reserve(graph, slot_count) == STATUS_OK) {
        if (graph != NULL)
            atomic_store(&graph->slot_count, slot_count);
        return graph;
    }
    // Not the quantizer.
    graph_codes_of(graph)->quantizer = NULL;
    graph_destroy(graph);
    return NULL;
}

void graph_destroy(struct graph *graph)
{
    if (graph == NULL)
        return;
    struct graph_codes *codes = graph_codes_of(graph);
    while (graph->old != NULL) {
        struct graph_old *old = graph->old;
        graph->old = old->next;
        destroy_old(old, codes);
    }
    destroy_codes(codes, true);
    destroy_links(atomic_load(&graph->links));
    beam_deinit(&graph->beam);
    mem_free(graph->linked);
    mem_free(graph->removed);
    mem_free(graph->swept);
    mem_free(graph->in_counts);
    mem_free(graph->removed_slots);
    mem_free(graph->low_slots);
    mem_free(graph->sweep.slots);
    mem_free(graph->candidates);
    mem_free(graph);
}

// --- Changes

static void clear_rows(struct graph *graph, uint32_t slot, uint32_t level)
{
    for (uint32_t i = 0; i <= level; i++) {
        struct beam_layer layer = graph_layer_of(graph, i);
        _Atomic uint32_t *row = beam_row(&layer, slot);
        for (uint32_t k = 0; k < layer.degree; k++)
            atomic_store_explicit(&row[k], LINK_NONE, memory_order_relaxed);
    }
}

static uint32_t descend(struct graph *graph, uint32_t from, uint32_t entry)
{
    const struct graph_codes *codes = graph_codes_of(graph);
    const struct beam_search search = {
        .codes = {codes->first, codes->size},
        .layer = graph_layer_of(graph, from),
        .slot_count = atomic_load_explicit(&graph->slot_count, memory_order_relaxed),
        .entry = entry,
    };
    return beam_descend(&graph->beam, &search);
}

void graph_insert(struct graph *graph, uint32_t slot, const float *vector)
{
    ASSERT(slot < graph->capacity && !graph_bit(graph->linked, slot));
    struct graph_codes *codes = graph_codes_of(graph);
    uint8_t *code = codes->first + (size_t)codes->size * slot;
    (void)quantizer_encode(codes->quantizer, vector, code);
    uint32_t level = graph_level_of(slot);
    clear_rows(graph, slot, level);
    if (slot >= atomic_load_explicit(&graph->slot_count, memory_order_relaxed))
        atomic_store_explicit(&graph->slot_count, slot + 1, memory_order_release);
    graph->in_counts[slot] = 0;

    uint64_t entry = atomic_load_explicit(&graph->entry, memory_order_relaxed);
    if (entry != GRAPH_NO_ENTRY) {
        uint32_t top = (uint32_t)(entry >> 32);
        uint32_t nearest = (uint32_t)entry;
        memcpy(graph->beam.query, code, codes->size);
        for (; top > level; top--)
            nearest = descend(graph, top, nearest);
        for (uint32_t i = top + 1; i > 0; i--)
            nearest = graph_connect(graph, i - 1, slot, nearest);
    }
    graph_set_bit(graph->linked, slot, true);
    if (entry == GRAPH_NO_ENTRY || (uint32_t)(entry >> 32) < level)
        atomic_store_explicit(&graph->entry, (uint64_t)level << 32 | slot, memory_order_release);
    (void)atomic_fetch_add_explicit(&graph->point_count, 1, memory_order_relaxed);
}

void graph_remove(struct graph *graph, uint32_t slot)
{
    ASSERT(graph_bit(graph->linked, slot) && !graph_bit(graph->removed, slot));
    graph_set_bit(graph->removed, slot, true);
    if (graph->removed_count == graph->removed_capacity) {
        graph->removed_capacity = graph->removed_capacity == 0 ? 64 : graph->removed_capacity * 2;
        graph->removed_slots =
            mem_resize(graph->removed_slots, graph->removed_capacity * sizeof(uint32_t));
    }
    graph->removed_slots[graph->removed_count++] = slot;
    (void)atomic_fetch_sub_explicit(&graph->point_count, 1, memory_order_relaxed);
}

enum status graph_learn(struct graph *graph, const struct quantizer_sample *sample,
                        const float *(*vector_of)(void *context, uint32_t slot), void *context)
{
    struct graph_codes *old = graph_codes_of(graph);
    struct quantizer *quantizer =
        quantizer_create(graph->options.distance, graph->options.dimension, sample);
    struct graph_codes *codes = create_codes(quantizer, old->capacity);
    if (codes == NULL) {
        quantizer_destroy(quantizer);
        return STATUS_EXHAUSTED;
    }
    uint32_t used = atomic_load_explicit(&graph->slot_count, memory_order_relaxed);
    for (uint32_t slot = 0; slot < used; slot++) {
        if (graph_bit(graph->linked, slot))
            (void)quantizer_encode(quantizer, vector_of(context, slot),
                                   codes->first + (size_t)codes->size * slot);
    }
    atomic_store(&graph->codes, codes);
    retire(graph, old, NULL);
    return STATUS_OK;
}

// --- Questions

uint32_t graph_point_count(const struct graph *graph)
{
    return atomic_load_explicit(&graph->point_count, memory_order_relaxed);
}

uint64_t graph_point_size(enum distance distance, uint32_t dimension)
{
    // The layers above have 1/16 + 1/256 + … = 1/15 as many rows, and the writer keeps two bits
    // and a count.
    return quantizer_code_size_for(distance, dimension) + GRAPH_DEGREE * sizeof(uint32_t) +
           GRAPH_UPPER_DEGREE * sizeof(uint32_t) / 15 + sizeof(uint16_t) + 1;
}

uint64_t graph_memory_size(const struct graph *graph)
{
    uint64_t slots = atomic_load_explicit(&graph->slot_count, memory_order_relaxed);
    return slots * graph_point_size(graph->options.distance, graph->options.dimension);
}

enum status graph_search(const struct graph *graph, struct beam *beam,
                         const struct graph_search *search)
{
    beam->count = 0;
    // In this order: the writer counts a slot before the entry can be it, and makes arrays larger
    // before it counts a slot that needs them.
    uint64_t entry = atomic_load_explicit(&graph->entry, memory_order_acquire);
    uint32_t slot_count = atomic_load_explicit(&graph->slot_count, memory_order_acquire);
    const struct graph_links *links = atomic_load(&graph->links);
    const struct graph_codes *codes = atomic_load(&graph->codes);
    if (entry == GRAPH_NO_ENTRY)
        return STATUS_OK;
    TRY(beam_reserve(beam, search->width, slot_count, codes->size));
    (void)quantizer_encode_query(codes->quantizer, search->vector, beam->query);
    struct beam_search step = {
        .codes = {codes->first, codes->size},
        .slot_count = slot_count,
        .entry = (uint32_t)entry,
        .width = search->width,
        .breadth = BEAM_BREADTH_MAX,
        .k = search->k,
        .stop = search->stop,
        .has_excluded = search->has_excluded,
        .excluded = search->excluded,
        .noise = (int32_t)quantizer_noise(codes->quantizer),
    };
    for (uint32_t level = (uint32_t)(entry >> 32); level > 0; level--) {
        step.layer = graph_layer(links, level);
        step.entry = beam_descend(beam, &step);
    }
    step.layer = graph_layer(links, 0);
    beam_run(beam, &step);
    return STATUS_OK;
}
