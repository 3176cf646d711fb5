#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/grpc_text.h"
#include "net/http2_internal.h"

// One call on an HTTP/2 stream. Requests go through the reader of gRPC messages or gather in body;
// answers gather in out, from where nghttp2 takes them. Calls are kept for reuse with their small
// buffers, so that steady traffic allocates nothing here.

enum {
    CALLS_KEPT_MAX = 256,
    BUFFER_KEPT_MAX = 4096, // of a call that is kept
    ANSWER_HEADERS_MAX = 64,
};

static const struct call_ops ops;

static struct http2_call *http2_call_of(struct call *call)
{
    return (struct http2_call *)call; // its first member
}

static struct connection *connection_of(const struct http2_call *call)
{
    return call->session->connection;
}

static nghttp2_session *nghttp2_of(const struct http2_call *call)
{
    return call->session->nghttp2;
}

// --- Life

static void reset_buffer(struct buf *buf)
{
    if (buf->capacity > BUFFER_KEPT_MAX)
        buf_deinit(buf);
    else
        buf_clear(buf);
}

struct http2_call *http2_call_create(struct http2_session *session, int32_t stream_id)
{
    struct server_loop *server_loop = session->connection->server_loop;
    struct http2_call *call = (struct http2_call *)server_loop->http2_calls;
    struct buf out;
    buf_init(&out, SIZE_MAX);
    if (call != NULL) {
        server_loop->http2_calls = call->call.next;
        server_loop->http2_call_count--;
        out = call->out;
    } else {
        call = mem_alloc(sizeof(*call));
    }
    server_loop->use_count++;
    *call = (struct http2_call){.session = session, .stream_id = stream_id, .out = out};
    buf_init(&call->body, SIZE_MAX);
    buf_init(&call->backlog, SIZE_MAX);
    call_init(&call->call, session->connection->listener, server_loop->loop, &ops);
    call->call.peer = arena_str(call->call.arena, connection_peer(session->connection));
    call->progress_ns = loop_now_ns(server_loop->loop);
    session->active_ns = call->progress_ns;
    session->held_count++;
    session->stream_count++;
    session->unended_count++;
    call->call.next = session->calls;
    if (call->call.next != NULL)
        call->call.next->previous = &call->call;
    session->calls = &call->call;
    return call;
}

static void release(struct call *base)
{
    struct http2_call *call = http2_call_of(base);
    struct server_loop *server_loop = server_loop_of(base->listener->server, base->loop);
    http2_session_release(call->session);
    if (server_loop->http2_call_count >= CALLS_KEPT_MAX) {
        buf_deinit(&call->out);
        mem_free(call);
        return;
    }
    reset_buffer(&call->out);
    base->next = server_loop->http2_calls;
    server_loop->http2_calls = base;
    server_loop->http2_call_count++;
}

void http2_free_calls(struct server_loop *server_loop)
{
    while (server_loop->http2_calls != NULL) {
        struct http2_call *call = http2_call_of(server_loop->http2_calls);
        server_loop->http2_calls = call->call.next;
        buf_deinit(&call->out);
        mem_free(call);
    }
    server_loop->http2_call_count = 0;
}

static void unlink_call(struct http2_call *call)
{
    struct http2_session *session = call->session;
    struct call *base = &call->call;
    session->recent = NULL;
    if (base->previous != NULL)
        base->previous->next = base->next;
    else
        session->calls = base->next;
    if (base->next != NULL)
        base->next->previous = base->previous;
    base->next = NULL;
    base->previous = NULL;
    session->stream_count--;
    if (!call->has_ended)
        session->unended_count--;
    for (struct http2_call **it = &session->unblocked; call->is_in_unblocked && *it != NULL;
         it = &(*it)->unblocked_next) {
        if (*it == call) {
            *it = call->unblocked_next;
            break;
        }
    }
    call->is_in_unblocked = false;
}

static void drop_request(struct http2_call *call)
{
    connection_memory_give(connection_of(call), call->body.len + call->backlog.len);
    buf_deinit(&call->body);
    buf_deinit(&call->backlog);
    grpc_reader_deinit(&call->reader);
}

static size_t queued_size(const struct call *base)
{
    const struct http2_call *call = (const struct http2_call *)base;
    return call->out.len - call->out_offset;
}

static void drop_answer(struct http2_call *call)
{
    connection_memory_give(connection_of(call), queued_size(&call->call));
    reset_buffer(&call->out);
    call->out_offset = 0;
}

void http2_call_stream_closed(struct http2_call *call)
{
    unlink_call(call);
    drop_request(call);
    drop_answer(call);
    call->stream_id = 0;
    call_cancel(&call->call);
    call_unref(&call->call);
}

