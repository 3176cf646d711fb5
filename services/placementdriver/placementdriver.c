#include "placementdriver/placementdriver.h"

#include <semaphore.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/address.h"
#include "placementdriver/driver.h"
#include "server/pages.h"
#include "server/process.h"

// The placement driver: settings, the log that is opened, the listener, the clock that sees who has
// fallen silent, start and end.

enum { ADDRESS_SIZE = 128, INCARNATION_SIZE = 16, TICK_MS = 500, LOST_SECONDS_MAX = 86400 };

static const struct setting settings[] = {
    {"grpc-addr", NULL, SETTING_STR, false, "localhost:6001", "where the others reach it"},
    {"raft-addr", NULL, SETTING_STR, false, "localhost:7001",
     "where other placement drivers will reach it; not listened on yet"},
    {"node-id", NULL, SETTING_U64, false, "1", "its number among the initial members"},
    {"cluster-id", NULL, SETTING_U64, false, "1", "a number of the cluster, for people"},
    {"initial-members", NULL, SETTING_STR, false, "1:localhost:7001",
     "a comma list of id:host:port; this version is one node"},
    {"data-dir", NULL, SETTING_STR, false, "pd-data", "where the state is kept"},
    {"default-shards", "VECTRON_DEFAULT_SHARDS", SETTING_U64, false, "0",
     "shards of a new collection; 0: as many as there are workers, 8 at most"},
    {"replication-factor", "VECTRON_REPLICATION_FACTOR", SETTING_U64, false, "3",
     "copies of each shard; this version keeps one"},
    {"worker-lost-seconds", "VECTRON_WORKER_LOST_SECONDS", SETTING_U64, false, "30",
     "how long a worker may be silent before its replicas are made anew elsewhere"},
    CLUSTER_SETTINGS,
};

static const struct rpc_method placement_methods[] = {
    {.name = "RegisterWorker", .handler = worker_register, .is_internal = true},
    {.name = "Heartbeat", .handler = worker_heartbeat, .is_internal = true},
    {.name = "ListWorkers", .handler = worker_list, .is_internal = true},
    {.name = "DrainWorker", .handler = worker_drain, .is_internal = true},
    {.name = "RemoveWorker", .handler = worker_remove, .is_internal = true},
    {.name = "Rebalance", .handler = workers_rebalance, .is_internal = true},
    {.name = "GetLeader", .handler = leader_get, .is_internal = true},
    {.name = "GetWorker", .handler = collection_route, .is_internal = true},
    {.name = "ListWorkersForCollection", .handler = collection_workers, .is_internal = true},
    {.name = "CreateCollection", .handler = collection_create, .is_internal = true},
    {.name = "ListCollections", .handler = collection_list, .is_internal = true},
    {.name = "DeleteCollection", .handler = collection_delete, .is_internal = true},
    {.name = "GetCollectionStatus", .handler = collection_status, .is_internal = true},
    {.name = "RegisterReranker", .handler = reranker_register, .is_internal = true},
    {.name = "RerankerHeartbeat", .handler = reranker_heartbeat, .is_internal = true},
    {.name = "ListRerankers", .handler = reranker_list, .is_internal = true},
    {.name = "GetReranker", .handler = reranker_get, .is_internal = true},
};

static const struct rpc_method cluster_methods[] = {
    {.name = "WatchMap", .handler = map_watch, .is_internal = true, .is_stream = true},
    {.name = "GetMap", .handler = map_read, .is_internal = true},
    {.name = "ExplainShard", .handler = shard_explain, .is_internal = true},
    {.name = "ListShardSteps", .handler = steps_list, .is_internal = true},
};

static const struct rpc_method state_methods[] = {
    {.name = "GetState", .handler = entry_get, .is_internal = true},
    {.name = "PutState", .handler = entry_put, .is_internal = true},
    {.name = "ListState", .handler = entry_list, .is_internal = true},
};

#define COUNT(methods) (sizeof(methods) / sizeof((methods)[0]))

// --- The clock

static void tick(struct timer *timer)
{
    struct driver *driver =
        (struct driver *)(void *)((char *)timer - offsetof(struct driver, tick));
    pthread_mutex_lock(&driver->lock);
    if (presence_tick(&driver->presence, clock_monotonic_ns()))
        map_has_changed(driver);
    pthread_mutex_unlock(&driver->lock);
    schedule_tick(driver);
    timer_start(timer, TICK_MS * NS_PER_MS);
}

