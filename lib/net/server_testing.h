#pragma once

#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/net_internal.h"
#include "net/server.h"
#include "testing/test.h"

// For the tests of the server: a server whose handler does what the path says, and clients that can
// misbehave, as plain sockets with HTTP/1.1 bytes or with a raw nghttp2 session.

static inline uint64_t test_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

enum { TEST_TIME_MAX_MS = 20000 };

// --- The server

struct test_server {
    struct net *net;
    struct server *server;
    char address[128];
    int port;
    size_t stream_size; // what /Stream sends
    atomic_uint started;
    atomic_uint messages;
    atomic_uint half_closed;
    atomic_uint cancelled;
    atomic_uint released;
    atomic_size_t queued_max;
    struct call *held; // the last call of /Hold, with a reference
    size_t last_size;  // of a message or body
};

static inline void test_send_stream(struct call *call, struct test_server *it)
{
    static const uint8_t bytes[10000];
    if (call_user(call) == NULL)
        call_set_user(call, arena_alloc(call_arena(call), sizeof(size_t)));
    size_t *sent_size = call_user(call);
    size_t sent = *sent_size;
    while (sent < it->stream_size && call_queued_size(call) < 262144 && !call_is_done(call)) {
        size_t left = it->stream_size - sent;
        size_t size = left < sizeof(bytes) ? left : sizeof(bytes);
        call_send(call, (struct span){bytes, size});
        sent += size;
    }
    *sent_size = sent;
    size_t queued = call_queued_size(call);
    if (queued > atomic_load(&it->queued_max))
        atomic_store(&it->queued_max, queued);
    if (sent == it->stream_size)
        call_finish(call, STATUS_OK, (struct str){0});
}

static inline void test_on_start(struct call *call, void *context)
{
    struct test_server *it = context;
    atomic_fetch_add(&it->started, 1);
    struct str path = call_path(call);
    if (str_equal(path, STR("/Refuse"))) {
        if (call_kind(call) == CALL_GRPC)
            call_finish(call, STATUS_FORBIDDEN, STR("not you"));
        else
            call_reply(call, 403, STR("text/plain"), str_span(STR("not you")));
    } else if (str_equal(path, STR("/Small"))) {
        call_set_message_size_max(call, 10);
    }
}

static inline void test_answer(struct call *call, struct span message, struct test_server *it)
{
    struct str path = call_path(call);
    if (str_equal(path, STR("/Hold"))) {
        call_ref(call);
        it->held = call;
        return;
    }
    if (str_equal(path, STR("/Silent")))
        return;
    if (str_equal(path, STR("/Header"))) {
        call_add_header(call, STR("x-good"), call_metadata(call, STR("x-ask")));
        call_add_header(call, STR("x-bad"), STR("a\r\nx-injected: b"));
        call_add_header(call, STR("content-length"), STR("5"));
    }
    if (call_kind(call) == CALL_HTTP) {
        call_reply(call, 200, STR("text/plain"), message);
        return;
    }
    if (str_equal(path, STR("/Stream"))) {
        test_send_stream(call, it);
    } else if (str_equal(path, STR("/Bidi"))) {
        call_send(call, message);
    } else if (str_equal(path, STR("/Amplify"))) {
        static const uint8_t bytes[50000];
        call_send(call, (struct span){bytes, sizeof(bytes)});
    } else if (str_equal(path, STR("/Fail"))) {
        call_finish(call, STATUS_NOT_FOUND, STR("100% gone: caf\xc3\xa9"));
    } else {
        call_send(call, message);
        call_finish(call, STATUS_OK, (struct str){0});
    }
}

static inline void test_on_message(struct call *call, struct span message, void *context)
{
    struct test_server *it = context;
    it->last_size = message.len;
    atomic_fetch_add(&it->messages, 1);
    test_answer(call, message, it);
}

static inline void test_on_half_close(struct call *call, void *context)
{
    struct test_server *it = context;
    atomic_fetch_add(&it->half_closed, 1);
    if (str_equal(call_path(call), STR("/Bidi")) || str_equal(call_path(call), STR("/Amplify")))
        call_finish(call, STATUS_OK, (struct str){0});
}

