#pragma once

#include <nghttp2/nghttp2.h>

#include "net/grpc_frame.h"
#include "net/server_internal.h"

// The server's side of HTTP/2: http2_server.c has the session (frames, limits, drain),
// http2_call.c the calls on it (headers, messages, answers).

enum {
    HTTP2_STREAM_WINDOW = 1 << 20,
    HTTP2_CONNECTION_WINDOW = 4 << 20,
    // While more than this waits to be sent for a call, its requests wait too.
    HTTP2_QUEUE_HIGH = 1 << 20,
    // Below this a streaming handler is told to go on.
    HTTP2_QUEUE_LOW = 256 << 10,
    // A sender that is slower than this per time limit is too slow.
    HTTP2_PROGRESS_SIZE = 1024,
    // One header block; more than this is no mistake but an attack, and ends the connection.
    HTTP2_HEADER_BLOCK_MAX = 256 << 10,
};

// Counts something that a peer may do now and then but not all the time.
struct http2_allowance {
    double left;
    uint64_t at_ns;
};

struct http2_session {
    struct connection *connection; // NULL: lost; calls that a handler holds keep the session
    nghttp2_session *nghttp2;
    struct call *calls;           // with a stream
    struct http2_call *recent;    // the one that was looked for last, or NULL
    uint32_t stream_count;        // of them
    uint32_t held_count;          // calls that are not released, with or without a stream
    uint32_t unended_count;       // streams whose request is not complete
    struct http2_call *unblocked; // the queue fell: to be told after the nghttp2 callback
    struct http2_allowance pings;
    struct http2_allowance invalid_frames;
    struct timer slow_timer;
    struct timer idle_timer;
    struct timer drain_timer;
    uint64_t active_ns; // when a call began or ended last
    bool is_draining;
    bool was_goaway_sent;
};

struct http2_call {
    struct call call; // first
    struct http2_session *session;
    struct http2_call *unblocked_next;
    int32_t stream_id; // 0: the stream is gone
    bool has_all_headers;
    bool was_refused; // answered before its body was looked at, or no call of ours
    bool are_headers_too_large;
    bool has_ended;       // the client has sent everything
    bool has_half_closed; // and all of it was delivered
    bool has_message;     // at least one was delivered
    bool is_in_unblocked;
    bool was_submitted; // the answer's headers
    bool is_deferred;   // nghttp2 waits for more of the answer
    bool has_end;       // call_finish or call_reply: after the queue comes the end
    size_t header_block_size;
    uint64_t progress_ns; // when the request grew last by HTTP2_PROGRESS_SIZE
    size_t unnoted_size;  // by how much since
    struct grpc_reader reader;
    struct buf body;    // HTTP: as far as it came
    struct buf backlog; // bytes that wait until the answers are taken
    struct buf out;
    size_t out_offset;
    enum status status;
    struct str status_text; // percent-encoded, in the call's arena
};

struct http2_call *http2_call_create(struct http2_session *session, int32_t stream_id);
// What nghttp2's callbacks say about a stream. Header: false ends the connection.
bool http2_call_put_header(struct http2_call *call, struct str name, struct str value);
void http2_call_headers_complete(struct http2_call *call);
void http2_call_received(struct http2_call *call, struct span bytes);
void http2_call_ended(struct http2_call *call);
void http2_call_stream_closed(struct http2_call *call);
// Answers were taken: deliver what had to wait and tell the handler. Not inside nghttp2.
void http2_call_go_on(struct http2_call *call);
// The client sends its request too slowly.
void http2_call_check_progress(struct http2_call *call, uint64_t now_ns, uint64_t time_max_ns);

void http2_session_wants_flush(struct http2_session *session);
void http2_session_release(struct http2_session *session); // a held call was released
