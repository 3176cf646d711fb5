#pragma once

#include "index/epoch.h"
#include "index/graph.h"
#include "index/index.h"

// How points lie in memory, which the index and its searches share.
//
// A chunk holds a fixed number of slots (a power of two, at least one block of 64) and never moves;
// the directory of chunks is replaced when it grows. The arrays of a chunk are side by side in one
// mapping: what a scan reads (vectors, norms, blocks) is dense.

struct index_block {
    // The largest sequence under which something in this block changed, stored before the change
    // is.
    _Atomic uint64_t changed;
    // The slots that hold a point, as of `changed`.
    _Atomic uint64_t live;
    // The slots that hold a point, in some view, that the graph does not hold.
    _Atomic uint64_t unlinked;
};

// An id of at most 15 bytes lies in place, a longer one on the heap.
struct index_id_cell {
    uint8_t bytes[16];
};

struct index_chunk {
    float *vectors;
    struct index_block *blocks;
    // A slot's point shows in views with born <= sequence < died. UINT64_MAX: never.
    _Atomic uint64_t *born;
    _Atomic uint64_t *died;
    struct index_id_cell *ids;
    float *norms; // cosine: 1 / norm; dot: the norm; NULL for euclidean. See flat.c
    _Atomic uint64_t *unlinked_blocks; // a bit for each block whose `unlinked` is not 0
    uint8_t *links;                    // the writer's: an enum index_link_state for each slot
    void *mapping;
    size_t mapping_size;
};

struct index_directory {
    uint32_t capacity;
    struct index_chunk *chunks[]; // those behind the chunk of the last slot are NULL or empty
};

// Where a slot stands on its way into the graph and out of it.
enum index_link_state {
    INDEX_UNLINKED, // not in the graph, and not on the way
    INDEX_QUEUED,   // waits to be linked
    INDEX_LEFT,     // waits to be linked, but its point was removed and nobody sees it any more
    INDEX_LINKED,
};

struct index_retired_slot {
    uint32_t slot;
    uint64_t ticket;
};

struct index {
    struct epoch epoch; // first: it wants a cache line of its own
    struct index_options options;
    uint32_t stride;      // floats
    uint32_t chunk_slots; // a power of two
    uint32_t chunk_shift;

    // Stored by the writer, loaded by everybody.
    _Atomic uint32_t slot_count;
    _Atomic uint64_t sequence;
    struct index_directory *_Atomic directory;
    _Atomic uint64_t point_count;
    _Atomic uint64_t memory_size;

    // The writer's own.
    uint64_t points_coming; // point_count at the next publish
    uint32_t chunk_count;
    uint32_t free_count;
    uint32_t *free_slots;
    // Removed, in the order of their tickets; the last, pending, have none yet. A ring.
    struct index_retired_slot *retired;
    uint32_t free_capacity;
    uint32_t retired_first;
    uint32_t retired_count;
    uint32_t retired_capacity;
    uint32_t pending_count;
    uint32_t old_directory_count;
    struct index_directory *old_directories[32]; // it doubles: never more
    uint64_t old_tickets[32];
    // The graph; NULL while there are few points. What is to be linked, in the order of putting.
    struct graph *_Atomic graph;
    _Atomic uint64_t unlinked_count;
    struct tuner *_Atomic tuner; // with the graph
    uint32_t *link_queue;
    uint32_t link_first;
    uint32_t link_count;
    uint32_t link_capacity;   // a power of two
    uint32_t backlog;         // of what was there when the graph was begun
    uint64_t learned_count;   // points when the codes were learned
    uint64_t change_count;    // points put and removed
    uint64_t checked_changes; // of it when the graph was last looked over
    _Atomic uint64_t lost_count;
    _Atomic uint64_t found_count;
    void *memory; // what to free
};

static inline struct index_chunk *
index_chunk_of(const struct index *index, const struct index_directory *directory, uint32_t slot)
{
    return directory->chunks[slot >> index->chunk_shift];
}

static inline uint32_t index_place_of(const struct index *index, uint32_t slot)
{
    return slot & (index->chunk_slots - 1);
}

// NULL: no memory.
struct index_chunk *index_chunk_create(const struct index *index, bool is_first);
void index_chunk_destroy(const struct index *index, struct index_chunk *chunk, uint32_t used);

struct str index_id_cell_get(const struct index_id_cell *cell);
// Returns the bytes that it took on the heap.
size_t index_id_cell_set(struct index_id_cell *cell, struct str id);
size_t index_id_cell_clear(struct index_id_cell *cell); // what set returned

// Which slots of a block show in the view.
uint64_t index_visible_slots(const struct index_view *view, const struct index_chunk *chunk,
                             uint32_t block);

// index_link.c, for the writer. A slot was put; the slot's point was removed, and no view shows it
// any more: true when the slot is free, else it will be retired again.
void index_link_put(struct index *index, struct index_chunk *chunk, uint32_t slot);
bool index_link_forget(struct index *index, struct index_chunk *chunk, uint32_t slot);
void index_link_destroy(struct index *index);
// index_search.c: what readers kept.
void index_search_deinit(struct index *index);
// The memory that this reader's place in the epoch keeps.
struct beam *index_beam_of(const struct index_view *view);
// The writer's: of a slot that holds a point.
const float *index_vector(const struct index *index, uint32_t slot);
// A graph that was kept holds all that has been put so far and is INDEX_LINKED; the rest is queued.
void index_link_restore(struct index *index, struct graph *graph, uint64_t learned_count);
// index.c, for image.c: an empty index gets so many slots; points are put at some, each once; the
// others are free then.
enum status index_restore_slots(struct index *index, uint32_t slot_count);
void index_put_at(struct index *index, uint32_t slot, struct str id, const float *vector,
                  uint64_t sequence);
void index_restore_end(struct index *index, uint32_t slot_count);
// index.c: nobody comes to the slot any more who is not there yet.
void index_retire(struct index *index, uint32_t slot);
void index_reclaim(struct index *index);

// What is kept with a row so that the scan can tell how wrong its sum may be.
float index_norm_for(enum distance distance, const float *vector, uint32_t dimension);
