#include "base/clock.h"

#include "testing/test.h"

static uint64_t fixed_ns(void)
{
    return 42;
}

static uint64_t fixed_ms(void)
{
    return 1700000000123;
}

TEST(real_clocks_run)
{
    uint64_t first = clock_monotonic_ns();
    CHECK(first > 0);
    CHECK(clock_monotonic_ns() >= first);
    CHECK(clock_unix_ms() > 1700000000000);
    CHECK(clock_unix_seconds() > 1700000000);
}

TEST(a_test_can_put_its_own_in_place)
{
    static const struct clock_source source = {fixed_ns, fixed_ms};
    clock_set_source(&source);
    CHECK_EQ_U64(clock_monotonic_ns(), 42);
    CHECK_EQ_U64(clock_unix_ms(), 1700000000123);
    CHECK_EQ_I64(clock_unix_seconds(), 1700000000);
    clock_set_source(NULL);
    CHECK(clock_monotonic_ns() != 42);
}

TEST_MAIN()
