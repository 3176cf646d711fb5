#include <pthread.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/http2_internal.h"
#include "net/http2_memory.h"
#include "net/loop_internal.h"

// Bytes are taken in by nghttp2, which calls us for headers, data and ends of streams; what is to
// be sent is pulled from it once per turn. nghttp2 is never entered again from its own callbacks,
// and a session goes only with its connection, which ends at the end of a turn.
//
// Limits on what a peer may do besides making calls:
// - Resets. nghttp2 ends a connection when its allowance of them is used up. A client that cancels
//   thousands of searches is not an attacker, and a call that is reset before its handler ran costs
//   us about as much as a ping: public listeners allow a burst of 10,000 and 1,000 each second,
//   inner ones far more. How many calls wait in handlers after their reset is limited apart.
// - Pings and settings: 1,000 at once, 100 each second.
// - Frames that are wrong for their stream (each makes us reset it): 1,000 at once, 100 a second.

enum {
    ALLOWANCE_BURST = 1000,
    ALLOWANCE_RATE = 100,
    RESET_BURST_PUBLIC = 10000,
    RESET_RATE_PUBLIC = 1000,
    RESET_BURST_INNER = 1000000,
    RESET_RATE_INNER = 100000,
    SETTINGS_PER_FRAME_MAX = 32,
};

#define SLOW_TIME_MAX   (20 * NS_PER_SECOND)  // no progress of a request, public listeners
#define IDLE_TIME_MAX   (300 * NS_PER_SECOND) // no call at all, public listeners
#define DRAIN_PING_TIME (1 * NS_PER_SECOND)   // for the answer that shows that GOAWAY arrived

static const uint8_t drain_ping[8] = {'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'};

void http2_session_wants_flush(struct http2_session *session)
{
    if (session->connection != NULL)
        connection_wants_flush(session->connection);
}

void http2_session_release(struct http2_session *session)
{
    ASSERT(session->held_count > 0);
    session->held_count--;
    if (session->held_count == 0 && session->connection == NULL)
        mem_free(session);
}

// False: it is used up.
static bool use_allowance(struct http2_allowance *allowance, uint64_t now_ns)
{
    double earned = (double)(now_ns - allowance->at_ns) / 1e9 * ALLOWANCE_RATE;
    allowance->at_ns = now_ns;
    allowance->left += earned;
    if (allowance->left > ALLOWANCE_BURST)
        allowance->left = ALLOWANCE_BURST;
    if (allowance->left < 1)
        return false;
    allowance->left -= 1;
    return true;
}

static void calm_down(struct http2_session *session)
{
    nghttp2_session_terminate_session(session->nghttp2, NGHTTP2_ENHANCE_YOUR_CALM);
    http2_session_wants_flush(session);
}

// --- What nghttp2 calls

// Mostly asked again and again for the same one.
static struct http2_call *find_call(struct http2_session *session, int32_t stream_id)
{
    if (session->recent == NULL || session->recent->stream_id != stream_id)
        session->recent = nghttp2_session_get_stream_user_data(session->nghttp2, stream_id);
    return session->recent;
}

static int on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user)
{
    struct http2_session *session = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct http2_call *call = http2_call_create(session, frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(nghttp2, frame->hd.stream_id, call);
    return 0;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2 decides on the parameters.
static int on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    (void)nghttp2;
    (void)flags;
    struct http2_session *session = user;
    struct http2_call *call = find_call(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    call->header_block_size += name_size + value_size + CALL_HEADER_COST;
    if (call->header_block_size > HTTP2_HEADER_BLOCK_MAX)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    // Trailers of a request mean nothing to us.
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST &&
        !http2_call_put_header(call, (struct str){(const char *)name, name_size},
                               (struct str){(const char *)value, value_size}))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

static int on_data(nghttp2_session *nghttp2, uint8_t flags, int32_t stream_id, const uint8_t *bytes,
                   size_t size, void *user)
{
    (void)flags;
    struct http2_session *session = user;
    struct http2_call *call = find_call(session, stream_id);
    // The connection's window is for all; only the stream's own holds a slow reader up.
    nghttp2_session_consume_connection(nghttp2, size);
    if (call != NULL)
        http2_call_received(call, (struct span){bytes, size});
    return 0;
}

static void on_ping(struct http2_session *session, const nghttp2_frame *frame)
{
    bool is_answer = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    if (is_answer && session->is_draining && !session->was_goaway_sent &&
        memcmp(frame->ping.opaque_data, drain_ping, sizeof(drain_ping)) == 0)
        timer_start(&session->drain_timer, 0);
}

static int on_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user)
{
    (void)nghttp2;
    struct http2_session *session = user;
    uint8_t type = frame->hd.type;
    if (type == NGHTTP2_PING)
        on_ping(session, frame);
    if (type == NGHTTP2_PING || type == NGHTTP2_SETTINGS || type == NGHTTP2_PRIORITY) {
        if (!use_allowance(&session->pings, loop_now_ns(session->connection->server_loop->loop)))
            calm_down(session);
        return 0;
    }
    if (type != NGHTTP2_HEADERS && type != NGHTTP2_DATA)
        return 0;
    struct http2_call *call = find_call(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    if (type == NGHTTP2_HEADERS && !call->has_all_headers)
        http2_call_headers_complete(call);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && call->stream_id != 0)
        http2_call_ended(call);
    return 0;
}

static int on_invalid_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                            void *user)
{
    (void)nghttp2;
    (void)frame;
    (void)code;
    struct http2_session *session = user;
    if (!use_allowance(&session->invalid_frames,
                       loop_now_ns(session->connection->server_loop->loop)))
        calm_down(session);
    return 0;
}

