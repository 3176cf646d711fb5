#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "store/shard.h"
#include "store/store_testing.h"
#include "testing/test.h"

// The graph of a shard over the end of its process, however that came.

enum { DIMENSION = 512, POINTS = 1100, BATCH = 100, PATH_SIZE = 4200 };

static const struct shard_options options = {
    .shard_id = 3,
    .incarnation = {"image", 5},
    .collection = {"c", 1},
    .dimension = DIMENSION,
    .distance = DISTANCE_COSINE,
    .map_version = 1,
};

static void check_written(struct shard_write *write, enum status status, const struct error *error)
{
    (void)write;
    (void)error;
    if (!CHECK_OK(status))
        _exit(3);
}

static void vector_of(uint32_t number, float *out)
{
    struct rng rng;
    rng_init(&rng, number + 1);
    for (uint32_t i = 0; i < DIMENSION; i++)
        out[i] = (float)rng_unit(&rng) - 0.5F;
}

static void put(struct shard *shard, uint32_t first, uint32_t count)
{
    static float vectors[BATCH][DIMENSION];
    char ids[BATCH][16];
    struct shard_point points[BATCH];
    struct error error;
    bool must_drain = false;
    for (uint32_t i = 0; i < count; i++) {
        int size = snprintf(ids[i], sizeof(ids[i]), "p%u", first + i);
        vector_of(first + i, vectors[i]);
        points[i] =
            (struct shard_point){{ids[i], (size_t)size}, vectors[i], STR("{\"a\":\"payload\"}")};
    }
    struct shard_write write = {.points = points, .point_count = count, .done = check_written};
    CHECK_OK(shard_submit(shard, &write, &error, &must_drain));
    CHECK(must_drain);
    while (shard_drain(shard))
        continue;
}

static struct store *open_store(const char *path, struct shard **out_shard)
{
    struct store *store = NULL;
    struct error error;
    if (!CHECK_OK(store_open(str_from_cstr(path), &error, &store)))
        return NULL;
    if (!CHECK_OK(store_open_shard(store, &options, NULL, &error, out_shard)))
        printf("    %s\n", error.text);
    return store;
}

static const char *path_in(const char *folder, const char *name)
{
    static char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static uint64_t unlinked_points(struct shard *shard)
{
    struct shard_stats stats;
    shard_stats(shard, &stats);
    return stats.unlinked_points;
}

// Each of the first points is found by its own vector.
static void check_found(struct shard *shard, uint32_t count)
{
    float vector[DIMENSION];
    uint32_t missed = 0;
    struct index_view view;
    index_view_open(shard_index(shard), &view);
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        struct index_hit hit;
        uint32_t hit_count = 0;
        (void)snprintf(id, sizeof(id), "p%u", i);
        vector_of(i, vector);
        const struct index_search search = {
            .vector = vector, .top_k = 1, .deadline_ns = UINT64_MAX};
        CHECK_OK(index_search(&view, &search, &hit, &hit_count, NULL));
        if (CHECK_EQ_U64(hit_count, 1))
            missed += !str_equal(index_view_id(&view, hit.slot), str_from_cstr(id));
    }
    index_view_close(&view);
    CHECK(missed <= count / 200);
    struct error error = {0};
    if (!CHECK_OK(index_check(shard_index(shard), &error)))
        printf("    %s\n", error.text);
}

TEST(a_shard_opens_with_its_graph)
{
    const char *path = path_in(test_temporary_folder(), "db");
    struct shard *shard = NULL;
    struct store *store = open_store(path, &shard);
    for (uint32_t i = 0; i < POINTS; i += BATCH)
        put(shard, i, BATCH);
    CHECK_EQ_U64(unlinked_points(shard), 0);
    // More than was kept by itself: the last ones are linked when it is opened.
    put(shard, POINTS, 50);
    shard_close(shard);
    store_close(store);

    store = open_store(path, &shard);
    CHECK(index_has_graph(shard_index(shard)));
    uint64_t unlinked = unlinked_points(shard);
    CHECK(unlinked > 0 && unlinked < POINTS / 4);
    check_found(shard, POINTS + 50);
    CHECK(shard_wake(shard));
    while (shard_drain(shard))
        continue;
    CHECK_EQ_U64(unlinked_points(shard), 0);
    shard_save_image(shard);
    shard_close(shard);
    store_close(store);

    store = open_store(path, &shard);
    CHECK_EQ_U64(unlinked_points(shard), 0);
    check_found(shard, POINTS + 50);
    shard_close(shard);
    store_close(store);
}

