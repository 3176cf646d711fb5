#include "apigateway/apigateway.h"

#include <string.h>

#include "api/auth.pb-c.h"
#include "api/rpc.h"
#include "api/vectron.pb-c.h"
#include "apigateway/alerts.h"
#include "apigateway/authenticate.h"
#include "apigateway/collections.h"
#include "apigateway/concurrency.h"
#include "apigateway/feedback.h"
#include "apigateway/feedback_sweep.h"
#include "apigateway/forward.h"
#include "apigateway/gateway.h"
#include "apigateway/home_page.h"
#include "apigateway/identity_watch.h"
#include "apigateway/management.h"
#include "apigateway/monitor.h"
#include "apigateway/points.h"
#include "apigateway/quota.h"
#include "apigateway/rate_limit.h"
#include "apigateway/search.h"
#include "apigateway/stats.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/address.h"
#include "net/channel.h"
#include "net/server.h"
#include "net/tls.h"
#include "server/client_address.h"
#include "server/pages.h"

// The gateway: settings, the listeners and what hangs on them, start and end.

enum {
    ADDRESS_SIZE = 128,
    // Refreshes of the map for names that are not in it, per user and second.
    MISSES_PER_SECOND = 5,
    MISSES_BURST = 20,
};

static const struct setting settings[] = {
    {"grpc-addr", "GRPC_ADDR", SETTING_STR, false, "localhost:8081", "where gRPC is served"},
    {"http-addr", "HTTP_ADDR", SETTING_STR, false, "localhost:8080",
     "where HTTP/JSON and the console are served"},
    {"placement-driver", "PLACEMENT_DRIVER", SETTING_STR, false, "localhost:6001",
     "the placement drivers, a comma list"},
    {"auth-service-addr", "AUTH_SERVICE_ADDR", SETTING_STR, false, "localhost:8083",
     "the auth service's gRPC address"},
    {"auth-service-tls", "AUTH_SERVICE_TLS", SETTING_BOOL, false, "false",
     "whether the auth service's gRPC address speaks TLS"},
    {"auth-service-tls-ca", "AUTH_SERVICE_TLS_CA", SETTING_STR, false, "",
     "a PEM file: whom to trust as the auth service; empty: the system's list"},
    {"reranker-service-addr", "RERANKER_SERVICE_ADDR", SETTING_STR, false, "localhost:50051",
     "the reranker"},
    {"cors-allowed-origins", "CORS_ALLOWED_ORIGINS", SETTING_STR, false, "",
     "a comma list of origins, or *; empty: same origin only"},
    {"trusted-proxies", "TRUSTED_PROXIES", SETTING_STR, false, "",
     "a comma list of CIDR ranges whose X-Forwarded-For is believed"},
    {"feedback-db-path", "FEEDBACK_DB_PATH", SETTING_STR, false, "./data/feedback.db",
     "where feedback is kept"},
    {"rate-limit-rps", "RATE_LIMIT_RPS", SETTING_DOUBLE, false, "100",
     "requests per second and user; 0 or less: no limit"},
    {"key-rate-limit-rps", "VECTRON_KEY_RATE_LIMIT_RPS", SETTING_DOUBLE, false, "0",
     "requests per second and API key, besides; 0 or less: no limit"},
    {"concurrent-requests", "VECTRON_CONCURRENT_REQUESTS", SETTING_U64, false, "4096",
     "requests that a user may have under way at once; 0: no limit"},
    {"free-points", "VECTRON_FREE_POINTS", SETTING_U64, false, "50000000",
     "points that a user of the plan FREE may keep; 0: no limit"},
    {"free-bytes", "VECTRON_FREE_BYTES", SETTING_U64, false, "549755813888",
     "bytes on disk that these may take, replicas not counted; 0: no limit"},
    {"paid-points", "VECTRON_PAID_POINTS", SETTING_U64, false, "0", "the same for PAID"},
    {"paid-bytes", "VECTRON_PAID_BYTES", SETTING_U64, false, "0", "the same for PAID"},
    {"search-cache-enabled", "SEARCH_CACHE_ENABLED", SETTING_BOOL, false, "false",
     "reserved: searches see every acknowledged write, so no answer is cached"},
    {"rerank-enabled", "RERANK_ENABLED", SETTING_BOOL, false, "false",
     "reorder the hits of searches that have a query text"},
    {"rerank-timeout-ms", "RERANK_TIMEOUT_MS", SETTING_U64, false, "75",
     "how long the reranker may take before the search's own order stands"},
    {"grpc-tls-cert-file", "GRPC_TLS_CERT_FILE", SETTING_STR, false, "",
     "PEM certificate chain of the gRPC port"},
    {"grpc-tls-key-file", "GRPC_TLS_KEY_FILE", SETTING_STR, false, "", "its key, PEM"},
    {"http-tls-cert-file", "HTTP_TLS_CERT_FILE", SETTING_STR, false, "",
     "PEM certificate chain of the HTTP port"},
    {"http-tls-key-file", "HTTP_TLS_KEY_FILE", SETTING_STR, false, "", "its key, PEM"},
    SECRET_SETTINGS,
    TOKEN_KEY_SETTINGS,
    CLUSTER_SETTINGS,
};

