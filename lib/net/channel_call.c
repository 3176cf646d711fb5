#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/channel_internal.h"

// One call, from its request to its end, whoever carries it. It is freed where it ends, unless one
// of our functions is at work on it (is_busy) or its task is queued: then that frees it.
//
// Calls are kept for reuse with their arenas and small buffers, so that steady traffic allocates
// nothing here.

enum {
    CALLS_KEPT_MAX = 128,
    BUFFER_KEPT_MAX = 4096,
    INBOX_SLACK = 65536, // delivered bytes at the front of an inbox that need not be moved over
};

// What a caller puts there is bounded by the size of the answer.
#define ARENA_SIZE_MAX ((size_t)1 << 30)

// --- Life

static bool take_memory(void *context, size_t size)
{
    struct channel_call *call = context;
    return channel_loop_memory_take(call->owner, size);
}

static void give_memory(void *context, size_t size)
{
    struct channel_call *call = context;
    channel_loop_memory_give(call->owner, size);
}

static void uncharge(struct channel_call *call, size_t size)
{
    ASSERT(call->charged >= size);
    channel_loop_memory_give(call->owner, size);
    call->charged -= size;
}

static void reset_buffer(struct buf *buf)
{
    if (buf->capacity > BUFFER_KEPT_MAX)
        buf_deinit(buf);
    else
        buf_clear(buf);
}

static void drop_inbox(struct channel_call *call)
{
    uncharge(call, channel_call_queued_size(call));
    reset_buffer(&call->inbox);
    reset_buffer(&call->late);
    call->inbox_offset = 0;
}

static void free_call(struct channel_call *call)
{
    arena_destroy(call->arena);
    buf_deinit(&call->out);
    buf_deinit(&call->inbox);
    buf_deinit(&call->late);
    mem_free(call);
}

void channel_call_free_kept(struct channel_loop *owner)
{
    while (owner->kept != NULL) {
        struct channel_call *call = owner->kept;
        owner->kept = call->next;
        free_call(call);
    }
    owner->kept_count = 0;
}

static void unlink_call(struct channel_call *call)
{
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        call->owner->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
}

static void free_when_unused(struct channel_call *call)
{
    if (!call->is_over || call->is_busy || call->is_task_queued)
        return;
    struct channel_loop *owner = call->owner;
    grpc_reader_deinit(&call->reader);
    drop_inbox(call);
    uncharge(call, call->charged);
    unlink_call(call);
    if (owner->kept_count < CALLS_KEPT_MAX && !owner->is_closing) {
        arena_reset(call->arena);
        reset_buffer(&call->out);
        call->next = owner->kept;
        owner->kept = call;
        owner->kept_count++;
    } else {
        free_call(call);
    }
    channel_loop_leave(owner);
}

static void detach(struct channel_call *call)
{
    timer_stop(&call->deadline_timer);
    if (call->is_waiting)
        channel_loop_stop_waiting(call->owner, call);
    if (call->client != NULL)
        http2_client_detach(call);
    if (call->peer != NULL)
        inproc_detach(call);
}

static void tell_end(struct channel_call *call)
{
    ASSERT(!call->is_over && !call->is_busy);
    detach(call);
    call->is_over = true;
    call->is_busy = true;
    call->done(call->status, call->text, call->context);
    call->is_busy = false;
    free_when_unused(call);
}

void channel_call_cancel(struct channel_call *call)
{
    ASSERT(!call->is_over);
    detach(call);
    call->is_over = true;
    free_when_unused(call);
}

// --- The request

static void on_deadline(struct timer *timer)
{
    struct channel_call *call =
        (struct channel_call *)(void *)((char *)timer -
                                        offsetof(struct channel_call, deadline_timer));
    channel_call_fail(call, STATUS_TIMEOUT, STR("the deadline of the call passed"));
}

static void run_task(struct task *task)
{
    struct channel_call *call = (struct channel_call *)task; // its first member
    call->is_task_queued = false;
    if (call->is_over) {
        free_when_unused(call);
    } else if (call->must_start && !call->has_end) {
        call->must_start = false;
        call->is_busy = true;
        inproc_start(call);
        call->is_busy = false;
        free_when_unused(call);
    } else {
        channel_call_go_on(call);
    }
}

