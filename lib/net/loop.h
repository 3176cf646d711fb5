#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"

// An event loop: one thread that owns connections, timers and the calls on them. Whatever belongs
// to a loop is touched by its thread only; other threads hand it a task. Bytes are flushed once per
// turn of the loop, after its tasks, never inside a callback.

struct loop;

// Work handed to a loop. The owner embeds it and must keep it alive until run is called.
struct task {
    struct task *next;
    void (*run)(struct task *task);
};

void loop_post(struct loop *loop, struct task *task);  // any thread: runs in a later turn
void loop_defer(struct loop *loop, struct task *task); // loop only: runs at the end of this turn
uint64_t loop_now_ns(const struct loop *loop);         // loop only: monotonic, taken once per turn
uint32_t loop_index(const struct loop *loop);
struct loop *loop_current(void); // the loop whose thread this is, or NULL

// A timer that fires once. Loop only. Embed it; stop it before its memory goes.
struct timer {
    struct heap_node node; // first
    struct loop *loop;
    void (*fire)(struct timer *timer);
};

void timer_init(struct timer *timer, struct loop *loop, void (*fire)(struct timer *timer));
void timer_start(struct timer *timer, uint64_t delay_ns); // restarts when running
void timer_start_at(struct timer *timer, uint64_t at_ns); // monotonic
void timer_stop(struct timer *timer);                     // fine when it is not running
bool timer_is_running(const struct timer *timer);

#define NS_PER_MS     1000000ULL
#define NS_PER_SECOND 1000000000ULL
