#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"
#include "placementdriver/table.h"

// What the placement driver knows for certain: workers, collections with their shards, and the
// values of the auth service. A deterministic state machine: the same commands in the same order
// give the same bytes (state_encode) on every node. No clock, no chance, no sockets; ids are
// counted here, times and random values come in the commands. One thread, or the owner's lock.

enum {
    STATE_REPLICATION_FACTOR_MAX = 7,
    // Of one shard: voters, one more while a replica moves, and a learner.
    STATE_REPLICA_COUNT_MAX = STATE_REPLICATION_FACTOR_MAX + 2,
    STATE_WORKER_COUNT_MAX = 10000,
    STATE_COLLECTION_COUNT_MAX = 100000,
    STATE_SHARD_COUNT_MAX = 400000, // the map must fit into one message
    STATE_SHARDS_PER_COLLECTION_MAX = 1024,
    STATE_CAPABILITY_COUNT_MAX = 32,
};
#define STATE_ENTRIES_SIZE_MAX ((size_t)1 << 30) // keys and values, so that a snapshot can be made

// Whether shards are Raft groups yet. Until the workers run them every new shard has one replica,
// and none is moved. A build where it is 1 sees to those that were made before.
#define STATE_REPLICATED_SHARDS 0

enum worker_state { WORKER_JOINING = 1, WORKER_READY = 2, WORKER_DRAINING = 3 };
enum distance { DISTANCE_COSINE, DISTANCE_EUCLIDEAN, DISTANCE_DOT, DISTANCE_COUNT };

// What a worker says of itself. Texts are borrowed in a command and owned in the state.
struct worker_profile {
    struct str identity; // may be empty
    struct str grpc_address;
    struct str raft_address;
    struct str rack;
    struct str zone;
    struct str region;
    struct str capabilities; // joined by commas
    uint64_t cpu_cores;
    uint64_t memory_bytes;
    uint64_t disk_bytes;
};

// What a replica is meant to be. The numbers are stored; never change them.
enum replica_role {
    REPLICA_VOTER = 1,
    REPLICA_LEARNER = 2, // follows the log and serves searches, has no vote
};

struct worker {
    uint64_t id; // never reused
    enum worker_state state;
    uint64_t registered_at; // Unix seconds
    struct worker_profile profile;
    uint32_t shard_count; // replicas that it holds
    uint32_t first_count; // those that are the first of their shard
};

// The replicas are what is wanted; the shard's own Raft group follows, one change at a time.

struct shard {
    uint32_t id; // never reused
    uint64_t range_start;
    uint64_t range_end;                            // inclusive
    uint64_t epoch;                                // changes with every change of its replicas
    uint64_t replica_ids[STATE_REPLICA_COUNT_MAX]; // the first leads at first
    enum replica_role roles[STATE_REPLICA_COUNT_MAX];
    uint32_t replica_count;
};

struct collection {
    struct str name;
    uint32_t dimension;
    enum distance distance;
    uint64_t created_at;
    uint32_t replication_factor; // voters of each shard; 0: as many as the placement driver says
    struct shard *shards;        // by range
    uint32_t shard_count;
};

struct entry {
    struct str key;
    struct str value;
    uint64_t version; // index of the command that wrote it
};

struct state {
    uint64_t index;         // of the last command
    uint64_t map_index;     // of the last command that changed workers or collections
    uint64_t lead_count;    // how often a placement driver began to lead
    struct str incarnation; // random, made once; empty until the first lead
    uint64_t next_worker_id;
    uint32_t next_shard_id;
    struct worker **workers; // by id
    uint32_t worker_count;
    uint32_t worker_capacity;
    struct table collections; // by name
    uint32_t shard_count;     // of all collections
    struct table entries;     // by key
    size_t entries_size;      // bytes of keys and values
};

void state_init(struct state *state);
void state_deinit(struct state *state);

// Apply one command (command.h). The answer says what came of it; a refusal changes nothing but the
// index. INVALID as return value: these bytes are no command that this program knows.
struct answer {
    enum status status;
    uint64_t value; // the worker's id
    struct error error;
};
enum status state_apply(struct state *state, uint64_t index, struct span bytes,
                        struct answer *out_answer);

void state_encode(const struct state *state, struct buf *out);
// Into a state that was just initialised; also checked (state_check). CORRUPT.
enum status state_decode(struct span bytes, struct error *error, struct state *state);
// The invariants: ranges cover every hash exactly once, ids are unique and below the next one,
// replicas are on workers that are there, one on each, and one of them votes; counts are right.
// CORRUPT.
enum status state_check(const struct state *state, struct error *error);

struct worker *state_worker(const struct state *state, uint64_t id); // NULL: not there
// The record that a registration with this profile continues; NULL: it is a new worker.
struct worker *state_find_worker(const struct state *state, const struct worker_profile *profile);
// A worker that holds learners only.
bool worker_is_search_only(const struct worker *worker);
bool worker_profile_equal(const struct worker_profile *a, const struct worker_profile *b);
struct collection *state_collection(const struct state *state, struct str name); // NULL
// Of the collection; NULL.
struct shard *collection_shard(const struct collection *collection, uint32_t shard_id);
bool shard_has_replica(const struct shard *shard, uint64_t worker_id);
uint32_t shard_voter_count(const struct shard *shard);
struct entry *state_entry(const struct state *state, struct str key); // NULL

const char *distance_text(enum distance distance);
// Empty means cosine. False: no such distance.
bool distance_parse(struct str text, enum distance *out_distance);
// A collection's name without its owner, as people know it.
struct str collection_short_name(struct str name);
