#include "apigateway/concurrency.h"

#include <stdatomic.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

// Hot path: two atomic additions to take and two to give back, no lock, no allocation.
//
// Each of two tables has a counter for the user, chosen by a hash that nobody outside knows. A
// counter may hold other users' requests too, so it is never too small; the smaller one of the two
// decides (a count-min sketch with exact removal). Both are looked at after both were added to: of
// requests that are admitted together the one that was added last would see all of them in both
// counters, so there are never more than allowed.

enum { TABLES = 2, COUNTERS = 1 << 15 };

struct concurrency {
    uint64_t seed;
    uint32_t per_user;
    _Atomic uint32_t counters[TABLES][COUNTERS];
};

struct concurrency *concurrency_create(uint32_t per_user)
{
    ASSERT(per_user > 0);
    struct concurrency *concurrency = mem_alloc(sizeof(*concurrency));
    rng_secure(&concurrency->seed, sizeof(concurrency->seed));
    concurrency->per_user = per_user;
    return concurrency;
}

void concurrency_destroy(struct concurrency *concurrency)
{
    mem_free(concurrency);
}

static void find(struct concurrency *concurrency, struct str user_id,
                 _Atomic uint32_t *out_counters[static TABLES])
{
    uint64_t hash = hash64(str_span(user_id), concurrency->seed);
    out_counters[0] = &concurrency->counters[0][hash % COUNTERS];
    out_counters[1] = &concurrency->counters[1][(hash >> 32) % COUNTERS];
}

static void subtract(_Atomic uint32_t *counter)
{
    uint32_t before = atomic_fetch_sub(counter, 1);
    ASSERT(before > 0);
}

bool concurrency_take(struct concurrency *concurrency, struct str user_id)
{
    _Atomic uint32_t *counters[TABLES];
    uint32_t least = UINT32_MAX;
    find(concurrency, user_id, counters);
    for (uint32_t i = 0; i < TABLES; i++)
        (void)atomic_fetch_add(counters[i], 1);
    for (uint32_t i = 0; i < TABLES; i++) {
        uint32_t now = atomic_load(counters[i]);
        least = now < least ? now : least;
    }
    if (least <= concurrency->per_user)
        return true;
    concurrency_give(concurrency, user_id);
    return false;
}

void concurrency_give(struct concurrency *concurrency, struct str user_id)
{
    _Atomic uint32_t *counters[TABLES];
    find(concurrency, user_id, counters);
    for (uint32_t i = 0; i < TABLES; i++)
        subtract(counters[i]);
}
