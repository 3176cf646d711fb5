#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/placementdriver.pb-c.h"
#include "base/map.h"
#include "base/str.h"
#include "placementdriver/state.h"

// Who was heard of when: the heartbeats of workers and everything about rerankers. It lives in
// memory only; after a restart whoever was known has a grace period, and rerankers register again.
// Time is an argument (monotonic nanoseconds). One thread, or the owner's lock.

enum {
    PRESENCE_HEALTHY_SECONDS = 5,          // after the last heartbeat
    PRESENCE_GRACE_SECONDS = 10,           // after our own start
    PRESENCE_FORGET_RERANKER_SECONDS = 60, // after its last heartbeat
    PRESENCE_RERANKER_COUNT_MAX = 1000,
};

struct presence_load {
    uint64_t vector_count;
    uint64_t memory_bytes;
    uint64_t active_shards;
    float cpu_percent;
    float memory_percent;
    float disk_percent;
    float queries_per_second;
};

// What the workers said of a shard that is a Raft group.
struct shard_presence {
    uint32_t shard_id;
    uint64_t leader_id; // of the highest term; 0: none said so yet
    uint64_t term;
    // As the leader last said.
    uint64_t member_ids[STATE_REPLICA_COUNT_MAX]; // voters
    uint32_t member_count;                        // 0: not said yet
};

struct shard_progress {
    uint32_t shard_id;
    uint64_t applied_index;
};

struct worker_presence {
    uint64_t worker_id;
    uint64_t healthy_until_ns;
    int64_t heard_at; // Unix seconds of the last heartbeat; 0: none since our start
    bool is_healthy;  // as presence_tick saw it last
    struct presence_load load;
    uint64_t *running_shards; // ascending
    uint32_t running_shard_count;
    struct shard_progress *progress; // ascending by shard
    uint32_t progress_count;
};

struct reranker {
    uint64_t id;
    struct str address;
    struct str rack;
    struct str zone;
    struct str region;
    struct str capabilities; // joined by commas
    uint64_t cpu_cores;
    uint64_t memory_bytes;
    uint64_t disk_bytes;
    uint64_t healthy_until_ns;
    int64_t heard_at;
    struct presence_load load;
};

struct presence {
    struct worker_presence *workers; // by id
    uint32_t worker_count;
    uint32_t worker_capacity;
    struct map *shards;         // by the bytes of the id
    struct reranker *rerankers; // by id
    uint32_t reranker_count;
    uint64_t next_reranker_id;
};

void presence_init(struct presence *presence);
void presence_deinit(struct presence *presence);

// A worker that has just registered, or that was known before our start: healthy until then.
// True: it was not healthy before.
bool presence_expect_worker(struct presence *presence, uint64_t worker_id,
                            uint64_t healthy_until_ns);
void presence_remove_worker(struct presence *presence, uint64_t worker_id);
// True: it was not healthy before, or a shard has another leader now.
bool presence_heartbeat(struct presence *presence, uint64_t worker_id,
                        const Vectron__Placementdriver__V1__HeartbeatRequest *request,
                        uint64_t now_ns, int64_t unix_seconds);
// Whose time has run out becomes unhealthy. True: some did.
bool presence_tick(struct presence *presence, uint64_t now_ns);

// NULL: never heard of.
const struct worker_presence *presence_worker(const struct presence *presence, uint64_t worker_id);
bool presence_is_healthy(const struct presence *presence, uint64_t worker_id);
bool presence_runs_shard(const struct presence *presence, uint64_t worker_id, uint64_t shard_id);
// What the worker has applied of the shard's log; 0: it did not say.
uint64_t presence_applied_index(const struct presence *presence, uint64_t worker_id,
                                uint32_t shard_id);
// NULL: nobody said anything of it.
const struct shard_presence *presence_shard(const struct presence *presence, uint32_t shard_id);
size_t presence_shard_count(const struct presence *presence);
// Forget the shards that are not on the list, which ascends.
void presence_keep_shards(struct presence *presence, const uint32_t *shard_ids, size_t count);

// The same address has the same id. 0: there are too many.
uint64_t
presence_register_reranker(struct presence *presence,
                           const Vectron__Placementdriver__V1__RegisterRerankerRequest *request,
                           struct str capabilities, uint64_t now_ns, int64_t unix_seconds);
// False: not known.
bool presence_reranker_heartbeat(
    struct presence *presence, uint64_t id,
    const Vectron__Placementdriver__V1__RerankerHeartbeatRequest *request, uint64_t now_ns,
    int64_t unix_seconds);
bool reranker_is_healthy(const struct reranker *reranker, uint64_t now_ns);
