#include "net/transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/loop_internal.h"
#include "net/net_internal.h"
#include "net/tls_internal.h"

// A socket is watched with uv_poll and read and written directly: one read buffer and one output
// buffer per loop serve all its connections, so that an idle connection holds no buffer at all.
//
// Nothing is closed where the failure is seen: the state becomes CLOSING and the end of the turn
// does the rest, so that no callback finds its transport gone.

enum transport_state {
    STATE_RESOLVING,
    STATE_CONNECTING,
    STATE_HANDSHAKE,
    STATE_OPEN,
    STATE_LINGERING, // all is sent; what still comes is thrown away until the peer closes
    STATE_CLOSING,   // closed is called at the end of the turn
    STATE_CLOSED,
};

enum {
    ADDRESS_COUNT_MAX = 8,
    READ_ROUNDS_MAX = 16, // then others have their turn
    FILL_ROUNDS_MAX = 4,
};

#define OPEN_TIME_MAX   (10 * NS_PER_SECOND) // connecting and handshake
#define LINGER_TIME_MAX (2 * NS_PER_SECOND)  // after the last byte was sent
#define STALL_TIME_MAX  (60 * NS_PER_SECOND) // the peer takes no byte of what is queued

// Outlives its transport when that is closed while the name is looked up.
struct lookup {
    struct job job;
    struct transport *transport; // NULL: gone
    bool is_pending;
    char host[256];
    char port[8];
    int result;
    uint32_t count;
    uint32_t next;
    socklen_t sizes[ADDRESS_COUNT_MAX];
    struct sockaddr_storage addresses[ADDRESS_COUNT_MAX];
};

struct transport {
    struct flushable flushable; // first
    struct net *net;
    struct loop *loop;
    const struct transport_handler *handler;
    void *context;
    uv_poll_t poll;
    int fd; // -1: none yet
    int poll_events;
    enum transport_state state;
    bool has_poll;
    bool is_paused;
    bool is_blocked;   // the socket takes no more for now
    bool is_finishing; // transport_finish: close once everything is sent
    bool has_peer_finished;
    bool is_read_posted;
    SSL *session;
    struct buf out; // what the socket did not take
    size_t out_offset;
    struct timer timer;
    struct task read_task;
    struct lookup *lookup;
    uint64_t last_received_ns;
    enum status close_status;
    char close_text[128];
    char peer[INET6_ADDRSTRLEN];
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void close_with(struct transport *transport, enum status status, const char *text)
{
    if (transport->state >= STATE_CLOSING)
        return;
    transport->state = STATE_CLOSING;
    transport->close_status = status;
    snprintf(transport->close_text, sizeof(transport->close_text), "%s", text);
    loop_flush_later(transport->loop, &transport->flushable);
}

static void close_with_errno(struct transport *transport, const char *what, int code)
{
    char text[96];
    char reason[64];
    snprintf(text, sizeof(text), "%s: %s", what, strerror_r(code, reason, sizeof(reason)));
    close_with(transport, STATUS_UNAVAILABLE, text);
}

static void close_with_tls_error(struct transport *transport, const char *what)
{
    char reason[96];
    char text[128];
    tls_error_text(transport->session, reason, sizeof(reason));
    snprintf(text, sizeof(text), "%s: %s", what, reason);
    close_with(transport, STATUS_UNAVAILABLE, text);
}

// --- The end

static void free_when_unused(struct transport *transport)
{
    if (transport->has_poll || transport->is_read_posted || transport->state != STATE_CLOSED)
        return;
    net_release(transport->net);
    mem_free(transport);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct transport *transport = handle->data;
    transport->has_poll = false;
    free_when_unused(transport);
}

static void drop_socket(struct transport *transport)
{
    SSL_free(transport->session);
    transport->session = NULL;
    if (transport->fd >= 0)
        close(transport->fd);
    transport->fd = -1;
    buf_deinit(&transport->out);
    transport->out_offset = 0;
}

static void end(struct transport *transport)
{
    transport->state = STATE_CLOSED;
    timer_stop(&transport->timer);
    if (transport->lookup != NULL && transport->lookup->is_pending)
        transport->lookup->transport = NULL;
    else
        mem_free(transport->lookup);
    transport->lookup = NULL;
    if (transport->session != NULL && transport->close_status == STATUS_OK) {
        ERR_clear_error();
        SSL_shutdown(transport->session);
        ERR_clear_error();
    }
    if (transport->has_poll && !uv_is_closing((uv_handle_t *)&transport->poll))
        uv_close((uv_handle_t *)&transport->poll, on_poll_closed);
    drop_socket(transport);
    transport->handler->closed(transport, transport->close_status,
                               str_from_cstr(transport->close_text), transport->context);
    free_when_unused(transport);
}

// --- What the socket is watched for

static void watch(struct transport *transport)
{
    int events = 0;
    bool is_open = transport->state == STATE_OPEN || transport->state == STATE_LINGERING;
    if (!is_open || (!transport->is_paused && !transport->has_peer_finished))
        events |= UV_READABLE;
    else if (!transport->has_peer_finished)
        events |= UV_DISCONNECT; // so that a pause does not hide that the peer has gone
    if (transport->is_blocked)
        events |= UV_WRITABLE;
    if (!transport->has_poll || events == transport->poll_events)
        return;
    transport->poll_events = events;
    if (events == 0)
        uv_poll_stop(&transport->poll);
    else
        uv_poll_start(&transport->poll, events, on_poll);
}

static bool start_poll(struct transport *transport)
{
    if (uv_poll_init_socket(loop_uv(transport->loop), &transport->poll, transport->fd) != 0)
        return false;
    transport->poll.data = transport;
    transport->has_poll = true;
    transport->poll_events = 0;
    watch(transport);
    return true;
}

static void set_socket_options(int fd)
{
    // Failure of any of these costs speed or time and nothing else.
    const int one = 1;
    const int idle_seconds = 60;
    const int interval_seconds = 10;
    const int probe_count = 4;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof(idle_seconds));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof(interval_seconds));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probe_count, sizeof(probe_count));
}

