#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "store/shard.h"

// How fast points are written and loaded, and what they take: store_bench FOLDER [POINTS]
// [DIMENSION]. The folder must exist; a store is made in it, or the one there is loaded.

enum { POINTS_PER_WRITE = 256, WRITES_AT_ONCE = 8, ID_SIZE = 16 };

struct bench_write {
    struct shard_write write;
    struct shard_point points[POINTS_PER_WRITE];
    char ids[POINTS_PER_WRITE][ID_SIZE];
    float *vectors;
};

static uint64_t failures;

static void count_failure(struct shard_write *write, enum status status, const struct error *error)
{
    (void)write;
    if (status != STATUS_OK && failures++ == 0)
        printf("failed: %s: %s\n", status_name(status), error->text);
}

static void fill(struct bench_write *bench, uint64_t first, uint32_t dimension, struct rng *rng)
{
    for (size_t i = 0; i < (size_t)POINTS_PER_WRITE * dimension; i++)
        bench->vectors[i] = (float)(rng_u64(rng) >> 40) * 0x1p-24F - 0.5F;
    for (uint32_t i = 0; i < POINTS_PER_WRITE; i++) {
        int size = snprintf(bench->ids[i], ID_SIZE, "word-%" PRIu64, first + i);
        bench->points[i] = (struct shard_point){{bench->ids[i], (size_t)size},
                                                bench->vectors + (size_t)i * dimension,
                                                STR("{\"title\":\"a title of some length\"}")};
    }
    bench->write = (struct shard_write){
        .points = bench->points, .point_count = POINTS_PER_WRITE, .done = count_failure};
}

static void write_points(struct shard *shard, uint64_t count, uint32_t dimension)
{
    static struct bench_write writes[WRITES_AT_ONCE];
    struct rng rng;
    struct error error;
    rng_init(&rng, 1);
    for (uint32_t i = 0; i < WRITES_AT_ONCE; i++)
        writes[i].vectors = mem_alloc((size_t)POINTS_PER_WRITE * dimension * sizeof(float));
    for (uint64_t done = 0; done < count && failures == 0;) {
        for (uint32_t i = 0; i < WRITES_AT_ONCE; i++) {
            bool must_drain = false;
            fill(&writes[i], done, dimension, &rng);
            if (shard_submit(shard, &writes[i].write, &error, &must_drain) != STATUS_OK)
                failures++;
            done += POINTS_PER_WRITE;
        }
        while (shard_drain(shard))
            ;
    }
    for (uint32_t i = 0; i < WRITES_AT_ONCE; i++)
        mem_free(writes[i].vectors);
}

static double seconds_since(uint64_t start)
{
    return (double)(clock_monotonic_ns() - start) / 1e9;
}

static int run(const char *folder, uint64_t count, uint32_t dimension)
{
    char path[4200];
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    struct shard_stats stats;
    struct store_stats all;
    const struct shard_options options = {
        .shard_id = 1, .dimension = dimension, .distance = DISTANCE_COSINE};
    (void)snprintf(path, sizeof(path), "%s/db", folder);
    uint64_t start = clock_monotonic_ns();
    if (store_open(str_from_cstr(path), &error, &store) != STATUS_OK ||
        store_open_shard(store, &options, NULL, &error, &shard) != STATUS_OK) {
        printf("%s\n", error.text);
        store_close(store);
        return 1;
    }
    shard_stats(shard, &stats);
    printf("opened %llu points in %.2f s\n", (unsigned long long)stats.points,
           seconds_since(start));
    start = clock_monotonic_ns();
    if (stats.points == 0)
        write_points(shard, count, dimension);
    double seconds = seconds_since(start);
    shard_stats(shard, &stats);
    store_stats(store, &all);
    printf("%.0f points/s in %llu commits; in memory %.1f bytes a point beyond the vector; on disk "
           "%.1f; store: %.1f MB on disk, %.1f MB in memory\n",
           (double)stats.points / seconds, (unsigned long long)stats.sequence,
           (double)stats.memory_bytes / (double)stats.points - dimension * 4.0,
           (double)stats.disk_bytes / (double)stats.points - dimension * 4.0,
           (double)all.disk_bytes / 1e6, (double)all.memory_bytes / 1e6);
    shard_close(shard);
    store_close(store);
    return failures > 0;
}

int main(int argc, char **argv)
{
    uint64_t count = 1000000;
    uint64_t dimension = 100;
    if (argc < 2 || (argc > 2 && !str_to_u64(str_from_cstr(argv[2]), &count)) ||
        (argc > 3 && !str_to_u64(str_from_cstr(argv[3]), &dimension))) {
        printf("usage: store_bench FOLDER [POINTS] [DIMENSION]\n");
        return 2;
    }
    return run(argv[1], count, (uint32_t)dimension);
}
