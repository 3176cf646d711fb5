#include "net/pool.h"

#include <pthread.h>
#include <stddef.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/loop_internal.h"

struct pool {
    pthread_mutex_t mutex; // guards everything below; never held while a job runs
    pthread_cond_t wake;
    struct job *first;
    struct job *last;
    uint32_t queue_count;
    uint32_t queue_max;
    uint32_t idle_count;
    uint32_t started_count;
    uint32_t thread_count;
    bool is_stopping;
    pthread_t threads[];
};

static void run_done(struct task *task)
{
    struct job *job = (struct job *)(void *)((char *)task - offsetof(struct job, task));
    job->done(job);
}

static struct job *pop_job(struct pool *pool)
{
    struct job *job = pool->first;
    pool->first = job->next;
    pool->queue_count--;
    return job;
}

static void *run_jobs(void *argument)
{
    struct pool *pool = argument;
    thread_block_signals();
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        if (pool->first != NULL) {
            struct job *job = pop_job(pool);
            pthread_mutex_unlock(&pool->mutex);
            job->run(job);
            job->task.run = run_done;
            loop_post(job->loop, &job->task);
            pthread_mutex_lock(&pool->mutex);
        } else if (pool->is_stopping) {
            break;
        } else {
            pool->idle_count++;
            pthread_cond_wait(&pool->wake, &pool->mutex);
            pool->idle_count--;
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

struct pool *pool_create(uint32_t thread_count, uint32_t queue_max)
{
    ASSERT(thread_count > 0 && queue_max > 0);
    struct pool *pool = mem_alloc(sizeof(*pool) + thread_count * sizeof(pool->threads[0]));
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->thread_count = thread_count;
    pool->queue_max = queue_max;
    return pool;
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->is_stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (uint32_t i = 0; i < pool->started_count; i++)
        pthread_join(pool->threads[i], NULL);
    ASSERT(pool->first == NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    mem_free(pool);
}

// Threads are started when they are first needed, so that a process that never blocks has none.
static void start_thread(struct pool *pool)
{
    if (pool->idle_count >= pool->queue_count || pool->started_count == pool->thread_count)
        return;
    pthread_t *thread = &pool->threads[pool->started_count];
    if (pthread_create(thread, NULL, run_jobs, pool) == 0) {
        pthread_setname_np(*thread, "pool");
        pool->started_count++;
    }
    // Without any thread the job would never run.
    ASSERT(pool->started_count > 0);
}

enum status pool_submit(struct pool *pool, struct job *job)
{
    ASSERT(job->loop != NULL && job->run != NULL && job->done != NULL);
    enum status status = STATUS_EXHAUSTED;
    pthread_mutex_lock(&pool->mutex);
    if (pool->queue_count < pool->queue_max && !pool->is_stopping) {
        job->next = NULL;
        if (pool->first == NULL)
            pool->first = job;
        else
            pool->last->next = job;
        pool->last = job;
        pool->queue_count++;
        start_thread(pool);
        pthread_cond_signal(&pool->wake);
        status = STATUS_OK;
    }
    pthread_mutex_unlock(&pool->mutex);
    return status;
}
