#include <arpa/inet.h>
#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/channel_internal.h"
#include "testing/test.h"

// A connection of a channel against a peer that does what peers do when things go wrong. The peer
// is nghttp2's server side in this process, without a socket: both are driven by hand, on the
// loop's thread, step by step. A step's callbacks have come when the step has returned.

enum { CALLS_MAX = 8, SECONDS_MAX = 20 };

struct call_record {
    struct fixture *fixture;
    struct channel_call *call;
    uint32_t message_count;
    bool is_done;
    enum status status;
    char text[256];
};

struct fixture {
    struct net *net;
    struct channel *channel;
    struct http2_client *client; // NULL: it has ended
    nghttp2_session *peer;
    int32_t streams[64]; // whose requests are complete, in order
    uint32_t stream_count;
    struct call_record calls[CALLS_MAX];
    uint32_t call_count;
};

// --- Steps on the loop

struct step {
    struct task task; // first
    struct fixture *fixture;
    void (*run)(struct fixture *fixture);
    sem_t done;
};

static void run_step(struct task *task)
{
    struct step *step = (struct step *)(void *)task;
    step->run(step->fixture);
    (void)sem_post(&step->done);
}

static void nothing(struct fixture *fixture)
{
    (void)fixture;
}

static void one_step(struct fixture *fixture, void (*run)(struct fixture *fixture))
{
    struct step step = {.task = {.run = run_step}, .fixture = fixture, .run = run};
    (void)sem_init(&step.done, 0, 0);
    loop_post(net_loop(fixture->net, 0), &step.task);
    while (sem_wait(&step.done) != 0)
        continue; // interrupted
    (void)sem_destroy(&step.done);
}

// What a step has put off comes at the end of its turn, so before the next step.
static void on_loop(struct fixture *fixture, void (*run)(struct fixture *fixture))
{
    one_step(fixture, run);
    one_step(fixture, nothing);
}

// --- The peer

static int peer_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct fixture *fixture = user;
    (void)session;
    bool is_end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) && is_end) {
        ASSERT(fixture->stream_count < sizeof(fixture->streams) / sizeof(fixture->streams[0]));
        fixture->streams[fixture->stream_count++] = frame->hd.stream_id;
    }
    return 0;
}

// Bytes in both directions, until there are none.
static void pump(struct fixture *fixture)
{
    bool has_moved = true;
    while (has_moved && fixture->client != NULL) {
        struct buf bytes;
        const uint8_t *answer = NULL;
        buf_init(&bytes, SIZE_MAX);
        http2_client_fill(fixture->client, &bytes);
        has_moved = bytes.len > 0;
        CHECK(nghttp2_session_mem_recv(fixture->peer, bytes.data, bytes.len) == (ssize_t)bytes.len);
        buf_deinit(&bytes);
        for (;;) {
            ssize_t size = nghttp2_session_mem_send(fixture->peer, &answer);
            if (size <= 0)
                break;
            has_moved = true;
            if (!http2_client_receive(fixture->client, (struct span){answer, (size_t)size}))
                return;
        }
    }
}

static nghttp2_nv pair(const char *name, const char *value)
{
    nghttp2_nv result = {.namelen = strlen(name), .valuelen = strlen(value)};
    memcpy(&result.name, &name, sizeof(result.name));
    memcpy(&result.value, &value, sizeof(result.value));
    return result;
}

// Headers alone, which end the stream.
static void answer_headers(struct fixture *fixture, uint32_t index, const nghttp2_nv *headers,
                           size_t count)
{
    CHECK(index < fixture->stream_count);
    CHECK(nghttp2_submit_headers(fixture->peer, NGHTTP2_FLAG_END_STREAM, fixture->streams[index],
                                 NULL, headers, count, NULL) == 0);
}

static void answer_ok(struct fixture *fixture, uint32_t index)
{
    const nghttp2_nv headers[] = {pair(":status", "200"), pair("content-type", "application/grpc"),
                                  pair("grpc-status", "0")};
    answer_headers(fixture, index, headers, 3);
}

static void answer_http(struct fixture *fixture, uint32_t index, const char *code)
{
    const nghttp2_nv headers[] = {pair(":status", code), pair("content-type", "text/html")};
    answer_headers(fixture, index, headers, 2);
}

