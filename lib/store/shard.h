#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "index/index.h"
#include "store/store.h"

// An open shard: its points on disk, its index in memory, the way from an id to its slot, and the
// queue of what is to be written. store_open_shard opens it.
//
// A write is durable before it is acknowledged and visible when it is: all that waits in the queue
// goes to disk as one batch with one sync, then into the index in the same order, then shows at
// once, then each writer is told. A batch that the disk refused changes nothing, on disk or in
// memory, and reads go on.

struct shard;

void shard_close(struct shard *shard); // nobody uses it; what still waits fails with CANCELLED

struct shard_point {
    struct str id;
    const float *vector; // of the shard's dimension
    struct str payload;
};

// A request: points are put in their order, then ids are removed. Embed it; it and all it points to
// must live until done is called. What it holds has been checked (dimension, finite values, ids).
struct shard_write {
    const struct shard_point *points;
    uint32_t point_count;
    const struct str *removed;
    uint32_t removed_count;
    uint64_t deadline_ns; // monotonic; a write that still waits then is not done. 0: none
    // On the thread that drains, exactly once; error is borrowed and says why unless OK.
    // EXHAUSTED: disk or memory is full. TIMEOUT: nobody came to it in time. IO, CORRUPT,
    // CANCELLED.
    void (*done)(struct shard_write *write, enum status status, const struct error *error);
    struct shard_write *next; // the queue's
    size_t size;
};

// Any thread, does not wait. EXHAUSTED: the queue is full and done is not called. *out_must_drain:
// nobody drains the queue now; have a thread that may wait call shard_drain.
enum status shard_submit(struct shard *shard, struct shard_write *write, struct error *error,
                         bool *out_must_drain);
// Write what waits, then work on the index for a short time. True: there is more to do, call it
// again.
bool shard_drain(struct shard *shard);
// Whether the index wants work though nothing is written, as after opening. True: have a thread
// call shard_drain.
bool shard_wake(struct shard *shard);
// Keep the graph for the next opening, all that is linked; else only what was written now and then
// is kept. Nobody else uses the shard any more. Failing costs time then, so it is not told.
void shard_save_image(struct shard *shard);
// The shard will be closed: no more work on the index; what is submitted is still written. Any
// thread.
void shard_quiesce(struct shard *shard);
// Instead of draining: nobody can, so everything that waits fails with this.
void shard_refuse(struct shard *shard, enum status status, const struct error *error);

// A point as it is stored, bit for bit, in the arena. NOT_FOUND; CORRUPT: its bytes are broken; IO;
// EXHAUSTED: the arena is too small. Waits for the disk.
enum status shard_get(struct shard *shard, struct str id, struct arena *arena, struct error *error,
                      struct shard_point *out_point);

// Searches open a view of the index; see index.h.
struct index *shard_index(struct shard *shard);
// The payload of a hit, in the arena. ABORTED: the point was changed after the view was opened, so
// search again with a new one. Else as shard_get.
enum status shard_get_payload(struct shard *shard, const struct index_view *view, uint32_t slot,
                              struct arena *arena, struct error *error, struct str *out_payload);

struct shard_stats {
    uint64_t points;
    uint64_t broken_points; // whose records are not what was written: Get answers CORRUPT
    uint64_t disk_bytes;    // about
    uint64_t memory_bytes;
    uint64_t unlinked_points; // that searches scan because the graph does not hold them yet
    uint64_t sequence;        // of the last batch
};

void shard_stats(struct shard *shard, struct shard_stats *out_stats);

// Only what is known without waiting.
struct shard_memory {
    uint64_t graph_bytes;
    uint64_t id_bytes;
};

void shard_memory(const struct shard *shard, struct shard_memory *out_memory);
