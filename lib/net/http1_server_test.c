#include "net/server_testing.h"

static const struct listener_options http_only = {.has_http = true, .message_size_max = 100000};

static char answer[1 << 20];

static unsigned count_of(const char *text, const char *needle)
{
    unsigned count = 0;
    for (const char *it = strstr(text, needle); it != NULL; it = strstr(it + 1, needle))
        count++;
    return count;
}

static void start(struct test_server *server)
{
    test_server_start(server, &http_only, 0);
}

TEST(a_request_and_its_answer)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port,
                        "POST /Echo?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                        "X-Request-Id: my-id_1.0\r\nConnection: close\r\n\r\nhello",
                        answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17) == 0);
    CHECK(strstr(answer, "content-length: 5\r\n") != NULL);
    CHECK(strstr(answer, "content-type: text/plain\r\n") != NULL);
    CHECK(strstr(answer, "x-request-id: my-id_1.0\r\n") != NULL);
    CHECK(strstr(answer, "connection: close\r\n") != NULL);
    CHECK(strstr(answer, "\r\n\r\nhello") != NULL);
    test_server_stop(&server);
}

TEST(a_bad_request_id_is_replaced)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port,
                        "GET /Echo HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b\r\n"
                        "Connection: close\r\n\r\n",
                        answer, sizeof(answer)));
    CHECK(strstr(answer, "a b") == NULL);
    CHECK(strstr(answer, "x-request-id: ") != NULL);
    test_server_stop(&server);
}

TEST(keep_alive_serves_one_after_the_other)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    for (int i = 0; i < 5; i++) {
        const char *request = "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        CHECK(test_write(fd, request, strlen(request)));
        CHECK(test_read_until(fd, "\r\n\r\nabc", answer, sizeof(answer)));
        CHECK(strstr(answer, "connection:") == NULL);
    }
    close(fd);
    test_server_stop(&server);
}

TEST(pipelined_requests_are_answered_in_order)
{
    struct test_server server;
    start(&server);
    static char request[200000];
    size_t len = 0;
    enum { COUNT = 1000 };
    for (int i = 0; i < COUNT; i++)
        len += (size_t)snprintf(request + len, sizeof(request) - len,
                                "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n%s\r\n"
                                "#%03d#",
                                i == COUNT - 1 ? "Connection: close\r\n" : "", i);
    CHECK(test_exchange(server.port, request, answer, sizeof(answer)));
    const char *next = answer;
    for (int i = 0; i < COUNT && next != NULL; i++) {
        char wanted[8];
        snprintf(wanted, sizeof(wanted), "#%03d#", i);
        next = strstr(next, wanted);
        CHECK(next != NULL);
    }
    CHECK(count_of(answer, "HTTP/1.1 200 OK") == COUNT);
    test_server_stop(&server);
}

// What is sent ahead while a call is served waits in the kernel, not in our memory.
TEST(pipelined_input_is_bounded)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *hold = "POST /Hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    CHECK(test_write(fd, hold, strlen(hold)));
    CHECK(test_wait_for(&server.messages, 1));
    static const char line[] = "GET /Echo HTTP/1.1\r\nHost: x\r\n\r\n";
    size_t sent = 0;
    uint64_t last = test_now_ms();
    while (test_now_ms() - last < 300) { // until nothing is taken any more
        ssize_t size = send(fd, line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size > 0) {
            sent += (size_t)size;
            last = test_now_ms();
        }
    }
    CHECK(sent < (size_t)32 << 20);
    CHECK(atomic_load(&server.messages) == 1);
    close(fd);
    test_server_stop(&server);
}

TEST(a_client_that_goes_is_noticed_although_its_input_waits)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *hold = "POST /Hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    CHECK(test_write(fd, hold, strlen(hold)));
    CHECK(test_wait_for(&server.messages, 1));
    static const char line[] = "GET /Echo HTTP/1.1\r\nHost: x\r\n\r\n";
    for (int i = 0; i < 4000; i++)
        CHECK(test_write(fd, line, sizeof(line) - 1));
    close(fd);
    CHECK(test_wait_for(&server.cancelled, 1));
    test_server_stop(&server);
}

TEST(chunked_bodies)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *pieces[] = {"POST /Echo HTTP/1.1\r\nHo", "st: x\r\nTransfer-Encoding: chun",
                            "ked\r\nConnection: close\r\n\r\n5;ext=1\r\nhel",
                            "lo\r\n6\r\n world\r\n", "0\r\nTrailer: x\r\n\r\n"};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        CHECK(test_write(fd, pieces[i], strlen(pieces[i])));
        usleep(2000);
    }
    CHECK(test_read_until(fd, NULL, answer, sizeof(answer)));
    CHECK(strstr(answer, "content-length: 11\r\n") != NULL);
    CHECK(strstr(answer, "hello world") != NULL);
    close(fd);
    test_server_stop(&server);
}

