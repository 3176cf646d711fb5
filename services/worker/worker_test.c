#include "worker/worker.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/client.h"
#include "api/placementdriver.pb-c.h"
#include "base/clock.h"
#include "base/config.h"
#include "net/server.h"
#include "server/process.h"
#include "store/store_testing.h"
#include "testing/test.h"
#include "worker/worker_internal.h"

// The whole service over the real router, joined to a placement driver that this test plays: it
// gives the worker its id and two shards of one collection.

enum { SECONDS_MAX = 20, WORKER_ID = 5, SHARDS = 2, DIMENSION = 2, FOLDER_SIZE = 640 };

#define PD(name)          Vectron__Placementdriver__V1__##name
#define PD_INIT(name)     VECTRON__PLACEMENTDRIVER__V1__##name##__INIT
#define WORKER(name)      Vectron__Worker__V1__##name
#define WORKER_INIT(name) VECTRON__WORKER__V1__##name##__INIT
#define AS(type, message) ((const WORKER(type) *)(const void *)(message))

struct fixture {
    struct net *net;
    struct rpc_router *pd_router;
    struct server *pd_server;
    struct config *config;
    void *service;
    struct channel *channel;
    struct arena *arena;
    struct error error;
    char folder[FOLDER_SIZE];
    // What the placement driver says and hears.
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t version;
    uint64_t epoch;
    bool has_collection;
    uint32_t heartbeat_count;
    uint64_t running_count; // shards, as the last heartbeat said
    int64_t vector_count;
    struct rpc *watch; // held
};

// --- The placement driver

static void fill_shard(const struct fixture *f, uint32_t index, struct arena *arena,
                       PD(MapShard) * shard)
{
    vectron__placementdriver__v1__map_shard__init(shard);
    shard->shard_id = index + 1;
    shard->range_start = index == 0 ? 0 : UINT64_MAX / 2 + 1;
    shard->range_end = index == 0 ? UINT64_MAX / 2 : UINT64_MAX;
    shard->epoch = f->epoch;
    shard->leader_id = WORKER_ID;
    shard->replicas = arena_alloc(arena, sizeof(uint64_t));
    shard->replicas[0] = WORKER_ID;
    shard->n_replicas = 1;
}

static void fill_map(struct fixture *f, struct arena *arena, PD(ClusterMap) * map)
{
    PD(MapCollection) *collection = arena_alloc(arena, sizeof(*collection));
    PD(MapWorker) *worker = arena_alloc(arena, sizeof(*worker));
    PD(MapShard) *shards = arena_alloc(arena, SHARDS * sizeof(*shards));
    pthread_mutex_lock(&f->lock);
    map->version = f->version;
    map->incarnation = arena_cstr(arena, STR("of the test"));
    vectron__placementdriver__v1__map_worker__init(worker);
    worker->worker_id = WORKER_ID;
    worker->grpc_address = arena_cstr(arena, STR("inproc:worker-test"));
    worker->state = 2;
    worker->healthy = true;
    map->workers = arena_alloc(arena, sizeof(void *));
    map->workers[0] = worker;
    map->n_workers = 1;
    vectron__placementdriver__v1__map_collection__init(collection);
    collection->name = arena_cstr(arena, STR("u/c"));
    collection->dimension = DIMENSION;
    collection->distance = arena_cstr(arena, STR("euclidean"));
    collection->shards = arena_alloc(arena, SHARDS * sizeof(void *));
    for (uint32_t i = 0; i < SHARDS; i++) {
        fill_shard(f, i, arena, &shards[i]);
        collection->shards[collection->n_shards++] = &shards[i];
    }
    map->collections = arena_alloc(arena, sizeof(void *));
    map->collections[0] = collection;
    map->n_collections = f->has_collection ? 1 : 0;
    pthread_mutex_unlock(&f->lock);
}

static void pd_register(struct rpc *rpc, void *context)
{
    (void)context;
    static char id[] = "5";
    PD(RegisterWorkerResponse) response = PD_INIT(REGISTER_WORKER_RESPONSE);
    response.worker_id = id;
    response.success = true;
    rpc_reply(rpc, &response.base);
}

static void pd_heartbeat(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    const PD(HeartbeatRequest) *request = (const void *)rpc_request(rpc);
    PD(HeartbeatResponse) response = PD_INIT(HEARTBEAT_RESPONSE);
    pthread_mutex_lock(&f->lock);
    f->heartbeat_count++;
    f->running_count = request->n_running_shards;
    f->vector_count = request->vector_count;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    response.ok = true;
    rpc_reply(rpc, &response.base);
}

