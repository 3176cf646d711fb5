#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "vector/kernel.h"

// Best-first search over the codes of one layer of a graph. It keeps the nearest that it has seen
// in an array ordered by distance, the beam, and expands the nearest that was not expanded yet: it
// compares all of its links that were not seen before.
//
// It ends by the distance-bounded stop: once the nearest unexpanded one is farther than `stop`
// times the distance of the k-th nearest, the rest is not looked at, and what is farther than that
// does not even enter the beam; its width is only a cap. Easy queries end early, hard ones go on.
// (Al-Jazzazi et al., "Distance adaptive beam search for provably accurate graph-based nearest
// neighbor search", 2025.) Distances here are squared, and so is stop.
//
// Equal input gives equal results, bit for bit, whatever the instruction set. One thread for each
// struct beam; the graph may change meanwhile.

enum {
    BEAM_LINKS_MAX = 32,
    BEAM_ALIGNMENT = 64,
};

#define LINK_NONE     UINT32_MAX
// Set in a link whose target is farther from the row's point than another target of the row is: it
// fills a place until a better one comes.
#define LINK_OCCLUDED 0x80000000U
#define LINK_SLOT     0x7fffffffU

// Rows of links by slot >> shift; a row is filled from the front, LINK_NONE ends it.
struct beam_layer {
    _Atomic uint32_t *links;
    uint32_t degree; // a multiple of 16, at most BEAM_LINKS_MAX
    uint32_t shift;
};

static inline _Atomic uint32_t *beam_row(const struct beam_layer *layer, uint32_t slot)
{
    return layer->links + (size_t)(slot >> layer->shift) * layer->degree;
}

// As plain memory: for prefetching, and for loads of many links at once.
static inline const void *beam_row_memory(const _Atomic uint32_t *row)
{
    const union {
        const _Atomic uint32_t *row;
        const void *memory;
    } address = {row};
    return address.memory;
}

static inline void beam_prefetch_row(const struct beam_layer *layer, uint32_t slot)
{
    const char *row = beam_row_memory(beam_row(layer, slot));
    __builtin_prefetch(row);
    __builtin_prefetch(row + BEAM_ALIGNMENT);
}

struct beam {
    // What was found, the nearest first.
    int32_t *distances;
    uint32_t *slots;
    uint32_t count;
    uint32_t width_capacity; // of both
    uint8_t *query;          // a code
    uint32_t query_size;
    uint32_t visited_capacity; // slots
    uint32_t *visited;         // a bit for each slot
    uint8_t *query_memory;     // what to free
    uint64_t compared;         // counts up
    uint64_t searches;         // for whoever keeps it
};

struct beam_search {
    struct kernel_codes codes;
    struct beam_layer layer;
    uint32_t slot_count; // links to others, which came later, are not followed
    uint32_t entry;
    uint32_t width;   // of the beam
    uint32_t breadth; // how many are expanded at a time, at most BEAM_BREADTH_MAX
    uint32_t k;       // of the stop
    float stop;       // 0: none
    bool has_excluded;
    uint32_t excluded; // slot that is passed over as if it were not there
    int32_t noise;     // added to the k-th distance before it is multiplied
};

enum { BEAM_BREADTH_MAX = 4 };

void beam_init(struct beam *beam);
void beam_deinit(struct beam *beam);
// Make room. EXHAUSTED: no memory.
enum status beam_reserve(struct beam *beam, uint32_t width, uint32_t slot_count,
                         uint32_t code_size);
uint64_t beam_memory_size(const struct beam *beam);

// beam->query is set and there is room; count, distances and slots are the result.
void beam_run(struct beam *beam, const struct beam_search *search);
// Only the nearest, by always going to the nearest link: from slot to the returned one.
uint32_t beam_descend(struct beam *beam, const struct beam_search *search);
