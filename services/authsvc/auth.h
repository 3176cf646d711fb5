#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/rpc.h"
#include "authsvc/accounts.h"
#include "base/str.h"
#include "cluster/cluster.h"
#include "identity/rate_limiter.h"
#include "identity/token.h"
#include "net/net.h"
#include "net/pool.h"
#include "server/audit.h"
#include "server/client_address.h"
#include "server/secret.h"
#include "server/token_keys.h"

// What the parts of the auth service share. Made at start and constant afterwards, except what says
// otherwise; the parts look after their own threads.

struct departures;
struct identity_feed;
struct admin;

struct authsvc {
    struct net *net;
    struct secrets secrets;
    struct token_keys token_keys;
    struct token_authority *authority;
    struct cluster_client *cluster; // NULL: accounts are kept in a file of this process
    struct account_store *store;
    struct accounts *accounts;
    struct rate_limiter *limiter;
    struct audit *audit;
    struct proxy_list *trusted_proxies;
    struct admin *admin; // who is to be made an admin at start
    struct identity_feed *feed;
    struct departures *departures; // NULL: no placement driver is known
    // Threads of our own: whoever waits for the store or for a hash holds up no other service.
    struct pool *record_pool;
    struct pool *password_pool;
    struct tls *grpc_tls; // NULL: plain
    struct tls *http_tls;
    struct rpc_router *grpc_router;
    struct rpc_router *http_router;
    struct server *server;
    char grpc_address[128]; // as bound
    char http_address[128];
    bool users_choose_plan;
    bool is_shared; // other processes may change the accounts too

    pthread_mutex_t mutex; // of the rest
    pthread_cond_t changed;
    bool is_prepared; // the store answers and the admin is there
    bool is_stopping;
    uint32_t busy_count; // requests under way outside of the router: the end waits for them
};

void authsvc_begin(struct authsvc *authsvc); // any thread
void authsvc_end(struct authsvc *authsvc);   // any thread

// The store answers and the admin is there: requests may begin.
void authsvc_set_prepared(struct authsvc *authsvc);
// Not on a loop. UNAVAILABLE: not until deadline_ns (monotonic), or the service is ending.
enum status authsvc_wait_prepared(struct authsvc *authsvc, uint64_t deadline_ns,
                                  struct error *error);
