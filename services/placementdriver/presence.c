#include "placementdriver/presence.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/loop.h"
#include "placementdriver/state_internal.h"

#define MESSAGE(name) Vectron__Placementdriver__V1__##name

void presence_init(struct presence *presence)
{
    *presence = (struct presence){.next_reranker_id = 1, .shards = map_create()};
}

static void free_worker(const struct worker_presence *worker)
{
    mem_free(worker->running_shards);
    mem_free(worker->progress);
}

static void free_reranker(const struct reranker *reranker)
{
    text_free(reranker->address);
    text_free(reranker->rack);
    text_free(reranker->zone);
    text_free(reranker->region);
    text_free(reranker->capabilities);
}

void presence_deinit(struct presence *presence)
{
    for (uint32_t i = 0; i < presence->worker_count; i++)
        free_worker(&presence->workers[i]);
    for (uint32_t i = 0; i < presence->reranker_count; i++)
        free_reranker(&presence->rerankers[i]);
    mem_free(presence->workers);
    mem_free(presence->rerankers);
    presence_keep_shards(presence, NULL, 0);
    map_destroy(presence->shards);
    *presence = (struct presence){0};
}

// --- Workers

// The first whose id is not below.
static uint32_t find_place(const struct presence *presence, uint64_t worker_id)
{
    uint32_t low = 0;
    uint32_t high = presence->worker_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (presence->workers[middle].worker_id < worker_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct worker_presence *presence_worker(const struct presence *presence, uint64_t worker_id)
{
    uint32_t place = find_place(presence, worker_id);
    bool is_there =
        place < presence->worker_count && presence->workers[place].worker_id == worker_id;
    return is_there ? &presence->workers[place] : NULL;
}

static struct worker_presence *find_or_add(struct presence *presence, uint64_t worker_id)
{
    uint32_t place = find_place(presence, worker_id);
    if (place < presence->worker_count && presence->workers[place].worker_id == worker_id)
        return &presence->workers[place];
    if (presence->worker_count == presence->worker_capacity) {
        presence->worker_capacity =
            presence->worker_capacity == 0 ? 8 : presence->worker_capacity * 2;
        presence->workers =
            mem_resize(presence->workers, presence->worker_capacity * sizeof(*presence->workers));
    }
    struct worker_presence *worker = &presence->workers[place];
    memmove(worker + 1, worker, (presence->worker_count - place) * sizeof(*worker));
    presence->worker_count++;
    *worker = (struct worker_presence){.worker_id = worker_id};
    return worker;
}

bool presence_expect_worker(struct presence *presence, uint64_t worker_id,
                            uint64_t healthy_until_ns)
{
    struct worker_presence *worker = find_or_add(presence, worker_id);
    bool has_changed = !worker->is_healthy;
    if (worker->healthy_until_ns < healthy_until_ns)
        worker->healthy_until_ns = healthy_until_ns;
    worker->is_healthy = true;
    return has_changed;
}

void presence_remove_worker(struct presence *presence, uint64_t worker_id)
{
    uint32_t place = find_place(presence, worker_id);
    if (place == presence->worker_count || presence->workers[place].worker_id != worker_id)
        return;
    struct worker_presence *worker = &presence->workers[place];
    free_worker(worker);
    presence->worker_count--;
    memmove(worker, worker + 1, (presence->worker_count - place) * sizeof(*worker));
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void set_running_shards(struct worker_presence *worker, const uint64_t *shards, size_t count)
{
    mem_free(worker->running_shards);
    worker->running_shards = mem_alloc((count + 1) * sizeof(*shards));
    if (count > 0) {
        memcpy(worker->running_shards, shards, count * sizeof(*shards));
        qsort(worker->running_shards, count, sizeof(*shards), compare_ids);
    }
    worker->running_shard_count = (uint32_t)count;
}

static int compare_progress(const void *a, const void *b)
{
    uint32_t left = ((const struct shard_progress *)a)->shard_id;
    uint32_t right = ((const struct shard_progress *)b)->shard_id;
    return left < right ? -1 : left > right;
}

static void set_progress(struct worker_presence *worker, const MESSAGE(HeartbeatRequest) * request)
{
    mem_free(worker->progress);
    worker->progress = mem_alloc((request->n_shard_progress + 1) * sizeof(*worker->progress));
    worker->progress_count = 0;
    for (size_t i = 0; i < request->n_shard_progress; i++) {
        const MESSAGE(ShardProgressInfo) *info = request->shard_progress[i];
        if (info->shard_id <= UINT32_MAX)
            worker->progress[worker->progress_count++] =
                (struct shard_progress){(uint32_t)info->shard_id, info->applied_index};
    }
    if (worker->progress_count > 1)
        qsort(worker->progress, worker->progress_count, sizeof(*worker->progress),
              compare_progress);
}

uint64_t presence_applied_index(const struct presence *presence, uint64_t worker_id,
                                uint32_t shard_id)
{
    const struct worker_presence *worker = presence_worker(presence, worker_id);
    const struct shard_progress key = {.shard_id = shard_id};
    if (worker == NULL || worker->progress_count == 0)
        return 0;
    const struct shard_progress *found =
        bsearch(&key, worker->progress, worker->progress_count, sizeof(key), compare_progress);
    return found != NULL ? found->applied_index : 0;
}

// --- Shards

static struct str shard_key(const uint32_t *shard_id)
{
    return (struct str){(const char *)shard_id, sizeof(*shard_id)};
}

const struct shard_presence *presence_shard(const struct presence *presence, uint32_t shard_id)
{
    return map_get(presence->shards, shard_key(&shard_id));
}

size_t presence_shard_count(const struct presence *presence)
{
    return map_count(presence->shards);
}

static struct shard_presence *find_or_add_shard(struct presence *presence, uint32_t shard_id)
{
    struct shard_presence *shard = map_get(presence->shards, shard_key(&shard_id));
    if (shard == NULL) {
        shard = mem_alloc(sizeof(*shard));
        shard->shard_id = shard_id;
        (void)map_put(presence->shards, shard_key(&shard_id), shard);
    }
    return shard;
}

// Any replica may say who leads: the highest term is right, for it has one leader.
static bool hear_leaders(struct presence *presence, const MESSAGE(HeartbeatRequest) * request)
{
    bool has_changed = false;
    for (size_t i = 0; i < request->n_shard_leader_info; i++) {
        const MESSAGE(ShardLeaderInfo) *info = request->shard_leader_info[i];
        if (info->term == 0 || info->leader_id == 0 || info->shard_id > UINT32_MAX)
            continue; // it is no Raft group, or knows no leader
        struct shard_presence *shard = find_or_add_shard(presence, (uint32_t)info->shard_id);
        if (info->term <= shard->term)
            continue;
        has_changed = has_changed || shard->leader_id != info->leader_id;
        shard->leader_id = info->leader_id;
        shard->term = info->term;
    }
    return has_changed;
}

// Only the leader's word counts: the others may be behind.
static void hear_members(struct presence *presence, uint64_t worker_id,
                         const MESSAGE(HeartbeatRequest) * request)
{
    for (size_t i = 0; i < request->n_shard_membership; i++) {
        const MESSAGE(ShardMembershipInfo) *info = request->shard_membership[i];
        uint32_t shard_id = (uint32_t)info->shard_id;
        struct shard_presence *shard = map_get(presence->shards, shard_key(&shard_id));
        if (shard == NULL || shard->shard_id != info->shard_id || shard->leader_id != worker_id ||
            info->n_node_ids > STATE_REPLICA_COUNT_MAX)
            continue;
        shard->member_count = (uint32_t)info->n_node_ids;
        for (size_t k = 0; k < info->n_node_ids; k++)
            shard->member_ids[k] = info->node_ids[k];
    }
}

static bool is_listed(const uint32_t *ids, size_t count, uint32_t id)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ids[low] == id;
}

void presence_keep_shards(struct presence *presence, const uint32_t *shard_ids, size_t count)
{
    struct map *kept = map_create();
    size_t position = 0;
    struct str key;
    void *value = NULL;
    while (map_next(presence->shards, &position, &key, &value)) {
        struct shard_presence *shard = value;
        if (is_listed(shard_ids, count, shard->shard_id))
            (void)map_put(kept, key, shard);
        else
            mem_free(shard);
    }
    map_destroy(presence->shards);
    presence->shards = kept;
}

// --- Heartbeats

static uint64_t count_from(int64_t number)
{
    return number < 0 ? 0 : (uint64_t)number;
}

static uint64_t healthy_until(uint64_t now_ns)
{
    return now_ns + PRESENCE_HEALTHY_SECONDS * NS_PER_SECOND;
}

bool presence_heartbeat(struct presence *presence, uint64_t worker_id,
                        const MESSAGE(HeartbeatRequest) * request, uint64_t now_ns,
                        int64_t unix_seconds)
{
    bool has_changed = presence_expect_worker(presence, worker_id, healthy_until(now_ns));
    struct worker_presence *worker = find_or_add(presence, worker_id);
    worker->heard_at = unix_seconds;
    worker->load = (struct presence_load){
        .vector_count = count_from(request->vector_count),
        .memory_bytes = count_from(request->memory_bytes),
        .active_shards = count_from(request->active_shards),
        .cpu_percent = request->cpu_usage_percent,
        .memory_percent = request->memory_usage_percent,
        .disk_percent = request->disk_usage_percent,
        .queries_per_second = request->queries_per_second,
    };
    set_running_shards(worker, request->running_shards, request->n_running_shards);
    set_progress(worker, request);
    bool has_new_leader = hear_leaders(presence, request);
    hear_members(presence, worker_id, request);
    return has_changed || has_new_leader;
}

bool presence_tick(struct presence *presence, uint64_t now_ns)
{
    bool has_changed = false;
    for (uint32_t i = 0; i < presence->worker_count; i++) {
        struct worker_presence *worker = &presence->workers[i];
        if (worker->is_healthy && worker->healthy_until_ns <= now_ns) {
            worker->is_healthy = false;
            has_changed = true;
        }
    }
    return has_changed;
}

bool presence_is_healthy(const struct presence *presence, uint64_t worker_id)
{
    const struct worker_presence *worker = presence_worker(presence, worker_id);
    return worker != NULL && worker->is_healthy;
}

bool presence_runs_shard(const struct presence *presence, uint64_t worker_id, uint64_t shard_id)
{
    const struct worker_presence *worker = presence_worker(presence, worker_id);
    if (worker == NULL || worker->running_shard_count == 0)
        return false;
    return bsearch(&shard_id, worker->running_shards, worker->running_shard_count, sizeof(shard_id),
                   compare_ids) != NULL;
}

// --- Rerankers

bool reranker_is_healthy(const struct reranker *reranker, uint64_t now_ns)
{
    return now_ns < reranker->healthy_until_ns;
}

static void forget_rerankers(struct presence *presence, uint64_t now_ns)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < presence->reranker_count; i++) {
        const struct reranker *reranker = &presence->rerankers[i];
        uint64_t forget_ns =
            reranker->healthy_until_ns + PRESENCE_FORGET_RERANKER_SECONDS * NS_PER_SECOND;
        if (forget_ns <= now_ns)
            free_reranker(reranker);
        else
            presence->rerankers[kept++] = *reranker;
    }
    presence->reranker_count = kept;
}

