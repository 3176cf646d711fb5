#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "index/beam.h"
#include "index/epoch.h"
#include "vector/quantizer.h"

// A graph over the codes of points, by slot, for searches that look at a small part of all points:
// each point links to near ones in different directions (Malkov and Yashunin, "Efficient and robust
// approximate nearest neighbor search using hierarchical navigable small world graphs", 2018). What
// is different here:
//
//   Codes and links are whole numbers, and so is all arithmetic of the construction: the same
//   calls in the same order give the same graph on every machine.
//   Which slots are in the upper layers follows from the slot alone, one of each sixteen, so their
//   rows need no index: the row of a slot in layer n is slot >> 4n.
//   A full row gives up a link only while that link's target keeps a few others that lead to it,
//   so nobody gets lost.
//   Removed points are taken out: every row that leads to one is found by going over all rows,
//   for many removed points at once, and gets links to what the removed one led to.
//
// It knows slots and vectors, no ids and no versions: whoever searches says what counts. One writer
// and any number of readers that never wait; readers are inside the epoch from before they search
// until they are done with the result.

struct graph;

enum {
    GRAPH_LEVELS_MAX = 8, // with the lowest
    GRAPH_LEVEL_SHIFT = 4,
    GRAPH_DEGREE = 32, // of the lowest layer
    GRAPH_UPPER_DEGREE = 16,
    GRAPH_SLOTS_MAX = 1 << 30,
};

struct graph_options {
    enum distance distance;
    uint32_t dimension;
    struct epoch *epoch;
    // How wide a new point's neighbours are searched for; 0: GRAPH_BUILD_WIDTH.
    uint32_t build_width;
};

enum { GRAPH_BUILD_WIDTH = 400 };

// Learns the codes from the sample. NULL: no memory.
struct graph *graph_create(const struct graph_options *options,
                           const struct quantizer_sample *sample);
void graph_destroy(struct graph *graph); // graph may be NULL; nobody reads

// --- Changes: the writer only

// Room for slots below slot_count. EXHAUSTED: no memory.
enum status graph_reserve(struct graph *graph, uint32_t slot_count);
// The slot is new to the graph, or was released; there is room.
void graph_insert(struct graph *graph, uint32_t slot, const float *vector);
// The slot's point is not to be found any more. It stays in place, as a way to others, until it is
// swept.
void graph_remove(struct graph *graph, uint32_t slot);
// Take removed points out: begin, step until it returns false, then use what was released, which
// no row leads to any more (readers that came before may still be there). Inserting and removing
// may go on between steps; what is removed meanwhile is for the next sweep.
uint32_t graph_removed_count(const struct graph *graph);
bool graph_is_sweeping(const struct graph *graph);
void graph_sweep_begin(struct graph *graph);
bool graph_sweep_step(struct graph *graph, uint32_t row_count);
// The slots of the finished sweep, until the next begins.
const uint32_t *graph_released(const struct graph *graph, uint32_t *out_count);
// Give memory back that no reader can see any more.
void graph_forget_old(struct graph *graph);
// New codes, learned from a new sample; vector_of gives the vector of each slot that is linked.
enum status graph_learn(struct graph *graph, const struct quantizer_sample *sample,
                        const float *(*vector_of)(void *context, uint32_t slot), void *context);

// --- Keeping it: the writer only

const struct quantizer *graph_quantizer(const struct graph *graph); // until it learns again
bool graph_is_upper(uint32_t slot);                                 // in more than the lowest layer
bool graph_is_linked(const struct graph *graph, uint32_t slot);     // and not removed
// A slot's code and links, of so many bytes.
size_t graph_encoded_size(uint32_t code_size, uint32_t slot);
void graph_encode_slot(const struct graph *graph, uint32_t slot, struct buf *out);
// A graph with these codes, which it takes over, that is given slots and then made whole: links to
// what it was not given, and whatever else must not be, are left out. NULL: no memory; the
// quantizer is the caller's.
struct graph *graph_restore(const struct graph_options *options, struct quantizer *quantizer,
                            uint32_t slot_count);
void graph_restore_slot(struct graph *graph, uint32_t slot, const uint8_t *encoded);
void graph_restore_end(struct graph *graph);

// --- Questions: any thread

uint32_t graph_point_count(const struct graph *graph); // linked and not removed
uint64_t graph_memory_size(const struct graph *graph);
// Memory of one point: code and links.
uint64_t graph_point_size(enum distance distance, uint32_t dimension);
// A hash of all links, entry and codes; equal graphs have equal ones. The writer only.
uint64_t graph_hash(const struct graph *graph);
// Whether all holds that must: rows without holes, doubles and links to nowhere, the numbers of
// links that lead to each point, and that each point can be reached. CORRUPT: not so. The writer
// only.
enum status graph_check(const struct graph *graph, struct error *error);
// Points that cannot be reached from the entry, which are few or none; they are linked again. The
// writer only, and not while sweeping.
uint32_t graph_repair(struct graph *graph);

struct graph_search {
    const float *vector;
    uint32_t width; // of the beam: the most that are found
    uint32_t k;
    float stop;
    // A linked slot is passed over, as if its point were not there; unless the search comes to it
    // from an upper layer.
    bool has_excluded;
    uint32_t excluded;
};

// The nearest by their codes, in the beam, removed ones among them. EXHAUSTED: no memory for the
// beam.
enum status graph_search(const struct graph *graph, struct beam *beam,
                         const struct graph_search *search);
