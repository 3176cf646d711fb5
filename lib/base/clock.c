#include "base/clock.h"

#include <stdatomic.h>
#include <time.h>

#include "base/assert.h"

static _Atomic(const struct clock_source *) source;

static uint64_t read_ns(clockid_t id)
{
    struct timespec now;
    ASSERT(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    const struct clock_source *other = atomic_load_explicit(&source, memory_order_acquire);
    return other == NULL ? read_ns(CLOCK_MONOTONIC) : other->monotonic_ns();
}

uint64_t clock_unix_ms(void)
{
    const struct clock_source *other = atomic_load_explicit(&source, memory_order_acquire);
    return other == NULL ? read_ns(CLOCK_REALTIME) / 1000000U : other->unix_ms();
}

int64_t clock_unix_seconds(void)
{
    return (int64_t)(clock_unix_ms() / 1000U);
}

void clock_set_source(const struct clock_source *clock_source)
{
    atomic_store_explicit(&source, clock_source, memory_order_release);
}
