#pragma once

#include <stddef.h>
#include <stdint.h>

// Chance. rng_secure is the kernel's and is for secrets and ids; struct rng is a small seeded
// generator (xoshiro256**) for jitter, sampling and tests, repeatable from its seed. One thread
// each.

void rng_secure(void *out, size_t size); // stops the process if the kernel has none

struct rng {
    uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_u64(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound); // 0 to bound - 1; bound > 0
double rng_unit(struct rng *rng);                    // [0, 1)
