#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "placementdriver/driver.h"
#include "placementdriver/names.h"

// Collections: create, list, delete, status, and which worker has a point.

static struct collection *find_or_fail(const struct driver *driver, struct rpc *rpc,
                                       const char *name)
{
    struct str text = str_from_cstr(name);
    struct collection *collection = state_collection(&driver->state, text);
    struct str short_name = collection_short_name(text);
    if (collection == NULL)
        rpc_fail(rpc, STATUS_NOT_FOUND, "collection \"%.*s\" not found",
                 short_name.len < 256 ? (int)short_name.len : 256, short_name.data);
    return collection;
}

// --- Create

static void created(struct rpc *rpc, enum status status, uint64_t value, const struct error *error,
                    void *context)
{
    (void)value;
    (void)context;
    PD(CreateCollectionResponse) response = PD_INIT(CREATE_COLLECTION_RESPONSE);
    if (status != STATUS_OK) {
        driver_fail(rpc, status, error);
        return;
    }
    response.success = true;
    rpc_reply(rpc, &response.base);
}

static enum status read_create(const PD(CreateCollectionRequest) * request, struct error *error,
                               struct command *out_command)
{
    struct str distance = str_from_cstr(request->distance);
    TRY(check_collection_name(str_from_cstr(request->name), error));
    if (request->dimension < 1 || request->dimension > LIMIT_DIMENSION_MAX)
        return error_set(error, STATUS_INVALID, "dimension is %d; it must be 1 to %d",
                         request->dimension, LIMIT_DIMENSION_MAX);
    if (!distance_parse(distance, &out_command->distance))
        return error_set(error, STATUS_INVALID,
                         "distance \"%.*s\" is unknown; it must be cosine, euclidean or dot",
                         distance.len < 64 ? (int)distance.len : 64, distance.data);
    out_command->name = str_from_cstr(request->name);
    out_command->dimension = (uint32_t)request->dimension;
    return STATUS_OK;
}

// The ids of the workers that are healthy now, for the command; they lie in the arena.
static void add_candidates(struct driver *driver, struct arena *arena, struct command *command)
{
    pthread_mutex_lock(&driver->lock);
    uint64_t *ids = arena_alloc(arena, (driver->state.worker_count + 1) * sizeof(*ids));
    for (uint32_t i = 0; i < driver->state.worker_count; i++) {
        uint64_t id = driver->state.workers[i]->id;
        if (presence_is_healthy(&driver->presence, id))
            ids[command->candidate_count++] = id;
    }
    pthread_mutex_unlock(&driver->lock);
    command->candidate_ids = ids;
}

void collection_create(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    struct command command = {
        .kind = COMMAND_CREATE_COLLECTION,
        .now = (uint64_t)clock_unix_seconds(),
        .shard_count = driver->default_shard_count,
        .replication_factor = driver->replication_factor,
    };
    struct error error;
    enum status status = read_create((const void *)rpc_request(rpc), &error, &command);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    add_candidates(driver, rpc_arena(rpc), &command);
    driver_propose(driver, rpc, &command, created, driver);
}

// --- List and delete

static void list_collections(struct driver *driver, struct rpc *rpc)
{
    struct arena *arena = rpc_arena(rpc);
    PD(ListCollectionsResponse) response = PD_INIT(LIST_COLLECTIONS_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    struct table_cursor cursor = table_seek(&driver->state.collections, STR(""));
    const struct collection *collection;
    response.collections =
        arena_alloc(arena, (driver->state.collections.count + 1) * sizeof(char *));
    while ((collection = table_next(&cursor)) != NULL)
        response.collections[response.n_collections++] = arena_cstr(arena, collection->name);
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
}

void collection_list(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, list_collections);
}

static void deleted(struct rpc *rpc, enum status status, uint64_t value, const struct error *error,
                    void *context)
{
    (void)value;
    (void)context;
    PD(DeleteCollectionResponse) response = PD_INIT(DELETE_COLLECTION_RESPONSE);
    if (status != STATUS_OK) {
        driver_fail(rpc, status, error);
        return;
    }
    response.success = true;
    rpc_reply(rpc, &response.base);
}

void collection_delete(struct rpc *rpc, void *context)
{
    const PD(DeleteCollectionRequest) *request = (const void *)rpc_request(rpc);
    struct command command = {.kind = COMMAND_DELETE_COLLECTION,
                              .name = str_from_cstr(request->name)};
    driver_propose(context, rpc, &command, deleted, context);
}

// --- Status

static char *address_of(const struct driver *driver, uint64_t worker_id, struct arena *arena)
{
    const struct worker *worker = state_worker(&driver->state, worker_id);
    return arena_cstr(arena, worker != NULL ? worker->profile.grpc_address : STR(""));
}

static void fill_shard(const struct driver *driver, const struct shard *shard, struct arena *arena,
                       PD(ShardStatus) * out)
{
    vectron__placementdriver__v1__shard_status__init(out);
    out->shard_id = shard->id;
    out->leader_id = driver_shard_leader(driver, shard);
    out->ready = presence_is_healthy(&driver->presence, out->leader_id) &&
                 presence_runs_shard(&driver->presence, out->leader_id, shard->id);
    out->key_range_start = shard->range_start;
    out->key_range_end = shard->range_end;
    out->shard_epoch = shard->epoch;
    out->leader_grpc_address = address_of(driver, out->leader_id, arena);
    out->n_replicas = shard->replica_count;
    out->n_replica_grpc_addresses = shard->replica_count;
    out->replicas = arena_alloc(arena, shard->replica_count * sizeof(*out->replicas));
    out->replica_grpc_addresses = arena_alloc(arena, shard->replica_count * sizeof(char *));
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        out->replicas[i] = shard->replica_ids[i];
        out->replica_grpc_addresses[i] = address_of(driver, shard->replica_ids[i], arena);
    }
}

