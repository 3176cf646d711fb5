#include "index/index.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "testing/test.h"

enum { POINTS = 700, DIMENSION_MAX = 130, ID_SIZE_MAX = 40 };

// --- A plain array that says what a search must find

struct model_point {
    char id[ID_SIZE_MAX];
    float vector[DIMENSION_MAX];
    uint32_t slot; // INDEX_SLOT_NONE: it is not there
};

struct model {
    struct index *index;
    uint32_t dimension;
    enum distance distance;
    uint64_t sequence;
    struct rng rng;
    struct model_point points[POINTS];
};

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

// Values from a few integers, so that scores tie; or usual ones; or over the whole range.
static float model_value(struct model *model, uint32_t kind)
{
    if (kind == 0)
        return (float)rng_below(&model->rng, 3) - 1;
    float unit = (float)(rng_unit(&model->rng) * 2 - 1);
    if (kind == 1)
        return unit;
    return ldexpf(unit, (int)rng_below(&model->rng, 270) - 145);
}

static void model_vector(struct model *model, uint32_t kind, float *vector)
{
    for (uint32_t i = 0; i < model->dimension; i++)
        vector[i] = model_value(model, kind);
    vector[rng_below(&model->rng, model->dimension)] += kind == 2 ? 1e-30F : 1.5F; // not zero
}

static void model_create(struct model *model, uint64_t seed, enum distance distance,
                         uint32_t dimension)
{
    *model = (struct model){.dimension = dimension, .distance = distance};
    rng_init(&model->rng, seed);
    model->index =
        index_create(&(struct index_options){.dimension = dimension, .distance = distance});
    for (uint32_t i = 0; i < POINTS; i++) {
        // Some fit into a slot, some do not.
        const char *tail = rng_below(&model->rng, 2) > 0 ? "" : "-and-a-rather-long-end";
        (void)snprintf(model->points[i].id, ID_SIZE_MAX, "p%llu%s",
                       (unsigned long long)rng_below(&model->rng, 1000000), tail);
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(model->points[k].id, model->points[i].id) == 0)
                model->points[i].id[0] = '!';
        }
        model->points[i].slot = INDEX_SLOT_NONE;
    }
}

static void model_change(struct model *model, uint32_t kind)
{
    uint32_t count = 1 + (uint32_t)rng_below(&model->rng, 90);
    uint64_t sequence = ++model->sequence;
    REQUIRE_OK(index_reserve(model->index, count));
    for (uint32_t i = 0; i < count; i++) {
        struct model_point *point = &model->points[rng_below(&model->rng, POINTS)];
        if (point->slot != INDEX_SLOT_NONE)
            index_remove(model->index, point->slot, sequence);
        point->slot = INDEX_SLOT_NONE;
        if (rng_below(&model->rng, 3) == 0)
            continue;
        model_vector(model, kind, point->vector);
        point->slot = index_put(model->index, str_from_cstr(point->id), point->vector, sequence);
    }
    index_publish(model->index, sequence);
}

static uint32_t model_search(const struct model *model, const struct index_search *search,
                             struct model_hit *hits)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < POINTS; i++) {
        const struct model_point *point = &model->points[i];
        if (point->slot == INDEX_SLOT_NONE)
            continue;
        if (search->allowed != NULL &&
            (point->slot >= search->allowed_count ||
             (search->allowed[point->slot / 64] >> point->slot % 64 & 1) == 0))
            continue;
        hits[count++] = (struct model_hit){
            distance_score(model->distance, search->vector, point->vector, model->dimension),
            point};
    }
    qsort(hits, count, sizeof(hits[0]), compare_hits);
    return count < search->top_k ? count : search->top_k;
}

