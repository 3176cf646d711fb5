#include "worker/hosting.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "store/store_testing.h"
#include "testing/test.h"

enum { WAIT_SECONDS = 20, SELF = 3, OTHER = 4 };

// --- Maps: collection "c<n>" has one shard, n

struct map_shape {
    const char *incarnation;
    uint64_t version;
    uint64_t epoch;
    uint32_t shard_ids[8]; // ascending; 0 ends them
    uint32_t others;       // bit n: shard n is another worker's
};

static Vectron__Placementdriver__V1__MapCollection *
make_collection(const struct map_shape *shape, uint32_t shard_id, struct arena *arena)
{
    Vectron__Placementdriver__V1__MapCollection *collection =
        arena_alloc(arena, sizeof(*collection));
    Vectron__Placementdriver__V1__MapShard *shard = arena_alloc(arena, sizeof(*shard));
    char name[16];
    vectron__placementdriver__v1__map_collection__init(collection);
    vectron__placementdriver__v1__map_shard__init(shard);
    (void)snprintf(name, sizeof(name), "c%u", shard_id);
    collection->name = arena_cstr(arena, str_from_cstr(name));
    collection->dimension = 2;
    collection->distance = arena_cstr(arena, STR("euclidean"));
    collection->shards = arena_alloc(arena, sizeof(void *));
    collection->shards[0] = shard;
    collection->n_shards = 1;
    shard->shard_id = shard_id;
    shard->range_end = UINT64_MAX;
    shard->epoch = shape->epoch;
    shard->leader_id = (shape->others >> shard_id & 1) > 0 ? OTHER : SELF;
    shard->replicas = arena_alloc(arena, sizeof(uint64_t));
    shard->replicas[0] = shard->leader_id;
    shard->n_replicas = 1;
    return collection;
}

static struct cluster_map *make_map(const struct map_shape *shape)
{
    struct arena *arena = arena_create(1 << 20);
    struct cluster_map *map = NULL;
    struct error error;
    Vectron__Placementdriver__V1__ClusterMap message =
        VECTRON__PLACEMENTDRIVER__V1__CLUSTER_MAP__INIT;
    message.version = shape->version;
    message.incarnation = arena_cstr(arena, str_from_cstr(shape->incarnation));
    message.collections = arena_alloc(arena, 8 * sizeof(void *));
    for (uint32_t i = 0; i < 8 && shape->shard_ids[i] != 0; i++)
        message.collections[message.n_collections++] =
            make_collection(shape, shape->shard_ids[i], arena);
    CHECK_OK(cluster_map_create(&message, &error, &map));
    arena_destroy(arena);
    return map;
}

// --- A hosting on a network of its own

struct fixture {
    struct net *net;
    struct hosting *hosting;
    char path[4200];
};

struct order {
    struct task task;
    struct fixture *fixture;
    uint64_t worker_id;
    atomic_bool is_done;
};

static void set_worker_id(struct task *task)
{
    struct order *order = (struct order *)(void *)task;
    hosting_set_worker_id(order->fixture->hosting, order->worker_id);
    atomic_store(&order->is_done, true);
}

static void pause_ms(long ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000};
    (void)nanosleep(&pause, NULL);
}

static void be_worker(struct fixture *fixture, uint64_t worker_id)
{
    struct order order = {
        .task = {.run = set_worker_id}, .fixture = fixture, .worker_id = worker_id};
    loop_post(net_loop(fixture->net, 0), &order.task);
    while (!atomic_load(&order.is_done))
        pause_ms(1);
}

static void start(struct fixture *fixture)
{
    struct error error;
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 2, .pool_thread_count = 4}, &error,
                          &fixture->net));
    fixture->hosting = hosting_create(
        &(struct hosting_options){.net = fixture->net, .path = str_from_cstr(fixture->path)});
    be_worker(fixture, SELF);
}

static void stop(struct fixture *fixture)
{
    hosting_destroy(fixture->hosting);
    net_destroy(fixture->net);
}

static void offer(struct fixture *fixture, const struct map_shape *shape)
{
    struct cluster_map *map = make_map(shape);
    hosting_offer(fixture->hosting, map);
    cluster_map_unref(map);
}

