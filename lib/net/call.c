#include <string.h>

#include "base/assert.h"
#include "net/call_internal.h"
#include "net/grpc_text.h"
#include "net/server_internal.h"

static bool equals(struct str text, const char *literal, size_t size)
{
    return text.len == size && memcmp(text.data, literal, size) == 0;
}

#define EQUALS(text, literal) equals(text, literal, sizeof(literal) - 1)

static struct server_loop *server_loop(const struct call *call)
{
    return server_loop_of(call->listener->server, call->loop);
}

static const struct call_handler *handler(const struct call *call)
{
    return call->listener->options.handler;
}

static void *context(const struct call *call)
{
    return call->listener->options.context;
}

// --- Life

static void on_deadline(struct timer *timer)
{
    struct call *call =
        (struct call *)(void *)((char *)timer - offsetof(struct call, deadline_timer));
    call_fail(call, STATUS_TIMEOUT, STR("the deadline of the call passed"));
}

void call_init(struct call *call, struct listener *listener, struct loop *loop,
               const struct call_ops *ops)
{
    *call = (struct call){.ops = ops, .listener = listener, .loop = loop};
    call->arena = server_loop_take_arena(server_loop(call));
    call->reference_count = 1;
    call->message_size_max = listener->options.message_size_max;
    call->deadline_ns = UINT64_MAX;
    timer_init(&call->deadline_timer, loop, on_deadline);
}

void call_set_inproc(struct call *call)
{
    struct server_loop *owner = server_loop(call);
    call->is_inproc = true;
    call->next = owner->inproc_calls;
    if (call->next != NULL)
        call->next->previous = call;
    owner->inproc_calls = call;
}

static void unlink_inproc(struct call *call)
{
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        server_loop(call)->inproc_calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    call->next = NULL;
    call->previous = NULL;
}

void call_ref(struct call *call)
{
    ASSERT(call->reference_count > 0);
    call->reference_count++;
}

void call_unref(struct call *call)
{
    ASSERT(call->reference_count > 0);
    if (call->reference_count > 1) {
        call->reference_count--;
        return;
    }
    // The last one goes only afterwards: release may look at the call.
    if (call->was_started && handler(call)->release != NULL)
        handler(call)->release(call, context(call));
    ASSERT(call->reference_count == 1);
    call->reference_count = 0;
    timer_stop(&call->deadline_timer);
    if (call->is_inproc)
        unlink_inproc(call);
    struct server_loop *owner = server_loop(call);
    server_loop_give_arena(owner, call->arena);
    call->arena = NULL;
    call->ops->release(call);
    server_loop_leave(owner);
}

// --- What came

static void put_header(struct call_headers *headers, struct call_header *header)
{
    if (headers->first == NULL)
        headers->first = header;
    else
        headers->last->next = header;
    headers->last = header;
}

// `-bin` metadata comes as base64, several values with commas between them; the first one counts.
static bool decode_binary(struct arena *arena, struct str *value)
{
    struct str rest = *value;
    struct str first = str_trim(str_cut(&rest, ','));
    uint8_t *decoded = arena_alloc(arena, first.len + 1);
    size_t size = 0;
    if (!grpc_base64_decode(first, decoded, &size))
        return false;
    *value = (struct str){(const char *)decoded, size};
    return true;
}

static bool is_sane_request_id(struct str text)
{
    if (text.len == 0 || text.len > CALL_REQUEST_ID_SIZE_MAX)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '-')
            return false;
    }
    return true;
}

static void note_known(struct call *call, struct str name, struct str value)
{
    if (EQUALS(name, "content-type"))
        call->content_type = value;
    else if (EQUALS(name, "grpc-timeout"))
        call->timeout = value;
    else if (EQUALS(name, "grpc-encoding")) {
        // Most clients accept gzip without being asked; those that use it themselves want it.
        call->encoding = value;
        call->accepts_gzip = EQUALS(value, "gzip");
    } else if (EQUALS(name, "x-request-id") && is_sane_request_id(value))
        call->request_id = value;
}

