#include "apigateway/quota.h"

#include "testing/test.h"

static struct quota_amount used;

static bool take(struct quota *quota, const char *user, enum plan plan, uint64_t points,
                 uint64_t bytes)
{
    return quota_take(quota, str_from_cstr(user), plan, &(struct quota_amount){points, bytes},
                      &used);
}

static void measure(struct quota *quota, const char *user, uint64_t points, uint64_t bytes,
                    bool is_complete)
{
    if (points > 0)
        quota_measured(quota, str_from_cstr(user), &(struct quota_amount){points, bytes});
    quota_measure_end(quota, is_complete);
}

static struct quota *make(void)
{
    return quota_create(
        &(struct quota_options){.free_max = {100, 1000}, .paid_max = {.points = 1000}});
}

TEST(up_to_the_limit_and_no_further)
{
    struct quota *quota = make();
    CHECK(take(quota, "u", PLAN_FREE, 60, 10));
    CHECK(!take(quota, "u", PLAN_FREE, 41, 10));
    CHECK(used.points == 60 && used.bytes == 10);
    CHECK(take(quota, "u", PLAN_FREE, 40, 10));
    CHECK(!take(quota, "u", PLAN_FREE, 1, 1));
    CHECK(take(quota, "other", PLAN_FREE, 100, 1000));
    CHECK(!take(quota, "bytes", PLAN_FREE, 1, 1001));
    CHECK(!take(quota, "large", PLAN_FREE, UINT64_MAX, 1));
    CHECK(take(quota, "u", PLAN_PAID, 900, UINT64_MAX / 2));
    CHECK(!take(quota, "u", PLAN_PAID, 1, 1));
    quota_destroy(quota);
}

TEST(a_measurement_takes_the_place_of_what_was_added)
{
    struct quota *quota = make();
    CHECK(take(quota, "u", PLAN_FREE, 80, 80));
    // It may have begun before the request ended: both count for now.
    measure(quota, "u", 10, 10, true);
    CHECK(!take(quota, "u", PLAN_FREE, 11, 1) && used.points == 90);
    CHECK(take(quota, "u", PLAN_FREE, 10, 1));
    measure(quota, "u", 20, 20, true);
    CHECK(!take(quota, "u", PLAN_FREE, 71, 1) && used.points == 30);
    measure(quota, "u", 20, 20, true);
    CHECK(!take(quota, "u", PLAN_FREE, 81, 1) && used.points == 20);
    CHECK(take(quota, "u", PLAN_FREE, 80, 1));
    quota_destroy(quota);
}

TEST(what_is_deleted_comes_back)
{
    struct quota *quota = make();
    measure(quota, "u", 100, 100, true);
    CHECK(!take(quota, "u", PLAN_FREE, 1, 1));
    measure(quota, "u", 0, 0, true);
    CHECK(take(quota, "u", PLAN_FREE, 100, 1));
    quota_destroy(quota);
}

TEST(a_worker_that_does_not_answer_frees_nothing)
{
    struct quota *quota = make();
    measure(quota, "u", 100, 100, true);
    measure(quota, "u", 40, 40, false);
    CHECK(!take(quota, "u", PLAN_FREE, 1, 1) && used.points == 100);
    measure(quota, "u", 0, 0, false);
    CHECK(!take(quota, "u", PLAN_FREE, 1, 1) && used.points == 100);
    measure(quota, "u", 40, 40, true);
    CHECK(take(quota, "u", PLAN_FREE, 60, 1));
    quota_destroy(quota);
}

TEST(parts_of_a_measurement_add_up)
{
    struct quota *quota = make();
    quota_measured(quota, STR("u"), &(struct quota_amount){30, 1});
    quota_measured(quota, STR("u"), &(struct quota_amount){30, 1});
    CHECK(take(quota, "u", PLAN_FREE, 1, 1)); // not before its end
    quota_measure_end(quota, true);
    CHECK(!take(quota, "u", PLAN_FREE, 40, 1) && used.points == 61);
    quota_destroy(quota);
}

TEST_MAIN()