static void pd_get_map(struct rpc *rpc, void *context)
{
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    fill_map(context, rpc_arena(rpc), &map);
    rpc_reply(rpc, &map.base);
}

static void watch_ended(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    f->watch = NULL;
    rpc_unref(rpc);
}

static void pd_watch_map(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    fill_map(f, rpc_arena(rpc), &map);
    f->watch = rpc;
    rpc_ref(rpc);
    rpc_on_cancel(rpc, watch_ended, f);
    rpc_send(rpc, &map.base);
}

static const struct rpc_method placement_methods[] = {
    {.name = "RegisterWorker", .handler = pd_register},
    {.name = "Heartbeat", .handler = pd_heartbeat},
};

static const struct rpc_method cluster_methods[] = {
    {.name = "GetMap", .handler = pd_get_map},
    {.name = "WatchMap", .handler = pd_watch_map, .is_stream = true},
};

static void start_placement_driver(struct fixture *f)
{
    char address[128];
    f->pd_router = rpc_router_create(&(struct rpc_router_options){0});
    rpc_router_add_service(f->pd_router,
                           &vectron__placementdriver__v1__placement_service__descriptor,
                           placement_methods, 2, f);
    rpc_router_add_service(f->pd_router, &vectron__placementdriver__v1__cluster_service__descriptor,
                           cluster_methods, 2, f);
    f->pd_server = server_create(f->net);
    CHECK_OK(server_listen(f->pd_server,
                           &(struct listener_options){.address = STR("inproc:pd-test"),
                                                      .handler = &rpc_call_handler,
                                                      .context = f->pd_router,
                                                      .has_grpc = true,
                                                      .message_size_max = 4 << 20},
                           &f->error, address));
}

// --- The worker

static enum status try_start(struct fixture *f, const char *const settings[][2])
{
    static char program[] = "worker";
    char *const arguments[] = {program, NULL};
    TRY(config_create(worker_service.settings, worker_service.setting_count, 1, arguments,
                      &f->error, &f->config));
    TRY(config_set(f->config, "grpc-addr", STR("inproc:worker-test"), &f->error));
    TRY(config_set(f->config, "pd-addrs", STR("inproc:pd-test"), &f->error));
    TRY(config_set(f->config, "data-dir", str_from_cstr(f->folder), &f->error));
    for (size_t i = 0; settings != NULL && settings[i][0] != NULL; i++)
        TRY(config_set(f->config, settings[i][0], str_from_cstr(settings[i][1]), &f->error));
    ready_set_prefix(NULL); // no ready line here
    TRY(worker_service.start(f->net, f->config, &f->error, &f->service));
    return channel_create(f->net, &(struct channel_options){.address = STR("inproc:worker-test")},
                          &f->error, &f->channel);
}

static void stop(struct fixture *f)
{
    channel_destroy(f->channel);
    if (f->service != NULL) {
        worker_service.drain(f->service, NS_PER_SECOND);
        worker_service.stop(f->service);
    }
    config_destroy(f->config);
    f->channel = NULL;
    f->service = NULL;
    f->config = NULL;
}

static void open_fixture(struct fixture *f)
{
    *f = (struct fixture){.arena = arena_create(256 << 20),
                          .lock = PTHREAD_MUTEX_INITIALIZER,
                          .changed = PTHREAD_COND_INITIALIZER,
                          .version = 1,
                          .epoch = 1,
                          .has_collection = true};
    (void)snprintf(f->folder, sizeof(f->folder), "%s/worker", test_temporary_folder());
    // One loop: what the placement driver says and hears is in order.
    CHECK_OK(net_create(&(struct net_options){.loop_count = 1}, &f->error, &f->net));
    start_placement_driver(f);
}

static void close_fixture(struct fixture *f)
{
    stop(f);
    server_destroy(f->pd_server);
    net_destroy(f->net);
    rpc_router_destroy(f->pd_router);
    arena_destroy(f->arena);
}

static void wait_running(struct fixture *f, uint64_t count)
{
    struct timespec until;
    int result = 0;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += SECONDS_MAX;
    pthread_mutex_lock(&f->lock);
    while (f->running_count != count && result == 0)
        result = pthread_cond_timedwait(&f->changed, &f->lock, &until);
    CHECK_EQ_U64(f->running_count, count);
    pthread_mutex_unlock(&f->lock);
}