// --- Headers of the request

static bool put_pseudo_header(struct http2_call *call, struct str name, struct str value)
{
    struct call *base = &call->call;
    base->header_size += name.len + value.len + CALL_HEADER_COST;
    if (base->header_size > CALL_HEADER_SIZE_MAX)
        return false;
    if (str_equal(name, STR(":path"))) {
        base->path = arena_str(base->arena, value); // cut when the kind of the call is known
    } else if (str_equal(name, STR(":method"))) {
        base->verb = arena_str(base->arena, value);
    } else if (str_equal(name, STR(":authority"))) {
        return call_put_header(base, STR("host"), value);
    }
    return true;
}

bool http2_call_put_header(struct http2_call *call, struct str name, struct str value)
{
    if (call->are_headers_too_large)
        return true;
    bool fits = name.len > 0 && name.data[0] == ':' ? put_pseudo_header(call, name, value)
                                                    : call_put_header(&call->call, name, value);
    call->are_headers_too_large = !fits;
    return true;
}

static bool is_grpc(const struct call *call)
{
    struct str type = call->content_type;
    struct str grpc = STR("application/grpc");
    if (!str_starts_with(type, grpc) || !str_equal(call->verb, STR("POST")))
        return false;
    return type.len == grpc.len || type.data[grpc.len] == '+' || type.data[grpc.len] == ';';
}

static void refuse_grpc(struct http2_call *call, enum status status, const char *text)
{
    call->was_refused = true;
    call_fail(&call->call, status, str_from_cstr(text));
}

static void refuse_http(struct http2_call *call, int http_code, enum status status,
                        const char *text)
{
    call->was_refused = true;
    call_fail_http(&call->call, http_code, status, str_from_cstr(text));
}

// True: the call was answered here.
static bool refuse_early_grpc(struct http2_call *call)
{
    struct call *base = &call->call;
    const struct listener_options *options = &base->listener->options;
    char text[256];
    if (call->are_headers_too_large) {
        snprintf(text, sizeof(text), "the request's metadata is over the limit of %d bytes",
                 CALL_HEADER_SIZE_MAX);
        refuse_grpc(call, STATUS_EXHAUSTED, text);
    } else if (!options->has_grpc) {
        snprintf(text, sizeof(text), "this port does not serve gRPC: %.*s",
                 (int)(base->path.len < 160 ? base->path.len : 160), base->path.data);
        refuse_grpc(call, STATUS_UNIMPLEMENTED, text);
    } else if (base->has_bad_header) {
        refuse_grpc(call, STATUS_INVALID, "metadata with -bin at its end must be base64");
    } else if (base->encoding.len > 0 && !str_equal(base->encoding, STR("identity")) &&
               !str_equal(base->encoding, STR("gzip"))) {
        call_add_header(base, STR("grpc-accept-encoding"), STR("identity,gzip"));
        snprintf(text, sizeof(text), "grpc-encoding %.*s is not supported; identity and gzip are",
                 (int)(base->encoding.len < 64 ? base->encoding.len : 64), base->encoding.data);
        refuse_grpc(call, STATUS_UNIMPLEMENTED, text);
    } else if (connection_memory_is_over(connection_of(call)) ||
               call->session->held_count > 2 * options->stream_max) {
        refuse_grpc(call, STATUS_EXHAUSTED,
                    "the server's memory for requests is used up, try again later");
    }
    return call->was_refused;
}

// The length that the client announced, or 0.
static uint64_t announced_size(const struct call *call)
{
    uint64_t size = 0;
    return str_to_u64(call_metadata(call, STR("content-length")), &size) ? size : 0;
}

static bool refuse_early_http(struct http2_call *call)
{
    struct call *base = &call->call;
    const struct listener_options *options = &base->listener->options;
    if (call->are_headers_too_large)
        refuse_http(call, 431, STATUS_EXHAUSTED, "the request's headers are too large");
    else if (!options->has_http && options->has_grpc)
        refuse_http(call, 415, STATUS_INVALID, "this port serves application/grpc only");
    else if (!options->has_http)
        refuse_http(call, 404, STATUS_NOT_FOUND, "this port does not serve HTTP requests");
    else if (connection_memory_is_over(connection_of(call)) ||
             call->session->held_count > 2 * options->stream_max)
        refuse_http(call, 503, STATUS_UNAVAILABLE,
                    "the server's memory for requests is used up, try again later");
    return call->was_refused;
}

