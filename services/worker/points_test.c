#include <math.h>

#include "base/limits.h"
#include "worker/worker_testing.h"

// What a worker answers about points: each method with right and wrong input.

static void put_ten(struct fixture *f)
{
    for (int i = 0; i < 10; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "p%d", i);
        CHECK_OK(upsert(f, &(struct put){.shard_id = 1 + (uint32_t)i % 2,
                                         .id = id,
                                         .values = {(float)i, 0},
                                         .value_count = 2,
                                         .payload = "{\"a\":1}"}));
    }
}

TEST(points_of_two_shards)
{
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    static const char *const wanted[] = {"p3", "p4", "p2", "p5"};
    open_and_start(&f);
    put_ten(&f);
    REQUIRE_OK(get(&f, 1, "p4", &point));
    REQUIRE(point->n_vector == 2);
    CHECK(point->vector[0] == 4 && point->payload.len == 7);
    REQUIRE_OK(find_near(&f, 3.4F, 4, &found));
    REQUIRE(found->n_hits == 4);
    for (size_t i = 0; i < 4; i++)
        CHECK_CSTR(found->hits[i]->id, wanted[i]);
    CHECK(fabsf(found->hits[0]->score - 0.4F) < 1e-6F && found->hits[0]->n_vector == 2);
    CHECK(found->hits[0]->vector[0] == 3);
    CHECK_STR(
        ((struct str){(const char *)found->hits[0]->payload.data, found->hits[0]->payload.len}),
        STR("{\"a\":1}"));
    CHECK_OK(delete_point(&f, 1, "p4"));
    CHECK_OK(delete_point(&f, 1, "p4")); // there is none: fine
    CHECK_STATUS(get(&f, 1, "p4", &point), STATUS_NOT_FOUND);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("p4"));
    // A restart finds what was acknowledged.
    stop(&f);
    start(&f);
    CHECK_OK(get(&f, 2, "p9", &point));
    CHECK_STATUS(get(&f, 1, "p4", &point), STATUS_NOT_FOUND);
    REQUIRE_OK(find_near(&f, 0, 100, &found));
    CHECK_EQ_U64(found->n_hits, 9);
    close_fixture(&f);
}

TEST(searches_of_every_shape)
{
    struct fixture f;
    const WORKER(SearchShardsResponse) *found = NULL;
    open_and_start(&f);
    // Of shards without points, one and two of them.
    REQUIRE_OK(find_near(&f, 0, 3, &found));
    CHECK_EQ_U64(found->n_hits, 0);
    put_ten(&f);
    REQUIRE_OK(find_near(&f, 0, 0, &found));
    CHECK_EQ_U64(found->n_hits, LIMIT_TOP_K_DEFAULT);
    REQUIRE_OK(find_near(&f, 0, LIMIT_TOP_K_MAX, &found));
    CHECK_EQ_U64(found->n_hits, 10);
    struct find one = {.shard_ids = {2}, .vector = {1, 0}, .value_count = 2, .top_k = 2};
    REQUIRE_OK(find(&f, &one, &found));
    REQUIRE(found->n_hits == 2);
    CHECK_CSTR(found->hits[0]->id, "p1");
    CHECK_CSTR(found->hits[1]->id, "p3");
    one.is_bare = true;
    REQUIRE_OK(find(&f, &one, &found));
    REQUIRE(found->n_hits == 2);
    CHECK(found->hits[0]->n_vector == 0 && found->hits[0]->payload.len == 0);
    // Equal scores: by id, also across shards.
    const struct find between = {
        .shard_ids = {2, 1}, .vector = {1.5F, 0}, .value_count = 2, .top_k = 2};
    REQUIRE_OK(find(&f, &between, &found));
    REQUIRE(found->n_hits == 2);
    CHECK_CSTR(found->hits[0]->id, "p1");
    CHECK_CSTR(found->hits[1]->id, "p2");
    close_fixture(&f);
}

TEST(the_last_write_of_an_id_wins)
{
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    const struct put puts[] = {
        {1, "x", {1, 1}, 2, "{\"n\":1}"}, {1, "y", {5, 5}, 2, NULL}, {1, "x", {2, 2}, 2, NULL}};
    open_and_start(&f);
    CHECK_OK(upsert_all(&f, puts, 3));
    REQUIRE_OK(get(&f, 1, "x", &point));
    CHECK(point->n_vector == 2 && point->vector[0] == 2 && point->payload.len == 0);
    REQUIRE_OK(find_near(&f, 0, 10, &found));
    CHECK_EQ_U64(found->n_hits, 2);
    CHECK_OK(upsert(&f, &puts[0]));
    REQUIRE_OK(get(&f, 1, "x", &point));
    CHECK(point->n_vector == 2 && point->vector[0] == 1 && point->payload.len == 7);
    close_fixture(&f);
}

