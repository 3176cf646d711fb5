#include "api/rpc.h"

#include <stdarg.h>
#include <string.h>

#include "api/message.h"
#include "api/rpc_internal.h"
#include "base/assert.h"
#include "base/mem.h"

// One request, from its decoding to its answer. Small messages are decoded where they come in, on
// the loop; large ones on the pool, because other calls wait meanwhile.

enum { DECODE_INLINE_MAX = 1 << 20 };

#define LARGE_MEMORY_MAX ((size_t)4 << 30)

// --- The request

static void run_handler(struct rpc *rpc, const struct rpc_entry *entry)
{
    const struct rpc_router_options *options = &rpc->router->options;
    if (entry->is_open || options->divert == NULL || !options->divert(rpc, options->context))
        entry->method->handler(rpc, entry->context);
}

static void handle(struct rpc *rpc)
{
    const struct rpc_entry *entry = rpc->entry;
    if (rpc_is_done(rpc) || !rpc->has_passed || !rpc->has_request || rpc->was_handled)
        return;
    rpc->was_handled = entry == NULL || !entry->is_bidi;
    call_ref(rpc->call);
    if (entry != NULL)
        run_handler(rpc, entry);
    else
        rpc->page->handler(rpc, rpc->page->context);
    call_unref(rpc->call);
}

void rpc_begin(struct rpc *rpc)
{
    bool is_open = rpc->page != NULL ? rpc->page->is_open : rpc->entry->is_open;
    if (is_open || rpc->router->options.intercept == NULL)
        rpc->has_passed = true;
    else
        rpc->router->options.intercept(rpc, rpc->router->options.context);
}

void rpc_proceed(struct rpc *rpc)
{
    if (rpc_is_done(rpc))
        return;
    ASSERT(!rpc->has_passed);
    rpc->has_passed = true;
    handle(rpc);
}

static enum status decode(struct rpc *rpc, struct span bytes, struct arena *arena,
                          struct error *error, ProtobufCMessage **out_message)
{
    if (rpc_is_http(rpc))
        return rpc_http_decode(rpc, bytes, arena, error, out_message);
    return message_decode(rpc->entry->input, bytes, arena, error, out_message);
}

static void decoded(struct rpc *rpc, enum status status, const struct error *error,
                    ProtobufCMessage *message)
{
    if (rpc_is_done(rpc))
        return;
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, error);
        return;
    }
    rpc->request = message;
    rpc->has_request = true;
    handle(rpc);
}

struct large {
    uint8_t *bytes;
    size_t size;
    enum status status;
    struct error error;
    ProtobufCMessage *message;
};

static void decode_pooled(struct rpc *rpc, void *context)
{
    struct large *large = context;
    large->status = decode(rpc, (struct span){large->bytes, large->size}, rpc->large_arena,
                           &large->error, &large->message);
}

static void decoded_pooled(struct rpc *rpc, void *context)
{
    struct large *large = context;
    rpc->is_decoding = false;
    mem_free(large->bytes);
    decoded(rpc, large->status, &large->error, large->message);
}

static void decode_large(struct rpc *rpc, struct span bytes)
{
    struct rpc_router *router = rpc->router;
    rpc->large_size = bytes.len; // until the request is released
    if (atomic_fetch_add(&router->large_bytes, bytes.len) + bytes.len >
        router->options.large_bytes_max) {
        rpc_fail(rpc, STATUS_EXHAUSTED,
                 "large requests of %zu bytes together are the limit: try again",
                 router->options.large_bytes_max);
        return;
    }
    uint8_t *copy = mem_try_alloc(bytes.len);
    if (copy == NULL) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "no memory for a request of %zu bytes", bytes.len);
        return;
    }
    memcpy(copy, bytes.data, bytes.len);
    struct large *large = arena_alloc(rpc_arena(rpc), sizeof(*large));
    large->bytes = copy;
    large->size = bytes.len;
    rpc->is_decoding = true;
    // Its own memory, because the request's is the loop's, which may end the request meanwhile.
    rpc->large_arena = arena_create(LARGE_MEMORY_MAX);
    rpc_run_pooled(rpc, decode_pooled, decoded_pooled, large);
    if (rpc_is_done(rpc)) { // the pool is full: neither function is called
        rpc->is_decoding = false;
        mem_free(copy);
    }
}

