#include "store/id_map.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "testing/test.h"

enum { IDS = 3000, ROUNDS = 40000 };

static struct str name_of(uint64_t number, char text[static 32])
{
    int size = snprintf(text, 32, "%llu", (unsigned long long)number);
    return (struct str){text, (size_t)size};
}

// Every id has its own slot in an index, put once; which of them the map holds is the model.
TEST(it_does_what_an_array_does)
{
    static bool is_there[IDS];
    struct id_map map;
    struct rng rng;
    char text[32];
    const float vector[1] = {1};
    uint64_t seed = clock_monotonic_ns();
    printf("seed %llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    struct index *index =
        index_create(&(struct index_options){.dimension = 1, .distance = DISTANCE_DOT});
    REQUIRE_OK(index_reserve(index, IDS));
    for (uint32_t i = 0; i < IDS; i++)
        CHECK_EQ_U64(index_put(index, name_of(i, text), vector, 1), i);
    index_publish(index, 1);
    id_map_init(&map);
    uint64_t count = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        // Now mostly filling, now mostly emptying.
        bool is_filling = round / 8000 % 2 == 0;
        uint32_t i = (uint32_t)rng_below(&rng, IDS);
        uint32_t wanted = is_there[i] ? i : INDEX_SLOT_NONE;
        struct str id = name_of(i, text);
        CHECK_EQ_U64(id_map_get(&map, index, id), wanted);
        if (rng_below(&rng, 4) == 0 ? !is_filling : is_filling) {
            REQUIRE_OK(id_map_reserve(&map, 1));
            CHECK_EQ_U64(id_map_put(&map, index, id, i), wanted);
            is_there[i] = true;
            count += wanted == INDEX_SLOT_NONE;
        } else {
            CHECK_EQ_U64(id_map_remove(&map, index, id), wanted);
            is_there[i] = false;
            count -= wanted != INDEX_SLOT_NONE;
        }
        CHECK_EQ_U64(map.count, count);
    }
    for (uint32_t i = 0; i < IDS; i++)
        CHECK_EQ_U64(id_map_get(&map, index, name_of(i, text)), is_there[i] ? i : INDEX_SLOT_NONE);
    CHECK(id_map_memory_size(&map) <= IDS * 8 * 2);
    id_map_deinit(&map);
    index_destroy(index);
}

TEST_MAIN()
