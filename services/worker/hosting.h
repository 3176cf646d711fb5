#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "cluster/cluster.h"
#include "net/net.h"
#include "store/shard.h"

// Which shards this worker holds: those that the cluster map gives it. When the map changes it
// opens and makes shards, closes those that went elsewhere, and removes the data of those that are
// gone: only when a newer map of the same placement driver, one that is not empty, does not have
// them.
//
// Decisions are made on the first loop; opening, closing and removing run on the pool. Finding a
// shard is for any thread and takes no lock.

struct hosting;

// A shard that is open, shared by the table and the requests that use it.
struct hosted {
    atomic_uint reference_count;
    struct hosting *hosting;
    struct shard *shard;
    uint32_t shard_id;
    _Atomic uint64_t epoch;
    uint32_t dimension;
    enum distance distance;
    char *collection; // NUL-terminated
    _Atomic uint64_t search_count;
    _Atomic uint64_t search_ns;
    uint64_t reported_count; // of the last heartbeat; first loop only
    uint64_t reported_ns;
    uint64_t round;      // of hosting: the last in which the map had it
    struct task task;    // to the first loop, when the last reference has gone
    struct job job;      // closes it
    struct hosted *next; // waits for a place in the pool's queue
};

struct hosting_options {
    struct net *net;
    struct str path;     // of the store
    uint64_t memory_max; // for its points
    // The set of open shards changed. On the first loop. May be NULL.
    void (*changed)(void *context);
    void *context;
};

struct hosting *hosting_create(const struct hosting_options *options);
// Any thread. False: nothing was opened yet.
bool hosting_store_stats(struct hosting *hosting, struct store_stats *out_stats);
// Closes everything: no request is under way. Not on a loop. hosting may be NULL.
void hosting_destroy(struct hosting *hosting);

// First loop: who this worker is, and what the map says. An older map than the last is ignored.
void hosting_set_worker_id(struct hosting *hosting, uint64_t worker_id);
void hosting_apply(struct hosting *hosting, struct cluster_map *map);
// Any thread: apply this map soon.
void hosting_offer(struct hosting *hosting, struct cluster_map *map);

// Any thread. NULL: not here (yet). The caller owns a reference.
struct hosted *hosting_find(struct hosting *hosting, uint32_t shard_id);
void hosted_ref(struct hosted *hosted);
void hosted_unref(struct hosted *hosted);

// Any thread: all that are open, each referenced for the caller, by id. Frees the array with
// hosting_list_free.
struct hosted **hosting_list(struct hosting *hosting, uint32_t *out_count);
void hosting_list_free(struct hosted **list, uint32_t count);
