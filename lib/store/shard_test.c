#include "store/shard.h"

#include <float.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "store/store_internal.h"
#include "store/store_testing.h"
#include "testing/test.h"

enum { DIMENSION = 12, POINTS = 300, PAYLOAD_SIZE = 64 };

static struct str path_in(const char *folder)
{
    static char path[4200];
    int size = snprintf(path, sizeof(path), "%s/db", folder);
    return (struct str){path, (size_t)size};
}

static const struct shard_options options_of[] = {
    {1, {"x", 1}, {"a", 1}, DIMENSION, DISTANCE_COSINE, 1},
    {2, {"x", 1}, {"b", 1}, DIMENSION, DISTANCE_EUCLIDEAN, 1},
    {3, {"x", 1}, {"c", 1}, DIMENSION, DISTANCE_DOT, 1},
};

// --- A shard beside a plain array

struct model_point {
    char id[24];
    char payload[PAYLOAD_SIZE];
    float vector[DIMENSION];
    bool is_there;
};

struct model {
    struct store *store;
    struct shard *shard;
    const struct shard_options *options;
    struct rng rng;
    struct model_point points[POINTS];
};

struct request {
    struct shard_write write;
    struct shard_point points[40];
    struct str removed[10];
    char payloads[40][PAYLOAD_SIZE];
    float vectors[40][DIMENSION];
    uint32_t done_count;
    enum status status;
};

static void request_done(struct shard_write *write, enum status status, const struct error *error)
{
    struct request *request = (struct request *)(void *)write;
    if (status != STATUS_OK)
        printf("    %s\n", error->text);
    request->status = status;
    __atomic_fetch_add(&request->done_count, 1, __ATOMIC_RELEASE);
}

static void random_vector(struct rng *rng, float *vector)
{
    for (uint32_t i = 0; i < DIMENSION; i++)
        vector[i] = (float)rng_below(rng, 5) - 2 + (rng_below(rng, 9) == 0 ? FLT_TRUE_MIN : 0);
    vector[rng_below(rng, DIMENSION)] = rng_below(rng, 2) > 0 ? -0.0F : 3.5F;
    vector[0] += 0.25F;
}

static void fill_request(struct model *model, struct request *request)
{
    *request = (struct request){
        .write = {.points = request->points, .removed = request->removed, .done = request_done}};
    request->write.point_count = (uint32_t)rng_below(&model->rng, 40);
    request->write.removed_count = (uint32_t)rng_below(&model->rng, 10);
    for (uint32_t i = 0; i < request->write.point_count; i++) {
        struct model_point *point = &model->points[rng_below(&model->rng, POINTS)];
        random_vector(&model->rng, request->vectors[i]);
        int size = snprintf(request->payloads[i], PAYLOAD_SIZE, "{\"n\":%llu}",
                            (unsigned long long)rng_u64(&model->rng));
        if (rng_below(&model->rng, 4) == 0)
            size = 0;
        request->points[i] = (struct shard_point){
            str_from_cstr(point->id), request->vectors[i], {request->payloads[i], (size_t)size}};
        memcpy(point->vector, request->vectors[i], sizeof(point->vector));
        memcpy(point->payload, request->payloads[i], PAYLOAD_SIZE);
        point->payload[size] = '\0';
        point->is_there = true;
    }
    for (uint32_t i = 0; i < request->write.removed_count; i++) {
        struct model_point *point = &model->points[rng_below(&model->rng, POINTS)];
        request->removed[i] = str_from_cstr(point->id);
        point->is_there = false;
    }
}

// Several requests wait when it is drained, as under load.
static void model_write(struct model *model)
{
    static struct request requests[5];
    struct error error;
    uint32_t count = 1 + (uint32_t)rng_below(&model->rng, 5);
    for (uint32_t i = 0; i < count; i++) {
        bool must_drain = false;
        fill_request(model, &requests[i]);
        REQUIRE_OK(shard_submit(model->shard, &requests[i].write, &error, &must_drain));
        CHECK(must_drain == (i == 0));
    }
    CHECK(!shard_drain(model->shard));
    for (uint32_t i = 0; i < count; i++) {
        CHECK_OK(requests[i].status);
        CHECK_EQ_U64(requests[i].done_count, 1);
    }
}

static bool have_same_bits(const void *a, const void *b)
{
    return memcmp(a, b, DIMENSION * sizeof(float)) == 0;
}

