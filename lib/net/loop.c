#include "net/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/loop_internal.h"

// Tasks of other threads go onto a stack that is taken whole and reversed; only the first of a
// batch wakes the loop. There is one libuv timer for the whole heap of ours, moved at most once per
// turn and only forward in urgency: when the earliest timer is stopped, libuv's fires for nothing
// once, which is cheaper than moving it with every call that ends before its deadline.

struct loop {
    uv_loop_t uv;
    uv_async_t async;
    uv_timer_t timer;
    uv_prepare_t prepare;
    pthread_t thread;
    _Atomic(struct task *) posted; // newest first
    struct task *deferred_first;
    struct task *deferred_last;
    struct flushable *flushable_first;
    struct flushable *flushable_last;
    struct heap timers;
    uint64_t armed_ns; // when libuv's timer fires; UINT64_MAX: it does not
    uint64_t now_ns;
    bool has_now;
    bool is_running;
    bool was_started;
    uint32_t index;
    struct task stop_task;
    struct buf fill_buffer;
    uint8_t read_buffer[LOOP_READ_SIZE];
};

static _Thread_local struct loop *current_loop;

void thread_block_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    // These come from the thread's own mistakes and must stop the process with a trace.
    const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

void loop_enter(struct loop *loop)
{
    if (loop->has_now)
        return;
    loop->now_ns = clock_monotonic_ns();
    loop->has_now = true;
}

static void run_posted(uv_async_t *async)
{
    struct loop *loop = async->data;
    loop_enter(loop);
    struct task *newest = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
    struct task *first = NULL;
    while (newest != NULL) {
        struct task *next = newest->next;
        newest->next = first;
        first = newest;
        newest = next;
    }
    while (first != NULL) {
        struct task *task = first;
        first = task->next; // run may free the task or post it again
        task->run(task);
    }
}

static void fire_timers(uv_timer_t *uv_timer)
{
    struct loop *loop = uv_timer->data;
    loop_enter(loop);
    loop->armed_ns = UINT64_MAX;
    for (;;) {
        struct heap_node *node = heap_first(&loop->timers);
        if (node == NULL || node->key > loop->now_ns)
            return;
        heap_remove(&loop->timers, node);
        struct timer *timer = (struct timer *)node; // its first member
        timer->fire(timer);
    }
}

static void arm_timer(struct loop *loop)
{
    const struct heap_node *node = heap_first(&loop->timers);
    // One that is due fires in the next turn even when the clock has jumped since it was armed.
    bool is_due = node != NULL && node->key <= loop->now_ns;
    if (node == NULL || (node->key >= loop->armed_ns && !is_due))
        return;
    uint64_t delay_ns = node->key > loop->now_ns ? node->key - loop->now_ns : 0;
    loop->armed_ns = node->key;
    uv_timer_start(&loop->timer, fire_timers, (delay_ns + NS_PER_MS - 1) / NS_PER_MS, 0);
}

static void end_turn(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    loop_enter(loop);
    while (loop->deferred_first != NULL || loop->flushable_first != NULL) {
        struct task *task = loop->deferred_first;
        if (task != NULL) {
            loop->deferred_first = task->next;
            task->run(task);
            continue;
        }
        struct flushable *flushable = loop->flushable_first;
        loop->flushable_first = flushable->next;
        flushable->is_queued = false;
        flushable->flush(flushable);
    }
    arm_timer(loop);
    loop->has_now = false;
}

struct loop *loop_create(uint32_t index)
{
    struct loop *loop = mem_alloc(sizeof(*loop));
    loop->index = index;
    loop->armed_ns = UINT64_MAX;
    heap_init(&loop->timers);
    buf_init(&loop->fill_buffer, (size_t)LOOP_FILL_SIZE * 2);
    // These fail only without descriptors or memory, before anything is served.
    ASSERT(uv_loop_init(&loop->uv) == 0);
    ASSERT(uv_async_init(&loop->uv, &loop->async, run_posted) == 0);
    uv_timer_init(&loop->uv, &loop->timer);
    uv_prepare_init(&loop->uv, &loop->prepare);
    loop->async.data = loop;
    loop->timer.data = loop;
    loop->prepare.data = loop;
    uv_prepare_start(&loop->prepare, end_turn);
    return loop;
}

