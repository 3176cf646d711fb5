#include "worker/worker.h"

#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/server.h"
#include "server/pages.h"
#include "server/reachable_address.h"
#include "vector/kernel.h"
#include "worker/worker_internal.h"

// The worker: settings, the listener and what hangs on it, start and end.

enum { ADDRESS_SIZE = 128, STORE_PATH_SIZE = 4200 };

static const struct setting settings[] = {
    {"grpc-addr", NULL, SETTING_STR, false, "localhost:9090",
     "where the gateway reaches this worker"},
    {"raft-addr", NULL, SETTING_STR, false, "localhost:9191",
     "where other replicas will reach it; told to the placement driver, not listened on yet"},
    {"pd-addrs", "PD_ADDRS", SETTING_STR, false, "localhost:6001",
     "the placement drivers, a comma list"},
    {"node-id", NULL, SETTING_U64, false, "1",
     "a hint for people; the placement driver gives the id"},
    {"data-dir", NULL, SETTING_STR, false, "./worker-data", "where the points are kept"},
    {"rack", "VECTRON_RACK", SETTING_STR, false, "", "where it stands, for the placement"},
    {"zone", "VECTRON_ZONE", SETTING_STR, false, "", "where it stands, for the placement"},
    {"region", "VECTRON_REGION", SETTING_STR, false, "", "where it stands, for the placement"},
    {"search-only", "VECTRON_SEARCH_ONLY", SETTING_BOOL, false, "false",
     "told to the placement driver: it is to lead no shards"},
    {"memory", "VECTRON_MEMORY", SETTING_U64, false, "0",
     "bytes of memory for points; beyond it upserts are refused and the rest goes on; 0: four "
     "fifths "
     "of the machine's, or of the control group's"},
    {"cpu", "VECTRON_CPU", SETTING_STR, false, "",
     "the instruction set of the distances: scalar, avx2, avx512 or neon; empty: the best"},
    CLUSTER_SETTINGS,
};

static const struct rpc_method methods[] = {
    {.name = "UpsertPoints", .handler = worker_upsert_points, .is_internal = true},
    {.name = "DeletePoints", .handler = worker_delete_points, .is_internal = true},
    {.name = "GetPoint", .handler = worker_get_point, .is_internal = true},
    {.name = "SearchShards", .handler = worker_search_shards, .is_internal = true},
    {.name = "ListShards", .handler = worker_list_shards, .is_internal = true},
};

// --- What is under way

void worker_begin(struct worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    worker->busy_count++;
    pthread_mutex_unlock(&worker->mutex);
}

void worker_end(struct worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    if (--worker->busy_count == 0)
        pthread_cond_broadcast(&worker->idle);
    pthread_mutex_unlock(&worker->mutex);
}

static void wait_until_idle(struct worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    while (worker->busy_count > 0)
        pthread_cond_wait(&worker->idle, &worker->mutex);
    pthread_mutex_unlock(&worker->mutex);
}

// --- The cluster

static void map_changed(struct cluster_map *map, void *context)
{
    struct worker *worker = context;
    hosting_apply(worker->hosting, map);
}

static void shards_changed(void *context)
{
    struct worker *worker = context;
    struct cluster_member *member = atomic_load(&worker->member);
    if (member != NULL)
        cluster_member_hurry(member);
    // Begin first: then the end either waits for this, or is seen.
    worker_begin(worker);
    if (!atomic_load(&worker->is_ending))
        worker_wake_shards(worker);
    worker_end(worker);
}

static void registered(uint64_t id, void *context)
{
    struct worker *worker = context;
    printf("Successfully registered with PD: worker id %llu\n", (unsigned long long)id);
    (void)fflush(stdout);
    log_info("registered", LOG_U64("worker", id), LOG_CSTR("address", worker->address));
    atomic_store(&worker->worker_id, id);
    rpc_router_set_ready(worker->router, true, STR(""));
    hosting_set_worker_id(worker->hosting, id);
}