// --- Bytes

// Bytes moved, 0 at the orderly end (reads), -1 with errno. EAGAIN: wait for the socket.
static ssize_t tls_result(struct transport *transport, int result)
{
    if (result > 0)
        return result;
    switch (SSL_get_error(transport->session, result)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    default:
        errno = EPROTO;
        return -1;
    }
}

static ssize_t read_bytes(struct transport *transport, uint8_t *bytes, size_t size)
{
    if (transport->session == NULL)
        return recv(transport->fd, bytes, size, 0);
    ERR_clear_error();
    return tls_result(transport, SSL_read(transport->session, bytes, (int)size));
}

static ssize_t write_bytes(struct transport *transport, const uint8_t *bytes, size_t size)
{
    if (transport->session == NULL)
        return send(transport->fd, bytes, size, MSG_NOSIGNAL);
    ERR_clear_error();
    return tls_result(transport, SSL_write(transport->session, bytes, (int)size));
}

// Write until all is gone or the socket is full. Returns how much went.
static size_t write_all(struct transport *transport, const uint8_t *bytes, size_t size)
{
    size_t sent = 0;
    while (sent < size) {
        ssize_t result = write_bytes(transport, bytes + sent, size - sent);
        if (result > 0) {
            sent += (size_t)result;
        } else if (result < 0 && errno == EAGAIN) {
            transport->is_blocked = true;
            break;
        } else if (result < 0 && errno != EINTR) {
            close_with_errno(transport, "write", errno == EPROTO ? ECONNRESET : errno);
            break;
        }
    }
    return sent;
}

// True: nothing is left over and the socket takes more.
static bool write_left_over(struct transport *transport)
{
    if (transport->out.len == 0)
        return true;
    size_t sent = write_all(transport, transport->out.data + transport->out_offset,
                            transport->out.len - transport->out_offset);
    transport->out_offset += sent;
    if (sent > 0)
        timer_start(&transport->timer, STALL_TIME_MAX);
    if (transport->out_offset < transport->out.len)
        return false;
    buf_deinit(&transport->out);
    buf_init(&transport->out, SIZE_MAX);
    transport->out_offset = 0;
    timer_stop(&transport->timer);
    return true;
}