static void *run_loop(void *argument)
{
    struct loop *loop = argument;
    thread_block_signals();
    current_loop = loop;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    return NULL;
}

void loop_start(struct loop *loop)
{
    char name[16];
    snprintf(name, sizeof(name), "loop-%u", loop->index % 1000);
    loop->is_running = true;
    loop->was_started = true;
    ASSERT(pthread_create(&loop->thread, NULL, run_loop, loop) == 0);
    pthread_setname_np(loop->thread, name);
}

static void close_handles(struct loop *loop)
{
    uv_close((uv_handle_t *)&loop->async, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
}

static void run_stop(struct task *task)
{
    struct loop *loop = (struct loop *)(void *)((char *)task - offsetof(struct loop, stop_task));
    close_handles(loop);
}

void loop_stop(struct loop *loop)
{
    ASSERT(loop->is_running);
    loop->stop_task.run = run_stop;
    loop_post(loop, &loop->stop_task);
    pthread_join(loop->thread, NULL);
    loop->is_running = false;
    ASSERT(uv_loop_close(&loop->uv) == 0);
}

void loop_destroy(struct loop *loop)
{
    if (loop == NULL)
        return;
    ASSERT(!loop->is_running);
    if (!loop->was_started) {
        close_handles(loop);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        uv_loop_close(&loop->uv);
    }
    heap_deinit(&loop->timers);
    buf_deinit(&loop->fill_buffer);
    mem_free(loop);
}

uv_loop_t *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

uint8_t *loop_read_buffer(struct loop *loop)
{
    return loop->read_buffer;
}

struct buf *loop_fill_buffer(struct loop *loop)
{
    return &loop->fill_buffer;
}

void loop_post(struct loop *loop, struct task *task)
{
    struct task *newest = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do {
        task->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&loop->posted, &newest, task,
                                                    memory_order_release, memory_order_relaxed));
    // The loop may take the task, and with it the right to stop, from here on; but it does not stop
    // before the task that wakes it, so the handle is still there.
    if (newest == NULL)
        uv_async_send(&loop->async);
}

void loop_defer(struct loop *loop, struct task *task)
{
    task->next = NULL;
    if (loop->deferred_first == NULL)
        loop->deferred_first = task;
    else
        loop->deferred_last->next = task;
    loop->deferred_last = task;
}

void loop_flush_later(struct loop *loop, struct flushable *flushable)
{
    if (flushable->is_queued)
        return;
    flushable->is_queued = true;
    flushable->next = NULL;
    if (loop->flushable_first == NULL)
        loop->flushable_first = flushable;
    else
        loop->flushable_last->next = flushable;
    loop->flushable_last = flushable;
}

uint64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns;
}

uint32_t loop_index(const struct loop *loop)
{
    return loop->index;
}

struct loop *loop_current(void)
{
    return current_loop;
}

void timer_init(struct timer *timer, struct loop *loop, void (*fire)(struct timer *timer))
{
    heap_node_init(&timer->node);
    timer->loop = loop;
    timer->fire = fire;
}

void timer_start(struct timer *timer, uint64_t delay_ns)
{
    uint64_t now = timer->loop->now_ns;
    timer_start_at(timer, delay_ns > UINT64_MAX - now ? UINT64_MAX : now + delay_ns);
}

void timer_start_at(struct timer *timer, uint64_t at_ns)
{
    // Never in this turn: a timer that restarts itself must not hold up the loop.
    uint64_t earliest = timer->loop->now_ns + 1;
    heap_remove(&timer->loop->timers, &timer->node);
    heap_push(&timer->loop->timers, &timer->node, at_ns > earliest ? at_ns : earliest);
}

void timer_stop(struct timer *timer)
{
    if (timer->loop != NULL)
        heap_remove(&timer->loop->timers, &timer->node);
}

bool timer_is_running(const struct timer *timer)
{
    return heap_node_is_in(&timer->node);
}
