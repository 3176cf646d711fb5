#include "apigateway/point_batch.h"

#include <stdio.h>
#include <string.h>

#include "testing/test.h"

enum { POINTS = 1000, SHARDS = 4 };

static struct cluster_shard shards[SHARDS];

static struct cluster_collection make_collection(void)
{
    const uint64_t width = UINT64_MAX / SHARDS;
    for (uint32_t i = 0; i < SHARDS; i++) {
        shards[i].shard_id = 10 + i;
        shards[i].range_start = i == 0 ? 0 : shards[i - 1].range_end + 1;
        shards[i].range_end = i + 1 == SHARDS ? UINT64_MAX : shards[i].range_start + width - 1;
    }
    return (struct cluster_collection){.name = STR("u/c"),
                                       .dimension = 1,
                                       .distance = STR("euclidean"),
                                       .shards = shards,
                                       .shard_count = SHARDS};
}

// Points p0, p1 … of which every tenth bears the id of the one before it.
static Vectron__V1__UpsertRequest make_request(struct arena *arena)
{
    Vectron__V1__UpsertRequest request = VECTRON__V1__UPSERT_REQUEST__INIT;
    request.n_points = POINTS;
    request.points = arena_alloc(arena, POINTS * sizeof(*request.points));
    for (uint32_t i = 0; i < POINTS; i++) {
        Vectron__V1__Point *point = arena_alloc(arena, sizeof(*point));
        char id[16];
        int size = snprintf(id, sizeof(id), "p%u", i % 10 == 9 ? i - 1 : i);
        vectron__v1__point__init(point);
        point->id = arena_cstr(arena, (struct str){id, (size_t)size});
        point->vector = arena_alloc(arena, sizeof(float));
        point->vector[0] = (float)i;
        point->n_vector = 1;
        request.points[i] = point;
    }
    return request;
}

TEST(every_id_once_in_its_shard_the_last_wins)
{
    struct arena *arena = arena_create(16 << 20);
    struct cluster_collection collection = make_collection();
    Vectron__V1__UpsertRequest request = make_request(arena);
    struct point_batch batch;
    struct error error;
    REQUIRE_OK(point_batch_create(&request, &collection, arena, &error, &batch));
    CHECK_EQ_U64(batch.group_count, SHARDS);
    bool seen[POINTS] = {false};
    size_t total = 0;
    for (uint32_t i = 0; i < batch.group_count; i++) {
        const struct point_group *group = &batch.groups[i];
        float last = -1;
        for (size_t j = 0; j < group->count; j++) {
            float value = group->points[j]->vector[0];
            const struct cluster_shard *shard =
                cluster_collection_route(&collection, str_from_cstr(group->points[j]->id));
            CHECK(shard == &shards[group->shard_index]);
            CHECK(value > last);
            CHECK(!seen[(uint32_t)value]);
            seen[(uint32_t)value] = true;
            last = value;
        }
        total += group->count;
    }
    CHECK_EQ_U64(total, POINTS - POINTS / 10);
    for (uint32_t i = 0; i < POINTS; i++)
        CHECK(seen[i] == (i % 10 != 8)); // replaced by the next one
    arena_destroy(arena);
}

TEST(only_shards_that_have_points)
{
    struct arena *arena = arena_create(16 << 20);
    struct cluster_collection collection = make_collection();
    Vectron__V1__UpsertRequest request = make_request(arena);
    struct point_batch batch;
    struct error error;
    request.n_points = 1;
    REQUIRE_OK(point_batch_create(&request, &collection, arena, &error, &batch));
    CHECK(batch.group_count == 1 && batch.groups[0].count == 1);
    arena_destroy(arena);
}

TEST(the_first_bad_point_is_named)
{
    struct arena *arena = arena_create(16 << 20);
    struct cluster_collection collection = make_collection();
    Vectron__V1__UpsertRequest request = make_request(arena);
    struct point_batch batch;
    struct error error;
    request.points[17]->n_vector = 0;
    request.points[18]->n_vector = 0;
    CHECK_STATUS(point_batch_create(&request, &collection, arena, &error, &batch), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("points[17] (id \"p17\"): vector has 0 values"));
    arena_destroy(arena);
}

TEST(a_small_arena)
{
    struct arena *arena = arena_create(16 << 20);
    struct arena *small = arena_create(4096);
    struct cluster_collection collection = make_collection();
    Vectron__V1__UpsertRequest request = make_request(arena);
    struct point_batch batch;
    struct error error;
    CHECK_STATUS(point_batch_create(&request, &collection, small, &error, &batch),
                 STATUS_EXHAUSTED);
    arena_destroy(small);
    arena_destroy(arena);
}

TEST_MAIN()
