#include <ctype.h>
#include <llhttp.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/loop_internal.h"
#include "net/server_internal.h"

// HTTP/1.1: llhttp finds the parts, this file has the limits and the order. One request is served
// at a time; what a client sends ahead waits in a bounded buffer, then in the kernel.
//
// A request ends inside the parser, which pauses there; calls are answered outside of it. When a
// request is refused before its body has come, the connection ends with the answer: nobody reads a
// body that nobody wants.

enum {
    TARGET_SIZE_MAX = 8192,
    INPUT_SIZE_MAX = 65536,   // sent ahead while a call is served
    OUT_SIZE_MAX = 1 << 20,   // answers not taken: no further request is looked at
    SKIPPED_BODY_MAX = 65536, // of an answered request: read over, so that the connection lives
    TRAILER_SIZE_MAX = 16384, // trailers and chunk extensions, which mean nothing to us
    PROGRESS_SIZE = 1024,     // what a body must grow by per time limit
    OUT_KEPT_MAX = 4096,      // of the buffer, while the connection is idle
};

#define HEAD_TIME_MAX        (10 * NS_PER_SECOND)
#define BODY_TIME_MAX_PUBLIC (20 * NS_PER_SECOND)
#define BODY_TIME_MAX_INNER  (300 * NS_PER_SECOND)
#define IDLE_TIME_MAX        (75 * NS_PER_SECOND)

enum phase { PHASE_IDLE, PHASE_HEAD, PHASE_BODY, PHASE_CALL };

struct http1_call {
    struct call call;              // first
    struct http1_session *session; // NULL: answered, or the connection is lost
};

struct http1_session {
    struct connection *connection;
    struct http1_call *call; // from the first byte of a request until it is answered
    llhttp_t parser;
    enum phase phase;
    bool is_draining;
    bool is_closing; // no further byte is looked at
    bool is_head_complete;
    bool is_message_complete;
    bool is_parsing;
    bool is_paused;
    bool keeps_alive;
    bool expects_continue;
    bool was_continued;
    uint64_t phase_ns; // since when
    size_t skipped_size;
    size_t trailer_size;
    size_t progress_size; // of the body since phase_ns
    struct str problem;   // why the parser was stopped by us
    int problem_code;
    struct buf target;
    struct buf name;
    struct buf value;
    struct buf body;
    struct buf input;
    struct buf out;
    size_t out_offset;
    size_t out_charged; // of it, to the budget
    struct timer timer;
};

static const struct call_ops ops;

static uint64_t now_ns(const struct http1_session *session)
{
    return loop_now_ns(session->connection->server_loop->loop);
}

static void set_phase(struct http1_session *session, enum phase phase)
{
    session->phase = phase;
    session->phase_ns = now_ns(session);
    session->progress_size = 0;
}

// --- Calls

static void begin_call(struct http1_session *session)
{
    struct connection *connection = session->connection;
    struct http1_call *call = mem_alloc(sizeof(*call));
    call->session = session;
    connection->server_loop->use_count++;
    call_init(&call->call, connection->listener, connection->server_loop->loop, &ops);
    call->call.kind = CALL_HTTP;
    call->call.peer = arena_str(call->call.arena, connection_peer(connection));
    session->call = call;
}

static void release(struct call *call)
{
    mem_free(call);
}

static void drop_body(struct http1_session *session)
{
    connection_memory_give(session->connection, session->body.len);
    buf_deinit(&session->body);
}

// The connection and the call part: it was answered, or one of them is lost.
static void leave_call(struct http1_session *session)
{
    struct http1_call *call = session->call;
    session->call = NULL;
    call->session = NULL;
    call_unref(&call->call);
}

// Stop the parser from inside a callback.
static int stop(struct http1_session *session, int http_code, struct str problem)
{
    session->problem = problem;
    session->problem_code = http_code;
    return HPE_USER;
}

// Answer in the handler's place and end the connection.
static void refuse(struct http1_session *session, int http_code, struct str text)
{
    enum status status = STATUS_INVALID;
    if (http_code == 413 || http_code == 431)
        status = STATUS_EXHAUSTED;
    else if (http_code == 404)
        status = STATUS_NOT_FOUND;
    else if (http_code == 408)
        status = STATUS_TIMEOUT;
    else if (http_code == 501)
        status = STATUS_UNIMPLEMENTED;
    else if (http_code == 503)
        status = STATUS_UNAVAILABLE;
    if (session->call == NULL)
        begin_call(session);
    session->keeps_alive = false;
    call_fail_http(&session->call->call, http_code, status, text);
    session->is_closing = true;
    drop_body(session);
}

