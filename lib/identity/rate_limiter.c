#include "identity/rate_limiter.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

// 2,048 sets of 8 windows. The hash is seeded, so that nobody can choose addresses that push a
// given one out of its set; two addresses are told apart by 64 bits of hash.
enum { SET_COUNT = 2048, WAY_COUNT = 8 };

#define NS_PER_SECOND 1000000000ULL
#define WINDOW_NS     (60 * NS_PER_SECOND)

struct window {
    uint64_t address_hash;
    uint64_t ends_at_ns; // 0: free
    uint32_t count;
    uint32_t call;
};

struct rate_limiter {
    pthread_mutex_t lock;
    uint64_t seed;
    uint32_t per_minute[LIMITED_CALL_COUNT];
    struct window windows[SET_COUNT][WAY_COUNT];
};

struct rate_limiter *rate_limiter_create(const uint32_t per_minute[static LIMITED_CALL_COUNT])
{
    struct rate_limiter *limiter = mem_alloc(sizeof(*limiter));
    pthread_mutex_init(&limiter->lock, NULL);
    rng_secure(&limiter->seed, sizeof(limiter->seed));
    memcpy(limiter->per_minute, per_minute, sizeof(limiter->per_minute));
    return limiter;
}

void rate_limiter_destroy(struct rate_limiter *limiter)
{
    if (limiter == NULL)
        return;
    pthread_mutex_destroy(&limiter->lock);
    mem_free(limiter);
}

uint32_t rate_limiter_per_minute(const struct rate_limiter *limiter, enum limited_call call)
{
    return limiter->per_minute[call];
}

// The window of this address and call, or the one that it may take over: one that is over, else the
// one that ends first.
static struct window *find_window(struct rate_limiter *limiter, uint64_t hash,
                                  enum limited_call call)
{
    struct window *set = limiter->windows[hash % SET_COUNT];
    struct window *oldest = &set[0];
    for (size_t i = 0; i < WAY_COUNT; i++) {
        if (set[i].ends_at_ns != 0 && set[i].address_hash == hash && set[i].call == call)
            return &set[i];
        if (set[i].ends_at_ns < oldest->ends_at_ns)
            oldest = &set[i];
    }
    *oldest = (struct window){.address_hash = hash, .call = call};
    return oldest;
}

bool rate_limiter_take(struct rate_limiter *limiter, enum limited_call call, struct str address,
                       uint32_t *out_wait_seconds)
{
    uint32_t limit = limiter->per_minute[call];
    if (limit == 0)
        return true;
    uint64_t now = clock_monotonic_ns();
    uint64_t hash = hash64(str_span(address), limiter->seed + (uint64_t)call);
    pthread_mutex_lock(&limiter->lock);
    struct window *window = find_window(limiter, hash, call);
    if (now >= window->ends_at_ns) {
        window->ends_at_ns = now + WINDOW_NS;
        window->count = 0;
    }
    bool is_allowed = window->count < limit;
    window->count += is_allowed;
    uint64_t wait_ns = window->ends_at_ns - now;
    pthread_mutex_unlock(&limiter->lock);
    if (!is_allowed)
        *out_wait_seconds = (uint32_t)((wait_ns + NS_PER_SECOND - 1) / NS_PER_SECOND);
    return is_allowed;
}
