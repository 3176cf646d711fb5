#include <stdio.h>
#include <string.h>

#include "api/rpc_internal.h"
#include "base/assert.h"
#include "base/mem.h"

// The router: what was added to it, and the way of a call from the network to its method.

#define LARGE_BYTES_MAX ((size_t)1 << 30)

enum { ROUTER_ARENA_SIZE_MAX = 16 << 20, SCRATCH_KEPT_MAX = 1 << 20 };

static void register_metrics(struct rpc_router *router)
{
    for (int status = 0; status < STATUS_COUNT; status++) {
        char labels[64];
        (void)snprintf(labels, sizeof(labels), "status=\"%s\"", status_name((enum status)status));
        router->requests[status] = metric_counter("vectron_requests_total", labels,
                                                  "Requests that have ended, by their status.");
    }
}

struct rpc_router *rpc_router_create(const struct rpc_router_options *options)
{
    struct rpc_router *router = mem_alloc(sizeof(*router));
    router->arena = arena_create(ROUTER_ARENA_SIZE_MAX);
    router->options = *options;
    router->options.internal_token = arena_str(router->arena, options->internal_token);
    if (router->options.large_bytes_max == 0)
        router->options.large_bytes_max = LARGE_BYTES_MAX;
    router->options.cors_origins = arena_str(router->arena, options->cors_origins);
    router->methods = map_create();
    router->services = map_create();
    router->health = health_create();
    register_metrics(router);
    health_add(router);
    reflection_add(router);
    return router;
}

void rpc_router_destroy(struct rpc_router *router)
{
    if (router == NULL)
        return;
    for (uint32_t i = 0; i < RPC_LOOPS_MAX; i++) {
        if (router->scratch[i] != NULL)
            buf_deinit(router->scratch[i]);
        mem_free(router->scratch[i]);
    }
    health_destroy(router->health);
    reflection_destroy(router->reflection);
    map_destroy(router->methods);
    map_destroy(router->services);
    arena_destroy(router->arena);
    mem_free(router);
}

// --- What is added

struct rpc_entry *rpc_router_add_entry(struct rpc_router *router,
                                       const ProtobufCServiceDescriptor *service,
                                       const struct rpc_method *method, void *context)
{
    const ProtobufCMethodDescriptor *descriptor =
        protobuf_c_service_descriptor_get_method_by_name(service, method->name);
    ASSERT(descriptor != NULL);
    struct rpc_entry *entry = arena_alloc(router->arena, sizeof(*entry));
    entry->path = arena_format(router->arena, "/%s/%s", service->name, method->name);
    entry->service = service;
    entry->descriptor = descriptor;
    entry->input = descriptor->input;
    entry->method = method;
    entry->context = context;
    entry->next = router->entries;
    router->entries = entry;
    (void)map_put(router->methods, entry->path, entry);
    // The value is a name that the router never writes to.
    (void)map_put(router->services, str_from_cstr(service->name), entry);
    return entry;
}

void rpc_router_add_service(struct rpc_router *router, const ProtobufCServiceDescriptor *service,
                            const struct rpc_method *methods, uint32_t method_count, void *context)
{
    for (uint32_t i = 0; i < method_count; i++)
        (void)rpc_router_add_entry(router, service, &methods[i], context);
}

void rpc_router_add_page(struct rpc_router *router, const char *verb, const char *path,
                         bool is_open, rpc_handler_fn handler, void *context)
{
    struct rpc_page *page = arena_alloc(router->arena, sizeof(*page));
    page->verb = str_from_cstr(verb != NULL ? verb : "GET");
    page->pattern = str_from_cstr(path);
    page->path = page->pattern;
    page->has_star = str_ends_with(page->path, STR("/*"));
    if (page->has_star)
        page->path.len--; // the star, not the slash
    page->is_open = is_open;
    page->handler = handler;
    page->context = context;
    page->next = router->pages;
    router->pages = page;
}

static struct rpc_entry *find_entry(const struct rpc_router *router,
                                    const struct route_binding *binding)
{
    for (struct rpc_entry *entry = router->entries; entry != NULL; entry = entry->next) {
        if (entry->service == binding->service && strcmp(entry->method->name, binding->method) == 0)
            return entry;
    }
    return NULL;
}

void rpc_router_add_routes(struct rpc_router *router)
{
    // From the last to the first, so that the list has the order of the table.
    for (uint32_t i = route_binding_count; i-- > 0;) {
        struct rpc_entry *entry = find_entry(router, &route_bindings[i]);
        if (entry == NULL)
            continue;
        struct rpc_route *route = arena_alloc(router->arena, sizeof(*route));
        *route = (struct rpc_route){router->routes, route_bindings[i].verb,
                                    route_bindings[i].pattern, entry};
        router->routes = route;
    }
    openapi_add(router);
}

