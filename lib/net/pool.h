#pragma once

#include <stdint.h>

#include "base/status.h"
#include "net/loop.h"

// Threads for what must not run on a loop: waiting for the disk, hashing passwords, long scans. The
// queue is bounded; when it is full the submitter is told so and answers EXHAUSTED. Any thread.

struct pool;

// run is called on a thread of the pool, then done on the loop. Embed it; it must stay alive until
// done is called.
struct job {
    struct task task; // used to come back to the loop
    struct job *next;
    struct loop *loop;
    void (*run)(struct job *job);
    void (*done)(struct job *job);
};

struct pool *pool_create(uint32_t thread_count, uint32_t queue_max);
void pool_destroy(struct pool *pool); // waits for what was submitted; pool may be NULL

// EXHAUSTED: the queue is full and nothing was taken.
enum status pool_submit(struct pool *pool, struct job *job);
