#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/channel_internal.h"
#include "net/grpc_text.h"
#include "net/http2_memory.h"
#include "net/net_internal.h"
#include "net/transport.h"

// One HTTP/2 connection of a channel. Calls that wait for it are taken when there is room to send:
// so the peer's limit of streams and a full socket hold them up in the channel's queue, where their
// deadlines still work.
//
// A connection is of use once the peer's SETTINGS came; one that ends before counts as a failed
// attempt. After GOAWAY, or when stream ids run out, it finishes its calls and ends while new ones
// go elsewhere. A call is tried again, once, when the peer said or it is plain that it never saw
// it.

enum {
    FILL_SIZE_MAX = 256 << 10,
    RESPONSE_HEADER_SIZE_MAX = 65536, // of one call
    HEADER_COST = 32,
    HEADERS_OF_OURS_MAX = 10,
    STREAM_ID_LAST = 0x7ffffff0,
    // Until the peer's SETTINGS say how many calls it takes at once: what most servers take.
    PEER_STREAMS_BEFORE_SETTINGS = 100,
};

struct http2_client {
    struct http2_client *next;
    struct channel_loop *owner;
    struct transport *transport; // NULL: a test drives it, or it is closed
    nghttp2_session *nghttp2;
    struct timer ping_timer;
    uint64_t ping_at_ns; // 0: none is on its way
    uint64_t received_ns;
    uint32_t call_count;
    bool is_open;      // connected and greeted
    bool has_settings; // the peer's came
    bool is_old;       // takes no new calls
    bool is_filling;
    bool is_ended;
    const char *reason; // why it was closed, when we did it
};

// --- Life

static void wants_flush(struct http2_client *client)
{
    if (client->is_open && client->transport != NULL)
        transport_wants_flush(client->transport);
}

void http2_client_wants_flush(struct http2_client *client)
{
    wants_flush(client);
}

static void close_when_unused(struct http2_client *client)
{
    if (client->is_old && client->call_count == 0 && client->transport != NULL)
        transport_finish(client->transport);
}

// New calls go elsewhere.
static void retire(struct http2_client *client)
{
    struct channel_loop *owner = client->owner;
    if (client->is_old)
        return;
    client->is_old = true;
    wants_flush(client);
    if (owner->client != client)
        return;
    owner->client = NULL;
    if (client->has_settings)
        channel_loop_lost(owner);
    else
        channel_loop_failed(owner, STR("the peer does not speak HTTP/2"));
}

// It is of no use any more: its end tells the owner and its calls.
static void give_up(struct http2_client *client, const char *reason)
{
    if (client->reason == NULL)
        client->reason = reason;
    if (client->transport != NULL)
        transport_close(client->transport);
}

static void client_free(struct http2_client *client)
{
    struct channel_loop *owner = client->owner;
    struct http2_client **link = &owner->clients;
    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
    timer_stop(&client->ping_timer);
    nghttp2_session_del(client->nghttp2);
    mem_free(client);
    channel_loop_leave(owner);
}

// The call is not on the connection any more and its stream is over.
static void let_go(struct http2_client *client, struct channel_call *call)
{
    ASSERT(call->client == client && client->call_count > 0);
    call->client = NULL;
    client->call_count--;
    if (client->call_count > 0)
        return;
    timer_stop(&client->ping_timer);
    if (client->is_old && !client->is_ended)
        wants_flush(client); // it closes then
}

void http2_client_end(struct http2_client *client, struct str text)
{
    struct channel_loop *owner = client->owner;
    struct channel_call *next = NULL;
    client->is_ended = true;
    for (struct channel_call *call = owner->calls; call != NULL; call = next) {
        next = call->next;
        if (call->client != client)
            continue;
        let_go(client, call);
        if (call->has_end) { // only its delivery is missing
            channel_call_schedule(call);
        } else if (!call->was_sent && !call->was_retried && !owner->is_closing) {
            call->was_retried = true;
            channel_loop_wait_again(owner, call);
        } else {
            channel_call_fail_soon(call, STATUS_UNAVAILABLE, text);
        }
    }
    bool was_current = owner->client == client;
    bool was_of_use = client->has_settings;
    if (was_current)
        owner->client = NULL;
    channel_loop_enter(owner);
    client_free(client);
    if (was_current && was_of_use)
        channel_loop_lost(owner);
    else if (was_current)
        channel_loop_failed(owner, text);
    channel_loop_leave(owner);
}