// --- What llhttp calls

static struct http1_session *session_of(const llhttp_t *parser)
{
    return parser->data;
}

static int on_begin(llhttp_t *parser)
{
    struct http1_session *session = session_of(parser);
    session->is_head_complete = false;
    session->is_message_complete = false;
    session->expects_continue = false;
    session->was_continued = false;
    session->keeps_alive = false;
    session->skipped_size = 0;
    session->trailer_size = 0;
    buf_clear(&session->target);
    buf_clear(&session->name);
    buf_clear(&session->value);
    set_phase(session, PHASE_HEAD);
    begin_call(session);
    return 0;
}

static int on_target(llhttp_t *parser, const char *bytes, size_t size)
{
    struct http1_session *session = session_of(parser);
    buf_append(&session->target, bytes, size);
    return buf_has_overflowed(&session->target)
               ? stop(session, 414, STR("the request's target is over the limit of 8192 bytes"))
               : 0;
}

static int put_part(struct http1_session *session, struct buf *part, const char *bytes, size_t size)
{
    if (session->is_head_complete) {
        session->trailer_size += size;
        return session->trailer_size > TRAILER_SIZE_MAX
                   ? stop(session, 431, STR("the request's trailers are too large"))
                   : 0;
    }
    for (size_t i = 0; i < size; i++)
        buf_append_byte(part, part == &session->name ? (uint8_t)tolower((unsigned char)bytes[i])
                                                     : (uint8_t)bytes[i]);
    return buf_has_overflowed(part)
               ? stop(session, 431, STR("the request's headers are over the limit of 16384 bytes"))
               : 0;
}

static int on_name(llhttp_t *parser, const char *bytes, size_t size)
{
    return put_part(session_of(parser), &session_of(parser)->name, bytes, size);
}

static int on_value(llhttp_t *parser, const char *bytes, size_t size)
{
    return put_part(session_of(parser), &session_of(parser)->value, bytes, size);
}

static int on_extension(llhttp_t *parser, const char *bytes, size_t size)
{
    (void)bytes;
    struct http1_session *session = session_of(parser);
    session->trailer_size += size + 1;
    return session->trailer_size > TRAILER_SIZE_MAX
               ? stop(session, 431, STR("the request's chunk extensions are too large"))
               : 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct http1_session *session = session_of(parser);
    if (session->is_head_complete)
        return 0;
    struct str name = buf_str(&session->name);
    struct str value = str_trim(buf_str(&session->value));
    if (str_equal(name, STR("host")) &&
        call_metadata(&session->call->call, STR("host")).data != NULL)
        return stop(session, 400, STR("the request has two Host headers"));
    bool fits = call_put_header(&session->call->call, name, value);
    buf_clear(&session->name);
    buf_clear(&session->value);
    return fits
               ? 0
               : stop(session, 431, STR("the request's headers are over the limit of 16384 bytes"));
}

// Path and query of the request's target, which may be a whole URL.
static bool set_target(struct http1_session *session)
{
    struct str target = buf_str(&session->target);
    struct str rest = target;
    if (str_starts_with(target, STR("http://")) || str_starts_with(target, STR("https://"))) {
        const char *host = (const char *)memchr(target.data, ':', target.len) + 3;
        size_t left = target.len - (size_t)(host - target.data);
        const char *slash = left > 0 ? memchr(host, '/', left) : NULL;
        rest = slash != NULL ? (struct str){slash, left - (size_t)(slash - host)} : STR("/");
    }
    bool is_star = str_equal(rest, STR("*")) && session->parser.method == HTTP_OPTIONS;
    if (!is_star && (rest.len == 0 || rest.data[0] != '/'))
        return false;
    call_set_target(&session->call->call, rest);
    return true;
}

// What makes a request unacceptable whatever it asks for. Empty: nothing.
static struct str find_fault(struct http1_session *session, int *out_code)
{
    const llhttp_t *parser = &session->parser;
    const struct call *call = &session->call->call;
    const struct listener_options *options = &call->listener->options;
    bool is_11 = parser->http_major == 1 && parser->http_minor == 1;
    bool is_chunked = (parser->flags & F_CHUNKED) != 0;
    *out_code = 400;
    if (!is_11 && !(parser->http_major == 1 && parser->http_minor == 0)) {
        *out_code = 505;
        return STR("this version of HTTP is not supported");
    }
    if (parser->method == HTTP_CONNECT) {
        *out_code = 501;
        return STR("CONNECT is not supported");
    }
    if ((parser->flags & F_TRANSFER_ENCODING) != 0 && (!is_chunked || !is_11))
        return STR("this Transfer-Encoding is not supported");
    if (is_11 && call_metadata(call, STR("host")).data == NULL)
        return STR("the request has no Host header");
    if (!set_target(session))
        return STR("the request's target is malformed");
    struct str expected = call_metadata(call, STR("expect"));
    if (expected.len > 0 && !str_equal_ignoring_case(expected, STR("100-continue"))) {
        *out_code = 417;
        return STR("this expectation cannot be met");
    }
    if (!options->has_http) {
        *out_code = 404;
        return STR("this port does not serve HTTP requests; gRPC needs HTTP/2");
    }
    if (connection_memory_is_over(session->connection)) {
        *out_code = 503;
        return STR("the server's memory for requests is used up, try again later");
    }
    return (struct str){0};
}

