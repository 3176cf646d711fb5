#include "index/graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "testing/test.h"

enum { POINTS_MAX = 4000, DIMENSION_MAX = 48, TOP_K = 10, QUERIES = 50, BUILD_WIDTH = 100 };

struct fixture { // NOLINT(clang-analyzer-optin.performance.Padding): one, and the epoch is aligned
    _Alignas(EPOCH_CACHE_LINE) struct epoch epoch;
    struct graph *graph;
    struct rng rng;
    uint32_t dimension;
    float *vectors; // by slot
    bool *is_there;
    uint32_t point_count;
};

static struct fixture fixture;

enum shape { SHAPE_EVEN, SHAPE_CLUSTERS, SHAPE_CLUSTERS_IN_ORDER, SHAPE_DOUBLES };

static float *vector_at(uint32_t slot)
{
    return fixture.vectors + (size_t)slot * DIMENSION_MAX;
}

static void make_vector(float *out, enum shape shape, uint32_t slot)
{
    struct rng *rng = &fixture.rng;
    enum { CLUSTERS = 60, DOUBLES = 7 };
    uint64_t cluster = shape == SHAPE_CLUSTERS_IN_ORDER ? (uint64_t)slot * CLUSTERS / POINTS_MAX
                                                        : rng_below(rng, CLUSTERS);
    struct rng centre;
    rng_init(&centre, 1000 + cluster);
    struct rng same;
    rng_init(&same, 2000 + slot % DOUBLES);
    for (uint32_t i = 0; i < fixture.dimension; i++) {
        float noise = (float)(rng_unit(rng) - 0.5);
        switch (shape) {
        case SHAPE_EVEN:
            out[i] = noise;
            break;
        case SHAPE_CLUSTERS:
        case SHAPE_CLUSTERS_IN_ORDER:
            out[i] = (float)(rng_unit(&centre) - 0.5) * 4 + noise * 0.5F;
            break;
        case SHAPE_DOUBLES:
            // Some hundred of each of a few, and others between them.
            out[i] = slot % 4 == 0 ? noise : (float)(rng_unit(&same) - 0.5);
            break;
        }
    }
}

static void set_up(uint64_t seed, enum distance distance, uint32_t dimension, enum shape shape,
                   uint32_t count)
{
    memset(&fixture, 0, sizeof(fixture));
    epoch_init(&fixture.epoch);
    rng_init(&fixture.rng, seed);
    fixture.dimension = dimension;
    fixture.vectors = mem_alloc((size_t)POINTS_MAX * DIMENSION_MAX * sizeof(float));
    fixture.is_there = mem_alloc(POINTS_MAX * sizeof(bool));
    const float *rows[500];
    for (uint32_t i = 0; i < count; i++)
        make_vector(vector_at(i), shape, i);
    for (uint32_t i = 0; i < 500; i++)
        rows[i] = vector_at(i * count / 500);
    fixture.graph = graph_create(&(struct graph_options){.distance = distance,
                                                         .dimension = dimension,
                                                         .epoch = &fixture.epoch,
                                                         .build_width = BUILD_WIDTH},
                                 &(struct quantizer_sample){.vectors = rows, .count = 500});
    REQUIRE(fixture.graph != NULL);
    REQUIRE_OK(graph_reserve(fixture.graph, count));
    for (uint32_t i = 0; i < count; i++) {
        graph_insert(fixture.graph, i, vector_at(i));
        fixture.is_there[i] = true;
    }
    fixture.point_count = count;
}

static void tear_down(void)
{
    graph_destroy(fixture.graph);
    epoch_deinit(&fixture.epoch, NULL);
    mem_free(fixture.vectors);
    mem_free(fixture.is_there);
}

static void check(void)
{
    struct error error = {0};
    if (!CHECK_OK(graph_check(fixture.graph, &error)))
        printf("    %s\n", error.text);
}

struct scored {
    float score;
    uint32_t slot;
};

static int compare_scored(const void *a, const void *b)
{
    const struct scored *left = a;
    const struct scored *right = b;
    return (left->score > right->score) - (left->score < right->score);
}

// The part of the true nearest, by score, that are among the best that the graph found.
static double recall(enum distance distance, enum shape shape, float stop)
{
    static struct scored all[POINTS_MAX];
    struct beam beam;
    beam_init(&beam);
    uint32_t found = 0;
    float query[DIMENSION_MAX];
    for (uint32_t q = 0; q < QUERIES; q++) {
        make_vector(query, shape, (uint32_t)rng_below(&fixture.rng, fixture.point_count));
        uint32_t count = 0;
        for (uint32_t i = 0; i < POINTS_MAX; i++) {
            if (fixture.is_there[i])
                all[count++] = (struct scored){
                    distance_score(distance, query, vector_at(i), fixture.dimension), i};
        }
        qsort(all, count, sizeof(all[0]), compare_scored);
        float worst = all[TOP_K - 1].score;
        const struct graph_search search = {
            .vector = query, .width = 400, .k = TOP_K, .stop = stop};
        CHECK_OK(graph_search(fixture.graph, &beam, &search));
        uint32_t hits = 0;
        for (uint32_t i = 0; i < beam.count && i < 4 * TOP_K && hits < TOP_K; i++) {
            if (fixture.is_there[beam.slots[i]] &&
                distance_score(distance, query, vector_at(beam.slots[i]), fixture.dimension) <=
                    worst)
                hits++;
        }
        found += hits;
    }
    beam_deinit(&beam);
    return (double)found / (QUERIES * TOP_K);
}

