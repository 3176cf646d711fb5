#include "net/server.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "net/server_testing.h"

static const uint8_t hello[] = {0, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'};
static const struct test_request echo = {
    .path = "/Echo", .body = hello, .body_size = sizeof(hello)};
static const struct listener_options both = {.has_grpc = true, .has_http = true};
static const struct listener_options public_both = {
    .has_grpc = true, .has_http = true, .is_public = true};
static const char http_echo[] = "GET /Echo HTTP/1.1\r\nHost: x\r\n\r\n";

static char answer[65536];

static bool serves_http(int port)
{
    int fd = test_connect(port);
    bool is_fine = fd >= 0 && test_write(fd, http_echo, sizeof(http_echo) - 1) &&
                   test_read_until(fd, "\r\n\r\n", answer, sizeof(answer));
    close(fd);
    return is_fine;
}

static enum status listen_at(struct server *server, const char *address, struct error *error,
                             char out[static 128])
{
    return server_listen(server,
                         &(struct listener_options){.address = str_from_cstr(address),
                                                    .handler = &test_handler,
                                                    .has_http = true,
                                                    .message_size_max = 1000},
                         error, out);
}

TEST(where_a_server_can_listen)
{
    struct net *net = NULL;
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 2}, NULL, &net));
    struct server *server = server_create(net);
    struct error error = {0};
    char address[128];
    char other[128] = "untouched";
    CHECK_OK(listen_at(server, "127.0.0.1:0", &error, address));
    CHECK(strncmp(address, "127.0.0.1:", 10) == 0 && strcmp(address, "127.0.0.1:0") != 0);

    // Nobody shares a port, neither with the same address nor with all of them.
    CHECK_STATUS(listen_at(server, address, &error, other), STATUS_IO);
    CHECK(strstr(error.text, "in use") != NULL && strstr(error.text, address) != NULL);
    CHECK_STATUS(listen_at(server, strchr(address, ':'), &error, other), STATUS_IO);
    CHECK_STATUS(listen_at(server, "nonsense", &error, other), STATUS_INVALID);
    CHECK_STATUS(listen_at(server, "no-such-host.invalid:0", &error, other), STATUS_IO);
    CHECK_CSTR(other, "untouched");

    CHECK_OK(listen_at(server, "localhost:0", &error, address));
    CHECK(strncmp(address, "127.0.0.1:", 10) == 0);
    CHECK_OK(listen_at(server, ":0", &error, address));
    CHECK(strncmp(address, "0.0.0.0:", 8) == 0);
    CHECK_OK(listen_at(server, "inproc:someone", &error, address));
    CHECK_CSTR(address, "inproc:someone");
    CHECK_STATUS(listen_at(server, "inproc:someone", &error, address), STATUS_IO);
    server_destroy(server);
    net_destroy(net);
}

TEST(a_server_that_never_listened)
{
    struct net *net = NULL;
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 1}, NULL, &net));
    server_destroy(server_create(net));
    server_destroy(NULL);
    net_destroy(net);
}

// --- Connections

static uint64_t cpu_ms(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

// Trap 3: without descriptors the listener neither spins nor dies.
TEST(no_descriptors_left)
{
    struct test_server server;
    test_server_start(&server, &both, 0);
    CHECK(serves_http(server.port));
    struct rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    int fds[200];
    int count = 0;
    fds[0] = dup(0);
    struct rlimit small = before;
    small.rlim_cur = (rlim_t)fds[0] + 20;
    close(fds[0]);
    setrlimit(RLIMIT_NOFILE, &small);
    // Our own descriptors go first, then the server has none for what the kernel took in.
    for (; count < 200; count++) {
        fds[count] = test_connect(server.port);
        if (fds[count] < 0)
            break;
    }
    CHECK(count > 2 && count < 200);
    uint64_t used = cpu_ms();
    usleep(400000);
    used = cpu_ms() - used;
    CHECK(used < 200);
    for (int i = 0; i < count; i++)
        close(fds[i]);
    CHECK(serves_http(server.port));
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(serves_http(server.port));
    test_server_stop(&server);
}

TEST(more_connections_than_allowed)
{
    struct test_server server;
    test_server_start(&server, &(struct listener_options){.has_http = true, .connection_max = 2},
                      0);
    int first = test_connect(server.port);
    int second = test_connect(server.port);
    CHECK(test_write(first, http_echo, sizeof(http_echo) - 1));
    CHECK(test_read_until(first, "\r\n\r\n", answer, sizeof(answer)));
    CHECK(test_write(second, http_echo, sizeof(http_echo) - 1));
    CHECK(test_read_until(second, "\r\n\r\n", answer, sizeof(answer)));
    int third = test_connect(server.port);
    CHECK(test_read_until(third, NULL, answer, sizeof(answer)));
    close(third);
    close(second);
    uint64_t end = test_now_ms() + TEST_TIME_MAX_MS;
    while (!serves_http(server.port) && test_now_ms() < end)
        usleep(1000);
    CHECK(serves_http(server.port) || test_now_ms() < end);
    close(first);
    test_server_stop(&server);
}

TEST(connections_are_spread_and_counted)
{
    struct test_server server;
    test_server_start(&server, &both, 0);
    int fds[8];
    for (int i = 0; i < 8; i++) {
        fds[i] = test_connect(server.port);
        CHECK(test_write(fds[i], http_echo, sizeof(http_echo) - 1));
        CHECK(test_read_until(fds[i], "\r\n\r\n", answer, sizeof(answer)));
    }
    struct buf text;
    buf_init(&text, SIZE_MAX);
    metrics_print(&text);
    buf_append_byte(&text, 0);
    char wanted[200];
    snprintf(wanted, sizeof(wanted), "vectron_net_connections{listener=\"%s\"} 8", server.address);
    CHECK(strstr((const char *)text.data, wanted) != NULL);
    snprintf(wanted, sizeof(wanted), "vectron_net_accepted_total{listener=\"%s\"} 8",
             server.address);
    CHECK(strstr((const char *)text.data, wanted) != NULL);
    buf_deinit(&text);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    test_server_stop(&server);
}

// --- Slow senders. The clock is moved on instead of waiting; a task wakes the loops.

static _Atomic uint64_t clock_offset_ns;

static uint64_t shifted_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec +
           atomic_load(&clock_offset_ns);
}

