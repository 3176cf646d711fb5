#include <string.h>

#include "api/health.pb-c.h"
#include "api/rpc_internal.h"
#include "base/mem.h"

// grpc.health.v1 (https://github.com/grpc/grpc/blob/master/doc/health-checking.md): "" is the
// process; every service of the router is as ready as the process. A watcher is told from its own
// loop's thread.

enum { REASON_SIZE = 256 };

#define SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define UNKNOWN     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct watcher {
    struct task task; // first
    struct watcher *next;
    struct watcher *previous;
    struct health *health;
    struct rpc *rpc;
    bool is_posted;  // under the mutex
    bool is_unknown; // there is no such service: nothing changes for it
    bool is_over;    // on the loop
    bool was_ready;  // as told last
};

struct health {
    pthread_mutex_t mutex;
    bool is_ready;
    bool is_draining;
    char reason[REASON_SIZE];
    struct watcher *watchers;
};

struct health *health_create(void)
{
    struct health *health = mem_alloc(sizeof(*health));
    (void)pthread_mutex_init(&health->mutex, NULL); // a default one cannot fail
    return health;
}

void health_destroy(struct health *health)
{
    (void)pthread_mutex_destroy(&health->mutex);
    mem_free(health);
}

// Under the mutex.
static void post(struct watcher *watcher)
{
    if (!watcher->is_posted)
        loop_post(call_loop(rpc_call(watcher->rpc)), &watcher->task);
    watcher->is_posted = true;
}

void health_set(struct health *health, bool is_ready, struct str reason)
{
    pthread_mutex_lock(&health->mutex);
    bool has_changed = health->is_ready != is_ready;
    size_t size = reason.len < REASON_SIZE - 1 ? reason.len : REASON_SIZE - 1;
    health->is_ready = is_ready;
    if (size > 0)
        memcpy(health->reason, reason.data, size);
    health->reason[size] = '\0';
    for (struct watcher *it = health->watchers; has_changed && it != NULL; it = it->next)
        post(it);
    pthread_mutex_unlock(&health->mutex);
}

void health_drain(struct health *health)
{
    pthread_mutex_lock(&health->mutex);
    health->is_draining = true;
    for (struct watcher *it = health->watchers; it != NULL; it = it->next)
        post(it);
    pthread_mutex_unlock(&health->mutex);
}

bool health_get(struct health *health, struct arena *arena, struct str *out_reason)
{
    pthread_mutex_lock(&health->mutex);
    bool is_ready = health->is_ready;
    if (out_reason != NULL)
        *out_reason = arena_str(arena, str_from_cstr(health->reason));
    pthread_mutex_unlock(&health->mutex);
    return is_ready;
}

// --- Check

static bool is_known(const struct rpc_router *router, const char *service)
{
    return service[0] == '\0' || map_get(router->services, str_from_cstr(service)) != NULL;
}

static void check(struct rpc *rpc, void *context)
{
    struct rpc_router *router = context;
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)rpc_request(rpc);
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    if (!is_known(router, request->service)) {
        rpc_fail(rpc, STATUS_NOT_FOUND, "service \"%.128s\" not found", request->service);
        return;
    }
    response.status = health_get(router->health, rpc_arena(rpc), NULL) ? SERVING : NOT_SERVING;
    rpc_reply(rpc, &response.base);
}

// --- Watch

static void tell(struct watcher *watcher,
                 Grpc__Health__V1__HealthCheckResponse__ServingStatus serving)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = serving;
    rpc_send(watcher->rpc, &response.base);
}

// The watcher is not used any more afterwards.
static void watcher_end(struct watcher *watcher)
{
    struct health *health = watcher->health;
    pthread_mutex_lock(&health->mutex);
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        health->watchers = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
    bool is_posted = watcher->is_posted;
    pthread_mutex_unlock(&health->mutex);
    watcher->is_over = true;
    if (!is_posted) // else its task is still to come
        rpc_unref(watcher->rpc);
}

static void watcher_run(struct task *task)
{
    struct watcher *watcher = (struct watcher *)(void *)task;
    struct health *health = watcher->health;
    pthread_mutex_lock(&health->mutex);
    watcher->is_posted = false;
    bool is_ready = health->is_ready;
    bool is_draining = health->is_draining;
    pthread_mutex_unlock(&health->mutex);
    if (watcher->is_over) {
        rpc_unref(watcher->rpc);
        return;
    }
    if (is_ready != watcher->was_ready && !watcher->is_unknown)
        tell(watcher, is_ready ? SERVING : NOT_SERVING);
    watcher->was_ready = is_ready;
    if (!is_draining)
        return;
    rpc_fail(watcher->rpc, STATUS_UNAVAILABLE, "the process is stopping");
    watcher_end(watcher);
}

static void watcher_cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    watcher_end(context);
}

static void watch(struct rpc *rpc, void *context)
{
    struct rpc_router *router = context;
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)rpc_request(rpc);
    struct watcher *watcher = arena_alloc(rpc_arena(rpc), sizeof(*watcher));
    struct health *health = router->health;
    *watcher = (struct watcher){
        .task = {.run = watcher_run},
        .health = health,
        .rpc = rpc,
        .is_unknown = !is_known(router, request->service),
    };
    rpc_ref(rpc);
    rpc_on_cancel(rpc, watcher_cancelled, watcher);
    pthread_mutex_lock(&health->mutex);
    watcher->next = health->watchers;
    if (watcher->next != NULL)
        watcher->next->previous = watcher;
    health->watchers = watcher;
    watcher->was_ready = health->is_ready;
    if (health->is_draining)
        post(watcher);
    pthread_mutex_unlock(&health->mutex);
    // A service that is not there may come, as the protocol has it; the stream stays open.
    tell(watcher, watcher->is_unknown ? UNKNOWN : watcher->was_ready ? SERVING : NOT_SERVING);
}

static const struct rpc_method methods[] = {
    {.name = "Check", .handler = check},
    {.name = "Watch", .handler = watch, .is_stream = true},
};

void health_add(struct rpc_router *router)
{
    for (uint32_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct rpc_entry *entry = rpc_router_add_entry(
            router, &grpc__health__v1__health__descriptor, &methods[i], router);
        entry->is_open = true;
    }
}
