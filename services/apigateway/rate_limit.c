#include "apigateway/rate_limit.h"

#include <stdatomic.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

// Hot path: one atomic exchange per call, no lock, no allocation.
//
// The generic cell rate algorithm: per user one time, at which the calls so far would have come at
// exactly the allowed rate. A call moves it by one interval; a call that would move it further
// than the burst into the future is refused. That time is all there is, so an entry is one hash and
// one time, and a user whose time has passed needs no entry at all: it may be given to another.
//
// Two users that take the same entry at the same instant may share one allowance for a moment;
// nothing worse can happen.

enum { WAYS = 4, SET_COUNT = 4096 };

struct entry {
    _Atomic uint64_t hash; // of the user; 0: free
    _Atomic uint64_t time_ns;
};

struct rate_limit {
    uint64_t seed;
    uint64_t interval_ns;
    uint64_t burst_ns;
    struct entry entries[SET_COUNT][WAYS];
};

struct rate_limit *rate_limit_create(double per_second, double burst)
{
    ASSERT(per_second > 0 && burst >= 1);
    double interval_ns = 1e9 / per_second;
    // A century is as good as never and leaves room for sums.
    const double interval_ns_max = 3e18;
    struct rate_limit *limit = mem_alloc(sizeof(*limit));
    rng_secure(&limit->seed, sizeof(limit->seed));
    if (interval_ns > interval_ns_max)
        interval_ns = interval_ns_max;
    limit->interval_ns = interval_ns >= 1 ? (uint64_t)interval_ns : 1;
    double burst_ns = interval_ns * burst;
    limit->burst_ns = burst_ns < interval_ns_max ? (uint64_t)burst_ns : (uint64_t)interval_ns_max;
    if (limit->burst_ns < limit->interval_ns)
        limit->burst_ns = limit->interval_ns;
    return limit;
}

void rate_limit_destroy(struct rate_limit *limit)
{
    mem_free(limit);
}

// The user's entry; one that was last used the longest ago when he has none.
static struct entry *find_entry(struct rate_limit *limit, uint64_t hash)
{
    struct entry *set = limit->entries[hash / 2 % SET_COUNT];
    struct entry *oldest = &set[0];
    for (uint32_t i = 0; i < WAYS; i++) {
        if (atomic_load_explicit(&set[i].hash, memory_order_relaxed) == hash)
            return &set[i];
        if (atomic_load_explicit(&set[i].time_ns, memory_order_relaxed) <
            atomic_load_explicit(&oldest->time_ns, memory_order_relaxed))
            oldest = &set[i];
    }
    atomic_store_explicit(&oldest->time_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&oldest->hash, hash, memory_order_relaxed);
    return oldest;
}

bool rate_limit_take(struct rate_limit *limit, struct str user_id, uint64_t now_ns,
                     uint64_t *out_wait_ns)
{
    // The lowest bit keeps 0 for a free entry.
    struct entry *entry = find_entry(limit, hash64(str_span(user_id), limit->seed) | 1);
    uint64_t time_ns = atomic_load_explicit(&entry->time_ns, memory_order_relaxed);
    uint64_t next_ns;
    do {
        next_ns = (time_ns > now_ns ? time_ns : now_ns) + limit->interval_ns;
        if (next_ns > now_ns + limit->burst_ns) {
            *out_wait_ns = next_ns - now_ns - limit->burst_ns;
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&entry->time_ns, &time_ns, next_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}