static uint64_t unix_ms(void)
{
    return (uint64_t)time(NULL) * 1000;
}

static const struct clock_source shifted = {shifted_ns, unix_ms};

struct wake {
    struct task task;
    sem_t done;
};

static void run_wake(struct task *task)
{
    sem_post(&((struct wake *)task)->done);
}

static void pass_time(struct test_server *server, uint64_t seconds)
{
    atomic_fetch_add(&clock_offset_ns, seconds * NS_PER_SECOND);
    struct wake wake = {.task.run = run_wake};
    sem_init(&wake.done, 0, 0);
    for (uint32_t i = 0; i < net_loop_count(server->net); i++) {
        loop_post(net_loop(server->net, i), &wake.task);
        sem_wait(&wake.done);
    }
    sem_destroy(&wake.done);
}

TEST(slow_loris_over_http1)
{
    clock_set_source(&shifted);
    struct test_server server;
    test_server_start(&server, &public_both, 0);
    const char *const pieces[] = {"", "GET /Ec", "POST /Echo HTTP/1.1\r\nHost: x\r\n",
                                  "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"};
    const char *const answers[] = {"", "HTTP/1.1 408 ", "HTTP/1.1 408 ", "HTTP/1.1 408 "};
    for (int i = 0; i < 4; i++) {
        int fd = test_connect(server.port);
        unsigned started = atomic_load(&server.started);
        CHECK(test_write(fd, pieces[i], strlen(pieces[i])));
        if (i == 3)
            CHECK(test_wait_for(&server.started, started + 1));
        else
            usleep(50000);
        pass_time(&server, i == 3 ? 21 : 11);
        CHECK(test_read_until(fd, NULL, answer, sizeof(answer)));
        CHECK(strncmp(answer, answers[i], strlen(answers[i])) == 0);
        close(fd);
    }
    // Between two requests there is more time, but not for ever.
    int fd = test_connect(server.port);
    for (int i = 0; i < 2; i++) {
        CHECK(test_write(fd, http_echo, sizeof(http_echo) - 1));
        CHECK(test_read_until(fd, "\r\n\r\n", answer, sizeof(answer)));
        pass_time(&server, 60);
    }
    pass_time(&server, 16);
    CHECK(test_read_until(fd, NULL, answer, sizeof(answer)) && answer[0] == '\0');
    close(fd);
    test_server_stop(&server);
    clock_set_source(NULL);
}

TEST(slow_loris_over_http2)
{
    clock_set_source(&shifted);
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &public_both, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *stream = test_client_call(
        &client,
        &(struct test_request){.path = "/Echo", .body = hello, .body_size = 7, .stays_open = true});
    const struct test_stream *body =
        test_client_call(&client, &(struct test_request){.path = "/Echo",
                                                         .content_type = "text/plain",
                                                         .body = hello,
                                                         .body_size = 7,
                                                         .stays_open = true});
    const struct test_stream *bidi = test_client_call(
        &client,
        &(struct test_request){
            .path = "/Bidi", .body = hello, .body_size = sizeof(hello), .stays_open = true});
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.messages, 1));
    pass_time(&server, 21);
    CHECK(test_client_wait(&client, &stream->is_closed) && stream->grpc_status == 4);
    CHECK(test_client_wait(&client, &body->is_closed) && body->http_status == 408);
    CHECK(!bidi->is_closed); // it has said something and may take its time
    test_client_close(&client);
    test_server_stop(&server);
    clock_set_source(NULL);
}