static inline void test_on_cancelled(struct call *call, void *context)
{
    struct test_server *it = context;
    CHECK(call_is_done(call));
    call_send(call, str_span(STR("into the void")));
    if (it->held == call) {
        it->held = NULL;
        call_unref(call);
    }
    atomic_fetch_add(&it->cancelled, 1);
}

static inline void test_on_writable(struct call *call, void *context)
{
    struct test_server *it = context;
    if (str_equal(call_path(call), STR("/Stream")))
        test_send_stream(call, it);
}

static inline void test_on_release(struct call *call, void *context)
{
    (void)call;
    struct test_server *it = context;
    atomic_fetch_add(&it->released, 1);
}

static const struct call_handler test_handler = {test_on_start,      test_on_message,
                                                 test_on_half_close, test_on_cancelled,
                                                 test_on_writable,   test_on_release};

// options: whatever is not the address, the handler and its context.
static inline void test_server_start(struct test_server *it, const struct listener_options *options,
                                     size_t memory_max)
{
    *it = (struct test_server){.stream_size = 64 << 20};
    struct net_options net_options = {.loop_count = 2, .memory_max = memory_max};
    CHECK(net_create(&net_options, NULL, &it->net) == STATUS_OK);
    it->server = server_create(it->net);
    struct listener_options all = *options;
    all.address = STR("127.0.0.1:0");
    all.handler = &test_handler;
    all.context = it;
    if (all.message_size_max == 0)
        all.message_size_max = 1 << 20;
    struct error error = {0};
    if (server_listen(it->server, &all, &error, it->address) != STATUS_OK) {
        printf("%s\n", error.text);
        abort();
    }
    it->port = (int)strtol(strrchr(it->address, ':') + 1, NULL, 10);
}

static inline void test_server_stop(struct test_server *it)
{
    server_destroy(it->server);
    CHECK(atomic_load(&it->released) == atomic_load(&it->started));
    CHECK(net_memory_used(it->net) == 0);
    net_destroy(it->net);
}

// Poll until the counter has the value; false after TEST_TIME_MAX_MS.
static inline bool test_wait_for(const atomic_uint *counter, unsigned value)
{
    uint64_t end = test_now_ms() + TEST_TIME_MAX_MS;
    while (atomic_load(counter) < value) {
        if (test_now_ms() > end)
            return false;
        usleep(500);
    }
    return true;
}

// --- A plain socket

