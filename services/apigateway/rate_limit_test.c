#include "apigateway/rate_limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/hash.h"
#include "net/loop.h"
#include "testing/test.h"

static const uint64_t start_ns = 1000 * NS_PER_SECOND;

TEST(a_burst_then_the_rate)
{
    struct rate_limit *limit = rate_limit_create(20, 20);
    uint64_t wait_ns = 0;
    for (int i = 0; i < 20; i++)
        CHECK(rate_limit_take(limit, STR("u"), start_ns, &wait_ns));
    CHECK(!rate_limit_take(limit, STR("u"), start_ns, &wait_ns));
    CHECK_EQ_U64(wait_ns, 50 * NS_PER_MS);
    CHECK(!rate_limit_take(limit, STR("u"), start_ns + 49 * NS_PER_MS, &wait_ns));
    CHECK_EQ_U64(wait_ns, NS_PER_MS);
    CHECK(rate_limit_take(limit, STR("u"), start_ns + 50 * NS_PER_MS, &wait_ns));
    CHECK(!rate_limit_take(limit, STR("u"), start_ns + 50 * NS_PER_MS, &wait_ns));
    // After a rest the whole burst is back, and no more.
    for (int i = 0; i < 20; i++)
        CHECK(rate_limit_take(limit, STR("u"), start_ns + 900 * NS_PER_SECOND, &wait_ns));
    CHECK(!rate_limit_take(limit, STR("u"), start_ns + 900 * NS_PER_SECOND, &wait_ns));
    rate_limit_destroy(limit);
}

TEST(users_do_not_share)
{
    struct rate_limit *limit = rate_limit_create(1, 1);
    uint64_t wait_ns = 0;
    CHECK(rate_limit_take(limit, STR("a"), start_ns, &wait_ns));
    CHECK(!rate_limit_take(limit, STR("a"), start_ns, &wait_ns));
    CHECK(rate_limit_take(limit, STR("b"), start_ns, &wait_ns));
    rate_limit_destroy(limit);
}

TEST(rates_below_one_and_huge_ones)
{
    struct rate_limit *limit = rate_limit_create(0.1, 1);
    uint64_t wait_ns = 0;
    CHECK(rate_limit_take(limit, STR("u"), start_ns, &wait_ns));
    CHECK(!rate_limit_take(limit, STR("u"), start_ns + 9 * NS_PER_SECOND, &wait_ns));
    CHECK_EQ_U64(wait_ns, NS_PER_SECOND);
    CHECK(rate_limit_take(limit, STR("u"), start_ns + 10 * NS_PER_SECOND, &wait_ns));
    rate_limit_destroy(limit);
    limit = rate_limit_create(1e300, 1e300);
    for (int i = 0; i < 1000; i++)
        CHECK(rate_limit_take(limit, STR("u"), start_ns, &wait_ns));
    rate_limit_destroy(limit);
    limit = rate_limit_create(1e-300, 1);
    CHECK(rate_limit_take(limit, STR("u"), start_ns, &wait_ns));
    CHECK(!rate_limit_take(limit, STR("u"), start_ns + 1, &wait_ns));
    rate_limit_destroy(limit);
}

TEST(more_users_than_room)
{
    struct rate_limit *limit = rate_limit_create(10, 10);
    uint64_t wait_ns = 0;
    for (int i = 0; i < 100000; i++) {
        char name[16];
        int size = snprintf(name, sizeof(name), "u%d", i);
        CHECK(rate_limit_take(limit, (struct str){name, (size_t)size}, start_ns, &wait_ns));
    }
    rate_limit_destroy(limit);
}

struct race {
    struct rate_limit *limit;
    atomic_uint taken;
};

static void *take_many(void *context)
{
    struct race *race = context;
    uint64_t wait_ns;
    for (int i = 0; i < 10000; i++) {
        if (rate_limit_take(race->limit, STR("u"), start_ns, &wait_ns))
            atomic_fetch_add(&race->taken, 1);
    }
    return NULL;
}

TEST(threads_together_take_no_more)
{
    struct race race = {.limit = rate_limit_create(1000, 1000)};
    uint64_t wait_ns;
    (void)rate_limit_take(race.limit, STR("u"), start_ns, &wait_ns); // the entry is made
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&threads[i], NULL, take_many, &race) == 0);
    for (int i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    CHECK_EQ_U64(atomic_load(&race.taken), 999);
    rate_limit_destroy(race.limit);
}

TEST_MAIN()