static void fill_and_write(struct transport *transport)
{
    struct buf *scratch = loop_fill_buffer(transport->loop);
    for (int round = 0; round < FILL_ROUNDS_MAX; round++) {
        buf_clear(scratch);
        transport->handler->fill(transport, scratch, transport->context);
        ASSERT(!buf_has_overflowed(scratch));
        if (scratch->len == 0 || transport->state != STATE_OPEN)
            return;
        size_t sent = write_all(transport, scratch->data, scratch->len);
        if (transport->state != STATE_OPEN)
            return;
        if (sent < scratch->len) {
            buf_append(&transport->out, scratch->data + sent, scratch->len - sent);
            timer_start(&transport->timer, STALL_TIME_MAX);
            return;
        }
    }
    // There may be more: the socket is writable, so the next turn comes at once.
    transport->is_blocked = true;
}

static void start_lingering(struct transport *transport)
{
    if (transport->has_peer_finished) {
        close_with(transport, STATUS_OK, "");
        return;
    }
    // Closing a socket with unread bytes in it resets the connection, and the peer would lose the
    // answer that explains why.
    transport->state = STATE_LINGERING;
    if (transport->session != NULL) {
        ERR_clear_error();
        SSL_shutdown(transport->session);
    }
    shutdown(transport->fd, SHUT_WR);
    timer_start(&transport->timer, LINGER_TIME_MAX);
}

static void flush(struct flushable *flushable)
{
    struct transport *transport = (struct transport *)flushable;
    if (transport->state == STATE_OPEN) {
        transport->is_blocked = false;
        if (write_left_over(transport))
            fill_and_write(transport);
        bool is_empty = transport->out.len == 0 && !transport->is_blocked;
        if (transport->state == STATE_OPEN && transport->is_finishing && is_empty)
            start_lingering(transport);
    }
    if (transport->state == STATE_CLOSING)
        end(transport);
    else if (transport->state != STATE_CLOSED)
        watch(transport);
}

static void post_read(struct transport *transport)
{
    if (transport->is_read_posted)
        return;
    transport->is_read_posted = true;
    loop_post(transport->loop, &transport->read_task);
}

static void on_peer_finished(struct transport *transport)
{
    transport->has_peer_finished = true;
    transport_finish(transport);
}

static void read_and_deliver(struct transport *transport)
{
    uint8_t *bytes = loop_read_buffer(transport->loop);
    for (int round = 0; round < READ_ROUNDS_MAX; round++) {
        if (transport->state != STATE_OPEN || transport->is_paused || transport->has_peer_finished)
            return;
        ssize_t size = read_bytes(transport, bytes, LOOP_READ_SIZE);
        if (size == 0) {
            on_peer_finished(transport);
            return;
        }
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN)
            return;
        if (size < 0) {
            close_with_errno(transport, "read", errno == EPROTO ? ECONNRESET : errno);
            return;
        }
        transport->last_received_ns = loop_now_ns(transport->loop);
        if (!transport->is_finishing)
            transport->handler->received(transport, (struct span){bytes, (size_t)size},
                                         transport->context);
        if (transport->session == NULL && size < LOOP_READ_SIZE)
            return;
    }
    // The kernel does not know of bytes that OpenSSL holds already.
    if (transport->session != NULL)
        post_read(transport);
}

static void read_and_drop(struct transport *transport)
{
    uint8_t *bytes = loop_read_buffer(transport->loop);
    for (int round = 0; round < READ_ROUNDS_MAX; round++) {
        ssize_t size = recv(transport->fd, bytes, LOOP_READ_SIZE, 0);
        if (size > 0 || (size < 0 && errno == EINTR))
            continue;
        if (size == 0 || errno != EAGAIN)
            close_with(transport, STATUS_OK, "");
        return;
    }
}

static void run_read(struct task *task)
{
    struct transport *transport =
        (struct transport *)(void *)((char *)task - offsetof(struct transport, read_task));
    transport->is_read_posted = false;
    if (transport->state == STATE_OPEN)
        read_and_deliver(transport);
    free_when_unused(transport);
}

