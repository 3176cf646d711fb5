#pragma once

#include <stdint.h>

#include "api/vectron.pb-c.h"
#include "api/worker.pb-c.h"
#include "apigateway/point_check.h"
#include "base/arena.h"
#include "base/error.h"
#include "cluster/cluster.h"

// The points of an upsert, checked, without those that a later one of the same id replaces, and
// sorted by shard. Any thread.

struct point_group {
    uint32_t shard_index; // in the collection
    Vectron__Worker__V1__ShardPoint **points;
    size_t count;
};

struct point_batch {
    struct point_group *groups; // only shards that have points
    uint32_t group_count;
};

// INVALID: the first bad point, by index and id. EXHAUSTED: the arena's maximum. Points keep their
// order within a group and borrow ids and vectors from the request.
enum status point_batch_create(const Vectron__V1__UpsertRequest *request,
                               const struct cluster_collection *collection, struct arena *arena,
                               struct error *error, struct point_batch *out_batch);
