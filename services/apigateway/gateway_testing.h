#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "api/placementdriver.pb-c.h"
#include "api/rpc.h"
#include "api/vectron.pb-c.h"
#include "api/worker.pb-c.h"
#include "apigateway/apigateway.h"
#include "apigateway/gateway.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "identity/token.h"
#include "net/server.h"
#include "testing/test.h"

// A gateway between services that are made up: a placement driver whose map the test writes,
// workers that keep points in an array and fail when told to, an auth service with one user and two
// keys. Everything is in the process, over inproc: addresses. Names are made fresh for each
// fixture, as they are the process'.

enum {
    FAKE_WORKERS = 2,
    FAKE_SHARDS = 4,
    FAKE_POINTS_MAX = 4096,
    FAKE_COLLECTIONS_MAX = 8,
    FAKE_DEADLINE_SECONDS = 20,
};

struct fake_point {
    char id[LIMIT_POINT_ID_SIZE_MAX + 1];
    uint32_t shard_id;
    float value; // vectors have one dimension here
    char payload[64];
};

struct fake_collection {
    char name[128];
    uint32_t first_shard_id;
    uint64_t epoch;
    bool is_leaderless;
};

struct fake;

struct fake_worker {
    struct fake *fake;
    uint64_t worker_id;
    struct rpc_router *router;
    char address[64];
    atomic_uint failures_left; // so many calls are answered UNAVAILABLE
    atomic_uint calls;
    atomic_bool hangs; // calls are never answered
    struct rpc *hung[64];
    uint32_t hung_count;
};

struct fake {
    struct net *net;
    struct server *server;
    struct rpc_router *pd_router;
    struct rpc_router *auth_router;
    struct fake_worker workers[FAKE_WORKERS];
    pthread_mutex_t lock; // of the rest
    struct fake_collection collections[FAKE_COLLECTIONS_MAX];
    uint32_t collection_count;
    uint32_t next_shard_id;
    uint64_t map_version;
    atomic_uint map_requests;
    struct fake_point points[FAKE_POINTS_MAX];
    uint32_t point_count;
    struct rpc *identity_watch; // held; the one stream of the gateway
    struct token_authority *authority;
    char owner_key[API_KEY_SIZE + 1];
    char reader_key[API_KEY_SIZE + 1];
    char hidden_key[API_KEY_SIZE + 1]; // the watch does not say it, only a look-up
    atomic_bool key_is_deleted;
    atomic_uint lookups;
    // The gateway.
    struct config *config;
    struct gateway *gateway;
    struct channel *channel;
};

#define FAKE_SECRET            "0123456789abcdef0123456789abcdef"
#define FAKE_USER              "user-1"
#define FAKE_AS(type, message) ((const type *)(const void *)(message))

// --- Placement driver

static inline struct fake_collection *fake_find(struct fake *fake, const char *name)
{
    for (uint32_t i = 0; i < fake->collection_count; i++) {
        if (strcmp(fake->collections[i].name, name) == 0)
            return &fake->collections[i];
    }
    return NULL;
}

static inline Vectron__Placementdriver__V1__MapCollection *
fake_map_collection(const struct fake_collection *from, struct arena *arena)
{
    Vectron__Placementdriver__V1__MapCollection *to = arena_alloc(arena, sizeof(*to));
    vectron__placementdriver__v1__map_collection__init(to);
    to->name = arena_cstr(arena, str_from_cstr(from->name));
    to->dimension = 1;
    to->distance = arena_cstr(arena, STR("euclidean"));
    to->created_at = clock_unix_seconds();
    to->n_shards = FAKE_SHARDS;
    to->shards = arena_alloc(arena, FAKE_SHARDS * sizeof(*to->shards));
    const uint64_t width = UINT64_MAX / FAKE_SHARDS;
    for (uint32_t i = 0; i < FAKE_SHARDS; i++) {
        Vectron__Placementdriver__V1__MapShard *shard = arena_alloc(arena, sizeof(*shard));
        vectron__placementdriver__v1__map_shard__init(shard);
        shard->shard_id = from->first_shard_id + i;
        shard->range_start = width * i;
        shard->range_end = i + 1 == FAKE_SHARDS ? UINT64_MAX : width * (i + 1) - 1;
        shard->epoch = from->epoch;
        shard->n_replicas = 1;
        shard->replicas = arena_alloc(arena, sizeof(*shard->replicas));
        shard->replicas[0] = 1 + i % FAKE_WORKERS;
        shard->leader_id = from->is_leaderless ? 0 : shard->replicas[0];
        to->shards[i] = shard;
    }
    return to;
}

