#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/status.h"
#include "base/str.h"
#include "net/net.h"
#include "net/tls.h"

// Listening ports and the calls that come in on them. A port speaks HTTP/1.1, HTTP/2 and gRPC, with
// or without TLS; `inproc:NAME` is a port too, reached by channels of the same process. What a call
// means is not known here: a listener has a call_handler (lib/api provides the one that decodes
// messages).
//
// A call belongs to the loop of its connection. All functions on it are for that loop's thread. A
// handler that answers later holds it with call_ref and drops it with call_unref; once the caller
// has gone (cancelled, deadline, connection lost) sending does nothing.

struct server;
struct call;

enum call_kind {
    CALL_GRPC, // messages with gRPC framing, answered with call_send and call_finish
    CALL_HTTP, // one request with a body, answered with call_reply
};

struct call_handler {
    // The headers are complete. May answer at once; may call call_set_message_size_max.
    void (*start)(struct call *call, void *context);
    // gRPC: one complete, decompressed message; HTTP: the whole body, once (empty too). The bytes
    // are borrowed until the function returns.
    void (*message)(struct call *call, struct span message, void *context);
    // The client sends no more messages. May be NULL.
    void (*half_close)(struct call *call, void *context);
    // The caller has gone; nothing that is sent will arrive. Called once, not after the answer was
    // finished. May be NULL.
    void (*cancelled)(struct call *call, void *context);
    // The queue of a streaming answer fell below its low mark. May be NULL.
    void (*writable)(struct call *call, void *context);
    // The last reference goes: free what call_set_user put there. May be NULL.
    void (*release)(struct call *call, void *context);
};

struct listener_options {
    struct str address;
    const struct call_handler *handler;
    void *context;           // handed to the handler
    struct tls *tls;         // NULL: plain; borrowed, must outlive the server
    bool has_grpc;           // gRPC calls are accepted here (else UNIMPLEMENTED)
    bool has_http;           // other HTTP requests are accepted here (else 404)
    bool is_public;          // anybody may connect: strict reset limits, slow senders are cut
    size_t message_size_max; // one message or body, after decompression
    uint32_t connection_max; // 0: 10,000
    uint32_t stream_max;     // concurrent calls per connection; 0: 1,000
};

struct server *server_create(struct net *net);

// Start to accept. out_address receives HOST:PORT with the real port, NUL-terminated.
// INVALID: not an address. IO: cannot bind (the error says why).
enum status server_listen(struct server *server, const struct listener_options *options,
                          struct error *error, char out_address[static 128]);

// Two-phase drain: stop accepting, tell clients to send nothing new (GOAWAY twice, `connection:
// close`), let calls finish for at most grace_ns, then close. Returns when that is done. Not on a
// loop.
void server_drain(struct server *server, uint64_t grace_ns);
// Closes what is still open at once. Not on a loop. server may be NULL.
void server_destroy(struct server *server);

// --- A call: what came

enum call_kind call_kind(const struct call *call);
struct str call_verb(const struct call *call);  // "POST"
struct str call_path(const struct call *call);  // "/vectron.v1.VectronService/Search", undecoded
struct str call_query(const struct call *call); // after the ?, HTTP only
// The first value of a header or metadata entry, name in lower case; empty when absent. `-bin`
// metadata is already decoded from base64.
struct str call_metadata(const struct call *call, struct str name);
// The index-th of several values, in the order in which they came; empty when there are not so
// many.
struct str call_metadata_at(const struct call *call, struct str name, uint32_t index);
struct str call_peer(const struct call *call);      // address without port, "inproc" in process
uint64_t call_deadline_ns(const struct call *call); // monotonic; UINT64_MAX: none
bool call_is_done(const struct call *call);         // answered or cancelled
struct arena *call_arena(struct call *call);        // lives as long as the call
struct loop *call_loop(struct call *call);
struct net *call_net(struct call *call);
// The client's x-request-id when it is sane (at most 64 of A-Za-z0-9_.-), else a new one. Sent back
// as x-request-id and written to log lines.
struct str call_request_id(const struct call *call);

void *call_user(const struct call *call);
void call_set_user(struct call *call, void *user);
void call_set_message_size_max(struct call *call, size_t size);
void call_ref(struct call *call);
void call_unref(struct call *call);

// --- The answer

// Add a header to the answer (gRPC: initial metadata). Before the first send or reply. Copied.
void call_add_header(struct call *call, struct str name, struct str value);

// gRPC: queue one message (copied; compressed when it is large and the client compresses its own).
void call_send(struct call *call, struct span message);
size_t call_queued_size(const struct call *call); // bytes that the client has not taken yet
// gRPC: end the call. The text is percent-encoded on the wire; empty when status is OK.
void call_finish(struct call *call, enum status status, struct str text);

// HTTP: the whole answer. The body is copied. content_type may be empty when the body is.
void call_reply(struct call *call, int http_code, struct str content_type, struct span body);