static void model_compare(struct model *model, const struct index_search *search)
{
    static struct model_hit wanted[POINTS];
    static struct index_hit hits[POINTS];
    uint32_t wanted_count = model_search(model, search, wanted);
    struct index_view view;
    struct index_stats stats;
    uint32_t count = 0;
    index_view_open(model->index, &view);
    CHECK_OK(index_search(&view, search, hits, &count, &stats));
    if (CHECK_EQ_U64(count, wanted_count)) {
        for (uint32_t i = 0; i < count; i++) {
            CHECK(hits[i].score == wanted[i].score);
            CHECK_STR(index_view_id(&view, hits[i].slot), str_from_cstr(wanted[i].point->id));
            CHECK(memcmp(index_view_vector(&view, hits[i].slot), wanted[i].point->vector,
                         model->dimension * sizeof(float)) == 0);
        }
    }
    index_view_close(&view);
}

static void model_run(uint64_t seed, enum distance distance, uint32_t dimension)
{
    static struct model model;
    model_create(&model, seed, distance, dimension);
    uint32_t kind = (uint32_t)rng_below(&model.rng, 3);
    printf("seed %llu: %s, dimension %u, values of kind %u\n", (unsigned long long)seed,
           distance_name(distance), dimension, kind);
    for (uint32_t round = 0; round < 60; round++) {
        model_change(&model, kind);
        float query[DIMENSION_MAX];
        uint64_t allowed[POINTS / 64];
        model_vector(&model, rng_below(&model.rng, 5) == 0 ? 2 : kind, query);
        for (uint32_t i = 0; i < POINTS / 64; i++)
            allowed[i] = rng_u64(&model.rng) | UINT64_C(0xF0F0);
        struct index_search search = {
            .vector = query,
            .top_k = 1 + (uint32_t)rng_below(&model.rng, round % 4 == 0 ? POINTS : 12),
            .deadline_ns = UINT64_MAX,
        };
        model_compare(&model, &search);
        search.allowed = allowed;
        search.allowed_count = POINTS / 64 * 64;
        model_compare(&model, &search);
        uint64_t live = 0;
        for (uint32_t i = 0; i < POINTS; i++)
            live += model.points[i].slot != INDEX_SLOT_NONE;
        CHECK_EQ_U64(index_point_count(model.index), live);
    }
    index_destroy(model.index);
}

TEST(a_search_finds_what_a_plain_array_does)
{
    static const uint32_t dimensions[] = {1, 2, 3, 8, 17, 64, 100, 129};
    uint64_t base = clock_monotonic_ns();
    for (uint32_t i = 0; i < sizeof(dimensions) / sizeof(dimensions[0]); i++) {
        for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++)
            model_run(base + i * 10 + (uint64_t)distance, (enum distance)distance, dimensions[i]);
    }
}

// --- By hand

static struct index *create(uint32_t dimension)
{
    return index_create(
        &(struct index_options){.dimension = dimension, .distance = DISTANCE_EUCLIDEAN});
}

static uint32_t count_hits(const struct index_view *view)
{
    static struct index_hit hits[1000];
    const float query[4] = {0};
    uint32_t count = 0;
    const struct index_search search = {.vector = query, .top_k = 1000, .deadline_ns = UINT64_MAX};
    CHECK_OK(index_search(view, &search, hits, &count, NULL));
    return count;
}

TEST(a_batch_shows_whole_and_not_before_it_is_published)
{
    struct index *index = create(4);
    struct index_view before;
    struct index_view after;
    const float vector[4] = {1, 2, 3, 4};
    REQUIRE_OK(index_reserve(index, 100));
    uint32_t slots[100];
    for (int i = 0; i < 100; i++)
        slots[i] = index_put(index, STR("some id that is long enough"), vector, 1);
    index_view_open(index, &before);
    CHECK_EQ_U64(count_hits(&before), 0);
    index_publish(index, 1);
    CHECK_EQ_U64(count_hits(&before), 0);
    index_view_open(index, &after);
    CHECK_EQ_U64(count_hits(&after), 100);
    for (int i = 0; i < 70; i++)
        index_remove(index, slots[i], 2);
    CHECK_EQ_U64(count_hits(&after), 100);
    index_publish(index, 2);
    CHECK_EQ_U64(count_hits(&after), 100);
    index_view_close(&before);
    index_view_open(index, &before);
    CHECK_EQ_U64(count_hits(&before), 30);
    CHECK_EQ_U64(index_point_count(index), 30);
    index_view_close(&before);
    index_view_close(&after);
    index_destroy(index);
}