static inline int fake_compare(const void *a, const void *b)
{
    const Vectron__Placementdriver__V1__MapCollection *const *x = a;
    const Vectron__Placementdriver__V1__MapCollection *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static inline Vectron__Placementdriver__V1__ClusterMap *fake_map(struct fake *fake,
                                                                 struct arena *arena)
{
    static char incarnation[] = "fake";
    Vectron__Placementdriver__V1__ClusterMap *map = arena_alloc(arena, sizeof(*map));
    vectron__placementdriver__v1__cluster_map__init(map);
    pthread_mutex_lock(&fake->lock);
    map->version = ++fake->map_version;
    map->incarnation = incarnation;
    map->n_collections = fake->collection_count;
    map->collections = arena_alloc(arena, (map->n_collections + 1) * sizeof(*map->collections));
    for (size_t i = 0; i < map->n_collections; i++)
        map->collections[i] = fake_map_collection(&fake->collections[i], arena);
    pthread_mutex_unlock(&fake->lock);
    qsort(map->collections, map->n_collections, sizeof(*map->collections), fake_compare);
    map->n_workers = FAKE_WORKERS;
    map->workers = arena_alloc(arena, FAKE_WORKERS * sizeof(*map->workers));
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        Vectron__Placementdriver__V1__MapWorker *worker = arena_alloc(arena, sizeof(*worker));
        vectron__placementdriver__v1__map_worker__init(worker);
        worker->worker_id = fake->workers[i].worker_id;
        worker->grpc_address = fake->workers[i].address;
        worker->state = VECTRON__PLACEMENTDRIVER__V1__WORKER_STATE__WORKER_STATE_READY;
        worker->healthy = true;
        map->workers[i] = worker;
    }
    return map;
}

// The stream stays open and says nothing more: what is new is found by asking.
static inline void fake_watch_map(struct rpc *rpc, void *context)
{
    rpc_send(rpc, &fake_map(context, rpc_arena(rpc))->base);
}

static inline void fake_get_map(struct rpc *rpc, void *context)
{
    struct fake *fake = context;
    atomic_fetch_add(&fake->map_requests, 1);
    rpc_reply(rpc, &fake_map(fake, rpc_arena(rpc))->base);
}

static inline void fake_create_collection(struct rpc *rpc, void *context)
{
    struct fake *fake = context;
    const Vectron__Placementdriver__V1__CreateCollectionRequest *request =
        FAKE_AS(Vectron__Placementdriver__V1__CreateCollectionRequest, rpc_request(rpc));
    Vectron__Placementdriver__V1__CreateCollectionResponse message =
        VECTRON__PLACEMENTDRIVER__V1__CREATE_COLLECTION_RESPONSE__INIT;
    pthread_mutex_lock(&fake->lock);
    bool is_new = fake_find(fake, request->name) == NULL;
    if (is_new) {
        struct fake_collection *made = &fake->collections[fake->collection_count++];
        *made = (struct fake_collection){.first_shard_id = fake->next_shard_id, .epoch = 1};
        (void)snprintf(made->name, sizeof(made->name), "%s", request->name);
        fake->next_shard_id += FAKE_SHARDS;
    }
    pthread_mutex_unlock(&fake->lock);
    message.success = true;
    if (is_new)
        rpc_reply(rpc, &message.base);
    else
        rpc_fail(rpc, STATUS_EXISTS, "it is there");
}