static void sweep(void)
{
    graph_sweep_begin(fixture.graph);
    while (graph_sweep_step(fixture.graph, 100))
        CHECK(graph_is_sweeping(fixture.graph));
}

// Points that are alike by the hundred can lose each other; the repair finds them. Others cannot.
static void repair_all(bool may_be_lost)
{
    enum { ROUNDS_MAX = 4 };
    uint32_t lost = graph_repair(fixture.graph);
    CHECK(may_be_lost || lost == 0);
    CHECK(lost < fixture.point_count / 20);
    for (uint32_t round = 0; lost > 0 && round < ROUNDS_MAX; round++) {
        printf("    %u were lost\n", lost);
        lost = graph_repair(fixture.graph);
    }
    CHECK_EQ_U64(lost, 0);
}

TEST(the_nearest_are_found)
{
    for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++) {
        // The shape of the data does not matter more to one distance than to another.
        int last = distance == DISTANCE_COSINE ? SHAPE_DOUBLES : SHAPE_CLUSTERS;
        for (int shape = SHAPE_EVEN; shape <= last; shape++) {
            set_up(7, (enum distance)distance, 24, (enum shape)shape, 2500);
            repair_all(shape == SHAPE_DOUBLES);
            check();
            double part = recall((enum distance)distance, (enum shape)shape, 1.4F);
            printf("%s, shape %d: recall %.3f\n", distance_name((enum distance)distance), shape,
                   part);
            CHECK(part > 0.95);
            CHECK_EQ_U64(graph_point_count(fixture.graph), 2500);
            tear_down();
        }
    }
}

TEST(few_points_are_all_found)
{
    for (uint32_t count = 1; count < 40; count++) {
        memset(&fixture, 0, sizeof(fixture));
        set_up(count, DISTANCE_EUCLIDEAN, 5, SHAPE_EVEN, count < 2 ? 2 : count);
        struct beam beam;
        beam_init(&beam);
        const struct graph_search search = {.vector = vector_at(0), .width = 100, .k = TOP_K};
        REQUIRE_OK(graph_search(fixture.graph, &beam, &search));
        CHECK_EQ_U64(beam.count, fixture.point_count);
        CHECK_EQ_U64(beam.slots[0], 0);
        beam_deinit(&beam);
        check();
        tear_down();
    }
}

TEST(removed_points_are_taken_out_and_slots_used_again)
{
    set_up(3, DISTANCE_EUCLIDEAN, 16, SHAPE_CLUSTERS, 3000);
    double before = recall(DISTANCE_EUCLIDEAN, SHAPE_CLUSTERS, 1.3F);
    for (uint32_t round = 0; round < 8; round++) {
        uint32_t removed[300];
        for (uint32_t i = 0; i < 300; i++) {
            uint32_t slot;
            do
                slot = (uint32_t)rng_below(&fixture.rng, 3000);
            while (!fixture.is_there[slot]);
            graph_remove(fixture.graph, slot);
            fixture.is_there[slot] = false;
            removed[i] = slot;
        }
        CHECK_EQ_U64(graph_removed_count(fixture.graph), 300);
        check();
        sweep();
        CHECK_EQ_U64(graph_removed_count(fixture.graph), 0);
        CHECK_EQ_U64(graph_point_count(fixture.graph), 2700);
        check();
        uint32_t count = 0;
        const uint32_t *released = graph_released(fixture.graph, &count);
        if (CHECK_EQ_U64(count, 300))
            CHECK(memcmp(released, removed, sizeof(removed)) == 0);
        for (uint32_t i = 0; i < 300; i++) {
            make_vector(vector_at(removed[i]), SHAPE_CLUSTERS, removed[i]);
            graph_insert(fixture.graph, removed[i], vector_at(removed[i]));
            fixture.is_there[removed[i]] = true;
        }
        check();
    }
    double after = recall(DISTANCE_EUCLIDEAN, SHAPE_CLUSTERS, 1.3F);
    printf("recall %.3f fresh, %.3f after everything was replaced\n", before, after);
    CHECK(after > before - 0.02);
    CHECK_EQ_U64(graph_repair(fixture.graph), 0);
    tear_down();
}

