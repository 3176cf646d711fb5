#pragma once

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "base/map.h"
#include "base/mem.h"
#include "store/id_map.h"
#include "store/shard.h"
#include "store/store.h"

// What the store and its shards share.
//
// Keys: 'D' + number u32 is a shard's descriptor, 'P' + number u32 + id a point's record; numbers
// are big-endian, so a shard's points lie together, by id.

enum {
    KEY_PREFIX_SIZE = 5,
    KEY_DESCRIPTOR = 'D',
    KEY_POINT = 'P',
};

struct store_entry {
    uint32_t number;
    struct shard_options options; // its texts belong to the entry
    bool is_open;
};

struct store {
    char *path;
    rocksdb_t *database;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *durable; // with sync
    rocksdb_readoptions_t *reading;
    _Atomic uint64_t written_bytes; // since it was opened
    atomic_bool is_failed;          // RocksDB's log could not be written; see store_write
    pthread_mutex_t mutex;          // guards what follows; held over small writes of descriptors
    struct store_entry *entries;
    uint32_t entry_count;
    uint32_t entry_capacity;
};

struct shard {
    struct store *store;
    struct index *index;
    uint32_t number;
    uint8_t prefix[KEY_PREFIX_SIZE];     // of its points
    uint8_t prefix_end[KEY_PREFIX_SIZE]; // of what is behind them
    _Atomic uint64_t written_bytes;      // since it was opened
    _Atomic uint64_t broken_count;
    _Atomic uint64_t id_memory_size;

    // The writer's: whoever drains.
    struct id_map ids;
    struct map *broken; // ids whose records are broken

    pthread_mutex_t mutex; // guards the queue; never held while anything waits
    struct shard_write *first;
    struct shard_write **last;
    uint32_t queue_count;
    size_t queue_size;
    bool is_draining;
    atomic_bool is_quiet; // no work on the index any more
};

void key_prefix(uint8_t out[static KEY_PREFIX_SIZE], char kind, uint32_t number);

// Turns RocksDB's message into a status and frees it. NULL is OK.
enum status store_check(char *message, struct error *error);

// Durable when it returns OK. Takes over batch.
enum status store_write(struct store *store, rocksdb_writebatch_t *batch, struct error *error);

// shard_load.c: everything that is on disk into a fresh shard.
enum status shard_load(struct shard *shard, const atomic_bool *cancelled, struct error *error);
// shard.c: the entry's number was given to it.
struct shard *shard_create(struct store *store, const struct store_entry *entry);
// store.c: the shard with this number is closed.
void store_release(struct store *store, uint32_t number);
