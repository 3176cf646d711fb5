#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "net/loop.h"

// What the rest of lib/net needs of a loop. A turn: libuv's callbacks (sockets, posted tasks), then
// timers, then deferred tasks, then one flush of everything that has bytes to send.

enum { LOOP_READ_SIZE = 65536, LOOP_FILL_SIZE = 262144 };

struct loop *loop_create(uint32_t index);
void loop_start(struct loop *loop);   // its thread begins to run
void loop_stop(struct loop *loop);    // after what was posted before; waits for the thread
void loop_destroy(struct loop *loop); // when it is stopped or was never started; may be NULL

uv_loop_t *loop_uv(struct loop *loop);
// Every callback from libuv begins with it: the time of this turn is taken here.
void loop_enter(struct loop *loop);

// Something that has bytes to send. Embed it; it is flushed once at the end of the turn.
struct flushable {
    struct flushable *next;
    void (*flush)(struct flushable *flushable);
    bool is_queued;
};

void loop_flush_later(struct loop *loop, struct flushable *flushable);

// Scratch memory of LOOP_READ_SIZE bytes for one read, and a buffer for one flush. Whoever uses
// them is done with them before it returns to the loop.
uint8_t *loop_read_buffer(struct loop *loop);
struct buf *loop_fill_buffer(struct loop *loop);

// For the threads of loops and pools: signals are the main thread's, and a broken pipe is an error
// code of write and no signal.
void thread_block_signals(void);
