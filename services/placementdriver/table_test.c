#include "placementdriver/table.h"

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "testing/test.h"

// Random changes against an array with one place per key.

enum { KEYS = 3000 };

static char keys[KEYS][8];
static bool is_in[KEYS];

static struct str key_of(size_t number)
{
    return str_from_cstr(keys[number]);
}

static void check_walk(const struct table *table, size_t from)
{
    struct table_cursor cursor = table_seek(table, key_of(from));
    for (size_t i = from; i < KEYS; i++) {
        if (is_in[i])
            CHECK(table_next(&cursor) == keys[i]);
    }
    CHECK(table_next(&cursor) == NULL);
}

TEST(table_is_what_a_sorted_array_is)
{
    struct table table;
    struct rng rng;
    size_t count = 0;
    rng_init(&rng, 1);
    table_init(&table);
    for (size_t i = 0; i < KEYS; i++)
        snprintf(keys[i], sizeof(keys[i]), "%05zu", i);
    CHECK(table_get(&table, key_of(0)) == NULL);
    CHECK(table_remove(&table, key_of(0)) == NULL);
    for (int step = 0; step < 30000; step++) {
        size_t number = rng_below(&rng, KEYS);
        // Fill first, empty at the end.
        bool wants_in = rng_below(&rng, 30000) > (uint64_t)step;
        CHECK(table_get(&table, key_of(number)) == (is_in[number] ? keys[number] : NULL));
        if (wants_in && !is_in[number]) {
            table_put(&table, key_of(number), keys[number]);
            count++;
        } else if (!wants_in) {
            void *was = is_in[number] ? keys[number] : NULL;
            CHECK(table_remove(&table, key_of(number)) == was);
            count -= is_in[number];
        }
        is_in[number] = wants_in;
        if (step % 1000 == 0)
            check_walk(&table, number);
    }
    CHECK_EQ_U64(table.count, count);
    check_walk(&table, 0);
    table_deinit(&table);
}

TEST_MAIN()
