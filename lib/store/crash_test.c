#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "store/shard.h"
#include "store/store_testing.h"
#include "testing/test.h"

// A child writes and says what was acknowledged; it is killed at some moment, the store is opened
// again, and everything acknowledged must be there, nothing half, and no request torn apart.

enum { ROUNDS = 25, DIMENSION = 64, POINTS_PER_WRITE = 8, IDS = 500 };

static const struct shard_options options = {1,         {"crash", 5},       {"c", 1},
                                             DIMENSION, DISTANCE_EUCLIDEAN, 1};

// The n-th write puts its points under ids that depend on n, with n as the first value; every fifth
// one removes them instead.
static uint64_t id_of(uint64_t number, uint32_t point)
{
    return (number * 7 + point * 61) % IDS;
}

static bool is_removal(uint64_t number)
{
    return number % 5 == 4;
}

struct child_write {
    struct shard_write write;
    struct shard_point points[POINTS_PER_WRITE];
    struct str removed[POINTS_PER_WRITE];
    char ids[POINTS_PER_WRITE][16];
    float vectors[POINTS_PER_WRITE][DIMENSION];
};

static void acknowledge(struct shard_write *write, enum status status, const struct error *error)
{
    (void)write;
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "child: %s\n", error->text);
        _exit(3);
    }
}

static void prepare(struct child_write *child, uint64_t number)
{
    *child = (struct child_write){
        .write = {.points = child->points, .removed = child->removed, .done = acknowledge}};
    for (uint32_t i = 0; i < POINTS_PER_WRITE; i++) {
        int size = snprintf(child->ids[i], sizeof(child->ids[i]), "p%llu",
                            (unsigned long long)id_of(number, i));
        struct str id = {child->ids[i], (size_t)size};
        for (uint32_t k = 0; k < DIMENSION; k++)
            child->vectors[i][k] = (float)number;
        child->points[i] = (struct shard_point){id, child->vectors[i], STR("{\"a\":\"payload\"}")};
        child->removed[i] = id;
    }
    if (is_removal(number))
        child->write.removed_count = POINTS_PER_WRITE;
    else
        child->write.point_count = POINTS_PER_WRITE;
}

static int run_child(const char *path, uint64_t number)
{
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    if (store_open(str_from_cstr(path), &error, &store) != STATUS_OK ||
        store_open_shard(store, &options, NULL, &error, &shard) != STATUS_OK) {
        (void)fprintf(stderr, "child: %s\n", error.text);
        return 2;
    }
    static struct child_write child;
    for (;; number++) {
        bool must_drain = false;
        prepare(&child, number);
        if (shard_submit(shard, &child.write, &error, &must_drain) != STATUS_OK || !must_drain)
            return 4;
        (void)shard_drain(shard);
        if (write(STDOUT_FILENO, &number, sizeof(number)) != sizeof(number))
            return 5;
    }
}

static pid_t start_child(const char *path, uint64_t number, int *out_pipe)
{
    int ends[2];
    char text[32];
    if (pipe(ends) != 0)
        return -1;
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        execl("/proc/self/exe", "crash_test", "--child", path, text, (char *)NULL);
        _exit(9);
    }
    (void)close(ends[1]);
    *out_pipe = ends[0];
    return child;
}

// What the ids hold after writes 1 to number; 0: nothing.
static void model_after(uint64_t number, uint64_t *out_values)
{
    for (uint32_t i = 0; i < IDS; i++)
        out_values[i] = 0;
    for (uint64_t n = 1; n <= number; n++) {
        for (uint32_t i = 0; i < POINTS_PER_WRITE; i++)
            out_values[id_of(n, i)] = is_removal(n) ? 0 : n;
    }
}

static bool is_as(struct shard *shard, const uint64_t *values)
{
    struct arena *arena = arena_create(1 << 20);
    bool is_equal = true;
    for (uint32_t i = 0; i < IDS && is_equal; i++) {
        char id[16];
        struct shard_point point;
        struct error error;
        (void)snprintf(id, sizeof(id), "p%u", i);
        enum status status = shard_get(shard, str_from_cstr(id), arena, &error, &point);
        if (values[i] == 0)
            is_equal = status == STATUS_NOT_FOUND;
        else
            is_equal = status == STATUS_OK && point.vector[0] == (float)values[i] &&
                       point.vector[DIMENSION - 1] == (float)values[i];
        arena_reset(arena);
    }
    arena_destroy(arena);
    return is_equal;
}

static uint64_t count_values(const uint64_t *values)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < IDS; i++)
        count += values[i] != 0;
    return count;
}

// Returns the number of the last write that is there.
static uint64_t check_after_crash(const char *path, uint64_t acknowledged)
{
    static uint64_t values[IDS];
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error = {0};
    struct shard_stats stats;
    if (!CHECK_OK(store_open(str_from_cstr(path), &error, &store)) ||
        !CHECK_OK(store_open_shard(store, &options, NULL, &error, &shard))) {
        printf("    %s\n", error.text);
        return acknowledged;
    }
    // The one that was on its way may be there, whole, or not.
    uint64_t last = acknowledged;
    model_after(last, values);
    if (!is_as(shard, values)) {
        last++;
        model_after(last, values);
        CHECK(is_as(shard, values));
    }
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, count_values(values));
    CHECK_EQ_U64(stats.broken_points, 0);
    shard_close(shard);
    store_close(store);
    return last;
}

TEST(what_was_acknowledged_survives_a_kill)
{
    struct rng rng;
    char path[4200];
    uint64_t last = 0;
    uint64_t seed = clock_monotonic_ns();
    printf("seed %llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    (void)snprintf(path, sizeof(path), "%s/db", test_temporary_folder());
    for (uint32_t round = 0; round < ROUNDS; round++) {
        int acknowledgements = -1;
        pid_t child = start_child(path, last + 1, &acknowledgements);
        REQUIRE(child > 0);
        uint64_t number = last;
        uint64_t stop_at = last + 1 + rng_below(&rng, 60);
        while (number < stop_at &&
               read(acknowledgements, &number, sizeof(number)) == sizeof(number))
            ;
        CHECK_EQ_U64(number, stop_at);
        // Somewhere in the middle of what comes next.
        struct timespec pause = {.tv_nsec = (long)rng_below(&rng, 4000000)};
        (void)nanosleep(&pause, NULL);
        CHECK(kill(child, SIGKILL) == 0);
        while (read(acknowledgements, &number, sizeof(number)) == sizeof(number))
            ;
        (void)close(acknowledgements);
        int state = 0;
        CHECK(waitpid(child, &state, 0) == child);
        CHECK(WIFSIGNALED(state));
        last = check_after_crash(path, number);
    }
    printf("%llu writes in %d rounds\n", (unsigned long long)last, ROUNDS);
}

int main(int argc, char **argv)
{
    uint64_t number = 0;
    if (argc == 4 && strcmp(argv[1], "--child") == 0 && str_to_u64(str_from_cstr(argv[3]), &number))
        return run_child(argv[2], number);
    return test_run_matching(argc, argv);
}
