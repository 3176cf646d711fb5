#include "identity/rate_limiter.h"

#include <stdio.h>

#include "base/clock.h"
#include "testing/test.h"

static uint64_t now_ns = 1000;

static uint64_t fake_monotonic_ns(void)
{
    return now_ns;
}

static uint64_t fake_unix_ms(void)
{
    return now_ns / 1000000;
}

static const struct clock_source fake_clock = {fake_monotonic_ns, fake_unix_ms};
static const uint32_t limits[LIMITED_CALL_COUNT] = {5, 3, 10, 0};

static bool take(struct rate_limiter *limiter, enum limited_call call, const char *address,
                 uint32_t *out_wait)
{
    return rate_limiter_take(limiter, call, str_from_cstr(address), out_wait);
}

TEST(a_minute_has_its_limit)
{
    clock_set_source(&fake_clock);
    struct rate_limiter *limiter = rate_limiter_create(limits);
    uint32_t wait = 0;
    for (int i = 0; i < 5; i++)
        CHECK(take(limiter, LIMITED_LOGIN, "127.0.0.1", &wait));
    now_ns += 20 * 1000000000ULL;
    CHECK(!take(limiter, LIMITED_LOGIN, "127.0.0.1", &wait) && wait == 40);
    // Others and other calls are not touched.
    CHECK(take(limiter, LIMITED_LOGIN, "127.0.0.2", &wait));
    for (int i = 0; i < 3; i++)
        CHECK(take(limiter, LIMITED_REGISTER, "127.0.0.1", &wait));
    CHECK(!take(limiter, LIMITED_REGISTER, "127.0.0.1", &wait) && wait == 60);
    now_ns += 40 * 1000000000ULL - 1;
    CHECK(!take(limiter, LIMITED_LOGIN, "127.0.0.1", &wait) && wait == 1);
    now_ns += 1;
    for (int i = 0; i < 5; i++)
        CHECK(take(limiter, LIMITED_LOGIN, "127.0.0.1", &wait));
    CHECK(!take(limiter, LIMITED_LOGIN, "127.0.0.1", &wait));
    CHECK(!take(limiter, LIMITED_REGISTER, "127.0.0.1", &wait) && wait == 20);
    rate_limiter_destroy(limiter);
    clock_set_source(NULL);
}

TEST(no_limit)
{
    struct rate_limiter *limiter = rate_limiter_create(limits);
    uint32_t wait = 0;
    for (int i = 0; i < 1000; i++)
        CHECK(take(limiter, LIMITED_CREATE_TOKEN, "127.0.0.1", &wait));
    rate_limiter_destroy(limiter);
}

TEST(very_many_addresses)
{
    clock_set_source(&fake_clock);
    struct rate_limiter *limiter = rate_limiter_create(limits);
    uint32_t wait = 0;
    for (int i = 0; i < 100000; i++) {
        char address[32];
        snprintf(address, sizeof(address), "10.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
        CHECK(take(limiter, LIMITED_REGISTER, address, &wait));
    }
    // A full table still counts.
    for (int i = 0; i < 3; i++)
        CHECK(take(limiter, LIMITED_REGISTER, "::1", &wait));
    CHECK(!take(limiter, LIMITED_REGISTER, "::1", &wait));
    rate_limiter_destroy(limiter);
    clock_set_source(NULL);
}

TEST_MAIN()