static void refuse_body(struct http2_call *call, uint64_t size)
{
    char text[128];
    snprintf(text, sizeof(text), "body of %llu bytes is over the limit of %zu bytes",
             (unsigned long long)size, call->call.message_size_max);
    refuse_http(call, 413, STATUS_EXHAUSTED, text);
}

static bool take_memory(void *context, size_t size)
{
    struct http2_call *call = context;
    return connection_memory_take(connection_of(call), size);
}

static void give_memory(void *context, size_t size)
{
    struct http2_call *call = context;
    connection_memory_give(connection_of(call), size);
}

void http2_call_headers_complete(struct http2_call *call)
{
    struct call *base = &call->call;
    call->has_all_headers = true;
    base->kind = is_grpc(base) ? CALL_GRPC : CALL_HTTP;
    if (base->kind == CALL_GRPC) {
        if (refuse_early_grpc(call))
            return;
        grpc_reader_init(&call->reader, str_equal(base->encoding, STR("gzip")),
                         &(struct grpc_budget){take_memory, give_memory, call});
        call_start(base);
        return;
    }
    call_set_target(base, base->path);
    if (refuse_early_http(call))
        return;
    call_start(base);
    uint64_t size = announced_size(base);
    if (!call_is_done(base) && size > base->message_size_max)
        refuse_body(call, size);
}

// --- Messages of the request

static void note_progress(struct http2_call *call, size_t size)
{
    call->unnoted_size += size;
    if (call->unnoted_size < HTTP2_PROGRESS_SIZE)
        return;
    call->unnoted_size = 0;
    call->progress_ns = loop_now_ns(call->call.loop);
}

// Take as much as the answers' queue allows. What is left of bytes has to wait.
static void read_messages(struct http2_call *call, struct span *bytes)
{
    while (bytes->len > 0 && !call_is_done(&call->call) &&
           queued_size(&call->call) <= HTTP2_QUEUE_HIGH) {
        struct span message = {0};
        struct error error = {0};
        bool is_complete = false;
        size_t before = bytes->len;
        enum status status = grpc_reader_next(&call->reader, call->call.message_size_max, bytes,
                                              &error, &message, &is_complete);
        nghttp2_session_consume_stream(nghttp2_of(call), call->stream_id, before - bytes->len);
        if (status != STATUS_OK) {
            call->was_refused = true;
            call_fail(&call->call, status, str_from_cstr(error.text));
        } else if (is_complete) {
            call->has_message = true;
            call_deliver(&call->call, message);
        }
    }
}

static void receive_grpc(struct http2_call *call, struct span bytes)
{
    if (call->backlog.len == 0)
        read_messages(call, &bytes);
    if (bytes.len == 0 || call_is_done(&call->call))
        return;
    // At most a stream's window of it can come, because nothing of it is consumed.
    if (!connection_memory_take(connection_of(call), bytes.len)) {
        refuse_grpc(call, STATUS_EXHAUSTED, "the answers are not read and requests pile up");
        return;
    }
    buf_append(&call->backlog, bytes.data, bytes.len);
}

static void receive_body(struct http2_call *call, struct span bytes)
{
    nghttp2_session_consume_stream(nghttp2_of(call), call->stream_id, bytes.len);
    size_t max = call->call.message_size_max;
    if (call->body.len > max || bytes.len > max - call->body.len) {
        refuse_body(call, call->body.len + bytes.len);
    } else if (!connection_memory_take(connection_of(call), bytes.len)) {
        refuse_http(call, 503, STATUS_UNAVAILABLE, "the server's memory for requests is used up");
    } else {
        buf_append(&call->body, bytes.data, bytes.len);
    }
}

void http2_call_received(struct http2_call *call, struct span bytes)
{
    if (!call->has_all_headers || call->was_refused || call_is_done(&call->call))
        return; // it is told to stop when the answer has gone
    note_progress(call, bytes.len);
    if (call->call.kind == CALL_GRPC)
        receive_grpc(call, bytes);
    else
        receive_body(call, bytes);
}

static void end_grpc(struct http2_call *call)
{
    struct call *base = &call->call;
    call->has_half_closed = true;
    if (grpc_reader_is_inside(&call->reader))
        refuse_grpc(call, STATUS_INVALID, "the request ends in the middle of a message");
    else if (!call->has_message && base->listener->options.handler->half_close == NULL)
        refuse_grpc(call, STATUS_INVALID, "the request has no message");
    else
        call_half_close(base);
}

static void end_http(struct http2_call *call)
{
    struct call *base = &call->call;
    call->has_half_closed = true;
    call_deliver(base, buf_span(&call->body));
    connection_memory_give(connection_of(call), call->body.len);
    buf_deinit(&call->body);
    call_half_close(base);
}

