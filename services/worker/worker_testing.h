#pragma once

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
#include "worker/worker.h"
#include "worker/worker_internal.h"

// For the tests of the worker: the whole service over the real router, joined to a placement driver
// that the test plays. Its map has two collections: "u/c" of two dimensions in the shards 1 and 2,
// euclidean unless told, and "u/d" of three in shard 3, cosine.

enum { SECONDS_MAX = 30, SHARDS = 3, FOLDER_SIZE = 640 };

#define PD(name)          Vectron__Placementdriver__V1__##name
#define PD_INIT(name)     VECTRON__PLACEMENTDRIVER__V1__##name##__INIT
#define WORKER(name)      Vectron__Worker__V1__##name
#define WORKER_INIT(name) VECTRON__WORKER__V1__##name##__INIT
#define AS(type, message) ((const WORKER(type) *)(const void *)(message))

// What the placement driver says and hears.
struct played_driver {
    struct rpc_router *router;
    struct server *server;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t version;
    uint64_t epoch;
    uint64_t worker_id;      // that the next registration gets
    bool has_collection;     // "u/c"
    bool knows_nobody;       // heartbeats are refused until somebody registers
    bool holds_maps;         // a question for the map gets no answer
    uint32_t held_map_count; // questions without one
    uint32_t register_count;
    uint32_t heartbeat_count;
    // The last heartbeat.
    uint64_t running_count;
    int64_t vector_count;
    int64_t metrics_vector_count; // its shards' together
    float queries_per_second_max; // of all heartbeats
    float latency_ms_max;
    uint64_t leader_id; // of each of its shards, or 0
    bool has_usage;
    // Loop only.
    struct rpc *watch;
    struct rpc *held; // the last
};

struct fixture {
    struct net *net;
    struct config *config;
    void *service;
    struct channel *channel;
    struct arena *arena;
    struct error error;
    char folder[FOLDER_SIZE];
    const char *distance; // of "u/c"
    const char *internal; // the proof that calls show; NULL: none
    struct played_driver driver;
};

// --- The placement driver

static inline void fill_collection(const struct played_driver *driver, struct arena *arena,
                                   uint32_t first_shard, uint32_t shard_count,
                                   PD(MapCollection) * collection)
{
    const uint64_t part = UINT64_MAX / shard_count;
    collection->shards = arena_alloc(arena, shard_count * sizeof(void *));
    for (uint32_t i = 0; i < shard_count; i++) {
        PD(MapShard) *shard = arena_alloc(arena, sizeof(*shard));
        vectron__placementdriver__v1__map_shard__init(shard);
        shard->shard_id = first_shard + i;
        shard->range_start = i == 0 ? 0 : part * i + 1;
        shard->range_end = i + 1 == shard_count ? UINT64_MAX : part * (i + 1);
        shard->epoch = driver->epoch;
        shard->leader_id = driver->worker_id;
        shard->replicas = arena_alloc(arena, sizeof(uint64_t));
        shard->replicas[0] = driver->worker_id;
        shard->n_replicas = 1;
        collection->shards[collection->n_shards++] = shard;
    }
}

static inline PD(MapCollection) * add_collection(struct arena *arena, PD(ClusterMap) * map,
                                                 const char *name, int32_t dimension,
                                                 const char *distance)
{
    PD(MapCollection) *collection = arena_alloc(arena, sizeof(*collection));
    vectron__placementdriver__v1__map_collection__init(collection);
    collection->name = arena_cstr(arena, str_from_cstr(name));
    collection->dimension = dimension;
    collection->distance = arena_cstr(arena, str_from_cstr(distance));
    map->collections[map->n_collections++] = collection;
    return collection;
}

static inline void fill_map(struct fixture *f, struct arena *arena, PD(ClusterMap) * map)
{
    struct played_driver *driver = &f->driver;
    PD(MapWorker) *worker = arena_alloc(arena, sizeof(*worker));
    pthread_mutex_lock(&driver->lock);
    map->version = driver->version;
    map->incarnation = arena_cstr(arena, STR("of the test"));
    vectron__placementdriver__v1__map_worker__init(worker);
    worker->worker_id = driver->worker_id;
    worker->grpc_address = arena_cstr(arena, STR("inproc:worker-test"));
    worker->state = 2;
    worker->healthy = true;
    map->workers = arena_alloc(arena, sizeof(void *));
    map->workers[0] = worker;
    map->n_workers = 1;
    map->collections = arena_alloc(arena, 2 * sizeof(void *));
    if (driver->has_collection)
        fill_collection(driver, arena, 1, 2, add_collection(arena, map, "u/c", 2, f->distance));
    fill_collection(driver, arena, 3, 1, add_collection(arena, map, "u/d", 3, "cosine"));
    pthread_mutex_unlock(&driver->lock);
}

