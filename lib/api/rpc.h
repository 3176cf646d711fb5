#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "net/server.h"

// Requests as messages. Services register methods; a router decodes what comes in (gRPC wire format
// or HTTP/JSON by the route table), runs the interceptor and the method's handler, and encodes the
// answer the way the request came. A handler cannot tell which way that was, except by rpc_call.
//
// A handler runs on the call's loop. It answers with rpc_reply or rpc_fail, at once or later (then
// it holds the request with rpc_ref). Messages and everything that hangs on them live in the
// request's arena. rpc functions are for the loop's thread; memory that was allocated from the
// arena before may be read by a job of the pool.

struct rpc;
struct rpc_router;

typedef void (*rpc_handler_fn)(struct rpc *rpc, void *context);

struct rpc_method {
    const char *name; // of the service's descriptor: "Search"
    rpc_handler_fn handler;
    size_t message_size_max; // of a request; 0: the listener's. For methods that anybody may call,
                             // or whose callee takes no more
    bool is_stream;          // any number of rpc_send, then rpc_finish
    bool is_internal;  // only for other services: the router refuses callers without the internal
                       // token (PERMISSION_DENIED), unless rpc_router_options say otherwise
    bool is_http_only; // refused with UNAUTHENTICATED-style answers is the interceptor's business;
                       // this one only keeps the method off gRPC
    uint32_t tag;      // free for the service: e.g. the role that the interceptor demands
    // Fields that a JSON body does not name and whose default differs there from the wire's: called
    // on the message as its descriptor's init left it, before body, query and path are read into
    // it. May be NULL.
    void (*prepare_http)(ProtobufCMessage *message);
};

struct rpc_router_options {
    // Called before every method, health and reflection excepted. It must end in rpc_proceed or
    // rpc_fail, at once or later. NULL: everybody may call everything.
    void (*intercept)(struct rpc *rpc, void *context);
    void *context; // of these functions
    // Called with the whole request before its handler; true: it answers in the handler's place.
    // Health, reflection and pages excepted. May be NULL.
    bool (*divert)(struct rpc *rpc, void *context);
    // Called when a request has ended, with its final status (CANCELLED: the caller went first) and
    // the time since its headers came; for counting, it must not answer. Pages too. May be NULL.
    void (*finished)(const struct rpc *rpc, enum status status, uint64_t elapsed_ns, void *context);
    // Proof that internal callers show in metadata `vectron-internal`; empty: internal methods are
    // open to every local process.
    struct str internal_token;
    // Bytes of requests over 1 MiB that may be under way together; beyond it they are refused with
    // EXHAUSTED. 0: 1 GiB.
    size_t large_bytes_max;
    struct str cors_origins; // comma list, "*" for all; empty: same origin only
};

struct rpc_router *rpc_router_create(const struct rpc_router_options *options);
void rpc_router_destroy(struct rpc_router *router); // after the server; router may be NULL

// methods and context must outlive the router. The methods of a service that are not listed answer
// UNIMPLEMENTED.
void rpc_router_add_service(struct rpc_router *router, const ProtobufCServiceDescriptor *service,
                            const struct rpc_method *methods, uint32_t method_count, void *context);

// A plain HTTP page: exact path, GET (and HEAD) only unless verb says otherwise. A path that ends
// in
// /* matches everything below. The handler answers with call_reply on rpc_call(rpc).
// is_open: reachable without passing the interceptor.
void rpc_router_add_page(struct rpc_router *router, const char *verb, const char *path,
                         bool is_open, rpc_handler_fn handler, void *context);

// HTTP bindings of the methods that were added, from the route table (routes.h).
void rpc_router_add_routes(struct rpc_router *router);

// What the gRPC health service and /readyz answer. "" is the process; names are full service names.
void rpc_router_set_ready(struct rpc_router *router, bool is_ready, struct str reason);
// Whether it was set so, and the reason why not, copied into arena. Any thread.
bool rpc_router_is_ready(struct rpc_router *router, struct arena *arena, struct str *out_reason);

// Before server_drain: the process is not ready any more, and who watches that is told and let go,
// because a watch would hold up the drain. Any thread.
void rpc_router_drain(struct rpc_router *router);

// To be put into listener_options, with the router as its context.
extern const struct call_handler rpc_call_handler;

// --- In a handler or interceptor

const struct rpc_method *rpc_method(const struct rpc *rpc); // NULL: a page
struct str rpc_method_path(const struct rpc *rpc); // "/vectron.v1.VectronService/Search"; a page's
                                                   // pattern
struct call *rpc_call(struct rpc *rpc);
struct arena *rpc_arena(struct rpc *rpc);
const ProtobufCMessage *rpc_request(const struct rpc *rpc); // NULL: a page
bool rpc_is_http(const struct rpc *rpc);
// The body of a page's request. Borrowed until the request ends.
struct span rpc_body(const struct rpc *rpc);

void *rpc_user(const struct rpc *rpc); // what the interceptor left there, e.g. who is calling
void rpc_set_user(struct rpc *rpc, void *user);

void rpc_proceed(struct rpc *rpc); // the interceptor lets it through
void rpc_reply(struct rpc *rpc, const ProtobufCMessage *message);
void rpc_send(struct rpc *rpc, const ProtobufCMessage *message); // stream only
void rpc_finish(struct rpc *rpc);                                // stream only
void rpc_fail(struct rpc *rpc, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Fail with the text that a callee wrote.
void rpc_fail_error(struct rpc *rpc, enum status status, const struct error *error);
// The answer carries this header (retry-after, www-authenticate); over gRPC it is metadata.
void rpc_add_header(struct rpc *rpc, struct str name, struct str value);

void rpc_ref(struct rpc *rpc);
void rpc_unref(struct rpc *rpc);
// Called on the loop when the caller goes before the answer. One function per request.
void rpc_on_cancel(struct rpc *rpc, void (*cancelled)(struct rpc *rpc, void *context),
                   void *context);
bool rpc_is_done(const struct rpc *rpc);

// Streams: called when the queue has room again (rpc_queued_size fell under 256 KiB).
size_t rpc_queued_size(const struct rpc *rpc);
void rpc_on_writable(struct rpc *rpc, void (*writable)(struct rpc *rpc, void *context),
                     void *context);

// Run work on the pool, then done on the loop; the request is held meanwhile. When the pool is full
// the request fails with EXHAUSTED and neither is called.
void rpc_run_pooled(struct rpc *rpc, void (*work)(struct rpc *rpc, void *context),
                    void (*done)(struct rpc *rpc, void *context), void *context);
