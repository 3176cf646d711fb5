#pragma once

#include <stdint.h>

#include "cluster/cluster.h"

// Membership: registers a worker or reranker with the placement driver and sends a heartbeat each
// second. When the placement driver does not answer it goes on trying (50 ms doubling to 1 s, the
// next address each time); when the placement driver does not know the id (ok = false) it registers
// again, which may give a new id. Callbacks come on the member's loop, the process' first.

struct cluster_member;

enum cluster_member_kind { CLUSTER_MEMBER_WORKER, CLUSTER_MEMBER_RERANKER };

struct cluster_member_options {
    struct cluster_client *client; // borrowed; must outlive the member
    struct net *net;
    enum cluster_member_kind kind;
    struct str grpc_address; // where others reach it: as bound, with the real port
    struct str raft_address; // worker only; may be empty
    // Worker only: random, made once per data directory; the same identity gets the same id. Empty:
    // the same grpc_address gets it.
    struct str identity;
    struct str rack;
    struct str zone;
    struct str region;
    struct str capability; // e.g. "search-only"; empty: none
    uint32_t cpu_count;    // 0: the processors of this machine
    uint64_t memory_bytes; // 0: the machine's
    uint64_t disk_bytes;   // 0: not known
    // Registered, at first or again. The same id may come again. May be NULL.
    void (*registered)(uint64_t id, void *context);
    // Worker only: fill the next heartbeat (worker_id and timestamp are there already); what hangs
    // on it is allocated from the arena. May be NULL.
    void (*fill_heartbeat)(Vectron__Placementdriver__V1__HeartbeatRequest *request,
                           struct arena *arena, void *context);
    // Something worth a log line: could not register, was forgotten. At most once per change of
    // state. text is borrowed. May be NULL.
    void (*trouble)(enum status status, struct str text, void *context);
    void *context;
};

struct cluster_member *cluster_member_create(const struct cluster_member_options *options);
// Not on a loop. No callback comes after it returned. member may be NULL.
void cluster_member_destroy(struct cluster_member *member);

// Any thread. 0: not registered yet.
uint64_t cluster_member_id(const struct cluster_member *member);
// Send a heartbeat at the next turn of the loop instead of within a second, e.g. because a shard
// was opened, so that the placement driver shows it as ready. Calls of one moment make one
// heartbeat.
void cluster_member_hurry(struct cluster_member *member);
