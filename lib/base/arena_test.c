#include "base/arena.h"

#include <string.h>

#include "base/rng.h"
#include "testing/test.h"

TEST(pieces_are_zeroed_aligned_and_apart)
{
    struct arena *arena = arena_create(1 << 20);
    struct rng rng;
    rng_init(&rng, 1);
    for (int round = 0; round < 5; round++) {
        unsigned char *pieces[300];
        size_t sizes[300];
        for (size_t i = 0; i < 300; i++) {
            sizes[i] = (size_t)rng_below(&rng, i % 50 == 0 ? 40000 : 200);
            pieces[i] = arena_alloc(arena, sizes[i]);
            CHECK((uintptr_t)pieces[i] % 16 == 0);
            for (size_t j = 0; j < sizes[i]; j++)
                REQUIRE(pieces[i][j] == 0);
            memset(pieces[i], (int)(i % 250) + 1, sizes[i]);
        }
        for (size_t i = 0; i < 300; i++) {
            for (size_t j = 0; j < sizes[i]; j++)
                REQUIRE(pieces[i][j] == i % 250 + 1);
        }
        arena_reset(arena);
        CHECK_EQ_U64(arena_size(arena), 0);
    }
    arena_destroy(arena);
    arena_destroy(NULL);
}

TEST(the_maximum_holds)
{
    struct arena *arena = arena_create(1000);
    CHECK(arena_try_alloc(arena, 1001) == NULL);
    CHECK(arena_try_alloc(arena, SIZE_MAX) == NULL);
    CHECK(arena_try_alloc(arena, SIZE_MAX - 8) == NULL);
    CHECK(arena_size(arena) == 0);
    CHECK(arena_try_alloc(arena, 500) != NULL);
    CHECK(arena_try_alloc(arena, 500) == NULL); // the first was rounded up
    CHECK(arena_try_alloc(arena, 480) != NULL);
    CHECK(arena_alloc(arena, 100) != NULL); // may pass it
    CHECK(arena_try_alloc(arena, 1) == NULL);
    CHECK(arena_try_alloc(arena, 0) == NULL);
    arena_destroy(arena);
}

TEST(text)
{
    struct arena *arena = arena_create(1 << 16);
    CHECK_CSTR(arena_cstr(arena, STR("abc")), "abc");
    CHECK_CSTR(arena_cstr(arena, (struct str){0}), "");
    CHECK_STR(arena_str(arena, STR("a\0b")), STR("a\0b"));
    struct str text = arena_format(arena, "%s %d", "shard", 7);
    CHECK_STR(text, STR("shard 7"));
    CHECK(text.data[text.len] == '\0');
    char long_text[5000];
    memset(long_text, 'x', sizeof(long_text));
    long_text[4999] = '\0';
    CHECK_EQ_U64(arena_format(arena, "%s", long_text).len, 4999);
    arena_destroy(arena);
}

TEST_MAIN()