// --- Opening

static void on_open(struct transport *transport)
{
    transport->state = STATE_OPEN;
    transport->is_blocked = false;
    timer_stop(&transport->timer);
    transport->last_received_ns = loop_now_ns(transport->loop);
    mem_free(transport->lookup);
    transport->lookup = NULL;
    loop_flush_later(transport->loop, &transport->flushable);
    transport->handler->opened(transport, transport->context);
}

static void shake_hands(struct transport *transport)
{
    ERR_clear_error();
    int result = SSL_do_handshake(transport->session);
    if (result == 1) {
        on_open(transport);
        // Requests may have come with the last bytes of the handshake.
        if (transport->state == STATE_OPEN)
            read_and_deliver(transport);
        return;
    }
    int code = SSL_get_error(transport->session, result);
    transport->is_blocked = code == SSL_ERROR_WANT_WRITE;
    if (code != SSL_ERROR_WANT_READ && code != SSL_ERROR_WANT_WRITE)
        close_with_tls_error(transport, "TLS handshake");
    watch(transport);
}

static void on_connected(struct transport *transport)
{
    transport->state = STATE_OPEN;
    if (transport->session == NULL) {
        on_open(transport);
        return;
    }
    if (SSL_set_fd(transport->session, transport->fd) != 1) {
        close_with(transport, STATUS_EXHAUSTED, "no memory for TLS");
        return;
    }
    transport->state = STATE_HANDSHAKE;
    shake_hands(transport);
}

static void connect_next(struct transport *transport);

static void retry_connect(uv_handle_t *handle)
{
    struct transport *transport = handle->data;
    transport->has_poll = false;
    if (transport->state == STATE_CONNECTING)
        connect_next(transport);
    else
        free_when_unused(transport);
}

