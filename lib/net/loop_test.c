#include "net/loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>

#include "net/net.h"
#include "testing/test.h"

static struct net *make_net(uint32_t loop_count)
{
    struct net *net = NULL;
    struct net_options options = {
        .loop_count = loop_count, .pool_thread_count = 2, .pool_queue_max = 4};
    CHECK(net_create(&options, NULL, &net) == STATUS_OK);
    return net;
}

struct count_task {
    struct task task;
    atomic_uint *count;
    sem_t *all;
    unsigned target;
};

static void count_up(struct task *task)
{
    struct count_task *it = (struct count_task *)task;
    if (atomic_fetch_add(it->count, 1) + 1 == it->target)
        sem_post(it->all);
}

enum { POSTER_COUNT = 4, POST_COUNT = 2000 };
static struct count_task posted[POSTER_COUNT][POST_COUNT];

struct poster {
    struct loop *loop;
    int index;
};

static void *post_many(void *argument)
{
    struct poster *poster = argument;
    for (int i = 0; i < POST_COUNT; i++)
        loop_post(poster->loop, &posted[poster->index][i].task);
    return NULL;
}

TEST(tasks_of_many_threads_all_run)
{
    struct net *net = make_net(1);
    atomic_uint count = 0;
    sem_t all;
    sem_init(&all, 0, 0);
    pthread_t threads[POSTER_COUNT];
    struct poster posters[POSTER_COUNT];
    for (int i = 0; i < POSTER_COUNT; i++) {
        posters[i] = (struct poster){net_loop(net, 0), i};
        for (int j = 0; j < POST_COUNT; j++)
            posted[i][j] =
                (struct count_task){{NULL, count_up}, &count, &all, POSTER_COUNT * POST_COUNT};
        pthread_create(&threads[i], NULL, post_many, &posters[i]);
    }
    sem_wait(&all);
    for (int i = 0; i < POSTER_COUNT; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&count) == POSTER_COUNT * POST_COUNT);
    net_destroy(net);
    sem_destroy(&all);
}

struct timer_case {
    struct task task;
    struct task deferred;
    struct timer timers[5];
    struct loop *loop;
    int order[5];
    int fired;
    bool deferred_ran_after;
    bool task_ended;
    sem_t done;
};

static struct timer_case timers_of_test;

static void note_fire(struct timer *timer)
{
    struct timer_case *it = &timers_of_test;
    it->order[it->fired++] = (int)(timer - it->timers);
    if (it->fired == 1)
        timer_stop(&it->timers[3]); // one that is due in the same turn
    if (it->fired == 4)
        sem_post(&it->done);
}

static void note_deferred(struct task *task)
{
    (void)task;
    timers_of_test.deferred_ran_after = timers_of_test.task_ended;
}

static void start_timers(struct task *task)
{
    struct timer_case *it = (struct timer_case *)task;
    CHECK(loop_current() == it->loop);
    loop_defer(it->loop, &it->deferred);
    for (int i = 0; i < 5; i++)
        timer_init(&it->timers[i], it->loop, note_fire);
    timer_start(&it->timers[0], 30 * NS_PER_MS);
    timer_start(&it->timers[1], 1 * NS_PER_MS);
    timer_start(&it->timers[2], 10 * NS_PER_MS);
    timer_start_at(&it->timers[3], loop_now_ns(it->loop) + NS_PER_MS + 1);
    timer_start(&it->timers[4], 500 * NS_PER_SECOND);
    timer_start(&it->timers[4], 20 * NS_PER_MS); // restarted
    CHECK(timer_is_running(&it->timers[4]));
    it->task_ended = true;
}

TEST(timers_fire_in_order_and_stop)
{
    struct net *net = make_net(1);
    struct timer_case *it = &timers_of_test;
    it->loop = net_loop(net, 0);
    it->task.run = start_timers;
    it->deferred.run = note_deferred;
    sem_init(&it->done, 0, 0);
    loop_post(it->loop, &it->task);
    sem_wait(&it->done);
    net_destroy(net);
    CHECK(it->order[0] == 1 && it->order[1] == 2 && it->order[2] == 4 && it->order[3] == 0);
    CHECK(it->fired == 4);
    CHECK(it->deferred_ran_after);
    CHECK(loop_current() == NULL);
    sem_destroy(&it->done);
}

struct job_case {
    struct job job;
    sem_t *gate;
    sem_t *ended;
    struct loop *ran_on;
    bool was_done_on_loop;
};

static void run_job(struct job *job)
{
    struct job_case *it = (struct job_case *)job;
    sem_wait(it->gate);
    it->ran_on = loop_current();
}

static void end_job(struct job *job)
{
    struct job_case *it = (struct job_case *)job;
    it->was_done_on_loop = loop_current() == job->loop;
    sem_post(it->ended);
}

TEST(pool_is_bounded_and_comes_back_to_the_loop)
{
    struct net *net = make_net(2);
    sem_t gate;
    sem_t ended;
    sem_init(&gate, 0, 0);
    sem_init(&ended, 0, 0);
    struct job_case jobs[16];
    int taken = 0;
    for (int i = 0; i < 16; i++) {
        jobs[i] = (struct job_case){
            .job = {.loop = net_loop(net, (uint32_t)i % 2), .run = run_job, .done = end_job},
            .gate = &gate,
            .ended = &ended};
        if (pool_submit(net_pool(net), &jobs[i].job) != STATUS_OK)
            break;
        taken++;
    }
    CHECK(taken >= 4 && taken <= 6); // four wait, two may run
    for (int i = 0; i < taken; i++)
        sem_post(&gate);
    for (int i = 0; i < taken; i++)
        sem_wait(&ended);
    for (int i = 0; i < taken; i++)
        CHECK(jobs[i].ran_on == NULL && jobs[i].was_done_on_loop);
    net_destroy(net);
    sem_destroy(&gate);
    sem_destroy(&ended);
}

TEST(net_with_bad_options)
{
    struct net *net = NULL;
    struct error error;
    CHECK(net_create(&(struct net_options){.loop_count = 5000}, &error, &net) == STATUS_INVALID);
    CHECK(net == NULL);
    net_destroy(NULL);
}

TEST_MAIN()