static void refuse_body(struct http1_session *session, uint64_t size)
{
    char text[128];
    snprintf(text, sizeof(text), "body of %llu bytes is over the limit of %zu bytes",
             (unsigned long long)size, session->call->call.message_size_max);
    refuse(session, 413, str_from_cstr(text));
}

static bool has_body(const llhttp_t *parser)
{
    return (parser->flags & F_CHUNKED) != 0 || parser->content_length > 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct http1_session *session = session_of(parser);
    struct call *call = &session->call->call;
    session->is_head_complete = true;
    call->verb = str_from_cstr(llhttp_method_name((llhttp_method_t)parser->method));
    parser->upgrade = 0; // no other protocol is spoken here: the header is ignored
    int code = 0;
    struct str fault = find_fault(session, &code);
    if (fault.len > 0)
        return stop(session, code, fault);
    session->keeps_alive = llhttp_should_keep_alive(parser) != 0 && !session->is_draining;
    session->expects_continue =
        has_body(parser) && parser->http_minor == 1 && call_metadata(call, STR("expect")).len > 0;
    set_phase(session, has_body(parser) ? PHASE_BODY : PHASE_CALL);
    call_start(call);
    if (session->call == NULL)
        return session->is_closing ? HPE_PAUSED : 0;
    if ((parser->flags & F_CHUNKED) == 0 && parser->content_length > call->message_size_max) {
        refuse_body(session, parser->content_length);
        return HPE_PAUSED;
    }
    if (session->expects_continue) {
        session->was_continued = true;
        buf_append_cstr(&session->out, "HTTP/1.1 100 Continue\r\n\r\n");
        connection_wants_flush(session->connection);
    }
    return 0;
}

