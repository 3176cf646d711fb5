#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/placementdriver.pb-c.h"
#include "api/rpc.h"
#include "net/loop.h"
#include "net/server.h"
#include "placementdriver/command.h"
#include "placementdriver/placementdriver.h"
#include "placementdriver/presence.h"
#include "placementdriver/schedule.h"
#include "placementdriver/state.h"
#include "replica/replica.h"
#include "server/secret.h"

// What the parts of the placement driver share: placementdriver.c has its life, driver.c the state
// behind its lock and the way of a command through the log, cluster_map.c the map and who watches
// it; workers.c, rerankers.c, collections.c and entries.c the methods.

#define PD(name)      Vectron__Placementdriver__V1__##name
#define PD_INIT(name) VECTRON__PLACEMENTDRIVER__V1__##name##__INIT

struct map_watcher;

enum { DRIVER_MEMBERS_MAX = 7, DRIVER_ADDRESS_SIZE = 280 };

struct driver {
    struct net *net;
    struct secrets secrets;
    struct replica_node *node;
    struct replica *replica;
    struct rpc_router *router;
    struct server *server;
    uint64_t node_id;
    struct replica_member members[DRIVER_MEMBERS_MAX];
    char member_addresses[DRIVER_MEMBERS_MAX][DRIVER_ADDRESS_SIZE];
    uint32_t member_count;
    uint32_t default_shard_count; // 0: as many as there are workers
    uint32_t replication_factor;  // 0: shards are no groups, and none moves
    char address[280];            // where others reach it
    atomic_bool leads;            // and has said so in the log

    pthread_mutex_t lock; // of all below
    struct state state;
    struct presence presence;
    struct schedule schedule;
    uint64_t map_change_count; // since our start
    struct map_watcher *watchers;
    bool is_draining;
    pthread_cond_t lead_changed;

    // First loop only.
    struct timer tick;
    struct task start_task;
    struct task lead_task;
};

// --- driver.c

extern const struct replica_machine driver_machine; // its context is the driver

// The answer to a command, on the request's loop. status and error are the machine's answer, or
// what kept it from the log.
typedef void (*driver_done_fn)(struct rpc *rpc, enum status status, uint64_t value,
                               const struct error *error, void *context);
// Put a command into the log; the request is held until done.
void driver_propose(struct driver *driver, struct rpc *rpc, const struct command *command,
                    driver_done_fn done, void *context);
// Call the handler when everything that was acknowledged before is applied.
void driver_read(struct driver *driver, struct rpc *rpc,
                 void (*handler)(struct driver *driver, struct rpc *rpc));
// A done function for commands whose answer has no more than success.
void driver_fail(struct rpc *rpc, enum status status, const struct error *error);

// A text as a worker's or reranker's id; 0: it is none.
uint64_t id_from_text(const char *text);
// In the arena, NUL-terminated.
char *id_to_text(struct arena *arena, uint64_t id);
// Joined by commas. INVALID.
enum status check_capabilities(char *const *capabilities, size_t count, struct arena *arena,
                               struct error *error, struct str *out_joined);

// Who leads the shard, as far as is known; 0: nobody that is known. Under the lock.
uint64_t driver_shard_leader(const struct driver *driver, const struct shard *shard);

// --- lead.c

void driver_lead_changed(bool is_leading, void *context);
void driver_take_over(struct task *task);

// --- forward.c

enum { METHOD_OF_EACH = 1 };                         // a method's tag: not handed on to the leader
bool driver_forward(struct rpc *rpc, void *context); // true: it was handed on, or refused

// --- cluster_map.c. Under the lock, unless said.

// Something that the map shows has changed: its version grows and the watchers are told.
void map_has_changed(struct driver *driver);
void map_watch(struct rpc *rpc, void *context); // without the lock, as those below
void map_read(struct rpc *rpc, void *context);
void map_end_watches(struct driver *driver); // they end with UNAVAILABLE

// --- The methods

void worker_register(struct rpc *rpc, void *context);
void worker_heartbeat(struct rpc *rpc, void *context);
void worker_list(struct rpc *rpc, void *context);
void worker_drain(struct rpc *rpc, void *context);
void worker_remove(struct rpc *rpc, void *context);
void workers_rebalance(struct rpc *rpc, void *context);
void leader_get(struct rpc *rpc, void *context);

void reranker_register(struct rpc *rpc, void *context);
void reranker_heartbeat(struct rpc *rpc, void *context);
void reranker_list(struct rpc *rpc, void *context);
void reranker_get(struct rpc *rpc, void *context);

void collection_create(struct rpc *rpc, void *context);
void collection_list(struct rpc *rpc, void *context);
void collection_delete(struct rpc *rpc, void *context);
void collection_status(struct rpc *rpc, void *context);
void collection_route(struct rpc *rpc, void *context);
void collection_workers(struct rpc *rpc, void *context);

void entry_get(struct rpc *rpc, void *context);
void entry_put(struct rpc *rpc, void *context);
void entry_list(struct rpc *rpc, void *context);
