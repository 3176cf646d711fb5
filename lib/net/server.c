#include "net/server.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/address.h"
#include "net/http2_memory.h"
#include "net/net_internal.h"
#include "net/server_internal.h"

// The life of a server: it ends loop by loop. A loop is quiet when nothing new may begin on it and
// its last connection and call have gone; from then on it never touches the server again. Whatever
// was posted to a loop is counted as well, so that no task finds the server gone.

// Handlers that were told of the end of their calls are waited for this long after the grace time.
#define END_TIME_MAX (5 * NS_PER_SECOND)

struct server {
    struct net *net;
    pthread_mutex_t mutex; // guards is_quiet and posted_count of the loops
    pthread_cond_t changed;
    struct listener *listeners; // the thread that owns the server
    bool was_drained;
    uint32_t loop_count;
    struct server_loop loops[];
};

static void server_loop_init(struct server_loop *server_loop, struct server *server,
                             struct loop *loop)
{
    uint8_t chance[4];
    rng_secure(chance, sizeof(chance));
    server_loop->server = server;
    server_loop->loop = loop;
    snprintf(server_loop->request_id_prefix, sizeof(server_loop->request_id_prefix),
             "%02x%02x%02x%02x", chance[0], chance[1], chance[2], chance[3]);
}

struct server *server_create(struct net *net)
{
    uint32_t loop_count = net_loop_count(net);
    struct server *server = mem_alloc(sizeof(*server) + loop_count * sizeof(struct server_loop));
    server->net = net;
    server->loop_count = loop_count;
    pthread_mutex_init(&server->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    for (uint32_t i = 0; i < loop_count; i++)
        server_loop_init(&server->loops[i], server, net_loop(net, i));
    net_hold(net);
    return server;
}

// --- Listeners

static void register_metrics(struct listener_metrics *metrics, const char *address)
{
    char labels[160];
    snprintf(labels, sizeof(labels), "listener=\"%s\"", address);
    *metrics = (struct listener_metrics){
        .connections = metric_gauge("vectron_net_connections", labels, "Open connections."),
        .accepted = metric_counter("vectron_net_accepted_total", labels, "Connections accepted."),
        .refused = metric_counter("vectron_net_refused_total", labels,
                                  "Connections closed at once because of a limit."),
        .received_bytes =
            metric_counter("vectron_net_received_bytes_total", labels, "Bytes received."),
        .sent_bytes = metric_counter("vectron_net_sent_bytes_total", labels, "Bytes sent."),
        .tls_failures =
            metric_counter("vectron_net_tls_failures_total", labels, "TLS handshakes that failed."),
        .resets =
            metric_counter("vectron_net_resets_total", labels, "Calls that their callers reset."),
    };
}

static enum status listen_inproc(struct listener *listener, const char *name, struct error *error,
                                 char out_address[static 128])
{
    if (net_inproc_add(listener->server->net, str_from_cstr(name), listener) != STATUS_OK)
        return error_set(error, STATUS_IO, "inproc:%s: the name is in use", name);
    snprintf(listener->inproc_name, sizeof(listener->inproc_name), "%s", name);
    snprintf(out_address, 128, "inproc:%.119s", name);
    return STATUS_OK;
}

enum status server_listen(struct server *server, const struct listener_options *options,
                          struct error *error, char out_address[static 128])
{
    ASSERT(!server->was_drained && options->handler != NULL);
    struct address address;
    TRY(address_parse(options->address, error, &address));
    struct listener *listener = mem_alloc(sizeof(*listener));
    listener->server = server;
    listener->options = *options;
    if (listener->options.connection_max == 0)
        listener->options.connection_max = 10000;
    if (listener->options.stream_max == 0)
        listener->options.stream_max = 1000;
    size_t message_max = options->message_size_max;
    size_t slack = (size_t)64 << 20;
    listener->memory_max =
        message_max < (SIZE_MAX - slack) / 2 ? message_max * 2 + slack : SIZE_MAX;
    char text[128] = {0};
    if (address.is_inproc)
        register_metrics(&listener->metrics, address.host);
    enum status status = address.is_inproc ? listen_inproc(listener, address.host, error, text)
                                           : acceptor_open(listener, &address, error, text);
    if (status != STATUS_OK) {
        mem_free(listener);
        return status;
    }
    listener->next = server->listeners;
    server->listeners = listener;
    memcpy(out_address, text, sizeof(text));
    return STATUS_OK;
}

void listener_register_metrics(struct listener *listener, const char *address)
{
    register_metrics(&listener->metrics, address);
}

bool listener_has_grpc(const struct listener *listener)
{
    return listener->options.has_grpc;
}

bool listener_pin(struct listener *listener)
{
    return server_loop_enter(server_loop_of(listener->server, loop_current()));
}

void listener_unpin(struct listener *listener)
{
    server_loop_leave(server_loop_of(listener->server, loop_current()));
}

// --- What a server keeps on a loop

struct server_loop *server_loop_of(struct server *server, const struct loop *loop)
{
    return &server->loops[loop_index(loop)];
}

struct net *server_net(struct server *server)
{
    return server->net;
}

struct server_loop *server_choose_loop(struct server *server)
{
    struct server_loop *best = &server->loops[0];
    for (uint32_t i = 1; i < server->loop_count; i++) {
        if (atomic_load_explicit(&server->loops[i].connection_count, memory_order_relaxed) <
            atomic_load_explicit(&best->connection_count, memory_order_relaxed))
            best = &server->loops[i];
    }
    return best;
}

static void set_quiet(struct server_loop *server_loop)
{
    struct server *server = server_loop->server;
    for (uint32_t i = 0; i < server_loop->arena_count; i++)
        arena_destroy(server_loop->arenas[i]);
    server_loop->arena_count = 0;
    http2_free_calls(server_loop);
    http2_memory_destroy(server_loop->http2_memory);
    server_loop->http2_memory = NULL;
    pthread_mutex_lock(&server->mutex);
    server_loop->is_quiet = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

bool server_loop_enter(struct server_loop *server_loop)
{
    if (server_loop->is_draining)
        return false;
    server_loop->use_count++;
    return true;
}

void server_loop_leave(struct server_loop *server_loop)
{
    ASSERT(server_loop->use_count > 0);
    server_loop->use_count--;
    if (server_loop->use_count == 0 && server_loop->is_draining)
        set_quiet(server_loop);
}

struct arena *server_loop_take_arena(struct server_loop *server_loop)
{
    if (server_loop->arena_count > 0)
        return server_loop->arenas[--server_loop->arena_count];
    return arena_create((size_t)1 << 30);
}

void server_loop_give_arena(struct server_loop *server_loop, struct arena *arena)
{
    size_t room = sizeof(server_loop->arenas) / sizeof(server_loop->arenas[0]);
    if (server_loop->arena_count == room) {
        arena_destroy(arena);
        return;
    }
    arena_reset(arena);
    server_loop->arenas[server_loop->arena_count++] = arena;
}

struct str server_loop_next_request_id(struct server_loop *server_loop, struct arena *arena)
{
    static const char digits[] = "0123456789abcdef";
    enum { PREFIX_SIZE = 8, COUNTER_SIZE = 10 };
    char *text = arena_alloc(arena, PREFIX_SIZE + 1 + COUNTER_SIZE);
    memcpy(text, server_loop->request_id_prefix, PREFIX_SIZE);
    text[PREFIX_SIZE] = '-';
    uint64_t number = server_loop->request_id_next++;
    for (int i = COUNTER_SIZE; i > 0; i--) {
        text[PREFIX_SIZE + i] = digits[number & 15];
        number >>= 4;
    }
    return (struct str){text, PREFIX_SIZE + 1 + COUNTER_SIZE};
}

// --- The end

static void end_task(struct server_loop *server_loop)
{
    struct server *server = server_loop->server;
    pthread_mutex_lock(&server->mutex);
    server_loop->posted_count--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->mutex);
}

static void run_drain(struct task *task)
{
    struct server_loop *server_loop =
        (struct server_loop *)(void *)((char *)task - offsetof(struct server_loop, drain_task));
    server_loop->is_draining = true;
    server_loop->use_count++; // so that the loop is not quiet half-way
    struct connection *next = NULL;
    for (struct connection *it = server_loop->connections; it != NULL; it = next) {
        next = it->next;
        connection_drain(it);
    }
    server_loop_leave(server_loop);
    end_task(server_loop);
}

static void run_close(struct task *task)
{
    struct server_loop *server_loop =
        (struct server_loop *)(void *)((char *)task - offsetof(struct server_loop, close_task));
    bool was_quiet = server_loop->is_draining && server_loop->use_count == 0;
    if (!was_quiet) {
        server_loop->is_draining = true;
        server_loop->use_count++;
        struct connection *next = NULL;
        for (struct connection *it = server_loop->connections; it != NULL; it = next) {
            next = it->next;
            connection_close(it);
        }
        struct call *next_call = NULL;
        for (struct call *it = server_loop->inproc_calls; it != NULL; it = next_call) {
            call_ref(it);
            call_fail(it, STATUS_UNAVAILABLE, STR("the server is stopping"));
            next_call = it->next;
            call_unref(it);
        }
        server_loop_leave(server_loop);
    }
    end_task(server_loop);
}

static void post_to_all(struct server *server, void (*run)(struct task *task), size_t task_offset)
{
    for (uint32_t i = 0; i < server->loop_count; i++) {
        struct server_loop *server_loop = &server->loops[i];
        struct task *task = (struct task *)(void *)((char *)server_loop + task_offset);
        pthread_mutex_lock(&server->mutex);
        server_loop->posted_count++;
        pthread_mutex_unlock(&server->mutex);
        task->run = run;
        loop_post(server_loop->loop, task);
    }
}

static bool is_over(const struct server *server)
{
    for (uint32_t i = 0; i < server->loop_count; i++) {
        if (!server->loops[i].is_quiet || server->loops[i].posted_count > 0)
            return false;
    }
    return true;
}

// False: the time is over.
static bool wait_until_over(struct server *server, uint64_t time_ns)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t until_ns = time_ns < UINT64_MAX - now_ns ? now_ns + time_ns : UINT64_MAX;
    const struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_SECOND),
                                   .tv_nsec = (long)(until_ns % NS_PER_SECOND)};
    int result = 0;
    pthread_mutex_lock(&server->mutex);
    while (!is_over(server) && result == 0) {
        result = time_ns == UINT64_MAX
                     ? pthread_cond_wait(&server->changed, &server->mutex)
                     : pthread_cond_timedwait(&server->changed, &server->mutex, &until);
    }
    bool over = is_over(server);
    pthread_mutex_unlock(&server->mutex);
    return over;
}

