#pragma once

#include <pthread.h>

#include "api/rpc.h"
#include "api/worker.pb-c.h"
#include "base/metrics.h"
#include "cluster/cluster.h"
#include "cluster/cluster_member.h"
#include "server/reachable_address.h"
#include "server/secret.h"
#include "worker/data_folder.h"
#include "worker/hosting.h"
#include "worker/memory_limit.h"
#include "worker/worker.h"

// What the parts of a worker share.

enum { WORKER_MEMORY_PARTS = 4 }; // vectors, graph, ids, documents

struct worker {
    struct net *net;
    struct secrets secrets;
    struct data_folder folder;
    struct hosting *hosting;
    struct cluster_client *client;
    struct cluster_member *_Atomic member; // set after its first callback may have come
    _Atomic uint64_t worker_id;            // 0: not registered yet
    struct rpc_router *router;
    struct server *server;
    char address[REACHABLE_ADDRESS_SIZE]; // where others reach it
    uint64_t started_at;                  // Unix seconds
    atomic_uint waiting_count;
    atomic_bool is_ending;
    // Requests that are under way outside of the router: the end waits for them.
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    uint32_t busy_count;
    // What the last heartbeat saw; first loop only.
    uint64_t heartbeat_ns;
    double heartbeat_cpu_seconds;

    struct metric *points;
    struct metric *shards;
    struct metric *memory[WORKER_MEMORY_PARTS];
    struct metric *memory_max;
    struct metric *unlinked;
    struct metric *unreachable;
    struct metric *relinked;
    struct metric *search_seconds;
    struct metric *rows_compared;
    struct metric *upserts;
    struct metric *points_upserted;
};

void worker_begin(struct worker *worker); // any thread
void worker_end(struct worker *worker);   // any thread

// The shards of a request, each referenced; called on the request's loop, which releases them with
// worker_release_shards.
typedef void (*worker_shards_fn)(struct rpc *rpc, struct worker *worker, struct hosted **shards,
                                 uint32_t count);

// Find the shards that a request names and go on with them, at once or when they are open: a shard
// that was made a moment ago is waited for, for a short time. Else the request fails with
// UNAVAILABLE, or with INVALID when it names none or too many.
void worker_with_shards(struct rpc *rpc, struct worker *worker,
                        Vectron__Worker__V1__ShardRef *const *refs, size_t count,
                        worker_shards_fn go_on);
void worker_release_shards(struct hosted **shards, uint32_t count);

// points.c
void worker_upsert_points(struct rpc *rpc, void *context);
void worker_delete_points(struct rpc *rpc, void *context);
void worker_get_point(struct rpc *rpc, void *context);
// On a loop: have threads work on the indexes that want it.
void worker_wake_shards(struct worker *worker);
// search.c
void worker_search_shards(struct rpc *rpc, void *context);
// report.c
void worker_list_shards(struct rpc *rpc, void *context);
void worker_fill_heartbeat(Vectron__Placementdriver__V1__HeartbeatRequest *request,
                           struct arena *arena, void *context);
