#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/address.h"
#include "net/loop_internal.h"
#include "net/net_internal.h"
#include "net/server_internal.h"

// One descriptor accepts for all loops: with SO_REUSEPORT the kernel may put all busy connections
// of long-lived clients onto one loop, and two processes could share a port without noticing.
//
// When the process has no descriptors left, accept fails and the socket stays readable: watching on
// would spin. The descriptor is left alone for a while instead; whoever wants to connect waits in
// the kernel's queue.

enum { ACCEPT_COUNT_MAX = 64, BACKLOG = 1024 };

#define REST_TIME (100 * NS_PER_MS)

struct acceptor {
    struct listener *listener;
    struct net *net;
    struct loop *loop;
    int fd;
    uv_poll_t poll;
    struct timer rest_timer;
    struct task start_task;
};

struct handover {
    struct task task;
    struct server_loop *server_loop;
    struct listener *listener;
    int fd;
};

static void run_handover(struct task *task)
{
    struct handover *handover = (struct handover *)task; // its first member
    connection_accept(handover->server_loop, handover->listener, handover->fd);
    mem_free(handover);
}

static void hand_over(struct listener *listener, int fd)
{
    struct server_loop *server_loop = server_choose_loop(listener->server);
    // Counted here, so that the next choice sees it.
    atomic_fetch_add(&server_loop->connection_count, 1);
    if (server_loop->loop == loop_current()) {
        connection_accept(server_loop, listener, fd);
        return;
    }
    struct handover *handover = mem_alloc(sizeof(*handover));
    *handover = (struct handover){{NULL, run_handover}, server_loop, listener, fd};
    loop_post(server_loop->loop, &handover->task);
}

static void take_in(struct acceptor *acceptor, int fd)
{
    struct listener *listener = acceptor->listener;
    uint32_t count = atomic_fetch_add(&listener->connection_count, 1);
    if (count >= listener->options.connection_max) {
        atomic_fetch_sub(&listener->connection_count, 1);
        metric_add(listener->metrics.refused, 1);
        close(fd);
        return;
    }
    metric_add(listener->metrics.accepted, 1);
    hand_over(listener, fd);
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct acceptor *acceptor = poll->data;
    loop_enter(acceptor->loop);
    for (int i = 0; i < ACCEPT_COUNT_MAX; i++) {
        int fd = accept4(acceptor->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_in(acceptor, fd);
            continue;
        }
        // These concern one connection that came and went.
        if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
            continue;
        if (errno != EAGAIN) {
            uv_poll_stop(&acceptor->poll);
            timer_start(&acceptor->rest_timer, REST_TIME);
        }
        return;
    }
}

static void watch(struct acceptor *acceptor)
{
    uv_poll_start(&acceptor->poll, UV_READABLE, on_acceptable);
}

static void on_rested(struct timer *timer)
{
    watch((struct acceptor *)(void *)((char *)timer - offsetof(struct acceptor, rest_timer)));
}

static void run_start(struct task *task)
{
    struct acceptor *acceptor =
        (struct acceptor *)(void *)((char *)task - offsetof(struct acceptor, start_task));
    ASSERT(uv_poll_init_socket(loop_uv(acceptor->loop), &acceptor->poll, acceptor->fd) == 0);
    acceptor->poll.data = acceptor;
    watch(acceptor);
}

// --- Opening

static void format_address(int fd, char out_address[static 128], bool is_for_all)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    char host[64] = "";
    char port[16] = "";
    (void)getsockname(fd, (struct sockaddr *)&address, &size);
    (void)getnameinfo((const struct sockaddr *)&address, size, host, sizeof(host), port,
                      sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    // [::] takes both kinds of addresses, but not every program can connect to it by that name.
    if (is_for_all)
        snprintf(out_address, 128, "0.0.0.0:%s", port);
    else if (address.ss_family == AF_INET6)
        snprintf(out_address, 128, "[%s]:%s", host, port);
    else
        snprintf(out_address, 128, "%s:%s", host, port);
}

// The descriptor, or -1 with errno.
static int bind_to(const struct addrinfo *found)
{
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    const int one = 1;
    const int zero = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (found->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    if (bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int code = errno;
    close(fd);
    errno = code;
    return -1;
}

// A name that has addresses of both kinds is bound to the IPv4 one, as most programs do; without a
// host it is IPv6, which takes IPv4 too, or IPv4 where the machine has nothing else.
static int bind_best(const struct addrinfo *found, bool is_for_all)
{
    const int families[2] = {is_for_all ? AF_INET6 : AF_INET, is_for_all ? AF_INET : AF_INET6};
    int fd = -1;
    errno = EADDRNOTAVAIL;
    for (int i = 0; i < 2 && fd < 0; i++) {
        for (const struct addrinfo *it = found; it != NULL && fd < 0; it = it->ai_next) {
            if (it->ai_family == families[i])
                fd = bind_to(it);
        }
        if (fd < 0 && errno == EADDRINUSE)
            return -1; // somebody is there: another address would hide that
    }
    return fd;
}

enum status acceptor_open(struct listener *listener, const struct address *address,
                          struct error *error, char out_address[static 128])
{
    bool is_for_all = address->host[0] == '\0';
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int result = getaddrinfo(is_for_all ? NULL : address->host, address->port, &hints, &found);
    if (result != 0)
        return error_set(error, STATUS_IO, "listen on %s:%s: %s", address->host, address->port,
                         gai_strerror(result));
    int fd = bind_best(found, is_for_all);
    int code = errno;
    freeaddrinfo(found);
    if (fd < 0) {
        char reason[64];
        return error_set(error, STATUS_IO, "listen on %s:%s: %s", address->host, address->port,
                         strerror_r(code, reason, sizeof(reason)));
    }
    format_address(fd, out_address, is_for_all);
    listener_register_metrics(listener, out_address);
    struct net *net = server_net(listener->server);
    struct acceptor *acceptor = mem_alloc(sizeof(*acceptor));
    *acceptor =
        (struct acceptor){.listener = listener, .net = net, .loop = net_loop(net, 0), .fd = fd};
    timer_init(&acceptor->rest_timer, acceptor->loop, on_rested);
    acceptor->start_task.run = run_start;
    listener->acceptor = acceptor;
    net_hold(net);
    loop_post(acceptor->loop, &acceptor->start_task);
    return STATUS_OK;
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct acceptor *acceptor = handle->data;
    net_release(acceptor->net);
    mem_free(acceptor);
}

void acceptor_close(struct acceptor *acceptor)
{
    timer_stop(&acceptor->rest_timer);
    uv_close((uv_handle_t *)&acceptor->poll, on_poll_closed);
    close(acceptor->fd);
}
