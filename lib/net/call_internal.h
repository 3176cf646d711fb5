#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "net/server.h"

// A call as those see it who bring it in: the HTTP/1.1 and HTTP/2 servers and the in-process
// channel. Each embeds struct call in its own, fills it with headers, starts it and delivers
// messages; the answer comes back through call_ops. Loop only.
//
// One reference belongs to whoever brought the call in. He gives it back with call_unref when his
// side is over; ops->release is called with the last one.

enum {
    CALL_HEADER_SIZE_MAX = 16384, // name + value + 32 for each, as HPACK counts
    CALL_HEADER_COST = 32,
    CALL_REQUEST_ID_SIZE_MAX = 64,
};

struct listener;

struct call_ops {
    void (*send)(struct call *call, struct span message);
    // Both are called at most once, and neither after the call was cancelled. text is borrowed.
    void (*finish)(struct call *call, enum status status, struct str text);
    void (*reply)(struct call *call, int http_code, struct str content_type, struct span body);
    size_t (*queued_size)(const struct call *call);
    // The handler is through with the call and has released it: give its memory back.
    void (*release)(struct call *call);
};

struct call_header {
    struct call_header *next;
    struct str name;
    struct str value;
};

struct call_headers {
    struct call_header *first;
    struct call_header *last;
};

struct call {
    const struct call_ops *ops;
    struct listener *listener;
    struct loop *loop;
    struct arena *arena;
    void *user;
    struct call *next; // in the list of its connection, or of the loop's in-process calls
    struct call *previous;
    enum call_kind kind;
    uint32_t reference_count;
    bool is_inproc;
    bool was_started;   // the handler knows of it
    bool is_finished;   // the answer is complete
    bool was_cancelled; // the caller has gone
    bool accepts_gzip;  // of answers: the caller compresses its own messages
    bool has_bad_header;
    struct str verb;
    struct str path;
    struct str query;
    struct str peer;
    struct str content_type;
    struct str encoding; // grpc-encoding of its messages
    struct str timeout;  // grpc-timeout as it came
    struct str request_id;
    struct call_headers headers;
    struct call_headers answer_headers;
    size_t header_size;
    size_t message_size_max;
    uint64_t deadline_ns;
    struct timer deadline_timer;
};

// --- Life. The listener must be pinned for the call (listener_pin); the call takes the pin over.

void call_init(struct call *call, struct listener *listener, struct loop *loop,
               const struct call_ops *ops);
// Link the call where a server that closes finds it. For calls without a connection.
void call_set_inproc(struct call *call);

// --- What came. Names in lower case; both are copied into the call's arena.

// False: the headers are larger than CALL_HEADER_SIZE_MAX; the call must be refused.
bool call_put_header(struct call *call, struct str name, struct str value);
void call_set_target(struct call *call, struct str target); // path, and ?query for CALL_HTTP

// All headers are there: the deadline begins to run and the handler's start is called. kind, verb,
// path and peer must be set.
void call_start(struct call *call);
void call_deliver(struct call *call, struct span message);
void call_half_close(struct call *call);
void call_tell_writable(struct call *call);

// --- The end from below. Both tell the handler, unless the call was answered or never started.

void call_cancel(struct call *call); // the caller has gone: nothing can be sent any more
// Answer in the handler's place: a limit was passed, the deadline came.
void call_fail(struct call *call, enum status status, struct str text);

// An error as the HTTP side writes it: {"code":8,"message":"…","details":[]}
void call_format_http_error(struct buf *out, enum status status, struct str text);
// The same with an HTTP code of its own (413, 431), as the complete answer.
void call_fail_http(struct call *call, int http_code, enum status status, struct str text);

// --- Listeners, as far as in-process channels see them

// Hold the listener for one call that is about to come on this thread's loop. False: it is closing.
bool listener_pin(struct listener *listener);
void listener_unpin(struct listener *listener); // the call did not come about
bool listener_has_grpc(const struct listener *listener);