static inline void fake_delete_collection(struct rpc *rpc, void *context)
{
    struct fake *fake = context;
    const Vectron__Placementdriver__V1__DeleteCollectionRequest *request =
        FAKE_AS(Vectron__Placementdriver__V1__DeleteCollectionRequest, rpc_request(rpc));
    Vectron__Placementdriver__V1__DeleteCollectionResponse message =
        VECTRON__PLACEMENTDRIVER__V1__DELETE_COLLECTION_RESPONSE__INIT;
    pthread_mutex_lock(&fake->lock);
    struct fake_collection *found = fake_find(fake, request->name);
    if (found != NULL)
        *found = fake->collections[--fake->collection_count];
    pthread_mutex_unlock(&fake->lock);
    message.success = true;
    if (found != NULL)
        rpc_reply(rpc, &message.base);
    else
        rpc_fail(rpc, STATUS_NOT_FOUND, "it is not there");
}

static inline void fake_list_workers(struct rpc *rpc, void *context)
{
    (void)context;
    Vectron__Placementdriver__V1__ListWorkersResponse message =
        VECTRON__PLACEMENTDRIVER__V1__LIST_WORKERS_RESPONSE__INIT;
    rpc_reply(rpc, &message.base);
}

// --- Workers

static inline bool fake_fails(struct rpc *rpc, struct fake_worker *worker)
{
    atomic_fetch_add(&worker->calls, 1);
    if (atomic_load(&worker->hangs)) {
        rpc_ref(rpc);
        pthread_mutex_lock(&worker->fake->lock);
        worker->hung[worker->hung_count++] = rpc;
        pthread_mutex_unlock(&worker->fake->lock);
        return true;
    }
    unsigned left = atomic_load(&worker->failures_left);
    while (left > 0 && !atomic_compare_exchange_weak(&worker->failures_left, &left, left - 1))
        ;
    if (left > 0)
        rpc_fail(rpc, STATUS_UNAVAILABLE, "not now");
    return left > 0;
}

static inline uint32_t fake_point_index(const struct fake *fake, uint32_t shard_id, const char *id)
{
    uint32_t i = 0;
    while (i < fake->point_count &&
           (fake->points[i].shard_id != shard_id || strcmp(fake->points[i].id, id) != 0))
        i++;
    return i;
}

static inline void fake_upsert(struct rpc *rpc, void *context)
{
    struct fake_worker *worker = context;
    struct fake *fake = worker->fake;
    const Vectron__Worker__V1__UpsertPointsRequest *request =
        FAKE_AS(Vectron__Worker__V1__UpsertPointsRequest, rpc_request(rpc));
    Vectron__Worker__V1__UpsertPointsResponse message =
        VECTRON__WORKER__V1__UPSERT_POINTS_RESPONSE__INIT;
    if (fake_fails(rpc, worker))
        return;
    pthread_mutex_lock(&fake->lock);
    for (size_t i = 0; i < request->n_points; i++) {
        const Vectron__Worker__V1__ShardPoint *from = request->points[i];
        uint32_t index = fake_point_index(fake, request->shard->shard_id, from->id);
        struct fake_point *to = &fake->points[index];
        if (index == fake->point_count)
            fake->point_count++;
        (void)snprintf(to->id, sizeof(to->id), "%s", from->id);
        (void)snprintf(to->payload, sizeof(to->payload), "%.*s", (int)from->payload.len,
                       (const char *)from->payload.data);
        to->shard_id = request->shard->shard_id;
        to->value = from->vector[0];
    }
    pthread_mutex_unlock(&fake->lock);
    rpc_reply(rpc, &message.base);
}

static inline void fake_delete(struct rpc *rpc, void *context)
{
    struct fake_worker *worker = context;
    struct fake *fake = worker->fake;
    const Vectron__Worker__V1__DeletePointsRequest *request =
        FAKE_AS(Vectron__Worker__V1__DeletePointsRequest, rpc_request(rpc));
    Vectron__Worker__V1__DeletePointsResponse message =
        VECTRON__WORKER__V1__DELETE_POINTS_RESPONSE__INIT;
    if (fake_fails(rpc, worker))
        return;
    pthread_mutex_lock(&fake->lock);
    uint32_t index = fake_point_index(fake, request->shard->shard_id, request->ids[0]);
    if (index < fake->point_count)
        fake->points[index] = fake->points[--fake->point_count];
    pthread_mutex_unlock(&fake->lock);
    rpc_reply(rpc, &message.base);
}