static inline void driver_register(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    struct played_driver *driver = &f->driver;
    PD(RegisterWorkerResponse) response = PD_INIT(REGISTER_WORKER_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    struct str id = arena_format(rpc_arena(rpc), "%llu", (unsigned long long)driver->worker_id);
    response.worker_id = arena_cstr(rpc_arena(rpc), id);
    driver->register_count++;
    driver->knows_nobody = false;
    pthread_cond_broadcast(&driver->changed);
    pthread_mutex_unlock(&driver->lock);
    response.success = true;
    rpc_reply(rpc, &response.base);
}

static inline void hear(struct played_driver *driver, const PD(HeartbeatRequest) * request)
{
    driver->heartbeat_count++;
    driver->running_count = request->n_running_shards;
    driver->vector_count = request->vector_count;
    driver->metrics_vector_count = 0;
    for (size_t i = 0; i < request->n_shard_metrics; i++) {
        const PD(ShardMetrics) *metrics = request->shard_metrics[i];
        driver->metrics_vector_count += metrics->vector_count;
        if (metrics->avg_latency_ms > driver->latency_ms_max)
            driver->latency_ms_max = metrics->avg_latency_ms;
    }
    if (request->queries_per_second > driver->queries_per_second_max)
        driver->queries_per_second_max = request->queries_per_second;
    driver->leader_id = 0;
    for (size_t i = 0; i < request->n_shard_leader_info; i++)
        driver->leader_id = request->shard_leader_info[i]->leader_id;
    driver->has_usage = request->memory_bytes > 0 && request->memory_usage_percent > 0 &&
                        request->disk_usage_percent > 0 && request->timestamp > 0 &&
                        request->active_shards == (int64_t)request->n_running_shards &&
                        request->n_shard_progress == request->n_running_shards;
}

static inline void driver_heartbeat(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    struct played_driver *driver = &f->driver;
    static char forgotten[] = "register again";
    PD(HeartbeatResponse) response = PD_INIT(HEARTBEAT_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    response.ok = !driver->knows_nobody;
    if (driver->knows_nobody)
        response.message = forgotten;
    else
        hear(driver, (const void *)rpc_request(rpc));
    pthread_cond_broadcast(&driver->changed);
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
}

static inline void driver_get_map(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    struct played_driver *driver = &f->driver;
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    pthread_mutex_lock(&driver->lock);
    bool is_held = driver->holds_maps;
    driver->held_map_count += is_held;
    pthread_cond_broadcast(&driver->changed);
    pthread_mutex_unlock(&driver->lock);
    if (is_held) {
        if (driver->held != NULL)
            rpc_unref(driver->held);
        driver->held = rpc;
        rpc_ref(rpc);
        return;
    }
    fill_map(f, rpc_arena(rpc), &map);
    rpc_reply(rpc, &map.base);
}

static inline void driver_watch_ended(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    if (f->driver.watch == rpc)
        f->driver.watch = NULL;
    rpc_unref(rpc);
}

static inline void driver_watch_map(struct rpc *rpc, void *context)
{
    struct fixture *f = context;
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    fill_map(f, rpc_arena(rpc), &map);
    f->driver.watch = rpc;
    rpc_ref(rpc);
    rpc_on_cancel(rpc, driver_watch_ended, f);
    rpc_send(rpc, &map.base);
}

static const struct rpc_method driver_placement_methods[] = {
    {.name = "RegisterWorker", .handler = driver_register},
    {.name = "Heartbeat", .handler = driver_heartbeat},
};

static const struct rpc_method driver_cluster_methods[] = {
    {.name = "GetMap", .handler = driver_get_map},
    {.name = "WatchMap", .handler = driver_watch_map, .is_stream = true},
};

static inline void start_driver(struct fixture *f)
{
    char address[128];
    struct played_driver *driver = &f->driver;
    driver->router = rpc_router_create(&(struct rpc_router_options){0});
    rpc_router_add_service(driver->router,
                           &vectron__placementdriver__v1__placement_service__descriptor,
                           driver_placement_methods, 2, f);
    rpc_router_add_service(driver->router,
                           &vectron__placementdriver__v1__cluster_service__descriptor,
                           driver_cluster_methods, 2, f);
    driver->server = server_create(f->net);
    CHECK_OK(server_listen(driver->server,
                           &(struct listener_options){.address = STR("inproc:pd-test"),
                                                      .handler = &rpc_call_handler,
                                                      .context = driver->router,
                                                      .has_grpc = true,
                                                      .message_size_max = 4 << 20},
                           &f->error, address));
}

// Runs on the loop, which does nothing else meanwhile.
struct loop_work {
    struct task task; // first
    struct fixture *f;
    void (*run)(struct fixture *f);
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool is_done;
};

static inline void run_loop_work(struct task *task)
{
    struct loop_work *work = (void *)task;
    work->run(work->f);
    pthread_mutex_lock(&work->lock);
    work->is_done = true;
    pthread_cond_signal(&work->ended);
    pthread_mutex_unlock(&work->lock);
}

static inline void on_loop(struct fixture *f, void (*run)(struct fixture *f))
{
    struct loop_work work = {.task = {.run = run_loop_work},
                             .f = f,
                             .run = run,
                             .lock = PTHREAD_MUTEX_INITIALIZER,
                             .ended = PTHREAD_COND_INITIALIZER};
    loop_post(net_loop(f->net, 0), &work.task);
    pthread_mutex_lock(&work.lock);
    while (!work.is_done)
        pthread_cond_wait(&work.ended, &work.lock);
    pthread_mutex_unlock(&work.lock);
}

static inline void send_map(struct fixture *f)
{
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    if (f->driver.watch == NULL)
        return;
    fill_map(f, rpc_arena(f->driver.watch), &map);
    rpc_send(f->driver.watch, &map.base);
}

static inline void let_maps_go(struct fixture *f)
{
    struct rpc *held = f->driver.held;
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    if (held == NULL)
        return;
    f->driver.held = NULL;
    fill_map(f, rpc_arena(held), &map);
    rpc_reply(held, &map.base);
    rpc_unref(held);
}

// Until it holds; false: too much time has passed.
static inline bool wait_until(struct played_driver *driver,
                              bool (*holds)(const struct played_driver *))
{
    struct timespec until;
    int result = 0;
    if (clock_gettime(CLOCK_REALTIME, &until) != 0)
        return false;
    until.tv_sec += SECONDS_MAX;
    pthread_mutex_lock(&driver->lock);
    while (!holds(driver) && result == 0)
        result = pthread_cond_timedwait(&driver->changed, &driver->lock, &until);
    bool is_so = holds(driver);
    pthread_mutex_unlock(&driver->lock);
    return is_so;
}

static inline bool all_run(const struct played_driver *driver)
{
    return driver->running_count == SHARDS;
}

// --- The worker

static inline enum status try_start(struct fixture *f, const char *const settings[][2])
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

static inline void stop(struct fixture *f)
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
    pthread_mutex_lock(&f->driver.lock);
    f->driver.running_count = 0;
    pthread_mutex_unlock(&f->driver.lock);
}

static inline void open_fixture_with(struct fixture *f, const struct net_options *options)
{
    *f = (struct fixture){.arena = arena_create(256 << 20),
                          .distance = "euclidean",
                          .driver = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                     .changed = PTHREAD_COND_INITIALIZER,
                                     .version = 1,
                                     .epoch = 1,
                                     .worker_id = 5,
                                     .has_collection = true}};
    (void)snprintf(f->folder, sizeof(f->folder), "%s/worker", test_temporary_folder());
    CHECK_OK(net_create(options, &f->error, &f->net));
}