void http2_call_ended(struct http2_call *call)
{
    if (call->has_ended)
        return;
    call->has_ended = true;
    call->session->unended_count--;
    if (!call->has_all_headers || call->was_refused || call_is_done(&call->call) ||
        call->backlog.len > 0)
        return;
    if (call->call.kind == CALL_GRPC)
        end_grpc(call);
    else
        end_http(call);
}

void http2_call_go_on(struct http2_call *call)
{
    if (call->stream_id == 0)
        return;
    if (call->backlog.len > 0) {
        struct span bytes = buf_span(&call->backlog);
        size_t before = bytes.len;
        read_messages(call, &bytes);
        buf_consume(&call->backlog, before - bytes.len);
        connection_memory_give(connection_of(call), before - bytes.len);
        if (call->backlog.len == 0 && call->has_ended && !call_is_done(&call->call))
            end_grpc(call);
    }
    if (queued_size(&call->call) < HTTP2_QUEUE_LOW)
        call_tell_writable(&call->call);
}

void http2_call_check_progress(struct http2_call *call, uint64_t now_ns, uint64_t time_max_ns)
{
    if (call->has_ended || call_is_done(&call->call) || call->backlog.len > 0 ||
        now_ns - call->progress_ns < time_max_ns)
        return;
    if (!call->has_all_headers)
        nghttp2_submit_rst_stream(nghttp2_of(call), NGHTTP2_FLAG_NONE, call->stream_id,
                                  NGHTTP2_CANCEL);
    else if (call->call.kind == CALL_HTTP)
        refuse_http(call, 408, STATUS_TIMEOUT, "the request's body does not come in time");
    else if (!call->has_message || grpc_reader_is_inside(&call->reader))
        refuse_grpc(call, STATUS_TIMEOUT, "the request's message does not come in time");
    http2_session_wants_flush(call->session);
}

// --- The answer

static nghttp2_nv pair(struct str name, struct str value, uint8_t flags)
{
    // nghttp2 copies what is not marked as constant, and never writes to either.
    union {
        const char *constant;
        uint8_t *bytes;
    } names = {.constant = name.data}, values = {.constant = value.data};
    return (nghttp2_nv){names.bytes, values.bytes, name.len, value.len, flags};
}

enum {
    CONSTANT_NAME = NGHTTP2_NV_FLAG_NO_COPY_NAME,
    CONSTANT = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE,
    // Each value comes once: it would only push others out of the table of known headers.
    UNIQUE = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX,
};

static struct str grpc_status_text(enum status status)
{
    static const char *const texts[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                        "9", "10", "11", "12", "13", "14", "15", "16"};
    return str_from_cstr(texts[status_grpc_code(status)]);
}

static size_t put_status(const struct http2_call *call, nghttp2_nv *pairs)
{
    pairs[0] = pair(STR("grpc-status"), grpc_status_text(call->status), CONSTANT);
    if (call->status_text.len == 0)
        return 1;
    pairs[1] = pair(STR("grpc-message"), call->status_text, CONSTANT_NAME);
    return 2;
}

static size_t put_answer_headers(const struct http2_call *call, nghttp2_nv *pairs, size_t count)
{
    const struct call *base = &call->call;
    if (base->request_id.len > 0)
        pairs[count++] = pair(STR("x-request-id"), base->request_id, UNIQUE);
    for (const struct call_header *it = base->answer_headers.first;
         it != NULL && count < ANSWER_HEADERS_MAX; it = it->next)
        pairs[count++] = pair(it->name, it->value, NGHTTP2_NV_FLAG_NONE);
    return count;
}

