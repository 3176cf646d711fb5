#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/rng.h"
#include "net/address.h"
#include "net/channel.h"
#include "net/grpc_frame.h"
#include "net/loop.h"

// The parts of a channel that its own files share: channel.c has the channel, what it keeps per
// loop and who waits for a connection; channel_call.c one call from its request to its end;
// http2_client.c a connection; inproc.c calls to a listener of the same process. Loop only.
//
// Bytes of an answer come into a call as gRPC frames, whoever brings them: http2_client.c from the
// network, inproc.c from the listener's handler.

enum {
    CHANNEL_WAITING_MAX = 10000,       // calls that wait for a connection or for room on it
    CHANNEL_METADATA_SIZE_MAX = 49152, // more cannot be sent at all; peers allow less
    CHANNEL_QUEUE_LOW = 256 << 10,     // below it the sender in the same process goes on
    CHANNEL_CONSUME_SIZE = 256 << 10,  // how much of a stream is taken before its peer is told
    CHANNEL_STREAM_WINDOW = 1 << 20,
    CHANNEL_CONNECTION_WINDOW = 16 << 20,
    CHANNEL_FAILURE_SIZE = 192,
};

struct http2_client;
struct http2_memory;
struct inproc_call;
struct transport;

struct channel_loop {
    struct channel *channel;
    struct loop *loop;
    struct channel_call *calls;         // all that are not over
    struct channel_call *waiting_first; // in the order in which they came
    struct channel_call *waiting_last;
    uint32_t waiting_count;
    struct http2_client *client;       // where new calls go; NULL: none
    struct http2_client *clients;      // that one and those that come to their end
    struct http2_memory *http2_memory; // of all of them; made with the first
    struct channel_call *kept;         // for the next calls, linked by next
    uint32_t kept_count;
    struct inproc_call *kept_peers;
    uint32_t kept_peer_count;
    size_t use_count; // connections, calls, their other sides; it is over without them
    bool is_closing;
    struct timer retry_timer; // runs only while calls wait for it
    uint32_t failure_count;   // in a row
    uint64_t retry_at_ns;     // no attempt before
    char failure[CHANNEL_FAILURE_SIZE];
    struct rng rng;
    size_t memory_used;  // of the net's budget
    uint64_t turn_ns;    // the turn in which turn_count tasks were deferred
    uint32_t turn_count; // so that calls that beget calls do not hold up the loop
    struct task close_task;
};

struct channel {
    struct net *net;
    struct address address;
    struct str name;      // the address as it was given
    struct str authority; // for :authority and the certificate
    struct tls *tls;
    size_t message_size_max;
    uint64_t pause_max; // between attempts to connect, ns
    bool has_gzip;
    uint64_t ping_after_ns;    // without a byte from the peer, while calls are in flight
    uint64_t ping_time_max_ns; // for the answer
    _Atomic uint32_t open_loop_count;
    _Atomic uint32_t loop_next; // for calls from other threads
    uint32_t loop_count;
    struct channel_loop loops[];
};

struct channel_call {
    struct task task; // first
    struct channel_loop *owner;
    struct channel_call *next; // of owner->calls
    struct channel_call *previous;
    struct channel_call *waiting_next;
    struct channel_call *waiting_previous;
    struct timer deadline_timer;
    struct arena *arena; // for everything that a str or a pointer below points to

    struct str path;
    struct metadata *metadata;
    uint32_t metadata_count;
    uint64_t deadline_ns;
    void *context;
    void (*received)(struct span message, void *context);
    void (*done)(enum status status, struct str text, void *context);
    struct buf out; // the request with its prefix
    size_t out_offset;

    struct http2_client *client; // NULL: not on a connection
    struct inproc_call *peer;    // NULL: not in process, or its other side has gone
    int32_t stream_id;

    bool waits_for_ready;
    bool is_waiting;
    bool is_task_queued;
    bool is_busy;       // one of our functions works with it and frees it when it is over
    bool is_delivering; // what comes meanwhile goes into late
    bool is_paused;
    bool is_over;  // cancelled, or done was called
    bool was_sent; // a part of the message has gone
    bool was_retried;
    bool has_answer; // at least a header came
    bool has_end;    // status and text are known; done is called when everything was delivered
    bool must_start; // in process: the listener does not know of it yet
    enum status status;
    struct str text;