static void trouble(enum status status, struct str text, void *context)
{
    struct worker *worker = context;
    log_warn("no placement driver takes this worker", LOG_CSTR("status", status_name(status)),
             LOG_STR("reason", text));
    if (atomic_load(&worker->worker_id) == 0)
        rpc_router_set_ready(worker->router, false, STR("not registered with a placement driver"));
}

// --- Start

static void register_metrics(struct worker *worker)
{
    worker->points = metric_gauge("vectron_worker_points", NULL, "Points in all shards.");
    worker->shards = metric_gauge("vectron_worker_shards", NULL, "Shards that are open.");
    worker->unlinked = metric_gauge("vectron_index_unlinked_points", NULL,
                                    "Points that searches scan, as no graph holds them yet.");
    worker->unreachable = metric_gauge(
        "vectron_index_unreachable_points", NULL,
        "Points in graphs that searches cannot reach, as of the last look; 0 is right.");
    worker->relinked = metric_gauge("vectron_index_relinked_points", NULL,
                                    "Points of open shards that could not be reached and were "
                                    "linked again.");
    worker->memory_max = metric_gauge("vectron_worker_memory_budget_bytes", NULL,
                                      "Memory that points and their store may take (--memory).");
    static const char *const parts[WORKER_MEMORY_PARTS] = {
        "component=\"vectors\"", "component=\"graph\"", "component=\"ids\"",
        "component=\"documents\""};
    for (uint32_t i = 0; i < WORKER_MEMORY_PARTS; i++)
        worker->memory[i] = metric_gauge("vectron_worker_memory_bytes", parts[i],
                                         "Memory that points take: vectors with their slots, "
                                         "graphs, the way from ids to slots, RocksDB's buffers and "
                                         "caches.");
    worker->search_seconds =
        metric_histogram("vectron_worker_search_seconds", NULL, "Time to search shards.");
    worker->rows_compared = metric_counter("vectron_worker_rows_compared_total", NULL,
                                           "Vectors compared with queries.");
    worker->upserts =
        metric_counter("vectron_worker_upserts_total", NULL, "Requests that put points.");
    worker->points_upserted = metric_counter("vectron_worker_upserted_points_total", NULL,
                                             "Points in requests that put points.");
}

static enum status check_address(const struct worker *worker, const struct config *config,
                                 const char *name, struct error *error)
{
    enum status status =
        secrets_check_internal_address(&worker->secrets, config_str(config, name), error);
    return status == STATUS_OK ? status : error_prefix(error, status, "%s", name);
}

static void start_router(struct worker *worker)
{
    worker->router = rpc_router_create(&(struct rpc_router_options){
        .internal_token = str_from_cstr(worker->secrets.internal_token)});
    rpc_router_add_service(worker->router, &vectron__worker__v1__worker_service__descriptor,
                           methods, sizeof(methods) / sizeof(methods[0]), worker);
    pages_add(worker->router);
    rpc_router_set_ready(worker->router, false, STR("not registered with a placement driver"));
}

static enum status listen_on(struct worker *worker, const struct config *config,
                             struct error *error)
{
    char address[ADDRESS_SIZE];
    worker->server = server_create(worker->net);
    const struct listener_options options = {
        .address = config_str(config, "grpc-addr"),
        .handler = &rpc_call_handler,
        .context = worker->router,
        .has_grpc = true,
        .has_http = true, // health and metrics
        .message_size_max = LIMIT_REQUEST_SIZE_WORKER,
    };
    enum status status = server_listen(worker->server, &options, error, address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "grpc-addr");
    reachable_address(address, worker->address);
    ready_add("grpc", address);
    return STATUS_OK;
}

// Before the listener: a request may need the map.
static enum status start_client(struct worker *worker, const struct config *config,
                                struct error *error)
{
    enum status status = cluster_client_create(
        &(struct cluster_client_options){
            .net = worker->net,
            .pd_addresses = config_str(config, "pd-addrs"),
            .internal_token = str_from_cstr(worker->secrets.internal_token),
            .changed = map_changed,
            .context = worker,
        },
        error, &worker->client);
    return status == STATUS_OK ? status : error_prefix(error, status, "pd-addrs");
}

