#include "index/index.h"

#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/image.h"
#include "index/index_internal.h"

enum {
    CHUNK_SIZE = 4 << 20, // bytes of vectors, about
    CHUNK_SLOTS_MAX = 1 << 16,
    DIRECTORY_CAPACITY_MIN = 4,
    RETIRED_CAPACITY_MIN = 64,
};

#define NEVER     UINT64_MAX
#define SLOTS_MAX GRAPH_SLOTS_MAX

// --- Life cycle

static struct index_directory *create_directory(uint32_t capacity)
{
    struct index_directory *directory =
        mem_alloc(sizeof(*directory) + capacity * sizeof(directory->chunks[0]));
    directory->capacity = capacity;
    return directory;
}

struct index *index_create(const struct index_options *options)
{
    ASSERT(options->dimension > 0 && options->dimension <= LIMIT_DIMENSION_MAX);
    char *memory = mem_alloc(sizeof(struct index) + EPOCH_CACHE_LINE);
    size_t over = (uintptr_t)memory % EPOCH_CACHE_LINE;
    struct index *index = (void *)(memory + (over > 0 ? EPOCH_CACHE_LINE - over : 0));
    index->memory = memory;
    index->options = *options;
    // Rows of whole 16 bytes: memory is what bounds a scan, so padding to whole cache lines would
    // cost more than loads that cross them.
    index->stride = (options->dimension + 3) / 4 * 4;
    index->chunk_slots = INDEX_BLOCK;
    while (index->chunk_slots < CHUNK_SLOTS_MAX &&
           (size_t)index->chunk_slots * 2 * index->stride * sizeof(float) <= CHUNK_SIZE)
        index->chunk_slots *= 2;
    index->chunk_shift = (uint32_t)__builtin_ctz(index->chunk_slots);
    epoch_init(&index->epoch);
    atomic_init(&index->directory, create_directory(DIRECTORY_CAPACITY_MIN));
    return index;
}

void index_destroy(struct index *index)
{
    if (index == NULL)
        return;
    struct index_directory *directory = atomic_load(&index->directory);
    uint32_t left = atomic_load(&index->slot_count);
    for (uint32_t i = 0; i < index->chunk_count; i++) {
        uint32_t used = left < index->chunk_slots ? left : index->chunk_slots;
        index_chunk_destroy(index, directory->chunks[i], used);
        left -= used;
    }
    for (uint32_t i = 0; i < index->old_directory_count; i++)
        mem_free(index->old_directories[i]);
    mem_free(directory);
    mem_free(index->free_slots);
    mem_free(index->retired);
    index_link_destroy(index);
    index_search_deinit(index);
    mem_free(index->memory);
}

// --- Slots that are free again

static void push_free(struct index *index, uint32_t slot)
{
    if (index->free_count == index->free_capacity) {
        index->free_capacity =
            index->free_capacity == 0 ? RETIRED_CAPACITY_MIN : index->free_capacity * 2;
        index->free_slots =
            mem_resize(index->free_slots, index->free_capacity * sizeof(index->free_slots[0]));
    }
    index->free_slots[index->free_count++] = slot;
}

static struct index_retired_slot *retired_at(struct index *index, uint32_t place)
{
    return &index->retired[(index->retired_first + place) & (index->retired_capacity - 1)];
}

static void grow_retired(struct index *index)
{
    uint32_t capacity =
        index->retired_capacity == 0 ? RETIRED_CAPACITY_MIN : index->retired_capacity * 2;
    struct index_retired_slot *retired = mem_alloc(capacity * sizeof(*retired));
    for (uint32_t i = 0; i < index->retired_count; i++)
        retired[i] = *retired_at(index, i);
    mem_free(index->retired);
    index->retired = retired;
    index->retired_first = 0;
    index->retired_capacity = capacity;
}

static void push_retired(struct index *index, uint32_t slot, uint64_t ticket)
{
    if (index->retired_count == index->retired_capacity)
        grow_retired(index);
    index->retired_count++;
    *retired_at(index, index->retired_count - 1) =
        (struct index_retired_slot){.slot = slot, .ticket = ticket};
}