// The answer is complete although the request is not: tell the client to stop sending it.
static int on_frame_sent(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user)
{
    (void)user;
    uint8_t type = frame->hd.type;
    if ((type != NGHTTP2_HEADERS && type != NGHTTP2_DATA) ||
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    if (nghttp2_session_get_stream_remote_close(nghttp2, frame->hd.stream_id) == 0)
        nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t stream_id, uint32_t code, void *user)
{
    struct http2_session *session = user;
    struct http2_call *call = find_call(session, stream_id);
    if (call == NULL)
        return 0;
    if (code != NGHTTP2_NO_ERROR)
        metric_add(session->connection->listener->metrics.resets, 1);
    nghttp2_session_set_stream_user_data(nghttp2, stream_id, NULL);
    session->active_ns = loop_now_ns(call->call.loop);
    http2_call_stream_closed(call);
    return 0;
}

// --- Made once for the process, read-only afterwards

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nghttp2_session_callbacks *callbacks;
static nghttp2_option *public_options;
static nghttp2_option *inner_options;

static nghttp2_option *make_options(uint64_t reset_burst, uint64_t reset_rate)
{
    nghttp2_option *options = NULL;
    ASSERT(nghttp2_option_new(&options) == 0);
    nghttp2_option_set_no_auto_window_update(options, 1);
    nghttp2_option_set_no_closed_streams(options, 1);
    nghttp2_option_set_max_settings(options, SETTINGS_PER_FRAME_MAX);
    nghttp2_option_set_max_outbound_ack(options, ALLOWANCE_BURST);
    nghttp2_option_set_stream_reset_rate_limit(options, reset_burst, reset_rate);
    return options;
}

static void make_shared(void)
{
    ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    public_options = make_options(RESET_BURST_PUBLIC, RESET_RATE_PUBLIC);
    inner_options = make_options(RESET_BURST_INNER, RESET_RATE_INNER);
}

// --- Timers

static void on_slow(struct timer *timer)
{
    struct http2_session *session =
        (struct http2_session *)(void *)((char *)timer -
                                         offsetof(struct http2_session, slow_timer));
    struct call *next = NULL;
    for (struct call *it = session->calls; it != NULL; it = next) {
        next = it->next;
        http2_call_check_progress((struct http2_call *)it, loop_now_ns(it->loop), SLOW_TIME_MAX);
    }
    if (session->unended_count > 0)
        timer_start(timer, SLOW_TIME_MAX);
}

static void send_final_goaway(struct http2_session *session)
{
    if (session->was_goaway_sent)
        return;
    session->was_goaway_sent = true;
    nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(session->nghttp2),
                          NGHTTP2_NO_ERROR, NULL, 0);
    http2_session_wants_flush(session);
}

static void on_drain_time(struct timer *timer)
{
    send_final_goaway(
        (struct http2_session *)(void *)((char *)timer -
                                         offsetof(struct http2_session, drain_timer)));
}

// First say that new calls are not welcome and accept those that are under way already; the answer
// to a ping shows that the client has read it. Then name the last call that is served.
static void drain(void *self)
{
    struct http2_session *session = self;
    if (session->is_draining)
        return;
    session->is_draining = true;
    nghttp2_submit_shutdown_notice(session->nghttp2);
    nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, drain_ping);
    timer_start(&session->drain_timer, DRAIN_PING_TIME);
    http2_session_wants_flush(session);
}