void channel_call_schedule(struct channel_call *call)
{
    if (call->is_task_queued)
        return;
    call->is_task_queued = true;
    channel_loop_schedule(call->owner, &call->task);
}

static struct channel_call *take_call(struct channel_loop *owner)
{
    struct channel_call *call = owner->kept;
    if (call != NULL) {
        owner->kept = call->next;
        owner->kept_count--;
        *call = (struct channel_call){
            .arena = call->arena, .out = call->out, .inbox = call->inbox, .late = call->late};
    } else {
        call = mem_alloc(sizeof(*call));
        call->arena = arena_create(ARENA_SIZE_MAX);
        buf_init(&call->out, SIZE_MAX);
        buf_init(&call->inbox, SIZE_MAX);
        buf_init(&call->late, SIZE_MAX);
    }
    call->owner = owner;
    call->task.run = run_task;
    call->grpc_status = -1;
    grpc_reader_init(&call->reader, false, &(struct grpc_budget){take_memory, give_memory, call});
    timer_init(&call->deadline_timer, owner->loop, on_deadline);
    channel_loop_enter(owner);
    call->next = owner->calls;
    if (call->next != NULL)
        call->next->previous = call;
    owner->calls = call;
    return call;
}

// What the channel writes itself, or what has no place in HTTP/2.
static bool is_reserved(struct str name)
{
    static const char *const names[] = {"connection", "content-length", "content-type",
                                        "host",       "keep-alive",     "proxy-connection",
                                        "te",         "user-agent",     "transfer-encoding",
                                        "upgrade"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (str_equal_cstr(name, names[i]))
            return true;
    }
    return str_starts_with(name, STR("grpc-"));
}

static bool is_good_name(struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        bool is_letter = c >= 'a' && c <= 'z';
        if (!is_letter && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
    }
    return name.len > 0 && !is_reserved(name);
}