TEST(a_point_put_and_removed_in_one_batch_never_shows)
{
    struct index *index = create(4);
    const float vector[4] = {1};
    REQUIRE_OK(index_reserve(index, 2));
    uint32_t slot = index_put(index, STR("a"), vector, 1);
    index_remove(index, slot, 1);
    (void)index_put(index, STR("a"), vector, 1);
    index_publish(index, 1);
    struct index_view view;
    index_view_open(index, &view);
    CHECK_EQ_U64(count_hits(&view), 1);
    index_view_close(&view);
    index_destroy(index);
}

TEST(slots_are_used_again_when_their_readers_have_left)
{
    struct index *index = create(4);
    const float vector[4] = {1};
    struct index_view view;
    REQUIRE_OK(index_reserve(index, 1));
    uint32_t slot = index_put(index, STR("a"), vector, 1);
    index_publish(index, 1);
    index_view_open(index, &view);
    index_remove(index, slot, 2);
    index_publish(index, 2);
    REQUIRE_OK(index_reserve(index, 1));
    uint32_t other = index_put(index, STR("b"), vector, 3);
    CHECK(other != slot);
    index_publish(index, 3);
    CHECK_STR(index_view_id(&view, slot), STR("a"));
    CHECK_EQ_U64(index_view_sequence(&view, slot), 1);
    index_view_close(&view);
    REQUIRE_OK(index_reserve(index, 1));
    CHECK_EQ_U64(index_put(index, STR("c"), vector, 4), slot);
    index_publish(index, 4);
    index_destroy(index);
}

TEST(a_search_can_be_stopped)
{
    enum { MANY = 20000, WIDE = 200 };
    struct index *index = create(WIDE);
    float vector[WIDE] = {1};
    REQUIRE_OK(index_reserve(index, MANY));
    for (uint32_t i = 0; i < MANY; i++)
        (void)index_put(index, STR("x"), vector, 1);
    index_publish(index, 1);
    struct index_view view;
    struct index_hit hits[10];
    struct index_stats stats;
    uint32_t count = 0;
    atomic_bool cancelled = true;
    struct index_search search = {.vector = vector, .top_k = 10, .deadline_ns = UINT64_MAX};
    index_view_open(index, &view);
    CHECK_OK(index_search(&view, &search, hits, &count, &stats));
    CHECK_EQ_U64(count, 10);
    CHECK_EQ_U64(stats.rows_compared, MANY);
    search.cancelled = &cancelled;
    CHECK_STATUS(index_search(&view, &search, hits, &count, &stats), STATUS_CANCELLED);
    atomic_store(&cancelled, false);
    search.deadline_ns = 1;
    CHECK_STATUS(index_search(&view, &search, hits, &count, &stats), STATUS_TIMEOUT);
    index_view_close(&view);
    CHECK(index_search_cost_ns(index, 10) > 100000);
    CHECK(index_memory_size(index) > (uint64_t)MANY * WIDE * 4);
    index_destroy(index);
}

TEST(few_rows_are_scored_twice)
{
    enum { MANY = 20000, WIDE = 32 };
    for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++) {
        struct index *index = index_create(
            &(struct index_options){.dimension = WIDE, .distance = (enum distance)distance});
        struct rng rng;
        rng_init(&rng, 1);
        float vector[WIDE];
        REQUIRE_OK(index_reserve(index, MANY));
        for (uint32_t i = 0; i < MANY; i++) {
            for (uint32_t k = 0; k < WIDE; k++)
                vector[k] = (float)rng_unit(&rng) - 0.5F;
            (void)index_put(index, STR("x"), vector, 1);
        }
        index_publish(index, 1);
        struct index_view view;
        struct index_hit hits[10];
        struct index_stats stats;
        uint32_t count = 0;
        struct index_search search = {.vector = vector, .top_k = 10, .deadline_ns = UINT64_MAX};
        index_view_open(index, &view);
        CHECK_OK(index_search(&view, &search, hits, &count, &stats));
        CHECK(stats.rows_rescored < 200);
        index_view_close(&view);
        index_destroy(index);
    }
}

