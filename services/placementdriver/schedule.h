#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "placementdriver/scheduler.h"

// The scheduler at work in the placement driver that leads: at each tick the view is made from the
// state and from what the workers said, changes of replicas go into the log, and the lead of a
// shard is asked for in the map for a while. All of this is lost with the lead, without harm: the
// next leader comes to the same steps. Under the driver's lock, unless said.

struct driver;
struct rpc;

enum { SCHEDULE_TRANSFER_COUNT_MAX = 16 };

struct lead_wish {
    uint32_t shard_id;
    uint64_t worker_id;
    uint64_t until_ns;
};

struct schedule {
    uint64_t lost_ns; // a worker that is silent for as long is lost
    struct lead_wish wishes[SCHEDULE_TRANSFER_COUNT_MAX];
    uint32_t wish_count;
    bool is_eager; // somebody asked to balance: small differences count too
};

// Without the lock, on the first loop.
void schedule_tick(struct driver *driver);
// 0: no wish.
uint64_t schedule_wanted_leader(const struct driver *driver, uint32_t shard_id);
// The view in the arena; its shards are borrowed from the state.
struct scheduler_view schedule_view(const struct driver *driver, uint64_t now_ns,
                                    struct arena *arena);

// Methods; without the lock.
void shard_explain(struct rpc *rpc, void *context);
void steps_list(struct rpc *rpc, void *context);
