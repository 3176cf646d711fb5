#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "placementdriver/driver.h"
#include "placementdriver/names.h"

// Workers: registration, heartbeats, the list, drain and removal; and who leads.

enum { ADDRESS_SIZE_MAX = 256, METADATA_MAX = 12 };

static struct driver *driver_of(void *context)
{
    return context;
}

// --- Register

static enum status check_numbers(const PD(RegisterWorkerRequest) * request, struct error *error)
{
    const struct {
        const char *field;
        int64_t value;
    } numbers[] = {
        {"cpu_cores", request->cpu_cores},
        {"memory_bytes", request->memory_bytes},
        {"disk_bytes", request->disk_bytes},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (numbers[i].value < 0)
            return error_set(error, STATUS_INVALID, "%s is %" PRId64 "; it cannot be negative",
                             numbers[i].field, numbers[i].value);
    }
    return STATUS_OK;
}

static enum status check_addresses(const PD(RegisterWorkerRequest) * request, struct error *error)
{
    struct str grpc_address = str_from_cstr(request->grpc_address);
    struct str raft_address = str_from_cstr(request->raft_address);
    if (grpc_address.len > ADDRESS_SIZE_MAX || raft_address.len > ADDRESS_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "an address has more than %d bytes",
                         ADDRESS_SIZE_MAX);
    TRY(check_reachable_address(grpc_address, "grpc_address", error));
    if (raft_address.len > 0)
        TRY(check_reachable_address(raft_address, "raft_address", error));
    return STATUS_OK;
}

static enum status read_profile(const PD(RegisterWorkerRequest) * request, struct arena *arena,
                                struct error *error, struct worker_profile *out_profile)
{
    struct worker_profile profile = {
        .identity = str_from_cstr(request->identity),
        .grpc_address = str_from_cstr(request->grpc_address),
        .raft_address = str_from_cstr(request->raft_address),
        .rack = str_from_cstr(request->rack),
        .zone = str_from_cstr(request->zone),
        .region = str_from_cstr(request->region),
    };
    TRY(check_addresses(request, error));
    TRY(check_numbers(request, error));
    TRY(check_short_text(profile.identity, "identity", error));
    TRY(check_short_text(profile.rack, "rack", error));
    TRY(check_short_text(profile.zone, "zone", error));
    TRY(check_short_text(profile.region, "region", error));
    TRY(check_capabilities(request->capabilities, request->n_capabilities, arena, error,
                           &profile.capabilities));
    profile.cpu_cores = (uint64_t)request->cpu_cores;
    profile.memory_bytes = (uint64_t)request->memory_bytes;
    profile.disk_bytes = (uint64_t)request->disk_bytes;
    *out_profile = profile;
    return STATUS_OK;
}

static void registered(struct rpc *rpc, enum status status, uint64_t id, const struct error *error,
                       void *context)
{
    struct driver *driver = context;
    PD(RegisterWorkerResponse) response = PD_INIT(REGISTER_WORKER_RESPONSE);
    if (status != STATUS_OK) {
        driver_fail(rpc, status, error);
        return;
    }
    // It is usable from now on, before its first heartbeat.
    uint64_t until_ns = clock_monotonic_ns() + PRESENCE_HEALTHY_SECONDS * NS_PER_SECOND;
    pthread_mutex_lock(&driver->lock);
    if (presence_expect_worker(&driver->presence, id, until_ns))
        map_has_changed(driver);
    pthread_mutex_unlock(&driver->lock);
    response.worker_id = id_to_text(rpc_arena(rpc), id);
    response.success = true;
    rpc_reply(rpc, &response.base);
}

void worker_register(struct rpc *rpc, void *context)
{
    struct command command = {.kind = COMMAND_REGISTER_WORKER,
                              .now = (uint64_t)clock_unix_seconds()};
    struct error error;
    enum status status =
        read_profile((const void *)rpc_request(rpc), rpc_arena(rpc), &error, &command.profile);
    if (status != STATUS_OK)
        rpc_fail_error(rpc, status, &error);
    else
        driver_propose(driver_of(context), rpc, &command, registered, context);
}

// --- Heartbeat

