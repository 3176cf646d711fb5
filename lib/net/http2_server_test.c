#include <zlib.h>

#include "net/server_testing.h"

static const struct listener_options grpc_only = {.has_grpc = true, .message_size_max = 1 << 20};
static const struct listener_options public_grpc = {
    .has_grpc = true, .is_public = true, .message_size_max = 1 << 20};
static const struct listener_options both = {
    .has_grpc = true, .has_http = true, .message_size_max = 100000};

// The message "hello" in its frame.
static const uint8_t hello[] = {0, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'};

static const struct test_request echo = {
    .path = "/Echo", .body = hello, .body_size = sizeof(hello)};

static bool has(const struct test_stream *stream, const char *text)
{
    return strstr(stream->headers, text) != NULL;
}

static bool is_echo(const struct test_stream *stream)
{
    return stream->grpc_status == 0 && stream->received == sizeof(hello) &&
           memcmp(stream->first, hello, sizeof(hello)) == 0;
}

TEST(a_call_and_its_answer)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream = test_client_finish(&client, &echo);
    CHECK(is_echo(stream));
    CHECK(stream->http_status == 200 && stream->header_blocks == 2);
    CHECK(has(stream, "content-type: application/grpc\n"));
    CHECK(has(stream, "x-request-id: "));
    for (int i = 0; i < 20; i++)
        CHECK(is_echo(test_client_finish(&client, &echo)));
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(many_calls_at_once)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    struct test_stream *streams[TEST_STREAMS_MAX];
    for (int i = 0; i < TEST_STREAMS_MAX; i++)
        streams[i] = test_client_call(&client, &echo);
    for (int i = 0; i < TEST_STREAMS_MAX; i++)
        CHECK(test_client_wait(&client, &streams[i]->is_closed) && is_echo(streams[i]));
    test_client_close(&client);
    test_server_stop(&server);
}

// Trap 6: an error before any message is Trailers-Only, its text percent-encoded.
TEST(errors_are_trailers_only)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_request fail = {.path = "/Fail", .body = hello, .body_size = sizeof(hello)};
    const struct test_stream *stream = test_client_finish(&client, &fail);
    CHECK(stream->grpc_status == 5 && stream->header_blocks == 1);
    CHECK_CSTR(stream->grpc_message, "100%25 gone: caf%C3%A9");
    const struct test_request refuse = {
        .path = "/Refuse", .body = hello, .body_size = sizeof(hello)};
    stream = test_client_finish(&client, &refuse);
    CHECK(stream->grpc_status == 7);
    CHECK_CSTR(stream->grpc_message, "not you");
    test_client_close(&client);
    test_server_stop(&server);
}