// Behind the listener: now the address is known.
static void start_member(struct worker *worker, const struct config *config)
{
    atomic_store(
        &worker->member,
        cluster_member_create(&(struct cluster_member_options){
            .client = worker->client,
            .net = worker->net,
            .kind = CLUSTER_MEMBER_WORKER,
            .grpc_address = str_from_cstr(worker->address),
            .raft_address = config_str(config, "raft-addr"),
            .identity = str_from_cstr(worker->folder.identity),
            .rack = config_str(config, "rack"),
            .zone = config_str(config, "zone"),
            .region = config_str(config, "region"),
            .capability = config_bool(config, "search-only") ? STR("search-only") : STR(""),
            .registered = registered,
            .fill_heartbeat = worker_fill_heartbeat,
            .trouble = trouble,
            .context = worker,
        }));
}

static enum status start_parts(struct worker *worker, const struct config *config,
                               struct error *error)
{
    char path[STORE_PATH_SIZE];
    enum status status = kernel_choose(config_str(config, "cpu"), error);
    if (status != STATUS_OK)
        return error_prefix(error, status, "VECTRON_CPU");
    TRY(secrets_load(config, error, &worker->secrets));
    TRY(check_address(worker, config, "grpc-addr", error));
    TRY(check_address(worker, config, "raft-addr", error));
    TRY(data_folder_open(&worker->folder, config_str(config, "data-dir"), error));
    register_metrics(worker);
    uint64_t memory_max = config_u64(config, "memory");
    (void)snprintf(path, sizeof(path), "%s/db", worker->folder.path);
    worker->hosting = hosting_create(&(struct hosting_options){
        .net = worker->net,
        .path = str_from_cstr(path),
        .memory_max = memory_max == 0 ? memory_limit_default() : memory_max,
        .changed = shards_changed,
        .context = worker,
    });
    start_router(worker);
    TRY(start_client(worker, config, error));
    TRY(listen_on(worker, config, error));
    start_member(worker, config);
    return STATUS_OK;
}

// --- End

static void quiesce_shards(struct worker *worker)
{
    uint32_t count = 0;
    struct hosted **list = hosting_list(worker->hosting, &count);
    for (uint32_t i = 0; i < count; i++)
        shard_quiesce(list[i]->shard);
    hosting_list_free(list, count);
}

static void worker_drain(void *service, uint64_t grace_ns)
{
    struct worker *worker = service;
    rpc_router_drain(worker->router);
    server_drain(worker->server, grace_ns);
}

static void worker_stop(void *service)
{
    struct worker *worker = service;
    server_destroy(worker->server);
    // The first loop must not find it any more; whoever has found it is done before it goes.
    cluster_member_destroy(atomic_exchange(&worker->member, NULL));
    cluster_client_destroy(worker->client);
    // Callers have gone; what they left behind ends by itself.
    atomic_store(&worker->is_ending, true);
    if (worker->hosting != NULL)
        quiesce_shards(worker);
    wait_until_idle(worker);
    hosting_destroy(worker->hosting);
    rpc_router_destroy(worker->router);
    data_folder_close(&worker->folder);
    pthread_cond_destroy(&worker->idle);
    pthread_mutex_destroy(&worker->mutex);
    mem_free(worker);
}

static enum status worker_start(struct net *net, const struct config *config, struct error *error,
                                void **out_service)
{
    struct worker *worker = mem_alloc(sizeof(*worker));
    worker->net = net;
    worker->folder.lock = -1;
    worker->started_at = (uint64_t)clock_unix_seconds();
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_cond_init(&worker->idle, NULL);
    enum status status = start_parts(worker, config, error);
    if (status != STATUS_OK) {
        worker_stop(worker);
        return status;
    }
    *out_service = worker;
    return STATUS_OK;
}

const struct service_ops worker_service = {
    .name = "worker",
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .start = worker_start,
    .drain = worker_drain,
    .stop = worker_stop,
};