static inline int test_connect(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    const struct timeval limit = {.tv_sec = TEST_TIME_MAX_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return fd;
}

static inline bool test_write(int fd, const void *bytes, size_t size)
{
    const char *next = bytes;
    while (size > 0) {
        ssize_t sent = send(fd, next, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        next += sent;
        size -= (size_t)sent;
    }
    return true;
}

// Read until the peer closes (NULL) or the text has come. NUL-terminated in out.
static inline bool test_read_until(int fd, const char *text, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    while (len + 1 < size) {
        if (text != NULL && strstr(out, text) != NULL)
            return true;
        ssize_t got = recv(fd, out + len, size - 1 - len, 0);
        if (got <= 0)
            return text == NULL && got == 0;
        len += (size_t)got;
        out[len] = '\0';
    }
    return false;
}

// Send one piece of HTTP/1.1 and read all that comes until the server closes.
static inline bool test_exchange(int port, const char *request, char *out, size_t size)
{
    int fd = test_connect(port);
    bool is_fine = test_write(fd, request, strlen(request)) && test_read_until(fd, NULL, out, size);
    close(fd);
    return is_fine;
}

// --- An HTTP/2 client

struct test_stream {
    int32_t id;
    int http_status;
    int grpc_status; // -1: none
    char grpc_message[512];
    char headers[2048]; // "name: value\n" of all
    size_t received;
    uint8_t first[256]; // of the received bytes
    uint32_t header_blocks;
    bool is_closed;
    uint32_t error_code;
    // What is to be sent; body is borrowed.
    const uint8_t *body;
    size_t body_size;
    size_t body_sent;
    bool stays_open; // no END_STREAM after the body
};

enum { TEST_STREAMS_MAX = 64 };

struct test_client {
    int fd;
    nghttp2_session *session;
    struct test_stream streams[TEST_STREAMS_MAX];
    uint32_t stream_count;
    uint32_t goaway_count;
    int32_t goaway_last_id;
    uint32_t goaway_code;
    uint32_t ping_answers;
    bool is_closed; // by the server
    bool reads_nothing;
};

static inline struct test_stream *test_find_stream(struct test_client *client, int32_t id)
{
    for (uint32_t i = 0; i < client->stream_count; i++) {
        if (client->streams[i].id == id)
            return &client->streams[i];
    }
    return NULL;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2 decides on the parameters.
static inline int test_on_header(nghttp2_session *session, const nghttp2_frame *frame,
                                 const uint8_t *name, size_t name_size, const uint8_t *value,
                                 size_t value_size, uint8_t flags, void *user)
{
    (void)session;
    (void)flags;
    struct test_stream *stream = test_find_stream(user, frame->hd.stream_id);
    if (stream == NULL)
        return 0;
    char text[600];
    snprintf(text, sizeof(text), "%.*s", (int)value_size, (const char *)value);
    if (name_size == 7 && memcmp(name, ":status", 7) == 0)
        stream->http_status = (int)strtol(text, NULL, 10);
    else if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0)
        stream->grpc_status = (int)strtol(text, NULL, 10);
    else if (name_size == 12 && memcmp(name, "grpc-message", 12) == 0)
        snprintf(stream->grpc_message, sizeof(stream->grpc_message), "%.500s", text);
    size_t used = strlen(stream->headers);
    snprintf(stream->headers + used, sizeof(stream->headers) - used, "%.*s: %s\n", (int)name_size,
             (const char *)name, text);
    return 0;
}

static inline int test_on_data(nghttp2_session *session, uint8_t flags, int32_t id,
                               const uint8_t *bytes, size_t size, void *user)
{
    (void)session;
    (void)flags;
    struct test_stream *stream = test_find_stream(user, id);
    if (stream == NULL)
        return 0;
    for (size_t i = 0; i < size && stream->received + i < sizeof(stream->first); i++)
        stream->first[stream->received + i] = bytes[i];
    stream->received += size;
    return 0;
}

static inline int test_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct test_client *client = user;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        client->goaway_count++;
        client->goaway_last_id = frame->goaway.last_stream_id;
        client->goaway_code = frame->goaway.error_code;
    }
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0)
        client->ping_answers++;
    struct test_stream *stream = test_find_stream(client, frame->hd.stream_id);
    if (stream != NULL && frame->hd.type == NGHTTP2_HEADERS)
        stream->header_blocks++;
    return 0;
}

static inline int test_on_stream_close(nghttp2_session *session, int32_t id, uint32_t code,
                                       void *user)
{
    (void)session;
    struct test_stream *stream = test_find_stream(user, id);
    if (stream != NULL) {
        stream->is_closed = true;
        stream->error_code = code;
    }
    return 0;
}

static inline void test_client_open(struct test_client *client, int port, int32_t window)
{
    *client = (struct test_client){.fd = test_connect(port)};
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, test_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, test_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, test_on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, test_on_stream_close);
    nghttp2_option *option = NULL;
    nghttp2_option_new(&option);
    nghttp2_option_set_max_send_header_block_length(option, 8 << 20);
    nghttp2_session_client_new2(&client->session, callbacks, client, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)window}};
    nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_session_set_local_window_size(client->session, NGHTTP2_FLAG_NONE, 0, 1 << 30);
}

static inline void test_client_close(struct test_client *client)
{
    nghttp2_session_del(client->session);
    close(client->fd);
}

// Send what there is; false when the connection is broken.
static inline bool test_client_send(struct test_client *client)
{
    for (;;) {
        const uint8_t *bytes = NULL;
        ssize_t size = nghttp2_session_mem_send(client->session, &bytes);
        if (size <= 0)
            return size == 0;
        if (!test_write(client->fd, bytes, (size_t)size)) {
            client->is_closed = true;
            return false;
        }
    }
}