static void start_ticking(struct task *task)
{
    struct driver *driver =
        (struct driver *)(void *)((char *)task - offsetof(struct driver, start_task));
    timer_start(&driver->tick, TICK_MS * NS_PER_MS);
}

struct stopping {
    struct task task; // first
    struct driver *driver;
    sem_t done;
};

static void stop_ticking(struct task *task)
{
    struct stopping *stopping = (struct stopping *)(void *)task;
    timer_stop(&stopping->driver->tick);
    (void)sem_post(&stopping->done);
}

static void stop_ticking_wait(struct driver *driver)
{
    struct stopping stopping = {.task = {.run = stop_ticking}, .driver = driver};
    (void)sem_init(&stopping.done, 0, 0);
    loop_post(net_loop(driver->net, 0), &stopping.task);
    while (sem_wait(&stopping.done) != 0)
        continue; // interrupted
    (void)sem_destroy(&stopping.done);
}

// --- Start

static enum status check_address(const struct driver *driver, const struct config *config,
                                 const char *name, struct error *error)
{
    enum status status =
        secrets_check_internal_address(&driver->secrets, config_str(config, name), error);
    return status == STATUS_OK ? status : error_prefix(error, status, "%s", name);
}

static enum status check_member(struct str member, uint64_t *out_id, struct error *error)
{
    struct str address = member;
    struct str id = str_cut(&address, ':');
    struct address parsed;
    if (!str_to_u64(id, out_id) || *out_id == 0)
        return error_set(error, STATUS_INVALID, "initial-members: \"%.*s\" is not id:host:port",
                         STR_ARG(member));
    enum status status = address_parse(address, error, &parsed);
    return status == STATUS_OK ? status : error_prefix(error, status, "initial-members");
}

static enum status check_members(const struct config *config, struct error *error)
{
    struct str rest = config_str(config, "initial-members");
    uint32_t count = 0;
    uint64_t id = 0;
    while (rest.len > 0) {
        TRY(check_member(str_trim(str_cut(&rest, ',')), &id, error));
        count++;
    }
    if (count != 1)
        return error_set(error, STATUS_INVALID,
                         "initial-members names %u nodes; this version runs with one", count);
    if (id != config_u64(config, "node-id"))
        return error_set(error, STATUS_INVALID, "initial-members does not have node-id %llu",
                         (unsigned long long)config_u64(config, "node-id"));
    return STATUS_OK;
}

static enum status read_settings(struct driver *driver, const struct config *config,
                                 struct error *error)
{
    uint64_t shard_count = config_u64(config, "default-shards");
    uint64_t copies = config_u64(config, "replication-factor");
    uint64_t lost_seconds = config_u64(config, "worker-lost-seconds");
    TRY(secrets_load(config, error, &driver->secrets));
    TRY(check_address(driver, config, "grpc-addr", error));
    TRY(check_address(driver, config, "raft-addr", error));
    TRY(check_members(config, error));
    if (shard_count > STATE_SHARDS_PER_COLLECTION_MAX)
        return error_set(error, STATUS_INVALID, "default-shards is %llu; the limit is %d",
                         (unsigned long long)shard_count, STATE_SHARDS_PER_COLLECTION_MAX);
    if (copies < 1 || copies > STATE_REPLICATION_FACTOR_MAX)
        return error_set(error, STATUS_INVALID, "replication-factor is %llu; it must be 1 to %d",
                         (unsigned long long)copies, STATE_REPLICATION_FACTOR_MAX);
    if (lost_seconds < PRESENCE_HEALTHY_SECONDS || lost_seconds > LOST_SECONDS_MAX)
        return error_set(error, STATUS_INVALID, "worker-lost-seconds is %llu; it must be %d to %d",
                         (unsigned long long)lost_seconds, PRESENCE_HEALTHY_SECONDS,
                         LOST_SECONDS_MAX);
    driver->default_shard_count = (uint32_t)shard_count;
    driver->schedule.lost_ns = lost_seconds * NS_PER_SECOND;
    driver->replication_factor = STATE_REPLICATED_SHARDS ? (uint32_t)copies : 0;
    return STATUS_OK;
}

