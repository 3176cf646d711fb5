#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "index/index.h"
#include "vector/kernel.h"

// The index under the hand of bench/index.py and bench/churn.py, which measure it beside other
// programs:
//
//     index_driver_bench BASE.fbin QUERY.fbin DISTANCE [BUILD_WIDTH]
//
// reads commands from stdin, one a line, and answers each with one line of JSON:
//
//     put FROM TO BATCH       store rows of BASE, BATCH of them under one sequence number, and link
//                             them until nothing is left to do
//     remove FROM TO BATCH    and remove them again, and sweep as the index sees fit
//     truth FILE.ibin         the nearest rows of every query, nearest first
//     search EF STOP COUNT    the first COUNT queries; EF and STOP as in struct index_search, both
//     0:
//                             the index chooses; with "exact" at the end: compare all
//     check                   index_check; it stops the program when an invariant does not hold
//
// Everything happens on one thread. .fbin and .ibin: u32 count, u32 width, the rows.

enum { TOP_K = 10, WORDS_MAX = 5 };

struct table {
    uint32_t count;
    uint32_t width;
    uint32_t *values; // or floats
};

struct driver {
    struct table base;
    struct table queries;
    struct table truth;
    struct index *index;
    uint64_t sequence;
    uint32_t *slots; // of rows
    uint32_t *rows;  // of slots
    uint32_t slot_capacity;
};

struct stopwatch {
    uint64_t wall_ns;
    double cpu_s;
};

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static struct stopwatch stopwatch_start(void)
{
    return (struct stopwatch){clock_monotonic_ns(), cpu_seconds()};
}

static struct stopwatch stopwatch_stop(struct stopwatch start)
{
    return (struct stopwatch){clock_monotonic_ns() - start.wall_ns, cpu_seconds() - start.cpu_s};
}

