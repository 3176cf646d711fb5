#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/rpc.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/metrics.h"
#include "net/loop.h"
#include "net/pool.h"

// The parts of a router that its own files share: router.c has the router and what was added to it;
// rpc.c one request from its decoding to its answer; rpc_http.c the HTTP face; routes.c which verb
// and path stand for which method; health.c and reflection.c the services that every port has;
// openapi.c the description of the HTTP face.

enum {
    RPC_LOOPS_MAX = 1024,
    // What anybody may send without a token, to pages and to the router's own services.
    OPEN_MESSAGE_SIZE_MAX = 64 << 10,
    OPEN_MESSAGES_MAX = 1000, // in one stream
    SHOWN_PATH_SIZE_MAX = 256,
};

// A method that was added, or one of the router's own services.
struct rpc_entry {
    struct rpc_entry *next;
    struct str path; // "/vectron.v1.VectronService/Search"
    const ProtobufCServiceDescriptor *service;
    const ProtobufCMethodDescriptor *descriptor;
    const ProtobufCMessageDescriptor *input;
    const struct rpc_method *method;
    void *context;
    bool is_open; // health and reflection: reachable without passing the interceptor
    bool is_bidi; // the handler is called with each message, the end of them ends the call
};

struct rpc_page {
    struct rpc_page *next;
    struct str verb;
    struct str path; // without the star
    struct str pattern;
    bool has_star;
    bool is_open;
    rpc_handler_fn handler;
    void *context;
};

// A row of the route table that has a method behind it.
struct rpc_route {
    struct rpc_route *next;
    const char *verb;
    const char *pattern; // "/v1/collections/{name}/status"
    struct rpc_entry *entry;
};

struct health;
struct reflection;

struct rpc_router {
    struct rpc_router_options options;
    struct map *methods;  // path -> struct rpc_entry
    struct map *services; // full name -> ProtobufCServiceDescriptor
    struct rpc_entry *entries;
    struct rpc_page *pages;
    struct rpc_route *routes;
    struct health *health;
    struct reflection *reflection;
    _Atomic size_t large_bytes; // of large requests that are under way
    struct arena *arena;        // of all of the above
    struct metric *requests[STATUS_COUNT];
    struct buf *scratch[RPC_LOOPS_MAX]; // of each loop, for the bytes of an answer
};

enum { ROUTE_VARIABLES_MAX = 2 };

struct route_variable {
    struct str name;
    struct str text;
};

struct rpc {
    struct rpc_router *router;
    struct call *call;
    const struct rpc_entry *entry; // NULL: a page, or nothing at all
    const struct rpc_page *page;
    ProtobufCMessage *request;
    struct span body;
    struct arena *large_arena; // of a request that was decoded on the pool, or NULL
    size_t large_size;         // its bytes, of the router's budget
    uint32_t message_count;
    void *user;
    uint64_t started_ns;
    struct route_variable variables[ROUTE_VARIABLES_MAX];
    uint32_t variable_count;
    bool has_passed;   // the interceptor
    bool has_request;  // the request is decoded, or the page's body is there
    bool is_decoding;  // on the pool
    bool was_handled;  // the handler was called
    bool was_finished; // options.finished was called
    bool has_retry_after;
    bool has_authenticate;
    void (*cancelled)(struct rpc *rpc, void *context);
    void *cancelled_context;
    void (*writable)(struct rpc *rpc, void *context);
    void *writable_context;
};

// --- rpc.c

// The headers of a request are there, and what it is for is known: ask the interceptor.
void rpc_begin(struct rpc *rpc);
// The bytes of the request.
void rpc_receive(struct rpc *rpc, struct span bytes);
// Everything but bytes and fields: the status and text that end it, in the way the request came.
void rpc_end(struct rpc *rpc, enum status status, struct str text);
// Tell options.finished, once.
void rpc_finished(struct rpc *rpc, enum status status);
struct buf *rpc_scratch(struct rpc *rpc);
struct str rpc_shown_path(const struct rpc *rpc); // as much of it as is worth showing

// --- rpc_http.c

// Find the page or route; answers at once what is neither, and OPTIONS. False: it was answered.
bool rpc_http_find(struct rpc *rpc);
// Everything that is decoded lies in the arena. Loop or pool.
enum status rpc_http_decode(struct rpc *rpc, struct span body, struct arena *arena,
                            struct error *error, ProtobufCMessage **out_message);
void rpc_http_reply(struct rpc *rpc, const ProtobufCMessage *message);
void rpc_http_fail(struct rpc *rpc, int http_code, enum status status, struct str text);

// --- routes.c

struct route_binding {
    const ProtobufCServiceDescriptor *service;
    const char *method;
    const char *verb;
    const char *pattern;
};
extern const struct route_binding route_bindings[];
extern const uint32_t route_binding_count;

// Whether the path fits the pattern; the variables are as they stand in the path. literals receives
// how many segments are no variables: of two patterns that fit, the one with more of them is meant.
bool route_match(const char *pattern, struct str path,
                 struct route_variable variables[static ROUTE_VARIABLES_MAX],
                 uint32_t *out_variable_count, uint32_t *out_literal_count);
// %41 becomes A; with has_plus, + becomes a space. False: malformed, or it holds a NUL.
bool route_unescape(struct str text, bool has_plus, struct arena *arena, struct str *out_text);

// --- router.c

struct rpc_entry *rpc_router_add_entry(struct rpc_router *router,
                                       const ProtobufCServiceDescriptor *service,
                                       const struct rpc_method *method, void *context);

// --- health.c

struct health *health_create(void);
void health_destroy(struct health *health);
void health_add(struct rpc_router *router);
void health_set(struct health *health, bool is_ready, struct str reason);
void health_drain(struct health *health);
bool health_get(struct health *health, struct arena *arena, struct str *out_reason);

// --- reflection.c

void reflection_add(struct rpc_router *router);
void reflection_destroy(struct reflection *reflection);

// --- openapi.c

void openapi_add(struct rpc_router *router);