TEST(byte_by_byte)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *request = "POST http://host:80/Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                          "Connection: close\r\n\r\nabc";
    for (const char *it = request; *it != '\0'; it++)
        CHECK(test_write(fd, it, 1));
    CHECK(test_read_until(fd, NULL, answer, sizeof(answer)));
    CHECK(strstr(answer, "\r\n\r\nabc") != NULL);
    close(fd);
    test_server_stop(&server);
}

// An announced body over the limit is refused before a byte of it is read; both sizes are named.
TEST(a_large_body_is_refused_at_once)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port,
                        "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 300000000\r\n\r\nabc",
                        answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 413 ", 13) == 0);
    CHECK(strstr(answer, "connection: close") != NULL);
    CHECK(strstr(answer, "\"code\":8") != NULL);
    CHECK(strstr(answer, "body of 300000000 bytes is over the limit of 100000 bytes") != NULL);
    CHECK(atomic_load(&server.messages) == 0);

    // A handler may ask for less than the listener allows.
    CHECK(test_exchange(server.port,
                        "POST /Small HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nabcdefghijk",
                        answer, sizeof(answer)));
    CHECK(strstr(answer, "body of 11 bytes is over the limit of 10 bytes") != NULL);
    test_server_stop(&server);
}

TEST(a_large_chunked_body_is_refused_when_it_passes_the_limit)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *head = "POST /Echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    CHECK(test_write(fd, head, strlen(head)));
    static char chunk[1008];
    memset(chunk, 'a', sizeof(chunk));
    memcpy(chunk, (const char[]){'3', 'e', '8', '\r', '\n'}, 5);
    memcpy(chunk + 1005, (const char[]){'\r', '\n'}, 2);
    for (int i = 0; i < 2000; i++) {
        if (!test_write(fd, chunk, 1007))
            break;
    }
    CHECK(test_read_until(fd, "]}", answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 413 ", 13) == 0);
    close(fd);
    test_server_stop(&server);
}

TEST(expect_100_continue)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *head = "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                       "Expect: 100-continue\r\n\r\n";
    CHECK(test_write(fd, head, strlen(head)));
    CHECK(test_read_until(fd, "HTTP/1.1 100 Continue\r\n\r\n", answer, sizeof(answer)));
    CHECK(test_write(fd, "abc", 3));
    CHECK(test_read_until(fd, "\r\n\r\nabc", answer, sizeof(answer)));
    close(fd);
    // Refused: the client need not send its body, so the connection ends with the answer.
    CHECK(test_exchange(server.port,
                        "POST /Refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                        "Expect: 100-continue\r\n\r\n",
                        answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 403 ", 13) == 0);
    CHECK(strstr(answer, "100 Continue") == NULL);
    CHECK(test_exchange(server.port,
                        "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                        "Expect: miracles\r\n\r\n",
                        answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 417 ", 13) == 0);
    test_server_stop(&server);
}

TEST(an_early_answer_keeps_the_connection_when_the_body_is_small)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port,
                        "POST /Refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nGET / x"
                        "GET /Echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                        answer, sizeof(answer)));
    CHECK(count_of(answer, "HTTP/1.1 403 ") == 1);
    CHECK(count_of(answer, "HTTP/1.1 200 ") == 1);
    test_server_stop(&server);
}

TEST(head_has_no_body)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port,
                        "HEAD /Refuse HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", answer,
                        sizeof(answer)));
    CHECK(strstr(answer, "content-length: 7\r\n") != NULL);
    CHECK(strstr(answer, "not you") == NULL);
    test_server_stop(&server);
}

TEST(version_1_0)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port, "GET /Echo HTTP/1.0\r\n\r\n", answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 200 ", 13) == 0);
    CHECK(strstr(answer, "connection: close") != NULL);
    int fd = test_connect(server.port);
    const char *request = "GET /Echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    CHECK(test_write(fd, request, strlen(request)));
    CHECK(test_read_until(fd, "connection: keep-alive\r\n", answer, sizeof(answer)));
    CHECK(test_write(fd, request, strlen(request)));
    CHECK(test_read_until(fd, "connection: keep-alive\r\n", answer, sizeof(answer)));
    close(fd);
    test_server_stop(&server);
}