static void check_connected(struct transport *transport)
{
    int code = 0;
    socklen_t size = sizeof(code);
    if (getsockopt(transport->fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0)
        code = errno;
    if (code == 0) {
        on_connected(transport);
        return;
    }
    if (transport->lookup->next == transport->lookup->count) {
        close_with_errno(transport, "connect", code);
        return;
    }
    uv_close((uv_handle_t *)&transport->poll, retry_connect);
    close(transport->fd);
    transport->fd = -1;
}

// Start to connect to one address. Returns an errno, 0 when it is under way.
static int start_connect(struct transport *transport, const struct sockaddr *address,
                         socklen_t size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    set_socket_options(fd);
    if (connect(fd, address, size) != 0 && errno != EINPROGRESS) {
        int code = errno;
        close(fd);
        return code;
    }
    transport->fd = fd;
    return 0;
}

static void connect_next(struct transport *transport)
{
    struct lookup *lookup = transport->lookup;
    int code = 0;
    while (transport->fd < 0 && lookup->next < lookup->count) {
        const struct sockaddr *address = (const struct sockaddr *)&lookup->addresses[lookup->next];
        socklen_t size = lookup->sizes[lookup->next++];
        (void)getnameinfo(address, size, transport->peer, sizeof(transport->peer), NULL, 0,
                          NI_NUMERICHOST);
        code = start_connect(transport, address, size);
    }
    if (transport->fd < 0) {
        close_with_errno(transport, "connect", code);
        return;
    }
    transport->state = STATE_CONNECTING;
    transport->is_blocked = true;
    if (!start_poll(transport))
        close_with(transport, STATUS_EXHAUSTED, "the socket cannot be watched");
}

static void look_up(struct job *job)
{
    struct lookup *lookup = (struct lookup *)job; // its first member
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const char *host = lookup->host[0] != '\0' ? lookup->host : "localhost";
    lookup->result = getaddrinfo(host, lookup->port, &hints, &found);
    if (lookup->result != 0)
        return;
    for (const struct addrinfo *it = found; it != NULL && lookup->count < ADDRESS_COUNT_MAX;
         it = it->ai_next) {
        lookup->sizes[lookup->count] = it->ai_addrlen;
        memcpy(&lookup->addresses[lookup->count++], it->ai_addr, it->ai_addrlen);
    }
    freeaddrinfo(found);
}

static void on_looked_up(struct job *job)
{
    struct lookup *lookup = (struct lookup *)job;
    struct transport *transport = lookup->transport;
    lookup->is_pending = false;
    if (transport == NULL) {
        mem_free(lookup);
        return;
    }
    if (lookup->result != 0 || lookup->count == 0) {
        char text[128];
        snprintf(text, sizeof(text), "look up %.64s: %s", lookup->host,
                 lookup->result != 0 ? gai_strerror(lookup->result) : "no address");
        close_with(transport, STATUS_UNAVAILABLE, text);
        return;
    }
    connect_next(transport);
}

static bool is_numeric(struct lookup *lookup)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    if (getaddrinfo(lookup->host, lookup->port, &hints, &found) != 0)
        return false;
    lookup->count = 1;
    lookup->sizes[0] = found->ai_addrlen;
    memcpy(&lookup->addresses[0], found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return true;
}

static void start_lookup(struct transport *transport, struct str host, struct str port)
{
    struct lookup *lookup = mem_alloc(sizeof(*lookup));
    transport->lookup = lookup;
    lookup->transport = transport;
    if (host.len >= sizeof(lookup->host) || port.len >= sizeof(lookup->port)) {
        close_with(transport, STATUS_INVALID, "the host name is too long");
        return;
    }
    memcpy(lookup->host, host.data, host.len);
    memcpy(lookup->port, port.data, port.len);
    if (host.len > 0 && is_numeric(lookup)) {
        connect_next(transport);
        return;
    }
    lookup->job.loop = transport->loop;
    lookup->job.run = look_up;
    lookup->job.done = on_looked_up;
    lookup->is_pending = true;
    if (pool_submit(net_pool(transport->net), &lookup->job) != STATUS_OK) {
        transport->lookup = NULL;
        mem_free(lookup);
        close_with(transport, STATUS_UNAVAILABLE, "too many names are being looked up");
    }
}

// --- Events

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct transport *transport = poll->data;
    loop_enter(transport->loop);
    if (transport->state == STATE_CONNECTING) {
        check_connected(transport);
        return;
    }
    if (status < 0) {
        int code = 0;
        socklen_t size = sizeof(code);
        (void)getsockopt(transport->fd, SOL_SOCKET, SO_ERROR, &code, &size);
        close_with_errno(transport, "connection", code != 0 ? code : ECONNRESET);
        return;
    }
    if (transport->state == STATE_HANDSHAKE) {
        shake_hands(transport);
        return;
    }
    if ((events & UV_WRITABLE) != 0)
        loop_flush_later(transport->loop, &transport->flushable);
    if ((events & UV_DISCONNECT) != 0 && transport->is_paused)
        on_peer_finished(transport);
    if ((events & UV_READABLE) == 0)
        return;
    if (transport->state == STATE_LINGERING)
        read_and_drop(transport);
    else
        read_and_deliver(transport);
}

static void on_timer(struct timer *timer)
{
    struct transport *transport =
        (struct transport *)(void *)((char *)timer - offsetof(struct transport, timer));
    if (transport->state == STATE_LINGERING)
        close_with(transport, STATUS_OK, "");
    else if (transport->state == STATE_OPEN)
        close_with(transport, STATUS_TIMEOUT, "the peer does not take its answers");
    else
        close_with(transport, STATUS_UNAVAILABLE, "the connection could not be opened in time");
}

// --- The interface

static struct transport *transport_create(struct net *net, struct loop *loop,
                                          const struct transport_handler *handler, void *context)
{
    struct transport *transport = mem_alloc(sizeof(*transport));
    transport->flushable.flush = flush;
    transport->net = net;
    transport->loop = loop;
    transport->handler = handler;
    transport->context = context;
    transport->fd = -1;
    transport->read_task.run = run_read;
    buf_init(&transport->out, SIZE_MAX);
    timer_init(&transport->timer, loop, on_timer);
    timer_start(&transport->timer, OPEN_TIME_MAX);
    net_hold(net);
    return transport;
}