// Waits until exactly these shards are open, at this epoch.
static bool wait_for(struct fixture *fixture, const struct map_shape *shape)
{
    uint64_t end = clock_monotonic_ns() + WAIT_SECONDS * NS_PER_SECOND;
    while (clock_monotonic_ns() < end) {
        uint32_t count = 0;
        uint32_t wanted = 0;
        uint32_t right = 0;
        struct hosted **list = hosting_list(fixture->hosting, &count);
        for (uint32_t i = 0; i < 8 && shape->shard_ids[i] != 0; i++) {
            if ((shape->others >> shape->shard_ids[i] & 1) > 0)
                continue;
            right += wanted < count && list[wanted]->shard_id == shape->shard_ids[i] &&
                     atomic_load(&list[wanted]->epoch) == shape->epoch;
            wanted++;
        }
        hosting_list_free(list, count);
        if (right == wanted && count == wanted)
            return true;
        pause_ms(2);
    }
    return false;
}

struct point_write {
    struct shard_write write;
    atomic_int status;
};

static void write_done(struct shard_write *write, enum status status, const struct error *error)
{
    (void)error;
    atomic_store(&((struct point_write *)(void *)write)->status, (int)status);
}

static void put_point(struct fixture *fixture, uint32_t shard_id, const char *id)
{
    const float vector[] = {1, 2};
    const struct shard_point point = {str_from_cstr(id), vector, STR("{}")};
    struct point_write write = {.write = {.points = &point, .point_count = 1, .done = write_done},
                                .status = -1};
    struct error error;
    bool must_drain = false;
    struct hosted *hosted = hosting_find(fixture->hosting, shard_id);
    REQUIRE(hosted != NULL);
    REQUIRE_OK(shard_submit(hosted->shard, &write.write, &error, &must_drain));
    CHECK(!shard_drain(hosted->shard));
    CHECK_EQ_I64(atomic_load(&write.status), STATUS_OK);
    hosted_unref(hosted);
}

static uint64_t count_points(struct fixture *fixture, uint32_t shard_id)
{
    struct shard_stats stats = {0};
    struct hosted *hosted = hosting_find(fixture->hosting, shard_id);
    CHECK(hosted != NULL);
    if (hosted == NULL)
        return UINT64_MAX;
    shard_stats(hosted->shard, &stats);
    hosted_unref(hosted);
    return stats.points;
}

static void set_path(struct fixture *fixture)
{
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/db", test_temporary_folder());
}

TEST(it_follows_the_map)
{
    struct fixture fixture = {0};
    struct map_shape shape = {"x", 1, 1, {1, 2, 5}, 1 << 2};
    set_path(&fixture);
    start(&fixture);
    offer(&fixture, &shape);
    CHECK(wait_for(&fixture, &shape));
    put_point(&fixture, 1, "a");
    put_point(&fixture, 5, "b");
    CHECK(hosting_find(fixture.hosting, 2) == NULL);
    // A shard comes, one moves here, one goes elsewhere; the epoch is another.
    struct map_shape next = {"x", 2, 2, {1, 2, 5, 6}, 1 << 5};
    offer(&fixture, &next);
    CHECK(wait_for(&fixture, &next));
    CHECK_EQ_U64(count_points(&fixture, 1), 1);
    // An older map changes nothing.
    offer(&fixture, &shape);
    pause_ms(20);
    CHECK(wait_for(&fixture, &next));
    // What went elsewhere and comes back has its points: nothing said that they are to go.
    shape.version = 3;
    shape.epoch = 3;
    shape.others = 0;
    offer(&fixture, &shape);
    CHECK(wait_for(&fixture, &shape));
    CHECK_EQ_U64(count_points(&fixture, 5), 1);
    stop(&fixture);
}

TEST(it_waits_to_know_who_it_is)
{
    struct fixture fixture = {0};
    const struct map_shape shape = {"x", 1, 1, {1}, 0};
    const struct map_shape nothing = {"x", 1, 1, {0}, 0};
    set_path(&fixture);
    start(&fixture);
    be_worker(&fixture, 0);
    offer(&fixture, &shape);
    pause_ms(20);
    CHECK(wait_for(&fixture, &nothing));
    be_worker(&fixture, SELF);
    CHECK(wait_for(&fixture, &shape));
    be_worker(&fixture, OTHER);
    CHECK(wait_for(&fixture, &nothing));
    stop(&fixture);
}

// The number of shards that have data.
static void count_one(const struct shard_options *options, void *context)
{
    (void)options;
    ++*(uint32_t *)context;
}