void index_retire(struct index *index, uint32_t slot)
{
    ASSERT(index->pending_count == 0); // the ring is in the order of tickets
    push_retired(index, slot, epoch_ticket(&index->epoch));
}

static void forget_directories(struct index *index, uint64_t passed)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < index->old_directory_count; i++) {
        if (index->old_tickets[i] < passed) {
            mem_free(index->old_directories[i]);
        } else {
            index->old_directories[kept] = index->old_directories[i];
            index->old_tickets[kept++] = index->old_tickets[i];
        }
    }
    index->old_directory_count = kept;
}

// Take back the slots that nobody can see any more. From those that the graph holds, it is told
// here; they come again.
void index_reclaim(struct index *index)
{
    if (index->retired_count == index->pending_count && index->old_directory_count == 0)
        return;
    uint64_t passed = epoch_passed(&index->epoch);
    struct index_directory *directory = atomic_load(&index->directory);
    while (index->retired_count > index->pending_count) {
        const struct index_retired_slot *retired = retired_at(index, 0);
        if (retired->ticket >= passed)
            break;
        uint32_t slot = retired->slot;
        index->retired_first = (index->retired_first + 1) & (index->retired_capacity - 1);
        index->retired_count--;
        struct index_chunk *chunk = index_chunk_of(index, directory, slot);
        if (!index_link_forget(index, chunk, slot))
            continue;
        size_t size = index_id_cell_clear(&chunk->ids[index_place_of(index, slot)]);
        (void)atomic_fetch_sub(&index->memory_size, size);
        push_free(index, slot);
    }
    forget_directories(index, passed);
}

// --- Changes

static void grow_directory(struct index *index)
{
    struct index_directory *old = atomic_load(&index->directory);
    struct index_directory *directory = create_directory(old->capacity * 2);
    memcpy(directory->chunks, old->chunks, index->chunk_count * sizeof(directory->chunks[0]));
    atomic_store(&index->directory, directory);
    ASSERT(index->old_directory_count < 32);
    index->old_directories[index->old_directory_count] = old;
    index->old_tickets[index->old_directory_count++] = epoch_ticket(&index->epoch);
}

enum status index_reserve(struct index *index, uint32_t put_count)
{
    index_reclaim(index);
    if (put_count <= index->free_count)
        return STATUS_OK;
    uint64_t wanted = (uint64_t)atomic_load(&index->slot_count) + (put_count - index->free_count);
    if (wanted > SLOTS_MAX)
        return STATUS_EXHAUSTED;
    while ((uint64_t)index->chunk_count * index->chunk_slots < wanted) {
        if (index->chunk_count == atomic_load(&index->directory)->capacity)
            grow_directory(index);
        struct index_chunk *chunk = index_chunk_create(index, index->chunk_count == 0);
        if (chunk == NULL)
            return STATUS_EXHAUSTED;
        atomic_load(&index->directory)->chunks[index->chunk_count++] = chunk;
    }
    struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    if (graph != NULL)
        return graph_reserve(graph, (uint32_t)wanted);
    return STATUS_OK;
}

static uint64_t slot_size(const struct index *index)
{
    return index->stride * sizeof(float) + 2 * sizeof(uint64_t) + sizeof(struct index_id_cell) +
           sizeof(struct index_block) / INDEX_BLOCK + sizeof(uint8_t) +
           (index->options.distance == DISTANCE_EUCLIDEAN ? 0 : sizeof(float));
}

uint64_t index_growth_size(const struct index *index, uint32_t put_count)
{
    if (put_count <= index->free_count)
        return 0;
    uint64_t size =
        slot_size(index) + graph_point_size(index->options.distance, index->options.dimension);
    return (put_count - index->free_count) * size;
}

static uint32_t take_slot(struct index *index)
{
    if (index->free_count > 0)
        return index->free_slots[--index->free_count];
    uint32_t slot = atomic_load_explicit(&index->slot_count, memory_order_relaxed);
    ASSERT(slot < (uint64_t)index->chunk_count * index->chunk_slots);
    atomic_store_explicit(&index->slot_count, slot + 1, memory_order_release);
    (void)atomic_fetch_add(&index->memory_size, slot_size(index));
    return slot;
}

