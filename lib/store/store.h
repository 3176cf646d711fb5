#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "vector/distance.h"

// The points of all shards of a process, on disk: one RocksDB, write-ahead log on, set up to stay
// small. A shard's data lies under a number of its own, which a descriptor ties to the shard: its
// id, the placement driver that gave it (the incarnation: another one's shard 7 is another
// shard), its collection, dimension and distance.
//
// Any thread, none of them a loop: everything here waits for the disk.

struct store;
struct shard;

// CORRUPT, IO, EXHAUSTED (the disk is full): the error says which file. The folder's parent exists.
enum status store_open(struct str path, struct error *error, struct store **out_store);
void store_close(struct store *store); // its shards are closed; store may be NULL

struct shard_options {
    uint32_t shard_id;
    struct str incarnation;
    struct str collection;
    uint32_t dimension;
    enum distance distance;
    uint64_t map_version; // of the map that has the shard
};

// Load the shard, or make it when it is new. PRECONDITION: what is stored under this id has another
// dimension, distance or collection. CORRUPT, IO, EXHAUSTED: it cannot be read, or not be held in
// memory. CANCELLED: *cancelled was set (it may be NULL).
enum status store_open_shard(struct store *store, const struct shard_options *options,
                             const atomic_bool *cancelled, struct error *error,
                             struct shard **out_shard);

// Every shard that has data here, open or not; the texts are good until each returns. each must not
// call the store.
void store_for_each_shard(struct store *store,
                          void (*each)(const struct shard_options *options, void *context),
                          void *context);
// Remove a shard's data; it is not open. OK when there is none.
enum status store_drop_shard(struct store *store, uint32_t shard_id, struct str incarnation,
                             struct error *error);

// A budget for the memory of all shards and of RocksDB: beyond it points are refused with
// EXHAUSTED, whatever else goes on. 0: none, as after opening. What is stored is loaded in any
// case.
void store_set_memory_max(struct store *store, uint64_t bytes);

struct store_stats {
    uint64_t disk_bytes;   // files and log
    uint64_t memory_bytes; // RocksDB's buffers and caches
    uint64_t point_bytes;  // memory of all open shards
    uint64_t memory_max;   // the budget; 0: none
};

void store_stats(struct store *store, struct store_stats *out_stats);
