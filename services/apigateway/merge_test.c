#include "apigateway/merge.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "testing/test.h"

enum { LISTS = 5, HITS_MAX = 40 };

static Vectron__Worker__V1__ShardHit *make_hit(struct arena *arena, float score, const char *id)
{
    Vectron__Worker__V1__ShardHit *hit = arena_alloc(arena, sizeof(*hit));
    vectron__worker__v1__shard_hit__init(hit);
    hit->score = score;
    hit->id = arena_cstr(arena, str_from_cstr(id));
    return hit;
}

TEST(ties_go_by_id)
{
    struct arena *arena = arena_create(1 << 20);
    Vectron__Worker__V1__ShardHit *first[] = {make_hit(arena, 1, "b"), make_hit(arena, 2, "a")};
    Vectron__Worker__V1__ShardHit *second[] = {make_hit(arena, 1, "a"), make_hit(arena, 1, "c"),
                                               make_hit(arena, 2, "A")};
    struct hit_list lists[] = {{first, 2}, {NULL, 0}, {second, 3}};
    size_t count = 0;
    Vectron__Worker__V1__ShardHit **merged = merge_hits(lists, 3, 10, arena, &count);
    REQUIRE(merged != NULL && count == 5);
    const char *expected[] = {"a", "b", "c", "A", "a"};
    for (size_t i = 0; i < count; i++)
        CHECK_CSTR(merged[i]->id, expected[i]);
    arena_destroy(arena);
}

TEST(no_more_than_asked_for)
{
    struct arena *arena = arena_create(1 << 20);
    Vectron__Worker__V1__ShardHit *hits[] = {make_hit(arena, -1, "x"), make_hit(arena, 0, "y")};
    struct hit_list lists[] = {{hits, 2}};
    size_t count = 9;
    CHECK(merge_hits(lists, 1, 1, arena, &count)[0] == hits[0]);
    CHECK_EQ_U64(count, 1);
    CHECK(merge_hits(lists, 0, 10, arena, &count) != NULL);
    CHECK_EQ_U64(count, 0);
    arena_destroy(arena);
}

static bool is_ordered(Vectron__Worker__V1__ShardHit **hits, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (hits[i - 1]->score > hits[i]->score)
            return false;
        if (!(hits[i - 1]->score < hits[i]->score) && strcmp(hits[i - 1]->id, hits[i]->id) > 0)
            return false;
    }
    return true;
}

// Sorted lists of random lengths with many equal scores against the whole, sorted.
TEST(random_lists_come_out_sorted)
{
    struct rng rng;
    rng_init(&rng, 7);
    for (int round = 0; round < 200; round++) {
        struct arena *arena = arena_create(1 << 20);
        Vectron__Worker__V1__ShardHit *hits[LISTS][HITS_MAX];
        struct hit_list lists[LISTS];
        size_t total = 0;
        for (size_t i = 0; i < LISTS; i++) {
            size_t size = rng_below(&rng, HITS_MAX);
            float score = -3;
            for (size_t j = 0; j < size; j++) {
                char id[24];
                score += (float)rng_below(&rng, 2);
                // Ascending within a list, as workers send them.
                (void)snprintf(id, sizeof(id), "%04zu-%zu", j, i);
                hits[i][j] = make_hit(arena, score, id);
            }
            lists[i] = (struct hit_list){hits[i], size};
            total += size;
        }
        size_t count = 0;
        size_t count_max = rng_below(&rng, 250);
        Vectron__Worker__V1__ShardHit **merged = merge_hits(lists, LISTS, count_max, arena, &count);
        REQUIRE(merged != NULL);
        CHECK_EQ_U64(count, total < count_max ? total : count_max);
        CHECK(is_ordered(merged, count));
        arena_destroy(arena);
    }
}

TEST(too_large_for_the_arena)
{
    struct arena *arena = arena_create(1024);
    Vectron__Worker__V1__ShardHit *hits[1000] = {0};
    Vectron__Worker__V1__ShardHit one = VECTRON__WORKER__V1__SHARD_HIT__INIT;
    for (size_t i = 0; i < 1000; i++)
        hits[i] = &one;
    struct hit_list lists[] = {{hits, 1000}};
    size_t count = 0;
    CHECK(merge_hits(lists, 1, 1000, arena, &count) == NULL);
    arena_destroy(arena);
}

TEST_MAIN()