// Trap 6: -bin metadata comes with and without padding.
TEST(metadata)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    struct test_request request = {.path = "/Header",
                                   .body = hello,
                                   .body_size = sizeof(hello),
                                   .names = {"x-ask", "some-bin", "x-request-id"},
                                   .values = {"value", "aGk=", "abc.1"}};
    const struct test_stream *stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 0 && has(stream, "x-good: value\n"));
    CHECK(has(stream, "x-request-id: abc.1\n") && !has(stream, "x-injected"));
    request.values[1] = "not base64!";
    CHECK(test_client_finish(&client, &request)->grpc_status == 3);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(what_does_not_fit_the_port)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    struct test_request request = {
        .path = "/Echo", .content_type = "application/json", .body = hello, .body_size = 5};
    CHECK(test_client_finish(&client, &request)->http_status == 415);
    request.content_type = "application/grpc-web";
    CHECK(test_client_finish(&client, &request)->http_status == 415);
    request.content_type = "application/grpc+proto";
    request.body_size = sizeof(hello);
    CHECK(is_echo(test_client_finish(&client, &request)));
    test_client_close(&client);
    test_server_stop(&server);

    test_server_start(&server, &(struct listener_options){.has_http = true}, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream = test_client_finish(&client, &echo);
    CHECK(stream->grpc_status == 12 && strstr(stream->grpc_message, "/Echo") != NULL);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(http_over_http2)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &both, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream =
        test_client_finish(&client, &(struct test_request){.path = "/Echo?x=1",
                                                           .content_type = "application/json",
                                                           .body = hello,
                                                           .body_size = sizeof(hello)});
    CHECK(stream->http_status == 200 && stream->received == sizeof(hello));
    CHECK(has(stream, "content-length: 10\n") && has(stream, "content-type: text/plain\n"));
    stream = test_client_finish(
        &client,
        &(struct test_request){.verb = "GET", .path = "/Refuse", .content_type = "text/plain"});
    CHECK(stream->http_status == 403 && stream->received == 7);
    stream = test_client_finish(
        &client,
        &(struct test_request){.verb = "HEAD", .path = "/Refuse", .content_type = "text/plain"});
    CHECK(stream->http_status == 403 && stream->received == 0);
    CHECK(has(stream, "content-length: 7\n"));

    // A body over the limit: 413, with and without an announced length.
    static uint8_t large[200000];
    struct test_request request = {.path = "/Echo",
                                   .content_type = "text/plain",
                                   .body = large,
                                   .body_size = sizeof(large),
                                   .names = {"content-length"},
                                   .values = {"200000"}};
    stream = test_client_finish(&client, &request);
    CHECK(stream->http_status == 413);
    CHECK(memmem(stream->first, sizeof(stream->first),
                 "body of 200000 bytes is over the limit of 100000 bytes", 54) != NULL);
    request.names[0] = NULL;
    CHECK(test_client_finish(&client, &request)->http_status == 413);
    CHECK(is_echo(test_client_finish(&client, &echo))); // the connection lives on
    test_client_close(&client);
    test_server_stop(&server);
}

static size_t compress_frame(uint8_t *bytes, size_t size, uint8_t *out, size_t room)
{
    z_stream stream = {.avail_in = (uInt)size, .avail_out = (uInt)(room - 5)};
    stream.next_in = bytes;
    stream.next_out = out + 5;
    deflateInit2(&stream, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
    deflate(&stream, Z_FINISH);
    size_t len = room - 5 - stream.avail_out;
    deflateEnd(&stream);
    const uint8_t prefix[5] = {1, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                               (uint8_t)len};
    memcpy(out, prefix, 5);
    return len + 5;
}

TEST(compressed_messages)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    static uint8_t plain[3 << 20];
    static uint8_t frame[100000];
    struct test_request request = {.path = "/Echo",
                                   .body = frame,
                                   .body_size = compress_frame(plain, 50000, frame, sizeof(frame)),
                                   .names = {"grpc-encoding"},
                                   .values = {"gzip"}};
    const struct test_stream *stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 0 && server.last_size == 50000);
    CHECK(has(stream, "grpc-encoding: gzip\n"));
    CHECK(stream->received < 1000 && stream->first[0] == 1);

    // A bomb: small as it comes, over the limit when unpacked.
    request.body_size = compress_frame(plain, sizeof(plain), frame, sizeof(frame));
    stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 8 && strstr(stream->grpc_message, "1048576") != NULL);

    memset(frame + 5, 'x', 50);
    request.body_size = 20;
    frame[4] = 15;
    frame[3] = frame[2] = frame[1] = 0;
    CHECK(test_client_finish(&client, &request)->grpc_status == 3);

    request.values[0] = "snappy";
    stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 12 && has(stream, "grpc-accept-encoding: identity,gzip\n"));
    request.names[0] = NULL;
    CHECK(test_client_finish(&client, &request)->grpc_status == 3);
    test_client_close(&client);
    test_server_stop(&server);
}