static uint32_t count_stored(const struct fixture *fixture)
{
    struct store *store = NULL;
    struct error error;
    uint32_t count = 0;
    if (!CHECK_OK(store_open(str_from_cstr(fixture->path), &error, &store)))
        return 0;
    store_for_each_shard(store, count_one, &count);
    store_close(store);
    return count;
}

TEST(data_goes_only_when_a_newer_map_without_it_says_so)
{
    struct fixture fixture = {0};
    const struct map_shape full = {"x", 5, 1, {1, 2, 3}, 0};
    const struct map_shape empty = {"x", 6, 1, {0}, 0};
    set_path(&fixture);
    start(&fixture);
    offer(&fixture, &full);
    CHECK(wait_for(&fixture, &full));
    put_point(&fixture, 2, "a");
    offer(&fixture, &empty);
    CHECK(wait_for(&fixture, &empty));
    stop(&fixture);
    CHECK_EQ_U64(count_stored(&fixture), 3);

    // Another placement driver's map, however new, has nothing to say about them.
    const struct map_shape foreign = {"y", 100, 1, {2}, 0};
    start(&fixture);
    offer(&fixture, &foreign);
    CHECK(wait_for(&fixture, &foreign));
    CHECK_EQ_U64(count_points(&fixture, 2), 0);
    stop(&fixture);
    CHECK_EQ_U64(count_stored(&fixture), 4);

    const struct map_shape less = {"x", 7, 1, {2}, 0};
    start(&fixture);
    offer(&fixture, &full);
    CHECK(wait_for(&fixture, &full));
    offer(&fixture, &less);
    CHECK(wait_for(&fixture, &less));
    CHECK_EQ_U64(count_points(&fixture, 2), 1);
    stop(&fixture);
    // The sweep after the closing may have been cut short by the end; the next start does it.
    start(&fixture);
    offer(&fixture, &less);
    CHECK(wait_for(&fixture, &less));
    pause_ms(100);
    stop(&fixture);
    CHECK_EQ_U64(count_stored(&fixture), 2);
}

TEST(another_placement_driver_s_shards_take_their_place)
{
    struct fixture fixture = {0};
    const struct map_shape first = {"x", 5, 1, {1, 2}, 0};
    const struct map_shape second = {"y", 1, 1, {2, 3}, 0};
    set_path(&fixture);
    start(&fixture);
    offer(&fixture, &first);
    CHECK(wait_for(&fixture, &first));
    put_point(&fixture, 2, "a");
    offer(&fixture, &second);
    CHECK(wait_for(&fixture, &second));
    // The table may still have shown the first one's shard 2 to wait_for.
    for (int i = 0; i < 1000 && count_points(&fixture, 2) != 0; i++)
        pause_ms(2);
    CHECK_EQ_U64(count_points(&fixture, 2), 0);
    stop(&fixture);
}

// --- Finding shards while the map changes

enum { FINDERS = 3, MAPS = 60 };

static atomic_bool is_over;

static void *find_shards(void *argument)
{
    struct fixture *fixture = argument;
    while (!atomic_load(&is_over)) {
        for (uint32_t id = 1; id <= 7; id++) {
            struct hosted *hosted = hosting_find(fixture->hosting, id);
            if (hosted == NULL)
                continue;
            CHECK_EQ_U64(hosted->shard_id, id);
            struct index_view view;
            index_view_open(shard_index(hosted->shard), &view);
            index_view_close(&view);
            hosted_unref(hosted);
        }
    }
    return NULL;
}

TEST(shards_come_and_go_under_those_who_use_them)
{
    struct fixture fixture = {0};
    pthread_t threads[FINDERS];
    set_path(&fixture);
    start(&fixture);
    atomic_store(&is_over, false);
    for (int i = 0; i < FINDERS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, find_shards, &fixture) == 0);
    struct map_shape shape = {"x", 0, 1, {1, 2, 3, 4, 5, 6, 7}, 0};
    for (uint32_t i = 1; i <= MAPS; i++) {
        shape.version = i;
        shape.others = i * 37 % 256;
        offer(&fixture, &shape);
        if (i % 8 == 0)
            CHECK(wait_for(&fixture, &shape));
    }
    shape.version++;
    shape.others = 0;
    offer(&fixture, &shape);
    CHECK(wait_for(&fixture, &shape));
    atomic_store(&is_over, true);
    for (int i = 0; i < FINDERS; i++)
        pthread_join(threads[i], NULL);
    stop(&fixture);
}

TEST_MAIN()