static void set_changed(struct index_block *block, uint64_t sequence)
{
    if (atomic_load_explicit(&block->changed, memory_order_relaxed) < sequence)
        atomic_store_explicit(&block->changed, sequence, memory_order_relaxed);
}

// All of a point but its place on the way into the graph.
static struct index_chunk *fill_slot(struct index *index, uint32_t slot, struct str id,
                                     const float *vector, uint64_t sequence)
{
    ASSERT(sequence > atomic_load_explicit(&index->sequence, memory_order_relaxed));
    struct index_chunk *chunk = index_chunk_of(index, atomic_load(&index->directory), slot);
    uint32_t place = index_place_of(index, slot);
    // Readers look at died before born: none finds the old birth with the new death.
    atomic_store_explicit(&chunk->born[place], NEVER, memory_order_relaxed);
    atomic_store_explicit(&chunk->died[place], NEVER, memory_order_release);
    float *row = chunk->vectors + (size_t)place * index->stride;
    memcpy(row, vector, index->options.dimension * sizeof(float));
    if (chunk->norms != NULL)
        chunk->norms[place] =
            index_norm_for(index->options.distance, vector, index->options.dimension);
    size_t size = index_id_cell_set(&chunk->ids[place], id);
    (void)atomic_fetch_add(&index->memory_size, size);
    atomic_store_explicit(&chunk->born[place], sequence, memory_order_release);
    return chunk;
}

static void show_slot(struct index *index, struct index_chunk *chunk, uint32_t slot,
                      uint64_t sequence)
{
    uint32_t place = index_place_of(index, slot);
    struct index_block *block = &chunk->blocks[place / INDEX_BLOCK];
    set_changed(block, sequence);
    (void)atomic_fetch_or_explicit(&block->live, UINT64_C(1) << place % INDEX_BLOCK,
                                   memory_order_release);
    index->points_coming++;
    index->change_count++;
}

uint32_t index_put(struct index *index, struct str id, const float *vector, uint64_t sequence)
{
    uint32_t slot = take_slot(index);
    struct index_chunk *chunk = fill_slot(index, slot, id, vector, sequence);
    index_link_put(index, chunk, slot);
    show_slot(index, chunk, slot, sequence);
    return slot;
}

// --- Restoring

enum status index_restore_slots(struct index *index, uint32_t slot_count)
{
    TRY(index_reserve(index, slot_count));
    atomic_store(&index->slot_count, slot_count);
    (void)atomic_fetch_add(&index->memory_size, slot_count * slot_size(index));
    return STATUS_OK;
}

void index_put_at(struct index *index, uint32_t slot, struct str id, const float *vector,
                  uint64_t sequence)
{
    struct index_chunk *chunk = fill_slot(index, slot, id, vector, sequence);
    chunk->links[index_place_of(index, slot)] = INDEX_LINKED;
    show_slot(index, chunk, slot, sequence);
}

void index_restore_end(struct index *index, uint32_t slot_count)
{
    // From the back, so that the first are used first.
    for (uint32_t slot = slot_count; slot-- > 0;) {
        const struct index_chunk *chunk =
            index_chunk_of(index, atomic_load(&index->directory), slot);
        if (atomic_load_explicit(&chunk->born[index_place_of(index, slot)], memory_order_relaxed) ==
            0)
            push_free(index, slot);
    }
}

void index_remove(struct index *index, uint32_t slot, uint64_t sequence)
{
    ASSERT(sequence > atomic_load_explicit(&index->sequence, memory_order_relaxed));
    struct index_chunk *chunk = index_chunk_of(index, atomic_load(&index->directory), slot);
    uint32_t place = index_place_of(index, slot);
    ASSERT(atomic_load_explicit(&chunk->died[place], memory_order_relaxed) == NEVER);
    atomic_store_explicit(&chunk->died[place], sequence, memory_order_release);
    struct index_block *block = &chunk->blocks[place / INDEX_BLOCK];
    set_changed(block, sequence);
    (void)atomic_fetch_and_explicit(&block->live, ~(UINT64_C(1) << place % INDEX_BLOCK),
                                    memory_order_release);
    push_retired(index, slot, NEVER);
    index->pending_count++;
    index->points_coming--;
    index->change_count++;
}

