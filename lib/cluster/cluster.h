#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/placementdriver.pb-c.h"
#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "net/net.h"
#include "net/tls.h"

// Where everything is: the cluster map, and the client that keeps it fresh. The placement driver
// pushes the whole map when it changes (WatchMap); nobody polls it. A map is immutable; whoever
// uses one holds a reference for as long.

enum cluster_worker_state {
    CLUSTER_WORKER_UNKNOWN,
    CLUSTER_WORKER_JOINING,
    CLUSTER_WORKER_READY,
    CLUSTER_WORKER_DRAINING,
};

struct channel;
struct metadata;

struct cluster_worker {
    uint64_t worker_id;
    struct str address;
    enum cluster_worker_state state;
    bool is_healthy; // heard of within the last seconds
    // Owned by the client that the map came from, valid as long as the client; NULL in a map that
    // cluster_map_create made.
    struct channel *channel;
};

struct cluster_shard {
    uint32_t shard_id; // unique in the cluster, never reused
    uint32_t replica_count;
    uint64_t range_start; // of routing_hash, inclusive
    uint64_t range_end;   // inclusive
    uint64_t epoch;
    uint64_t leader_id;                  // worker id; 0: none
    struct str leader_address;           // empty: no leader, or one that is not in the map
    const struct cluster_worker *leader; // in the same map; NULL as above
    uint64_t wanted_leader_id;           // the leader is to hand its lead to it; 0: no wish
    const uint64_t *replica_ids;         // worker ids, ascending; the wanted ones, learners too
    const uint64_t *learner_ids;         // those of them that have no vote, ascending
    uint32_t learner_count;
};

struct cluster_collection {
    struct str name;
    uint32_t dimension;
    struct str distance;                // "cosine", "euclidean", "dot"
    uint64_t created_at;                // Unix seconds
    const struct cluster_shard *shards; // by range_start
    uint32_t shard_count;
};

struct cluster_map {
    atomic_uint reference_count;
    uint64_t version;
    struct str incarnation; // of the placement driver's data; versions compare within one only
    const struct cluster_collection *collections; // by name
    uint32_t collection_count;
    struct cluster_worker *workers; // by id
    uint32_t worker_count;
    struct arena *arena; // everything above, the map itself excepted
};

// A map from the message, which is copied; the caller owns one reference. Nothing in the message is
// trusted. CORRUPT: collections out of order, the ranges of one do not cover all hashes exactly
// once, a replica is named twice, or a learner is no replica. EXHAUSTED: too large.
enum status cluster_map_create(const Vectron__Placementdriver__V1__ClusterMap *message,
                               struct error *error, struct cluster_map **out_map);
void cluster_map_ref(struct cluster_map *map);
void cluster_map_unref(struct cluster_map *map); // map may be NULL
// NULL: not there.
const struct cluster_collection *cluster_map_find(const struct cluster_map *map, struct str name);
const struct cluster_worker *cluster_map_worker(const struct cluster_map *map, uint64_t worker_id);
bool cluster_shard_has_replica(const struct cluster_shard *shard, uint64_t worker_id);
bool cluster_shard_has_learner(const struct cluster_shard *shard, uint64_t worker_id);
const struct cluster_shard *cluster_collection_route(const struct cluster_collection *collection,
                                                     struct str point_id);
// The shard of a point: part of what is stored, so it never changes.
uint64_t routing_hash(struct str point_id);

// --- The client. Any thread, unless said.

struct cluster_client;

struct cluster_client_options {
    struct net *net;
    struct str pd_addresses; // comma list; the next one is tried when one does not answer
    struct str internal_token;
    struct tls *tls;   // NULL: plain; borrowed
    bool has_no_watch; // only channels: for members that do not need the map
    // The map changed. On the client's loop (the process' first). May be NULL. The map is borrowed.
    void (*changed)(struct cluster_map *map, void *context);
    void *context;
};

// INVALID: an address that is none, or none at all. Whether a placement driver answers shows later.
enum status cluster_client_create(const struct cluster_client_options *options, struct error *error,
                                  struct cluster_client **out_client);
// Not on a loop, before net_destroy. When it returns no callback comes any more, except that a
// refresh under way ends with CANCELLED on its own loop. client may be NULL.
void cluster_client_destroy(struct cluster_client *client);

// The newest map, referenced for the caller; NULL before the first one came. Takes no lock on a
// loop's thread as long as the map is the one of the loop's last call.
struct cluster_map *cluster_client_map(struct cluster_client *client);
// The placement driver's watch is up: the map is at most a moment old.
bool cluster_client_is_connected(const struct cluster_client *client);

// Ask for a map at least as new as the placement driver has now; done comes on the calling loop,
// never before this returns, with a map that is borrowed, or NULL and why. Requests of the same
// moment share one call. Loop only.
void cluster_client_refresh(struct cluster_client *client, uint64_t deadline_ns,
                            void (*done)(enum status status, struct cluster_map *map,
                                         void *context),
                            void *context);

// A channel to the placement driver (its leader, once there are several), and to any other service
// by address; made once, kept, owned by the client. NULL: not an address.
struct channel *cluster_client_pd(struct cluster_client *client);
struct channel *cluster_client_channel(struct cluster_client *client, struct str address);
// A call on this channel found nobody: when it is still the placement driver that is used, the next
// address of the list takes its place.
void cluster_client_pd_failed(struct cluster_client *client, const struct channel *channel);
// The metadata that proves a call to be internal, for channel_request and client_request; none
// without an internal token. Borrowed as long as the client.
const struct metadata *cluster_client_metadata(const struct cluster_client *client,
                                               uint32_t *out_count);