static uint64_t resident_bytes(void)
{
    char line[128] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    size_t len = fread(line, 1, sizeof(line), file);
    (void)fclose(file); // was only read
    struct str rest = {line, len};
    (void)str_cut(&rest, ' ');
    uint64_t pages = 0;
    (void)str_to_u64(str_cut(&rest, ' '), &pages);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// False, with a word on stderr: there is no such table.
static bool read_table(const char *path, struct table *out)
{
    FILE *file = fopen(path, "re");
    uint32_t head[2];
    struct table table = {0};
    bool is_whole = file != NULL && fread(head, sizeof(head), 1, file) == 1;
    if (is_whole) {
        size_t size = (size_t)head[0] * head[1];
        table = (struct table){head[0], head[1], mem_try_alloc(size * 4)};
        is_whole = table.values != NULL && fread(table.values, 4, size, file) == size;
    }
    if (file != NULL)
        (void)fclose(file); // was only read
    if (!is_whole) {
        (void)fprintf(stderr, "%s is missing, cut short or too large\n", path);
        mem_free(table.values);
        return false;
    }
    mem_free(out->values);
    *out = table;
    return true;
}

static const float *row_of(const struct table *table, uint32_t row)
{
    return (const float *)(const void *)(table->values + (size_t)row * table->width);
}

// Whose row the slot holds.
static void remember(struct driver *driver, uint32_t slot, uint32_t row)
{
    if (slot >= driver->slot_capacity) {
        driver->slot_capacity = slot * 2 + 1024;
        driver->rows = mem_resize(driver->rows, driver->slot_capacity * sizeof(uint32_t));
    }
    driver->rows[slot] = row;
    driver->slots[row] = slot;
}

static void link_all(struct driver *driver, uint32_t batch)
{
    while (index_link(driver->index, batch)) {
    }
}

static bool do_put(struct driver *driver, uint32_t from, uint32_t to, uint32_t batch)
{
    if (from > to || to > driver->base.count || batch == 0)
        return false;
    struct stopwatch watch = stopwatch_start();
    for (uint32_t start = from; start < to; start += batch) {
        uint32_t end = to - start < batch ? to : start + batch;
        link_all(driver, batch);
        if (index_reserve(driver->index, end - start) != STATUS_OK)
            return false;
        driver->sequence++;
        for (uint32_t row = start; row < end; row++) {
            char id[16];
            int size = snprintf(id, sizeof(id), "row-%08u", row);
            remember(driver,
                     index_put(driver->index, (struct str){id, (size_t)size},
                               row_of(&driver->base, row), driver->sequence),
                     row);
        }
        index_publish(driver->index, driver->sequence);
    }
    link_all(driver, batch);
    watch = stopwatch_stop(watch);
    printf("{\"put\": %u, \"cpu_s\": %.6f, \"wall_s\": %.3f, ", to - from, watch.cpu_s,
           (double)watch.wall_ns / 1e9);
    return true;
}

static bool do_remove(struct driver *driver, uint32_t from, uint32_t to, uint32_t batch)
{
    if (from > to || to > driver->base.count || batch == 0)
        return false;
    struct stopwatch watch = stopwatch_start();
    for (uint32_t start = from; start < to; start += batch) {
        uint32_t end = to - start < batch ? to : start + batch;
        driver->sequence++;
        for (uint32_t row = start; row < end; row++) {
            index_remove(driver->index, driver->slots[row], driver->sequence);
            driver->slots[row] = INDEX_SLOT_NONE;
        }
        index_publish(driver->index, driver->sequence);
    }
    link_all(driver, batch);
    watch = stopwatch_stop(watch);
    printf("{\"removed\": %u, \"cpu_s\": %.6f, \"wall_s\": %.3f, ", to - from, watch.cpu_s,
           (double)watch.wall_ns / 1e9);
    return true;
}

static uint32_t hits_of(const struct driver *driver, uint32_t query, const uint32_t *found)
{
    const uint32_t *truth = driver->truth.values + (size_t)query * driver->truth.width;
    uint32_t hits = 0;
    for (uint32_t i = 0; i < TOP_K; i++) {
        for (uint32_t k = 0; k < TOP_K; k++)
            hits += found[k] == truth[i];
    }
    return hits;
}

static bool do_check(const struct driver *driver)
{
    struct error error;
    struct stopwatch watch = stopwatch_start();
    if (index_check(driver->index, &error) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
        return false;
    }
    printf("{\"check\": true, \"cpu_s\": %.6f, ", stopwatch_stop(watch).cpu_s);
    return true;
}

struct effort {
    uint32_t ef;
    float stop;
    bool is_exact;
};

static bool do_search(struct driver *driver, struct effort effort, uint32_t count)
{
    if (count == 0 || count > driver->queries.count || count > driver->truth.count ||
        driver->truth.width < TOP_K)
        return false;
    uint32_t *found = mem_alloc((size_t)count * TOP_K * sizeof(*found));
    memset(found, 0xff, (size_t)count * TOP_K * sizeof(*found));
    struct index_stats sum = {0};
    bool is_done = true;
    struct stopwatch watch = stopwatch_start();
    for (uint32_t i = 0; i < count && is_done; i++) {
        struct index_search search = {.vector = row_of(&driver->queries, i),
                                      .top_k = TOP_K,
                                      .ef = effort.ef,
                                      .stop = effort.stop,
                                      .is_exact = effort.is_exact,
                                      .deadline_ns = UINT64_MAX};
        struct index_view view;
        struct index_hit hits[TOP_K];
        struct index_stats stats;
        uint32_t hit_count = 0;
        index_view_open(driver->index, &view);
        is_done = index_search(&view, &search, hits, &hit_count, &stats) == STATUS_OK;
        for (uint32_t k = 0; k < hit_count; k++)
            found[(size_t)i * TOP_K + k] = hits[k].slot;
        index_view_close(&view);
        sum.rows_compared += stats.rows_compared;
        sum.rows_rescored += stats.rows_rescored;
    }
    watch = stopwatch_stop(watch);
    uint64_t hits = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < TOP_K; k++) {
            uint32_t *slot = &found[(size_t)i * TOP_K + k];
            *slot = *slot == INDEX_SLOT_NONE ? UINT32_MAX : driver->rows[*slot];
        }
        hits += hits_of(driver, i, &found[(size_t)i * TOP_K]);
    }
    mem_free(found);
    printf("{\"recall\": %.5f, \"qps\": %.1f, \"qps_wall\": %.1f, \"distances\": %.1f, "
           "\"rescored\": %.1f, ",
           (double)hits / ((double)count * TOP_K), count / watch.cpu_s,
           count / ((double)watch.wall_ns / 1e9), (double)sum.rows_compared / count,
           (double)sum.rows_rescored / count);
    return is_done;
}