static void reset(struct fixture *fixture, uint32_t index, uint32_t code)
{
    CHECK(index < fixture->stream_count);
    CHECK(nghttp2_submit_rst_stream(fixture->peer, NGHTTP2_FLAG_NONE, fixture->streams[index],
                                    code) == 0);
}

static void create_peer(struct fixture *fixture, uint32_t streams_max)
{
    nghttp2_session_callbacks *callbacks = NULL;
    const nghttp2_settings_entry settings = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, streams_max};
    ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, peer_frame);
    ASSERT(nghttp2_session_server_new(&fixture->peer, callbacks, fixture) == 0);
    nghttp2_session_callbacks_del(callbacks);
    ASSERT(nghttp2_submit_settings(fixture->peer, NGHTTP2_FLAG_NONE, &settings, 1) == 0);
}

// --- The fixture

static void open_client(struct fixture *fixture)
{
    fixture->client = http2_client_create(&fixture->channel->loops[0]);
    http2_client_open(fixture->client);
    pump(fixture);
}

static bool set_up(struct fixture *fixture, uint32_t streams_max)
{
    memset(fixture, 0, sizeof(*fixture));
    // Port 1: whoever connects for real finds nobody.
    if (!CHECK_OK(net_create(&(struct net_options){.loop_count = 1}, NULL, &fixture->net)) ||
        !CHECK_OK(channel_create(fixture->net,
                                 &(struct channel_options){.address = STR("127.0.0.1:1")}, NULL,
                                 &fixture->channel)))
        return false;
    create_peer(fixture, streams_max);
    on_loop(fixture, open_client);
    return true;
}

static void end_client(struct fixture *fixture)
{
    if (fixture->client != NULL)
        http2_client_end(fixture->client, STR("the line was cut"));
    fixture->client = NULL;
}

static void tear_down(struct fixture *fixture)
{
    on_loop(fixture, end_client);
    nghttp2_session_del(fixture->peer);
    channel_destroy(fixture->channel);
    net_destroy(fixture->net);
}

static void call_received(struct span message, void *context)
{
    (void)message;
    struct call_record *record = context;
    record->message_count++;
}

static void call_done(enum status status, struct str text, void *context)
{
    struct call_record *record = context;
    CHECK(!record->is_done);
    record->is_done = true;
    record->status = status;
    (void)snprintf(record->text, sizeof(record->text), "%.*s", STR_ARG(text));
}

static void call_once(struct fixture *fixture)
{
    ASSERT(fixture->call_count < CALLS_MAX);
    struct call_record *record = &fixture->calls[fixture->call_count++];
    record->fixture = fixture;
    record->call = channel_call(fixture->channel, &(struct channel_request){
                                                      .path = STR("/t/Call"),
                                                      .message = str_span(STR("question")),
                                                      .deadline_ns = UINT64_MAX,
                                                      .context = record,
                                                      .received = call_received,
                                                      .done = call_done,
                                                  });
}

static void call_and_send(struct fixture *fixture)
{
    call_once(fixture);
    pump(fixture);
}

static bool is_done(const struct fixture *fixture, uint32_t index, enum status status)
{
    return CHECK(fixture->calls[index].is_done) &&
           CHECK_STATUS(fixture->calls[index].status, status);
}

// Until the call has ended, for what takes a real connection.
static void wait_done(struct fixture *fixture, uint32_t index)
{
    uint64_t end_ns = clock_monotonic_ns() + SECONDS_MAX * NS_PER_SECOND;
    bool has_ended = false;
    while (!has_ended && clock_monotonic_ns() < end_ns) {
        on_loop(fixture, nothing);
        has_ended = fixture->calls[index].is_done;
    }
}

// --- Answers

static void answer_not_found(struct fixture *fixture)
{
    const nghttp2_nv headers[] = {pair(":status", "200"), pair("content-type", "application/grpc"),
                                  pair("grpc-status", "5"),
                                  pair("grpc-message", "caf%C3%A9 is 100%25 gone")};
    answer_headers(fixture, 0, headers, 4);
    pump(fixture);
}

TEST(an_error_in_the_headers_alone)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, answer_not_found);
    is_done(&fixture, 0, STATUS_NOT_FOUND);
    CHECK_CSTR(fixture.calls[0].text, "caf\xc3\xa9 is 100% gone");
    tear_down(&fixture);
}