static void close_client(struct http2_client *client)
{
    client->is_old = true;
    if (client->owner->client == client)
        client->owner->client = NULL;
    if (client->transport != NULL)
        transport_close(client->transport);
}

void http2_client_close_all(struct channel_loop *owner)
{
    struct http2_client *next = NULL;
    for (struct http2_client *it = owner->clients; it != NULL; it = next) {
        next = it->next;
        close_client(it);
    }
}

// --- Is the peer still there? Asked only while calls are in flight.

static void on_ping_timer(struct timer *timer)
{
    struct http2_client *client =
        (struct http2_client *)(void *)((char *)timer - offsetof(struct http2_client, ping_timer));
    const struct channel *channel = client->owner->channel;
    uint64_t now_ns = loop_now_ns(client->owner->loop);
    if (client->ping_at_ns > 0 && client->received_ns < client->ping_at_ns) {
        give_up(client, "no answer to a ping");
        return;
    }
    client->ping_at_ns = 0;
    if (now_ns - client->received_ns < channel->ping_after_ns) {
        timer_start_at(timer, client->received_ns + channel->ping_after_ns);
        return;
    }
    if (nghttp2_submit_ping(client->nghttp2, NGHTTP2_FLAG_NONE, NULL) == 0)
        client->ping_at_ns = now_ns;
    wants_flush(client);
    timer_start(timer, channel->ping_time_max_ns);
}

static void watch_peer(struct http2_client *client)
{
    if (timer_is_running(&client->ping_timer))
        return;
    // What was silent while nothing was asked is not late.
    client->received_ns = loop_now_ns(client->owner->loop);
    client->ping_at_ns = 0;
    timer_start(&client->ping_timer, client->owner->channel->ping_after_ns);
}

// --- Sending a call

// NOLINTNEXTLINE(readability-function-size): nghttp2 decides on the parameters.
static ssize_t read_message(nghttp2_session *nghttp2, int32_t stream_id, uint8_t *out, size_t size,
                            uint32_t *out_flags, nghttp2_data_source *source, void *user)
{
    (void)source;
    (void)user;
    struct channel_call *call = nghttp2_session_get_stream_user_data(nghttp2, stream_id);
    if (call == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t left = call->out.len - call->out_offset;
    size_t taken = left < size ? left : size;
    memcpy(out, call->out.data + call->out_offset, taken);
    call->out_offset += taken;
    call->was_sent = true;
    if (taken == left)
        *out_flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)taken;
}

// nghttp2's struct knows no const; it writes to neither text.
static nghttp2_nv pair(struct str name, struct str value)
{
    nghttp2_nv result = {.namelen = name.len, .valuelen = value.len};
    memcpy(&result.name, &name.data, sizeof(result.name));
    memcpy(&result.value, &value.data, sizeof(result.value));
    return result;
}

static size_t write_headers(struct http2_client *client, struct channel_call *call,
                            nghttp2_nv *headers)
{
    const struct channel *channel = client->owner->channel;
    struct arena *arena = call->arena;
    size_t count = 0;
    headers[count++] = pair(STR(":method"), STR("POST"));
    headers[count++] = pair(STR(":scheme"), channel->tls != NULL ? STR("https") : STR("http"));
    headers[count++] = pair(STR(":path"), call->path);
    headers[count++] = pair(STR(":authority"), channel->authority);
    headers[count++] = pair(STR("te"), STR("trailers"));
    headers[count++] = pair(STR("content-type"), STR("application/grpc"));
    headers[count++] = pair(STR("user-agent"), STR("vectron/" VECTRON_VERSION));
    headers[count++] = pair(STR("grpc-accept-encoding"), STR("gzip"));
    if (channel_call_is_compressed(call))
        headers[count++] = pair(STR("grpc-encoding"), STR("gzip"));
    if (call->deadline_ns != UINT64_MAX) {
        char *text = arena_alloc(arena, GRPC_TIMEOUT_SIZE);
        uint64_t now_ns = loop_now_ns(client->owner->loop);
        uint64_t left_ns = call->deadline_ns > now_ns ? call->deadline_ns - now_ns : 1;
        headers[count++] = pair(STR("grpc-timeout"), grpc_timeout_format(left_ns, text));
    }
    ASSERT(count <= HEADERS_OF_OURS_MAX);
    for (uint32_t i = 0; i < call->metadata_count; i++) {
        struct str name = call->metadata[i].name;
        struct str value = call->metadata[i].value;
        if (str_ends_with(name, STR("-bin")))
            value = grpc_base64_encode(arena, str_span(value));
        headers[count++] = pair(name, value);
    }
    return count;
}