// Trap 4: memory grows with the bytes that came, never with the length that was claimed.
TEST(a_claim_of_2_gib_costs_nothing)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(
        &server, &(struct listener_options){.has_grpc = true, .message_size_max = (size_t)3 << 30},
        0);
    test_client_open(&client, server.port, 65535);
    static const uint8_t claim[] = {0, 0x80, 0, 0, 0, 'x'};
    for (int i = 0; i < 50; i++)
        test_client_call(&client, &(struct test_request){.path = "/Echo",
                                                         .body = claim,
                                                         .body_size = sizeof(claim),
                                                         .stays_open = true});
    CHECK(is_echo(test_client_finish(&client, &echo)));
    CHECK(net_memory_used(server.net) < 100000);
    test_client_close(&client);
    test_server_stop(&server);

    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream = test_client_finish(
        &client, &(struct test_request){.path = "/Echo", .body = claim, .body_size = 6});
    CHECK(stream->grpc_status == 8);
    CHECK_CSTR(stream->grpc_message,
               "message of 2147483648 bytes is over the limit of 1048576 bytes");
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(a_large_message_comes_in_pieces)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(
        &server, &(struct listener_options){.has_grpc = true, .message_size_max = 16 << 20}, 0);
    test_client_open(&client, server.port, 1 << 24);
    enum { SIZE = 10 << 20 };
    uint8_t *frame = mem_alloc(SIZE + 5);
    memcpy(frame, (uint8_t[]){0, 0, 0xa0, 0, 0}, 5);
    struct test_request request = {.path = "/Echo", .body = frame, .body_size = SIZE + 5};
    const struct test_stream *stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 0 && server.last_size == SIZE && stream->received == SIZE + 5);
    test_client_close(&client);
    test_server_stop(&server);
    mem_free(frame);
}

TEST(the_budget_refuses_what_does_not_fit)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 200000);
    test_client_open(&client, server.port, 65535);
    static uint8_t frame[500005];
    memcpy(frame, (uint8_t[]){0, 0, 7, 0xa1, 0x20}, 5);
    const struct test_stream *stream = test_client_finish(
        &client,
        &(struct test_request){.path = "/Echo", .body = frame, .body_size = sizeof(frame)});
    CHECK(stream->grpc_status == 8 && strstr(stream->grpc_message, "memory") != NULL);
    CHECK(is_echo(test_client_finish(&client, &echo)));
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(deadlines)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    struct test_request request = {.path = "/Hold",
                                   .body = hello,
                                   .body_size = sizeof(hello),
                                   .names = {"grpc-timeout"},
                                   .values = {"30m"}};
    uint64_t start = test_now_ms();
    const struct test_stream *stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 4 && stream->header_blocks == 1);
    CHECK(test_now_ms() - start >= 29);
    CHECK(test_wait_for(&server.cancelled, 1));
    request.path = "/Echo";
    request.values[0] = "10S";
    CHECK(is_echo(test_client_finish(&client, &request)));
    request.values[0] = "99999999H";
    CHECK(is_echo(test_client_finish(&client, &request)));
    request.values[0] = "soon";
    CHECK(test_client_finish(&client, &request)->grpc_status == 3);
    CHECK(atomic_load(&server.cancelled) == 1);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(cancelled_by_the_client)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream = test_client_call(
        &client,
        &(struct test_request){.path = "/Hold", .body = hello, .body_size = sizeof(hello)});
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.messages, 1));
    nghttp2_submit_rst_stream(client.session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.cancelled, 1));
    CHECK(is_echo(test_client_finish(&client, &echo)));

    test_client_call(&client, &(struct test_request){
                                  .path = "/Hold", .body = hello, .body_size = sizeof(hello)});
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.messages, 3));
    test_client_close(&client); // the connection is lost
    CHECK(test_wait_for(&server.cancelled, 2));
    test_server_stop(&server);
}