static void fill_status(const struct driver *driver, const struct collection *collection,
                        struct arena *arena, PD(GetCollectionStatusResponse) * out)
{
    PD(ShardStatus) *shards = arena_alloc(arena, collection->shard_count * sizeof(*shards));
    out->name = arena_cstr(arena, collection->name);
    out->dimension = (int32_t)collection->dimension;
    out->distance = arena_cstr(arena, str_from_cstr(distance_text(collection->distance)));
    out->shards = arena_alloc(arena, collection->shard_count * sizeof(*out->shards));
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        fill_shard(driver, &collection->shards[i], arena, &shards[i]);
        out->shards[out->n_shards++] = &shards[i];
    }
}

static void get_status(struct driver *driver, struct rpc *rpc)
{
    const PD(GetCollectionStatusRequest) *request = (const void *)rpc_request(rpc);
    PD(GetCollectionStatusResponse) response = PD_INIT(GET_COLLECTION_STATUS_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    const struct collection *collection = find_or_fail(driver, rpc, request->name);
    if (collection != NULL)
        fill_status(driver, collection, rpc_arena(rpc), &response);
    pthread_mutex_unlock(&driver->lock);
    if (collection != NULL)
        rpc_reply(rpc, &response.base);
}

void collection_status(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, get_status);
}

// --- Where a point is

static const struct shard *shard_of(const struct collection *collection, struct str point_id)
{
    uint64_t hash = routing_hash(point_id);
    const struct shard *shard = collection->shards;
    while (hash > shard->range_end)
        shard++;
    return shard;
}

// How long the leader counts as healthy without a further heartbeat, as a time of day.
static int64_t lease_end_ms(const struct worker_presence *presence)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t left_ns =
        presence->healthy_until_ns > now_ns ? presence->healthy_until_ns - now_ns : 0;
    return (int64_t)(clock_unix_ms() + left_ns / NS_PER_MS);
}

static void route(struct driver *driver, struct rpc *rpc)
{
    const PD(GetWorkerRequest) *request = (const void *)rpc_request(rpc);
    PD(GetWorkerResponse) response = PD_INIT(GET_WORKER_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    const struct collection *collection = find_or_fail(driver, rpc, request->collection);
    if (collection != NULL) {
        const struct shard *shard = shard_of(collection, str_from_cstr(request->vector_id));
        uint64_t leader_id = driver_shard_leader(driver, shard);
        const struct worker_presence *presence = presence_worker(&driver->presence, leader_id);
        response.shard_id = shard->id;
        response.shard_epoch = shard->epoch;
        response.grpc_address = address_of(driver, leader_id, rpc_arena(rpc));
        if (presence != NULL && presence->is_healthy)
            response.lease_expiry_unix_ms = lease_end_ms(presence);
        else
            rpc_fail(rpc, STATUS_UNAVAILABLE, "shard %u has no leader now: try again", shard->id);
    }
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base); // nothing when it has failed
}

void collection_route(struct rpc *rpc, void *context)
{
    const PD(GetWorkerRequest) *request = (const void *)rpc_request(rpc);
    size_t size = strlen(request->vector_id);
    if (size == 0 || size > LIMIT_POINT_ID_SIZE_MAX)
        rpc_fail(rpc, STATUS_INVALID, "vector_id has %zu bytes; it must have 1 to %d", size,
                 LIMIT_POINT_ID_SIZE_MAX);
    else
        driver_read(context, rpc, route);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_listed(char *const *texts, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(texts[i], text) == 0)
            return true;
    }
    return false;
}

static void list_addresses(struct driver *driver, struct rpc *rpc)
{
    const PD(ListWorkersForCollectionRequest) *request = (const void *)rpc_request(rpc);
    PD(ListWorkersForCollectionResponse) response = PD_INIT(LIST_WORKERS_FOR_COLLECTION_RESPONSE);
    struct arena *arena = rpc_arena(rpc);
    pthread_mutex_lock(&driver->lock);
    const struct collection *collection = find_or_fail(driver, rpc, request->collection);
    uint32_t shard_count = collection != NULL ? collection->shard_count : 0;
    response.grpc_addresses =
        arena_alloc(arena, ((size_t)shard_count * STATE_REPLICA_COUNT_MAX + 1) * sizeof(char *));
    for (uint32_t i = 0; i < shard_count; i++) {
        const struct shard *shard = &collection->shards[i];
        for (uint32_t k = 0; k < shard->replica_count; k++) {
            char *address = address_of(driver, shard->replica_ids[k], arena);
            if (!is_listed(response.grpc_addresses, response.n_grpc_addresses, address))
                response.grpc_addresses[response.n_grpc_addresses++] = address;
        }
    }
    pthread_mutex_unlock(&driver->lock);
    qsort(response.grpc_addresses, response.n_grpc_addresses, sizeof(char *), compare_texts);
    rpc_reply(rpc, &response.base); // nothing when it has failed
}

void collection_workers(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, list_addresses);
}