#define DATA_METHODS                                                                          \
    {.name = "CreateCollection", .handler = collections_create, .tag = ACCESS_OWNER},         \
        {.name = "ListCollections", .handler = collections_list, .tag = ACCESS_READER},       \
        {.name = "DeleteCollection", .handler = collections_delete, .tag = ACCESS_OWNER},     \
        {.name = "GetCollectionStatus", .handler = collections_status, .tag = ACCESS_READER}, \
        {.name = "Upsert", .handler = points_upsert, .tag = ACCESS_WRITER},                   \
        {.name = "Get", .handler = points_get, .tag = ACCESS_READER},                         \
        {.name = "Delete", .handler = points_delete, .tag = ACCESS_WRITER},                   \
        {.name = "Search",                                                                    \
         .handler = search,                                                                   \
         .tag = ACCESS_READER,                                                                \
         .prepare_http = search_prepare_http},                                                \
        {.name = "SearchStream",                                                              \
         .handler = search_stream,                                                            \
         .is_stream = true,                                                                   \
         .tag = ACCESS_READER},                                                               \
    {                                                                                         \
        .name = "SubmitFeedback", .handler = feedback_submit, .tag = ACCESS_READER            \
    }

// Nobody gets here: gRPC takes no login token, and this call no other.
static void refuse_profile(struct rpc *rpc, void *context)
{
    (void)context;
    rpc_fail(rpc, STATUS_FORBIDDEN, "account calls need a login token, over HTTP");
}

static const struct rpc_method grpc_methods[] = {
    DATA_METHODS,
    {.name = "UpdateUserProfile", .handler = refuse_profile, .tag = ACCESS_LOGIN},
};
// UpdateUserProfile is the auth service's there.
static const struct rpc_method http_methods[] = {DATA_METHODS};

uint64_t gateway_deadline_ns(struct rpc *rpc, uint64_t fallback_seconds)
{
    uint64_t deadline = call_deadline_ns(rpc_call(rpc));
    return deadline != UINT64_MAX ? deadline
                                  : clock_monotonic_ns() + fallback_seconds * NS_PER_SECOND;
}

// --- Readiness

// At start, then on the first loop, where both callbacks come.
static void set_ready(struct gateway *gateway)
{
    struct str reason = STR("");
    if (!gateway->has_map)
        reason = STR("no cluster map yet: the placement driver has not answered");
    else if (!gateway->has_identity)
        reason = STR("no accounts yet: the auth service has not answered");
    rpc_router_set_ready(gateway->grpc_router, reason.len == 0, reason);
    rpc_router_set_ready(gateway->http_router, reason.len == 0, reason);
}

static void map_changed(struct cluster_map *map, void *context)
{
    (void)map;
    struct gateway *gateway = context;
    if (gateway->has_map)
        return;
    gateway->has_map = true;
    set_ready(gateway);
}

static void identity_changed(struct gateway *gateway)
{
    gateway->has_identity = true;
    set_ready(gateway);
}

// --- Start

static enum status start_tls(const struct config *config, const char *cert_name,
                             const char *key_name, struct error *error, struct tls **out_tls)
{
    struct tls_options options = {
        .cert_file = config_str(config, cert_name),
        .key_file = config_str(config, key_name),
    };
    if (options.cert_file.len == 0 && options.key_file.len == 0)
        return STATUS_OK;
    if (options.cert_file.len == 0 || options.key_file.len == 0)
        return error_set(error, STATUS_INVALID, "%s and %s are set together or not at all",
                         cert_name, key_name);
    return tls_server_create(&options, error, out_tls);
}

static enum status start_channel(struct gateway *gateway, struct str address, struct tls *tls,
                                 struct error *error, struct channel **out_channel)
{
    return channel_create(gateway->net,
                          &(struct channel_options){
                              .address = address,
                              .tls = tls,
                              .message_size_max = LIMIT_REQUEST_SIZE_RERANKER,
                          },
                          error, out_channel);
}