static bool command(struct driver *driver, struct str line)
{
    struct str words[WORDS_MAX] = {0};
    uint64_t numbers[WORDS_MAX] = {0};
    for (int i = 0; i < WORDS_MAX; i++) {
        words[i] = str_cut(&line, ' ');
        if (!str_to_u64(words[i], &numbers[i]) || numbers[i] > UINT32_MAX)
            numbers[i] = 0;
    }
    uint32_t a = (uint32_t)numbers[1];
    uint32_t b = (uint32_t)numbers[2];
    uint32_t c = (uint32_t)numbers[3];
    if (str_equal(words[0], STR("put")))
        return do_put(driver, a, b, c);
    if (str_equal(words[0], STR("remove")))
        return do_remove(driver, a, b, c);
    if (str_equal(words[0], STR("check")))
        return do_check(driver);
    if (str_equal(words[0], STR("search"))) {
        double stop = 0;
        struct effort effort = {.ef = a, .is_exact = str_equal(words[4], STR("exact"))};
        if (!str_to_double(words[2], &stop))
            return false;
        effort.stop = (float)stop;
        return do_search(driver, effort, c);
    }
    if (str_equal(words[0], STR("truth"))) {
        char path[4096];
        (void)snprintf(path, sizeof(path), "%.*s", STR_ARG(words[1]));
        if (!read_table(path, &driver->truth))
            return false;
        printf("{\"truth\": %u, ", driver->truth.count);
        return true;
    }
    return false;
}

static int drive(struct driver *driver)
{
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t len; (len = getline(&line, &capacity, stdin)) > 0;) {
        struct str text = str_trim((struct str){line, (size_t)len});
        if (!command(driver, text)) {
            (void)fprintf(stderr, "not done: %.*s\n", STR_ARG(text));
            return 1;
        }
        printf("\"points\": %llu, \"unlinked\": %llu, \"index_bytes\": %llu, \"resident_bytes\": "
               "%llu}\n",
               (unsigned long long)index_point_count(driver->index),
               (unsigned long long)index_unlinked_count(driver->index),
               (unsigned long long)index_memory_size(driver->index),
               (unsigned long long)resident_bytes());
        if (fflush(stdout) != 0)
            return 1;
    }
    return 0; // the system takes the memory back
}

int main(int argc, char **argv)
{
    struct driver driver = {0};
    enum distance distance;
    uint64_t build_width = 0;
    if (argc < 4 || argc > 5 || !distance_from_str(str_from_cstr(argv[3]), &distance) ||
        (argc == 5 && !str_to_u64(str_from_cstr(argv[4]), &build_width)) ||
        build_width > UINT16_MAX) {
        (void)fprintf(stderr, "usage: %s BASE.fbin QUERY.fbin cosine|euclidean|dot [BUILD_WIDTH]\n",
                      argv[0]);
        return 2;
    }
    if (!read_table(argv[1], &driver.base) || !read_table(argv[2], &driver.queries) ||
        driver.base.width != driver.queries.width)
        return 1;
    driver.slots = mem_alloc(driver.base.count * sizeof(*driver.slots));
    driver.index =
        index_create(&(struct index_options){.dimension = driver.base.width, .distance = distance});
    printf("{\"kernel\": \"%s\", \"version\": \"%s\", \"resident_bytes\": %llu}\n",
           kernel_get()->name, VECTRON_VERSION, (unsigned long long)resident_bytes());
    return fflush(stdout) == 0 ? drive(&driver) : 1;
}
