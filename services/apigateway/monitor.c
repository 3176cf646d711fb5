#include "apigateway/monitor.h"

#include <pthread.h>

#include "apigateway/quota.h"
#include "apigateway/stats.h"
#include "apigateway/survey.h"
#include "base/mem.h"

enum { INTERVAL_SECONDS = 10, SURVEY_MEMORY_MAX = 64 << 20 };

struct monitor {
    struct gateway *gateway;
    struct loop *loop;
    struct timer timer;
    struct task start;
    struct task stop;
    struct survey *survey; // NULL: none under way
    struct arena *arena;
    pthread_mutex_t lock; // of is_gone, for who waits in monitor_stop
    pthread_cond_t gone;
    bool is_gone;
};

static void end_survey(struct monitor *monitor)
{
    if (monitor->survey != NULL)
        survey_release(monitor->survey);
    monitor->survey = NULL;
}

static const struct cluster_shard *find_shard(const struct cluster_collection *collection,
                                              uint32_t shard_id)
{
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        if (collection->shards[i].shard_id == shard_id)
            return &collection->shards[i];
    }
    return NULL;
}

// A shard counts as its leader has it, for the owner of its collection.
static void measure_shard(const struct survey *survey, uint64_t worker_id,
                          const Vectron__Worker__V1__ShardInfo *info)
{
    const struct cluster_collection *collection =
        cluster_map_find(survey->map, str_from_cstr(info->collection));
    const struct cluster_shard *shard =
        collection != NULL ? find_shard(collection, info->shard_id) : NULL;
    if (shard == NULL || shard->leader_id != worker_id)
        return;
    struct str rest = collection->name;
    struct str owner = str_cut(&rest, '/');
    quota_measured(survey->gateway->quota, owner,
                   &(struct quota_amount){info->points, info->disk_bytes});
}

static void measure_quotas(const struct survey *survey)
{
    bool is_complete = survey->map != NULL;
    uint32_t count = survey->map != NULL ? survey->map->worker_count : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t worker_id = survey->map->workers[i].worker_id;
        const Vectron__Worker__V1__ListShardsResponse *answer = survey_shards(survey, worker_id);
        is_complete = is_complete && answer != NULL;
        for (size_t j = 0; answer != NULL && j < answer->n_shards; j++)
            measure_shard(survey, worker_id, answer->shards[j]);
    }
    quota_measure_end(survey->gateway->quota, is_complete);
}

// The arena holds the answer that is being looked at, so it goes later.
static void surveyed(struct survey *survey, void *context)
{
    struct monitor *monitor = context;
    measure_quotas(survey);
    end_survey(monitor);
    timer_start(&monitor->timer, INTERVAL_SECONDS * NS_PER_SECOND);
}

static void look(struct timer *timer)
{
    struct monitor *monitor =
        (struct monitor *)(void *)((char *)timer - offsetof(struct monitor, timer));
    stats_sample(monitor->gateway);
    arena_destroy(monitor->arena);
    monitor->arena = arena_create(SURVEY_MEMORY_MAX);
    monitor->survey = survey_start(monitor->gateway, monitor->arena, surveyed, monitor);
}

static void start_on_loop(struct task *task)
{
    struct monitor *monitor =
        (struct monitor *)(void *)((char *)task - offsetof(struct monitor, start));
    timer_init(&monitor->timer, monitor->loop, look);
    timer_start(&monitor->timer, INTERVAL_SECONDS * NS_PER_SECOND);
}

static void stop_on_loop(struct task *task)
{
    struct monitor *monitor =
        (struct monitor *)(void *)((char *)task - offsetof(struct monitor, stop));
    timer_stop(&monitor->timer);
    if (monitor->survey != NULL)
        survey_cancel(monitor->survey);
    end_survey(monitor);
    arena_destroy(monitor->arena);
    pthread_mutex_lock(&monitor->lock);
    monitor->is_gone = true;
    pthread_cond_signal(&monitor->gone);
    pthread_mutex_unlock(&monitor->lock);
}

struct monitor *monitor_start(struct gateway *gateway)
{
    struct monitor *monitor = mem_alloc(sizeof(*monitor));
    monitor->gateway = gateway;
    monitor->loop = net_loop(gateway->net, 0);
    pthread_mutex_init(&monitor->lock, NULL);
    pthread_cond_init(&monitor->gone, NULL);
    monitor->start.run = start_on_loop;
    monitor->stop.run = stop_on_loop;
    loop_post(monitor->loop, &monitor->start);
    return monitor;
}

void monitor_stop(struct monitor *monitor)
{
    if (monitor == NULL)
        return;
    loop_post(monitor->loop, &monitor->stop);
    pthread_mutex_lock(&monitor->lock);
    while (!monitor->is_gone)
        pthread_cond_wait(&monitor->gone, &monitor->lock);
    pthread_mutex_unlock(&monitor->lock);
    pthread_cond_destroy(&monitor->gone);
    pthread_mutex_destroy(&monitor->lock);
    mem_free(monitor);
}
