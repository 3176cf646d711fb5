#include "reranker/reranker.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/cluster_member.h"
#include "net/server.h"
#include "reranker/rerank.h"
#include "server/pages.h"
#include "server/process.h"
#include "server/reachable_address.h"
#include "server/secret.h"

// The reranker: settings, the listener, its membership, start and end.

enum { ADDRESS_SIZE = 128 };

struct reranker {
    struct net *net;
    struct secrets secrets;
    struct rpc_router *router;
    struct server *server;
    struct cluster_client *client;
    struct cluster_member *member;
    struct rerank_settings settings;
    char listen_address[ADDRESS_SIZE];
    char address[REACHABLE_ADDRESS_SIZE]; // where others reach it
};

static const struct setting settings[] = {
    {"port", NULL, SETTING_STR, false, "50051",
     "where it is reached: PORT on loopback, or HOST:PORT"},
    {"strategy", NULL, SETTING_STR, false, "rule",
     "how hits are reordered; this version passes the order through and says so"},
    {"cache", NULL, SETTING_STR, false, "memory",
     "where answers are kept; this version keeps none"},
    {"pd-addrs", "PD_ADDRS", SETTING_STR, false, "localhost:6001",
     "the placement drivers, a comma list"},
    CLUSTER_SETTINGS,
};

static const struct rpc_method methods[] = {
    {.name = "Rerank", .handler = rerank, .is_internal = true},
    {.name = "GetStrategy", .handler = rerank_get_strategy, .is_internal = true},
    {.name = "InvalidateCache", .handler = rerank_invalidate_cache, .is_internal = true},
};

// --- The cluster

static void registered(uint64_t id, void *context)
{
    const struct reranker *reranker = context;
    log_info("registered", LOG_U64("reranker", id), LOG_CSTR("address", reranker->address));
}

static void trouble(enum status status, struct str text, void *context)
{
    (void)context;
    log_warn("no placement driver takes this reranker", LOG_CSTR("status", status_name(status)),
             LOG_STR("reason", text));
}

// --- Start

// PORT alone is on loopback.
static enum status read_address(struct reranker *reranker, const struct config *config,
                                struct error *error)
{
    struct str text = config_str(config, "port");
    uint64_t port = 0;
    bool is_number = str_to_u64(text, &port);
    (void)snprintf(reranker->listen_address, sizeof(reranker->listen_address), "%s%.*s",
                   is_number ? "localhost:" : "", STR_ARG(text));
    struct str listen_address = str_from_cstr(reranker->listen_address);
    enum status status = secrets_check_internal_address(&reranker->secrets, listen_address, error);
    return status == STATUS_OK ? status : error_prefix(error, status, "port");
}

static void start_router(struct reranker *reranker)
{
    reranker->router = rpc_router_create(&(struct rpc_router_options){
        .context = reranker,
        .internal_token = str_from_cstr(reranker->secrets.internal_token),
    });
    rpc_router_add_service(reranker->router, &vectron__reranker__v1__rerank_service__descriptor,
                           methods, sizeof(methods) / sizeof(methods[0]), &reranker->settings);
    pages_add(reranker->router);
    // It needs nobody to do its work.
    rpc_router_set_ready(reranker->router, true, STR(""));
}

static enum status listen_on(struct reranker *reranker, struct error *error)
{
    char address[ADDRESS_SIZE];
    reranker->server = server_create(reranker->net);
    const struct listener_options options = {
        .address = str_from_cstr(reranker->listen_address),
        .handler = &rpc_call_handler,
        .context = reranker->router,
        .has_grpc = true,
        .has_http = true, // health and metrics
        .message_size_max = LIMIT_REQUEST_SIZE_RERANKER,
    };
    enum status status = server_listen(reranker->server, &options, error, address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "port");
    reachable_address(address, reranker->address);
    ready_add("grpc", address);
    return STATUS_OK;
}

static enum status join_cluster(struct reranker *reranker, const struct config *config,
                                struct error *error)
{
    enum status status = cluster_client_create(
        &(struct cluster_client_options){
            .net = reranker->net,
            .pd_addresses = config_str(config, "pd-addrs"),
            .internal_token = str_from_cstr(reranker->secrets.internal_token),
            .has_no_watch = true,
        },
        error, &reranker->client);
    if (status != STATUS_OK)
        return error_prefix(error, status, "pd-addrs");
    reranker->member = cluster_member_create(&(struct cluster_member_options){
        .client = reranker->client,
        .net = reranker->net,
        .kind = CLUSTER_MEMBER_RERANKER,
        .grpc_address = str_from_cstr(reranker->address),
        .registered = registered,
        .trouble = trouble,
        .context = reranker,
    });
    return STATUS_OK;
}

static enum status start_parts(struct reranker *reranker, const struct config *config,
                               struct error *error)
{
    reranker->settings.asked_strategy = config_str(config, "strategy");
    reranker->settings.asked_cache = config_str(config, "cache");
    TRY(secrets_load(config, error, &reranker->secrets));
    TRY(read_address(reranker, config, error));
    start_router(reranker);
    TRY(listen_on(reranker, error));
    return join_cluster(reranker, config, error);
}

// --- End

static void reranker_drain(void *service, uint64_t grace_ns)
{
    struct reranker *reranker = service;
    rpc_router_drain(reranker->router);
    server_drain(reranker->server, grace_ns);
}

static void reranker_stop(void *service)
{
    struct reranker *reranker = service;
    server_destroy(reranker->server);
    cluster_member_destroy(reranker->member);
    cluster_client_destroy(reranker->client);
    rpc_router_destroy(reranker->router);
    mem_free(reranker);
}

static enum status reranker_start(struct net *net, const struct config *config, struct error *error,
                                  void **out_service)
{
    struct reranker *reranker = mem_alloc(sizeof(*reranker));
    reranker->net = net;
    enum status status = start_parts(reranker, config, error);
    if (status != STATUS_OK) {
        reranker_stop(reranker);
        return status;
    }
    *out_service = reranker;
    return STATUS_OK;
}

const struct service_ops reranker_service = {
    .name = "reranker",
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .start = reranker_start,
    .drain = reranker_drain,
    .stop = reranker_stop,
};
