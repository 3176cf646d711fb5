#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/rpc.h"
#include "api/worker.pb-c.h"
#include "apigateway/gateway.h"
#include "cluster/cluster.h"
#include "net/loop.h"

// One request's calls to the leaders of its shards, in parallel. A call that finds the wrong
// worker, or none, is made again against a fresh map, with growing jittered pauses, for a few
// seconds at most; any other failure ends the whole. Loop only; memory from the request's arena;
// the request is held until done.

struct fanout;

struct fanout_ops {
    const char *method; // of WorkerService
    // One call covers all shards of a worker; otherwise each has its own.
    bool groups_by_worker;
    // The message for these parts: each part's shard is fanout_shard(). In the request's arena.
    const ProtobufCMessage *(*build)(struct fanout *fanout, const uint32_t *parts,
                                     uint32_t part_count);
    // A call's answer, which lives in the request's arena. May be NULL.
    void (*answered)(struct fanout *fanout, const ProtobufCMessage *answer);
    // The end, once. OK: every part has answered, or the time for partial answers is over.
    // CANCELLED: the caller has gone; nothing is to be answered.
    void (*done)(struct fanout *fanout, enum status status, struct str text);
};

enum fanout_part_state { PART_WAITING, PART_IN_FLIGHT, PART_ANSWERED };

struct fanout_part {
    uint32_t shard_index; // in the collection
    uint32_t shard_id;
    enum fanout_part_state state;
};

struct fanout_call;

// Visible so that it can be embedded; the caller fills the first group and looks at nothing else
// but the counts.
struct fanout {
    struct rpc *rpc;
    struct gateway *gateway;
    const struct fanout_ops *ops;
    struct fanout_part *parts; // shard_index and shard_id are set
    uint32_t part_count;
    uint64_t deadline_ns; // the request fails with TIMEOUT
    uint64_t partial_ns;  // what has answered by then is enough; UINT64_MAX: everything must

    uint32_t answered_count;
    struct cluster_map *map;
    const struct cluster_collection *collection;
    struct fanout_call *calls; // in flight
    struct timer retry;
    struct timer end;
    uint64_t retry_until_ns;
    uint32_t attempt;
    bool is_refreshing;
    bool is_over;
    bool has_lost_collection; // deleted meanwhile: the reason of NOT_FOUND
    enum status last_status;  // why parts wait
    struct str last_text;
};

// map and collection are those of collection_find; the map is referenced.
void fanout_start(struct fanout *fanout, struct cluster_map *map,
                  const struct cluster_collection *collection);

const struct cluster_shard *fanout_shard(const struct fanout *fanout, uint32_t part);
// For a message to a worker. In the request's arena.
Vectron__Worker__V1__ShardRef *fanout_shard_ref(struct fanout *fanout, uint32_t part);