// Trap 1: a client that cancels thousands of calls in good faith keeps its connection.
TEST(four_thousand_cancels)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &public_grpc, 0);
    test_client_open(&client, server.port, 65535);
    for (int i = 0; i < 4000; i++) {
        struct test_stream *stream = test_client_call(&client, &echo);
        client.stream_count = 0; // their ends do not matter
        nghttp2_submit_rst_stream(client.session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
        if (i % 10 == 0)
            while (test_client_turn(&client, 0))
                ;
    }
    CHECK(!client.is_closed);
    CHECK(is_echo(test_client_finish(&client, &echo)));
    test_client_close(&client);
    test_server_stop(&server);
}

// CVE-2023-44487: who resets without end is cut off.
TEST(reset_flood)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &public_grpc, 0);
    test_client_open(&client, server.port, 65535);
    int count = 0;
    for (; count < 60000 && !client.is_closed && client.goaway_count == 0; count++) {
        struct test_stream *stream = test_client_call(
            &client, &(struct test_request){.path = "/Silent", .stays_open = true});
        client.stream_count = 0;
        (void)test_client_send(&client); // or the client would drop the pair itself
        nghttp2_submit_rst_stream(client.session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
        if (count % 50 == 0)
            while (test_client_turn(&client, 0))
                ;
    }
    CHECK(count >= 10000 && count < 60000);
    test_client_close(&client);
    test_client_open(&client, server.port, 65535); // others are served
    CHECK(is_echo(test_client_finish(&client, &echo)));
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(ping_flood_and_pings)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &public_grpc, 0);
    test_client_open(&client, server.port, 65535);
    for (int i = 0; i < 200; i++) // a lively keepalive
        nghttp2_submit_ping(client.session, NGHTTP2_FLAG_NONE, NULL);
    CHECK(is_echo(test_client_finish(&client, &echo)));
    CHECK(client.ping_answers == 200);
    for (int i = 0; i < 200000 && !client.is_closed && client.goaway_count == 0; i++) {
        nghttp2_submit_ping(client.session, NGHTTP2_FLAG_NONE, NULL);
        if (i % 100 == 0)
            test_client_turn(&client, 0);
    }
    CHECK(client.is_closed || client.goaway_count > 0);
    test_client_close(&client);
    test_server_stop(&server);
}

// Trap 5: the size of all headers together is counted by us.
TEST(header_flood)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    static char value[5000];
    memset(value, 'v', sizeof(value) - 1);
    struct test_request request = {.path = "/Echo",
                                   .body = hello,
                                   .body_size = sizeof(hello),
                                   .names = {"a", "b", "c", "d", "e"},
                                   .values = {value, value, value, value, value}};
    const struct test_stream *stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 8 && strstr(stream->grpc_message, "16384") != NULL);
    CHECK(is_echo(test_client_finish(&client, &echo)));

    // A bomb: one large header, then references to it.
    static nghttp2_nv pairs[1000];
    static char large[3000];
    memset(large, 'v', sizeof(large) - 1);
    pairs[0] = test_pair(":method", "POST");
    pairs[1] = test_pair(":scheme", "http");
    pairs[2] = test_pair(":path", "/Echo");
    pairs[3] = test_pair(":authority", "test");
    for (int i = 4; i < 1000; i++)
        pairs[i] = test_pair("bomb", large);
    nghttp2_submit_request(client.session, NULL, pairs, 1000, NULL, NULL);
    uint64_t end = test_now_ms() + TEST_TIME_MAX_MS;
    while (!client.is_closed && test_now_ms() < end)
        test_client_turn(&client, 100);
    CHECK(client.is_closed);
    CHECK(atomic_load(&server.messages) == 1);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(a_message_that_is_cut_off)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    struct test_request request = {.path = "/Echo", .body = hello, .body_size = 7};
    const struct test_stream *stream = test_client_finish(&client, &request);
    CHECK(stream->grpc_status == 3 && strstr(stream->grpc_message, "middle") != NULL);
    static const uint8_t bad_flag[] = {7, 0, 0, 0, 0};
    request.body = bad_flag;
    request.body_size = 5;
    CHECK(test_client_finish(&client, &request)->grpc_status == 3);
    test_client_close(&client);
    test_server_stop(&server);
}

