#include "worker/worker.h"

#include <fcntl.h>
#include <unistd.h>

#include "worker/worker_testing.h"

// The service around its points: how it starts, joins, follows the map, waits, reports and ends.

static bool is_ready(struct fixture *f, struct str *out_reason)
{
    const struct worker *worker = f->service;
    return rpc_router_is_ready(worker->router, f->arena, out_reason);
}

static bool has_heartbeats(const struct played_driver *driver)
{
    return driver->heartbeat_count >= 2;
}

TEST(it_may_start_before_its_placement_driver)
{
    struct fixture f;
    struct str reason;
    open_fixture(&f);
    REQUIRE_OK(try_start(&f, NULL));
    CHECK(!is_ready(&f, &reason));
    CHECK_CONTAINS(reason, STR("placement driver"));
    const struct put put = {.shard_id = 1, .id = "x", .values = {1, 2}, .value_count = 2};
    CHECK_STATUS(upsert(&f, &put), STATUS_UNAVAILABLE);
    start_driver(&f);
    CHECK(wait_until(&f.driver, all_run));
    CHECK(is_ready(&f, &reason));
    CHECK_OK(upsert(&f, &put));
    close_fixture(&f);
}

static bool has_measured(const struct played_driver *driver)
{
    return driver->vector_count == 2 && driver->queries_per_second_max > 0;
}

TEST(heartbeats_say_what_is_here)
{
    struct fixture f;
    const WORKER(SearchShardsResponse) *found = NULL;
    const ProtobufCMessage *answer = NULL;
    WORKER(ListShardsRequest) request = WORKER_INIT(LIST_SHARDS_REQUEST);
    open_and_start(&f);
    CHECK_OK(upsert(&f, &(struct put){1, "x", {1, 2}, 2, NULL}));
    CHECK_OK(upsert(&f, &(struct put){3, "y", {1, 2, 3}, 3, NULL}));
    CHECK_OK(find_near(&f, 0, 1, &found));
    CHECK(wait_until(&f.driver, has_measured));
    pthread_mutex_lock(&f.driver.lock);
    CHECK_EQ_U64(f.driver.metrics_vector_count, 2);
    CHECK_EQ_U64(f.driver.leader_id, 5);
    CHECK(f.driver.has_usage);
    CHECK(f.driver.latency_ms_max > 0 && f.driver.latency_ms_max < 10000);
    pthread_mutex_unlock(&f.driver.lock);
    // What the gateway asks instead.
    REQUIRE_OK(ask(&f, "ListShards", &request.base, &answer));
    const WORKER(ListShardsResponse) *list = AS(ListShardsResponse, answer);
    REQUIRE(list->n_shards == SHARDS);
    CHECK_CSTR(list->shards[0]->collection, "u/c");
    CHECK_CSTR(list->shards[2]->collection, "u/d");
    CHECK_EQ_U64(list->shards[0]->points + list->shards[1]->points, 1);
    CHECK_EQ_U64(list->shards[2]->points, 1);
    CHECK(list->shards[0]->disk_bytes > 0 && list->shards[0]->memory_bytes > 0);
    CHECK(list->resident_bytes > 0 && list->cpu_seconds > 0 && list->started_at > 0);
    close_fixture(&f);
}

static bool has_new_id(const struct played_driver *driver)
{
    return driver->register_count == 2 && driver->leader_id == 6 && driver->running_count == SHARDS;
}

TEST(a_worker_that_was_forgotten_registers_again)
{
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    open_and_start(&f);
    CHECK_OK(upsert(&f, &(struct put){1, "x", {1, 2}, 2, NULL}));
    pthread_mutex_lock(&f.driver.lock);
    f.driver.knows_nobody = true;
    f.driver.worker_id = 6;
    f.driver.version++;
    pthread_mutex_unlock(&f.driver.lock);
    on_loop(&f, send_map);
    CHECK(wait_until(&f.driver, has_new_id));
    CHECK_OK(get(&f, 1, "x", &point));
    close_fixture(&f);
}

static bool one_runs(const struct played_driver *driver)
{
    return driver->running_count == 1;
}

TEST(the_points_of_a_deleted_collection_are_gone)
{
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    open_and_start(&f);
    CHECK_OK(upsert(&f, &(struct put){1, "x", {1, 2}, 2, NULL}));
    CHECK_OK(upsert(&f, &(struct put){3, "y", {1, 2, 3}, 3, NULL}));
    pthread_mutex_lock(&f.driver.lock);
    f.driver.has_collection = false;
    f.driver.version++;
    pthread_mutex_unlock(&f.driver.lock);
    on_loop(&f, send_map);
    CHECK(wait_until(&f.driver, one_runs));
    CHECK_STATUS(get(&f, 1, "x", &point), STATUS_UNAVAILABLE);
    CHECK_STATUS(find_near(&f, 0, 1, &found), STATUS_UNAVAILABLE);
    CHECK_OK(get(&f, 3, "y", &point));
    close_fixture(&f);
}

