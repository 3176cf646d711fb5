#include "placementdriver/placementdriver.h"

#include <semaphore.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/address.h"
#include "placementdriver/driver.h"
#include "server/pages.h"
#include "server/process.h"

// The placement driver: settings, the log that is opened, the listener, the clock that sees who has
// fallen silent, start and end.

enum {
    ADDRESS_SIZE = 128,
    TICK_MS = 500,
    ELECTION_MS = 500,
    DRIVER_GROUP_ID = 1,
    LOST_SECONDS_MAX = 86400,
};
#define PEER_MESSAGE_SIZE_MAX ((size_t)256 << 20)

static const struct setting settings[] = {
    {"grpc-addr", NULL, SETTING_STR, false, "localhost:6001", "where the others reach it"},
    {"raft-addr", NULL, SETTING_STR, false, "localhost:7001",
     "where the other placement drivers reach it; not listened on when there are none"},
    {"node-id", NULL, SETTING_U64, false, "1", "its number among the initial members"},
    {"cluster-id", NULL, SETTING_U64, false, "1", "a number of the cluster, for people"},
    {"initial-members", NULL, SETTING_STR, false, "1:localhost:7001",
     "a comma list of id:host:port, the same for each of 1, 3 or 5 placement drivers"},
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
    {.name = "GetLeader", .handler = leader_get, .is_internal = true, .tag = METHOD_OF_EACH},
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
    if (atomic_load(&driver->leads) && presence_tick(&driver->presence, clock_monotonic_ns()))
        map_has_changed(driver);
    pthread_mutex_unlock(&driver->lock);
    if (atomic_load(&driver->leads))
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

static enum status read_member(struct str member, uint64_t *out_id, struct str *out_address,
                               struct error *error)
{
    struct address parsed;
    struct str id = str_cut(&member, ':');
    if (!str_to_u64(id, out_id) || *out_id == 0)
        return error_set(error, STATUS_INVALID,
                         "initial-members: \"%.*s:%.*s\" is not id:host:port", STR_ARG(id),
                         STR_ARG(member));
    enum status status = address_parse(member, error, &parsed);
    *out_address = member;
    return status == STATUS_OK ? status : error_prefix(error, status, "initial-members");
}

static enum status add_member(struct driver *driver, uint64_t id, struct str address,
                              struct error *error)
{
    for (uint32_t i = 0; i < driver->member_count; i++) {
        if (driver->members[i].node_id == id)
            return error_set(error, STATUS_INVALID, "initial-members has node %llu twice",
                             (unsigned long long)id);
    }
    if (driver->member_count == DRIVER_MEMBERS_MAX)
        return error_set(error, STATUS_INVALID, "initial-members has more than %d nodes",
                         DRIVER_MEMBERS_MAX);
    driver->members[driver->member_count] = (struct replica_member){.node_id = id};
    (void)snprintf(driver->member_addresses[driver->member_count], DRIVER_ADDRESS_SIZE, "%.*s",
                   STR_ARG(address));
    driver->member_count++;
    return STATUS_OK;
}

static enum status read_members(struct driver *driver, const struct config *config,
                                struct error *error)
{
    struct str rest = config_str(config, "initial-members");
    bool has_itself = false;
    driver->node_id = config_u64(config, "node-id");
    while (rest.len > 0) {
        uint64_t id = 0;
        struct str address;
        TRY(read_member(str_trim(str_cut(&rest, ',')), &id, &address, error));
        TRY(add_member(driver, id, address, error));
        has_itself = has_itself || id == driver->node_id;
    }
    if (driver->member_count % 2 == 0)
        return error_set(error, STATUS_INVALID,
                         "initial-members names %u nodes; it must be an odd number, 1, 3 or 5",
                         driver->member_count);
    if (!has_itself)
        return error_set(error, STATUS_INVALID, "initial-members does not have node-id %llu",
                         (unsigned long long)driver->node_id);
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
    TRY(read_members(driver, config, error));
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

static void start_router(struct driver *driver)
{
    driver->router = rpc_router_create(&(struct rpc_router_options){
        .divert = driver_forward,
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
    replica_node_serve(driver->node, driver->router);
    pages_add(driver->router);
    rpc_router_set_ready(driver->router, true, STR(""));
}

static enum status listen_on(struct driver *driver, const struct config *config,
                             const char *setting, const char *ready_name, size_t size_max,
                             struct error *error)
{
    char address[ADDRESS_SIZE];
    const struct listener_options options = {
        .address = config_str(config, setting),
        .handler = &rpc_call_handler,
        .context = driver->router,
        .has_grpc = true,
        .has_http = true, // health and metrics
        .message_size_max = size_max,
    };
    enum status status = server_listen(driver->server, &options, error, address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "%s", setting);
    ready_add(ready_name, address);
    return STATUS_OK;
}

static void log_trouble(uint64_t group_id, struct str text, void *context)
{
    (void)context;
    log_warn("the replicated state is in trouble", LOG_U64("group", group_id),
             LOG_STR("reason", text));
}

static enum status open_node(struct driver *driver, const struct config *config,
                             struct error *error)
{
    TRY(replica_node_open(
        &(struct replica_node_options){
            .net = driver->net,
            .directory = config_str(config, "data-dir"),
            .cluster_id = config_u64(config, "cluster-id"),
            .node_id = driver->node_id,
            .address = str_from_cstr(driver->address),
            .internal_token = str_from_cstr(driver->secrets.internal_token),
            .election_ms = ELECTION_MS,
            .trouble = log_trouble,
        },
        error, &driver->node));
    for (uint32_t i = 0; i < driver->member_count; i++)
        TRY(replica_node_set_peer(driver->node, driver->members[i].node_id,
                                  str_from_cstr(driver->member_addresses[i]), error));
    return STATUS_OK;
}

static enum status open_replica(struct driver *driver, struct error *error)
{
    struct replica *replica = NULL;
    TRY(replica_open(
        &(struct replica_options){
            .node = driver->node,
            .group_id = DRIVER_GROUP_ID,
            .machine = &driver_machine,
            .context = driver,
            .members = driver->members,
            .member_count = driver->member_count,
        },
        error, &replica));
    pthread_mutex_lock(&driver->lock);
    driver->replica = replica;
    pthread_mutex_unlock(&driver->lock);
    return STATUS_OK;
}

// One that is alone is not ready before it leads, which takes no longer than its disk.
static void wait_for_lead(struct driver *driver)
{
    pthread_mutex_lock(&driver->lock);
    while (!atomic_load(&driver->leads))
        pthread_cond_wait(&driver->lead_changed, &driver->lock);
    pthread_mutex_unlock(&driver->lock);
}

static enum status start_parts(struct driver *driver, const struct config *config,
                               struct error *error)
{
    TRY(read_settings(driver, config, error));
    (void)snprintf(driver->address, sizeof(driver->address), "%.*s",
                   STR_ARG(config_str(config, "grpc-addr")));
    enum status status = open_node(driver, config, error);
    if (status == STATUS_OK)
        status = open_replica(driver, error);
    if (status != STATUS_OK)
        return error_prefix(error, status, "data-dir");
    start_router(driver);
    driver->server = server_create(driver->net);
    if (driver->member_count > 1)
        TRY(listen_on(driver, config, "raft-addr", "raft", PEER_MESSAGE_SIZE_MAX, error));
    else
        wait_for_lead(driver);
    loop_post(net_loop(driver->net, 0), &driver->start_task);
    return listen_on(driver, config, "grpc-addr", "grpc", LIMIT_REQUEST_SIZE_CONTROL, error);
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
    replica_node_close(driver->node);
    rpc_router_destroy(driver->router);
    presence_deinit(&driver->presence);
    state_deinit(&driver->state);
    (void)pthread_cond_destroy(&driver->lead_changed);
    (void)pthread_mutex_destroy(&driver->lock);
    mem_free(driver);
}

static enum status driver_start(struct net *net, const struct config *config, struct error *error,
                                void **out_service)
{
    struct driver *driver = mem_alloc(sizeof(*driver));
    driver->net = net;
    (void)pthread_mutex_init(&driver->lock, NULL); // a default one cannot fail
    (void)pthread_cond_init(&driver->lead_changed, NULL);
    driver->lead_task.run = driver_take_over;
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