static int on_body(llhttp_t *parser, const char *bytes, size_t size)
{
    struct http1_session *session = session_of(parser);
    session->progress_size += size;
    if (session->call == NULL) { // answered already
        session->skipped_size += size;
        return session->skipped_size > SKIPPED_BODY_MAX || session->is_closing ? HPE_USER : 0;
    }
    size_t max = session->call->call.message_size_max;
    if (session->body.len > max || size > max - session->body.len) {
        refuse_body(session, session->body.len + size);
        return HPE_USER;
    }
    if (!connection_memory_take(session->connection, size)) {
        refuse(session, 503, STR("the server's memory for requests is used up"));
        return HPE_USER;
    }
    buf_append(&session->body, bytes, size);
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    session_of(parser)->is_message_complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_begin,
    .on_url = on_target,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

// --- The order of things

static void deliver(struct http1_session *session)
{
    struct http1_call *call = session->call;
    set_phase(session, PHASE_CALL);
    if (call == NULL)
        return; // answered before its body had come
    call_ref(&call->call);
    call_deliver(&call->call, buf_span(&session->body));
    if (call->session != NULL)
        call_half_close(&call->call);
    call_unref(&call->call);
    drop_body(session);
}

static void on_parse_error(struct http1_session *session)
{
    if (session->is_closing)
        return;
    if (session->problem.len > 0)
        refuse(session, session->problem_code, session->problem);
    else if (session->call != NULL || session->is_message_complete || !session->is_head_complete)
        refuse(session, 400, STR("the request is malformed"));
    session->is_closing = true;
    connection_finish(session->connection);
}

static bool may_parse(const struct http1_session *session)
{
    bool is_serving = session->call != NULL && session->is_message_complete;
    return !session->is_closing && !is_serving && !session->is_parsing &&
           session->out.len - session->out_offset < OUT_SIZE_MAX;
}

// Parse until the bytes are through or a call has to be waited for. Returns what was used.
static size_t parse(struct http1_session *session, struct span bytes)
{
    const char *start = (const char *)bytes.data;
    size_t used = 0;
    while (used < bytes.len && may_parse(session)) {
        session->is_parsing = true;
        llhttp_errno_t result = llhttp_execute(&session->parser, start + used, bytes.len - used);
        session->is_parsing = false;
        if (result == HPE_OK)
            return bytes.len;
        if (result != HPE_PAUSED) {
            on_parse_error(session);
            return bytes.len;
        }
        used = (size_t)(llhttp_get_error_pos(&session->parser) - start);
        llhttp_resume(&session->parser);
        if (session->is_message_complete)
            deliver(session);
    }
    return session->is_closing ? bytes.len : used;
}

static void update_timer(struct http1_session *session)
{
    bool is_public = session->connection->listener->options.is_public;
    uint64_t body_time = is_public ? BODY_TIME_MAX_PUBLIC : BODY_TIME_MAX_INNER;
    if (session->call == NULL && session->is_message_complete && session->phase == PHASE_CALL)
        set_phase(session, PHASE_IDLE);
    switch (session->phase) {
    case PHASE_IDLE:
        // Started anew by each request would cost more than to look again when it fires.
        if (!timer_is_running(&session->timer) || session->timer.node.key < session->phase_ns)
            timer_start_at(&session->timer, session->phase_ns + IDLE_TIME_MAX);
        break;
    case PHASE_HEAD:
        timer_start_at(&session->timer, session->phase_ns + HEAD_TIME_MAX);
        break;
    case PHASE_BODY:
        timer_start_at(&session->timer, session->phase_ns + body_time);
        break;
    case PHASE_CALL:
        timer_stop(&session->timer);
        break;
    }
}

static void on_timer(struct timer *timer)
{
    struct http1_session *session =
        (struct http1_session *)(void *)((char *)timer - offsetof(struct http1_session, timer));
    if (session->is_closing)
        return;
    bool is_idle = session->phase == PHASE_IDLE;
    if (is_idle && now_ns(session) < session->phase_ns + IDLE_TIME_MAX) {
        timer_start_at(timer, session->phase_ns + IDLE_TIME_MAX);
    } else if (is_idle) {
        session->is_closing = true;
        connection_finish(session->connection);
    } else if (session->phase == PHASE_BODY && session->progress_size >= PROGRESS_SIZE) {
        set_phase(session, PHASE_BODY);
        update_timer(session);
    } else {
        refuse(session, 408, STR("the request does not come in time"));
        connection_finish(session->connection);
    }
}

// What was sent ahead, as soon as it may be looked at.
static void parse_input(struct http1_session *session)
{
    if (session->input.len > 0 && may_parse(session)) {
        struct buf input = session->input;
        buf_init(&session->input, SIZE_MAX);
        size_t used = parse(session, buf_span(&input));
        buf_append(&session->input, input.data + used, input.len - used);
        buf_deinit(&input);
    }
    update_timer(session);
    if (session->is_paused && session->input.len < INPUT_SIZE_MAX) {
        session->is_paused = false;
        connection_resume(session->connection);
    }
}

// --- The answer

// RFC 9110, section 15, as far as we answer with it.
static const char *reason_of(int http_code)
{
    static const struct {
        int code;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].code == http_code)
            return reasons[i].reason;
    }
    return http_code < 400 ? "Success" : "Error";
}

// Whether the rest of the request can be read over, so that the next one is found.
static bool can_go_on(const struct http1_session *session)
{
    if (!session->keeps_alive || session->is_draining || !session->is_head_complete)
        return false;
    if (session->is_message_complete || !has_body(&session->parser))
        return true;
    bool is_chunked = (session->parser.flags & F_CHUNKED) != 0;
    return !is_chunked && session->parser.content_length <= SKIPPED_BODY_MAX &&
           (!session->expects_continue || session->was_continued);
}

static void write_head(struct http1_session *session, const struct call *call, int http_code,
                       struct str content_type, size_t body_size)
{
    struct buf *out = &session->out;
    buf_append_format(out, "HTTP/1.1 %d %s\r\n", http_code, reason_of(http_code));
    if (content_type.len > 0)
        buf_append_format(out, "content-type: %.*s\r\n", STR_ARG(content_type));
    if (http_code != 204 && http_code != 304)
        buf_append_format(out, "content-length: %zu\r\n", body_size);
    if (call->request_id.len > 0)
        buf_append_format(out, "x-request-id: %.*s\r\n", STR_ARG(call->request_id));
    for (const struct call_header *it = call->answer_headers.first; it != NULL; it = it->next) {
        buf_append_str(out, it->name);
        buf_append_cstr(out, ": ");
        buf_append_str(out, it->value);
        buf_append_cstr(out, "\r\n");
    }
    if (session->is_closing)
        buf_append_cstr(out, "connection: close\r\n");
    else if (session->parser.http_minor == 0)
        buf_append_cstr(out, "connection: keep-alive\r\n");
    buf_append_cstr(out, "\r\n");
}

