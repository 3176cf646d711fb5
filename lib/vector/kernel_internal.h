#pragma once

#include "vector/kernel.h"

// What the kernels of all instruction sets agree on.

enum {
    // A float32 sum is made of at least this many partial sums, which kernel_error_bound relies on.
    KERNEL_LANES_MIN = 8,
    // A double sum is made of exactly so many: lane i takes the terms i, i + 16, i + 32, …
    KERNEL_DOUBLE_LANES = 16,
};

extern const struct kernel kernel_scalar;
#if defined(__x86_64__)
extern const struct kernel kernel_avx2;
extern const struct kernel kernel_avx512;
#elif defined(__aarch64__)
extern const struct kernel kernel_neon;
#endif

// The end of every double sum: the terms from start on that fill no whole block of lanes, then the
// lanes, always in this order.
double kernel_finish_dot(double lanes[static KERNEL_DOUBLE_LANES], const float *a, const float *b,
                         uint32_t count);
double kernel_finish_l2(double lanes[static KERNEL_DOUBLE_LANES], const float *a, const float *b,
                        uint32_t count);
