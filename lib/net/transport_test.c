#include "net/transport.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "testing/test.h"

// One end is a transport on a loop, the other a plain blocking socket of the test's thread.
struct end {
    struct task task;
    struct net *net;
    int fd;
    struct transport *transport;
    struct buf in;
    struct buf out;       // what fill hands out
    size_t fill_size_max; // per call
    bool echoes;
    bool pauses;
    atomic_size_t received_size;
    sem_t opened;
    sem_t closed;
    enum status close_status;
    char close_text[128];
};

static void on_opened(struct transport *transport, void *context)
{
    (void)transport;
    struct end *end = context;
    sem_post(&end->opened);
}

static void on_received(struct transport *transport, struct span bytes, void *context)
{
    struct end *end = context;
    buf_append(&end->in, bytes.data, bytes.len);
    if (end->echoes) {
        buf_append(&end->out, bytes.data, bytes.len);
        transport_wants_flush(transport);
    }
    if (end->pauses)
        transport_pause(transport);
    atomic_fetch_add(&end->received_size, bytes.len);
}

static void on_fill(struct transport *transport, struct buf *out, void *context)
{
    (void)transport;
    struct end *end = context;
    size_t size = end->out.len < 200000 ? end->out.len : 200000;
    buf_append(out, end->out.data, size);
    buf_consume(&end->out, size);
}

static void on_closed(struct transport *transport, enum status status, struct str text,
                      void *context)
{
    (void)transport;
    struct end *end = context;
    end->close_status = status;
    snprintf(end->close_text, sizeof(end->close_text), "%.*s", STR_ARG(text));
    end->transport = NULL;
    sem_post(&end->closed);
}

static const struct transport_handler handler = {on_opened, on_received, on_fill, on_closed};

static void end_init(struct end *end, struct net *net)
{
    *end = (struct end){.net = net};
    buf_init(&end->in, SIZE_MAX);
    buf_init(&end->out, SIZE_MAX);
    sem_init(&end->opened, 0, 0);
    sem_init(&end->closed, 0, 0);
}

static void end_deinit(struct end *end)
{
    buf_deinit(&end->in);
    buf_deinit(&end->out);
    sem_destroy(&end->opened);
    sem_destroy(&end->closed);
}

static void run_accept(struct task *task)
{
    struct end *end = (struct end *)task;
    end->transport = transport_accept(end->net, loop_current(), end->fd, NULL, &handler, end);
}

static void run_finish(struct task *task)
{
    struct end *end = (struct end *)task;
    if (end->transport != NULL)
        transport_finish(end->transport);
}

static void run_close(struct task *task)
{
    struct end *end = (struct end *)task;
    if (end->transport != NULL)
        transport_close(end->transport);
}

static void run_resume(struct task *task)
{
    struct end *end = (struct end *)task;
    end->pauses = false;
    transport_resume(end->transport);
}

static void run(struct end *end, void (*step)(struct task *task))
{
    end->task.run = step;
    loop_post(net_loop(end->net, 0), &end->task);
}

static struct net *make_net(void)
{
    struct net *net = NULL;
    CHECK(net_create(&(struct net_options){.loop_count = 1}, NULL, &net) == STATUS_OK);
    return net;
}

// The test's own end of a new connection to a transport.
static int open_pair(struct end *end)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    end->fd = fds[0];
    run(end, run_accept);
    sem_wait(&end->opened);
    return fds[1];
}

TEST(bytes_go_both_ways_until_the_peer_ends)
{
    struct net *net = make_net();
    struct end end;
    end_init(&end, net);
    end.echoes = true;
    int fd = open_pair(&end);
    CHECK(write(fd, "hello", 5) == 5);
    char text[8] = {0};
    CHECK(recv(fd, text, 5, MSG_WAITALL) == 5 && memcmp(text, "hello", 5) == 0);
    shutdown(fd, SHUT_WR);
    CHECK(read(fd, text, sizeof(text)) == 0);
    sem_wait(&end.closed);
    CHECK(end.close_status == STATUS_OK);
    close(fd);
    net_destroy(net);
    end_deinit(&end);
}