void rpc_router_set_ready(struct rpc_router *router, bool is_ready, struct str reason)
{
    health_set(router->health, is_ready, reason);
}

bool rpc_router_is_ready(struct rpc_router *router, struct arena *arena, struct str *out_reason)
{
    return health_get(router->health, arena, out_reason);
}

void rpc_router_drain(struct rpc_router *router)
{
    health_set(router->health, false, STR("the process is stopping"));
    health_drain(router->health);
}

struct buf *rpc_scratch(struct rpc *rpc)
{
    uint32_t index = loop_index(call_loop(rpc->call));
    ASSERT(index < RPC_LOOPS_MAX);
    struct buf **scratch = &rpc->router->scratch[index];
    if (*scratch == NULL) {
        *scratch = mem_alloc(sizeof(**scratch));
        buf_init(*scratch, UINT32_MAX);
    }
    if ((*scratch)->capacity > SCRATCH_KEPT_MAX) {
        buf_deinit(*scratch);
        buf_init(*scratch, UINT32_MAX);
    }
    buf_clear(*scratch);
    return *scratch;
}

// --- A call comes in

static bool is_refused_as_internal(const struct rpc *rpc)
{
    struct str token = rpc->router->options.internal_token;
    return rpc->entry != NULL && rpc->entry->method->is_internal && token.len > 0 &&
           !str_equal_in_constant_time(token, call_metadata(rpc->call, STR("vectron-internal")));
}

// The method of a gRPC call; answered when there is none.
static bool find_method(struct rpc *rpc)
{
    const struct rpc_entry *entry = map_get(rpc->router->methods, call_path(rpc->call));
    if (entry == NULL || entry->method->is_http_only) {
        struct str path = rpc_shown_path(rpc);
        rpc_fail(rpc, STATUS_UNIMPLEMENTED, "no such method here: %.*s", STR_ARG(path));
        return false;
    }
    rpc->entry = entry;
    return true;
}

static void limit_size(struct rpc *rpc)
{
    size_t size_max = rpc->page != NULL || rpc->entry->is_open
                          ? OPEN_MESSAGE_SIZE_MAX
                          : rpc->entry->method->message_size_max;
    if (size_max > 0)
        call_set_message_size_max(rpc->call, size_max);
}

static void on_start(struct call *call, void *context)
{
    struct rpc *rpc = arena_alloc(call_arena(call), sizeof(*rpc));
    rpc->router = context;
    rpc->call = call;
    rpc->started_ns = loop_now_ns(call_loop(call));
    call_set_user(call, rpc);
    if (!(call_kind(call) == CALL_GRPC ? find_method(rpc) : rpc_http_find(rpc)))
        return;
    if (is_refused_as_internal(rpc)) {
        rpc_fail(rpc, STATUS_FORBIDDEN,
                 "%.*s is only for the other services: the internal token is missing or wrong",
                 STR_ARG(rpc->entry->path));
        return;
    }
    limit_size(rpc);
    rpc_begin(rpc);
}

static void on_message(struct call *call, struct span message, void *context)
{
    (void)context;
    struct rpc *rpc = call_user(call);
    rpc_receive(rpc, message);
}

static void on_half_close(struct call *call, void *context)
{
    (void)context;
    struct rpc *rpc = call_user(call);
    if (call_kind(call) != CALL_GRPC || rpc_is_done(rpc))
        return;
    if (rpc->entry->is_bidi)
        rpc_end(rpc, STATUS_OK, STR(""));
    else if (!rpc->has_request && !rpc->is_decoding)
        rpc_fail(rpc, STATUS_INVALID, "the request has no message");
}

static void on_cancelled(struct call *call, void *context)
{
    (void)context;
    struct rpc *rpc = call_user(call);
    uint64_t deadline = call_deadline_ns(call);
    bool is_late = deadline != UINT64_MAX && loop_now_ns(call_loop(call)) >= deadline;
    rpc_finished(rpc, is_late ? STATUS_TIMEOUT : STATUS_CANCELLED);
    if (rpc->cancelled != NULL)
        rpc->cancelled(rpc, rpc->cancelled_context);
}

static void on_writable(struct call *call, void *context)
{
    (void)context;
    struct rpc *rpc = call_user(call);
    if (rpc->writable != NULL)
        rpc->writable(rpc, rpc->writable_context);
}

static void on_release(struct call *call, void *context)
{
    (void)context;
    // A page answers by itself, so only here its end is seen.
    struct rpc *rpc = call_user(call);
    rpc_finished(rpc, STATUS_OK);
    arena_destroy(rpc->large_arena);
    if (rpc->large_size > 0)
        (void)atomic_fetch_sub(&rpc->router->large_bytes, rpc->large_size);
}

const struct call_handler rpc_call_handler = {
    .start = on_start,
    .message = on_message,
    .half_close = on_half_close,
    .cancelled = on_cancelled,
    .writable = on_writable,
    .release = on_release,
};