static void model_check_points(struct model *model)
{
    struct arena *arena = arena_create(1 << 20);
    uint64_t count = 0;
    for (uint32_t i = 0; i < POINTS; i++) {
        const struct model_point *wanted = &model->points[i];
        struct shard_point point;
        struct error error = {0};
        enum status status =
            shard_get(model->shard, str_from_cstr(wanted->id), arena, &error, &point);
        count += wanted->is_there;
        if (!wanted->is_there) {
            CHECK_STATUS(status, STATUS_NOT_FOUND);
        } else if (CHECK_OK(status)) {
            CHECK(have_same_bits(point.vector, wanted->vector));
            CHECK_STR(point.payload, str_from_cstr(wanted->payload));
        }
        arena_reset(arena);
    }
    struct shard_stats stats;
    shard_stats(model->shard, &stats);
    CHECK_EQ_U64(stats.points, count);
    CHECK_EQ_U64(stats.broken_points, 0);
    arena_destroy(arena);
}

struct model_hit {
    float score;
    const struct model_point *point;
};

static int compare_hits(const void *left, const void *right)
{
    const struct model_hit *a = left;
    const struct model_hit *b = right;
    if (a->score != b->score)
        return a->score < b->score ? -1 : 1;
    return strcmp(a->point->id, b->point->id);
}

static void model_check_search(struct model *model)
{
    static struct model_hit wanted[POINTS];
    struct index_hit hits[20];
    uint32_t wanted_count = 0;
    uint32_t count = 0;
    float query[DIMENSION];
    random_vector(&model->rng, query);
    for (uint32_t i = 0; i < POINTS; i++) {
        if (model->points[i].is_there)
            wanted[wanted_count++] = (struct model_hit){
                distance_score(model->options->distance, query, model->points[i].vector, DIMENSION),
                &model->points[i]};
    }
    qsort(wanted, wanted_count, sizeof(wanted[0]), compare_hits);
    struct index_view view;
    struct arena *arena = arena_create(1 << 20);
    struct error error = {0};
    const struct index_search search = {.vector = query, .top_k = 20, .deadline_ns = UINT64_MAX};
    index_view_open(shard_index(model->shard), &view);
    CHECK_OK(index_search(&view, &search, hits, &count, NULL));
    CHECK_EQ_U64(count, wanted_count < 20 ? wanted_count : 20);
    for (uint32_t i = 0; i < count; i++) {
        struct str payload;
        CHECK_STR(index_view_id(&view, hits[i].slot), str_from_cstr(wanted[i].point->id));
        CHECK(hits[i].score == wanted[i].score);
        CHECK_OK(shard_get_payload(model->shard, &view, hits[i].slot, arena, &error, &payload));
        CHECK_STR(payload, str_from_cstr(wanted[i].point->payload));
    }
    index_view_close(&view);
    arena_destroy(arena);
}

static void model_run(const struct shard_options *options, uint64_t seed)
{
    static struct model model;
    struct error error = {0};
    struct str path = path_in(test_temporary_folder());
    model = (struct model){.options = options};
    rng_init(&model.rng, seed);
    printf("seed %llu\n", (unsigned long long)seed);
    for (uint32_t i = 0; i < POINTS; i++)
        (void)snprintf(model.points[i].id, sizeof(model.points[i].id), "%s%u",
                       i % 2 > 0 ? "a-longer-kind-of-id" : "p", i);
    for (uint32_t opening = 0; opening < 5; opening++) {
        REQUIRE_OK(store_open(path, &error, &model.store));
        REQUIRE_OK(store_open_shard(model.store, options, NULL, &error, &model.shard));
        for (uint32_t round = 0; round < 12; round++) {
            model_check_points(&model);
            model_check_search(&model);
            model_write(&model);
        }
        shard_close(model.shard);
        store_close(model.store);
    }
}

TEST(a_shard_does_what_an_array_does)
{
    uint64_t seed = clock_monotonic_ns();
    for (uint32_t i = 0; i < 3; i++)
        model_run(&options_of[i], seed + i);
}

// --- By hand

static void put_one(struct shard *shard, const char *id, float first, const char *payload)
{
    static struct request request;
    float vector[DIMENSION] = {first, 1};
    struct error error;
    bool must_drain = false;
    request = (struct request){.write = {.points = request.points, .done = request_done}};
    request.points[0] = (struct shard_point){str_from_cstr(id), vector, str_from_cstr(payload)};
    request.write.point_count = 1;
    REQUIRE_OK(shard_submit(shard, &request.write, &error, &must_drain));
    CHECK(!shard_drain(shard));
    CHECK_OK(request.status);
}

static void open_both(struct str path, struct store **store, struct shard **shard)
{
    struct error error;
    REQUIRE_OK(store_open(path, &error, store));
    REQUIRE_OK(store_open_shard(*store, &options_of[1], NULL, &error, shard));
}

