#pragma once

#include "api/rpc.h"
#include "api/worker.pb-c.h"
#include "apigateway/gateway.h"
#include "base/buf.h"

// What this gateway has done since it started: requests, errors and latency per endpoint, the rate
// of the last minute, bytes per second. Many threads, no lock.

struct stats;

struct stats *stats_create(void);
void stats_destroy(struct stats *stats); // stats may be NULL

// Hot path. For rpc_router_options.finished; context is the gateway.
void stats_finished(const struct rpc *rpc, enum status status, uint64_t elapsed_ns, void *context);
// Every few seconds, by one thread: the network's rate is measured from one time to the next.
void stats_sample(struct gateway *gateway);

double stats_network_bytes_per_second(const struct gateway *gateway);
// A worker's processor time over its life, in percent of one core. 0: it did not answer.
double stats_cpu_percent(const Vectron__Worker__V1__ListShardsResponse *answer, int64_t now);
// The answer of /v1/admin/stats.
void stats_print(const struct gateway *gateway, struct buf *out);