// Half at once, then all: the entry goes too.
TEST(all_points_can_be_removed)
{
    set_up(4, DISTANCE_COSINE, 16, SHAPE_EVEN, 2000);
    for (uint32_t i = 0; i < 2000; i += 2) {
        graph_remove(fixture.graph, i);
        fixture.is_there[i] = false;
    }
    sweep();
    check();
    CHECK(recall(DISTANCE_COSINE, SHAPE_EVEN, 1.4F) > 0.93);
    for (uint32_t i = 1; i < 2000; i += 2)
        graph_remove(fixture.graph, i);
    sweep();
    check();
    struct beam beam;
    beam_init(&beam);
    const struct graph_search search = {.vector = vector_at(0), .width = 100, .k = TOP_K};
    REQUIRE_OK(graph_search(fixture.graph, &beam, &search));
    CHECK_EQ_U64(beam.count, 0);
    beam_deinit(&beam);
    for (uint32_t i = 0; i < 2000; i++) {
        graph_insert(fixture.graph, i, vector_at(i));
        fixture.is_there[i] = true;
    }
    check();
    CHECK(recall(DISTANCE_COSINE, SHAPE_EVEN, 1.4F) > 0.95);
    tear_down();
}

// What changes between the steps of a sweep is for the next one.
TEST(a_sweep_goes_on_while_points_come_and_go)
{
    set_up(5, DISTANCE_EUCLIDEAN, 16, SHAPE_EVEN, 3000);
    for (uint32_t i = 2000; i < 2500; i++)
        graph_remove(fixture.graph, i);
    graph_sweep_begin(fixture.graph);
    uint32_t next = 0;
    REQUIRE_OK(graph_reserve(fixture.graph, 4000));
    uint32_t added = 3000;
    while (graph_sweep_step(fixture.graph, 50)) {
        graph_remove(fixture.graph, next++);
        make_vector(vector_at(added), SHAPE_EVEN, added);
        graph_insert(fixture.graph, added, vector_at(added));
        added++;
        REQUIRE(added < 4000 && next < 2000);
    }
    check();
    CHECK(next > 0);
    CHECK_EQ_U64(graph_removed_count(fixture.graph), next);
    sweep();
    check();
    CHECK_EQ_U64(graph_point_count(fixture.graph), 2500 - next + (added - 3000));
    tear_down();
}

static const float *give_vector(void *context, uint32_t slot)
{
    (void)context;
    return vector_at(slot);
}

TEST(codes_can_be_learned_again)
{
    set_up(6, DISTANCE_EUCLIDEAN, 16, SHAPE_EVEN, 2000);
    // New points lie elsewhere: codes that were learned before cannot tell them apart.
    REQUIRE_OK(graph_reserve(fixture.graph, POINTS_MAX));
    const float *rows[500];
    for (uint32_t i = 2000; i < 2500; i++) {
        for (uint32_t k = 0; k < 16; k++)
            vector_at(i)[k] = 100 + (float)rng_unit(&fixture.rng) * 30;
        rows[i - 2000] = vector_at(i);
    }
    REQUIRE_OK(graph_learn(fixture.graph, &(struct quantizer_sample){.vectors = rows, .count = 500},
                           give_vector, NULL));
    for (uint32_t i = 2000; i < 2500; i++)
        graph_insert(fixture.graph, i, vector_at(i));
    check();
    struct beam beam;
    beam_init(&beam);
    uint32_t found = 0;
    for (uint32_t i = 2000; i < 2500; i++) {
        const struct graph_search search = {
            .vector = vector_at(i), .width = 200, .k = TOP_K, .stop = 1.3F};
        REQUIRE_OK(graph_search(fixture.graph, &beam, &search));
        found += beam.slots[0] == i;
    }
    CHECK(found > 490);
    beam_deinit(&beam);
    graph_forget_old(fixture.graph);
    tear_down();
}

static uint64_t build_and_change(void)
{
    set_up(8, DISTANCE_COSINE, 33, SHAPE_CLUSTERS, 2500);
    for (uint32_t i = 0; i < 400; i++)
        graph_remove(fixture.graph, i * 5);
    sweep();
    for (uint32_t i = 0; i < 200; i++)
        graph_insert(fixture.graph, i * 5, vector_at(i * 5));
    uint64_t hash = graph_hash(fixture.graph);
    tear_down();
    return hash;
}

TEST(equal_calls_give_equal_graphs_with_every_instruction_set)
{
    uint64_t wanted = 0;
    for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
        REQUIRE_OK(kernel_choose(str_from_cstr(kernel_at(i)->name), NULL));
        uint64_t hash = build_and_change();
        printf("%s: %016llx\n", kernel_at(i)->name, (unsigned long long)hash);
        if (i == 0)
            wanted = hash;
        CHECK(hash != 0);
        CHECK_EQ_U64(hash, wanted);
    }
    REQUIRE_OK(kernel_choose(STR(""), NULL));
}

TEST_MAIN()