static void start(struct fixture *f)
{
    if (!CHECK_OK(try_start(f, NULL)))
        (void)fprintf(stderr, "worker: %s\n", f->error.text);
    wait_running(f, SHARDS);
}

// --- Calls

static enum status ask(struct fixture *f, const char *method, const ProtobufCMessage *request,
                       const ProtobufCMessage **out_answer)
{
    *out_answer = NULL;
    f->error = (struct error){0};
    return client_call_wait(
        &(struct client_request){
            .channel = f->channel,
            .service = &vectron__worker__v1__worker_service__descriptor,
            .method = method,
            .message = request,
            .deadline_ns = clock_monotonic_ns() + SECONDS_MAX * NS_PER_SECOND,
        },
        f->arena, &f->error, out_answer);
}

static WORKER(ShardRef) * shard_ref(struct fixture *f, uint32_t shard_id, uint64_t epoch)
{
    WORKER(ShardRef) *ref = arena_alloc(f->arena, sizeof(*ref));
    vectron__worker__v1__shard_ref__init(ref);
    ref->shard_id = shard_id;
    ref->epoch = epoch;
    return ref;
}

struct put {
    uint32_t shard_id;
    const char *id;
    float values[3];
    size_t value_count;
    const char *payload;
};

static enum status upsert(struct fixture *f, const struct put *put)
{
    WORKER(UpsertPointsRequest) request = WORKER_INIT(UPSERT_POINTS_REQUEST);
    WORKER(ShardPoint) point = WORKER_INIT(SHARD_POINT);
    WORKER(ShardPoint) * points[] = {&point};
    const ProtobufCMessage *answer = NULL;
    float values[3];
    memcpy(values, put->values, sizeof(values));
    point.id = arena_cstr(f->arena, str_from_cstr(put->id));
    point.vector = values;
    point.n_vector = put->value_count;
    point.payload.data = (uint8_t *)arena_cstr(f->arena, str_from_cstr(put->payload));
    point.payload.len = put->payload != NULL ? strlen(put->payload) : 0;
    request.shard = shard_ref(f, put->shard_id, f->epoch);
    request.points = points;
    request.n_points = 1;
    return ask(f, "UpsertPoints", &request.base, &answer);
}

static enum status get(struct fixture *f, uint32_t shard_id, const char *id,
                       const WORKER(ShardPoint) * *out_point)
{
    WORKER(GetPointRequest) request = WORKER_INIT(GET_POINT_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.shard = shard_ref(f, shard_id, f->epoch);
    request.id = arena_cstr(f->arena, str_from_cstr(id));
    enum status status = ask(f, "GetPoint", &request.base, &answer);
    *out_point = status == STATUS_OK ? AS(GetPointResponse, answer)->point : NULL;
    return status;
}

static enum status search(struct fixture *f, float x, uint32_t top_k,
                          const WORKER(SearchShardsResponse) * *out_answer)
{
    WORKER(SearchShardsRequest) request = WORKER_INIT(SEARCH_SHARDS_REQUEST);
    const ProtobufCMessage *answer = NULL;
    WORKER(ShardRef) * refs[] = {shard_ref(f, 1, f->epoch), shard_ref(f, 2, f->epoch)};
    float vector[] = {x, 0};
    request.shards = refs;
    request.n_shards = 2;
    request.vector = vector;
    request.n_vector = DIMENSION;
    request.top_k = top_k;
    request.has_payloads = true;
    request.has_vectors = true;
    enum status status = ask(f, "SearchShards", &request.base, &answer);
    *out_answer = AS(SearchShardsResponse, answer);
    return status;
}

TEST(points_of_two_shards)
{
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    const ProtobufCMessage *answer = NULL;
    open_fixture(&f);
    start(&f);
    for (int i = 0; i < 10; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "p%d", i);
        CHECK_OK(upsert(&f, &(struct put){.shard_id = 1 + (uint32_t)i % 2,
                                          .id = id,
                                          .values = {(float)i, 0},
                                          .value_count = 2,
                                          .payload = "{\"a\":1}"}));
    }
    REQUIRE_OK(get(&f, 1, "p4", &point));
    REQUIRE(point != NULL && point->n_vector == 2);
    CHECK(point->vector[0] == 4 && point->payload.len == 7);
    REQUIRE_OK(search(&f, 3.4F, 4, &found));
    REQUIRE(found != NULL && found->n_hits == 4);
    static const char *const wanted[] = {"p3", "p4", "p2", "p5"};
    for (size_t i = 0; i < 4; i++)
        CHECK_CSTR(found->hits[i]->id, wanted[i]);
    CHECK(fabsf(found->hits[0]->score - 0.4F) < 1e-6F && found->hits[0]->n_vector == 2);

    WORKER(DeletePointsRequest) removal = WORKER_INIT(DELETE_POINTS_REQUEST);
    static char id[] = "p4";
    char *ids[] = {id};
    removal.shard = shard_ref(&f, 1, f.epoch);
    removal.ids = ids;
    removal.n_ids = 1;
    CHECK_OK(ask(&f, "DeletePoints", &removal.base, &answer));
    CHECK_OK(ask(&f, "DeletePoints", &removal.base, &answer)); // there is none: fine
    CHECK_STATUS(get(&f, 1, "p4", &point), STATUS_NOT_FOUND);

    WORKER(ListShardsRequest) list = WORKER_INIT(LIST_SHARDS_REQUEST);
    REQUIRE_OK(ask(&f, "ListShards", &list.base, &answer));
    REQUIRE(AS(ListShardsResponse, answer)->n_shards == 2);
    CHECK_EQ_U64(AS(ListShardsResponse, answer)->shards[0]->points +
                     AS(ListShardsResponse, answer)->shards[1]->points,
                 9);
    // A restart finds what was acknowledged.
    stop(&f);
    f.running_count = 0;
    start(&f);
    CHECK_OK(get(&f, 2, "p9", &point));
    CHECK_STATUS(get(&f, 1, "p4", &point), STATUS_NOT_FOUND);
    REQUIRE_OK(search(&f, 0, 100, &found));
    CHECK_EQ_U64(found->n_hits, 9);
    close_fixture(&f);
}