TEST(shards_that_are_not_here)
{
    struct fixture f;
    open_and_start(&f);
    const struct put nowhere = {.shard_id = 9, .id = "x", .values = {1, 2}, .value_count = 2};
    const struct put here = {.shard_id = 1, .id = "x", .values = {1, 2}, .value_count = 2};
    CHECK_STATUS(upsert(&f, &nowhere), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("shard 9"));
    CHECK_OK(upsert(&f, &here));
    // A caller that has heard of a newer map than the worker: it asks for that one.
    pthread_mutex_lock(&f.driver.lock);
    f.driver.epoch = 8;
    f.driver.version++;
    pthread_mutex_unlock(&f.driver.lock);
    CHECK_OK(upsert(&f, &here));
    // A caller with an old map.
    struct fixture old = f;
    old.driver.epoch = 7;
    CHECK_STATUS(upsert(&old, &here), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(old.error.text), STR("epoch 7"));
    close_fixture(&f);
}

// --- Requests that end while they wait for a shard

static bool has_held_map(const struct played_driver *driver)
{
    return driver->held_map_count > 0;
}

static void hold_maps(struct fixture *f)
{
    pthread_mutex_lock(&f->driver.lock);
    f->driver.holds_maps = true;
    pthread_mutex_unlock(&f->driver.lock);
}

TEST(a_deadline_ends_the_wait_for_a_shard)
{
    struct fixture f;
    WORKER(DeletePointsRequest) request = WORKER_INIT(DELETE_POINTS_REQUEST);
    const ProtobufCMessage *answer = NULL;
    open_and_start(&f);
    hold_maps(&f);
    request.shard = shard_ref(&f, 9);
    uint64_t start_ns = clock_monotonic_ns();
    CHECK_STATUS(ask_within(&f, "DeletePoints", 100, &request.base, &answer), STATUS_TIMEOUT);
    CHECK(clock_monotonic_ns() - start_ns < SECONDS_MAX * NS_PER_SECOND / 2);
    request.shard = shard_ref(&f, 1);
    CHECK_OK(ask(&f, "DeletePoints", &request.base, &answer));
    close_fixture(&f);
}

static struct channel_call *waiting_call;

static void ended(enum status status, struct str text, const ProtobufCMessage *message,
                  void *context)
{
    (void)text;
    (void)message;
    (void)context;
    CHECK_STATUS(status, STATUS_CANCELLED); // the channel has gone
}

static void call_nowhere(struct fixture *f)
{
    WORKER(DeletePointsRequest) request = WORKER_INIT(DELETE_POINTS_REQUEST);
    request.shard = shard_ref(f, 9);
    waiting_call = client_call(&(struct client_request){
        .channel = f->channel,
        .service = &vectron__worker__v1__worker_service__descriptor,
        .method = "DeletePoints",
        .message = &request.base,
        .deadline_ns = UINT64_MAX,
        .done = ended,
    });
}

static void cancel_call(struct fixture *f)
{
    (void)f;
    channel_call_cancel(waiting_call);
}

TEST(a_caller_that_goes_ends_the_wait_for_a_shard)
{
    struct fixture f;
    open_and_start(&f);
    hold_maps(&f);
    on_loop(&f, call_nowhere);
    CHECK(wait_until(&f.driver, has_held_map));
    on_loop(&f, cancel_call);
    CHECK_OK(upsert(&f, &(struct put){1, "x", {1, 2}, 2, NULL}));
    // The service ends although the placement driver has not answered.
    stop(&f);
    close_fixture(&f);
}

TEST(it_ends_while_somebody_waits_for_a_shard)
{
    struct fixture f;
    open_and_start(&f);
    hold_maps(&f);
    on_loop(&f, call_nowhere);
    CHECK(wait_until(&f.driver, has_held_map));
    stop(&f);
    close_fixture(&f);
}

// --- Who may call, and how it may not start

TEST(with_a_cluster_secret_callers_prove_themselves)
{
    struct fixture f;
    const ProtobufCMessage *answer = NULL;
    const WORKER(ListShardsRequest) request = WORKER_INIT(LIST_SHARDS_REQUEST);
    static const char *const settings[][2] = {
        {"cluster-secret", "0123456789abcdef0123456789abcdef"}, {NULL}};
    open_fixture(&f);
    start_driver(&f);
    REQUIRE_OK(try_start(&f, settings));
    CHECK_STATUS(ask(&f, "ListShards", &request.base, &answer), STATUS_FORBIDDEN);
    f.internal = "0123456789abcdef0123456789abcdef"; // the secret itself is no proof
    CHECK_STATUS(ask(&f, "ListShards", &request.base, &answer), STATUS_FORBIDDEN);
    f.internal = ((const struct worker *)f.service)->secrets.internal_token;
    CHECK_OK(ask(&f, "ListShards", &request.base, &answer));
    CHECK(wait_until(&f.driver, has_heartbeats));
    close_fixture(&f);
}