void worker_heartbeat(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const PD(HeartbeatRequest) *request = (const void *)rpc_request(rpc);
    PD(HeartbeatResponse) response = PD_INIT(HEARTBEAT_RESPONSE);
    uint64_t id = id_from_text(request->worker_id);
    pthread_mutex_lock(&driver->lock);
    response.ok = state_worker(&driver->state, id) != NULL;
    if (response.ok && presence_heartbeat(&driver->presence, id, request, clock_monotonic_ns(),
                                          clock_unix_seconds()))
        map_has_changed(driver);
    response.assignments_epoch = driver->state.map_index;
    pthread_mutex_unlock(&driver->lock);
    if (!response.ok)
        response.message =
            arena_cstr(rpc_arena(rpc),
                       arena_format(rpc_arena(rpc), "worker \"%.32s\" is not known: register again",
                                    request->worker_id));
    rpc_reply(rpc, &response.base);
}

// --- The list

struct metadata_list {
    struct arena *arena;
    PD(WorkerInfo__MetadataEntry) * *entries;
    size_t count;
};

static void add_metadata(struct metadata_list *list, const char *key, struct str value)
{
    if (value.len == 0)
        return;
    PD(WorkerInfo__MetadataEntry) *entry = arena_alloc(list->arena, sizeof(*entry));
    vectron__placementdriver__v1__worker_info__metadata_entry__init(entry);
    entry->key = arena_cstr(list->arena, str_from_cstr(key));
    entry->value = arena_cstr(list->arena, value);
    list->entries[list->count++] = entry;
}

static void fill_metadata(const struct worker *worker, const struct worker_presence *presence,
                          struct metadata_list *list)
{
    const struct worker_profile *profile = &worker->profile;
    struct arena *arena = list->arena;
    add_metadata(list, "rack", profile->rack);
    add_metadata(list, "zone", profile->zone);
    add_metadata(list, "region", profile->region);
    add_metadata(list, "capabilities", profile->capabilities);
    add_metadata(list, "role",
                 str_contains(profile->capabilities, STR("search-only")) ? STR("search-only")
                                                                         : STR("worker"));
    add_metadata(list, "cpu_cores", arena_format(arena, "%" PRIu64, profile->cpu_cores));
    add_metadata(list, "memory_bytes", arena_format(arena, "%" PRIu64, profile->memory_bytes));
    add_metadata(list, "disk_bytes", arena_format(arena, "%" PRIu64, profile->disk_bytes));
    if (presence == NULL || presence->heard_at == 0)
        return;
    add_metadata(list, "vector_count",
                 arena_format(arena, "%" PRIu64, presence->load.vector_count));
    add_metadata(list, "cpu_usage_percent",
                 arena_format(arena, "%.1f", (double)presence->load.cpu_percent));
    add_metadata(list, "queries_per_second",
                 arena_format(arena, "%.1f", (double)presence->load.queries_per_second));
}

static bool holds_shard(const struct collection *collection, uint64_t worker_id)
{
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        for (uint32_t k = 0; k < collection->shards[i].replica_count; k++) {
            if (collection->shards[i].replica_ids[k] == worker_id)
                return true;
        }
    }
    return false;
}

static void fill_collections(const struct state *state, uint64_t worker_id, struct arena *arena,
                             PD(WorkerInfo) * out)
{
    out->collections = arena_alloc(arena, (state->collections.count + 1) * sizeof(char *));
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        if (holds_shard(collection, worker_id))
            out->collections[out->n_collections++] = arena_cstr(arena, collection->name);
    }
}

static void fill_worker(const struct driver *driver, const struct worker *worker,
                        struct arena *arena, PD(WorkerInfo) * out)
{
    const struct worker_presence *presence = presence_worker(&driver->presence, worker->id);
    struct metadata_list list = {.arena = arena};
    vectron__placementdriver__v1__worker_info__init(out);
    list.entries = arena_alloc(arena, METADATA_MAX * sizeof(*list.entries));
    out->worker_id = id_to_text(arena, worker->id);
    out->grpc_address = arena_cstr(arena, worker->profile.grpc_address);
    out->raft_address = arena_cstr(arena, worker->profile.raft_address);
    out->last_heartbeat = presence != NULL ? presence->heard_at : 0;
    out->healthy = presence != NULL && presence->is_healthy;
    out->state = (PD(WorkerState))worker->state;
    fill_metadata(worker, presence, &list);
    out->metadata = list.entries;
    out->n_metadata = list.count;
    fill_collections(&driver->state, worker->id, arena, out);
}