TEST(a_payload_that_changed_since_the_search_is_noticed)
{
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    struct index_view view;
    struct str payload;
    struct arena *arena = arena_create(1 << 20);
    open_both(path_in(test_temporary_folder()), &store, &shard);
    put_one(shard, "p", 1, "{}");
    index_view_open(shard_index(shard), &view);
    CHECK_OK(shard_get_payload(shard, &view, 0, arena, &error, &payload));
    put_one(shard, "p", 2, "{\"new\":1}");
    CHECK_STATUS(shard_get_payload(shard, &view, 0, arena, &error, &payload), STATUS_ABORTED);
    index_view_close(&view);
    arena_destroy(arena);
    shard_close(shard);
    store_close(store);
}

// Writes a value under the point's key behind the shard's back.
static void damage(struct store *store, const struct shard *shard, const char *id)
{
    char key[64] = {0};
    char *message = NULL;
    memcpy(key, shard->prefix, KEY_PREFIX_SIZE);
    (void)snprintf(key + KEY_PREFIX_SIZE, sizeof(key) - KEY_PREFIX_SIZE, "%s", id);
    rocksdb_put(store->database, store->durable, key, KEY_PREFIX_SIZE + strlen(id),
                "VPT1 rubbish and more", 21, &message);
    CHECK_OK(store_check(message, NULL));
}

TEST(a_broken_record_is_reported_and_the_others_serve)
{
    struct str path = path_in(test_temporary_folder());
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    struct shard_stats stats;
    struct shard_point point;
    struct arena *arena = arena_create(1 << 20);
    open_both(path, &store, &shard);
    REQUIRE(shard != NULL);
    put_one(shard, "good", 1, "{}");
    put_one(shard, "bad", 2, "{}");
    put_one(shard, "worse", 3, "{}");
    damage(store, shard, "bad");
    damage(store, shard, "worse");
    shard_close(shard);
    store_close(store);
    open_both(path, &store, &shard);
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, 1);
    CHECK_EQ_U64(stats.broken_points, 2);
    CHECK_OK(shard_get(shard, STR("good"), arena, &error, &point));
    CHECK_STATUS(shard_get(shard, STR("bad"), arena, &error, &point), STATUS_CORRUPT);
    // Written again it is whole again.
    put_one(shard, "bad", 2, "{}");
    CHECK_OK(shard_get(shard, STR("bad"), arena, &error, &point));
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, 2);
    CHECK_EQ_U64(stats.broken_points, 1);
    arena_destroy(arena);
    shard_close(shard);
    store_close(store);
}

TEST(what_waits_fails_when_nobody_can_write_it)
{
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    static struct request first;
    static struct request second;
    bool must_drain = false;
    open_both(path_in(test_temporary_folder()), &store, &shard);
    first = second = (struct request){.write = {.done = request_done}};
    REQUIRE_OK(shard_submit(shard, &first.write, &error, &must_drain));
    CHECK(must_drain);
    REQUIRE_OK(shard_submit(shard, &second.write, &error, &must_drain));
    CHECK(!must_drain);
    (void)error_set(&error, STATUS_EXHAUSTED, "no thread");
    shard_refuse(shard, STATUS_EXHAUSTED, &error);
    CHECK_STATUS(first.status, STATUS_EXHAUSTED);
    CHECK_STATUS(second.status, STATUS_EXHAUSTED);
    REQUIRE_OK(shard_submit(shard, &first.write, &error, &must_drain));
    CHECK(must_drain);
    shard_close(shard);
    CHECK_STATUS(first.status, STATUS_CANCELLED);
    store_close(store);
}

TEST(a_write_that_is_late_is_not_done)
{
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    static struct request requests[3];
    static const float vector[DIMENSION] = {1};
    static const char *const ids[] = {"late", "soon", "whenever"};
    bool must_drain = false;
    open_both(path_in(test_temporary_folder()), &store, &shard);
    for (uint32_t i = 0; i < 3; i++) {
        requests[i].write = (struct shard_write){
            .points = requests[i].points, .point_count = 1, .done = request_done};
        requests[i].points[0] = (struct shard_point){.id = str_from_cstr(ids[i]), .vector = vector};
    }
    requests[0].write.deadline_ns = clock_monotonic_ns();
    requests[1].write.deadline_ns = UINT64_MAX;
    for (uint32_t i = 0; i < 3; i++)
        REQUIRE_OK(shard_submit(shard, &requests[i].write, &error, &must_drain));
    CHECK(!shard_drain(shard));
    CHECK_STATUS(requests[0].status, STATUS_TIMEOUT);
    CHECK_OK(requests[1].status);
    CHECK_OK(requests[2].status);
    CHECK_EQ_U64(index_point_count(shard_index(shard)), 2);
    // Nothing but late ones: nothing is written.
    REQUIRE_OK(shard_submit(shard, &requests[0].write, &error, &must_drain));
    CHECK(!shard_drain(shard));
    CHECK_EQ_U64(requests[0].done_count, 2);
    CHECK_EQ_U64(index_sequence(shard_index(shard)), 1);
    shard_close(shard);
    store_close(store);
}