static inline void open_fixture(struct fixture *f)
{
    // One loop: what the placement driver says and hears is in order.
    open_fixture_with(f, &(struct net_options){.loop_count = 1});
}

static inline void close_fixture(struct fixture *f)
{
    on_loop(f, let_maps_go);
    stop(f);
    server_destroy(f->driver.server);
    net_destroy(f->net);
    rpc_router_destroy(f->driver.router);
    arena_destroy(f->arena);
}

static inline void start(struct fixture *f)
{
    if (!CHECK_OK(try_start(f, NULL)))
        (void)fprintf(stderr, "worker: %s\n", f->error.text);
    CHECK(wait_until(&f->driver, all_run));
}

static inline void open_and_start(struct fixture *f)
{
    open_fixture(f);
    start_driver(f);
    start(f);
}

// --- Calls

static inline enum status ask_within(struct fixture *f, const char *method, uint64_t timeout_ms,
                                     const ProtobufCMessage *request,
                                     const ProtobufCMessage **out_answer)
{
    const struct metadata proof = {STR("vectron-internal"), str_from_cstr(f->internal)};
    *out_answer = NULL;
    f->error = (struct error){0};
    return client_call_wait(
        &(struct client_request){
            .channel = f->channel,
            .service = &vectron__worker__v1__worker_service__descriptor,
            .method = method,
            .message = request,
            .deadline_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS,
            .metadata = &proof,
            .metadata_count = f->internal != NULL ? 1 : 0,
        },
        f->arena, &f->error, out_answer);
}

static inline enum status ask(struct fixture *f, const char *method,
                              const ProtobufCMessage *request, const ProtobufCMessage **out_answer)
{
    return ask_within(f, method, SECONDS_MAX * 1000, request, out_answer);
}