TEST(malformed_requests)
{
    struct test_server server;
    start(&server);
    const char *const bad[] = {
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls on a plain port\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n", // no host
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET Echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost:x\r\nContent-Length:3\r\nTransfer-Encoding:chunked\r\n\r\n0\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bool is_refused = test_exchange(server.port, bad[i], answer, sizeof(answer)) &&
                          strncmp(answer, "HTTP/1.1 400 ", 13) == 0;
        if (!CHECK(is_refused))
            printf("request %zu: %.60s\n", i, answer);
    }
    CHECK(atomic_load(&server.messages) == 0);
    CHECK(test_exchange(server.port, "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", answer,
                        sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 501 ", 13) == 0);
    test_server_stop(&server);
}

TEST(large_heads)
{
    struct test_server server;
    start(&server);
    static char request[70000];
    size_t len = (size_t)snprintf(request, sizeof(request), "GET /");
    memset(request + len, 'a', 9000);
    snprintf(request + len + 9000, 100, " HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(test_exchange(server.port, request, answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 414 ", 13) == 0);

    len = (size_t)snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: x\r\nX-Big: ");
    memset(request + len, 'a', 17000);
    snprintf(request + len + 17000, 100, "\r\n\r\n");
    CHECK(test_exchange(server.port, request, answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 431 ", 13) == 0);

    len = (size_t)snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 2000; i++) // header flood: many small ones
        len += (size_t)snprintf(request + len, sizeof(request) - len, "a%d: b\r\n", i);
    snprintf(request + len, 100, "\r\n");
    CHECK(test_exchange(server.port, request, answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 431 ", 13) == 0);

    len = (size_t)snprintf(request, sizeof(request),
                           "POST /Echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "1;");
    memset(request + len, 'e', 20000);
    snprintf(request + len + 20000, 100, "\r\na\r\n0\r\n\r\n");
    CHECK(test_exchange(server.port, request, answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 431 ", 13) == 0);
    test_server_stop(&server);
}

TEST(nobody_writes_headers_into_an_answer)
{
    struct test_server server;
    start(&server);
    CHECK(test_exchange(server.port,
                        "GET /Header HTTP/1.1\r\nHost: x\r\nX-Ask: fine\r\n"
                        "Connection: close\r\n\r\n",
                        answer, sizeof(answer)));
    CHECK(strstr(answer, "x-good: fine\r\n") != NULL);
    CHECK(strstr(answer, "x-injected") == NULL);
    CHECK(count_of(answer, "content-length: ") == 1);
    test_server_stop(&server);
}

TEST(a_client_that_goes_cancels_its_call)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *request = "GET /Hold HTTP/1.1\r\nHost: x\r\n\r\n";
    CHECK(test_write(fd, request, strlen(request)));
    CHECK(test_wait_for(&server.messages, 1));
    close(fd);
    CHECK(test_wait_for(&server.cancelled, 1));
    test_server_stop(&server);
}

TEST(half_closed_clients_get_their_answers)
{
    struct test_server server;
    start(&server);
    int fd = test_connect(server.port);
    const char *request = "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    CHECK(test_write(fd, request, strlen(request)));
    shutdown(fd, SHUT_WR);
    CHECK(test_read_until(fd, NULL, answer, sizeof(answer)));
    CHECK(strstr(answer, "\r\n\r\nabc") != NULL);
    close(fd);
    test_server_stop(&server);
}

TEST(a_port_without_http)
{
    struct test_server server;
    test_server_start(&server, &(struct listener_options){.has_grpc = true}, 0);
    CHECK(test_exchange(server.port, "GET /Echo HTTP/1.1\r\nHost: x\r\n\r\n", answer,
                        sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 404 ", 13) == 0);
    CHECK(strstr(answer, "gRPC needs HTTP/2") != NULL);
    test_server_stop(&server);
}

TEST(the_budget_refuses_what_does_not_fit)
{
    struct test_server server;
    test_server_start(
        &server, &(struct listener_options){.has_http = true, .message_size_max = 1 << 20}, 100000);
    static char request[300000];
    int len = snprintf(request, sizeof(request),
                       "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 250000\r\n\r\n");
    memset(request + len, 'a', 250000);
    CHECK(test_exchange(server.port, request, answer, sizeof(answer)));
    CHECK(strncmp(answer, "HTTP/1.1 503 ", 13) == 0);
    CHECK(strstr(answer, "retry-after: ") != NULL);
    CHECK(atomic_load(&server.messages) == 0);
    test_server_stop(&server);
}

TEST_MAIN()
