#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "worker/worker_internal.h"

// What a worker says about itself: ListShards and the heartbeat.

enum { REPORT_SIZE_MAX = 64 << 20 };

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t resident_bytes(void)
{
    char text[128];
    uint64_t pages = 0;
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t size = read(file, text, sizeof(text));
    (void)close(file);
    struct str rest = {text, size > 0 ? (size_t)size : 0};
    (void)str_cut(&rest, ' ');
    if (!str_to_u64(str_cut(&rest, ' '), &pages))
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// --- ListShards: asks the disk, so on the pool

struct report {
    struct worker *worker;
    struct hosted **shards;
    uint32_t count;
    struct arena *arena;
    Vectron__Worker__V1__ListShardsResponse answer;
};

static void free_report(struct report *report)
{
    struct worker *worker = report->worker;
    hosting_list_free(report->shards, report->count);
    arena_destroy(report->arena);
    mem_free(report);
    worker_end(worker);
}

static void run_report(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct report *report = context;
    Vectron__Worker__V1__ListShardsResponse *answer = &report->answer;
    vectron__worker__v1__list_shards_response__init(answer);
    answer->shards = arena_alloc(report->arena, (report->count + 1) * sizeof(answer->shards[0]));
    for (uint32_t i = 0; i < report->count; i++) {
        const struct hosted *hosted = report->shards[i];
        Vectron__Worker__V1__ShardInfo *info = arena_alloc(report->arena, sizeof(*info));
        struct shard_stats stats;
        shard_stats(hosted->shard, &stats);
        vectron__worker__v1__shard_info__init(info);
        info->shard_id = hosted->shard_id;
        info->collection = hosted->collection;
        info->points = stats.points;
        info->disk_bytes = stats.disk_bytes;
        info->memory_bytes = stats.memory_bytes;
        answer->shards[answer->n_shards++] = info;
    }
    answer->resident_bytes = resident_bytes();
    answer->cpu_seconds = cpu_seconds();
    answer->started_at = (int64_t)report->worker->started_at;
}

static void report_done(struct rpc *rpc, void *context)
{
    struct report *report = context;
    if (!rpc_is_done(rpc))
        rpc_reply(rpc, &report->answer.base);
    free_report(report);
}

void worker_list_shards(struct rpc *rpc, void *context)
{
    struct worker *worker = context;
    struct report *report = mem_alloc(sizeof(*report));
    report->worker = worker;
    report->shards = hosting_list(worker->hosting, &report->count);
    report->arena = arena_create(REPORT_SIZE_MAX);
    worker_begin(worker);
    rpc_run_pooled(rpc, run_report, report_done, report);
    // Failed at once: the pool is full, and nobody calls report_done.
    if (rpc_is_done(rpc))
        free_report(report);
}

// --- The heartbeat: on the first loop, so only what is known without waiting

static float percent(double part, double whole)
{
    return whole > 0 ? (float)(part * 100 / whole) : 0;
}

// Seconds since the last heartbeat; 0: this is the first.
static double heartbeat_elapsed(struct worker *worker)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t before = worker->heartbeat_ns;
    worker->heartbeat_ns = now;
    return before == 0 ? 0 : (double)(now - before) / 1e9;
}

static void fill_usage(struct worker *worker, double elapsed,
                       Vectron__Placementdriver__V1__HeartbeatRequest *request)
{
    double cpu = cpu_seconds();
    request->cpu_usage_percent = percent(cpu - worker->heartbeat_cpu_seconds, elapsed);
    worker->heartbeat_cpu_seconds = cpu;

    uint64_t resident = resident_bytes();
    struct sysinfo machine;
    struct statvfs disk;
    request->memory_bytes = (int64_t)resident;
    if (sysinfo(&machine) == 0)
        request->memory_usage_percent =
            percent((double)resident, (double)machine.totalram * machine.mem_unit);
    if (statvfs(worker->folder.path, &disk) == 0)
        request->disk_usage_percent =
            percent((double)(disk.f_blocks - disk.f_bavail), (double)disk.f_blocks);
}

// How many searches, and how long they took, since the last heartbeat.
static void fill_searches(struct hosted *hosted, double elapsed,
                          Vectron__Placementdriver__V1__ShardMetrics *metrics)
{
    uint64_t count = atomic_load(&hosted->search_count);
    uint64_t spent_ns = atomic_load(&hosted->search_ns);
    double new_count = (double)(count - hosted->reported_count);
    if (new_count > 0)
        metrics->avg_latency_ms =
            (float)((double)(spent_ns - hosted->reported_ns) / 1e6 / new_count);
    if (elapsed > 0)
        metrics->queries_per_second = (float)(new_count / elapsed);
    hosted->reported_count = count;
    hosted->reported_ns = spent_ns;
}

