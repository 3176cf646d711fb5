#include "base/map.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "testing/test.h"

enum { KEY_COUNT = 500, STEP_COUNT = 200000 };

static struct str key_of(uint64_t number, char text[static 32])
{
    int len = snprintf(text, 32, "key-%llu", (unsigned long long)number);
    return (struct str){text, (size_t)len};
}

TEST(empty_map)
{
    struct map *map = map_create();
    size_t position = 0;
    struct str key;
    void *value;
    CHECK(map_get(map, STR("x")) == NULL);
    CHECK(map_remove(map, STR("x")) == NULL);
    CHECK(!map_next(map, &position, &key, &value));
    map_destroy(map);
    map_destroy(NULL);
}

TEST(keys_are_copied_and_may_be_any_bytes)
{
    struct map *map = map_create();
    int values[4];
    char key[] = "abc";
    CHECK(map_put(map, str_from_cstr(key), &values[0]) == NULL);
    key[0] = 'X';
    CHECK(map_get(map, STR("abc")) == &values[0]);
    CHECK(map_put(map, STR("a\0b"), &values[1]) == NULL);
    CHECK(map_put(map, STR(""), &values[2]) == NULL);
    CHECK(map_get(map, (struct str){0}) == &values[2]);
    CHECK(map_get(map, STR("a")) == NULL);
    CHECK(map_put(map, STR("abc"), &values[3]) == &values[0]);
    CHECK_EQ_U64(map_count(map), 3);
    map_destroy(map);
}

// Random puts and removes against a plain array.
TEST(behaves_like_an_array)
{
    struct map *map = map_create();
    static char model[KEY_COUNT][2]; // [1] is what is there, [0] another value; NULL: nothing
    void *there[KEY_COUNT] = {0};
    size_t count = 0;
    struct rng rng;
    rng_init(&rng, 7);
    for (int step = 0; step < STEP_COUNT; step++) {
        uint64_t number = rng_below(&rng, KEY_COUNT);
        char text[32];
        struct str key = key_of(number, text);
        // Waves: mostly puts, then mostly removes, so that the map fills and empties.
        bool is_put = rng_below(&rng, 4) < (step / 5000 % 2 == 0 ? 3U : 1U);
        void *value = is_put ? &model[number][rng_below(&rng, 2)] : NULL;
        void *before = is_put ? map_put(map, key, value) : map_remove(map, key);
        REQUIRE(before == there[number]);
        count += (there[number] == NULL && is_put);
        count -= (there[number] != NULL && !is_put);
        there[number] = value;
        REQUIRE(map_count(map) == count);
        number = rng_below(&rng, KEY_COUNT);
        REQUIRE(map_get(map, key_of(number, text)) == there[number]);
    }

    size_t position = 0;
    size_t seen = 0;
    struct str key;
    void *value;
    while (map_next(map, &position, &key, &value)) {
        uint64_t number = 0;
        key.data += 4;
        key.len -= 4;
        REQUIRE(str_to_u64(key, &number));
        CHECK(value == there[number]);
        seen++;
    }
    CHECK_EQ_U64(seen, count);
    map_destroy(map);
}

TEST_MAIN()