static void start_session(struct transport *transport, struct tls *tls, struct str authority)
{
    if (tls == NULL)
        return;
    transport->session = tls_session_create(tls, authority);
    if (transport->session == NULL)
        close_with(transport, STATUS_EXHAUSTED, "no TLS session could be made");
}

static void find_peer(struct transport *transport)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    if (getpeername(transport->fd, (struct sockaddr *)&address, &size) != 0)
        return;
    (void)getnameinfo((const struct sockaddr *)&address, size, transport->peer,
                      sizeof(transport->peer), NULL, 0, NI_NUMERICHOST);
    const char mapped[] = "::ffff:";
    size_t prefix = sizeof(mapped) - 1;
    if (strncmp(transport->peer, mapped, prefix) == 0 && strchr(transport->peer, '.') != NULL)
        memmove(transport->peer, transport->peer + prefix, strlen(transport->peer + prefix) + 1);
}

static void run_accepted(struct task *task)
{
    struct transport *transport =
        (struct transport *)(void *)((char *)task - offsetof(struct transport, read_task));
    transport->is_read_posted = false;
    transport->read_task.run = run_read;
    if (transport->state == STATE_CONNECTING)
        on_connected(transport);
    free_when_unused(transport);
}

struct transport *transport_accept(struct net *net, struct loop *loop, int fd, struct tls *tls,
                                   const struct transport_handler *handler, void *context)
{
    struct transport *transport = transport_create(net, loop, handler, context);
    transport->fd = fd;
    transport->state = STATE_CONNECTING;
    set_socket_options(fd);
    find_peer(transport);
    start_session(transport, tls, (struct str){0});
    if (transport->state == STATE_CLOSING)
        return transport;
    if (!start_poll(transport)) {
        close_with(transport, STATUS_EXHAUSTED, "the socket cannot be watched");
        return transport;
    }
    // opened comes after this function has returned.
    transport->is_read_posted = true;
    transport->read_task.run = run_accepted;
    loop_defer(loop, &transport->read_task);
    return transport;
}

struct transport *transport_connect(struct net *net, struct loop *loop,
                                    const struct transport_target *target,
                                    const struct transport_handler *handler, void *context)
{
    struct transport *transport = transport_create(net, loop, handler, context);
    start_session(transport, target->tls, target->authority);
    if (transport->state != STATE_CLOSING)
        start_lookup(transport, target->host, target->port);
    return transport;
}

void transport_wants_flush(struct transport *transport)
{
    if (transport->state == STATE_OPEN && !transport->is_blocked)
        loop_flush_later(transport->loop, &transport->flushable);
}

size_t transport_queued_size(const struct transport *transport)
{
    return transport->out.len - transport->out_offset;
}

void transport_pause(struct transport *transport)
{
    if (transport->is_paused)
        return;
    transport->is_paused = true;
    loop_flush_later(transport->loop, &transport->flushable);
}

void transport_resume(struct transport *transport)
{
    if (!transport->is_paused)
        return;
    transport->is_paused = false;
    loop_flush_later(transport->loop, &transport->flushable);
    if (transport->session != NULL)
        post_read(transport);
}

void transport_finish(struct transport *transport)
{
    if (transport->state < STATE_OPEN) {
        close_with(transport, STATUS_OK, "");
        return;
    }
    transport->is_finishing = true;
    if (transport->state == STATE_OPEN)
        loop_flush_later(transport->loop, &transport->flushable);
}

void transport_close(struct transport *transport)
{
    close_with(transport, STATUS_OK, "");
}

struct loop *transport_loop(const struct transport *transport)
{
    return transport->loop;
}

struct str transport_peer(const struct transport *transport)
{
    return str_from_cstr(transport->peer);
}

struct str transport_alpn(const struct transport *transport)
{
    const unsigned char *name = NULL;
    unsigned size = 0;
    if (transport->session != NULL)
        SSL_get0_alpn_selected(transport->session, &name, &size);
    return (struct str){(const char *)name, size};
}

uint64_t transport_last_received_ns(const struct transport *transport)
{
    return transport->last_received_ns;
}

bool transport_has_tls(const struct transport *transport)
{
    return transport->session != NULL;
}