// From now on this process is the one that changes the state. Workers that were there before count
// as healthy until they had time to be heard of.
static enum status lead(struct driver *driver, struct error *error)
{
    uint8_t random[INCARNATION_SIZE];
    char incarnation[2 * INCARNATION_SIZE + 1];
    rng_secure(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        (void)snprintf(incarnation + 2 * i, 3, "%02x", random[i]);
    const struct command command = {
        .kind = COMMAND_LEAD,
        .incarnation = str_from_cstr(incarnation),
    };
    TRY(driver_propose_wait(driver, &command, error));
    uint64_t until_ns = clock_monotonic_ns() + PRESENCE_GRACE_SECONDS * NS_PER_SECOND;
    pthread_mutex_lock(&driver->lock);
    for (uint32_t i = 0; i < driver->state.worker_count; i++)
        (void)presence_expect_worker(&driver->presence, driver->state.workers[i]->id, until_ns);
    pthread_mutex_unlock(&driver->lock);
    return STATUS_OK;
}

static void start_router(struct driver *driver)
{
    driver->router = rpc_router_create(&(struct rpc_router_options){
        .context = driver,
        .internal_token = str_from_cstr(driver->secrets.internal_token),
    });
    rpc_router_add_service(driver->router,
                           &vectron__placementdriver__v1__placement_service__descriptor,
                           placement_methods, COUNT(placement_methods), driver);
    rpc_router_add_service(driver->router,
                           &vectron__placementdriver__v1__cluster_service__descriptor,
                           cluster_methods, COUNT(cluster_methods), driver);
    rpc_router_add_service(driver->router, &vectron__placementdriver__v1__state_service__descriptor,
                           state_methods, COUNT(state_methods), driver);
    pages_add(driver->router);
    rpc_router_set_ready(driver->router, true, STR(""));
}

static enum status listen_on(struct driver *driver, const struct config *config,
                             struct error *error)
{
    char address[ADDRESS_SIZE];
    driver->server = server_create(driver->net);
    const struct listener_options options = {
        .address = config_str(config, "grpc-addr"),
        .handler = &rpc_call_handler,
        .context = driver->router,
        .has_grpc = true,
        .has_http = true, // health and metrics
        .message_size_max = LIMIT_REQUEST_SIZE_CONTROL,
    };
    enum status status = server_listen(driver->server, &options, error, address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "grpc-addr");
    ready_add("grpc", address);
    return STATUS_OK;
}

static enum status start_parts(struct driver *driver, const struct config *config,
                               struct error *error)
{
    TRY(read_settings(driver, config, error));
    (void)snprintf(driver->address, sizeof(driver->address), "%.*s",
                   STR_ARG(config_str(config, "grpc-addr")));
    enum status status = replica_open(
        &(struct replica_options){
            .directory = config_str(config, "data-dir"),
            .machine = &driver_machine,
            .context = driver,
            .address = str_from_cstr(driver->address),
        },
        error, &driver->replica);
    if (status != STATUS_OK)
        return error_prefix(error, status, "data-dir");
    TRY(lead(driver, error));
    start_router(driver);
    loop_post(net_loop(driver->net, 0), &driver->start_task);
    return listen_on(driver, config, error);
}

// --- End

static void driver_drain(void *service, uint64_t grace_ns)
{
    struct driver *driver = service;
    map_end_watches(driver);
    rpc_router_drain(driver->router);
    server_drain(driver->server, grace_ns);
}

static void driver_stop(void *service)
{
    struct driver *driver = service;
    if (driver->server != NULL)
        map_end_watches(driver);
    server_destroy(driver->server);
    stop_ticking_wait(driver);
    replica_close(driver->replica);
    rpc_router_destroy(driver->router);
    presence_deinit(&driver->presence);
    state_deinit(&driver->state);
    (void)pthread_mutex_destroy(&driver->lock);
    mem_free(driver);
}

static enum status driver_start(struct net *net, const struct config *config, struct error *error,
                                void **out_service)
{
    struct driver *driver = mem_alloc(sizeof(*driver));
    driver->net = net;
    (void)pthread_mutex_init(&driver->lock, NULL); // a default one cannot fail
    state_init(&driver->state);
    presence_init(&driver->presence);
    timer_init(&driver->tick, net_loop(net, 0), tick);
    driver->start_task.run = start_ticking;
    enum status status = start_parts(driver, config, error);
    if (status != STATUS_OK) {
        driver_stop(driver);
        return status;
    }
    *out_service = driver;
    return STATUS_OK;
}

const struct service_ops placementdriver_service = {
    .name = "placementdriver",
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .start = driver_start,
    .drain = driver_drain,
    .stop = driver_stop,
};