static struct reranker *find_reranker(struct presence *presence, struct str address)
{
    for (uint32_t i = 0; i < presence->reranker_count; i++) {
        if (str_equal(presence->rerankers[i].address, address))
            return &presence->rerankers[i];
    }
    return NULL;
}

uint64_t presence_register_reranker(struct presence *presence,
                                    const MESSAGE(RegisterRerankerRequest) * request,
                                    struct str capabilities, uint64_t now_ns, int64_t unix_seconds)
{
    forget_rerankers(presence, now_ns);
    struct str address = str_from_cstr(request->grpc_address);
    struct reranker *reranker = find_reranker(presence, address);
    uint64_t id = 0;
    if (reranker != NULL) {
        id = reranker->id;
        free_reranker(reranker);
    } else {
        if (presence->reranker_count >= PRESENCE_RERANKER_COUNT_MAX)
            return 0;
        id = presence->next_reranker_id++;
        presence->rerankers = mem_resize(presence->rerankers, (presence->reranker_count + 1) *
                                                                  sizeof(*presence->rerankers));
        reranker = &presence->rerankers[presence->reranker_count++];
    }
    *reranker = (struct reranker){
        .id = id,
        .address = text_copy(address),
        .rack = text_copy(str_from_cstr(request->rack)),
        .zone = text_copy(str_from_cstr(request->zone)),
        .region = text_copy(str_from_cstr(request->region)),
        .capabilities = text_copy(capabilities),
        .cpu_cores = count_from(request->cpu_cores),
        .memory_bytes = count_from(request->memory_bytes),
        .disk_bytes = count_from(request->disk_bytes),
        .healthy_until_ns = healthy_until(now_ns),
        .heard_at = unix_seconds,
    };
    return id;
}

bool presence_reranker_heartbeat(struct presence *presence, uint64_t id,
                                 const MESSAGE(RerankerHeartbeatRequest) * request, uint64_t now_ns,
                                 int64_t unix_seconds)
{
    for (uint32_t i = 0; i < presence->reranker_count; i++) {
        struct reranker *reranker = &presence->rerankers[i];
        if (reranker->id != id)
            continue;
        reranker->healthy_until_ns = healthy_until(now_ns);
        reranker->heard_at = unix_seconds;
        reranker->load = (struct presence_load){
            .cpu_percent = request->cpu_usage_percent,
            .memory_percent = request->memory_usage_percent,
            .disk_percent = request->disk_usage_percent,
            .queries_per_second = request->queries_per_second,
        };
        return true;
    }
    return false;
}
