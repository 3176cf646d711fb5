#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "vector/distance.h"

// The points of one shard, as a search sees them: by slot, a vector and an id, and which version of
// the shard each belongs to. It knows no disk and no network, and it does not look up ids: whoever
// puts points keeps the way from an id to its slot.
//
// One writer and any number of readers, who never wait and take no lock. A writer puts and removes
// under the next sequence number and then publishes it: until then nothing of it shows, afterwards
// all of it, so a batch is seen whole or not at all. A reader opens a view, which stands for the
// sequence published at that moment, searches it, reads what it found, and closes it soon: slots
// of removed points are used again once every view that could see them is closed.
//
// While there are few points a search compares all of them and is exact. From some thousand on
// (what is scanned in less time than a graph is searched) there is a graph, and a search compares a
// small part; what it returns is scored exactly, but some of the nearest may be missing. The writer
// builds the graph after it has published, by index_link; what is not linked yet is scanned, so a
// point shows at once.

struct index;

struct index_options {
    uint32_t dimension;
    enum distance distance;
    uint32_t build_width;      // how wide a new point's neighbours are searched for; 0: the usual
    uint32_t graph_points_min; // from so many points on there is a graph; 0: where it is faster
};

#define INDEX_SLOT_NONE UINT32_MAX

enum { INDEX_BLOCK = 64 }; // slots

struct index *index_create(const struct index_options *options);
void index_destroy(struct index *index); // index may be NULL; no view is open

// --- Changes: the writer only

// Make room: as many puts cannot fail afterwards. EXHAUSTED: no memory, or too many slots.
enum status index_reserve(struct index *index, uint32_t put_count);
// How many bytes more so many puts would take; slots that are free take none.
uint64_t index_growth_size(const struct index *index, uint32_t put_count);
// A point that shows from sequence on; copies id and vector and returns its slot. The room was
// reserved.
uint32_t index_put(struct index *index, struct str id, const float *vector, uint64_t sequence);
// The slot's point shows no more from sequence on.
void index_remove(struct index *index, uint32_t slot, uint64_t sequence);
// sequence is larger than those before; everything put and removed under it, or a smaller one,
// shows from now on.
void index_publish(struct index *index, uint64_t sequence);

// Everything put is published: work on the graph, up to about count points. Returns whether there
// is more to do now. Any time that this takes is a writer's: call it when nothing waits to be
// written, and, when the index is behind, before more is put.
bool index_link(struct index *index, uint32_t count);
bool index_is_behind(const struct index *index);
// Any thread: whether index_link has something to do though nothing was put. About: the writer
// knows.
bool index_wants_link(const struct index *index);
// How many points were put and removed since it was made, and whether there is a graph (to keep).
uint64_t index_change_count(const struct index *index);
bool index_has_graph(const struct index *index);
// The invariants of the graph; CORRUPT says which does not hold. While nothing is put.
enum status index_check(const struct index *index, struct error *error);

// --- Questions: any thread

uint64_t index_unlinked_count(const struct index *index); // points that searches scan
// The graph is looked over now and then, when a quarter of the points has changed: points that no
// search could reach, which are few or none, are linked again. How many there are still, and how
// many were found so far.
uint64_t index_lost_count(const struct index *index);
uint64_t index_found_count(const struct index *index);
uint64_t index_sequence(const struct index *index); // published last
uint32_t index_dimension(const struct index *index);
enum distance index_distance(const struct index *index);
uint64_t index_point_count(const struct index *index); // as published
uint64_t index_memory_size(const struct index *index); // bytes that hold points
// Of them, the graph's, with what it will take for points that are not linked yet.
uint64_t index_graph_size(const struct index *index);

// --- Views: any thread

struct index_view {
    struct index *index;
    const struct index_directory *directory;
    struct epoch_reader *reader;
    uint64_t sequence;
    uint32_t slot_count; // slots behind it hold nothing of this view
};

void index_view_open(struct index *index, struct index_view *view);
void index_view_close(struct index_view *view);

// Of a hit of this view; borrowed until it is closed.
struct str index_view_id(const struct index_view *view, uint32_t slot);
const float *index_view_vector(const struct index_view *view, uint32_t slot);
uint64_t index_view_sequence(const struct index_view *view, uint32_t slot); // that it was put under

// The writer's: of a slot that it has not removed.
struct str index_id(const struct index *index, uint32_t slot);

struct index_search {
    const float *vector;
    uint32_t top_k; // at least 1
    uint32_t ef;    // how much effort, about as a beam of so many takes; 0: the index chooses
    // Or more exactly: candidates up to so many times the squared distance of the last hit are
    // followed. More than 1; 0: as ef says.
    float stop;
    bool is_exact; // compare every point
    // Bit i % 64 of word i / 64: slot i may be a hit. NULL: all may. Slots from allowed_count
    // (a multiple of 64) on may not.
    const uint64_t *allowed;
    uint32_t allowed_count;
    uint64_t deadline_ns;         // monotonic; UINT64_MAX: none
    const atomic_bool *cancelled; // set by whoever wants the search to end; may be NULL
};

struct index_hit {
    float score;
    uint32_t slot;
};

struct index_stats {
    uint64_t rows_compared; // at full precision, or by their codes
    uint64_t rows_rescored; // that were near enough for their score to be computed in double
};

// The nearest, by score and then by id (bytewise). hits has room for top_k; there are fewer only
// when there are fewer points. CANCELLED, TIMEOUT: it was stopped. Allocates nothing.
enum status index_search(const struct index_view *view, const struct index_search *search,
                         struct index_hit *hits, uint32_t *out_hit_count,
                         struct index_stats *out_stats);

// The effort of searches that do not say, as it was measured last: on recent queries, or, before
// there were enough, on stored points, which are found more easily. Recall 1: everything is
// scanned; 0: not measured yet.
struct index_effort {
    float stop;
    uint32_t rescored; // candidates compared at full precision, for ten hits
    float recall;      // of the ten nearest
};

struct index_effort index_effort(const struct index *index);

// How long a search takes, about, from what one like it must read.
uint64_t index_search_cost_ns(const struct index *index, uint32_t top_k);
