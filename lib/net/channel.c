#include "net/channel.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/channel_internal.h"
#include "net/http2_memory.h"
#include "net/net_internal.h"
#include "net/tls_internal.h"

// A channel ends loop by loop: when it is destroyed each loop ends its calls and connections, and
// the loop that is the last to be through with them frees the channel.
//
// Every call waits in its loop's queue until a connection takes it, which mostly is in the same
// turn. Without a connection one is made; when that fails the calls in the queue fail with it,
// except those that wait for better times, and the next attempt comes only after a pause. No timer
// runs for that pause unless a call waits for it.

enum {
    MESSAGE_SIZE_MAX = 64 << 20,
    TASKS_PER_TURN_MAX = 256,
    MEMORY_UNSHARED = 65536, // of a channel on a loop that is not counted for the process
};

#define PAUSE_MIN        (50 * NS_PER_MS)
#define PAUSE_MAX        (5 * NS_PER_SECOND)
#define INPROC_PAUSE_MIN (5 * NS_PER_MS)
#define INPROC_PAUSE_MAX (200 * NS_PER_MS)
#define PING_AFTER       (20 * NS_PER_SECOND)
#define PING_TIME_MAX    (10 * NS_PER_SECOND)

bool channel_is_inproc(const struct channel *channel)
{
    return channel->address.is_inproc;
}

// --- Life

static void on_retry(struct timer *timer);
static void run_close(struct task *task);

static struct str copy(struct str text)
{
    char *data = mem_alloc(text.len + 1);
    if (text.len > 0)
        memcpy(data, text.data, text.len);
    return (struct str){data, text.len};
}

static void free_copy(struct str text)
{
    union {
        const char *constant;
        char *ours;
    } memory = {.constant = text.data};
    mem_free(memory.ours);
}

static void channel_loop_init(struct channel_loop *owner, struct channel *channel,
                              struct loop *loop)
{
    uint64_t seed = 0;
    rng_secure(&seed, sizeof(seed));
    owner->channel = channel;
    owner->loop = loop;
    owner->use_count = 1; // until it is closed
    owner->close_task.run = run_close;
    timer_init(&owner->retry_timer, loop, on_retry);
    rng_init(&owner->rng, seed);
}

enum status channel_create(struct net *net, const struct channel_options *options,
                           struct error *error, struct channel **out_channel)
{
    struct address address;
    TRY(address_parse(options->address, error, &address));
    ASSERT(options->tls == NULL || !tls_is_server(options->tls));
    if (!address.is_inproc && strcmp(address.port, "0") == 0)
        return error_set(error, STATUS_INVALID, "%.*s: nobody can be reached at port 0",
                         STR_ARG(options->address));
    uint32_t loop_count = net_loop_count(net);
    struct channel *channel =
        mem_alloc(sizeof(*channel) + loop_count * sizeof(struct channel_loop));
    channel->net = net;
    channel->address = address;
    channel->name = copy(str_trim(options->address));
    channel->authority = copy(options->authority.len > 0 ? options->authority : channel->name);
    channel->tls = address.is_inproc ? NULL : options->tls;
    channel->pause_max =
        options->backoff_ms_max > 0 ? options->backoff_ms_max * NS_PER_MS : PAUSE_MAX;
    channel->message_size_max =
        options->message_size_max > 0 ? options->message_size_max : MESSAGE_SIZE_MAX;
    channel->has_gzip = options->has_gzip;
    channel->ping_after_ns = PING_AFTER;
    channel->ping_time_max_ns = PING_TIME_MAX;
    channel->loop_count = loop_count;
    atomic_init(&channel->open_loop_count, loop_count);
    for (uint32_t i = 0; i < loop_count; i++)
        channel_loop_init(&channel->loops[i], channel, net_loop(net, i));
    net_hold(net);
    *out_channel = channel;
    return STATUS_OK;
}

void channel_destroy(struct channel *channel)
{
    if (channel == NULL)
        return;
    // The channel may be gone as soon as the last task is posted.
    uint32_t loop_count = channel->loop_count;
    for (uint32_t i = 0; i < loop_count; i++)
        loop_post(channel->loops[i].loop, &channel->loops[i].close_task);
}

static void end_loop(struct channel_loop *owner)
{
    struct channel *channel = owner->channel;
    ASSERT(owner->calls == NULL && owner->clients == NULL && owner->memory_used == 0);
    channel_call_free_kept(owner);
    inproc_free_kept(owner);
    http2_memory_destroy(owner->http2_memory);
    timer_stop(&owner->retry_timer);
    if (atomic_fetch_sub(&channel->open_loop_count, 1) > 1)
        return;
    struct net *net = channel->net;
    free_copy(channel->name);
    free_copy(channel->authority);
    mem_free(channel);
    net_release(net);
}

void channel_loop_enter(struct channel_loop *owner)
{
    owner->use_count++;
}

