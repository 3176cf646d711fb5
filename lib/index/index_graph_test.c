#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "index/index.h"
#include "testing/test.h"

// The index with a graph, held against its own exact search.

enum { IDS = 2000, DIMENSION = 12, GRAPH_MIN = 300, BUILD_WIDTH = 60, TOP_K_MAX = 60 };

struct model {
    struct index *index;
    struct rng rng;
    uint64_t sequence;
    uint32_t slots[IDS];
    float vectors[IDS][DIMENSION];
    uint64_t wanted;
    uint64_t found;
};

static struct model model;

static void make_vector(struct rng *rng, float *out)
{
    struct rng centre;
    rng_init(&centre, rng_below(rng, 40));
    for (uint32_t i = 0; i < DIMENSION; i++)
        out[i] = (float)(rng_unit(&centre) * 3 + rng_unit(rng) - 2);
}

static struct str id_of(uint32_t number, char out[static 48])
{
    const char *tail = number % 2 == 0 ? "" : "-and-a-rather-long-end";
    int size = snprintf(out, 48, "id-%u%s", number, tail);
    return (struct str){out, (size_t)size};
}

static void set_up(uint64_t seed, enum distance distance)
{
    memset(&model, 0, sizeof(model));
    rng_init(&model.rng, seed);
    model.index = index_create(&(struct index_options){.dimension = DIMENSION,
                                                       .distance = distance,
                                                       .build_width = BUILD_WIDTH,
                                                       .graph_points_min = GRAPH_MIN});
    for (uint32_t i = 0; i < IDS; i++)
        model.slots[i] = INDEX_SLOT_NONE;
}

static void link_all(void)
{
    while (index_link(model.index, 64))
        continue;
}

// A batch of changes; chance of 100 that one removes.
static void change(uint32_t count, uint32_t removing)
{
    uint64_t sequence = ++model.sequence;
    REQUIRE_OK(index_reserve(model.index, count));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = (uint32_t)rng_below(&model.rng, IDS);
        if (model.slots[number] != INDEX_SLOT_NONE)
            index_remove(model.index, model.slots[number], sequence);
        model.slots[number] = INDEX_SLOT_NONE;
        if (rng_below(&model.rng, 100) < removing)
            continue;
        char text[48];
        make_vector(&model.rng, model.vectors[number]);
        model.slots[number] =
            index_put(model.index, id_of(number, text), model.vectors[number], sequence);
    }
    index_publish(model.index, sequence);
}

static void check_invariants(void)
{
    struct error error = {0};
    if (!CHECK_OK(index_check(model.index, &error)))
        printf("    %s\n", error.text);
}

static bool is_in(const struct index_hit *hits, uint32_t count, struct index_hit hit)
{
    for (uint32_t i = 0; i < count; i++) {
        if (hits[i].slot == hit.slot)
            return true;
    }
    return false;
}

// Whatever is approximate about it: as many hits as there are, ordered, each once, with its score.
static void compare(void)
{
    static struct index_hit exact[IDS];
    static struct index_hit hits[TOP_K_MAX];
    float query[DIMENSION];
    make_vector(&model.rng, query);
    struct index_search search = {.vector = query,
                                  .top_k = 1 + (uint32_t)rng_below(&model.rng, TOP_K_MAX),
                                  .deadline_ns = UINT64_MAX};
    struct index_view view;
    uint32_t count = 0;
    uint32_t all = 0;
    index_view_open(model.index, &view);
    CHECK_OK(index_search(&view, &search, hits, &count, NULL));
    search.is_exact = true;
    uint32_t top_k = search.top_k;
    search.top_k = IDS;
    CHECK_OK(index_search(&view, &search, exact, &all, NULL));
    CHECK_EQ_U64(all, index_point_count(model.index));
    if (!CHECK_EQ_U64(count, all < top_k ? all : top_k))
        count = 0;
    for (uint32_t i = 0; i < count; i++) {
        CHECK(i == 0 || hits[i - 1].score <= hits[i].score);
        CHECK(!is_in(hits, i, hits[i]));
        uint32_t place = 0;
        while (place < all && exact[place].slot != hits[i].slot)
            place++;
        if (CHECK(place < all))
            CHECK(exact[place].score == hits[i].score);
    }
    for (uint32_t i = 0; i < count; i++)
        model.found += is_in(hits, count, exact[i]);
    model.wanted += count;
    index_view_close(&view);
}