// One round: send, then wait for bytes for at most wait_ms. False: nothing came.
static inline bool test_client_turn(struct test_client *client, int wait_ms)
{
    (void)test_client_send(client);
    struct pollfd poll_fd = {.fd = client->fd, .events = POLLIN};
    if (client->is_closed || poll(&poll_fd, 1, wait_ms) <= 0)
        return false;
    static _Thread_local uint8_t bytes[65536];
    ssize_t size = recv(client->fd, bytes, sizeof(bytes), 0);
    if (size <= 0) {
        client->is_closed = true;
        return false;
    }
    if (nghttp2_session_mem_recv(client->session, bytes, (size_t)size) < 0)
        client->is_closed = true;
    (void)test_client_send(client);
    return true;
}

static inline bool test_client_wait(struct test_client *client, const bool *flag)
{
    uint64_t end = test_now_ms() + TEST_TIME_MAX_MS;
    while (!*flag && !client->is_closed && test_now_ms() < end)
        test_client_turn(client, 100);
    return *flag;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2 decides on the parameters.
static inline ssize_t test_read_body(nghttp2_session *session, int32_t id, uint8_t *bytes,
                                     size_t size_max, uint32_t *flags, nghttp2_data_source *source,
                                     void *user)
{
    (void)session;
    (void)id;
    (void)user;
    struct test_stream *stream = source->ptr;
    size_t size = stream->body_size - stream->body_sent;
    if (size == 0 && stream->stays_open)
        return NGHTTP2_ERR_DEFERRED;
    if (size > size_max)
        size = size_max;
    if (size > 0)
        memcpy(bytes, stream->body + stream->body_sent, size);
    stream->body_sent += size;
    if (stream->body_sent == stream->body_size && !stream->stays_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)size;
}

static inline nghttp2_nv test_pair(const char *name, const char *value)
{
    union {
        const char *constant;
        uint8_t *bytes; // nghttp2 copies them
    } names = {.constant = name}, values = {.constant = value};
    return (nghttp2_nv){names.bytes, values.bytes, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NONE};
}

struct test_request {
    const char *verb; // NULL: POST
    const char *path;
    const char *content_type; // NULL: application/grpc
    const uint8_t *body;      // with the frame's prefix for gRPC; borrowed until it is sent
    size_t body_size;
    bool stays_open;
    const char *names[8];
    const char *values[8];
};

static inline struct test_stream *test_client_call(struct test_client *client,
                                                   const struct test_request *request)
{
    struct test_stream *stream = &client->streams[client->stream_count++ % TEST_STREAMS_MAX];
    if (client->stream_count > TEST_STREAMS_MAX)
        client->stream_count = TEST_STREAMS_MAX;
    *stream = (struct test_stream){.grpc_status = -1,
                                   .body = request->body,
                                   .body_size = request->body_size,
                                   .stays_open = request->stays_open};
    nghttp2_nv pairs[16];
    size_t count = 0;
    pairs[count++] = test_pair(":method", request->verb != NULL ? request->verb : "POST");
    pairs[count++] = test_pair(":scheme", "http");
    pairs[count++] = test_pair(":path", request->path);
    pairs[count++] = test_pair(":authority", "test");
    pairs[count++] = test_pair("content-type", request->content_type != NULL ? request->content_type
                                                                             : "application/grpc");
    pairs[count++] = test_pair("te", "trailers");
    for (int i = 0; i < 8 && request->names[i] != NULL; i++)
        pairs[count++] = test_pair(request->names[i], request->values[i]);
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = test_read_body};
    bool has_body = request->body_size > 0 || request->stays_open;
    stream->id = nghttp2_submit_request(client->session, NULL, pairs, count,
                                        has_body ? &provider : NULL, NULL);
    return stream;
}

// A whole call: sent, and waited for until its stream is closed.
static inline struct test_stream *test_client_finish(struct test_client *client,
                                                     const struct test_request *request)
{
    struct test_stream *stream = test_client_call(client, request);
    (void)test_client_wait(client, &stream->is_closed);
    return stream;
}