TEST(wrong_points_are_refused_whole)
{
    static const struct {
        struct put put;
        const char *word;
    } cases[] = {
        {{1, "", {1, 2}, 2, NULL}, "id is empty"},
        {{1, "x", {1, 2, 3}, 3, NULL}, "3"},
        {{1, "x", {1}, 1, NULL}, "2"},
        {{1, "x", {NAN, 1}, 2, NULL}, "points[0]"},
        {{1, "x", {1, INFINITY}, 2, NULL}, "points[0]"},
    };
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    open_fixture(&f);
    start(&f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_STATUS(upsert(&f, &cases[i].put), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(f.error.text), str_from_cstr(cases[i].word));
    }
    CHECK_STATUS(get(&f, 1, "x", &point), STATUS_NOT_FOUND);
    CHECK_STATUS(get(&f, 1, "", &point), STATUS_INVALID);
    CHECK_STATUS(search(&f, 0, 10001, &found), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("10000"));
    CHECK_STATUS(search(&f, NAN, 1, &found), STATUS_INVALID);
    close_fixture(&f);
}

TEST(shards_that_are_not_here)
{
    struct fixture f;
    open_fixture(&f);
    start(&f);
    const struct put put = {.shard_id = 9, .id = "x", .values = {1, 2}, .value_count = 2};
    CHECK_STATUS(upsert(&f, &put), STATUS_UNAVAILABLE);
    const struct put put_again = {.shard_id = 1, .id = "x", .values = {1, 2}, .value_count = 2};
    CHECK_OK(upsert(&f, &put_again));
    // A caller that has heard of a newer map than the worker: it asks for that one.
    pthread_mutex_lock(&f.lock);
    f.epoch = 8;
    f.version = 2;
    pthread_mutex_unlock(&f.lock);
    CHECK_OK(upsert(&f, &put_again));
    close_fixture(&f);
}

TEST(a_folder_has_one_worker)
{
    struct fixture f;
    static const char *const other[][2] = {{"grpc-addr", "inproc:worker-test-2"}, {NULL}};
    open_fixture(&f);
    start(&f);
    struct config *config = f.config;
    void *service = f.service;
    struct channel *channel = f.channel;
    CHECK(try_start(&f, other) != STATUS_OK);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("worker"));
    config_destroy(f.config);
    f.config = config;
    f.service = service;
    f.channel = channel;
    close_fixture(&f);
}

TEST_MAIN()