// The entry and its texts in one piece of memory.
static struct call_header *make_header(struct arena *arena, struct str name, struct str value)
{
    struct call_header *header = arena_alloc(arena, sizeof(*header) + name.len + value.len);
    char *text = (char *)(header + 1);
    if (name.len > 0)
        memcpy(text, name.data, name.len);
    if (value.len > 0)
        memcpy(text + name.len, value.data, value.len);
    header->name = (struct str){text, name.len};
    header->value = (struct str){text + name.len, value.len};
    return header;
}

bool call_put_header(struct call *call, struct str name, struct str value)
{
    call->header_size += name.len + value.len + CALL_HEADER_COST;
    if (call->header_size > CALL_HEADER_SIZE_MAX)
        return false;
    if (str_ends_with(name, STR("-bin")) && !decode_binary(call->arena, &value)) {
        call->has_bad_header = true;
        return true;
    }
    struct call_header *header = make_header(call->arena, name, value);
    put_header(&call->headers, header);
    note_known(call, header->name, header->value);
    return true;
}

void call_set_target(struct call *call, struct str target)
{
    struct str rest = arena_str(call->arena, target);
    call->path = str_cut(&rest, '?');
    call->query = rest;
}

void call_start(struct call *call)
{
    if (call->request_id.len == 0)
        call->request_id = server_loop_next_request_id(server_loop(call), call->arena);
    if (call->kind == CALL_GRPC && call->timeout.len > 0) {
        uint64_t timeout_ns = 0;
        if (!grpc_timeout_parse(call->timeout, &timeout_ns)) {
            call_fail(call, STATUS_INVALID, STR("grpc-timeout is malformed"));
            return;
        }
        uint64_t now = loop_now_ns(call->loop);
        call->deadline_ns = timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
        if (call->deadline_ns != UINT64_MAX)
            timer_start_at(&call->deadline_timer, call->deadline_ns);
    }
    call->was_started = true;
    call_ref(call);
    handler(call)->start(call, context(call));
    call_unref(call);
}

void call_deliver(struct call *call, struct span message)
{
    if (call_is_done(call) || !call->was_started)
        return;
    call_ref(call);
    handler(call)->message(call, message, context(call));
    call_unref(call);
}

void call_half_close(struct call *call)
{
    if (call_is_done(call) || !call->was_started || handler(call)->half_close == NULL)
        return;
    call_ref(call);
    handler(call)->half_close(call, context(call));
    call_unref(call);
}

void call_tell_writable(struct call *call)
{
    if (call_is_done(call) || !call->was_started || handler(call)->writable == NULL)
        return;
    call_ref(call);
    handler(call)->writable(call, context(call));
    call_unref(call);
}

// --- The end from below

static void tell_cancelled(struct call *call)
{
    if (!call->was_started || handler(call)->cancelled == NULL)
        return;
    call_ref(call);
    handler(call)->cancelled(call, context(call));
    call_unref(call);
}

void call_cancel(struct call *call)
{
    if (call_is_done(call))
        return;
    call->was_cancelled = true;
    timer_stop(&call->deadline_timer);
    tell_cancelled(call);
}

void call_format_http_error(struct buf *out, enum status status, struct str text)
{
    buf_append_format(out, "{\"code\":%d,\"message\":\"", status_grpc_code(status));
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c == '"' || c == '\\')
            buf_append_format(out, "\\%c", c);
        else if (c < 0x20)
            buf_append_format(out, "\\u%04x", c);
        else
            buf_append_byte(out, c);
    }
    buf_append_cstr(out, "\",\"details\":[]}");
}

void call_fail_http(struct call *call, int http_code, enum status status, struct str text)
{
    if (call_is_done(call))
        return;
    ASSERT(call->kind == CALL_HTTP);
    if (http_code == 429 || http_code == 503)
        call_add_header(call, STR("retry-after"), STR("1"));
    struct buf body;
    buf_init(&body, 4096);
    call_format_http_error(&body, status, text);
    call_ref(call);
    call_reply(call, http_code, STR("application/json"), buf_span(&body));
    buf_deinit(&body);
    tell_cancelled(call);
    call_unref(call);
}