// --- Readers while the writer writes

enum { SHARED_IDS = 150, SHARED_DIMENSION = 20, SHARED_BATCHES = 3000, READER_COUNT = 3 };

static struct index *shared;
static atomic_bool is_over;
static _Atomic uint64_t search_count;

// Every batch rewrites all ids with its own number in every place of the vector, so a view must
// find each id once and one number everywhere.
static void check_view(void)
{
    struct index_view view;
    struct index_hit hits[2 * SHARED_IDS];
    uint32_t count = 0;
    const float query[SHARED_DIMENSION] = {0};
    const struct index_search search = {
        .vector = query, .top_k = 2 * SHARED_IDS, .deadline_ns = UINT64_MAX};
    index_view_open(shared, &view);
    CHECK_OK(index_search(&view, &search, hits, &count, NULL));
    CHECK_EQ_U64(count, SHARED_IDS);
    bool seen[SHARED_IDS] = {0};
    for (uint32_t i = 0; i < count; i++) {
        const float *vector = index_view_vector(&view, hits[i].slot);
        for (uint32_t k = 0; k < SHARED_DIMENSION; k++)
            CHECK(vector[k] == (float)view.sequence);
        CHECK_EQ_U64(index_view_sequence(&view, hits[i].slot), view.sequence);
        struct str id = index_view_id(&view, hits[i].slot);
        uint64_t number = 0;
        id.data += 17;
        id.len -= 17;
        if (CHECK(str_to_u64(id, &number) && number < SHARED_IDS)) {
            CHECK(!seen[number]);
            seen[number] = true;
        }
    }
    index_view_close(&view);
    atomic_fetch_add(&search_count, 1);
}

static void *read_shared(void *argument)
{
    (void)argument;
    while (!atomic_load(&is_over))
        check_view();
    return NULL;
}

static void write_batch(uint64_t sequence, uint32_t *slots)
{
    float vector[SHARED_DIMENSION];
    char id[32];
    for (uint32_t k = 0; k < SHARED_DIMENSION; k++)
        vector[k] = (float)sequence;
    CHECK_OK(index_reserve(shared, SHARED_IDS));
    for (uint32_t i = 0; i < SHARED_IDS; i++) {
        if (sequence > 1)
            index_remove(shared, slots[i], sequence);
        int size = snprintf(id, sizeof(id), "id-on-the-heap---%u", i);
        slots[i] = index_put(shared, (struct str){id, (size_t)size}, vector, sequence);
    }
    index_publish(shared, sequence);
}

TEST(readers_see_whole_batches_while_the_writer_writes)
{
    uint32_t slots[SHARED_IDS];
    pthread_t threads[READER_COUNT];
    shared = create(SHARED_DIMENSION);
    write_batch(1, slots);
    for (int i = 0; i < READER_COUNT; i++)
        REQUIRE(pthread_create(&threads[i], NULL, read_shared, NULL) == 0);
    for (uint64_t sequence = 2; sequence < SHARED_BATCHES || atomic_load(&search_count) < 500;
         sequence++)
        write_batch(sequence, slots);
    atomic_store(&is_over, true);
    for (int i = 0; i < READER_COUNT; i++)
        pthread_join(threads[i], NULL);
    // Slots were used again, else there were hundreds of thousands.
    CHECK(index_memory_size(shared) < 100 << 20);
    index_destroy(shared);
}

TEST_MAIN()