static void answer_http_errors(struct fixture *fixture)
{
    static const char *const codes[] = {"503", "401", "403", "404", "429", "500", "200"};
    for (uint32_t i = 0; i < 7; i++)
        answer_http(fixture, i, codes[i]);
    pump(fixture);
}

TEST(somebody_who_speaks_http_and_no_grpc)
{
    static const enum status wanted[] = {STATUS_UNAVAILABLE, STATUS_UNAUTHENTICATED,
                                         STATUS_FORBIDDEN,   STATUS_UNIMPLEMENTED,
                                         STATUS_UNAVAILABLE, STATUS_BUG,
                                         STATUS_BUG};
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    for (int i = 0; i < 7; i++)
        on_loop(&fixture, call_and_send);
    on_loop(&fixture, answer_http_errors);
    for (uint32_t i = 0; i < 7; i++)
        is_done(&fixture, i, wanted[i]);
    CHECK_CONTAINS(str_from_cstr(fixture.calls[0].text), STR("HTTP 503"));
    tear_down(&fixture);
}

static void answer_without_status(struct fixture *fixture)
{
    const nghttp2_nv headers[] = {pair(":status", "200"), pair("content-type", "application/grpc")};
    answer_headers(fixture, 0, headers, 2);
    pump(fixture);
}

TEST(an_answer_without_grpc_status)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, answer_without_status);
    is_done(&fixture, 0, STATUS_BUG);
    CHECK_CONTAINS(str_from_cstr(fixture.calls[0].text), STR("grpc-status"));
    tear_down(&fixture);
}

// Each part is small enough, together they are not.
static void answer_with_many_headers(struct fixture *fixture)
{
    enum { COUNT = 20 };
    static char value[2000];
    nghttp2_nv headers[COUNT];
    memset(value, 'v', sizeof(value) - 1);
    headers[0] = pair(":status", "200");
    for (int i = 1; i < COUNT; i++)
        headers[i] = pair("x-much", value);
    CHECK(nghttp2_submit_headers(fixture->peer, NGHTTP2_FLAG_NONE, fixture->streams[0], NULL,
                                 headers, COUNT, NULL) == 0);
    pump(fixture);
    headers[0] = pair("grpc-status", "0");
    answer_headers(fixture, 0, headers, COUNT);
    pump(fixture);
}

TEST(headers_of_an_answer_are_bounded)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, answer_with_many_headers);
    is_done(&fixture, 0, STATUS_EXHAUSTED);
    tear_down(&fixture);
}

static void answer_second_call(struct fixture *fixture)
{
    answer_ok(fixture, 1);
    pump(fixture);
}

static void cancel_first_call(struct fixture *fixture)
{
    channel_call_cancel(fixture->calls[0].call);
    pump(fixture);
}

TEST(a_cancelled_call_leaves_the_others_alone)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, cancel_first_call);
    on_loop(&fixture, answer_second_call);
    CHECK(!fixture.calls[0].is_done);
    is_done(&fixture, 1, STATUS_OK);
    tear_down(&fixture);
}

// --- Resets

static void reset_all(struct fixture *fixture)
{
    static const uint32_t codes[] = {NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM,
                                     NGHTTP2_INADEQUATE_SECURITY, NGHTTP2_INTERNAL_ERROR};
    for (uint32_t i = 0; i < 4; i++)
        reset(fixture, i, codes[i]);
    pump(fixture);
}

TEST(resets_become_statuses)
{
    static const enum status wanted[] = {STATUS_CANCELLED, STATUS_EXHAUSTED, STATUS_FORBIDDEN,
                                         STATUS_BUG};
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    for (int i = 0; i < 4; i++)
        on_loop(&fixture, call_and_send);
    on_loop(&fixture, reset_all);
    for (uint32_t i = 0; i < 4; i++)
        is_done(&fixture, i, wanted[i]);
    tear_down(&fixture);
}

static void refuse_last(struct fixture *fixture)
{
    reset(fixture, fixture->stream_count - 1, NGHTTP2_REFUSED_STREAM);
    pump(fixture);
}