static enum status start_peers(struct gateway *gateway, const struct config *config,
                               struct error *error)
{
    gateway->pd_addresses = config_str(config, "placement-driver");
    gateway->auth_address = config_str(config, "auth-service-addr");
    gateway->reranker_address = config_str(config, "reranker-service-addr");
    if (config_bool(config, "auth-service-tls"))
        TRY(tls_client_create(
            &(struct tls_options){.ca_file = config_str(config, "auth-service-tls-ca")}, error,
            &gateway->auth_tls));
    enum status status =
        start_channel(gateway, gateway->auth_address, gateway->auth_tls, error, &gateway->auth);
    if (status != STATUS_OK)
        return error_prefix(error, status, "auth-service-addr");
    status = start_channel(gateway, gateway->reranker_address, NULL, error, &gateway->reranker);
    if (status != STATUS_OK)
        return error_prefix(error, status, "reranker-service-addr");
    status = cluster_client_create(
        &(struct cluster_client_options){
            .net = gateway->net,
            .pd_addresses = gateway->pd_addresses,
            .internal_token = str_from_cstr(gateway->secrets.internal_token),
            .changed = map_changed,
            .context = gateway,
        },
        error, &gateway->cluster);
    return status == STATUS_OK ? status : error_prefix(error, status, "placement-driver");
}

// The public keys that tokens are checked with here.
static void answer_keys(struct rpc *rpc, void *context)
{
    struct str keys = token_authority_print_keys(context, rpc_arena(rpc));
    call_reply(rpc_call(rpc), 200, STR("application/jwk-set+json"), str_span(keys));
}

static void finished(const struct rpc *rpc, enum status status, uint64_t elapsed_ns, void *context)
{
    stats_finished(rpc, status, elapsed_ns, context);
    authentication_ended(rpc, context);
}

static void start_routers(struct gateway *gateway, const struct config *config)
{
    struct rpc_router_options options = {
        .intercept = authenticate,
        .finished = finished,
        .context = gateway,
        .cors_origins = config_str(config, "cors-allowed-origins"),
    };
    gateway->grpc_router = rpc_router_create(&options);
    rpc_router_add_service(gateway->grpc_router, &vectron__v1__vectron_service__descriptor,
                           grpc_methods, sizeof(grpc_methods) / sizeof(grpc_methods[0]), gateway);
    pages_add(gateway->grpc_router);

    gateway->http_router = rpc_router_create(&options);
    rpc_router_add_service(gateway->http_router, &vectron__v1__vectron_service__descriptor,
                           http_methods, sizeof(http_methods) / sizeof(http_methods[0]), gateway);
    rpc_router_add_service(gateway->http_router, &vectron__auth__v1__auth_service__descriptor,
                           forwarded_methods, forwarded_method_count, gateway);
    rpc_router_add_routes(gateway->http_router);
    pages_add(gateway->http_router);
    rpc_router_add_page(gateway->http_router, "GET", "/.well-known/jwks.json", true, answer_keys,
                        gateway->authority);
    home_page_add(gateway->http_router);
    management_add(gateway->http_router, gateway);
}

static void warn_when_open(struct str address, const struct tls *tls)
{
    struct address parsed;
    struct error error;
    if (tls == NULL && address_parse(address, &error, &parsed) == STATUS_OK &&
        !address_is_local(&parsed))
        log_warn("listening without TLS: tokens can be read on the way",
                 LOG_STR("address", address));
}

static enum status listen_on(struct gateway *gateway, const struct config *config,
                             struct listener_options options, const char *name, struct error *error)
{
    char address[ADDRESS_SIZE];
    options.handler = &rpc_call_handler;
    options.is_public = true;
    options.message_size_max = LIMIT_REQUEST_SIZE_GATEWAY;
    options.address = config_str(config, options.has_grpc ? "grpc-addr" : "http-addr");
    enum status status = server_listen(gateway->server, &options, error, address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "%s", options.has_grpc ? "grpc-addr" : "http-addr");
    warn_when_open(options.address, options.tls);
    ready_add(name, address);
    memcpy(options.has_grpc ? gateway->grpc_address : gateway->http_address, address,
           sizeof(address));
    return STATUS_OK;
}

static enum status start_listeners(struct gateway *gateway, const struct config *config,
                                   struct error *error)
{
    gateway->server = server_create(gateway->net);
    TRY(listen_on(gateway, config,
                  (struct listener_options){
                      .context = gateway->grpc_router,
                      .tls = gateway->grpc_tls,
                      .has_grpc = true,
                      .has_http = true, // health and metrics
                  },
                  "grpc", error));
    return listen_on(gateway, config,
                     (struct listener_options){
                         .context = gateway->http_router,
                         .tls = gateway->http_tls,
                         .has_http = true,
                     },
                     "http", error);
}

static enum status start_authority(struct gateway *gateway, struct error *error)
{
    return token_authority_create(
        &(struct token_authority_options){
            .secret = str_from_cstr(gateway->secrets.jwt),
            .previous_secret = str_from_cstr(gateway->secrets.previous_jwt),
            .keys = gateway->token_keys.keys,
            .key_count = gateway->token_keys.count,
        },
        error, &gateway->authority);
}