static void note_taken(struct http2_call *call, size_t size)
{
    size_t after = queued_size(&call->call);
    connection_memory_give(connection_of(call), size);
    bool fell = after + size >= HTTP2_QUEUE_LOW && after < HTTP2_QUEUE_LOW;
    bool has_waiting = call->backlog.len > 0 && after < HTTP2_QUEUE_LOW;
    if ((!fell && !has_waiting) || call->is_in_unblocked)
        return;
    call->is_in_unblocked = true;
    call->unblocked_next = call->session->unblocked;
    call->session->unblocked = call;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2 decides on the parameters.
static ssize_t read_answer(nghttp2_session *nghttp2, int32_t stream_id, uint8_t *bytes,
                           size_t size_max, uint32_t *flags, nghttp2_data_source *source,
                           void *user)
{
    (void)user;
    struct http2_call *call = source->ptr;
    size_t size = queued_size(&call->call);
    if (size > size_max)
        size = size_max;
    if (size == 0 && !call->has_end) {
        call->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (size > 0)
        memcpy(bytes, call->out.data + call->out_offset, size);
    call->out_offset += size;
    if (call->out_offset == call->out.len) {
        buf_clear(&call->out);
        call->out_offset = 0;
    }
    note_taken(call, size);
    if (queued_size(&call->call) > 0 || !call->has_end)
        return (ssize_t)size;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (call->call.kind == CALL_GRPC) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_nv pairs[2];
        size_t count = put_status(call, pairs);
        nghttp2_submit_trailer(nghttp2, stream_id, pairs, count);
    }
    return (ssize_t)size;
}

static void submit(struct http2_call *call, const nghttp2_nv *pairs, size_t count, bool has_data)
{
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_answer};
    call->was_submitted = true;
    // It fails without memory, or when the stream is going away, which we shall be told.
    (void)nghttp2_submit_response(nghttp2_of(call), call->stream_id, pairs, count,
                                  has_data ? &provider : NULL);
    http2_session_wants_flush(call->session);
}

static void submit_grpc(struct http2_call *call, bool is_trailers_only)
{
    nghttp2_nv pairs[ANSWER_HEADERS_MAX + 1];
    size_t count = 0;
    pairs[count++] = pair(STR(":status"), STR("200"), CONSTANT);
    pairs[count++] = pair(STR("content-type"), STR("application/grpc"), CONSTANT);
    if (is_trailers_only)
        count += put_status(call, pairs + count);
    else if (call->call.accepts_gzip)
        pairs[count++] = pair(STR("grpc-encoding"), STR("gzip"), CONSTANT);
    submit(call, pairs, put_answer_headers(call, pairs, count), !is_trailers_only);
}

static void go_on_sending(struct http2_call *call)
{
    if (!call->was_submitted) {
        submit_grpc(call, false);
        return;
    }
    if (call->is_deferred) {
        call->is_deferred = false;
        nghttp2_session_resume_data(nghttp2_of(call), call->stream_id);
    }
    http2_session_wants_flush(call->session);
}

// What was taken already is moved over only when there is more of it than of the rest.
static void compact(struct http2_call *call)
{
    if (call->out_offset < 65536 || call->out_offset < call->out.len / 2)
        return;
    buf_consume(&call->out, call->out_offset);
    call->out_offset = 0;
}

static void send_message(struct call *base, struct span message)
{
    struct http2_call *call = http2_call_of(base);
    compact(call);
    size_t before = call->out.len;
    bool fits = grpc_frame_append(&call->out, message, base->accepts_gzip);
    connection_memory_charge(connection_of(call), call->out.len - before);
    if (!fits || connection_memory_is_over(connection_of(call))) {
        drop_answer(call);
        call_fail(base, STATUS_EXHAUSTED, STR("the server's memory for answers is used up"));
        return;
    }
    go_on_sending(call);
}

static void finish(struct call *base, enum status status, struct str text)
{
    struct http2_call *call = http2_call_of(base);
    call->status = status;
    call->has_end = true;
    if (status != STATUS_OK && text.len > 0)
        call->status_text = grpc_percent_encode(base->arena, text);
    if (!call->was_submitted && queued_size(base) == 0)
        submit_grpc(call, true);
    else
        go_on_sending(call);
}

static void reply(struct call *base, int http_code, struct str content_type, struct span body)
{
    struct http2_call *call = http2_call_of(base);
    nghttp2_nv pairs[ANSWER_HEADERS_MAX + 1];
    char code[16];
    char size[24];
    snprintf(code, sizeof(code), "%d", http_code);
    snprintf(size, sizeof(size), "%zu", body.len);
    bool has_length = http_code != 204 && http_code != 304;
    bool has_body = has_length && body.len > 0 && !str_equal(base->verb, STR("HEAD"));
    size_t count = 0;
    pairs[count++] = pair(STR(":status"), str_from_cstr(code), CONSTANT_NAME);
    if (content_type.len > 0)
        pairs[count++] = pair(STR("content-type"), content_type, CONSTANT_NAME);
    if (has_length)
        pairs[count++] = pair(STR("content-length"), str_from_cstr(size), CONSTANT_NAME);
    count = put_answer_headers(call, pairs, count);
    call->has_end = true;
    if (has_body) {
        buf_append(&call->out, body.data, body.len);
        connection_memory_charge(connection_of(call), body.len);
    }
    submit(call, pairs, count, has_body);
}

static const struct call_ops ops = {send_message, finish, reply, queued_size, release};
