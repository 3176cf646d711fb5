#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/metrics.h"
#include "net/call_internal.h"
#include "net/loop.h"
#include "net/server.h"
#include "net/transport.h"

// The parts of a server that its own files share: what it keeps per loop, its listeners, its
// connections.

struct connection;
struct http2_memory;
struct server_loop;
struct acceptor;

// What speaks on a connection once its first bytes showed which protocol it is.
struct protocol {
    void *(*create)(struct connection *connection);
    void (*received)(void *session, struct span bytes);
    void (*fill)(void *session, struct buf *out);
    void (*drain)(void *session);   // say that nothing new is taken; finish when idle
    void (*destroy)(void *session); // the connection is lost: cancel its calls
};

extern const struct protocol http1_protocol;
extern const struct protocol http2_protocol;

struct connection {
    struct connection *next;
    struct connection *previous;
    struct server_loop *server_loop;
    struct listener *listener;
    struct transport *transport; // NULL: a test drives the connection by hand
    const struct protocol *protocol;
    void *session;
    struct timer timer; // the protocol's own once there is one
    size_t memory_used; // of the net's budget
    bool was_opened;
    bool was_closed; // by connection_finish or connection_close
    uint8_t head_size;
    uint8_t head[24]; // what came before the protocol was known
};

// What a server keeps on one loop. Touched by the loop's thread only, but for what is marked.
struct server_loop {
    struct server *server;
    struct loop *loop;
    struct connection *connections;
    struct call *inproc_calls;
    _Atomic uint32_t connection_count; // read by the acceptor
    uint32_t use_count;                // connections and calls; it is over when they are gone
    bool is_draining;                  // nothing new begins
    bool is_quiet;                     // draining and not used any more; the server's mutex
    uint32_t posted_count;             // tasks under way; the server's mutex
    char request_id_prefix[9];
    uint64_t request_id_next;
    struct arena *arenas[64]; // ready for the next calls
    uint32_t arena_count;
    struct call *http2_calls; // as well, linked by next
    uint32_t http2_call_count;
    struct http2_memory *http2_memory; // of all sessions; made with the first
    struct task drain_task;
    struct task close_task;
};

struct listener_metrics {
    struct metric *connections;
    struct metric *accepted;
    struct metric *refused;
    struct metric *received_bytes;
    struct metric *sent_bytes;
    struct metric *tls_failures;
    struct metric *resets;
};

struct listener {
    struct listener *next;
    struct server *server;
    struct listener_options options; // its address is not valid any more
    struct listener_metrics metrics;
    size_t memory_max; // of one connection
    _Atomic uint32_t connection_count;
    char inproc_name[256];     // empty: it has a socket
    struct acceptor *acceptor; // lives on loop 0; NULL: inproc
};

struct server_loop *server_loop_of(struct server *server, const struct loop *loop);
struct net *server_net(struct server *server);
// The loop that has the fewest connections. Any thread.
struct server_loop *server_choose_loop(struct server *server);
// A connection or a call begins (false: nothing new is taken) and ends.
bool server_loop_enter(struct server_loop *server_loop);
void server_loop_leave(struct server_loop *server_loop);
void listener_register_metrics(struct listener *listener, const char *address);
// Give back the HTTP/2 calls that are kept for reuse (http2_server.c).
void http2_free_calls(struct server_loop *server_loop);

struct arena *server_loop_take_arena(struct server_loop *server_loop);
void server_loop_give_arena(struct server_loop *server_loop, struct arena *arena);
// NUL-terminated, at most CALL_REQUEST_ID_SIZE_MAX.
struct str server_loop_next_request_id(struct server_loop *server_loop, struct arena *arena);

// --- Listening (acceptor.c): one descriptor per listener, accepted on loop 0

struct address;
enum status acceptor_open(struct listener *listener, const struct address *address,
                          struct error *error, char out_address[static 128]);
void acceptor_close(struct acceptor *acceptor); // on loop 0

// --- Connections (connection.c)

// On the loop that is to own it.
void connection_accept(struct server_loop *server_loop, struct listener *listener, int fd);
void connection_drain(struct connection *connection);
// For tests: a connection without a transport, driven by hand.
struct connection *connection_create(struct server_loop *server_loop, struct listener *listener);
void connection_start(struct connection *connection, const struct protocol *protocol);
void connection_destroy(struct connection *connection);
void connection_wants_flush(struct connection *connection);
void connection_pause(struct connection *connection);
void connection_resume(struct connection *connection);
void connection_finish(struct connection *connection);
void connection_close(struct connection *connection);
struct str connection_peer(const struct connection *connection);
// The connection's and the process' budget for bytes in flight.
bool connection_memory_take(struct connection *connection, size_t size);
void connection_memory_charge(struct connection *connection, size_t size);
void connection_memory_give(struct connection *connection, size_t size);
bool connection_memory_is_over(const struct connection *connection);
