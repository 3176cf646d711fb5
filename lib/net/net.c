#include "net/net.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "base/map.h"
#include "base/mem.h"
#include "net/loop_internal.h"
#include "net/net_internal.h"

struct net {
    struct loop **loops;
    uint32_t loop_count;
    struct pool *pool;
    size_t memory_max;
    _Atomic size_t memory_used;
    pthread_mutex_t mutex; // guards what is below
    pthread_cond_t released;
    size_t holder_count;
    struct map *inproc; // name -> struct listener
};

static uint32_t processor_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? (uint32_t)count : 1;
}

enum status net_create(const struct net_options *options, struct error *error, struct net **out_net)
{
    if (options->loop_count > 1024 || options->pool_thread_count > 1024)
        return error_set(error, STATUS_INVALID, "%u loops and %u pool threads: 1024 at most",
                         options->loop_count, options->pool_thread_count);
    struct net *net = mem_alloc(sizeof(*net));
    uint32_t processors = processor_count();
    net->loop_count = options->loop_count > 0 ? options->loop_count : processors;
    uint32_t threads = options->pool_thread_count;
    if (threads == 0)
        threads = processors > 2 ? processors * 2 : 4;
    net->pool = pool_create(threads, options->pool_queue_max > 0 ? options->pool_queue_max : 1024);
    net->memory_max = options->memory_max > 0 ? options->memory_max : (size_t)1 << 30;
    pthread_mutex_init(&net->mutex, NULL);
    pthread_cond_init(&net->released, NULL);
    net->inproc = map_create();
    net->loops = mem_alloc(net->loop_count * sizeof(struct loop *));
    for (uint32_t i = 0; i < net->loop_count; i++) {
        net->loops[i] = loop_create(i);
        loop_start(net->loops[i]);
    }
    *out_net = net;
    return STATUS_OK;
}

void net_destroy(struct net *net)
{
    if (net == NULL)
        return;
    pthread_mutex_lock(&net->mutex);
    while (net->holder_count > 0)
        pthread_cond_wait(&net->released, &net->mutex);
    pthread_mutex_unlock(&net->mutex);
    pool_destroy(net->pool); // the jobs' ends run on the loops, which still turn
    for (uint32_t i = 0; i < net->loop_count; i++)
        loop_stop(net->loops[i]);
    for (uint32_t i = 0; i < net->loop_count; i++)
        loop_destroy(net->loops[i]);
    map_destroy(net->inproc);
    pthread_cond_destroy(&net->released);
    pthread_mutex_destroy(&net->mutex);
    mem_free((void *)net->loops);
    mem_free(net);
}

uint32_t net_loop_count(const struct net *net)
{
    return net->loop_count;
}

struct loop *net_loop(struct net *net, uint32_t index)
{
    ASSERT(index < net->loop_count);
    return net->loops[index];
}

struct pool *net_pool(struct net *net)
{
    return net->pool;
}

size_t net_memory_used(const struct net *net)
{
    return atomic_load_explicit(&net->memory_used, memory_order_relaxed);
}

bool net_memory_take(struct net *net, size_t size)
{
    size_t before = atomic_fetch_add_explicit(&net->memory_used, size, memory_order_relaxed);
    if (before <= net->memory_max && size <= net->memory_max - before)
        return true;
    net_memory_give(net, size);
    return false;
}

void net_memory_charge(struct net *net, size_t size)
{
    atomic_fetch_add_explicit(&net->memory_used, size, memory_order_relaxed);
}

void net_memory_give(struct net *net, size_t size)
{
    size_t before = atomic_fetch_sub_explicit(&net->memory_used, size, memory_order_relaxed);
    ASSERT(before >= size);
}

bool net_memory_is_over(const struct net *net)
{
    return net_memory_used(net) > net->memory_max;
}

void net_hold(struct net *net)
{
    pthread_mutex_lock(&net->mutex);
    net->holder_count++;
    pthread_mutex_unlock(&net->mutex);
}

void net_release(struct net *net)
{
    pthread_mutex_lock(&net->mutex);
    ASSERT(net->holder_count > 0);
    net->holder_count--;
    if (net->holder_count == 0)
        pthread_cond_broadcast(&net->released);
    pthread_mutex_unlock(&net->mutex);
}

enum status net_inproc_add(struct net *net, struct str name, struct listener *listener)
{
    enum status status = STATUS_EXISTS;
    pthread_mutex_lock(&net->mutex);
    if (map_get(net->inproc, name) == NULL) {
        map_put(net->inproc, name, listener);
        status = STATUS_OK;
    }
    pthread_mutex_unlock(&net->mutex);
    return status;
}

void net_inproc_remove(struct net *net, struct str name)
{
    pthread_mutex_lock(&net->mutex);
    map_remove(net->inproc, name);
    pthread_mutex_unlock(&net->mutex);
}

struct listener *net_inproc_find(struct net *net, struct str name,
                                 bool (*pin)(struct listener *listener))
{
    pthread_mutex_lock(&net->mutex);
    struct listener *listener = map_get(net->inproc, name);
    if (listener != NULL && !pin(listener))
        listener = NULL;
    pthread_mutex_unlock(&net->mutex);
    return listener;
}