void channel_loop_leave(struct channel_loop *owner)
{
    ASSERT(owner->use_count > 0);
    owner->use_count--;
    if (owner->use_count == 0)
        end_loop(owner);
}

static void run_close(struct task *task)
{
    struct channel_loop *owner =
        (struct channel_loop *)(void *)((char *)task - offsetof(struct channel_loop, close_task));
    ASSERT(!owner->is_closing);
    owner->is_closing = true;
    for (struct channel_call *it = owner->calls; it != NULL; it = it->next) {
        if (!it->is_over)
            channel_call_fail_soon(it, STATUS_CANCELLED, STR("the channel was closed"));
    }
    http2_client_close_all(owner);
    timer_stop(&owner->retry_timer);
    channel_loop_leave(owner);
}

void channel_loop_schedule(struct channel_loop *owner, struct task *task)
{
    uint64_t turn_ns = loop_now_ns(owner->loop);
    if (owner->turn_ns != turn_ns) {
        owner->turn_ns = turn_ns;
        owner->turn_count = 0;
    }
    owner->turn_count++;
    if (owner->turn_count > TASKS_PER_TURN_MAX)
        loop_post(owner->loop, task);
    else
        loop_defer(owner->loop, task);
}

// --- The budget. The first bytes of each channel on a loop are not counted for the process: small
// messages come and go without touching a counter that all loops share.

static size_t shared_part(size_t used)
{
    return used > MEMORY_UNSHARED ? used - MEMORY_UNSHARED : 0;
}

bool channel_loop_memory_take(struct channel_loop *owner, size_t size)
{
    size_t used = owner->memory_used;
    if (size > SIZE_MAX - used)
        return false;
    size_t more = shared_part(used + size) - shared_part(used);
    if (more > 0 && !net_memory_take(owner->channel->net, more))
        return false;
    owner->memory_used += size;
    return true;
}

void channel_loop_memory_give(struct channel_loop *owner, size_t size)
{
    size_t used = owner->memory_used;
    ASSERT(used >= size);
    size_t less = shared_part(used) - shared_part(used - size);
    if (less > 0)
        net_memory_give(owner->channel->net, less);
    owner->memory_used -= size;
}

// --- The queue of those who wait

static void push_last(struct channel_loop *owner, struct channel_call *call)
{
    call->is_waiting = true;
    call->waiting_next = NULL;
    call->waiting_previous = owner->waiting_last;
    if (owner->waiting_last != NULL)
        owner->waiting_last->waiting_next = call;
    else
        owner->waiting_first = call;
    owner->waiting_last = call;
    owner->waiting_count++;
}

static void push_first(struct channel_loop *owner, struct channel_call *call)
{
    call->is_waiting = true;
    call->waiting_previous = NULL;
    call->waiting_next = owner->waiting_first;
    if (owner->waiting_first != NULL)
        owner->waiting_first->waiting_previous = call;
    else
        owner->waiting_last = call;
    owner->waiting_first = call;
    owner->waiting_count++;
}

void channel_loop_stop_waiting(struct channel_loop *owner, struct channel_call *call)
{
    ASSERT(call->is_waiting);
    if (call->waiting_previous != NULL)
        call->waiting_previous->waiting_next = call->waiting_next;
    else
        owner->waiting_first = call->waiting_next;
    if (call->waiting_next != NULL)
        call->waiting_next->waiting_previous = call->waiting_previous;
    else
        owner->waiting_last = call->waiting_previous;
    call->is_waiting = false;
    owner->waiting_count--;
    if (owner->waiting_count == 0)
        timer_stop(&owner->retry_timer);
}

static void fail_impatient(struct channel_loop *owner)
{
    struct channel_call *next = NULL;
    for (struct channel_call *it = owner->waiting_first; it != NULL; it = next) {
        next = it->waiting_next;
        if (!it->waits_for_ready)
            channel_call_fail_soon(it, STATUS_UNAVAILABLE, str_from_cstr(owner->failure));
    }
}

// Do for those who wait what can be done now.
static void serve_waiting(struct channel_loop *owner)
{
    if (owner->waiting_first == NULL || owner->is_closing)
        return;
    if (owner->client != NULL) {
        http2_client_wants_flush(owner->client);
        return;
    }
    bool must_pause = loop_now_ns(owner->loop) < owner->retry_at_ns;
    if (!must_pause && !channel_is_inproc(owner->channel)) {
        http2_client_connect(owner);
        return;
    }
    fail_impatient(owner);
    if (owner->waiting_first != NULL && !timer_is_running(&owner->retry_timer))
        timer_start_at(&owner->retry_timer, owner->retry_at_ns);
}

static void on_retry(struct timer *timer)
{
    struct channel_loop *owner =
        (struct channel_loop *)(void *)((char *)timer - offsetof(struct channel_loop, retry_timer));
    if (!channel_is_inproc(owner->channel)) {
        serve_waiting(owner);
        return;
    }
    while (owner->waiting_first != NULL) {
        struct channel_call *call = owner->waiting_first;
        channel_loop_stop_waiting(owner, call);
        call->must_start = true;
        channel_call_schedule(call);
    }
}