static inline void fake_get(struct rpc *rpc, void *context)
{
    struct fake_worker *worker = context;
    struct fake *fake = worker->fake;
    const Vectron__Worker__V1__GetPointRequest *request =
        FAKE_AS(Vectron__Worker__V1__GetPointRequest, rpc_request(rpc));
    if (fake_fails(rpc, worker))
        return;
    Vectron__Worker__V1__ShardPoint point = VECTRON__WORKER__V1__SHARD_POINT__INIT;
    Vectron__Worker__V1__GetPointResponse message = VECTRON__WORKER__V1__GET_POINT_RESPONSE__INIT;
    pthread_mutex_lock(&fake->lock);
    uint32_t index = fake_point_index(fake, request->shard->shard_id, request->id);
    struct fake_point copy = {0};
    if (index < fake->point_count)
        copy = fake->points[index];
    pthread_mutex_unlock(&fake->lock);
    if (copy.id[0] == '\0') {
        rpc_fail(rpc, STATUS_NOT_FOUND, "no such point");
        return;
    }
    point.id = copy.id;
    point.n_vector = 1;
    point.vector = &copy.value;
    point.payload.len = strlen(copy.payload);
    point.payload.data = (uint8_t *)copy.payload;
    message.point = &point;
    rpc_reply(rpc, &message.base);
}

static inline bool fake_is_asked(const Vectron__Worker__V1__SearchShardsRequest *request,
                                 uint32_t shard_id)
{
    for (size_t i = 0; i < request->n_shards; i++) {
        if (request->shards[i]->shard_id == shard_id)
            return true;
    }
    return false;
}

static inline int fake_compare_hits(const void *a, const void *b)
{
    const Vectron__Worker__V1__ShardHit *const *x = a;
    const Vectron__Worker__V1__ShardHit *const *y = b;
    if ((*x)->score < (*y)->score || (*x)->score > (*y)->score)
        return (*x)->score < (*y)->score ? -1 : 1;
    return strcmp((*x)->id, (*y)->id);
}

static inline void fake_search(struct rpc *rpc, void *context)
{
    struct fake_worker *worker = context;
    struct fake *fake = worker->fake;
    struct arena *arena = rpc_arena(rpc);
    const Vectron__Worker__V1__SearchShardsRequest *request =
        FAKE_AS(Vectron__Worker__V1__SearchShardsRequest, rpc_request(rpc));
    if (fake_fails(rpc, worker))
        return;
    Vectron__Worker__V1__SearchShardsResponse message =
        VECTRON__WORKER__V1__SEARCH_SHARDS_RESPONSE__INIT;
    message.hits = arena_alloc(arena, (FAKE_POINTS_MAX + 1) * sizeof(*message.hits));
    pthread_mutex_lock(&fake->lock);
    for (uint32_t i = 0; i < fake->point_count; i++) {
        struct fake_point *point = &fake->points[i];
        if (!fake_is_asked(request, point->shard_id))
            continue;
        Vectron__Worker__V1__ShardHit *hit = arena_alloc(arena, sizeof(*hit));
        vectron__worker__v1__shard_hit__init(hit);
        float difference = point->value - request->vector[0];
        hit->id = arena_cstr(arena, str_from_cstr(point->id));
        hit->score = difference < 0 ? -difference : difference;
        if (request->has_payloads) {
            hit->payload.len = strlen(point->payload);
            hit->payload.data = (uint8_t *)arena_cstr(arena, str_from_cstr(point->payload));
        }
        if (request->has_vectors) {
            hit->vector = arena_alloc(arena, sizeof(float));
            hit->vector[0] = point->value;
            hit->n_vector = 1;
        }
        message.hits[message.n_hits++] = hit;
    }
    pthread_mutex_unlock(&fake->lock);
    qsort(message.hits, message.n_hits, sizeof(*message.hits), fake_compare_hits);
    if (message.n_hits > request->top_k)
        message.n_hits = request->top_k;
    rpc_reply(rpc, &message.base);
}

