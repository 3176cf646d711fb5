#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "net/channel.h"

// Where everything is: the cluster map, and the client that keeps it fresh. The placement driver
// pushes the whole map when it changes (WatchMap); nobody polls it. A map is immutable; whoever
// uses one holds a reference for as long.

struct cluster_shard {
    uint32_t shard_id; // unique in the cluster, never reused
    uint64_t range_start; // of routing_hash, inclusive
    uint64_t range_end;   // inclusive
    uint64_t epoch;
    uint64_t leader_id; // worker id; 0: none
    struct str leader_address;
};

struct cluster_collection {
    struct str name;
    uint32_t dimension;
    struct str distance; // "cosine", "euclidean", "dot"
    uint64_t created_at; // Unix seconds
    const struct cluster_shard *shards; // by range_start
    uint32_t shard_count;
};

struct cluster_map {
    atomic_uint reference_count;
    uint64_t version;
    const struct cluster_collection *collections; // by name
    uint32_t collection_count;
};

void cluster_map_ref(struct cluster_map *map);
void cluster_map_unref(struct cluster_map *map); // map may be NULL
const struct cluster_collection *cluster_map_find(const struct cluster_map *map, struct str name);
const struct cluster_shard *cluster_collection_route(const struct cluster_collection *collection,
                                                     struct str point_id);
// The shard of a point: part of what is stored, so it never changes.
uint64_t routing_hash(struct str point_id);

// --- The client. Any thread, unless said.

struct cluster_client;

struct cluster_client_options {
    struct net *net;
    struct str pd_addresses; // comma list
    struct str internal_token;
    struct tls *tls; // NULL: plain
    // The map changed. On the client's loop. May be NULL.
    void (*changed)(struct cluster_map *map, void *context);
    void *context;
};

enum status cluster_client_create(const struct cluster_client_options *options,
                                  struct error *error, struct cluster_client **out_client);
void cluster_client_destroy(struct cluster_client *client); // client may be NULL

// The newest map, referenced for the caller; NULL before the first one came.
struct cluster_map *cluster_client_map(struct cluster_client *client);
bool cluster_client_is_connected(const struct cluster_client *client);

// Ask for a map at least as new as the placement driver has now; done comes on the calling loop with
// a map that is borrowed, or NULL and why. Requests of the same moment share one call. Loop only.
void cluster_client_refresh(struct cluster_client *client, uint64_t deadline_ns,
                            void (*done)(enum status status, struct cluster_map *map,
                                         void *context),
                            void *context);

// A channel to the placement driver (its leader, once there are several), and to any other service
// by address; made once, kept, owned by the client.
struct channel *cluster_client_pd(struct cluster_client *client);
struct channel *cluster_client_channel(struct cluster_client *client, struct str address);