    struct grpc_reader reader;
    struct buf inbox; // bytes that wait: the call is paused, or they come from this process
    size_t inbox_offset;
    struct buf late;   // what came while the inbox was being delivered
    size_t charged;    // of the net's budget, for out, inbox and late
    size_t unconsumed; // bytes of the stream that were taken and not yet reported to nghttp2
    // The answer's headers, as far as they mean something.
    int http_status;
    int grpc_status; // -1: none
    size_t header_size;
    bool has_grpc_type;
};

// --- channel.c

bool channel_is_inproc(const struct channel *channel);
void channel_loop_enter(struct channel_loop *owner);
void channel_loop_leave(struct channel_loop *owner); // may be the end of it and of the channel
// Run the task soon: in this turn, unless there were very many of them already.
void channel_loop_schedule(struct channel_loop *owner, struct task *task);

// Wait for a connection: a new call, or one to be tried again, before all others then.
void channel_loop_wait(struct channel_loop *owner, struct channel_call *call);
void channel_loop_wait_again(struct channel_loop *owner, struct channel_call *call);
void channel_loop_stop_waiting(struct channel_loop *owner, struct channel_call *call);
// No connection could be made, or it was of no use. Calls that do not wait for better times fail.
void channel_loop_failed(struct channel_loop *owner, struct str text);
// The connection takes no new calls any more. Whoever waits gets another one.
void channel_loop_lost(struct channel_loop *owner);

bool channel_loop_memory_take(struct channel_loop *owner, size_t size);
void channel_loop_memory_give(struct channel_loop *owner, size_t size);

// --- channel_call.c

// Never fails: what is wrong with the request shows soon, through done.
struct channel_call *channel_call_create(struct channel_loop *owner,
                                         const struct channel_request *request);
void channel_call_free_kept(struct channel_loop *owner);
// Go on with the call soon: start it, deliver what waits, end it.
void channel_call_schedule(struct channel_call *call);
struct span channel_call_message(const struct channel_call *call); // without its prefix
bool channel_call_is_compressed(const struct channel_call *call);

// Bytes came from the network: deliver what is complete. What a paused call does not take waits in
// its inbox. False: the call is over, and gone.
bool channel_call_receive(struct channel_call *call, struct span bytes);
// A message came from this process; it is delivered soon. False: no memory.
bool channel_call_put_message(struct channel_call *call, struct span message);
size_t channel_call_queued_size(const struct channel_call *call);

// The answer is complete; done is called when all of it was delivered. The text is copied. After
// set_end comes channel_call_schedule, or where callbacks may be called channel_call_go_on.
void channel_call_set_end(struct channel_call *call, enum status status, struct str text);
void channel_call_go_on(struct channel_call *call);
// End it whatever waits: now, or soon (where no callback may be called).
void channel_call_fail(struct channel_call *call, enum status status, struct str text);
void channel_call_fail_soon(struct channel_call *call, enum status status, struct str text);

// --- http2_client.c

// Begin to connect. It sets owner->client, and tells the owner when it comes to nothing.
void http2_client_connect(struct channel_loop *owner);
void http2_client_wants_flush(struct http2_client *client); // calls wait
void http2_client_close_all(struct channel_loop *owner);
// The call is not interested any more.
void http2_client_detach(struct channel_call *call);
// The call has taken bytes of its stream.
void http2_client_consume(struct channel_call *call);
// For tests: a connection without a transport, driven by hand.
struct http2_client *http2_client_create(struct channel_loop *owner);
void http2_client_open(struct http2_client *client);
bool http2_client_receive(struct http2_client *client, struct span bytes);
void http2_client_fill(struct http2_client *client, struct buf *out);
void http2_client_end(struct http2_client *client, struct str text);

// --- inproc.c

// Hand the call to the listener, or let it wait for one.
void inproc_start(struct channel_call *client);
void inproc_detach(struct channel_call *client);
// Messages were taken out of the inbox, which held so much before.
void inproc_taken(struct channel_call *client, size_t size_before);
void inproc_free_kept(struct channel_loop *owner);
