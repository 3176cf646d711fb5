#include "apigateway/management_print.h"

#include <string.h>

#include "api/json.h"
#include "apigateway/collection_find.h"
#include "apigateway/stats.h"
#include "base/clock.h"
#include "base/map.h"

// --- Pieces

// A comma, unless this is the first thing in its brackets or the value of a name.
static void separate(struct buf *out)
{
    struct str text = buf_str(out);
    char last = text.len > 0 ? text.data[text.len - 1] : '{';
    if (last != '{' && last != '[' && last != ':')
        buf_append_byte(out, ',');
}

static void print_name(struct buf *out, const char *name)
{
    separate(out);
    buf_append_format(out, "\"%s\":", name);
}

static void open_object(struct buf *out)
{
    separate(out);
    buf_append_byte(out, '{');
}

static void open_array(struct buf *out, const char *name)
{
    print_name(out, name);
    buf_append_byte(out, '[');
}

static void print_text(struct buf *out, const char *name, struct str text)
{
    print_name(out, name);
    json_append_string(out, text);
}

static void print_u64(struct buf *out, const char *name, uint64_t value)
{
    print_name(out, name);
    buf_append_format(out, "%llu", (unsigned long long)value);
}

static void print_double(struct buf *out, const char *name, double value)
{
    print_name(out, name);
    json_append_double(out, value);
}

static void print_bool(struct buf *out, const char *name, bool value)
{
    print_name(out, name);
    buf_append_cstr(out, value ? "true" : "false");
}

// Ids are decimal text, as everywhere.
static void print_id(struct buf *out, uint64_t id)
{
    separate(out);
    buf_append_format(out, "\"%llu\"", (unsigned long long)id);
}

static void print_leader_and_replicas(struct buf *out, const struct cluster_shard *shard)
{
    print_name(out, "leader");
    print_id(out, shard->leader_id);
    open_array(out, "replicas");
    for (uint32_t i = 0; i < shard->replica_count; i++)
        print_id(out, shard->replica_ids[i]);
    buf_append_byte(out, ']');
}

// --- What a worker said of a shard

// From shard id to its Vectron__Worker__V1__ShardInfo, of one worker.
static struct map *index_shards(const Vectron__Worker__V1__ListShardsResponse *answer)
{
    struct map *index = map_create();
    for (size_t i = 0; answer != NULL && i < answer->n_shards; i++)
        (void)map_put(index,
                      (struct str){(const char *)&answer->shards[i]->shard_id, sizeof(uint32_t)},
                      answer->shards[i]);
    return index;
}

static const Vectron__Worker__V1__ShardInfo *find_shard(const struct map *index, uint32_t shard_id)
{
    return map_get(index, (struct str){(const char *)&shard_id, sizeof(shard_id)});
}

// Worker by worker as in the cluster map.
struct shard_indexes {
    struct map **all;
    uint32_t count;
};

static struct shard_indexes index_workers(const struct survey *survey)
{
    uint32_t count = survey->map != NULL ? survey->map->worker_count : 0;
    struct shard_indexes indexes = {
        .all = arena_alloc(survey->arena, (count + 1) * sizeof(*indexes.all)),
        .count = count,
    };
    for (uint32_t i = 0; i < count; i++)
        indexes.all[i] = index_shards(survey_shards(survey, survey->map->workers[i].worker_id));
    return indexes;
}

static void drop_indexes(const struct shard_indexes *indexes)
{
    for (uint32_t i = 0; i < indexes->count; i++)
        map_destroy(indexes->all[i]);
}

struct shard_sums {
    uint64_t vectors; // of the leaders
    uint64_t bytes;   // of all replicas
    bool has_leader_answer;
};

static struct shard_sums sum_shard(const struct survey *survey, const struct shard_indexes *indexes,
                                   const struct cluster_shard *shard)
{
    struct shard_sums sums = {0};
    for (uint32_t i = 0; i < indexes->count; i++) {
        const Vectron__Worker__V1__ShardInfo *info = find_shard(indexes->all[i], shard->shard_id);
        if (info == NULL)
            continue;
        sums.bytes += info->disk_bytes;
        if (survey->map->workers[i].worker_id == shard->leader_id) {
            sums.vectors = info->points;
            sums.has_leader_answer = true;
        }
    }
    return sums;
}

// --- Health

static const char *service_name(enum survey_kind kind)
{
    static const char *const names[] = {
        [SURVEY_PLACEMENT_DRIVER] = "placementdriver",
        [SURVEY_WORKER] = "worker",
        [SURVEY_AUTH] = "authsvc",
        [SURVEY_RERANKER] = "reranker",
        [SURVEY_WORKER_LIST] = "placementdriver",
    };
    return names[kind];
}

