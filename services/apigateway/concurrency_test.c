#include "apigateway/concurrency.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "testing/test.h"

enum { THREADS = 4, ROUNDS = 20000, LIMIT = 3, OTHERS = 500 };

TEST(as_many_as_allowed)
{
    struct concurrency *concurrency = concurrency_create(2);
    CHECK(concurrency_take(concurrency, STR("a")) && concurrency_take(concurrency, STR("a")));
    for (int i = 0; i < 10; i++) // what is refused takes nothing
        CHECK(!concurrency_take(concurrency, STR("a")));
    CHECK(concurrency_take(concurrency, STR("b")));
    concurrency_give(concurrency, STR("a"));
    CHECK(concurrency_take(concurrency, STR("a")));
    CHECK(!concurrency_take(concurrency, STR("a")));
    concurrency_destroy(concurrency);
}

// Users who use up their allowance leave others theirs: one of 500 who meets others in both tables,
// which .04 of all runs have, and hardly any has three of.
TEST(users_do_not_share)
{
    char name[32];
    struct concurrency *concurrency = concurrency_create(LIMIT);
    int wronged = 0;
    for (int i = 0; i < OTHERS; i++) {
        (void)snprintf(name, sizeof(name), "user-%d", i);
        int taken = 0;
        while (taken < LIMIT && concurrency_take(concurrency, str_from_cstr(name)))
            taken++;
        wronged += taken < LIMIT;
        CHECK(!concurrency_take(concurrency, str_from_cstr(name)));
    }
    CHECK(wronged <= 2);
    concurrency_destroy(concurrency);
}

struct shared {
    struct concurrency *concurrency;
    atomic_int under_way;
    atomic_int most;
};

static void *run(void *context)
{
    struct shared *shared = context;
    for (int i = 0; i < ROUNDS; i++) {
        if (!concurrency_take(shared->concurrency, STR("u")))
            continue;
        int now = atomic_fetch_add(&shared->under_way, 1) + 1;
        int most = atomic_load(&shared->most);
        while (now > most && !atomic_compare_exchange_weak(&shared->most, &most, now)) {
        }
        atomic_fetch_sub(&shared->under_way, 1);
        concurrency_give(shared->concurrency, STR("u"));
    }
    return NULL;
}

TEST(threads_keep_to_it)
{
    struct shared shared = {.concurrency = concurrency_create(LIMIT)};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, run, &shared) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&shared.most) >= 1 && atomic_load(&shared.most) <= LIMIT);
    for (int i = 0; i < LIMIT; i++) // all were given back
        CHECK(concurrency_take(shared.concurrency, STR("u")));
    CHECK(!concurrency_take(shared.concurrency, STR("u")));
    concurrency_destroy(shared.concurrency);
}

TEST_MAIN()