// False: it cannot be sent on this connection, which takes no others either.
static bool submit(struct http2_client *client, struct channel_call *call)
{
    nghttp2_nv *headers =
        arena_alloc(call->arena, (HEADERS_OF_OURS_MAX + call->metadata_count) * sizeof(*headers));
    size_t count = write_headers(client, call, headers);
    nghttp2_data_provider provider = {.read_callback = read_message};
    int32_t stream_id =
        nghttp2_submit_request(client->nghttp2, NULL, headers, count, &provider, call);
    if (stream_id < 0)
        return false;
    call->stream_id = stream_id;
    call->client = client;
    client->call_count++;
    watch_peer(client);
    return true;
}

static bool has_room(const struct http2_client *client)
{
    uint32_t streams_max = nghttp2_session_get_remote_settings(
        client->nghttp2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (!client->has_settings && streams_max > PEER_STREAMS_BEFORE_SETTINGS)
        streams_max = PEER_STREAMS_BEFORE_SETTINGS;
    return client->call_count < streams_max;
}

static void take_waiting(struct http2_client *client)
{
    struct channel_loop *owner = client->owner;
    while (!client->is_old && owner->waiting_first != NULL && has_room(client)) {
        struct channel_call *call = owner->waiting_first;
        channel_loop_stop_waiting(owner, call);
        bool is_submitted = submit(client, call);
        if (!is_submitted)
            channel_loop_wait_again(owner, call);
        if (!is_submitted || call->stream_id >= STREAM_ID_LAST)
            retire(client);
    }
}

void http2_client_fill(struct http2_client *client, struct buf *out)
{
    size_t start = out->len;
    client->is_filling = true;
    take_waiting(client);
    while (out->len - start < FILL_SIZE_MAX) {
        const uint8_t *bytes = NULL;
        ssize_t size = nghttp2_session_mem_send(client->nghttp2, &bytes);
        if (size < 0) {
            give_up(client, nghttp2_strerror((int)size));
            break;
        }
        if (size == 0)
            break;
        buf_append(out, bytes, (size_t)size);
    }
    client->is_filling = false;
    if (out->len - start >= FILL_SIZE_MAX)
        wants_flush(client);
    bool is_through =
        !nghttp2_session_want_read(client->nghttp2) && !nghttp2_session_want_write(client->nghttp2);
    if (is_through)
        retire(client);
    if (is_through && client->transport != NULL)
        transport_finish(client->transport);
    else
        close_when_unused(client);
}

// --- The end of a call

// https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
static enum status status_of_http(int code)
{
    switch (code) {
    case 401:
        return STATUS_UNAUTHENTICATED;
    case 403:
        return STATUS_FORBIDDEN;
    case 404:
        return STATUS_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_BUG;
    }
}

static enum status status_of_reset(uint32_t code)
{
    switch (code) {
    case NGHTTP2_REFUSED_STREAM:
        return STATUS_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return STATUS_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return STATUS_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return STATUS_FORBIDDEN;
    default:
        return STATUS_BUG;
    }
}

// The peer has sent all that it will send.
static void set_end_of_answer(struct channel_call *call)
{
    if (call->has_end)
        return;
    if (call->grpc_status >= 0) {
        channel_call_set_end(call, status_from_grpc_code(call->grpc_status),
                             grpc_percent_decode(call->arena, call->text));
        return;
    }
    if (call->http_status != 200 || !call->has_grpc_type) {
        enum status status =
            call->http_status == 200 ? STATUS_BUG : status_of_http(call->http_status);
        channel_call_set_end(call, status,
                             arena_format(call->arena, "the peer answered with HTTP %d and no gRPC",
                                          call->http_status));
        return;
    }
    channel_call_set_end(call, STATUS_BUG, STR("the answer has no grpc-status"));
}

static void set_end_of_reset(struct channel_call *call, uint32_t code)
{
    channel_call_set_end(
        call, status_of_reset(code),
        arena_format(call->arena, "the peer reset the call: %s", nghttp2_http2_strerror(code)));
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t stream_id, uint32_t code, void *user)
{
    struct http2_client *client = user;
    struct channel_call *call = nghttp2_session_get_stream_user_data(nghttp2, stream_id);
    if (call == NULL)
        return 0;
    nghttp2_session_set_stream_user_data(nghttp2, stream_id, NULL);
    let_go(client, call);
    if (!call->has_end && code == NGHTTP2_REFUSED_STREAM && !call->was_retried &&
        !call->has_answer) {
        call->was_retried = true;
        channel_loop_wait_again(client->owner, call);
        return 0;
    }
    if (!call->has_end && code != NGHTTP2_NO_ERROR)
        set_end_of_reset(call, code);
    else
        set_end_of_answer(call);
    if (client->is_filling)
        channel_call_schedule(call);
    else
        channel_call_go_on(call);
    if (client->owner->waiting_first != NULL) // there is room for one now
        wants_flush(client);
    return 0;
}

void http2_client_detach(struct channel_call *call)
{
    struct http2_client *client = call->client;
    int32_t stream_id = call->stream_id;
    let_go(client, call);
    if (client->is_ended)
        return;
    nghttp2_session_set_stream_user_data(client->nghttp2, stream_id, NULL);
    // Fails only without memory; the peer then finds out by itself.
    (void)nghttp2_submit_rst_stream(client->nghttp2, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
    wants_flush(client);
}

void http2_client_consume(struct channel_call *call)
{
    struct http2_client *client = call->client;
    if (client == NULL)
        return;
    (void)nghttp2_session_consume_stream(client->nghttp2, call->stream_id, call->unconsumed);
    call->unconsumed = 0;
    wants_flush(client);
}

// --- What comes

static void read_grpc_status(struct channel_call *call, struct str value)
{
    uint64_t code = 0;
    call->grpc_status = str_to_u64(value, &code) && code <= 16 ? (int)code : 2;
}

static void read_header(struct channel_call *call, struct str name, struct str value)
{
    call->has_answer = true;
    if (str_equal_cstr(name, ":status")) {
        uint64_t code = 0;
        call->http_status = str_to_u64(value, &code) && code < 1000 ? (int)code : 0;
    } else if (str_equal_cstr(name, "content-type")) {
        call->has_grpc_type = str_starts_with(value, STR("application/grpc"));
    } else if (str_equal_cstr(name, "grpc-status")) {
        read_grpc_status(call, value);
    } else if (str_equal_cstr(name, "grpc-message")) {
        call->text = arena_str(call->arena, value);
    } else if (str_equal_cstr(name, "grpc-encoding")) {
        call->reader.has_gzip = str_equal_cstr(value, "gzip");
    }
}

// NOLINTNEXTLINE(readability-function-size): nghttp2 decides on the parameters.
static int on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    (void)flags;
    (void)user;
    struct channel_call *call = nghttp2_session_get_stream_user_data(nghttp2, frame->hd.stream_id);
    if (call == NULL || call->has_end)
        return 0;
    call->header_size += name_size + value_size + HEADER_COST;
    if (call->header_size > RESPONSE_HEADER_SIZE_MAX) {
        channel_call_fail(call, STATUS_EXHAUSTED,
                          STR("the headers of the answer are over the limit of 65536 bytes"));
        return 0;
    }
    read_header(call, (struct str){(const char *)name, name_size},
                (struct str){(const char *)value, value_size});
    return 0;
}

static int on_data(nghttp2_session *nghttp2, uint8_t flags, int32_t stream_id, const uint8_t *bytes,
                   size_t size, void *user)
{
    (void)flags;
    struct http2_client *client = user;
    struct channel_call *call = nghttp2_session_get_stream_user_data(nghttp2, stream_id);
    // The connection's window is for all; only the stream's own holds back a call that pauses.
    (void)nghttp2_session_consume_connection(nghttp2, size);
    wants_flush(client);
    if (call == NULL || call->has_end)
        return 0;
    if (call->http_status != 200 || !call->has_grpc_type) // somebody's page; its end tells all
        (void)nghttp2_session_consume_stream(nghttp2, stream_id, size);
    else
        (void)channel_call_receive(call, (struct span){bytes, size});
    return 0;
}

static void on_end_of_stream(struct http2_client *client, int32_t stream_id)
{
    struct channel_call *call = nghttp2_session_get_stream_user_data(client->nghttp2, stream_id);
    if (call == NULL)
        return;
    set_end_of_answer(call);
    // Answered before all of the request was read: the rest is of no use to anybody.
    if (nghttp2_session_get_stream_local_close(client->nghttp2, stream_id) == 0) {
        (void)nghttp2_submit_rst_stream(client->nghttp2, NGHTTP2_FLAG_NONE, stream_id,
                                        NGHTTP2_CANCEL);
        wants_flush(client);
    }
}

static int on_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user)
{
    (void)nghttp2;
    struct http2_client *client = user;
    bool has_stream = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (has_stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        on_end_of_stream(client, frame->hd.stream_id);
    } else if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        client->has_settings = true;
        client->owner->failure_count = 0;
        client->owner->retry_at_ns = 0;
        wants_flush(client); // there may be room for more calls
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        retire(client);
    }
    return 0;
}