static void print_service(struct buf *out, const char *name, struct str address,
                          const struct survey_item *item, int64_t at)
{
    const char *status = item == NULL || item->is_reached ? "healthy" : "unreachable";
    open_object(out);
    print_text(out, "name", str_from_cstr(name));
    print_text(out, "status", str_from_cstr(status));
    print_text(out, "address", address);
    print_double(out, "responseMs", item != NULL ? item->response_ms : 0);
    print_u64(out, "lastCheck", (uint64_t)at);
    print_text(out, "error", item != NULL ? item->error : STR(""));
    buf_append_byte(out, '}');
}

static void print_totals(const struct survey *survey, struct buf *out)
{
    struct shard_sums sums = {0};
    uint64_t memory_bytes = 0;
    double cpu_percent = 0;
    uint32_t collection_count = survey->map != NULL ? survey->map->collection_count : 0;
    struct shard_indexes indexes = index_workers(survey);
    for (uint32_t i = 0; i < collection_count; i++) {
        const struct cluster_collection *collection = &survey->map->collections[i];
        for (uint32_t j = 0; j < collection->shard_count; j++) {
            struct shard_sums shard = sum_shard(survey, &indexes, &collection->shards[j]);
            sums.vectors += shard.vectors;
            sums.bytes += shard.bytes;
        }
    }
    for (uint32_t i = 0; i < indexes.count; i++) {
        const Vectron__Worker__V1__ListShardsResponse *answer =
            survey_shards(survey, survey->map->workers[i].worker_id);
        memory_bytes += answer != NULL ? answer->resident_bytes : 0;
        cpu_percent += stats_cpu_percent(answer, survey->at);
    }
    drop_indexes(&indexes);
    open_object(out);
    print_u64(out, "vectors", sums.vectors);
    print_u64(out, "collections", collection_count);
    print_u64(out, "workers", indexes.count);
    print_u64(out, "bytesStored", sums.bytes);
    print_u64(out, "memoryBytes", memory_bytes);
    print_double(out, "cpuPercent", cpu_percent);
    print_double(out, "networkBytesPerSecond", stats_network_bytes_per_second(survey->gateway));
    buf_append_byte(out, '}');
}

void management_print_health(const struct survey *survey, struct buf *out)
{
    const struct gateway *gateway = survey->gateway;
    const char *status = survey->critical_count > 0  ? "critical"
                         : survey->warning_count > 0 ? "degraded"
                                                     : "healthy";
    open_object(out);
    print_text(out, "status", str_from_cstr(status));
    open_array(out, "services");
    for (uint32_t i = 0; i < survey->item_count; i++) {
        const struct survey_item *item = &survey->items[i];
        if (item->kind != SURVEY_WORKER_LIST)
            print_service(out, service_name(item->kind), item->address, item, survey->at);
    }
    print_service(out, "apigateway", str_from_cstr(gateway->http_address), NULL, survey->at);
    buf_append_byte(out, ']');
    print_name(out, "alerts");
    alerts_print(gateway->alerts, STR("active"), STR(""), out);
    print_name(out, "totals");
    print_totals(survey, out);
    buf_append_byte(out, '}');
}

// --- Workers

static const Vectron__Placementdriver__V1__WorkerInfo *find_info(const struct survey *survey,
                                                                 uint64_t worker_id)
{
    const Vectron__Placementdriver__V1__ListWorkersResponse *list = survey_workers(survey);
    for (size_t i = 0; list != NULL && i < list->n_workers; i++) {
        uint64_t id;
        if (str_to_u64(str_from_cstr(list->workers[i]->worker_id), &id) && id == worker_id)
            return list->workers[i];
    }
    return NULL;
}

static struct str find_metadata(const Vectron__Placementdriver__V1__WorkerInfo *info,
                                const char *name)
{
    for (size_t i = 0; info != NULL && i < info->n_metadata; i++) {
        if (strcmp(info->metadata[i]->key, name) == 0)
            return str_from_cstr(info->metadata[i]->value);
    }
    return STR("");
}

static const char *state_name(enum cluster_worker_state state)
{
    static const char *const names[] = {
        [CLUSTER_WORKER_UNKNOWN] = "unknown",
        [CLUSTER_WORKER_JOINING] = "joining",
        [CLUSTER_WORKER_READY] = "ready",
        [CLUSTER_WORKER_DRAINING] = "draining",
    };
    return names[state];
}

static const char *shard_status(const struct cluster_shard *shard,
                                const Vectron__Worker__V1__ShardInfo *info)
{
    if (info == NULL)
        return "missing";
    return shard->leader == NULL ? "leaderless" : "running";
}