TEST(settings_that_cannot_be)
{
    static const char *const wrong[][2][2] = {
        {{"grpc-addr", "nowhere"}, {NULL}},
        {{"grpc-addr", "0.0.0.0:0"}, {NULL}}, // without a cluster secret
        {{"raft-addr", "a:b:c:"}, {NULL}},
        {{"pd-addrs", ","}, {NULL}},
        {{"data-dir", ""}, {NULL}},
        {{"data-dir", "/dev/null/x"}, {NULL}},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct fixture f;
        open_fixture(&f);
        CHECK(try_start(&f, wrong[i]) != STATUS_OK);
        CHECK(f.service == NULL);
        CHECK_CONTAINS(str_from_cstr(f.error.text),
                       i == 5 ? STR("/dev/null") : str_from_cstr(wrong[i][0][0]));
        close_fixture(&f);
    }
}

TEST(a_folder_has_one_worker)
{
    struct fixture f;
    struct fixture second;
    static const char *const other[][2] = {{"grpc-addr", "inproc:worker-test-2"}, {NULL}};
    const WORKER(ShardPoint) *point = NULL;
    open_and_start(&f);
    CHECK_OK(upsert(&f, &(struct put){1, "x", {1, 2}, 2, NULL}));
    second = f;
    second.service = NULL;
    CHECK_STATUS(try_start(&second, other), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(second.error.text), STR("in use by another worker"));
    config_destroy(second.config);
    CHECK_OK(get(&f, 1, "x", &point));
    close_fixture(&f);
}

// --- Too much to do

// Keeps a thread of the pool busy until it is let go.
struct blocker {
    struct job job; // first
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_running;
    bool is_released;
    bool is_done;
};

static void block(struct job *job)
{
    struct blocker *blocker = (void *)job;
    pthread_mutex_lock(&blocker->lock);
    blocker->is_running = true;
    pthread_cond_broadcast(&blocker->changed);
    while (!blocker->is_released)
        pthread_cond_wait(&blocker->changed, &blocker->lock);
    pthread_mutex_unlock(&blocker->lock);
}

static void blocked(struct job *job)
{
    struct blocker *blocker = (void *)job;
    pthread_mutex_lock(&blocker->lock);
    blocker->is_done = true;
    pthread_cond_broadcast(&blocker->changed);
    pthread_mutex_unlock(&blocker->lock);
}

static void start_blocker(struct fixture *f, struct blocker *blocker, bool waits_to_run)
{
    *blocker = (struct blocker){
        .job = {.loop = net_loop(f->net, 0), .run = block, .done = blocked},
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
    CHECK_OK(pool_submit(net_pool(f->net), &blocker->job));
    pthread_mutex_lock(&blocker->lock);
    while (waits_to_run && !blocker->is_running)
        pthread_cond_wait(&blocker->changed, &blocker->lock);
    pthread_mutex_unlock(&blocker->lock);
}

static void end_blocker(struct blocker *blocker)
{
    pthread_mutex_lock(&blocker->lock);
    blocker->is_released = true;
    pthread_cond_broadcast(&blocker->changed);
    while (!blocker->is_done)
        pthread_cond_wait(&blocker->changed, &blocker->lock);
    pthread_mutex_unlock(&blocker->lock);
}

TEST(too_much_work_is_refused_at_once)
{
    struct fixture f;
    struct blocker running;
    struct blocker queued;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    const struct put put = {1, "x", {1, 2}, 2, NULL};
    struct find bare = {.shard_ids = {1}, .vector = {1, 2}, .value_count = 2, .is_bare = true};
    open_fixture_with(
        &f, &(struct net_options){.loop_count = 1, .pool_thread_count = 1, .pool_queue_max = 1});
    start_driver(&f);
    start(&f);
    CHECK_OK(upsert(&f, &put));
    start_blocker(&f, &running, true);
    start_blocker(&f, &queued, false);
    CHECK_STATUS(upsert(&f, &put), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("overloaded"));
    CHECK_STATUS(get(&f, 1, "x", &point), STATUS_EXHAUSTED);
    CHECK_STATUS(find_near(&f, 0, 1, &found), STATUS_EXHAUSTED);
    CHECK_OK(find(&f, &bare, &found)); // short: needs no thread
    end_blocker(&running);
    end_blocker(&queued);
    CHECK_OK(upsert(&f, &put));
    CHECK_OK(get(&f, 1, "x", &point));
    close_fixture(&f);
}

TEST_MAIN()
