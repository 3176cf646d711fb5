#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/net_internal.h"
#include "net/server_internal.h"

// A connection of a server: which protocol it speaks shows with ALPN or with its first bytes.

#define FIRST_BYTES_TIME_MAX (10 * NS_PER_SECOND)

static const char http2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum { PREFACE_SIZE = sizeof(http2_preface) - 1 };
_Static_assert(PREFACE_SIZE == sizeof(((struct connection *)0)->head), "it holds the preface");

static void on_silence(struct timer *timer)
{
    connection_close(
        (struct connection *)(void *)((char *)timer - offsetof(struct connection, timer)));
}

struct connection *connection_create(struct server_loop *server_loop, struct listener *listener)
{
    struct connection *connection = mem_alloc(sizeof(*connection));
    connection->server_loop = server_loop;
    connection->listener = listener;
    timer_init(&connection->timer, server_loop->loop, on_silence);
    connection->next = server_loop->connections;
    if (connection->next != NULL)
        connection->next->previous = connection;
    server_loop->connections = connection;
    metric_move(listener->metrics.connections, 1);
    return connection;
}

void connection_start(struct connection *connection, const struct protocol *protocol)
{
    timer_stop(&connection->timer);
    connection->protocol = protocol;
    connection->session = protocol->create(connection);
}

void connection_destroy(struct connection *connection)
{
    struct server_loop *server_loop = connection->server_loop;
    struct listener *listener = connection->listener;
    timer_stop(&connection->timer);
    connection->was_closed = true;
    if (connection->session != NULL)
        connection->protocol->destroy(connection->session);
    connection_memory_give(connection, connection->memory_used);
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        server_loop->connections = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    mem_free(connection);
    metric_move(listener->metrics.connections, -1);
    atomic_fetch_sub(&listener->connection_count, 1);
    atomic_fetch_sub(&server_loop->connection_count, 1);
    server_loop_leave(server_loop);
}

// --- From the transport

static void on_opened(struct transport *transport, void *context)
{
    struct connection *connection = context;
    struct str alpn = transport_alpn(transport);
    connection->was_opened = true;
    timer_start(&connection->timer, FIRST_BYTES_TIME_MAX);
    if (str_equal(alpn, STR("h2")))
        connection_start(connection, &http2_protocol);
    else if (str_equal(alpn, STR("http/1.1")))
        connection_start(connection, &http1_protocol);
}

// Compare what came with the preface of HTTP/2; as long as it may become one it is kept.
static void sniff(struct connection *connection, struct span bytes)
{
    size_t before = connection->head_size;
    size_t count = bytes.len < PREFACE_SIZE - before ? bytes.len : PREFACE_SIZE - before;
    bool matches = memcmp(bytes.data, http2_preface + before, count) == 0;
    if (matches && before + count < PREFACE_SIZE) {
        memcpy(connection->head + before, bytes.data, count);
        connection->head_size = (uint8_t)(before + count);
        return;
    }
    connection_start(connection, matches ? &http2_protocol : &http1_protocol);
    if (before > 0)
        connection->protocol->received(connection->session,
                                       (struct span){connection->head, before});
    if (!connection->was_closed)
        connection->protocol->received(connection->session, bytes);
}

static void on_received(struct transport *transport, struct span bytes, void *context)
{
    (void)transport;
    struct connection *connection = context;
    metric_add(connection->listener->metrics.received_bytes, bytes.len);
    if (connection->was_closed)
        return;
    if (connection->protocol == NULL)
        sniff(connection, bytes);
    else
        connection->protocol->received(connection->session, bytes);
}

static void on_fill(struct transport *transport, struct buf *out, void *context)
{
    (void)transport;
    struct connection *connection = context;
    if (connection->session == NULL)
        return;
    connection->protocol->fill(connection->session, out);
    metric_add(connection->listener->metrics.sent_bytes, out->len);
}

static void on_closed(struct transport *transport, enum status status, struct str text,
                      void *context)
{
    (void)transport;
    (void)text;
    struct connection *connection = context;
    if (!connection->was_opened && status != STATUS_OK && connection->listener->options.tls)
        metric_add(connection->listener->metrics.tls_failures, 1);
    connection->transport = NULL;
    connection_destroy(connection);
}

static const struct transport_handler handler = {on_opened, on_received, on_fill, on_closed};

void connection_accept(struct server_loop *server_loop, struct listener *listener, int fd)
{
    if (!server_loop_enter(server_loop)) {
        close(fd);
        atomic_fetch_sub(&listener->connection_count, 1);
        atomic_fetch_sub(&server_loop->connection_count, 1);
        return;
    }
    struct connection *connection = connection_create(server_loop, listener);
    connection->transport = transport_accept(server_net(server_loop->server), server_loop->loop, fd,
                                             listener->options.tls, &handler, connection);
}

// --- For the protocols

void connection_drain(struct connection *connection)
{
    if (connection->session != NULL)
        connection->protocol->drain(connection->session);
    else
        connection_close(connection);
}

void connection_wants_flush(struct connection *connection)
{
    if (connection->transport != NULL)
        transport_wants_flush(connection->transport);
}

void connection_pause(struct connection *connection)
{
    if (connection->transport != NULL)
        transport_pause(connection->transport);
}

void connection_resume(struct connection *connection)
{
    if (connection->transport != NULL)
        transport_resume(connection->transport);
}

void connection_finish(struct connection *connection)
{
    connection->was_closed = true;
    if (connection->transport != NULL)
        transport_finish(connection->transport);
}

void connection_close(struct connection *connection)
{
    connection->was_closed = true;
    if (connection->transport != NULL)
        transport_close(connection->transport);
}

struct str connection_peer(const struct connection *connection)
{
    return connection->transport != NULL ? transport_peer(connection->transport) : STR("test");
}

// The first bytes of each connection are not counted for the process: small calls come and go
// without touching a counter that all loops share.
static size_t over_allowance(size_t used)
{
    enum { ALLOWANCE = 16384 };
    return used > ALLOWANCE ? used - ALLOWANCE : 0;
}

bool connection_memory_take(struct connection *connection, size_t size)
{
    size_t max = connection->listener->memory_max;
    size_t used = connection->memory_used;
    if (used > max || size > max - used)
        return false;
    size_t more = over_allowance(used + size) - over_allowance(used);
    if (more > 0 && !net_memory_take(server_net(connection->server_loop->server), more))
        return false;
    connection->memory_used += size;
    return true;
}

void connection_memory_charge(struct connection *connection, size_t size)
{
    size_t used = connection->memory_used;
    size_t more = over_allowance(used + size) - over_allowance(used);
    if (more > 0)
        net_memory_charge(server_net(connection->server_loop->server), more);
    connection->memory_used += size;
}

void connection_memory_give(struct connection *connection, size_t size)
{
    size_t used = connection->memory_used;
    ASSERT(used >= size);
    size_t less = over_allowance(used) - over_allowance(used - size);
    if (less > 0)
        net_memory_give(server_net(connection->server_loop->server), less);
    connection->memory_used -= size;
}

bool connection_memory_is_over(const struct connection *connection)
{
    return connection->memory_used > connection->listener->memory_max ||
           net_memory_is_over(server_net(connection->server_loop->server));
}