static bool is_text(struct str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

// Binary metadata may have any value: it is written as base64.
static bool is_good_metadata(const struct metadata *metadata)
{
    return is_good_name(metadata->name) &&
           (str_ends_with(metadata->name, STR("-bin")) || is_text(metadata->value));
}

static bool copy_metadata(struct channel_call *call, const struct channel_request *request)
{
    enum { COST = 32 }; // of each, as HPACK counts
    size_t size = 0;
    if (request->metadata_count == 0)
        return true;
    for (uint32_t i = 0; i < request->metadata_count; i++) {
        const struct metadata *metadata = &request->metadata[i];
        size += metadata->name.len + metadata->value.len + COST;
        if (!is_good_metadata(metadata)) {
            channel_call_fail_soon(call, STATUS_INVALID, STR("metadata that cannot be sent"));
            return false;
        }
        if (size > CHANNEL_METADATA_SIZE_MAX) {
            channel_call_fail_soon(call, STATUS_EXHAUSTED,
                                   STR("the metadata of the call is over the limit of 49152 "
                                       "bytes"));
            return false;
        }
    }
    call->metadata = arena_alloc(call->arena, request->metadata_count * sizeof(struct metadata));
    call->metadata_count = request->metadata_count;
    for (uint32_t i = 0; i < request->metadata_count; i++) {
        call->metadata[i].name = arena_str(call->arena, request->metadata[i].name);
        call->metadata[i].value = arena_str(call->arena, request->metadata[i].value);
    }
    return true;
}

static bool copy_message(struct channel_call *call, struct span message)
{
    struct channel *channel = call->owner->channel;
    bool has_gzip = channel->has_gzip && !channel_is_inproc(channel);
    if (!channel_loop_memory_take(call->owner, message.len)) {
        channel_call_fail_soon(call, STATUS_EXHAUSTED,
                               STR("the memory for messages is used up, try again later"));
        return false;
    }
    call->charged = message.len;
    if (!grpc_frame_append(&call->out, message, has_gzip)) {
        channel_call_fail_soon(call, STATUS_EXHAUSTED, STR("the message is too large for gRPC"));
        return false;
    }
    return true;
}

static bool check_path(struct channel_call *call)
{
    bool is_good = call->path.len > 1 && call->path.len < 4096 && call->path.data[0] == '/' &&
                   is_text(call->path) && memchr(call->path.data, ' ', call->path.len) == NULL;
    if (!is_good)
        channel_call_fail_soon(call, STATUS_INVALID, STR("the path of a call is /service/method"));
    return is_good;
}

struct channel_call *channel_call_create(struct channel_loop *owner,
                                         const struct channel_request *request)
{
    struct channel_call *call = take_call(owner);
    call->path = arena_str(call->arena, request->path);
    call->deadline_ns = request->deadline_ns;
    call->waits_for_ready = request->waits_for_ready;
    call->context = request->context;
    if (request->context_size > 0) {
        call->context = arena_alloc(call->arena, request->context_size);
        memcpy(call->context, request->context, request->context_size);
    }
    call->received = request->received;
    call->done = request->done;
    if (owner->is_closing) {
        channel_call_fail_soon(call, STATUS_CANCELLED, STR("the channel was closed"));
        return call;
    }
    if (!check_path(call) || !copy_metadata(call, request) || !copy_message(call, request->message))
        return call;
    if (call->deadline_ns <= loop_now_ns(owner->loop))
        channel_call_fail_soon(call, STATUS_TIMEOUT,
                               STR("the deadline of the call passed before it was sent"));
    else if (call->deadline_ns != UINT64_MAX)
        timer_start_at(&call->deadline_timer, call->deadline_ns);
    return call;
}

struct span channel_call_message(const struct channel_call *call)
{
    return (struct span){call->out.data + GRPC_PREFIX_SIZE, call->out.len - GRPC_PREFIX_SIZE};
}

bool channel_call_is_compressed(const struct channel_call *call)
{
    return call->out.data[0] == 1;
}

// --- The answer

size_t channel_call_queued_size(const struct channel_call *call)
{
    return call->inbox.len - call->inbox_offset + call->late.len;
}

static void set_failure(struct channel_call *call, enum status status, const char *text)
{
    // The caller's request was not malformed, the answer was.
    enum status seen = status == STATUS_INVALID ? STATUS_BUG : status;
    channel_call_set_end(call, seen, str_from_cstr(text));
}

// Deliver from the front of bytes until they are used up, or the call pauses, fails or is over.
static bool deliver(struct channel_call *call, struct span *bytes)
{
    size_t size_max = call->owner->channel->message_size_max;
    bool has_failed = false;
    call->is_busy = true;
    call->is_delivering = true;
    while (bytes->len > 0 && !call->is_over && !call->is_paused && !has_failed) {
        struct span message = {0};
        struct error error;
        bool is_complete = false;
        size_t before = bytes->len;
        enum status status =
            grpc_reader_next(&call->reader, size_max, bytes, &error, &message, &is_complete);
        call->unconsumed += before - bytes->len;
        has_failed = status != STATUS_OK;
        if (has_failed)
            set_failure(call, status, error.text);
        else if (is_complete && call->received != NULL)
            call->received(message, call->context);
    }
    call->is_busy = false;
    call->is_delivering = false;
    return !has_failed;
}

static bool put_bytes(struct channel_call *call, struct span bytes)
{
    if (!channel_loop_memory_take(call->owner, bytes.len))
        return false;
    call->charged += bytes.len;
    buf_append(&call->inbox, bytes.data, bytes.len);
    return true;
}

bool channel_call_receive(struct channel_call *call, struct span bytes)
{
    bool is_fine = true;
    if (channel_call_queued_size(call) == 0)
        is_fine = deliver(call, &bytes);
    if (call->is_over) {
        free_when_unused(call);
        return false;
    }
    if (!is_fine) {
        tell_end(call);
        return false;
    }
    // At most a stream's window of it can come, because nothing of it is consumed.
    if (bytes.len > 0 && !put_bytes(call, bytes)) {
        channel_call_fail(call, STATUS_EXHAUSTED,
                          STR("the call is paused and its answers have no room in memory"));
        return false;
    }
    if (call->unconsumed >= CHANNEL_CONSUME_SIZE)
        http2_client_consume(call);
    return true;
}

bool channel_call_put_message(struct channel_call *call, struct span message)
{
    size_t size = message.len + GRPC_PREFIX_SIZE;
    struct buf *buf = call->is_delivering ? &call->late : &call->inbox;
    if (!channel_loop_memory_take(call->owner, size))
        return false;
    call->charged += size;
    if (!grpc_frame_append(buf, message, false)) {
        uncharge(call, size);
        return false;
    }
    channel_call_schedule(call);
    return true;
}

static void drop_taken(struct channel_call *call, size_t size)
{
    uncharge(call, size);
    call->inbox_offset += size;
    if (call->inbox_offset == call->inbox.len) {
        reset_buffer(&call->inbox);
        call->inbox_offset = 0;
    } else if (call->inbox_offset >= INBOX_SLACK && call->inbox_offset >= call->inbox.len / 2) {
        buf_consume(&call->inbox, call->inbox_offset);
        call->inbox_offset = 0;
    }
    if (call->late.len > 0) {
        buf_append(&call->inbox, call->late.data, call->late.len);
        reset_buffer(&call->late);
    }
}

// False: the call is over.
static bool deliver_inbox(struct channel_call *call)
{
    size_t size_before = channel_call_queued_size(call);
    if (size_before == 0 || call->is_paused)
        return true;
    size_t size = call->inbox.len - call->inbox_offset;
    struct span bytes = {call->inbox.data + call->inbox_offset, size};
    bool is_fine = deliver(call, &bytes);
    if (call->is_over) {
        free_when_unused(call);
        return false;
    }
    drop_taken(call, size - bytes.len);
    if (!is_fine) {
        tell_end(call);
        return false;
    }
    if (call->client != NULL && call->unconsumed >= CHANNEL_CONSUME_SIZE)
        http2_client_consume(call);
    if (channel_call_queued_size(call) > 0 && !call->is_paused)
        channel_call_schedule(call);
    if (call->peer == NULL)
        return true;
    call->is_busy = true;
    inproc_taken(call, size_before);
    call->is_busy = false;
    bool is_over = call->is_over;
    free_when_unused(call);
    return !is_over;
}

void channel_call_go_on(struct channel_call *call)
{
    if (!deliver_inbox(call) || !call->has_end || channel_call_queued_size(call) > 0)
        return;
    if (call->status == STATUS_OK && grpc_reader_is_inside(&call->reader))
        channel_call_set_end(call, STATUS_BUG, STR("the answer ends in the middle of a message"));
    tell_end(call);
}

void channel_call_set_end(struct channel_call *call, enum status status, struct str text)
{
    call->has_end = true;
    call->status = status;
    call->text = arena_str(call->arena, text);
}

void channel_call_fail(struct channel_call *call, enum status status, struct str text)
{
    channel_call_set_end(call, status, text);
    tell_end(call);
}

void channel_call_fail_soon(struct channel_call *call, enum status status, struct str text)
{
    ASSERT(!call->is_over && !call->is_delivering);
    detach(call);
    drop_inbox(call);
    channel_call_set_end(call, status, text);
    channel_call_schedule(call);
}

void *channel_call_context(struct channel_call *call)
{
    return call->context;
}

struct arena *channel_call_arena(struct channel_call *call)
{
    return call->arena;
}

// --- Back-pressure

void channel_call_pause(struct channel_call *call)
{
    ASSERT(!call->is_over);
    call->is_paused = true;
}

void channel_call_resume(struct channel_call *call)
{
    ASSERT(!call->is_over);
    if (!call->is_paused)
        return;
    call->is_paused = false;
    if (channel_call_queued_size(call) > 0 || call->has_end)
        channel_call_schedule(call);
}