static void reply(struct call *base, int http_code, struct str content_type, struct span body)
{
    struct http1_session *session = ((struct http1_call *)base)->session;
    struct connection *connection = session->connection;
    session->is_closing = session->is_closing || !can_go_on(session);
    size_t before = session->out.len;
    write_head(session, base, http_code, content_type, body.len);
    bool has_no_body = http_code == 204 || http_code == 304 || session->parser.method == HTTP_HEAD;
    if (!has_no_body)
        buf_append(&session->out, body.data, body.len);
    session->out_charged += session->out.len - before;
    connection_memory_charge(connection, session->out.len - before);
    leave_call(session);
    if (session->is_closing)
        connection_finish(connection);
    connection_wants_flush(connection);
}

static void send_nothing(struct call *call, struct span message)
{
    (void)call;
    (void)message;
}

static void finish_nothing(struct call *call, enum status status, struct str text)
{
    (void)call;
    (void)status;
    (void)text;
}

static size_t queued_size(const struct call *base)
{
    const struct http1_session *session = ((const struct http1_call *)base)->session;
    return session != NULL ? session->out.len - session->out_offset : 0;
}

// gRPC does not come over HTTP/1.1.
static const struct call_ops ops = {send_nothing, finish_nothing, reply, queued_size, release};

// --- The protocol

static void *create(struct connection *connection)
{
    struct http1_session *session = mem_alloc(sizeof(*session));
    session->connection = connection;
    session->is_draining = connection->server_loop->is_draining;
    session->is_message_complete = true;
    llhttp_init(&session->parser, HTTP_REQUEST, &settings);
    session->parser.data = session;
    buf_init(&session->target, TARGET_SIZE_MAX);
    buf_init(&session->name, CALL_HEADER_SIZE_MAX);
    buf_init(&session->value, CALL_HEADER_SIZE_MAX);
    buf_init(&session->body, SIZE_MAX);
    buf_init(&session->input, SIZE_MAX);
    buf_init(&session->out, SIZE_MAX);
    timer_init(&session->timer, connection->server_loop->loop, on_timer);
    // The first request is late already: until its first byte it had the time of a connection that
    // says nothing.
    set_phase(session, PHASE_HEAD);
    update_timer(session);
    return session;
}

static void received(void *self, struct span bytes)
{
    struct http1_session *session = self;
    if (session->is_closing)
        return;
    size_t used = session->input.len == 0 ? parse(session, bytes) : 0;
    if (session->is_closing)
        return;
    if (used < bytes.len)
        buf_append(&session->input, bytes.data + used, bytes.len - used);
    if (session->input.len >= INPUT_SIZE_MAX && !session->is_paused) {
        session->is_paused = true;
        connection_pause(session->connection);
    }
    update_timer(session);
}

static void fill(void *self, struct buf *out)
{
    struct http1_session *session = self;
    parse_input(session);
    size_t size = session->out.len - session->out_offset;
    if (size == 0)
        return;
    if (size > LOOP_FILL_SIZE)
        size = LOOP_FILL_SIZE;
    buf_append(out, session->out.data + session->out_offset, size);
    session->out_offset += size;
    size_t given = size < session->out_charged ? size : session->out_charged;
    session->out_charged -= given;
    connection_memory_give(session->connection, given);
    if (session->out_offset < session->out.len)
        return;
    session->out_offset = 0;
    if (session->out.capacity > OUT_KEPT_MAX || session->phase == PHASE_IDLE)
        buf_deinit(&session->out);
    else
        buf_clear(&session->out);
}

static void drain(void *self)
{
    struct http1_session *session = self;
    session->is_draining = true;
    session->keeps_alive = false;
    if (session->call == NULL && session->input.len == 0) {
        session->is_closing = true;
        connection_finish(session->connection);
    }
}

static void destroy(void *self)
{
    struct http1_session *session = self;
    session->is_closing = true;
    timer_stop(&session->timer);
    drop_body(session);
    if (session->call != NULL) {
        struct http1_call *call = session->call;
        call_cancel(&call->call);
        if (session->call != NULL)
            leave_call(session);
    }
    buf_deinit(&session->target);
    buf_deinit(&session->name);
    buf_deinit(&session->value);
    buf_deinit(&session->input);
    buf_deinit(&session->out);
    mem_free(session);
}

const struct protocol http1_protocol = {create, received, fill, drain, destroy};
