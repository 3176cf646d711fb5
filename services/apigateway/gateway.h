#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/rpc.h"
#include "base/str.h"
#include "cluster/cluster.h"
#include "identity/directory.h"
#include "net/net.h"
#include "server/secret.h"
#include "server/token_keys.h"

// What the gateway's handlers share. Made at start and constant afterwards; the parts look after
// their own threads.

struct gateway {
    struct net *net;
    struct secrets secrets;
    struct token_keys token_keys;
    struct token_authority *authority;
    struct directory *directory;
    struct cluster_client *cluster;
    struct channel *auth;
    struct channel *reranker;
    struct tls *auth_tls; // NULL: plain
    struct tls *grpc_tls;
    struct tls *http_tls;
    struct proxy_list *trusted_proxies;
    struct rate_limit *requests;     // per user; NULL: no limit
    struct rate_limit *key_requests; // per API key; NULL: no limit
    struct concurrency *under_way;   // per user; NULL: no limit
    struct quota *quota;
    struct rate_limit *misses; // per user: refreshes of the map for names that it does not hold
    struct feedback *feedback;
    struct feedback_sweep *feedback_sweep;
    struct identity_watch *identity_watch;
    struct alerts *alerts;
    struct monitor *monitor;
    struct stats *stats;
    struct rpc_router *grpc_router;
    struct rpc_router *http_router;
    struct server *server;
    char grpc_address[128]; // as bound
    char http_address[128];
    struct str auth_address;
    struct str reranker_address;
    struct str pd_addresses;
    double rate_limit_rps;
    double key_rate_limit_rps;
    uint64_t under_way_max;
    uint64_t rerank_timeout_ns;
    uint64_t started_ns;
    bool reranks;
    bool has_map; // these two: first loop only, once it runs
    bool has_identity;
};

// What a method or page demands of its caller; the tag of its struct rpc_method.
enum access {
    ACCESS_READER,    // a data call that changes nothing
    ACCESS_WRITER,    // a data call that changes points
    ACCESS_OWNER,     // a data call that creates or deletes collections
    ACCESS_LOGIN,     // a login token
    ACCESS_FORWARDED, // whatever the auth service says
};

// How long a call may take whose caller names no deadline.
enum { DEFAULT_DEADLINE_SECONDS = 30, DEFAULT_UPSERT_DEADLINE_SECONDS = 120 };
// How long a call is repeated while the cluster is not ready for it.
enum { RETRY_SECONDS_MAX = 5 };

// The deadline of the call; fallback_seconds from now without one.
uint64_t gateway_deadline_ns(struct rpc *rpc, uint64_t fallback_seconds);
