#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "net/loop.h"
#include "net/pool.h"

// What the network needs once per process: the loops (one thread each, one per core unless told),
// the pool, the budget for bytes in flight, and the names behind `inproc:` addresses. Servers and
// channels are made on it and destroyed before it.
//
// An address is HOST:PORT, :PORT (all interfaces), [IPv6]:PORT or inproc:NAME.

struct net;

struct net_options {
    uint32_t loop_count;        // 0: the processors that this process may use
    uint32_t pool_thread_count; // 0: twice that, at least 4
    uint32_t pool_queue_max;    // 0: 1024
    size_t memory_max;          // bytes that all connections may buffer together; 0: 1 GiB
};

enum status net_create(const struct net_options *options, struct error *error,
                       struct net **out_net);
// Runs the loops until all servers and channels are gone, then joins the threads. net may be NULL.
void net_destroy(struct net *net);

uint32_t net_loop_count(const struct net *net);
struct loop *net_loop(struct net *net, uint32_t index);
struct pool *net_pool(struct net *net);

// Bytes held for messages that are not complete or not yet sent, all connections together.
size_t net_memory_used(const struct net *net);
