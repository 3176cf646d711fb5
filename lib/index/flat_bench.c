#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "index/index.h"
#include "vector/kernel.h"

// The exact scan against what memory delivers, and the memory of a point.

enum { BYTES = 400 << 20, TOP_K_MAX = 10000, SEARCHES = 12 };

static volatile uint64_t sink;

// Read everything once, as simply as can be.
static double memory_speed(const uint64_t *words, size_t count)
{
    double best = 0;
    for (int round = 0; round < 5; round++) {
        uint64_t start = clock_monotonic_ns();
        uint64_t sums[8] = {0};
        for (size_t i = 0; i + 8 <= count; i += 8) {
            for (size_t k = 0; k < 8; k++)
                sums[k] ^= words[i + k];
        }
        for (size_t k = 0; k < 8; k++)
            sink = sums[k];
        double speed = (double)(count * 8) / (double)(clock_monotonic_ns() - start);
        best = speed > best ? speed : best;
    }
    return best;
}

static void run(enum distance distance, uint32_t dimension)
{
    uint32_t count = BYTES / (dimension * 4);
    struct index *index =
        index_create(&(struct index_options){.dimension = dimension, .distance = distance});
    float *vector = mem_alloc(dimension * sizeof(float));
    struct index_hit *hits = mem_alloc(TOP_K_MAX * sizeof(*hits));
    struct rng rng;
    rng_init(&rng, 1);
    uint64_t start = clock_monotonic_ns();
    if (index_reserve(index, count) != STATUS_OK)
        return;
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        int size = snprintf(id, sizeof(id), "word-%u", i);
        for (uint32_t k = 0; k < dimension; k++)
            vector[k] = (float)(rng_u64(&rng) >> 40) * 0x1p-24F - 0.5F;
        (void)index_put(index, (struct str){id, (size_t)size}, vector, 1);
    }
    index_publish(index, 1);
    printf(
        "%-9s dimension %3u, %u points: %.1f bytes a point beyond the vector, filled in %.2f s\n",
        distance_name(distance), dimension, count,
        (double)index_memory_size(index) / count - dimension * 4.0,
        (double)(clock_monotonic_ns() - start) / 1e9);
    static const uint32_t top_ks[] = {10, 100, TOP_K_MAX};
    for (int i = 0; i < 3; i++) {
        double best = 1e18;
        struct index_stats stats = {0};
        for (int round = 0; round < SEARCHES; round++) {
            for (uint32_t k = 0; k < dimension; k++)
                vector[k] = (float)(rng_u64(&rng) >> 40) * 0x1p-24F - 0.5F;
            struct index_search search = {
                .vector = vector, .top_k = top_ks[i], .deadline_ns = UINT64_MAX};
            struct index_view view;
            uint32_t hit_count = 0;
            start = clock_monotonic_ns();
            index_view_open(index, &view);
            if (index_search(&view, &search, hits, &hit_count, &stats) != STATUS_OK)
                return;
            index_view_close(&view);
            double elapsed = (double)(clock_monotonic_ns() - start);
            best = elapsed < best ? elapsed : best;
        }
        printf("    top_k %5u: %7.2f ms, %5.1f GB/s, %6.1f M rows/s, %llu rescored\n", top_ks[i],
               best / 1e6, (double)count * dimension * 4 / best, count / best * 1e3,
               (unsigned long long)stats.rows_rescored);
    }
    mem_free(hits);
    mem_free(vector);
    index_destroy(index);
}

int main(void)
{
    uint64_t *words = mem_alloc(BYTES);
    memset(words, 1, BYTES);
    printf("kernel %s, memory %.1f GB/s\n", kernel_get()->name, memory_speed(words, BYTES / 8));
    mem_free(words);
    static const uint32_t dimensions[] = {100, 768};
    for (int i = 0; i < 2; i++) {
        for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++)
            run((enum distance)distance, dimensions[i]);
    }
    return 0;
}