static inline WORKER(ShardRef) * shard_ref(struct fixture *f, uint32_t shard_id)
{
    WORKER(ShardRef) *ref = arena_alloc(f->arena, sizeof(*ref));
    vectron__worker__v1__shard_ref__init(ref);
    ref->shard_id = shard_id;
    ref->epoch = f->driver.epoch;
    return ref;
}

struct put {
    uint32_t shard_id;
    const char *id;
    float values[4];
    size_t value_count;
    const char *payload; // NULL: none
};

static inline WORKER(ShardPoint) * point_of(struct fixture *f, const struct put *put)
{
    WORKER(ShardPoint) *point = arena_alloc(f->arena, sizeof(*point));
    vectron__worker__v1__shard_point__init(point);
    point->id = arena_cstr(f->arena, str_from_cstr(put->id));
    point->vector = arena_alloc(f->arena, sizeof(put->values));
    memcpy(point->vector, put->values, sizeof(put->values));
    point->n_vector = put->value_count;
    point->payload.data = (uint8_t *)arena_cstr(f->arena, str_from_cstr(put->payload));
    point->payload.len = put->payload != NULL ? strlen(put->payload) : 0;
    return point;
}

// All in one request, to the shard of the first.
static inline enum status upsert_all(struct fixture *f, const struct put *puts, size_t count)
{
    WORKER(UpsertPointsRequest) request = WORKER_INIT(UPSERT_POINTS_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.shard = shard_ref(f, puts[0].shard_id);
    request.points = arena_alloc(f->arena, count * sizeof(void *));
    for (size_t i = 0; i < count; i++)
        request.points[request.n_points++] = point_of(f, &puts[i]);
    return ask(f, "UpsertPoints", &request.base, &answer);
}

static inline enum status upsert(struct fixture *f, const struct put *put)
{
    return upsert_all(f, put, 1);
}

// Without a point: one without anything.
static inline enum status get(struct fixture *f, uint32_t shard_id, const char *id,
                              const WORKER(ShardPoint) * *out_point)
{
    static const WORKER(ShardPoint) none = WORKER_INIT(SHARD_POINT);
    WORKER(GetPointRequest) request = WORKER_INIT(GET_POINT_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.shard = shard_ref(f, shard_id);
    request.id = arena_cstr(f->arena, str_from_cstr(id));
    enum status status = ask(f, "GetPoint", &request.base, &answer);
    *out_point = &none;
    if (status == STATUS_OK && answer != NULL && AS(GetPointResponse, answer)->point != NULL)
        *out_point = AS(GetPointResponse, answer)->point;
    return status;
}

static inline enum status delete_point(struct fixture *f, uint32_t shard_id, const char *id)
{
    WORKER(DeletePointsRequest) request = WORKER_INIT(DELETE_POINTS_REQUEST);
    const ProtobufCMessage *answer = NULL;
    char *ids[] = {arena_cstr(f->arena, str_from_cstr(id))};
    request.shard = shard_ref(f, shard_id);
    request.ids = ids;
    request.n_ids = 1;
    return ask(f, "DeletePoints", &request.base, &answer);
}

struct find {
    uint32_t shard_ids[2]; // 0: none
    float vector[4];
    size_t value_count;
    uint32_t top_k;
    bool is_bare; // hits without vectors and payloads
};

static inline enum status find(struct fixture *f, const struct find *find,
                               const WORKER(SearchShardsResponse) * *out_answer)
{
    static const WORKER(SearchShardsResponse) none = WORKER_INIT(SEARCH_SHARDS_RESPONSE);
    WORKER(SearchShardsRequest) request = WORKER_INIT(SEARCH_SHARDS_REQUEST);
    const ProtobufCMessage *answer = NULL;
    WORKER(ShardRef) * refs[2];
    float vector[4];
    memcpy(vector, find->vector, sizeof(vector));
    request.shards = refs;
    for (size_t i = 0; i < 2 && find->shard_ids[i] != 0; i++)
        refs[request.n_shards++] = shard_ref(f, find->shard_ids[i]);
    request.vector = vector;
    request.n_vector = find->value_count;
    request.top_k = find->top_k;
    request.has_payloads = !find->is_bare;
    request.has_vectors = !find->is_bare;
    enum status status = ask(f, "SearchShards", &request.base, &answer);
    *out_answer = answer != NULL ? AS(SearchShardsResponse, answer) : &none;
    return status;
}

// In both shards of "u/c", near (x, 0).
static inline enum status find_near(struct fixture *f, float x, uint32_t top_k,
                                    const WORKER(SearchShardsResponse) * *out_answer)
{
    return find(
        f, &(struct find){.shard_ids = {1, 2}, .vector = {x, 0}, .value_count = 2, .top_k = top_k},
        out_answer);
}
