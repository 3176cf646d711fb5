#pragma once

#include <stdatomic.h>

#include "index/graph.h"

// What the parts of the graph share.

enum {
    GRAPH_IN_LINKS_MIN = 6, // a link is not given up when its target has no more than this
    GRAPH_SELECTED = 16,    // links that a new point starts with
    GRAPH_NOT_FORCED = UINT16_MAX,
};

// Codes and what made them.
struct graph_codes {
    struct quantizer *quantizer;
    uint8_t *first;
    uint32_t size;
    uint32_t capacity; // slots
    size_t mapping_size;
};

struct graph_links {
    _Atomic uint32_t *rows[GRAPH_LEVELS_MAX];
    uint32_t capacity;                // slots
    size_t offsets[GRAPH_LEVELS_MAX]; // of the rows in the mapping
    char *mapping;
    size_t mapping_size;
};

// What readers may still look at.
struct graph_old {
    struct graph_codes *codes;
    struct graph_links *links;
    uint64_t ticket;
    struct graph_old *next;
};

struct graph_candidate {
    int32_t distance;
    uint32_t slot;
};

// Links that a point gets.
struct graph_selection {
    uint32_t slots[BEAM_LINKS_MAX];
    int32_t distances[BEAM_LINKS_MAX];
    bool is_occluded[BEAM_LINKS_MAX];
    uint32_t count;
};

struct graph_sweep {
    bool is_running;
    uint32_t level;
    uint32_t row;
    uint32_t *slots; // that it takes out
    uint32_t count;
};

struct graph {
    struct graph_options options;
    // Loaded by readers.
    struct graph_codes *_Atomic codes;
    struct graph_links *_Atomic links;
    _Atomic uint64_t entry;      // GRAPH_NO_ENTRY, or level << 32 | slot
    _Atomic uint32_t slot_count; // slots that any link leads to are smaller
    _Atomic uint32_t point_count;
    _Atomic uint64_t memory_size;

    // The writer's.
    uint32_t capacity;
    uint64_t *linked;    // a bit for each slot that has a row
    uint64_t *removed;   // those of them that are to be taken out
    uint64_t *swept;     // and those that the sweep takes out
    uint16_t *in_counts; // links of the lowest layer that lead to the slot
    uint32_t *removed_slots;
    uint32_t removed_count;
    uint32_t removed_capacity;
    uint32_t *low_slots; // have too few links that lead to them
    uint32_t low_count;
    uint32_t low_capacity;
    struct graph_sweep sweep;
    struct beam beam;
    struct graph_candidate *candidates;
    uint32_t candidate_capacity;
    struct graph_old *old;
};

#define GRAPH_NO_ENTRY UINT64_MAX

static inline bool graph_bit(const uint64_t *bits, uint32_t slot)
{
    return (bits[slot / 64] >> slot % 64 & 1) != 0;
}

static inline void graph_set_bit(uint64_t *bits, uint32_t slot, bool value)
{
    uint64_t bit = UINT64_C(1) << slot % 64;
    bits[slot / 64] = value ? bits[slot / 64] | bit : bits[slot / 64] & ~bit;
}

static inline struct graph_codes *graph_codes_of(const struct graph *graph)
{
    return atomic_load_explicit(&graph->codes, memory_order_relaxed);
}

static inline const uint8_t *graph_code(const struct graph *graph, uint32_t slot)
{
    const struct graph_codes *codes = graph_codes_of(graph);
    return codes->first + (size_t)codes->size * slot;
}

static inline uint32_t graph_degree(uint32_t level)
{
    return level == 0 ? GRAPH_DEGREE : GRAPH_UPPER_DEGREE;
}

// The highest layer that has the slot, and the slot of a layer's row.
uint32_t graph_level_of(uint32_t slot);
uint32_t graph_slot_of_row(uint32_t level, uint32_t row);

struct beam_layer graph_layer(const struct graph_links *links, uint32_t level);
struct beam_layer graph_layer_of(const struct graph *graph, uint32_t level); // the writer's

// Squared distances of code of slot from the codes of rows.
void graph_distances(const struct graph *graph, uint32_t slot, const uint32_t *rows, uint32_t count,
                     int32_t *out);

// graph_link.c

// Choose from candidates, which are ordered and hold no doubles, up to selected links that are not
// occluded, then fill up to `filled` with the nearest others. The selection may hold some already.
void graph_select(const struct graph *graph, const struct graph_candidate *candidates,
                  uint32_t count, uint32_t selected, uint32_t filled,
                  struct graph_selection *selection);
bool graph_holds(const struct graph_selection *selection, uint32_t slot);
// The links of a row, flags included.
uint32_t graph_read_row(const struct graph *graph, uint32_t level, uint32_t slot,
                        uint32_t *out_links);
void graph_write_row(struct graph *graph, uint32_t level, uint32_t slot,
                     const struct graph_selection *selection);
// A link from `from` to slot, when it is worth one of from's places; or when any link of from leads
// to a point that more than in_links_min lead to (GRAPH_NOT_FORCED: only when it is worth it).
// False: there is none.
bool graph_link_back(struct graph *graph, uint32_t level, uint32_t from,
                     struct graph_candidate slot, uint32_t in_links_min);
// Find more neighbours of the slot, whose code and row are written, in a layer, from entry, and
// link both ways. Returns the nearest.
uint32_t graph_connect(struct graph *graph, uint32_t level, uint32_t slot, uint32_t entry);
// The slot needs links that lead to it.
void graph_note_low(struct graph *graph, uint32_t slot);
// Find new neighbours for those.
void graph_raise_low(struct graph *graph);
uint64_t graph_find_entry(const struct graph *graph);