struct listening_end {
    struct task task;
    struct server *server;
    sem_t done;
};

static void run_stop_listening(struct task *task)
{
    struct listening_end *end = (struct listening_end *)task; // its first member
    for (struct listener *it = end->server->listeners; it != NULL; it = it->next) {
        if (it->acceptor != NULL)
            acceptor_close(it->acceptor);
        it->acceptor = NULL;
    }
    sem_post(&end->done);
}

// Afterwards no connection is handed to a loop that was not posted before.
static void stop_listening(struct server *server)
{
    for (struct listener *it = server->listeners; it != NULL; it = it->next) {
        if (it->inproc_name[0] != '\0')
            net_inproc_remove(server->net, str_from_cstr(it->inproc_name));
    }
    struct listening_end end = {.task.run = run_stop_listening, .server = server};
    sem_init(&end.done, 0, 0);
    loop_post(server->loops[0].loop, &end.task);
    while (sem_wait(&end.done) != 0)
        ASSERT(errno == EINTR);
    sem_destroy(&end.done);
}

void server_drain(struct server *server, uint64_t grace_ns)
{
    ASSERT(loop_current() == NULL);
    if (server->was_drained)
        return;
    server->was_drained = true;
    stop_listening(server);
    post_to_all(server, run_drain, offsetof(struct server_loop, drain_task));
    if (wait_until_over(server, grace_ns))
        return;
    post_to_all(server, run_close, offsetof(struct server_loop, close_task));
    (void)wait_until_over(server, END_TIME_MAX); // server_destroy waits for the rest
}

void server_destroy(struct server *server)
{
    if (server == NULL)
        return;
    server_drain(server, 0);
    (void)wait_until_over(server, UINT64_MAX); // it can only be true
    while (server->listeners != NULL) {
        struct listener *listener = server->listeners;
        server->listeners = listener->next;
        mem_free(listener);
    }
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->mutex);
    net_release(server->net);
    mem_free(server);
}
