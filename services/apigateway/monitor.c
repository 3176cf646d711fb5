#include "apigateway/monitor.h"

#include <pthread.h>

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

// The arena holds the answer that is being looked at, so it goes later.
static void surveyed(struct survey *survey, void *context)
{
    (void)survey;
    struct monitor *monitor = context;
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