static void run_model(uint64_t seed, enum distance distance)
{
    enum { ROUNDS = 80, SEARCHES = 4 };
    set_up(seed, distance);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        // Grow, turn over, and shrink to almost nothing.
        uint32_t removing = round < 35 ? 10 : round < 60 ? 45 : 97;
        change(1 + (uint32_t)rng_below(&model.rng, 200), removing);
        if (rng_below(&model.rng, 3) == 0)
            link_all();
        else
            (void)index_link(model.index, (uint32_t)rng_below(&model.rng, 200));
        check_invariants();
        for (uint32_t i = 0; i < SEARCHES; i++)
            compare();
    }
    link_all();
    CHECK_EQ_U64(index_unlinked_count(model.index), 0);
    double recall = (double)model.found / (double)model.wanted;
    printf("seed %llu, %s: recall %.4f\n", (unsigned long long)seed, distance_name(distance),
           recall);
    CHECK(recall > 0.97);
    index_destroy(model.index);
}

TEST(a_changing_index_answers_as_the_exact_search_does)
{
    uint64_t seed = clock_monotonic_ns();
    for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++)
        run_model(seed + (uint64_t)distance, (enum distance)distance);
}

TEST(a_point_removed_before_it_was_linked_counts_no_more)
{
    float vector[DIMENSION];
    set_up(1, DISTANCE_EUCLIDEAN);
    change(1800, 0);
    link_all();
    make_vector(&model.rng, vector);
    REQUIRE_OK(index_reserve(model.index, 1));
    uint32_t slot = index_put(model.index, STR("x"), vector, ++model.sequence);
    index_publish(model.index, model.sequence);
    CHECK_EQ_U64(index_unlinked_count(model.index), 1);
    index_remove(model.index, slot, ++model.sequence);
    index_publish(model.index, model.sequence);
    // Who came after the removal does not see the point, so it keeps nothing.
    struct index_view view;
    index_view_open(model.index, &view);
    link_all();
    CHECK_EQ_U64(index_unlinked_count(model.index), 0);
    CHECK(!index_wants_link(model.index));
    index_view_close(&view);
    check_invariants();
    index_destroy(model.index);
}

TEST(a_point_is_found_right_after_it_was_published)
{
    set_up(1, DISTANCE_EUCLIDEAN);
    change(1800, 0);
    link_all();
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t number = (uint32_t)rng_below(&model.rng, IDS);
        uint64_t sequence = ++model.sequence;
        char text[48];
        REQUIRE_OK(index_reserve(model.index, 1));
        if (model.slots[number] != INDEX_SLOT_NONE)
            index_remove(model.index, model.slots[number], sequence);
        make_vector(&model.rng, model.vectors[number]);
        model.slots[number] =
            index_put(model.index, id_of(number, text), model.vectors[number], sequence);
        index_publish(model.index, sequence);
        struct index_view view;
        struct index_hit hits[1];
        uint32_t count = 0;
        const struct index_search search = {
            .vector = model.vectors[number], .top_k = 1, .deadline_ns = UINT64_MAX};
        index_view_open(model.index, &view);
        CHECK_OK(index_search(&view, &search, hits, &count, NULL));
        if (CHECK_EQ_U64(count, 1))
            CHECK_EQ_U64(hits[0].slot, model.slots[number]);
        index_view_close(&view);
        if (i % 7 == 0)
            (void)index_link(model.index, 5);
    }
    index_destroy(model.index);
}

TEST(slots_of_removed_points_come_back)
{
    set_up(2, DISTANCE_COSINE);
    change(2000, 0);
    link_all();
    uint64_t before = index_memory_size(model.index);
    for (uint32_t round = 0; round < 30; round++) {
        change(300, 0);
        link_all();
    }
    check_invariants();
    // Everything was replaced several times.
    CHECK(index_memory_size(model.index) < 2 * before);
    CHECK(!index_is_behind(model.index));
    index_destroy(model.index);
}

// Points that are alike by the hundred lose each other; that is noticed and mended.
TEST(lost_points_are_linked_again)
{
    set_up(5, DISTANCE_COSINE);
    REQUIRE_OK(index_reserve(model.index, IDS));
    for (uint32_t i = 0; i < IDS; i++) {
        char text[48];
        struct rng same;
        rng_init(&same, i % 4 == 0 ? 100 + i : i % 5);
        make_vector(&same, model.vectors[i]);
        model.slots[i] = index_put(model.index, id_of(i, text), model.vectors[i], 1);
    }
    index_publish(model.index, 1);
    link_all();
    printf("%llu were lost\n", (unsigned long long)index_found_count(model.index));
    CHECK(index_found_count(model.index) > 0);
    CHECK_EQ_U64(index_lost_count(model.index), 0);
    check_invariants();
    index_destroy(model.index);
}

