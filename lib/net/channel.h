#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/status.h"
#include "base/str.h"
#include "net/net.h"
#include "net/tls.h"

// The client side of gRPC: a channel to one address. It keeps one connection per loop that uses it,
// connects when first needed, reconnects with jittered back-off (50 ms doubling to 5 s), pings idle
// connections and obeys GOAWAY. An `inproc:NAME` channel delivers to a listener of this process, on
// the caller's loop, with the same semantics (deadline, cancellation, limits).
//
// Calls are made on a loop's thread and their callbacks come on it, never before channel_call has
// returned. channel_call_wait is for threads that are no loops (the command line, tests).

struct channel;
struct channel_call; // valid from channel_call until done is called

struct channel_options {
    struct str address;
    struct tls *tls;         // NULL: plain; borrowed
    struct str authority;    // empty: the address; the name checked in the certificate
    size_t message_size_max; // of an answer; 0: 64 MiB
    bool has_gzip;           // compress requests over 1 KiB
    uint32_t backoff_ms_max; // between attempts to connect; 0: 5,000
};

// INVALID: not an address. Whether anybody listens there shows only with the first call.
enum status channel_create(struct net *net, const struct channel_options *options,
                           struct error *error, struct channel **out_channel);
// Calls in flight end with CANCELLED. Any thread; returns at once. channel may be NULL.
void channel_destroy(struct channel *channel);

struct metadata {
    struct str name; // lower case
    struct str value;
};

struct channel_request {
    struct str path;      // "/vectron.v1.VectronService/Search"
    struct span message;  // copied
    uint64_t deadline_ns; // monotonic; UINT64_MAX: none. Sent as grpc-timeout
    bool waits_for_ready; // while the peer is not reachable wait until the deadline, instead of
                          // failing with UNAVAILABLE at once
    const struct metadata *metadata; // copied
    uint32_t metadata_count;
    void *context;
    size_t context_size; // more than 0: context is copied and its copy, which the callbacks get,
                         // goes with the call
    // One message of the answer, borrowed until it returns.
    void (*received)(struct span message, void *context);
    // The end: exactly once, not after channel_call_cancel. text is borrowed.
    void (*done)(enum status status, struct str text, void *context);
};

struct channel_call *channel_call(struct channel *channel, const struct channel_request *request);
// The context, or its copy; and memory that goes with the call, for what belongs to the answer.
// Both not after done or cancel.
void *channel_call_context(struct channel_call *call);
struct arena *channel_call_arena(struct channel_call *call);
// No further callback comes. Inside or outside of callbacks, but not after done.
void channel_call_cancel(struct channel_call *call);

// For a server stream: stop and go on reading (back-pressure to the peer).
void channel_call_pause(struct channel_call *call);
void channel_call_resume(struct channel_call *call);

// A unary call from a thread that is no loop. The answer is appended to out_message.
enum status channel_call_wait(struct channel *channel, const struct channel_request *request,
                              struct buf *out_message, struct error *error);
