#pragma once

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/mem.h"
#include "index/image.h"
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
    char *image_folder;
    rocksdb_t *database;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *durable; // with sync
    rocksdb_readoptions_t *reading;
    _Atomic uint64_t written_bytes; // since it was opened
    _Atomic uint64_t memory_max;    // 0: none
    _Atomic uint64_t point_bytes;   // memory of open shards
    atomic_bool is_failed;          // RocksDB's log could not be written; see store_write
    pthread_mutex_t mutex;          // guards what follows; held over small writes of descriptors
    struct store_entry *entries;
    uint32_t entry_count;
    uint32_t entry_capacity;
};

// The writing of a shard's graph image; whoever drains.
struct shard_image {
    int file;      // -1: none is being written
    uint32_t next; // slot
    uint32_t slot_count;
    uint64_t owner;         // that it is this shard's
    uint64_t changes;       // of the index when it was begun
    uint64_t saved_changes; // of the index when the last one was
    struct buf buffer;
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
    uint64_t counted_bytes; // of the store's point_bytes
    struct id_map ids;
    struct map *broken; // ids whose records are broken
    struct shard_image image;

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

uint64_t store_memory_size(struct store *store); // RocksDB's
// shard.c: what the shard takes now is what the store counts. The writer.
void shard_count_memory(struct shard *shard);
// shard_image.c. The next piece, when it is time to write one; true: there is more.
bool shard_image_step(struct shard *shard);
void shard_image_init(struct shard *shard, const struct shard_options *options);
void shard_image_deinit(struct shard *shard);
// Begun with the shard's index. NULL: there is none that can be used.
struct index_image *shard_image_open(struct shard *shard, struct span *out_bytes);
void shard_image_close(struct index_image *image, struct span bytes);
void store_remove_image(struct store *store, uint32_t number);
// shard_load.c: everything that is on disk into a fresh shard.
enum status shard_load(struct shard *shard, const atomic_bool *cancelled, struct error *error);
// shard.c: the entry's number was given to it.
struct shard *shard_create(struct store *store, const struct store_entry *entry);
// store.c: the shard with this number is closed.
void store_release(struct store *store, uint32_t number);