bool http2_client_receive(struct http2_client *client, struct span bytes)
{
    client->received_ns = loop_now_ns(client->owner->loop);
    ssize_t used = nghttp2_session_mem_recv(client->nghttp2, bytes.data, bytes.len);
    if (used < 0 || (size_t)used != bytes.len) {
        give_up(client, used < 0 ? nghttp2_strerror((int)used) : "bytes behind the end");
        return false;
    }
    wants_flush(client); // acknowledgements
    return true;
}

// --- The connection

static void client_create_session(struct http2_client *client)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_set_no_auto_window_update(option, 1);
    struct channel_loop *owner = client->owner;
    if (owner->http2_memory == NULL)
        owner->http2_memory = http2_memory_create();
    ASSERT(nghttp2_session_client_new3(&client->nghttp2, callbacks, client, option,
                                       http2_memory_functions(owner->http2_memory)) == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
}

struct http2_client *http2_client_create(struct channel_loop *owner)
{
    struct http2_client *client = mem_alloc(sizeof(*client));
    client->owner = owner;
    timer_init(&client->ping_timer, owner->loop, on_ping_timer);
    client_create_session(client);
    client->next = owner->clients;
    owner->clients = client;
    owner->client = client;
    channel_loop_enter(owner);
    return client;
}