struct wrong_put {
    struct put put;
    const char *word;
};

static void check_wrong(struct fixture *f, const struct wrong_put *wrong, size_t count)
{
    const WORKER(ShardPoint) *point = NULL;
    for (size_t i = 0; i < count; i++) {
        // The others of the request are right, and are not stored either.
        struct put puts[] = {wrong[i].put, wrong[i].put, wrong[i].put};
        puts[0].id = "right";
        puts[0].values[0] = puts[0].values[1] = puts[0].values[2] = 1;
        puts[0].value_count = puts[0].shard_id == 3 ? 3 : 2;
        puts[0].payload = NULL;
        puts[2] = puts[0];
        CHECK_STATUS(upsert_all(f, puts, 3), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(f->error.text), str_from_cstr(wrong[i].word));
        CHECK_CONTAINS(str_from_cstr(f->error.text), STR("points[1]"));
        CHECK_STATUS(get(f, puts[0].shard_id, "right", &point), STATUS_NOT_FOUND);
    }
}

TEST(wrong_points_are_refused_whole)
{
    struct fixture f;
    open_and_start(&f);
    char *long_id = arena_alloc(f.arena, 514);
    char *payload = arena_alloc(f.arena, LIMIT_PAYLOAD_SIZE_MAX + 2);
    memset(long_id, 'i', 513);
    memset(payload, 'p', LIMIT_PAYLOAD_SIZE_MAX + 1);
    const struct wrong_put wrong[] = {
        {{1, "", {1, 2}, 2, NULL}, "id is empty"},
        {{1, long_id, {1, 2}, 2, NULL}, "513 bytes; the limit is 512"},
        {{1, "x", {1, 2, 3}, 3, NULL}, "3"},
        {{1, "x", {1}, 1, NULL}, "2"},
        {{1, "x", {0}, 0, NULL}, "2"},
        {{1, "x", {NAN, 1}, 2, NULL}, "nan"},
        {{1, "x", {1, INFINITY}, 2, NULL}, "inf"},
        {{1, "x", {1, -INFINITY}, 2, NULL}, "inf"},
        {{1, "x", {1, 2}, 2, payload}, "1048577 bytes; the limit is 1048576"},
        {{3, "x", {0, 0, 0}, 3, NULL}, "cosine"},
        {{3, "caf\xc3\xa9", {-0.0F, 0, 0}, 3, NULL}, "caf\xc3\xa9"},
    };
    check_wrong(&f, wrong, sizeof(wrong) / sizeof(wrong[0]));
    payload[LIMIT_PAYLOAD_SIZE_MAX] = '\0';
    long_id[512] = '\0';
    CHECK_OK(upsert(&f, &(struct put){1, long_id, {1, 2}, 2, payload}));
    const WORKER(ShardPoint) *point = NULL;
    REQUIRE_OK(get(&f, 1, long_id, &point));
    CHECK_EQ_U64(point->payload.len, LIMIT_PAYLOAD_SIZE_MAX);
    close_fixture(&f);
}