// With a burst of one second's worth.
static struct rate_limit *start_rate_limit(double per_second)
{
    return per_second > 0 ? rate_limit_create(per_second, per_second > 1 ? per_second : 1) : NULL;
}

static void start_limits(struct gateway *gateway, const struct config *config)
{
    gateway->rate_limit_rps = config_double(config, "rate-limit-rps");
    gateway->key_rate_limit_rps = config_double(config, "key-rate-limit-rps");
    gateway->under_way_max = config_u64(config, "concurrent-requests");
    gateway->requests = start_rate_limit(gateway->rate_limit_rps);
    gateway->key_requests = start_rate_limit(gateway->key_rate_limit_rps);
    gateway->misses = rate_limit_create(MISSES_PER_SECOND, MISSES_BURST);
    // Nobody has so many that more would matter.
    if (gateway->under_way_max > 0)
        gateway->under_way = concurrency_create(
            gateway->under_way_max < UINT32_MAX ? (uint32_t)gateway->under_way_max : UINT32_MAX);
    gateway->quota = quota_create(&(struct quota_options){
        .free_max = {config_u64(config, "free-points"), config_u64(config, "free-bytes")},
        .paid_max = {config_u64(config, "paid-points"), config_u64(config, "paid-bytes")},
    });
}

static enum status start_parts(struct gateway *gateway, const struct config *config,
                               struct error *error)
{
    TRY(secrets_load(config, error, &gateway->secrets));
    TRY(token_keys_load(config, false, error, &gateway->token_keys));
    TRY(start_authority(gateway, error));
    TRY(proxy_list_create(config_str(config, "trusted-proxies"), error, &gateway->trusted_proxies));
    TRY(start_tls(config, "grpc-tls-cert-file", "grpc-tls-key-file", error, &gateway->grpc_tls));
    TRY(start_tls(config, "http-tls-cert-file", "http-tls-key-file", error, &gateway->http_tls));
    gateway->reranks = config_bool(config, "rerank-enabled");
    gateway->rerank_timeout_ns = config_u64(config, "rerank-timeout-ms") * NS_PER_MS;
    start_limits(gateway, config);
    gateway->directory = directory_create(gateway->authority);
    gateway->feedback = feedback_create(config_str(config, "feedback-db-path"));
    gateway->alerts = alerts_create();
    gateway->stats = stats_create();
    start_routers(gateway, config);
    set_ready(gateway);
    TRY(start_peers(gateway, config, error));
    TRY(feedback_sweep_start(gateway, error, &gateway->feedback_sweep));
    gateway->identity_watch = identity_watch_start(gateway, identity_changed);
    TRY(start_listeners(gateway, config, error));
    gateway->monitor = monitor_start(gateway);
    return STATUS_OK;
}

// --- End

static void gateway_stop(void *service)
{
    struct gateway *gateway = service;
    server_destroy(gateway->server);
    monitor_stop(gateway->monitor);
    identity_watch_stop(gateway->identity_watch);
    feedback_sweep_stop(gateway->feedback_sweep);
    cluster_client_destroy(gateway->cluster);
    channel_destroy(gateway->auth);
    channel_destroy(gateway->reranker);
    rpc_router_destroy(gateway->grpc_router);
    rpc_router_destroy(gateway->http_router);
    stats_destroy(gateway->stats);
    alerts_destroy(gateway->alerts);
    feedback_destroy(gateway->feedback);
    directory_destroy(gateway->directory);
    rate_limit_destroy(gateway->misses);
    rate_limit_destroy(gateway->requests);
    rate_limit_destroy(gateway->key_requests);
    concurrency_destroy(gateway->under_way);
    quota_destroy(gateway->quota);
    tls_destroy(gateway->http_tls);
    tls_destroy(gateway->grpc_tls);
    tls_destroy(gateway->auth_tls);
    proxy_list_destroy(gateway->trusted_proxies);
    token_authority_destroy(gateway->authority);
    token_keys_unload(&gateway->token_keys);
    mem_free(gateway);
}

static void gateway_drain(void *service, uint64_t grace_ns)
{
    struct gateway *gateway = service;
    rpc_router_drain(gateway->grpc_router);
    rpc_router_drain(gateway->http_router);
    server_drain(gateway->server, grace_ns);
}

static enum status gateway_start(struct net *net, const struct config *config, struct error *error,
                                 void **out_service)
{
    struct gateway *gateway = mem_alloc(sizeof(*gateway));
    gateway->net = net;
    gateway->started_ns = clock_monotonic_ns();
    enum status status = start_parts(gateway, config, error);
    if (status != STATUS_OK) {
        gateway_stop(gateway);
        return status;
    }
    *out_service = gateway;
    return STATUS_OK;
}

const struct service_ops apigateway_service = {
    .name = "apigateway",
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .start = gateway_start,
    .drain = gateway_drain,
    .stop = gateway_stop,
};