void call_fail(struct call *call, enum status status, struct str text)
{
    if (call_is_done(call))
        return;
    if (call->kind == CALL_HTTP) {
        call_fail_http(call, status_http_code(status), status, text);
        return;
    }
    call_ref(call);
    call_finish(call, status, text);
    tell_cancelled(call);
    call_unref(call);
}

// --- What the handler asks

enum call_kind call_kind(const struct call *call)
{
    return call->kind;
}

struct str call_verb(const struct call *call)
{
    return call->verb;
}

struct str call_path(const struct call *call)
{
    return call->path;
}

struct str call_query(const struct call *call)
{
    return call->query;
}

struct str call_metadata(const struct call *call, struct str name)
{
    for (const struct call_header *it = call->headers.first; it != NULL; it = it->next) {
        if (str_equal(it->name, name))
            return it->value;
    }
    return (struct str){0};
}

struct str call_metadata_at(const struct call *call, struct str name, uint32_t index)
{
    for (const struct call_header *it = call->headers.first; it != NULL; it = it->next) {
        if (str_equal(it->name, name) && index-- == 0)
            return it->value;
    }
    return (struct str){0};
}

struct str call_peer(const struct call *call)
{
    return call->peer;
}

uint64_t call_deadline_ns(const struct call *call)
{
    return call->deadline_ns;
}

bool call_is_done(const struct call *call)
{
    return call->is_finished || call->was_cancelled;
}

struct arena *call_arena(struct call *call)
{
    return call->arena;
}

struct loop *call_loop(struct call *call)
{
    return call->loop;
}

struct net *call_net(struct call *call)
{
    return server_net(call->listener->server);
}

struct str call_request_id(const struct call *call)
{
    return call->request_id;
}

void *call_user(const struct call *call)
{
    return call->user;
}

void call_set_user(struct call *call, void *user)
{
    call->user = user;
}

void call_set_message_size_max(struct call *call, size_t size)
{
    call->message_size_max = size;
}

// --- The answer

// What the server itself writes, or what has no place in HTTP/2.
static bool is_ours(struct str name)
{
    static const char *const names[] = {"connection",        "content-length",   "content-type",
                                        "grpc-encoding",     "grpc-message",     "grpc-status",
                                        "keep-alive",        "proxy-connection", "te",
                                        "transfer-encoding", "upgrade",          "x-request-id"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (str_equal_cstr(name, names[i]))
            return true;
    }
    return false;
}

// A name that is a token in lower case, a value without line ends: nobody can write a header of his
// own into an answer.
static bool is_clean_header(struct str name, struct str value)
{
    if (name.len == 0)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        bool is_letter = c >= 'a' && c <= 'z';
        if (!is_letter && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

void call_add_header(struct call *call, struct str name, struct str value)
{
    if (call_is_done(call) || is_ours(name) || !is_clean_header(name, value))
        return;
    put_header(&call->answer_headers, make_header(call->arena, name, value));
}

void call_send(struct call *call, struct span message)
{
    if (call_is_done(call))
        return;
    ASSERT(call->kind == CALL_GRPC);
    call->ops->send(call, message);
}

size_t call_queued_size(const struct call *call)
{
    return call->was_cancelled ? 0 : call->ops->queued_size(call);
}

void call_finish(struct call *call, enum status status, struct str text)
{
    if (call_is_done(call))
        return;
    ASSERT(call->kind == CALL_GRPC);
    call->is_finished = true;
    timer_stop(&call->deadline_timer);
    call->ops->finish(call, status, text);
}

void call_reply(struct call *call, int http_code, struct str content_type, struct span body)
{
    if (call_is_done(call))
        return;
    ASSERT(call->kind == CALL_HTTP);
    ASSERT(http_code >= 200 && http_code <= 599);
    call->is_finished = true;
    timer_stop(&call->deadline_timer);
    if (!is_clean_header(STR("content-type"), content_type))
        content_type = STR("application/octet-stream");
    call->ops->reply(call, http_code, content_type, body);
}