void channel_loop_wait(struct channel_loop *owner, struct channel_call *call)
{
    if (owner->waiting_count >= CHANNEL_WAITING_MAX) {
        channel_call_fail_soon(call, STATUS_EXHAUSTED,
                               STR("10000 calls wait for a connection already"));
        return;
    }
    push_last(owner, call);
    serve_waiting(owner);
}

void channel_loop_wait_again(struct channel_loop *owner, struct channel_call *call)
{
    call->was_sent = false;
    call->out_offset = 0;
    call->stream_id = 0;
    call->unconsumed = 0;
    push_first(owner, call);
    // Not now: who calls is about to give up its connection, or is inside of nghttp2.
    if (owner->client != NULL)
        http2_client_wants_flush(owner->client);
}

static uint64_t next_pause_ns(struct channel_loop *owner)
{
    bool is_inproc = channel_is_inproc(owner->channel);
    uint64_t pause = is_inproc ? INPROC_PAUSE_MIN : PAUSE_MIN;
    uint64_t pause_max = is_inproc ? INPROC_PAUSE_MAX : owner->channel->pause_max;
    for (uint32_t i = 0; i < owner->failure_count && pause < pause_max; i++)
        pause *= 2;
    if (pause > pause_max)
        pause = pause_max;
    owner->failure_count++;
    // 80 to 120 percent of it, so that those who lost the same server do not come back together.
    return pause - pause / 5 + rng_below(&owner->rng, pause * 2 / 5 + 1);
}

void channel_loop_failed(struct channel_loop *owner, struct str text)
{
    uint64_t now = loop_now_ns(owner->loop);
    if (now >= owner->retry_at_ns)
        owner->retry_at_ns = now + next_pause_ns(owner);
    snprintf(owner->failure, sizeof(owner->failure), "%.*s", STR_ARG(text));
    serve_waiting(owner);
}

void channel_loop_lost(struct channel_loop *owner)
{
    owner->failure_count = 0;
    owner->retry_at_ns = 0;
    serve_waiting(owner);
}

// --- Calls

struct channel_call *channel_call(struct channel *channel, const struct channel_request *request)
{
    struct loop *loop = loop_current();
    ASSERT(loop != NULL && loop_index(loop) < channel->loop_count && request->done != NULL);
    struct channel_loop *owner = &channel->loops[loop_index(loop)];
    ASSERT(owner->loop == loop);
    struct channel_call *call = channel_call_create(owner, request);
    if (call->has_end)
        return call;
    if (channel_is_inproc(channel)) {
        call->must_start = true;
        channel_call_schedule(call);
    } else {
        channel_loop_wait(owner, call);
    }
    return call;
}

struct waiter {
    struct task task; // first
    struct channel *channel;
    struct channel_request request;
    struct buf *out_message;
    struct error *error;
    bool has_message;
    enum status status;
    sem_t done;
};

static void waiter_received(struct span message, void *context)
{
    struct waiter *waiter = context;
    waiter->has_message = true;
    buf_append(waiter->out_message, message.data, message.len);
}

static void waiter_done(enum status status, struct str text, void *context)
{
    struct waiter *waiter = context;
    if (status == STATUS_OK && !waiter->has_message)
        status = error_set(waiter->error, STATUS_BUG, "the answer has no message");
    else if (status == STATUS_OK && buf_has_overflowed(waiter->out_message))
        status = error_set(waiter->error, STATUS_EXHAUSTED, "the answer is larger than expected");
    else if (status != STATUS_OK)
        status = error_set(waiter->error, status, "%.*s", STR_ARG(text));
    waiter->status = status;
    sem_post(&waiter->done);
}

static void run_waiter(struct task *task)
{
    struct waiter *waiter = (struct waiter *)task;
    (void)channel_call(waiter->channel, &waiter->request); // done comes and nobody cancels
}

enum status channel_call_wait(struct channel *channel, const struct channel_request *request,
                              struct buf *out_message, struct error *error)
{
    ASSERT(loop_current() == NULL);
    struct waiter waiter = {.task.run = run_waiter,
                            .channel = channel,
                            .request = *request,
                            .out_message = out_message,
                            .error = error};
    waiter.request.context = &waiter;
    waiter.request.received = waiter_received;
    waiter.request.done = waiter_done;
    sem_init(&waiter.done, 0, 0);
    uint32_t index = atomic_fetch_add(&channel->loop_next, 1) % channel->loop_count;
    loop_post(channel->loops[index].loop, &waiter.task);
    while (sem_wait(&waiter.done) != 0)
        ASSERT(errno == EINTR);
    sem_destroy(&waiter.done);
    return waiter.status;
}