static void on_idle_time(struct timer *timer)
{
    struct http2_session *session =
        (struct http2_session *)(void *)((char *)timer -
                                         offsetof(struct http2_session, idle_timer));
    uint64_t now = loop_now_ns(timer->loop);
    uint64_t end = session->active_ns + IDLE_TIME_MAX;
    if (session->stream_count > 0)
        timer_start(timer, IDLE_TIME_MAX);
    else if (now < end)
        timer_start_at(timer, end);
    else
        drain(session);
}

// --- The protocol

static void *create(struct connection *connection)
{
    pthread_once(&once, make_shared);
    struct http2_session *session = mem_alloc(sizeof(*session));
    struct loop *loop = connection->server_loop->loop;
    bool is_public = connection->listener->options.is_public;
    session->connection = connection;
    session->active_ns = loop_now_ns(loop);
    session->pings = (struct http2_allowance){ALLOWANCE_BURST, session->active_ns};
    session->invalid_frames = session->pings;
    timer_init(&session->slow_timer, loop, on_slow);
    timer_init(&session->idle_timer, loop, on_idle_time);
    timer_init(&session->drain_timer, loop, on_drain_time);
    if (is_public)
        timer_start(&session->idle_timer, IDLE_TIME_MAX);
    // It fails only without memory.
    if (connection->server_loop->http2_memory == NULL)
        connection->server_loop->http2_memory = http2_memory_create();
    ASSERT(nghttp2_session_server_new3(
               &session->nghttp2, callbacks, session, is_public ? public_options : inner_options,
               http2_memory_functions(connection->server_loop->http2_memory)) == 0);
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, connection->listener->options.stream_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, CALL_HEADER_SIZE_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, settings,
                            sizeof(settings) / sizeof(settings[0]));
    nghttp2_session_set_local_window_size(session->nghttp2, NGHTTP2_FLAG_NONE, 0,
                                          HTTP2_CONNECTION_WINDOW);
    if (connection->server_loop->is_draining)
        drain(session);
    http2_session_wants_flush(session);
    return session;
}

static void received(void *self, struct span bytes)
{
    struct http2_session *session = self;
    ssize_t result = nghttp2_session_mem_recv(session->nghttp2, bytes.data, bytes.len);
    if (result < 0) {
        connection_close(session->connection);
        return;
    }
    if (session->unended_count > 0 && session->connection->listener->options.is_public &&
        !timer_is_running(&session->slow_timer))
        timer_start(&session->slow_timer, SLOW_TIME_MAX);
    http2_session_wants_flush(session);
}

static void tell_unblocked(struct http2_session *session)
{
    while (session->unblocked != NULL) {
        struct http2_call *call = session->unblocked;
        session->unblocked = call->unblocked_next;
        call->is_in_unblocked = false;
        call_ref(&call->call);
        http2_call_go_on(call);
        call_unref(&call->call);
    }
}

static void fill(void *self, struct buf *out)
{
    struct http2_session *session = self;
    // A frame never has more than 16 KiB, a block of headers 64.
    while (out->len < LOOP_FILL_SIZE) {
        const uint8_t *bytes = NULL;
        ssize_t size = nghttp2_session_mem_send(session->nghttp2, &bytes);
        if (size < 0) {
            connection_close(session->connection);
            return;
        }
        if (size == 0 && session->unblocked == NULL)
            break;
        if (size == 0)
            tell_unblocked(session);
        else
            buf_append(out, bytes, (size_t)size);
    }
    bool is_over = nghttp2_session_want_read(session->nghttp2) == 0 &&
                   nghttp2_session_want_write(session->nghttp2) == 0;
    if (is_over || (session->was_goaway_sent && session->stream_count == 0 && out->len == 0))
        connection_finish(session->connection);
}

static void destroy(void *self)
{
    struct http2_session *session = self;
    timer_stop(&session->slow_timer);
    timer_stop(&session->idle_timer);
    timer_stop(&session->drain_timer);
    session->held_count++; // until we are through
    while (session->calls != NULL)
        http2_call_stream_closed((struct http2_call *)session->calls);
    nghttp2_session_del(session->nghttp2);
    session->nghttp2 = NULL;
    session->connection = NULL;
    http2_session_release(session);
}

const struct protocol http2_protocol = {create, received, fill, drain, destroy};