TEST(the_queue_is_bounded)
{
    enum { MANY = 4097 };
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    struct request *requests = mem_alloc(MANY * sizeof(*requests));
    bool must_drain = false;
    uint32_t taken = 0;
    open_both(path_in(test_temporary_folder()), &store, &shard);
    for (uint32_t i = 0; i < MANY; i++) {
        requests[i].write.done = request_done;
        requests[i].write.removed = requests[i].removed;
        requests[i].removed[0] = STR("nothing");
        requests[i].write.removed_count = 1;
        taken += shard_submit(shard, &requests[i].write, &error, &must_drain) == STATUS_OK;
    }
    CHECK_EQ_U64(taken, MANY - 1);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("waiting to be written"));
    while (shard_drain(shard))
        ;
    for (uint32_t i = 0; i < taken; i++)
        CHECK_EQ_U64(requests[i].done_count, 1);
    // One commit for all that waited.
    CHECK_EQ_U64(index_sequence(shard_index(shard)), 1);
    mem_free(requests);
    shard_close(shard);
    store_close(store);
}

// --- Writers, readers and one that drains, all at once

enum { WRITERS = 3, READERS = 2, ROUNDS = 60 };

static struct shard *shared;
static atomic_bool is_over;
static atomic_uint failures;

static void *write_shared(void *argument)
{
    // Each writer has ids of its own and waits for its own writes.
    uint32_t writer = *(uint32_t *)argument;
    struct arena *arena = arena_create(1 << 20);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct request *request = mem_alloc(sizeof(*request));
        struct error error;
        bool must_drain = false;
        char id[16];
        request->write =
            (struct shard_write){.points = request->points, .point_count = 1, .done = request_done};
        (void)snprintf(id, sizeof(id), "w%u", writer);
        request->vectors[0][0] = (float)round;
        request->points[0] =
            (struct shard_point){str_from_cstr(id), request->vectors[0], STR("{}")};
        CHECK_OK(shard_submit(shared, &request->write, &error, &must_drain));
        while (must_drain && shard_drain(shared))
            ;
        // Another writer may be draining it.
        for (;;) {
            struct shard_point point;
            enum status status = shard_get(shared, str_from_cstr(id), arena, &error, &point);
            bool is_there = status == STATUS_OK && point.vector[0] == (float)round;
            arena_reset(arena);
            if (is_there && index_sequence(shard_index(shared)) > 0)
                break;
        }
        // It is done only when whoever drains has said so.
        while (__atomic_load_n(&request->done_count, __ATOMIC_ACQUIRE) == 0)
            ;
        mem_free(request);
    }
    arena_destroy(arena);
    return NULL;
}

static void *search_shared(void *argument)
{
    (void)argument;
    const float query[DIMENSION] = {0};
    const struct index_search search = {
        .vector = query, .top_k = 2 * WRITERS, .deadline_ns = UINT64_MAX};
    while (!atomic_load(&is_over)) {
        struct index_view view;
        struct index_hit hits[2 * WRITERS];
        uint32_t count = 0;
        index_view_open(shard_index(shared), &view);
        if (index_search(&view, &search, hits, &count, NULL) != STATUS_OK || count > WRITERS)
            atomic_fetch_add(&failures, 1);
        index_view_close(&view);
    }
    return NULL;
}

TEST(writers_and_readers_share_a_shard)
{
    struct store *store = NULL;
    pthread_t threads[WRITERS + READERS];
    uint32_t numbers[WRITERS];
    open_both(path_in(test_temporary_folder()), &store, &shared);
    for (uint32_t i = 0; i < WRITERS + READERS; i++) {
        if (i < WRITERS)
            numbers[i] = i;
        REQUIRE(pthread_create(&threads[i], NULL, i < WRITERS ? write_shared : search_shared,
                               i < WRITERS ? &numbers[i] : NULL) == 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&is_over, true);
    for (uint32_t i = WRITERS; i < WRITERS + READERS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ_U64(atomic_load(&failures), 0);
    struct shard_stats stats;
    shard_stats(shared, &stats);
    CHECK_EQ_U64(stats.points, WRITERS);
    shard_close(shared);
    store_close(store);
}

TEST_MAIN()