static void print_worker_shards(const struct survey *survey, uint64_t worker_id,
                                const struct map *index, struct buf *out)
{
    open_array(out, "shards");
    for (uint32_t i = 0; i < survey->map->collection_count; i++) {
        const struct cluster_collection *collection = &survey->map->collections[i];
        for (uint32_t j = 0; j < collection->shard_count; j++) {
            const struct cluster_shard *shard = &collection->shards[j];
            if (!cluster_shard_has_replica(shard, worker_id))
                continue;
            const Vectron__Worker__V1__ShardInfo *info = find_shard(index, shard->shard_id);
            open_object(out);
            print_u64(out, "shardId", shard->shard_id);
            print_text(out, "collection", collection->name);
            print_leader_and_replicas(out, shard);
            print_u64(out, "vectors", info != NULL ? info->points : 0);
            print_u64(out, "bytes", info != NULL ? info->disk_bytes : 0);
            print_text(out, "status", str_from_cstr(shard_status(shard, info)));
            buf_append_byte(out, '}');
        }
    }
    buf_append_byte(out, ']');
}

static void print_worker(const struct survey *survey, const struct cluster_worker *worker,
                         struct buf *out)
{
    const Vectron__Placementdriver__V1__WorkerInfo *info = find_info(survey, worker->worker_id);
    const Vectron__Worker__V1__ListShardsResponse *answer =
        survey_shards(survey, worker->worker_id);
    uint64_t vectors = 0;
    uint64_t disk_bytes = 0;
    for (size_t i = 0; answer != NULL && i < answer->n_shards; i++) {
        vectors += answer->shards[i]->points;
        disk_bytes += answer->shards[i]->disk_bytes;
    }
    int64_t uptime = answer != NULL && answer->started_at > 0 ? survey->at - answer->started_at : 0;
    struct str role = find_metadata(info, "role");
    open_object(out);
    print_name(out, "workerId");
    print_id(out, worker->worker_id);
    print_text(out, "grpcAddress", worker->address);
    print_text(out, "raftAddress", info != NULL ? str_from_cstr(info->raft_address) : STR(""));
    print_text(out, "state", str_from_cstr(state_name(worker->state)));
    print_bool(out, "healthy", worker->is_healthy);
    print_u64(out, "lastHeartbeat",
              info != NULL && info->last_heartbeat > 0 ? (uint64_t)info->last_heartbeat : 0);
    print_text(out, "role", role.len > 0 ? role : STR("worker"));
    print_text(out, "zone", find_metadata(info, "zone"));
    print_u64(out, "vectors", vectors);
    print_u64(out, "memoryBytes", answer != NULL ? answer->resident_bytes : 0);
    print_double(out, "cpuPercent", stats_cpu_percent(answer, survey->at));
    print_u64(out, "diskBytes", disk_bytes);
    print_u64(out, "uptimeSeconds", uptime > 0 ? (uint64_t)uptime : 0);
    struct map *index = index_shards(answer);
    print_worker_shards(survey, worker->worker_id, index, out);
    map_destroy(index);
    buf_append_byte(out, '}');
}

void management_print_workers(const struct survey *survey, struct buf *out)
{
    buf_append_cstr(out, "{\"workers\":[");
    for (uint32_t i = 0; survey->map != NULL && i < survey->map->worker_count; i++)
        print_worker(survey, &survey->map->workers[i], out);
    buf_append_byte(out, ']');
    buf_append_byte(out, '}');
}

// --- Collections

static void print_collection(const struct survey *survey, const struct shard_indexes *indexes,
                             const struct cluster_collection *collection, struct buf *out)
{
    struct shard_sums sums = {0};
    struct str bare = collection_bare_name(collection);
    struct str owner = {0};
    if (bare.len < collection->name.len)
        owner = (struct str){collection->name.data, collection->name.len - bare.len - 1};
    open_object(out);
    print_text(out, "name", bare);
    print_text(out, "owner", owner);
    print_u64(out, "dimension", collection->dimension);
    print_text(out, "distance", collection->distance);
    print_u64(out, "createdAt", collection->created_at);
    open_array(out, "shards");
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        const struct cluster_shard *shard = &collection->shards[i];
        struct shard_sums one = sum_shard(survey, indexes, shard);
        sums.vectors += one.vectors;
        sums.bytes += one.bytes;
        open_object(out);
        print_u64(out, "shardId", shard->shard_id);
        print_leader_and_replicas(out, shard);
        print_bool(out, "ready", shard->leader != NULL && one.has_leader_answer);
        // Nobody is behind a leader that is alone; with more replicas it is not measured.
        print_name(out, "lag");
        buf_append_cstr(out, shard->replica_count == 1 ? "0" : "null");
        buf_append_byte(out, '}');
    }
    buf_append_byte(out, ']');
    print_u64(out, "vectors", sums.vectors);
    print_u64(out, "bytes", sums.bytes);
    buf_append_byte(out, '}');
}

void management_print_collections(const struct survey *survey, struct buf *out)
{
    struct shard_indexes indexes = index_workers(survey);
    buf_append_cstr(out, "{\"collections\":[");
    for (uint32_t i = 0; survey->map != NULL && i < survey->map->collection_count; i++)
        print_collection(survey, &indexes, &survey->map->collections[i], out);
    buf_append_byte(out, ']');
    buf_append_byte(out, '}');
    drop_indexes(&indexes);
}