TEST(a_refused_call_is_tried_once_more)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, refuse_last);
    CHECK(!fixture.calls[0].is_done);
    CHECK_EQ_U64(fixture.stream_count, 2);
    on_loop(&fixture, refuse_last);
    is_done(&fixture, 0, STATUS_UNAVAILABLE);
    CHECK_EQ_U64(fixture.stream_count, 2);
    tear_down(&fixture);
}

// --- The end of a connection

static void go_away_after_first(struct fixture *fixture)
{
    CHECK(nghttp2_submit_goaway(fixture->peer, NGHTTP2_FLAG_NONE, fixture->streams[0],
                                NGHTTP2_NO_ERROR, NULL, 0) == 0);
    pump(fixture);
}

static void answer_first_call(struct fixture *fixture)
{
    answer_ok(fixture, 0);
    pump(fixture);
}

TEST(goaway_lets_calls_finish_and_sends_the_others_elsewhere)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, go_away_after_first);
    on_loop(&fixture, call_once); // elsewhere, and nobody is there
    on_loop(&fixture, answer_first_call);
    is_done(&fixture, 0, STATUS_OK);
    for (uint32_t i = 1; i < 3; i++) {
        wait_done(&fixture, i);
        is_done(&fixture, i, STATUS_UNAVAILABLE);
    }
    tear_down(&fixture);
}

TEST(a_line_that_is_cut)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send); // the peer may have done it
    on_loop(&fixture, call_once);     // not sent: tried again on another connection
    on_loop(&fixture, end_client);
    is_done(&fixture, 0, STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(fixture.calls[0].text), STR("the line was cut"));
    wait_done(&fixture, 1);
    is_done(&fixture, 1, STATUS_UNAVAILABLE);
    CHECK(strstr(fixture.calls[1].text, "the line was cut") == NULL);
    tear_down(&fixture);
}

static void receive_rubbish(struct fixture *fixture)
{
    static const uint8_t rubbish[64] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    (void)http2_client_receive(fixture->client, (struct span){rubbish, sizeof(rubbish)});
    end_client(fixture);
}

TEST(bytes_that_are_no_http2_end_the_connection)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 100));
    on_loop(&fixture, call_and_send);
    on_loop(&fixture, receive_rubbish);
    is_done(&fixture, 0, STATUS_UNAVAILABLE);
    tear_down(&fixture);
}

// --- The peer's limits

static void answer_first_two(struct fixture *fixture)
{
    answer_ok(fixture, 0);
    answer_ok(fixture, 1);
    pump(fixture);
}

TEST(no_more_calls_at_once_than_the_peer_takes)
{
    struct fixture fixture;
    REQUIRE(set_up(&fixture, 2));
    for (int i = 0; i < 5; i++)
        on_loop(&fixture, call_and_send);
    CHECK_EQ_U64(fixture.stream_count, 2);
    on_loop(&fixture, answer_first_two);
    CHECK_EQ_U64(fixture.stream_count, 4);
    is_done(&fixture, 0, STATUS_OK);
    is_done(&fixture, 1, STATUS_OK);
    CHECK(!fixture.calls[2].is_done);
    tear_down(&fixture);
}

// --- A peer that is silent, over a real socket

static int listen_silently(uint16_t *out_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(listener, 8) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    *out_port = ntohs(address.sin_port);
    return listener;
}

TEST(a_ping_without_an_answer_ends_the_connection)
{
    struct net *net = NULL;
    struct channel *channel = NULL;
    struct error error = {0};
    struct buf answer;
    char address[32];
    uint16_t port = 0;
    int listener = listen_silently(&port);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    buf_init(&answer, 1024);
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 1}, NULL, &net));
    REQUIRE_OK(channel_create(net, &(struct channel_options){.address = str_from_cstr(address)},
                              NULL, &channel));
    channel->ping_after_ns = 30 * NS_PER_MS;
    channel->ping_time_max_ns = 30 * NS_PER_MS;
    CHECK_STATUS(
        channel_call_wait(channel,
                          &(struct channel_request){.path = STR("/t/Call"),
                                                    .message = str_span(STR("x")),
                                                    .deadline_ns = clock_monotonic_ns() +
                                                                   SECONDS_MAX * NS_PER_SECOND},
                          &answer, &error),
        STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("no answer to a ping"));
    channel_destroy(channel);
    net_destroy(net);
    (void)close(listener);
    buf_deinit(&answer);
}

TEST_MAIN()
