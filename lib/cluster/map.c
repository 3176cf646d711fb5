#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/mem.h"
#include "cluster/cluster.h"

#define MESSAGE(name) Vectron__Placementdriver__V1__##name

// Stored with every point by way of the shard that it lies in. Never change it.
#define ROUTING_SEED 0x766563746f726e31ULL

// Far above any map that fits into a message.
#define MAP_SIZE_MAX ((size_t)1 << 30)

uint64_t routing_hash(struct str point_id)
{
    return hash64(str_span(point_id), ROUTING_SEED);
}

void cluster_map_ref(struct cluster_map *map)
{
    unsigned before = atomic_fetch_add_explicit(&map->reference_count, 1, memory_order_relaxed);
    ASSERT(before > 0);
}

void cluster_map_unref(struct cluster_map *map)
{
    if (map == NULL)
        return;
    unsigned before = atomic_fetch_sub_explicit(&map->reference_count, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before > 1)
        return;
    arena_destroy(map->arena);
    mem_free(map);
}

const struct cluster_collection *cluster_map_find(const struct cluster_map *map, struct str name)
{
    uint32_t low = 0;
    uint32_t high = map->collection_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = str_compare(map->collections[middle].name, name);
        if (order == 0)
            return &map->collections[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct cluster_worker *cluster_map_worker(const struct cluster_map *map, uint64_t worker_id)
{
    uint32_t low = 0;
    uint32_t high = map->worker_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct cluster_worker *worker = &map->workers[middle];
        if (worker->worker_id == worker_id)
            return worker;
        if (worker->worker_id < worker_id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool is_listed(const uint64_t *ids, uint32_t count, uint64_t id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

bool cluster_shard_has_replica(const struct cluster_shard *shard, uint64_t worker_id)
{
    return is_listed(shard->replica_ids, shard->replica_count, worker_id);
}

bool cluster_shard_has_learner(const struct cluster_shard *shard, uint64_t worker_id)
{
    return is_listed(shard->learner_ids, shard->learner_count, worker_id);
}

const struct cluster_shard *cluster_collection_route(const struct cluster_collection *collection,
                                                     struct str point_id)
{
    // The ranges cover every hash, which cluster_map_create has checked: the last shard that starts
    // at or below the hash is the one.
    uint64_t hash = routing_hash(point_id);
    uint32_t low = 0;
    uint32_t high = collection->shard_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (collection->shards[middle].range_start <= hash)
            low = middle;
        else
            high = middle;
    }
    return &collection->shards[low];
}

// --- From the message

static enum status too_large(struct error *error)
{
    return error_set(error, STATUS_EXHAUSTED, "the cluster map takes more than %zu bytes",
                     MAP_SIZE_MAX);
}

static bool copy_text(struct arena *arena, const char *text, struct str *out)
{
    size_t size = strlen(text);
    char *copy = arena_try_alloc(arena, size + 1);
    if (copy == NULL)
        return false;
    memcpy(copy, text, size + 1);
    *out = (struct str){copy, size};
    return true;
}

static enum status copy_workers(const MESSAGE(ClusterMap) * message, struct error *error,
                                struct cluster_map *map)
{
    size_t count = message->n_workers;
    map->workers = arena_try_alloc(map->arena, (count + 1) * sizeof(*map->workers));
    if (map->workers == NULL)
        return too_large(error);
    for (size_t i = 0; i < count; i++) {
        const MESSAGE(MapWorker) *from = message->workers[i];
        struct cluster_worker *to = &map->workers[i];
        if (from->worker_id == 0 || (i > 0 && from->worker_id <= to[-1].worker_id))
            return error_set(error, STATUS_CORRUPT, "workers of the cluster map are out of order");
        to->worker_id = from->worker_id;
        to->is_healthy = from->healthy;
        to->state = CLUSTER_WORKER_UNKNOWN;
        if (from->state >= 0 && (int)from->state <= CLUSTER_WORKER_DRAINING)
            to->state = (enum cluster_worker_state)from->state;
        if (!copy_text(map->arena, from->grpc_address, &to->address))
            return too_large(error);
    }
    map->worker_count = (uint32_t)count;
    return STATUS_OK;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

// Ascending, each once.
static enum status copy_ids(const uint64_t *from, size_t count, const struct cluster_map *map,
                            struct error *error, const uint64_t **out_ids, uint32_t *out_count)
{
    uint64_t *ids = arena_try_alloc(map->arena, (count + 1) * sizeof(*ids));
    if (ids == NULL)
        return too_large(error);
    if (count > 0) {
        memcpy(ids, from, count * sizeof(*ids));
        qsort(ids, count, sizeof(*ids), compare_ids);
    }
    for (size_t i = 1; i < count; i++) {
        if (ids[i] == ids[i - 1])
            return error_set(error, STATUS_CORRUPT, "worker %" PRIu64 " is named twice", ids[i]);
    }
    *out_ids = ids;
    *out_count = (uint32_t)count;
    return STATUS_OK;
}

static enum status copy_replicas(const MESSAGE(MapShard) * from, const struct cluster_map *map,
                                 struct error *error, struct cluster_shard *to)
{
    TRY(copy_ids(from->replicas, from->n_replicas, map, error, &to->replica_ids,
                 &to->replica_count));
    TRY(copy_ids(from->learners, from->n_learners, map, error, &to->learner_ids,
                 &to->learner_count));
    for (uint32_t i = 0; i < to->learner_count; i++) {
        if (!cluster_shard_has_replica(to, to->learner_ids[i]))
            return error_set(error, STATUS_CORRUPT, "learner %" PRIu64 " is no replica",
                             to->learner_ids[i]);
    }
    return STATUS_OK;
}

static enum status copy_shard(const MESSAGE(MapShard) * from, const struct cluster_map *map,
                              struct error *error, struct cluster_shard *to)
{
    to->shard_id = from->shard_id;
    to->range_start = from->range_start;
    to->range_end = from->range_end;
    to->epoch = from->epoch;
    to->leader_id = from->leader_id;
    to->leader = from->leader_id == 0 ? NULL : cluster_map_worker(map, from->leader_id);
    if (to->leader != NULL)
        to->leader_address = to->leader->address;
    to->wanted_leader_id = from->wanted_leader_id;
    enum status status = copy_replicas(from, map, error, to);
    return status == STATUS_OK ? status : error_prefix(error, status, "shard %u", to->shard_id);
}

static enum status copy_shards(const MESSAGE(MapCollection) * from, const struct cluster_map *map,
                               struct error *error, struct cluster_collection *to)
{
    struct cluster_shard *shards =
        arena_try_alloc(map->arena, (from->n_shards + 1) * sizeof(*shards));
    if (shards == NULL)
        return too_large(error);
    uint64_t next = 0;
    for (size_t i = 0; i < from->n_shards; i++) {
        TRY(copy_shard(from->shards[i], map, error, &shards[i]));
        bool is_last = i + 1 == from->n_shards;
        if (shards[i].range_start != next || shards[i].range_end < next ||
            is_last != (shards[i].range_end == UINT64_MAX))
            return error_set(error, STATUS_CORRUPT, "shard %u does not join its neighbours",
                             shards[i].shard_id);
        next = shards[i].range_end + 1;
    }
    if (from->n_shards == 0)
        return error_set(error, STATUS_CORRUPT, "it has no shards");
    to->shards = shards;
    to->shard_count = (uint32_t)from->n_shards;
    return STATUS_OK;
}

static enum status copy_collections(const MESSAGE(ClusterMap) * message, struct error *error,
                                    struct cluster_map *map)
{
    size_t count = message->n_collections;
    struct cluster_collection *collections =
        arena_try_alloc(map->arena, (count + 1) * sizeof(*collections));
    if (collections == NULL)
        return too_large(error);
    for (size_t i = 0; i < count; i++) {
        const MESSAGE(MapCollection) *from = message->collections[i];
        struct cluster_collection *to = &collections[i];
        if (!copy_text(map->arena, from->name, &to->name) ||
            !copy_text(map->arena, from->distance, &to->distance))
            return too_large(error);
        if (i > 0 && str_compare(to[-1].name, to->name) >= 0)
            return error_set(error, STATUS_CORRUPT,
                             "collections of the cluster map are out of order");
        to->dimension = from->dimension < 0 ? 0 : (uint32_t)from->dimension;
        to->created_at = from->created_at < 0 ? 0 : (uint64_t)from->created_at;
        enum status status = copy_shards(from, map, error, to);
        if (status != STATUS_OK)
            return error_prefix(error, status, "collection %.*s", STR_ARG(to->name));
    }
    map->collections = collections;
    map->collection_count = (uint32_t)count;
    return STATUS_OK;
}

enum status cluster_map_create(const MESSAGE(ClusterMap) * message, struct error *error,
                               struct cluster_map **out_map)
{
    struct cluster_map *map = mem_alloc(sizeof(*map));
    atomic_init(&map->reference_count, 1);
    map->arena = arena_create(MAP_SIZE_MAX);
    map->version = message->version;
    enum status status = STATUS_OK;
    if (!copy_text(map->arena, message->incarnation, &map->incarnation))
        status = too_large(error);
    if (status == STATUS_OK)
        status = copy_workers(message, error, map);
    if (status == STATUS_OK)
        status = copy_collections(message, error, map);
    if (status != STATUS_OK) {
        cluster_map_unref(map);
        return status;
    }
    *out_map = map;
    return STATUS_OK;
}
