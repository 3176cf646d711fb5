#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "vector/kernel.h"

// How fast each kernel is: rows that stay in the second-level cache, and rows from memory.

enum { CACHED_BYTES = 256 << 10, MEMORY_BYTES = 512 << 20, BLOCK = 64 };

static volatile float sink;

static double measure(const struct kernel *kernel, bool is_dot, const float *query,
                      const struct kernel_rows *all)
{
    float out[BLOCK];
    uint64_t start = clock_monotonic_ns();
    uint64_t elapsed = 0;
    uint64_t done = 0;
    do {
        for (uint32_t i = 0; i + BLOCK <= all->count; i += BLOCK) {
            struct kernel_rows rows = *all;
            rows.first += all->stride * i;
            rows.count = BLOCK;
            (is_dot ? kernel->dot : kernel->l2_squared)(query, &rows, out);
            sink = out[0];
            done += BLOCK;
        }
        elapsed = clock_monotonic_ns() - start;
    } while (elapsed < 300000000);
    return (double)done / (double)elapsed; // per nanosecond
}

static double measure_double(const struct kernel *kernel, const float *query,
                             const struct kernel_rows *all)
{
    uint64_t start = clock_monotonic_ns();
    double sum = 0;
    uint32_t count = all->count < 1000 ? all->count : 1000;
    uint32_t repeats = 200;
    for (uint32_t repeat = 0; repeat < repeats; repeat++) {
        for (uint32_t i = 0; i < count; i++)
            sum += kernel->dot_double(query, all->first + all->stride * i, all->dimension);
    }
    sink = (float)sum;
    return (double)count * repeats / (double)(clock_monotonic_ns() - start);
}

static void run(const struct kernel *kernel, const float *block, uint32_t dimension)
{
    const float *query = block;
    struct kernel_rows rows = {.first = block, .stride = dimension, .dimension = dimension};
    double bytes = (double)dimension * sizeof(float);
    for (int is_dot = 0; is_dot < 2; is_dot++) {
        rows.count = CACHED_BYTES / (uint32_t)bytes / BLOCK * BLOCK;
        double cached = measure(kernel, is_dot != 0, query, &rows);
        rows.count = MEMORY_BYTES / (uint32_t)bytes / BLOCK * BLOCK;
        double streamed = measure(kernel, is_dot != 0, query, &rows);
        printf(
            "%-7s %-4s dimension %4u: cache %7.1f GB/s %7.1f M/s   memory %6.1f GB/s %6.1f M/s\n",
            kernel->name, is_dot ? "dot" : "l2", dimension, cached * bytes, cached * 1e3,
            streamed * bytes, streamed * 1e3);
    }
    printf("%-7s dot in double, dimension %4u: %.1f M/s\n", kernel->name, dimension,
           measure_double(kernel, query, &rows) * 1e3);
}

int main(void)
{
    float *block = mem_alloc(MEMORY_BYTES);
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i < MEMORY_BYTES / sizeof(float); i++)
        block[i] = (float)(rng_u64(&rng) >> 40) * 0x1p-24F;
    static const uint32_t dimensions[] = {100, 128, 768};
    for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
        for (uint32_t k = 0; k < sizeof(dimensions) / sizeof(dimensions[0]); k++)
            run(kernel_at(i), block, dimensions[k]);
    }
    mem_free(block);
    return 0;
}