static inline void fake_list_shards(struct rpc *rpc, void *context)
{
    (void)context;
    Vectron__Worker__V1__ListShardsResponse message =
        VECTRON__WORKER__V1__LIST_SHARDS_RESPONSE__INIT;
    message.resident_bytes = 1000;
    rpc_reply(rpc, &message.base);
}

// --- Auth service

static inline Vectron__Auth__V1__KeyRecord *fake_key_record(struct arena *arena, const char *key,
                                                            const char *role, bool is_deleted)
{
    Vectron__Auth__V1__KeyRecord *record = arena_alloc(arena, sizeof(*record));
    vectron__auth__v1__key_record__init(record);
    record->key_id = arena_cstr(arena, api_key_id(str_from_cstr(key)));
    record->user_id = arena_cstr(arena, STR(FAKE_USER));
    record->role = arena_cstr(arena, str_from_cstr(role));
    record->key_hash.len = API_KEY_HASH_SIZE;
    record->key_hash.data = arena_alloc(arena, API_KEY_HASH_SIZE);
    record->is_deleted = is_deleted;
    api_key_hash(str_from_cstr(key), record->key_hash.data);
    return record;
}

static inline Vectron__Auth__V1__IdentityChanges *fake_identity(struct fake *fake,
                                                                struct arena *arena)
{
    Vectron__Auth__V1__IdentityChanges *changes = arena_alloc(arena, sizeof(*changes));
    Vectron__Auth__V1__UserRecord *user = arena_alloc(arena, sizeof(*user));
    vectron__auth__v1__identity_changes__init(changes);
    vectron__auth__v1__user_record__init(user);
    user->user_id = arena_cstr(arena, STR(FAKE_USER));
    user->plan = VECTRON__AUTH__V1__PLAN__FREE;
    user->role = arena_cstr(arena, STR("user"));
    changes->users = arena_alloc(arena, sizeof(*changes->users));
    changes->users[changes->n_users++] = user;
    changes->keys = arena_alloc(arena, 2 * sizeof(*changes->keys));
    changes->keys[changes->n_keys++] =
        fake_key_record(arena, fake->owner_key, "owner", atomic_load(&fake->key_is_deleted));
    changes->keys[changes->n_keys++] = fake_key_record(arena, fake->reader_key, "reader", false);
    return changes;
}

static inline void fake_watch_identity(struct rpc *rpc, void *context)
{
    struct fake *fake = context;
    Vectron__Auth__V1__IdentityChanges *changes = fake_identity(fake, rpc_arena(rpc));
    changes->is_snapshot = true;
    rpc_send(rpc, &changes->base);
}

static inline void fake_lookup_identity(struct rpc *rpc, void *context)
{
    struct fake *fake = context;
    Vectron__Auth__V1__IdentityChanges *changes = fake_identity(fake, rpc_arena(rpc));
    atomic_fetch_add(&fake->lookups, 1);
    changes->keys[0] = fake_key_record(rpc_arena(rpc), fake->hidden_key, "owner", false);
    rpc_reply(rpc, &changes->base);
}

static inline void fake_report_use(struct rpc *rpc, void *context)
{
    (void)context;
    Vectron__Auth__V1__ReportKeyUseResponse message =
        VECTRON__AUTH__V1__REPORT_KEY_USE_RESPONSE__INIT;
    rpc_reply(rpc, &message.base);
}

// What came along with a forwarded call, as the user's id and e-mail.
static inline void fake_get_profile(struct rpc *rpc, void *context)
{
    (void)context;
    struct arena *arena = rpc_arena(rpc);
    Vectron__Auth__V1__UserProfile user = VECTRON__AUTH__V1__USER_PROFILE__INIT;
    Vectron__Auth__V1__GetUserProfileResponse message =
        VECTRON__AUTH__V1__GET_USER_PROFILE_RESPONSE__INIT;
    user.id = arena_cstr(arena, call_metadata(rpc_call(rpc), STR("authorization")));
    user.email = arena_cstr(arena, call_metadata(rpc_call(rpc), STR("vectron-client-address")));
    message.user = &user;
    rpc_reply(rpc, &message.base);
}

// --- All of it