// --- The effort of searches that do not say

enum { HARD_POINTS = 4000, HARD_DIMENSION = 48, HARD_QUERIES = 100 };

// By dot, with norms that differ by far: codes are coarse and the usual effort finds too little.
static void make_hard_vector(struct rng *rng, float *out)
{
    double length = 1;
    for (uint32_t i = 0; i < 3; i++)
        length *= 0.5 + rng_unit(rng);
    for (uint32_t i = 0; i < HARD_DIMENSION; i++)
        out[i] = (float)((rng_unit(rng) + rng_unit(rng) - 1) * length);
}

static double hard_recall(struct index *index, struct rng *rng, bool is_usual)
{
    uint32_t found = 0;
    struct index_view view;
    index_view_open(index, &view);
    for (uint32_t i = 0; i < HARD_QUERIES; i++) {
        float query[HARD_DIMENSION];
        struct index_hit exact[10];
        struct index_hit hits[10];
        uint32_t count = 0;
        make_hard_vector(rng, query);
        struct index_search search = {.vector = query, .top_k = 10, .deadline_ns = UINT64_MAX};
        search.ef = is_usual ? 0 : 30;
        CHECK_OK(index_search(&view, &search, hits, &count, NULL));
        CHECK_EQ_U64(count, 10);
        search.is_exact = true;
        CHECK_OK(index_search(&view, &search, exact, &count, NULL));
        for (uint32_t k = 0; k < 10; k++)
            found += is_in(hits, 10, exact[k]);
    }
    index_view_close(&view);
    return (double)found / (10 * HARD_QUERIES);
}

TEST(the_usual_effort_finds_enough_whatever_the_data)
{
    struct index *index = index_create(&(struct index_options){.dimension = HARD_DIMENSION,
                                                               .distance = DISTANCE_DOT,
                                                               .build_width = BUILD_WIDTH,
                                                               .graph_points_min = GRAPH_MIN});
    struct rng rng;
    rng_init(&rng, 9);
    CHECK(index_effort(index).recall == 1); // everything is scanned
    REQUIRE_OK(index_reserve(index, HARD_POINTS));
    for (uint32_t i = 0; i < HARD_POINTS; i++) {
        float vector[HARD_DIMENSION];
        char text[48];
        make_hard_vector(&rng, vector);
        (void)index_put(index, id_of(i, text), vector, 1);
    }
    index_publish(index, 1);
    CHECK(index_wants_link(index));
    while (index_link(index, 100))
        continue;
    CHECK(!index_wants_link(index));
    struct index_effort stored = index_effort(index);
    double little = hard_recall(index, &rng, false);
    double usual = hard_recall(index, &rng, true);
    // Those searches are a better sample.
    CHECK(index_wants_link(index));
    while (index_link(index, 100))
        continue;
    CHECK(!index_wants_link(index));
    struct index_effort recent = index_effort(index);
    double tuned = hard_recall(index, &rng, true);
    printf("recall %.3f with little effort, %.3f after stored points (stop %.2f, %u rescored, "
           "measured %.3f), %.3f after queries (stop %.2f, %u, %.3f)\n",
           little, usual, (double)stored.stop, stored.rescored, (double)stored.recall, tuned,
           (double)recent.stop, recent.rescored, (double)recent.recall);
    CHECK(little < 0.95);
    CHECK(stored.recall >= 0.98F && recent.recall >= 0.98F);
    CHECK(usual > 0.96);
    CHECK(tuned > 0.97);
    index_destroy(index);
}

TEST(a_graph_search_can_be_stopped)
{
    set_up(3, DISTANCE_COSINE);
    change(2000, 0);
    link_all();
    struct index_view view;
    struct index_hit hits[10];
    struct index_stats stats;
    uint32_t count = 0;
    atomic_bool cancelled = true;
    struct index_search search = {
        .vector = model.vectors[0], .top_k = 10, .deadline_ns = UINT64_MAX};
    model.vectors[0][0] += 1;
    index_view_open(model.index, &view);
    CHECK_OK(index_search(&view, &search, hits, &count, &stats));
    CHECK(stats.rows_compared < 1200);
    search.cancelled = &cancelled;
    CHECK_STATUS(index_search(&view, &search, hits, &count, &stats), STATUS_CANCELLED);
    atomic_store(&cancelled, false);
    search.deadline_ns = 1;
    CHECK_STATUS(index_search(&view, &search, hits, &count, &stats), STATUS_TIMEOUT);
    // A tight cap and a far stop both leave as many hits as were asked for.
    search.deadline_ns = UINT64_MAX;
    search.ef = 1;
    CHECK_OK(index_search(&view, &search, hits, &count, &stats));
    CHECK_EQ_U64(count, 10);
    index_view_close(&view);
    index_destroy(model.index);
}