TEST(wrong_questions_are_refused)
{
    struct fixture f;
    const WORKER(ShardPoint) *point = NULL;
    const WORKER(SearchShardsResponse) *found = NULL;
    open_and_start(&f);
    const struct {
        struct find find;
        const char *word;
    } wrong[] = {
        {{.shard_ids = {1}, .vector = {0}, .value_count = 2, .top_k = 10001}, "10000"},
        {{.shard_ids = {1}, .vector = {NAN}, .value_count = 2, .top_k = 1}, "nan"},
        {{.shard_ids = {1}, .vector = {0}, .value_count = 3, .top_k = 1}, "3"},
        {{.shard_ids = {1}, .vector = {0}, .value_count = 0, .top_k = 1}, "2"},
        {{.shard_ids = {3}, .vector = {0}, .value_count = 3, .top_k = 1}, "cosine"},
        {{.shard_ids = {1, 3}, .vector = {1}, .value_count = 2, .top_k = 1}, "one collection"},
        {{.shard_ids = {0}, .vector = {1}, .value_count = 2, .top_k = 1}, "names 0 shards"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_STATUS(find(&f, &wrong[i].find, &found), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(f.error.text), str_from_cstr(wrong[i].word));
    }
    CHECK_STATUS(get(&f, 1, "", &point), STATUS_INVALID);
    CHECK_STATUS(get(&f, 1, "nobody", &point), STATUS_NOT_FOUND);
    CHECK_STATUS(delete_point(&f, 1, ""), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("ids[0]"));
    close_fixture(&f);
}

TEST(requests_that_name_no_shard_or_nothing_to_do)
{
    struct fixture f;
    enum { TOO_MANY = 1025 };
    static WORKER(ShardRef) * many[TOO_MANY];
    const ProtobufCMessage *answer = NULL;
    WORKER(UpsertPointsRequest) upsert_request = WORKER_INIT(UPSERT_POINTS_REQUEST);
    WORKER(DeletePointsRequest) delete_request = WORKER_INIT(DELETE_POINTS_REQUEST);
    WORKER(SearchShardsRequest) search_request = WORKER_INIT(SEARCH_SHARDS_REQUEST);
    open_and_start(&f);
    CHECK_STATUS(ask(&f, "UpsertPoints", &upsert_request.base, &answer), STATUS_INVALID);
    CHECK_STATUS(ask(&f, "DeletePoints", &delete_request.base, &answer), STATUS_INVALID);
    upsert_request.shard = delete_request.shard = shard_ref(&f, 1);
    CHECK_OK(ask(&f, "UpsertPoints", &upsert_request.base, &answer));
    CHECK_OK(ask(&f, "DeletePoints", &delete_request.base, &answer));
    for (size_t i = 0; i < TOO_MANY; i++)
        many[i] = upsert_request.shard;
    search_request.shards = many;
    search_request.n_shards = TOO_MANY;
    CHECK_STATUS(ask(&f, "SearchShards", &search_request.base, &answer), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("1025 shards; 1 to 1024"));
    close_fixture(&f);
}

TEST(a_large_request_is_checked_and_stored)
{
    // More floats than a loop checks itself: the pool does.
    enum { POINTS = (1 << 19) + 1 };
    struct fixture f;
    const ProtobufCMessage *answer = NULL;
    const WORKER(ShardPoint) *point = NULL;
    WORKER(UpsertPointsRequest) request = WORKER_INIT(UPSERT_POINTS_REQUEST);
    open_and_start(&f);
    WORKER(ShardPoint) *points = arena_alloc(f.arena, POINTS * sizeof(*points));
    float(*vectors)[2] = arena_alloc(f.arena, POINTS * sizeof(*vectors));
    request.shard = shard_ref(&f, 1);
    request.points = arena_alloc(f.arena, POINTS * sizeof(void *));
    for (uint32_t i = 0; i < POINTS; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "n%u", i % 1000);
        vectors[i][0] = (float)i;
        vectors[i][1] = 1;
        vectron__worker__v1__shard_point__init(&points[i]);
        points[i].id = arena_cstr(f.arena, str_from_cstr(id));
        points[i].vector = vectors[i];
        points[i].n_vector = 2;
        request.points[request.n_points++] = &points[i];
    }
    vectors[POINTS - 1][1] = NAN;
    CHECK_STATUS(ask(&f, "UpsertPoints", &request.base, &answer), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("points[524288]"));
    CHECK_STATUS(get(&f, 1, "n1", &point), STATUS_NOT_FOUND);
    vectors[POINTS - 1][1] = 3;
    CHECK_OK(ask(&f, "UpsertPoints", &request.base, &answer));
    REQUIRE_OK(get(&f, 1, "n288", &point));
    REQUIRE(point->n_vector == 2);
    CHECK(point->vector[0] == (float)(POINTS - 1) && point->vector[1] == 3);
    close_fixture(&f);
}

// --- Many at once

enum { WRITERS = 4, WRITES = 60 };

struct writer {
    struct fixture *f;
    uint32_t number;
    uint32_t failures;
};

static void *write_many(void *argument)
{
    struct writer *writer = argument;
    struct fixture own = *writer->f; // errors and memory of its own
    own.arena = arena_create(64 << 20);
    for (uint32_t i = 0; i < WRITES; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "w%u-%u", writer->number, i);
        const struct put put = {.shard_id = 1 + i % 2,
                                .id = id,
                                .values = {(float)writer->number, (float)i},
                                .value_count = 2};
        writer->failures += upsert(&own, &put) != STATUS_OK;
        const WORKER(ShardPoint) *point = NULL;
        // What was acknowledged is seen by the next question.
        bool is_there = get(&own, put.shard_id, id, &point) == STATUS_OK && point->n_vector == 2;
        writer->failures += !is_there || point->vector[1] != (float)i;
    }
    arena_destroy(own.arena);
    return NULL;
}

TEST(writers_at_once)
{
    struct fixture f;
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    const WORKER(SearchShardsResponse) *found = NULL;
    open_and_start(&f);
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.f = &f, .number = i};
        CHECK(pthread_create(&threads[i], NULL, write_many, &writers[i]) == 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        (void)pthread_join(threads[i], NULL);
        CHECK_EQ_U64(writers[i].failures, 0);
    }
    stop(&f);
    start(&f);
    REQUIRE_OK(find_near(&f, 0, 1000, &found));
    CHECK_EQ_U64(found->n_hits, WRITERS * WRITES);
    close_fixture(&f);
}

TEST_MAIN()