static void receive_page(struct rpc *rpc, struct span body)
{
    uint8_t *copy = arena_try_alloc(rpc_arena(rpc), body.len + 1);
    if (copy == NULL) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "a body of %zu bytes is too large here", body.len);
        return;
    }
    if (body.len > 0)
        memcpy(copy, body.data, body.len);
    rpc->body = (struct span){copy, body.len};
    rpc->has_request = true;
    handle(rpc);
}

void rpc_receive(struct rpc *rpc, struct span bytes)
{
    if (rpc_is_done(rpc))
        return;
    if (rpc->page != NULL) {
        receive_page(rpc, bytes);
        return;
    }
    if (!rpc->entry->is_bidi && (rpc->has_request || rpc->is_decoding)) {
        rpc_fail(rpc, STATUS_INVALID, "%.*s takes one message, a second one came",
                 STR_ARG(rpc->entry->path));
        return;
    }
    if (rpc->entry->is_bidi && ++rpc->message_count > OPEN_MESSAGES_MAX) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "more than %d messages in one stream", OPEN_MESSAGES_MAX);
        return;
    }
    if (bytes.len > DECODE_INLINE_MAX) {
        decode_large(rpc, bytes);
        return;
    }
    struct error error = {0};
    ProtobufCMessage *message = NULL;
    enum status status = decode(rpc, bytes, rpc_arena(rpc), &error, &message);
    decoded(rpc, status, &error, message);
}

// --- The answer

void rpc_finished(struct rpc *rpc, enum status status)
{
    if (rpc->was_finished)
        return;
    rpc->was_finished = true;
    metric_add(rpc->router->requests[status], 1);
    if (rpc->router->options.finished == NULL)
        return;
    uint64_t now_ns = loop_now_ns(call_loop(rpc->call));
    rpc->router->options.finished(rpc, status, now_ns - rpc->started_ns,
                                  rpc->router->options.context);
}

void rpc_end(struct rpc *rpc, enum status status, struct str text)
{
    if (rpc_is_done(rpc))
        return;
    if (rpc_is_http(rpc))
        rpc_http_fail(rpc, status_http_code(status), status, text);
    else
        call_finish(rpc->call, status, text);
    rpc_finished(rpc, status);
}

// False: the answer was ended in another way.
static bool send_message(struct rpc *rpc, const ProtobufCMessage *message)
{
    struct buf *bytes = rpc_scratch(rpc);
    if (message_encode(message, bytes) != STATUS_OK) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "the answer is larger than %zu bytes", bytes->size_max);
        return false;
    }
    call_send(rpc->call, buf_span(bytes));
    return true;
}

void rpc_reply(struct rpc *rpc, const ProtobufCMessage *message)
{
    if (rpc_is_done(rpc))
        return;
    if (rpc_is_http(rpc)) {
        rpc_http_reply(rpc, message);
        rpc_finished(rpc, STATUS_OK);
    } else if (send_message(rpc, message)) {
        rpc_finish(rpc);
    }
}

void rpc_send(struct rpc *rpc, const ProtobufCMessage *message)
{
    ASSERT(rpc->entry != NULL && rpc->entry->method->is_stream);
    if (!rpc_is_done(rpc))
        (void)send_message(rpc, message);
}

void rpc_finish(struct rpc *rpc)
{
    if (rpc_is_done(rpc))
        return;
    call_finish(rpc->call, STATUS_OK, STR(""));
    rpc_finished(rpc, STATUS_OK);
}

void rpc_fail(struct rpc *rpc, enum status status, const char *format, ...)
{
    struct error error;
    va_list arguments;
    if (rpc_is_done(rpc))
        return;
    ASSERT(status != STATUS_OK);
    va_start(arguments, format);
    error_vwrite(&error, format, arguments);
    va_end(arguments);
    struct str sentence = str_from_cstr(error.text);
    if (status == STATUS_BUG)
        sentence = arena_format(rpc_arena(rpc), "%s (request %.*s)", error.text,
                                STR_ARG(call_request_id(rpc->call)));
    rpc_end(rpc, status, sentence);
}

