#include "base/rng.h"

#include <string.h>

#include "testing/test.h"

TEST(secure_bytes_differ)
{
    uint8_t first[1000] = {0};
    uint8_t second[1000] = {0};
    rng_secure(first, sizeof(first));
    rng_secure(second, sizeof(second));
    CHECK(memcmp(first, second, sizeof(first)) != 0);
    rng_secure(first, 0);
}

// State 1, 2, 3, 4 gives the authors' published sequence.
TEST(xoshiro_is_the_published_one)
{
    struct rng rng = {{1, 2, 3, 4}};
    CHECK_EQ_U64(rng_u64(&rng), 11520);
    CHECK_EQ_U64(rng_u64(&rng), 0);
    CHECK_EQ_U64(rng_u64(&rng), 1509978240);
    CHECK_EQ_U64(rng_u64(&rng), 1215971899390074240U);
}

TEST(repeatable_and_within_bounds)
{
    struct rng a;
    struct rng b;
    rng_init(&a, 9);
    rng_init(&b, 9);
    unsigned counts[6] = {0};
    double sum = 0;
    for (int i = 0; i < 60000; i++) {
        CHECK(rng_u64(&a) == rng_u64(&b));
        uint64_t dice = rng_below(&a, 6);
        REQUIRE(dice < 6);
        counts[dice]++;
        double unit = rng_unit(&a);
        REQUIRE(unit >= 0 && unit < 1);
        sum += unit;
        (void)rng_below(&b, 6);
        (void)rng_unit(&b);
    }
    for (int i = 0; i < 6; i++)
        CHECK(counts[i] > 9500 && counts[i] < 10500);
    CHECK(sum > 29500 && sum < 30500);
    CHECK_EQ_U64(rng_below(&a, 1), 0);
    CHECK(rng_below(&a, UINT64_MAX) < UINT64_MAX);
}

TEST_MAIN()