static void fill_shard(struct hosted *hosted, uint64_t worker_id, double elapsed,
                       struct arena *arena, Vectron__Placementdriver__V1__HeartbeatRequest *request)
{
    Vectron__Placementdriver__V1__ShardMetrics *metrics = arena_alloc(arena, sizeof(*metrics));
    Vectron__Placementdriver__V1__ShardLeaderInfo *leader = arena_alloc(arena, sizeof(*leader));
    Vectron__Placementdriver__V1__ShardProgressInfo *progress =
        arena_alloc(arena, sizeof(*progress));
    uint64_t points = index_point_count(shard_index(hosted->shard));
    vectron__placementdriver__v1__shard_metrics__init(metrics);
    metrics->shard_id = hosted->shard_id;
    metrics->vector_count = (int64_t)points;
    fill_searches(hosted, elapsed, metrics);
    request->queries_per_second += metrics->queries_per_second;
    request->shard_metrics[request->n_shard_metrics++] = metrics;
    vectron__placementdriver__v1__shard_leader_info__init(leader);
    leader->shard_id = hosted->shard_id;
    leader->leader_id = worker_id;
    request->shard_leader_info[request->n_shard_leader_info++] = leader;
    vectron__placementdriver__v1__shard_progress_info__init(progress);
    progress->shard_id = hosted->shard_id;
    progress->applied_index = index_sequence(shard_index(hosted->shard));
    progress->shard_epoch = atomic_load(&hosted->epoch);
    request->shard_progress[request->n_shard_progress++] = progress;
    request->running_shards[request->n_running_shards++] = hosted->shard_id;
    request->vector_count += (int64_t)points;
}

static void set_memory_metrics(const struct worker *worker, struct hosted *const *shards,
                               uint32_t count)
{
    struct store_stats store;
    uint64_t graphs = 0;
    uint64_t ids = 0;
    if (!hosting_store_stats(worker->hosting, &store))
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct shard_memory memory;
        shard_memory(shards[i]->shard, &memory);
        graphs += memory.graph_bytes;
        ids += memory.id_bytes;
    }
    uint64_t vectors = store.point_bytes > graphs + ids ? store.point_bytes - graphs - ids : 0;
    const uint64_t sizes[WORKER_MEMORY_PARTS] = {vectors, graphs, ids, store.memory_bytes};
    for (uint32_t i = 0; i < WORKER_MEMORY_PARTS; i++)
        metric_set(worker->memory[i], (int64_t)sizes[i]);
    metric_set(worker->memory_max, (int64_t)store.memory_max);
}

static void set_index_metrics(const struct worker *worker, struct hosted *const *shards,
                              uint32_t count)
{
    uint64_t unlinked = 0;
    uint64_t unreachable = 0;
    uint64_t relinked = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct index *index = shard_index(shards[i]->shard);
        unlinked += index_unlinked_count(index);
        unreachable += index_lost_count(index);
        relinked += index_found_count(index);
    }
    metric_set(worker->unlinked, (int64_t)unlinked);
    metric_set(worker->unreachable, (int64_t)unreachable);
    metric_set(worker->relinked, (int64_t)relinked);
}

void worker_fill_heartbeat(Vectron__Placementdriver__V1__HeartbeatRequest *request,
                           struct arena *arena, void *context)
{
    struct worker *worker = context;
    uint32_t count = 0;
    const double elapsed = heartbeat_elapsed(worker);
    uint64_t worker_id = atomic_load(&worker->worker_id);
    struct hosted **shards = hosting_list(worker->hosting, &count);
    const size_t size = (count + 1) * sizeof(void *);
    request->shard_metrics = arena_alloc(arena, size);
    request->shard_leader_info = arena_alloc(arena, size);
    request->shard_progress = arena_alloc(arena, size);
    request->running_shards = arena_alloc(arena, (count + 1) * sizeof(uint64_t));
    for (uint32_t i = 0; i < count; i++)
        fill_shard(shards[i], worker_id, elapsed, arena, request);
    set_index_metrics(worker, shards, count);
    set_memory_metrics(worker, shards, count);
    hosting_list_free(shards, count);
    request->active_shards = count;
    fill_usage(worker, elapsed, request);
    // Recent queries may have come that say more about the data than what there was before.
    worker_wake_shards(worker);
    metric_set(worker->points, request->vector_count);
    metric_set(worker->shards, count);
}