// --- Readers while the writer puts, removes and links

enum { READERS = 2, KEPT = 200 };

static atomic_bool is_over;
static _Atomic uint64_t search_count;
static _Atomic uint64_t missed_count;

// The first ids are never changed, so a search for one of their vectors finds it.
static void search_for(struct rng *rng)
{
    uint32_t number = (uint32_t)rng_below(rng, KEPT);
    struct index_view view;
    struct index_hit hits[10];
    uint32_t count = 0;
    const struct index_search search = {
        .vector = model.vectors[number], .top_k = 10, .stop = 1.4F, .deadline_ns = UINT64_MAX};
    index_view_open(model.index, &view);
    CHECK_OK(index_search(&view, &search, hits, &count, NULL));
    CHECK_EQ_U64(count, 10);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(i == 0 || hits[i - 1].score <= hits[i].score);
        CHECK(!is_in(hits, i, hits[i]));
        CHECK(index_view_sequence(&view, hits[i].slot) <= view.sequence);
        const float *vector = index_view_vector(&view, hits[i].slot);
        CHECK(distance_score(DISTANCE_EUCLIDEAN, search.vector, vector, DIMENSION) ==
              hits[i].score);
        CHECK(index_view_id(&view, hits[i].slot).len > 3);
    }
    if (hits[0].slot != model.slots[number])
        atomic_fetch_add(&missed_count, 1);
    index_view_close(&view);
    atomic_fetch_add(&search_count, 1);
}

static void *read_all_the_time(void *argument)
{
    struct rng rng;
    rng_init(&rng, *(const uint64_t *)argument);
    while (!atomic_load(&is_over))
        search_for(&rng);
    return NULL;
}

TEST(readers_never_wait_for_the_writer)
{
    pthread_t threads[READERS];
    static const uint64_t seeds[READERS] = {1, 2};
    set_up(4, DISTANCE_EUCLIDEAN);
    uint64_t sequence = ++model.sequence;
    REQUIRE_OK(index_reserve(model.index, 1500));
    for (uint32_t i = 0; i < 1500; i++) {
        char text[48];
        make_vector(&model.rng, model.vectors[i]);
        model.slots[i] = index_put(model.index, id_of(i, text), model.vectors[i], sequence);
    }
    index_publish(model.index, sequence);
    (void)index_link(model.index, 500);
    for (int i = 0; i < READERS; i++) {
        void *seed;
        const uint64_t *from = &seeds[i];
        memcpy(&seed, &from, sizeof(seed));
        REQUIRE(pthread_create(&threads[i], NULL, read_all_the_time, seed) == 0);
    }
    float vector[DIMENSION];
    for (uint32_t round = 0; round < 150 || atomic_load(&search_count) < 2000; round++) {
        sequence = ++model.sequence;
        REQUIRE_OK(index_reserve(model.index, 20));
        for (uint32_t i = 0; i < 20; i++) {
            uint32_t number = KEPT + (uint32_t)rng_below(&model.rng, IDS - KEPT);
            char text[48];
            if (model.slots[number] != INDEX_SLOT_NONE)
                index_remove(model.index, model.slots[number], sequence);
            model.slots[number] = INDEX_SLOT_NONE;
            if (rng_below(&model.rng, 3) == 0)
                continue;
            make_vector(&model.rng, vector);
            model.slots[number] = index_put(model.index, id_of(number, text), vector, sequence);
        }
        index_publish(model.index, sequence);
        (void)index_link(model.index, 30);
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    printf("%llu searches, %llu missed\n", (unsigned long long)atomic_load(&search_count),
           (unsigned long long)atomic_load(&missed_count));
    CHECK(atomic_load(&missed_count) * 100 <= atomic_load(&search_count));
    link_all();
    check_invariants();
    index_destroy(model.index);
}

TEST_MAIN()