static const struct rpc_method fake_placement_methods[] = {
    {.name = "CreateCollection", .handler = fake_create_collection},
    {.name = "DeleteCollection", .handler = fake_delete_collection},
    {.name = "ListWorkers", .handler = fake_list_workers},
};
static const struct rpc_method fake_cluster_methods[] = {
    {.name = "WatchMap", .handler = fake_watch_map, .is_stream = true},
    {.name = "GetMap", .handler = fake_get_map},
};
static const struct rpc_method fake_worker_methods[] = {
    {.name = "UpsertPoints", .handler = fake_upsert},
    {.name = "DeletePoints", .handler = fake_delete},
    {.name = "GetPoint", .handler = fake_get},
    {.name = "SearchShards", .handler = fake_search},
    {.name = "ListShards", .handler = fake_list_shards},
};
static const struct rpc_method fake_identity_methods[] = {
    {.name = "WatchIdentity", .handler = fake_watch_identity, .is_stream = true},
    {.name = "LookupIdentity", .handler = fake_lookup_identity},
    {.name = "ReportKeyUse", .handler = fake_report_use},
};
static const struct rpc_method fake_auth_methods[] = {
    {.name = "GetUserProfile", .handler = fake_get_profile},
};

#define FAKE_ADD(router, service, methods, context)                                             \
    rpc_router_add_service(router, &(service), methods, sizeof(methods) / sizeof((methods)[0]), \
                           context)

static inline void fake_listen(struct fake *fake, const char *address, struct rpc_router *router)
{
    char bound[128];
    struct error error = {0};
    rpc_router_set_ready(router, true, STR(""));
    if (!CHECK_OK(server_listen(fake->server,
                                &(struct listener_options){
                                    .address = str_from_cstr(address),
                                    .handler = &rpc_call_handler,
                                    .context = router,
                                    .has_grpc = true,
                                    .message_size_max = 64 << 20,
                                },
                                &error, bound)))
        (void)fprintf(stderr, "%s: %s\n", address, error.text);
}

static inline struct rpc_router *fake_router(void)
{
    return rpc_router_create(&(struct rpc_router_options){0});
}

static inline void fake_start_services(struct fake *fake)
{
    static unsigned round;
    char address[64];
    unsigned number = round++;
    fake->server = server_create(fake->net);
    fake->pd_router = fake_router();
    FAKE_ADD(fake->pd_router, vectron__placementdriver__v1__placement_service__descriptor,
             fake_placement_methods, fake);
    FAKE_ADD(fake->pd_router, vectron__placementdriver__v1__cluster_service__descriptor,
             fake_cluster_methods, fake);
    fake_listen(fake, "inproc:pd", fake->pd_router);
    fake->auth_router = fake_router();
    FAKE_ADD(fake->auth_router, vectron__auth__v1__identity_service__descriptor,
             fake_identity_methods, fake);
    FAKE_ADD(fake->auth_router, vectron__auth__v1__auth_service__descriptor, fake_auth_methods,
             fake);
    fake_listen(fake, "inproc:auth", fake->auth_router);
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        struct fake_worker *worker = &fake->workers[i];
        worker->fake = fake;
        worker->worker_id = i + 1;
        (void)snprintf(address, sizeof(address), "inproc:worker%u-%u", number, i + 1);
        memcpy(worker->address, address, sizeof(address));
        worker->router = fake_router();
        FAKE_ADD(worker->router, vectron__worker__v1__worker_service__descriptor,
                 fake_worker_methods, worker);
        fake_listen(fake, address, worker->router);
    }
}

static inline void fake_set(struct fake *fake, const char *name, const char *value)
{
    struct error error = {0};
    CHECK_OK(config_set(fake->config, name, str_from_cstr(value), &error));
}