// Change bytes of the only file in the folder.
static void damage(const char *folder)
{
    char path[PATH_SIZE + sizeof(((struct dirent *)NULL)->d_name)];
    DIR *list = opendir(folder);
    REQUIRE(list != NULL);
    // One thread.
    struct dirent *entry = readdir(list); // NOLINT(concurrency-mt-unsafe)
    while (entry != NULL && entry->d_name[0] == '.')
        entry = readdir(list); // NOLINT(concurrency-mt-unsafe)
    REQUIRE(entry != NULL);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
    (void)closedir(list);
    int file = open(path, O_RDWR);
    REQUIRE(file >= 0);
    CHECK(pwrite(file, "damage", 6, 200000) == 6);
    (void)close(file);
}

TEST(a_damaged_image_costs_time_and_nothing_else)
{
    const char *path = path_in(test_temporary_folder(), "damaged");
    char folder[PATH_SIZE];
    (void)snprintf(folder, sizeof(folder), "%.4000s-graphs", path);
    struct shard *shard = NULL;
    struct store *store = open_store(path, &shard);
    for (uint32_t i = 0; i < POINTS; i += BATCH)
        put(shard, i, BATCH);
    shard_save_image(shard);
    shard_close(shard);
    store_close(store);
    damage(folder);

    store = open_store(path, &shard);
    CHECK(!index_has_graph(shard_index(shard)));
    CHECK_EQ_U64(unlinked_points(shard), POINTS);
    check_found(shard, 100);
    CHECK(shard_wake(shard));
    while (shard_drain(shard))
        continue;
    CHECK_EQ_U64(unlinked_points(shard), 0);
    shard_close(shard);
    store_close(store);
    // It was written again without being asked for.
    store = open_store(path, &shard);
    CHECK(index_has_graph(shard_index(shard)));
    CHECK_EQ_U64(unlinked_points(shard), 0);
    shard_close(shard);
    struct error error;
    CHECK_OK(store_drop_shard(store, options.shard_id, options.incarnation, &error));
    store_close(store);
    CHECK(rmdir(folder) == 0); // empty
}

// --- Killed at any moment, most of which writes images

static int run_child(const char *path)
{
    struct shard *shard = NULL;
    (void)open_store(path, &shard);
    if (shard == NULL)
        return 2;
    for (uint32_t round = 0;; round++) {
        put(shard, POINTS + round % 20 * 10, 10);
        shard_save_image(shard);
        uint8_t done = 1;
        if (write(STDOUT_FILENO, &done, 1) != 1)
            return 5;
    }
}

static pid_t start_child(const char *path, int *out_pipe)
{
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        execl("/proc/self/exe", "shard_image_test", "--child", path, (char *)NULL);
        _exit(9);
    }
    (void)close(ends[1]);
    *out_pipe = ends[0];
    return child;
}

TEST(a_kill_while_images_are_written_loses_nothing)
{
    enum { KILLS = 12 };
    const char *path = path_in(test_temporary_folder(), "killed");
    struct shard *shard = NULL;
    struct store *store = open_store(path, &shard);
    for (uint32_t i = 0; i < POINTS; i += BATCH)
        put(shard, i, BATCH);
    shard_close(shard);
    store_close(store);
    struct rng rng;
    rng_init(&rng, 6);
    for (uint32_t round = 0; round < KILLS; round++) {
        int end = -1;
        uint8_t done = 0;
        pid_t child = start_child(path, &end);
        REQUIRE(child > 0);
        REQUIRE(read(end, &done, 1) == 1);
        struct timespec pause = {.tv_nsec = (long)rng_below(&rng, 30000000)};
        (void)nanosleep(&pause, NULL);
        CHECK(kill(child, SIGKILL) == 0);
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        (void)close(end);
        store = open_store(path, &shard);
        REQUIRE(shard != NULL);
        CHECK(index_has_graph(shard_index(shard)));
        check_found(shard, 60);
        CHECK(index_point_count(shard_index(shard)) >= POINTS + 10);
        shard_close(shard);
        store_close(store);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--child") == 0)
        return run_child(argv[2]);
    return test_run_matching(argc, argv);
}