void http2_client_open(struct http2_client *client)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CHANNEL_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, RESPONSE_HEADER_SIZE_MAX},
    };
    ASSERT(nghttp2_submit_settings(client->nghttp2, NGHTTP2_FLAG_NONE, settings,
                                   sizeof(settings) / sizeof(settings[0])) == 0);
    ASSERT(nghttp2_session_set_local_window_size(client->nghttp2, NGHTTP2_FLAG_NONE, 0,
                                                 CHANNEL_CONNECTION_WINDOW) == 0);
    client->is_open = true;
    wants_flush(client);
}

static void on_opened(struct transport *transport, void *context)
{
    struct http2_client *client = context;
    client->transport = transport;
    if (transport_has_tls(transport) && !str_equal_cstr(transport_alpn(transport), "h2"))
        give_up(client, "the peer does not speak HTTP/2");
    else
        http2_client_open(client);
}

static void on_received(struct transport *transport, struct span bytes, void *context)
{
    (void)transport;
    (void)http2_client_receive(context, bytes);
}

static void on_fill(struct transport *transport, struct buf *out, void *context)
{
    (void)transport;
    http2_client_fill(context, out);
}

static void on_closed(struct transport *transport, enum status status, struct str text,
                      void *context)
{
    (void)transport;
    (void)status;
    struct http2_client *client = context;
    const struct channel *channel = client->owner->channel;
    char sentence[CHANNEL_FAILURE_SIZE];
    client->transport = NULL;
    if (text.len == 0)
        text = client->reason != NULL ? str_from_cstr(client->reason)
                                      : STR("the connection was closed");
    (void)snprintf(sentence, sizeof(sentence), "%.*s: %.*s", STR_ARG(channel->name), STR_ARG(text));
    http2_client_end(client, str_from_cstr(sentence));
}

static const struct transport_handler handler = {
    .opened = on_opened,
    .received = on_received,
    .fill = on_fill,
    .closed = on_closed,
};

void http2_client_connect(struct channel_loop *owner)
{
    const struct channel *channel = owner->channel;
    struct http2_client *client = http2_client_create(owner);
    const struct transport_target target = {
        .host = str_from_cstr(channel->address.host),
        .port = str_from_cstr(channel->address.port),
        .tls = channel->tls,
        .authority = channel->authority,
    };
    client->transport = transport_connect(channel->net, owner->loop, &target, &handler, client);
}