static void list_workers(struct driver *driver, struct rpc *rpc)
{
    struct arena *arena = rpc_arena(rpc);
    PD(ListWorkersResponse) response = PD_INIT(LIST_WORKERS_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    uint32_t count = driver->state.worker_count;
    PD(WorkerInfo) *workers = arena_alloc(arena, (count + 1) * sizeof(*workers));
    response.workers = arena_alloc(arena, (count + 1) * sizeof(*response.workers));
    for (uint32_t i = 0; i < count; i++) {
        fill_worker(driver, driver->state.workers[i], arena, &workers[i]);
        response.workers[response.n_workers++] = &workers[i];
    }
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
}

void worker_list(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, list_workers);
}

// --- Drain and remove

static void drained(struct rpc *rpc, enum status status, uint64_t value, const struct error *error,
                    void *context)
{
    (void)value;
    (void)context;
    PD(DrainWorkerResponse) response = PD_INIT(DRAIN_WORKER_RESPONSE);
    if (status != STATUS_OK) {
        driver_fail(rpc, status, error);
        return;
    }
    response.success = true;
    rpc_reply(rpc, &response.base);
}

static void removed(struct rpc *rpc, enum status status, uint64_t value, const struct error *error,
                    void *context)
{
    (void)value;
    struct driver *driver = context;
    const PD(RemoveWorkerRequest) *request = (const void *)rpc_request(rpc);
    PD(RemoveWorkerResponse) response = PD_INIT(REMOVE_WORKER_RESPONSE);
    if (status != STATUS_OK) {
        driver_fail(rpc, status, error);
        return;
    }
    pthread_mutex_lock(&driver->lock);
    presence_remove_worker(&driver->presence, id_from_text(request->worker_id));
    pthread_mutex_unlock(&driver->lock);
    response.success = true;
    rpc_reply(rpc, &response.base);
}

static void change_worker(struct rpc *rpc, struct driver *driver, enum command_kind kind,
                          const char *id_text, driver_done_fn done)
{
    struct command command = {.kind = kind, .worker_id = id_from_text(id_text)};
    if (command.worker_id == 0) // no id is, and none was ever given that is no number
        rpc_fail(rpc, STATUS_NOT_FOUND, "worker \"%.32s\" not found", id_text);
    else
        driver_propose(driver, rpc, &command, done, driver);
}

void worker_drain(struct rpc *rpc, void *context)
{
    const PD(DrainWorkerRequest) *request = (const void *)rpc_request(rpc);
    change_worker(rpc, context, COMMAND_DRAIN_WORKER, request->worker_id, drained);
}

void worker_remove(struct rpc *rpc, void *context)
{
    const PD(RemoveWorkerRequest) *request = (const void *)rpc_request(rpc);
    change_worker(rpc, context, COMMAND_REMOVE_WORKER, request->worker_id, removed);
}

// --- The cluster as a whole

static void rebalance(struct driver *driver, struct rpc *rpc)
{
    PD(RebalanceResponse) response = PD_INIT(REBALANCE_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    // A shard that is no group has one copy, and moving it would take it away while it moves.
    response.started = driver->replication_factor > 0;
    driver->schedule.is_eager = response.started;
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
}

void workers_rebalance(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, rebalance);
}

void leader_get(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    PD(GetLeaderResponse) response = PD_INIT(GET_LEADER_RESPONSE);
    char address[sizeof(driver->address)] = {0};
    if (!replica_leader_address(driver->replica, address, sizeof(address))) {
        rpc_fail(rpc, STATUS_UNAVAILABLE, "no placement driver leads at the moment: try again");
        return;
    }
    response.leader_address = arena_cstr(rpc_arena(rpc), str_from_cstr(address));
    rpc_reply(rpc, &response.base);
}