void rpc_fail_error(struct rpc *rpc, enum status status, const struct error *error)
{
    rpc_fail(rpc, status, "%s", error->text[0] != '\0' ? error->text : status_text(status));
}

void rpc_add_header(struct rpc *rpc, struct str name, struct str value)
{
    rpc->has_retry_after |= str_equal_cstr(name, "retry-after");
    rpc->has_authenticate |= str_equal_cstr(name, "www-authenticate");
    call_add_header(rpc->call, name, value);
}

// --- What it is

const struct rpc_method *rpc_method(const struct rpc *rpc)
{
    return rpc->entry != NULL ? rpc->entry->method : NULL;
}

struct str rpc_method_path(const struct rpc *rpc)
{
    if (rpc->entry != NULL)
        return rpc->entry->path;
    return rpc->page != NULL ? rpc->page->pattern : STR("unknown");
}

struct str rpc_shown_path(const struct rpc *rpc)
{
    struct str path = call_path(rpc->call);
    if (path.len > SHOWN_PATH_SIZE_MAX)
        path.len = SHOWN_PATH_SIZE_MAX;
    return path;
}

struct call *rpc_call(struct rpc *rpc)
{
    return rpc->call;
}

struct arena *rpc_arena(struct rpc *rpc)
{
    return call_arena(rpc->call);
}

const ProtobufCMessage *rpc_request(const struct rpc *rpc)
{
    return rpc->request;
}

bool rpc_is_http(const struct rpc *rpc)
{
    return call_kind(rpc->call) == CALL_HTTP;
}

struct span rpc_body(const struct rpc *rpc)
{
    return rpc->body;
}

void *rpc_user(const struct rpc *rpc)
{
    return rpc->user;
}

void rpc_set_user(struct rpc *rpc, void *user)
{
    rpc->user = user;
}

// --- Its life

void rpc_ref(struct rpc *rpc)
{
    call_ref(rpc->call);
}

void rpc_unref(struct rpc *rpc)
{
    call_unref(rpc->call);
}

bool rpc_is_done(const struct rpc *rpc)
{
    return call_is_done(rpc->call);
}

void rpc_on_cancel(struct rpc *rpc, void (*cancelled)(struct rpc *rpc, void *context),
                   void *context)
{
    rpc->cancelled = cancelled;
    rpc->cancelled_context = context;
}

size_t rpc_queued_size(const struct rpc *rpc)
{
    return call_queued_size(rpc->call);
}

void rpc_on_writable(struct rpc *rpc, void (*writable)(struct rpc *rpc, void *context),
                     void *context)
{
    rpc->writable = writable;
    rpc->writable_context = context;
}

// --- The pool

struct pooled {
    struct job job; // first
    struct rpc *rpc;
    void (*work)(struct rpc *rpc, void *context);
    void (*done)(struct rpc *rpc, void *context);
    void *context;
};

static void pooled_run(struct job *job)
{
    struct pooled *pooled = (struct pooled *)(void *)job;
    pooled->work(pooled->rpc, pooled->context);
}

static void pooled_done(struct job *job)
{
    struct pooled *pooled = (struct pooled *)(void *)job;
    struct rpc *rpc = pooled->rpc;
    pooled->done(rpc, pooled->context);
    rpc_unref(rpc);
}

void rpc_run_pooled(struct rpc *rpc, void (*work)(struct rpc *rpc, void *context),
                    void (*done)(struct rpc *rpc, void *context), void *context)
{
    struct pooled *pooled = arena_alloc(rpc_arena(rpc), sizeof(*pooled));
    *pooled = (struct pooled){
        .job = {.loop = call_loop(rpc->call), .run = pooled_run, .done = pooled_done},
        .rpc = rpc,
        .work = work,
        .done = done,
        .context = context,
    };
    rpc_ref(rpc);
    if (pool_submit(net_pool(call_net(rpc->call)), &pooled->job) == STATUS_OK)
        return;
    rpc_fail(rpc, STATUS_EXHAUSTED, "too much work is waiting on this server: try again");
    rpc_unref(rpc);
}