// The answer is complete while the client still sends: it is told to stop.
TEST(an_early_answer_resets_the_rest_of_the_request)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream =
        test_client_finish(&client, &(struct test_request){.path = "/Refuse", .stays_open = true});
    CHECK(stream->is_closed && stream->grpc_status == 7);
    CHECK(stream->error_code == NGHTTP2_NO_ERROR);
    CHECK(is_echo(test_client_finish(&client, &echo)));
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(both_directions_stream)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    enum { COUNT = 1000 };
    static uint8_t frames[COUNT * sizeof(hello)];
    for (int i = 0; i < COUNT; i++)
        memcpy(frames + (size_t)i * sizeof(hello), hello, sizeof(hello));
    const struct test_stream *stream = test_client_finish(
        &client,
        &(struct test_request){.path = "/Bidi", .body = frames, .body_size = sizeof(frames)});
    CHECK(stream->grpc_status == 0 && stream->received == sizeof(frames));
    CHECK(atomic_load(&server.messages) == COUNT && atomic_load(&server.half_closed) == 1);
    test_client_close(&client);
    test_server_stop(&server);
}

// Trap 5: who reads slowly is waited for; what is queued for him stays bounded.
TEST(back_pressure_of_a_64_mb_stream)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream = test_client_call(
        &client,
        &(struct test_request){.path = "/Stream", .body = hello, .body_size = sizeof(hello)});
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.messages, 1));
    usleep(100000); // nothing is read
    CHECK(net_memory_used(server.net) < 400000);
    CHECK(test_client_wait(&client, &stream->is_closed));
    CHECK(stream->grpc_status == 0);
    CHECK(stream->received >= (size_t)64 << 20);
    CHECK(atomic_load(&server.queued_max) < 300000);
    test_client_close(&client);
    test_server_stop(&server);
}

// A client that asks and asks and never reads: its requests wait too, so the answers stay bounded.
TEST(answers_that_nobody_reads_hold_the_requests_up)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &grpc_only, 0);
    test_client_open(&client, server.port, 65535);
    enum { COUNT = 20000 };
    static uint8_t frames[COUNT * sizeof(hello)];
    for (int i = 0; i < COUNT; i++)
        memcpy(frames + (size_t)i * sizeof(hello), hello, sizeof(hello));
    const struct test_stream *stream = test_client_call(
        &client,
        &(struct test_request){.path = "/Amplify", .body = frames, .body_size = sizeof(frames)});
    for (int i = 0; i < 20; i++) // what fits into the first windows
        test_client_turn(&client, 5);
    (void)stream;
    usleep(50000);
    CHECK(atomic_load(&server.messages) < COUNT);
    CHECK(net_memory_used(server.net) < (size_t)8 << 20);
    CHECK(test_client_wait(&client, &stream->is_closed));
    CHECK(stream->grpc_status == 0);
    CHECK(atomic_load(&server.messages) == COUNT);
    CHECK(stream->received == (size_t)COUNT * 50005);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(garbage_after_the_preface)
{
    struct test_server server;
    test_server_start(&server, &grpc_only, 0);
    char answer[4096];
    int fd = test_connect(server.port);
    static const char bytes[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame at all, is it";
    CHECK(test_write(fd, bytes, sizeof(bytes)));
    CHECK(test_read_until(fd, NULL, answer, sizeof(answer)));
    close(fd);
    test_server_stop(&server);
}

TEST(no_more_streams_than_announced)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &(struct listener_options){.has_grpc = true, .stream_max = 4}, 0);
    test_client_open(&client, server.port, 65535);
    CHECK(is_echo(test_client_finish(&client, &echo))); // its settings have come
    for (int i = 0; i < 10; i++)
        test_client_call(&client,
                         &(struct test_request){.path = "/Silent", .body = hello, .body_size = 10});
    for (int i = 0; i < 20; i++)
        test_client_turn(&client, 5);
    CHECK(atomic_load(&server.started) == 5);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST_MAIN()