static inline void fake_start_gateway(struct fake *fake, const char *rate_limit)
{
    static char program[] = "apigateway";
    char *const arguments[] = {program, NULL};
    struct error error = {0};
    void *service = NULL;
    if (!CHECK_OK(config_create(apigateway_service.settings, apigateway_service.setting_count, 1,
                                arguments, &error, &fake->config)))
        return;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/feedback.db", test_temporary_folder());
    fake_set(fake, "grpc-addr", "inproc:gateway");
    fake_set(fake, "http-addr", "127.0.0.1:0");
    fake_set(fake, "placement-driver", "inproc:pd");
    fake_set(fake, "auth-service-addr", "inproc:auth");
    fake_set(fake, "reranker-service-addr", "inproc:reranker");
    fake_set(fake, "jwt-secret", FAKE_SECRET);
    fake_set(fake, "feedback-db-path", path);
    fake_set(fake, "rate-limit-rps", rate_limit);
    if (!CHECK_OK(apigateway_service.start(fake->net, fake->config, &error, &service))) {
        (void)fprintf(stderr, "gateway: %s\n", error.text);
        return;
    }
    fake->gateway = service;
    CHECK_OK(channel_create(fake->net, &(struct channel_options){.address = STR("inproc:gateway")},
                            &error, &fake->channel));
}

static inline struct fake *fake_start(const char *rate_limit)
{
    struct fake *fake = mem_alloc(sizeof(*fake));
    struct error error = {0};
    pthread_mutex_init(&fake->lock, NULL);
    fake->next_shard_id = 1;
    CHECK_OK(token_authority_create(&(struct token_authority_options){.secret = STR(FAKE_SECRET)},
                                    &error, &fake->authority));
    api_key_generate(fake->owner_key);
    api_key_generate(fake->reader_key);
    api_key_generate(fake->hidden_key);
    CHECK_OK(net_create(&(struct net_options){.loop_count = 2}, &error, &fake->net));
    fake_start_services(fake);
    fake_start_gateway(fake, rate_limit);
    return fake;
}

static inline void fake_stop(struct fake *fake)
{
    channel_destroy(fake->channel);
    if (fake->gateway != NULL) {
        apigateway_service.drain(fake->gateway, NS_PER_SECOND);
        apigateway_service.stop(fake->gateway);
    }
    config_destroy(fake->config);
    server_destroy(fake->server);
    rpc_router_destroy(fake->pd_router);
    rpc_router_destroy(fake->auth_router);
    for (uint32_t i = 0; i < FAKE_WORKERS; i++)
        rpc_router_destroy(fake->workers[i].router);
    net_destroy(fake->net);
    token_authority_destroy(fake->authority);
    pthread_mutex_destroy(&fake->lock);
    mem_free(fake);
}

// "Bearer …" for a key.
static inline struct str fake_token(struct fake *fake, const char *key, struct arena *arena)
{
    struct error error = {0};
    struct str jwt = {0};
    struct token token = {
        .kind = TOKEN_SDK,
        .user_id = STR(FAKE_USER),
        .plan = PLAN_FREE,
        .role = STR("owner"),
        .key_id = api_key_id(str_from_cstr(key)),
        .expires_at = clock_unix_seconds() + 1000,
    };
    CHECK_OK(
        api_key_seal(fake->authority, str_from_cstr(key), token.user_id, arena, &token.sealed_key));
    CHECK_OK(token_sign(fake->authority, &token, arena, &error, &jwt));
    return arena_format(arena, "Bearer %.*s", STR_ARG(jwt));
}

struct fake_call {
    struct fake *fake;
    struct arena *arena; // the answer lies there
    const char *key;     // NULL: no token
    uint64_t timeout_ms; // 0: long
    struct error error;
};

static inline enum status fake_ask(struct fake_call *call, const char *method,
                                   const ProtobufCMessage *message,
                                   const ProtobufCMessage **out_message)
{
    struct metadata metadata = {STR("authorization"), {0}};
    if (call->key != NULL)
        metadata.value = fake_token(call->fake, call->key, call->arena);
    uint64_t timeout_ms = call->timeout_ms > 0 ? call->timeout_ms : FAKE_DEADLINE_SECONDS * 1000;
    return client_call_wait(
        &(struct client_request){
            .channel = call->fake->channel,
            .service = &vectron__v1__vectron_service__descriptor,
            .method = method,
            .message = message,
            .deadline_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS,
            .metadata = &metadata,
            .metadata_count = call->key != NULL ? 1 : 0,
        },
        call->arena, &call->error, out_message);
}