void index_publish(struct index *index, uint64_t sequence)
{
    ASSERT(sequence > atomic_load_explicit(&index->sequence, memory_order_relaxed));
    atomic_store(&index->point_count, index->points_coming);
    atomic_store(&index->sequence, sequence);
    if (index->pending_count == 0)
        return;
    uint64_t ticket = epoch_ticket(&index->epoch);
    for (; index->pending_count > 0; index->pending_count--)
        retired_at(index, index->retired_count - index->pending_count)->ticket = ticket;
}

// --- Questions

uint64_t index_sequence(const struct index *index)
{
    return atomic_load(&index->sequence);
}

uint32_t index_slot_count(const struct index *index)
{
    return atomic_load_explicit(&index->slot_count, memory_order_relaxed);
}

uint32_t index_dimension(const struct index *index)
{
    return index->options.dimension;
}

enum distance index_distance(const struct index *index)
{
    return index->options.distance;
}

uint64_t index_point_count(const struct index *index)
{
    return atomic_load_explicit(&index->point_count, memory_order_relaxed);
}

uint64_t index_graph_size(const struct index *index)
{
    const struct graph *graph = atomic_load(&index->graph);
    if (graph == NULL)
        return 0;
    return graph_memory_size(graph) +
           index_unlinked_count(index) *
               graph_point_size(index->options.distance, index->options.dimension);
}

uint64_t index_memory_size(const struct index *index)
{
    return sizeof(*index) + atomic_load_explicit(&index->memory_size, memory_order_relaxed) +
           index_graph_size(index);
}

const float *index_vector(const struct index *index, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(index, atomic_load(&index->directory), slot);
    return chunk->vectors + (size_t)index_place_of(index, slot) * index->stride;
}

struct str index_id(const struct index *index, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(index, atomic_load(&index->directory), slot);
    return index_id_cell_get(&chunk->ids[index_place_of(index, slot)]);
}

// --- Views

void index_view_open(struct index *index, struct index_view *view)
{
    view->index = index;
    view->reader = epoch_enter(&index->epoch);
    view->sequence = atomic_load(&index->sequence);
    // In this order: the directory has every chunk that holds one of so many slots.
    view->slot_count = atomic_load(&index->slot_count);
    view->directory = atomic_load(&index->directory);
}

void index_view_close(struct index_view *view)
{
    epoch_leave(view->reader);
    *view = (struct index_view){0};
}

struct str index_view_id(const struct index_view *view, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(view->index, view->directory, slot);
    return index_id_cell_get(&chunk->ids[index_place_of(view->index, slot)]);
}

const float *index_view_vector(const struct index_view *view, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(view->index, view->directory, slot);
    return chunk->vectors + (size_t)index_place_of(view->index, slot) * view->index->stride;
}

uint64_t index_view_sequence(const struct index_view *view, uint32_t slot)
{
    const struct index_chunk *chunk = index_chunk_of(view->index, view->directory, slot);
    return atomic_load_explicit(&chunk->born[index_place_of(view->index, slot)],
                                memory_order_acquire);
}

// When nothing in the block has changed since the view's
// sequence, `live` says it: it is loaded first, and had it been stored by a later change, then
// `changed`, stored before it, would show that. Else each slot's own numbers decide; died is loaded
// before born because a slot that is used again gets a new born (not yet shown) before its died
// is taken back.
uint64_t index_visible_slots(const struct index_view *view, const struct index_chunk *chunk,
                             uint32_t block)
{
    const struct index_block *state = &chunk->blocks[block];
    uint64_t live = atomic_load_explicit(&state->live, memory_order_acquire);
    if (atomic_load_explicit(&state->changed, memory_order_acquire) <= view->sequence)
        return live;
    uint64_t visible = 0;
    for (uint32_t i = 0; i < INDEX_BLOCK; i++) {
        uint32_t place = block * INDEX_BLOCK + i;
        uint64_t died = atomic_load_explicit(&chunk->died[place], memory_order_acquire);
        uint64_t born = atomic_load_explicit(&chunk->born[place], memory_order_acquire);
        // A slot that was never used has 0 in both.
        if (born <= view->sequence && view->sequence < died)
            visible |= UINT64_C(1) << i;
    }
    return visible;
}