TEST(finish_sends_everything_first)
{
    struct net *net = make_net();
    struct end end;
    end_init(&end, net);
    enum { SIZE = 5000000 };
    uint8_t *bytes = mem_alloc(SIZE);
    memset(bytes, 7, SIZE);
    buf_append(&end.out, bytes, SIZE);
    int fd = open_pair(&end);
    run(&end, run_finish);
    size_t total = 0;
    for (;;) {
        ssize_t size = read(fd, bytes, SIZE);
        if (size <= 0)
            break;
        total += (size_t)size;
    }
    CHECK(total == SIZE);
    close(fd);
    sem_wait(&end.closed);
    CHECK(end.close_status == STATUS_OK);
    net_destroy(net);
    end_deinit(&end);
    mem_free(bytes);
}

TEST(a_paused_transport_reads_nothing_and_goes_on_later)
{
    struct net *net = make_net();
    struct end end;
    end_init(&end, net);
    end.pauses = true;
    int fd = open_pair(&end);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    static uint8_t bytes[1 << 20];
    size_t sent = 0;
    while (atomic_load(&end.received_size) == 0) {
        ssize_t size = write(fd, bytes, sizeof(bytes));
        sent += size > 0 ? (size_t)size : 0;
    }
    for (;;) {
        ssize_t size = write(fd, bytes, sizeof(bytes));
        if (size <= 0)
            break;
        sent += (size_t)size;
    }
    CHECK(atomic_load(&end.received_size) <= 65536);
    run(&end, run_resume);
    while (atomic_load(&end.received_size) < sent)
        usleep(1000);
    run(&end, run_close);
    sem_wait(&end.closed);
    close(fd);
    net_destroy(net);
    end_deinit(&end);
}

TEST(a_peer_that_resets_is_an_error)
{
    struct net *net = make_net();
    struct end end;
    end_init(&end, net);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(client, (struct sockaddr *)&address, size) == 0);
    end.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    run(&end, run_accept);
    sem_wait(&end.opened);
    struct linger linger = {.l_onoff = 1};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(client);
    sem_wait(&end.closed);
    CHECK(end.close_status == STATUS_UNAVAILABLE);
    close(listener);
    net_destroy(net);
    end_deinit(&end);
}

struct connect_case {
    struct end end;
    struct str host;
    char port[8];
};

static void run_connect(struct task *task)
{
    struct connect_case *it = (struct connect_case *)task;
    const struct transport_target target = {.host = it->host, .port = str_from_cstr(it->port)};
    it->end.transport = transport_connect(it->end.net, loop_current(), &target, &handler, &it->end);
}

static void run_connect_and_close(struct task *task)
{
    run_connect(task);
    run_close(task);
}

// A name has several addresses; the one where somebody listens is found.
TEST(connect_by_name_and_to_nobody)
{
    struct net *net = make_net();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    struct connect_case it = {.host = STR("localhost")};
    end_init(&it.end, net);
    snprintf(it.port, sizeof(it.port), "%u", ntohs(address.sin_port));
    run(&it.end, run_connect);
    sem_wait(&it.end.opened);
    int peer = accept(listener, NULL, NULL);
    CHECK(write(peer, "x", 1) == 1);
    while (atomic_load(&it.end.received_size) == 0)
        usleep(1000);
    close(peer);
    close(listener);
    sem_wait(&it.end.closed);
    CHECK(it.end.close_status == STATUS_OK);

    run(&it.end, run_connect); // nobody listens there any more
    sem_wait(&it.end.closed);
    CHECK(it.end.close_status == STATUS_UNAVAILABLE);
    CHECK(strstr(it.end.close_text, "connect") != NULL);

    it.host = STR("no-such-host.invalid");
    run(&it.end, run_connect);
    sem_wait(&it.end.closed);
    CHECK(it.end.close_status == STATUS_UNAVAILABLE);
    CHECK(strstr(it.end.close_text, "no-such-host.invalid") != NULL);

    run(&it.end, run_connect_and_close); // while the name is looked up
    sem_wait(&it.end.closed);
    CHECK(it.end.close_status == STATUS_OK);
    net_destroy(net);
    end_deinit(&it.end);
}

TEST_MAIN()