TEST(idle_http2_connections_of_a_public_port_end)
{
    clock_set_source(&shifted);
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &public_both, 0);
    test_client_open(&client, server.port, 65535);
    CHECK(test_client_finish(&client, &echo)->grpc_status == 0);
    pass_time(&server, 200);
    CHECK(test_client_finish(&client, &echo)->grpc_status == 0);
    pass_time(&server, 200);
    CHECK(test_client_finish(&client, &echo)->grpc_status == 0);
    pass_time(&server, 301);
    uint64_t end = test_now_ms() + TEST_TIME_MAX_MS;
    while (!client.is_closed && test_now_ms() < end)
        test_client_turn(&client, 100);
    CHECK(client.is_closed && client.goaway_count > 0 && client.goaway_code == 0);
    test_client_close(&client);
    test_server_stop(&server);
    clock_set_source(NULL);
}

// --- Drain

struct drain_thread {
    pthread_t thread;
    struct server *server;
    uint64_t grace_ns;
    atomic_bool is_done;
};

static void *run_drain(void *argument)
{
    struct drain_thread *it = argument;
    server_drain(it->server, it->grace_ns);
    atomic_store(&it->is_done, true);
    return NULL;
}

static void start_drain(struct drain_thread *it, struct test_server *server, uint64_t seconds)
{
    *it = (struct drain_thread){.server = server->server, .grace_ns = seconds * NS_PER_SECOND};
    pthread_create(&it->thread, NULL, run_drain, it);
}

// Two phases: a notice that calls under way survive, then the last one that is served, then the
// end.
TEST(drain_lets_calls_finish)
{
    struct test_server server;
    static struct test_client client;
    struct drain_thread drain;
    test_server_start(&server, &both, 0);
    test_client_open(&client, server.port, 65535);
    const struct test_stream *bidi = test_client_call(
        &client,
        &(struct test_request){
            .path = "/Bidi", .body = hello, .body_size = sizeof(hello), .stays_open = true});
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.messages, 1));
    int idle = test_connect(server.port);
    CHECK(test_write(idle, http_echo, sizeof(http_echo) - 1));
    CHECK(test_read_until(idle, "\r\n\r\n", answer, sizeof(answer)));

    start_drain(&drain, &server, 20);
    CHECK(test_read_until(idle, NULL, answer, sizeof(answer))); // idle: closed at once
    close(idle);
    uint64_t end = test_now_ms() + TEST_TIME_MAX_MS;
    while (client.goaway_count < 2 && !client.is_closed && test_now_ms() < end)
        test_client_turn(&client, 100);
    CHECK(client.goaway_count == 2 && client.goaway_last_id == bidi->id);
    CHECK(client.goaway_code == NGHTTP2_NO_ERROR);
    CHECK(test_connect(server.port) < 0); // nobody listens any more
    CHECK(!bidi->is_closed && !atomic_load(&drain.is_done));

    struct test_stream *open = test_find_stream(&client, bidi->id);
    REQUIRE(open != NULL);
    open->stays_open = false;
    nghttp2_session_resume_data(client.session, open->id);
    CHECK(test_client_wait(&client, &open->is_closed) && open->grpc_status == 0);
    CHECK(open->received == sizeof(hello));
    pthread_join(drain.thread, NULL);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST(drain_says_close_to_http1)
{
    struct test_server server;
    struct drain_thread drain;
    test_server_start(&server, &both, 0);
    int fd = test_connect(server.port);
    const char *head = "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
    CHECK(test_write(fd, head, strlen(head)));
    CHECK(test_wait_for(&server.started, 1));
    start_drain(&drain, &server, 20);
    while (test_connect(server.port) >= 0)
        usleep(1000);
    usleep(20000);
    CHECK(test_write(fd, "abc", 3));
    CHECK(test_read_until(fd, NULL, answer, sizeof(answer)));
    CHECK(strstr(answer, "connection: close") != NULL && strstr(answer, "\r\n\r\nabc") != NULL);
    close(fd);
    pthread_join(drain.thread, NULL);
    test_server_stop(&server);
}

TEST(drain_ends_after_the_grace_time)
{
    struct test_server server;
    static struct test_client client;
    test_server_start(&server, &both, 0);
    test_client_open(&client, server.port, 65535);
    test_client_call(&client, &(struct test_request){
                                  .path = "/Hold", .body = hello, .body_size = sizeof(hello)});
    (void)test_client_send(&client);
    CHECK(test_wait_for(&server.messages, 1));
    uint64_t start = test_now_ms();
    server_drain(server.server, 200 * NS_PER_MS);
    CHECK(test_now_ms() - start >= 200 && test_now_ms() - start < 5000);
    CHECK(atomic_load(&server.cancelled) == 1);
    test_client_close(&client);
    test_server_stop(&server);
}

TEST_MAIN()
