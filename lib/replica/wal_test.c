#include "replica/wal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "replica/replica.h"
#include "replica/wal_testing.h"
#include "testing/test.h"

// The data of the first entry comes behind a header, the group's state and its own header.
enum { SMALL_SEGMENT = 16384, KEPT_OFFSET = 32 + 72 + 48 };

// --- Helpers

struct fixture {
    int directory_fd;
    struct wal *wal;
    struct error error;
};

static struct wal_options small_options(const struct fixture *fixture)
{
    return (struct wal_options){.directory_fd = fixture->directory_fd,
                                .segment_size = SMALL_SEGMENT,
                                .size_max = (size_t)8 * SMALL_SEGMENT};
}

static void fixture_init(struct fixture *fixture)
{
    *fixture = (struct fixture){0};
    fixture->directory_fd = open(test_temporary_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fixture->directory_fd >= 0);
}

static void fixture_deinit(struct fixture *fixture)
{
    wal_close(fixture->wal);
    close(fixture->directory_fd);
}

static enum status reopen(struct fixture *fixture)
{
    wal_close(fixture->wal);
    fixture->wal = NULL;
    struct wal_options options = small_options(fixture);
    return wal_open(&options, &fixture->error, &fixture->wal);
}

static void wait_for(struct wal *wal, uint64_t batch)
{
    while (wal_written(wal) < batch)
        usleep(50);
}

static void flush_and_wait(struct wal *wal)
{
    wait_for(wal, wal_flush(wal));
}

static void put_text(struct wal_group *group, uint64_t index, uint64_t term, const char *text)
{
    struct wal_entry entry = {term, 7, str_span(str_from_cstr(text))};
    wal_put_entries(group, index, &entry, 1);
}

static void put_zeros(struct wal_group *group, uint64_t index, size_t size)
{
    static const uint8_t zeros[SMALL_SEGMENT];
    struct wal_entry entry = {1, 0, {zeros, size}};
    wal_put_entries(group, index, &entry, 1);
}

static void check_text(struct wal_group *group, uint64_t index, const char *text)
{
    struct buf data;
    struct error error;
    buf_init(&data, SIZE_MAX);
    CHECK_OK(wal_read(group, index, &data, &error));
    CHECK_STR(buf_str(&data), str_from_cstr(text));
    buf_deinit(&data);
}

static uint64_t last_index(const struct wal_group *group)
{
    struct wal_state state;
    wal_state(group, &state);
    return state.last_index;
}

static uint64_t first_index(const struct wal_group *group)
{
    struct wal_state state;
    wal_state(group, &state);
    return state.first_index;
}

static uint32_t count_files(const struct fixture *fixture)
{
    int fd = openat(fixture->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fdopendir(fd);
    uint32_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) // NOLINT(concurrency-mt-unsafe)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

// --- What a group is

TEST(a_new_log_is_empty_and_stays_so)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    CHECK(wal_find(fixture.wal, 1) == NULL);
    CHECK_EQ_U64(wal_flush(fixture.wal), 0);
    REQUIRE_OK(reopen(&fixture));
    CHECK(wal_find(fixture.wal, 1) == NULL);
    fixture_deinit(&fixture);
}

static void count_group(uint64_t group_id, struct wal_group *group, void *context)
{
    uint64_t *sum = context;
    CHECK(group != NULL);
    *sum += group_id;
}

TEST(groups_come_and_go)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *five = wal_add(fixture.wal, 5);
    struct wal_group *none = wal_add(fixture.wal, 0);
    put_text(wal_add(fixture.wal, 9), 1, 1, "nine");
    CHECK(wal_find(fixture.wal, 5) == five && wal_find(fixture.wal, 0) == none);
    put_text(five, 1, 1, "first");
    wal_remove(fixture.wal, five);
    CHECK(wal_find(fixture.wal, 5) == NULL);
    REQUIRE_OK(reopen(&fixture));
    CHECK(wal_find(fixture.wal, 5) == NULL);
    CHECK(wal_find(fixture.wal, 0) != NULL);
    uint64_t sum = 0;
    wal_for_each(fixture.wal, count_group, &sum);
    CHECK_EQ_U64(sum, 9);

    // It comes back with nothing of what it had.
    five = wal_add(fixture.wal, 5);
    CHECK_EQ_U64(last_index(five), 0);
    REQUIRE_OK(reopen(&fixture));
    five = wal_find(fixture.wal, 5);
    REQUIRE(five != NULL);
    CHECK_EQ_U64(last_index(five), 0);
    CHECK_EQ_U64(first_index(five), 1);
    check_text(wal_find(fixture.wal, 9), 1, "nine");
    fixture_deinit(&fixture);
}

TEST(entries_are_read_from_memory_and_from_the_file)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 3);
    struct wal_entry entries[] = {
        {1, 2, str_span(STR("one"))}, {1, 0, {NULL, 0}}, {2, 255, str_span(STR("three"))}};
    wal_put_entries(group, 1, entries, 3);
    wal_put_vote(group, 4, 77);
    check_text(group, 1, "one");
    uint64_t batch = wal_flush(fixture.wal);
    CHECK_EQ_U64(batch, 1);
    check_text(group, 3, "three");
    wait_for(fixture.wal, batch);
    CHECK_EQ_U64(wal_flush(fixture.wal), 1);
    check_text(group, 1, "one");
    for (int i = 0; i < 2; i++) {
        check_text(group, 2, "");
        check_text(group, 3, "three");
        uint64_t term;
        uint8_t kind;
        uint32_t size;
        REQUIRE(wal_entry_info(group, 3, &term, &kind, &size));
        CHECK(term == 2 && kind == 255 && size == 5);
        CHECK(!wal_entry_info(group, 0, &term, &kind, &size));
        CHECK(!wal_entry_info(group, 4, &term, &kind, &size));
        struct buf data;
        buf_init(&data, SIZE_MAX);
        CHECK_STATUS(wal_read(group, 4, &data, &fixture.error), STATUS_NOT_FOUND);
        buf_deinit(&data);
        struct wal_state state;
        wal_state(group, &state);
        CHECK(state.term == 4 && state.voted_for == 77 && state.last_index == 3);
        REQUIRE_OK(reopen(&fixture));
        group = wal_find(fixture.wal, 3);
        REQUIRE(group != NULL);
    }
    fixture_deinit(&fixture);
}

TEST(entries_replace_those_behind_them)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 3);
    for (uint64_t i = 1; i <= 5; i++)
        put_text(group, i, 1, "old");
    put_text(group, 3, 2, "new");
    CHECK_EQ_U64(last_index(group), 3);
    REQUIRE_OK(reopen(&fixture));
    group = wal_find(fixture.wal, 3);
    CHECK_EQ_U64(last_index(group), 3);
    check_text(group, 2, "old");
    check_text(group, 3, "new");
    fixture_deinit(&fixture);
}

TEST(a_snapshot_frees_what_is_before_it)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 3);
    for (uint64_t i = 1; i <= 9; i++)
        put_text(group, i, 1, "entry");
    wal_put_snapshot(group, 6, 1, str_span(STR("members")), 2, 5);
    for (int i = 0; i < 2; i++) {
        struct wal_state state;
        wal_state(group, &state);
        CHECK(state.snapshot_index == 6 && state.snapshot_term == 1);
        CHECK(state.first_index == 5 && state.last_index == 9 && state.configuration_index == 2);
        CHECK_STR(span_str(state.configuration), STR("members"));
        check_text(group, 5, "entry");
        REQUIRE_OK(reopen(&fixture));
        group = wal_find(fixture.wal, 3);
    }
    // The same again, keeping less; then all of it.
    wal_put_snapshot(group, 6, 1, str_span(STR("others")), 3, 7);
    CHECK_EQ_U64(first_index(group), 7);
    wal_put_snapshot(group, 9, 1, str_span(STR("others")), 3, 100);
    CHECK_EQ_U64(first_index(group), 10);
    CHECK_EQ_U64(last_index(group), 9);
    wal_put_snapshot(group, 9, 1, str_span(STR("others")), 3, 1);
    CHECK_EQ_U64(first_index(group), 10);
    put_text(group, 10, 2, "ten");
    REQUIRE_OK(reopen(&fixture));
    check_text(wal_find(fixture.wal, 3), 10, "ten");
    fixture_deinit(&fixture);
}

TEST(an_installed_snapshot_replaces_the_entries)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *ahead = wal_add(fixture.wal, 1);
    struct wal_group *other_term = wal_add(fixture.wal, 2);
    for (uint64_t i = 1; i <= 5; i++) {
        put_text(ahead, i, 1, "old");
        put_text(other_term, i, 1, "old");
    }
    wal_put_snapshot(ahead, 50, 2, (struct span){NULL, 0}, 0, 1);
    wal_put_snapshot(other_term, 3, 2, (struct span){NULL, 0}, 0, 1);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ_U64(first_index(ahead), 51);
        CHECK_EQ_U64(last_index(ahead), 50);
        CHECK_EQ_U64(first_index(other_term), 4);
        CHECK_EQ_U64(last_index(other_term), 3);
        REQUIRE_OK(reopen(&fixture));
        ahead = wal_find(fixture.wal, 1);
        other_term = wal_find(fixture.wal, 2);
    }
    put_text(ahead, 51, 2, "next");
    REQUIRE_OK(reopen(&fixture));
    check_text(wal_find(fixture.wal, 1), 51, "next");
    fixture_deinit(&fixture);
}

// Many at once go through several segments, and the first of them replaces what was there.
TEST(many_entries_at_once_are_as_one_by_one)
{
    enum { INDEX_MAX = 400, ENTRY_MAX = 60, SIZE = 3000 };
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 1);
    uint64_t terms[INDEX_MAX + 1] = {0};
    uint64_t last = 0;
    static uint8_t bytes[SIZE];
    struct rng rng;
    rng_init(&rng, 7);
    for (uint64_t round = 1; round <= 60; round++) {
        struct wal_entry entries[ENTRY_MAX];
        uint64_t first = last + 1 - rng_below(&rng, last < 40 ? last + 1 : 40);
        uint32_t count = (uint32_t)rng_below(&rng, ENTRY_MAX) + 1;
        if (first + count > INDEX_MAX)
            first = rng_below(&rng, 100) + 1;
        for (uint32_t i = 0; i < count; i++) {
            entries[i] = (struct wal_entry){round, (uint8_t)i, {bytes, rng_below(&rng, SIZE)}};
            terms[first + i] = round;
        }
        wal_put_entries(group, first, entries, count);
        last = first + count - 1;
        if (rng_below(&rng, 3) == 0)
            flush_and_wait(fixture.wal);
        if (rng_below(&rng, 5) == 0)
            REQUIRE_OK(reopen(&fixture));
        group = wal_find(fixture.wal, 1);
        REQUIRE(group != NULL && last_index(group) == last);
        for (uint64_t index = 1; index <= last; index++) {
            uint64_t term = 0;
            uint8_t kind;
            uint32_t size;
            CHECK(wal_entry_info(group, index, &term, &kind, &size) && term == terms[index]);
        }
    }
    fixture_deinit(&fixture);
}

// --- Against the model

static void run_model(uint64_t seed, uint32_t group_count, uint32_t entry_size_max,
                      uint32_t step_count)
{
    printf("seed %llu, %u groups\n", (unsigned long long)seed, group_count);
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct model model;
    model_init(&model, seed, group_count, entry_size_max);
    struct rng rng;
    rng_init(&rng, seed);
    struct error error;
    bool is_right = true;
    uint64_t copied = 0;
    for (uint32_t i = 0; i < step_count && is_right; i++) {
        model_step(&model, fixture.wal);
        if (rng_below(&rng, 20) == 0)
            (void)wal_flush(fixture.wal);
        if (rng_below(&rng, 100) == 0)
            flush_and_wait(fixture.wal);
        if (rng_below(&rng, 2000) == 0) {
            struct wal_stats stats;
            wal_stats(fixture.wal, &stats);
            copied += stats.copy_size;
            is_right = CHECK_OK(reopen(&fixture));
        }
        if (is_right && (rng_below(&rng, 500) == 0 || i + 1 == step_count)) {
            uint32_t digest;
            is_right = CHECK(wal_digest(fixture.wal, group_count, &digest, &error)) &&
                       CHECK(digest == model_digest(&model));
        }
    }
    struct wal_stats stats;
    wal_stats(fixture.wal, &stats);
    CHECK(!is_right || stats.size <= 4 * (stats.live_size + 8ULL * SMALL_SEGMENT));
    uint64_t all_copied = copied + stats.copy_size;
    printf("%llu segments, %llu of %llu bytes live, %llu copied\n",
           (unsigned long long)stats.segment_count, (unsigned long long)stats.live_size,
           (unsigned long long)stats.size, (unsigned long long)all_copied);
    model_deinit(&model);
    fixture_deinit(&fixture);
}

TEST(the_log_is_as_the_model)
{
    uint64_t seed = 0;
    const char *text = getenv("WAL_SEED"); // NOLINT(concurrency-mt-unsafe): no other thread yet
    if (text == NULL || !str_to_u64(str_from_cstr(text), &seed))
        rng_secure(&seed, sizeof(seed));
    seed %= 1000000;
    run_model(seed, 1, 4000, 4000);
    run_model(seed + 1, 10, 4000, 20000);
    run_model(seed + 2, 50, 100, 20000);
    // The state of all of them is several segments.
    run_model(seed + 3, MODEL_GROUP_MAX, 2000, 20000);
}

// --- Segments come and go

TEST(segments_are_used_again)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 1);
    uint32_t files_max = 0;
    for (uint64_t index = 1; index <= 3000; index++) {
        put_zeros(group, index, 1000);
        wal_put_snapshot(group, index, 1, (struct span){NULL, 0}, 0, index);
        flush_and_wait(fixture.wal);
        uint32_t files = count_files(&fixture);
        files_max = files > files_max ? files : files_max;
    }
    // The one written to, one behind it, a spare, one that waits to be a spare.
    CHECK(files_max <= 5);
    struct wal_stats stats;
    wal_stats(fixture.wal, &stats);
    CHECK(stats.segment_count <= 2 && stats.batch_count == 3000 && stats.sync_ns > 0);
    REQUIRE_OK(reopen(&fixture));
    CHECK_EQ_U64(first_index(wal_find(fixture.wal, 1)), 3000);
    fixture_deinit(&fixture);
}

TEST(a_group_that_writes_little_does_not_keep_the_log)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *cold = wal_add(fixture.wal, 1);
    for (uint64_t index = 1; index <= 10; index++)
        put_text(cold, index, 3, "kept");
    struct wal_group *hot = wal_add(fixture.wal, 2);
    uint64_t size_max = 0;
    for (uint64_t index = 1; index <= 3000; index++) {
        put_zeros(hot, index, 1000);
        wal_put_snapshot(hot, index, 1, (struct span){NULL, 0}, 0, index);
        if (index % 5 == 0)
            flush_and_wait(fixture.wal);
        struct wal_stats stats;
        wal_stats(fixture.wal, &stats);
        size_max = stats.size > size_max ? stats.size : size_max;
    }
    CHECK(size_max <= (uint64_t)11 * SMALL_SEGMENT);
    struct wal_stats stats;
    wal_stats(fixture.wal, &stats);
    CHECK(stats.copy_size > 0 && stats.copy_failure_count == 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ_U64(first_index(cold), 1);
        CHECK_EQ_U64(last_index(cold), 10);
        for (uint64_t index = 1; index <= 10; index++)
            check_text(cold, index, "kept");
        REQUIRE_OK(reopen(&fixture));
        cold = wal_find(fixture.wal, 1);
    }
    fixture_deinit(&fixture);
}

static uint32_t count_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

TEST(few_files_are_open)
{
    struct fixture fixture;
    fixture_init(&fixture);
    uint32_t before = count_descriptors();
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 1);
    for (int i = 0; i < 2; i++) {
        uint64_t last = last_index(group);
        for (uint64_t index = last + 1; index <= last + 1000; index++)
            put_zeros(group, index, 1000);
        flush_and_wait(fixture.wal);
        struct buf data;
        buf_init(&data, SIZE_MAX);
        for (uint64_t index = 1; index <= last + 1000; index += 17)
            CHECK_OK(wal_read(group, index, &data, &fixture.error));
        buf_deinit(&data);
        CHECK(count_descriptors() <= before + 12);
        REQUIRE_OK(reopen(&fixture));
        group = wal_find(fixture.wal, 1);
    }
    fixture_deinit(&fixture);
    CHECK_EQ_U64(count_descriptors(), before - 1);
}

// --- Batches

struct report {
    atomic_uint_fast64_t newest;
    atomic_bool is_ordered;
    atomic_uint count;
};

static void take_report(uint64_t batch, void *context)
{
    struct report *report = context;
    if (batch <= atomic_load(&report->newest))
        atomic_store(&report->is_ordered, false);
    atomic_store(&report->newest, batch);
    atomic_fetch_add(&report->count, 1);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static int64_t plain_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

static int gated_sync(int fd)
{
    (void)fd;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return 0;
}

static const struct replica_files gated_files = {plain_write, gated_sync, NULL};

TEST(what_waits_for_the_disk_shares_a_sync)
{
    struct fixture fixture;
    fixture_init(&fixture);
    struct report report = {0};
    atomic_store(&report.is_ordered, true);
    struct wal_options options = small_options(&fixture);
    options.segment_size = (size_t)1 << 20;
    options.files = &gated_files;
    options.written = take_report;
    options.context = &report;
    REQUIRE_OK(wal_open(&options, &fixture.error, &fixture.wal));
    struct wal_group *group = wal_add(fixture.wal, 1);
    flush_and_wait(fixture.wal);
    pthread_mutex_lock(&gate);
    for (uint64_t index = 1; index <= 500; index++) {
        put_text(group, index, 1, "entry");
        CHECK_EQ_U64(wal_flush(fixture.wal), index + 1);
    }
    CHECK(wal_written(fixture.wal) <= 1);
    check_text(group, 1, "entry");
    check_text(group, 500, "entry");
    pthread_mutex_unlock(&gate);
    wait_for(fixture.wal, 501);
    while (atomic_load(&report.newest) < 501)
        usleep(50);
    CHECK(atomic_load(&report.is_ordered));
    // The first, one that was under way or so, and the rest.
    CHECK(atomic_load(&report.count) <= 4);
    check_text(group, 250, "entry");
    REQUIRE_OK(reopen(&fixture));
    check_text(wal_find(fixture.wal, 1), 500, "entry");
    fixture_deinit(&fixture);
}

TEST(an_idle_log_takes_no_time)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    put_text(wal_add(fixture.wal, 1), 1, 1, "entry");
    flush_and_wait(fixture.wal);
    usleep(20000);
    struct timespec before;
    struct timespec after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(300000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    int64_t used_ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    CHECK(used_ns < 10000000);
    fixture_deinit(&fixture);
}

// --- A full disk

static atomic_llong blocks_left; // bytes that can still be allocated

static int scarce_allocate(int fd, int64_t size)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return errno;
    long long more = size - info.st_size;
    if (more > atomic_load(&blocks_left))
        return ENOSPC;
    if (more > 0)
        atomic_fetch_sub(&blocks_left, more);
    return posix_fallocate(fd, 0, (off_t)size);
}

static int plain_sync(int fd)
{
    return fdatasync(fd);
}

static const struct replica_files scarce_files = {plain_write, plain_sync, scarce_allocate};

static enum status open_scarce(struct fixture *fixture)
{
    wal_close(fixture->wal);
    fixture->wal = NULL;
    struct wal_options options = small_options(fixture);
    options.files = &scarce_files;
    return wal_open(&options, &fixture->error, &fixture->wal);
}

static uint64_t test_time_ns = 1;
static uint64_t test_monotonic_ns(void)
{
    return test_time_ns;
}
static uint64_t test_unix_ms(void)
{
    return 0;
}
static const struct clock_source test_clock = {test_monotonic_ns, test_unix_ms};

TEST(a_full_disk_is_told_early_and_a_snapshot_makes_room)
{
    struct fixture fixture;
    fixture_init(&fixture);
    clock_set_source(&test_clock);
    test_time_ns = 5000000000U;
    atomic_store(&blocks_left, 3 * SMALL_SEGMENT);
    REQUIRE_OK(open_scarce(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 1);
    uint64_t index = 0;
    while (index < 1000 && wal_has_room(fixture.wal, 500 + WAL_ENTRY_OVERHEAD)) {
        put_zeros(group, ++index, 500);
        flush_and_wait(fixture.wal);
    }
    // Three segments, but for their beginnings and the reserve.
    CHECK(index > 75 && index < 100);
    CHECK(!wal_has_room(fixture.wal, 500 + WAL_ENTRY_OVERHEAD));
    CHECK_EQ_I64(atomic_load(&blocks_left), 0);
    for (uint64_t i = 0; i < 8; i++)
        wal_put_vote(group, i, 1);
    flush_and_wait(fixture.wal);

    // Full as it is, it opens, with everything.
    REQUIRE_OK(open_scarce(&fixture));
    group = wal_find(fixture.wal, 1);
    REQUIRE(group != NULL);
    CHECK_EQ_U64(last_index(group), index);
    CHECK(!wal_has_room(fixture.wal, 500));

    // Room on the disk again is seen after a second.
    atomic_store(&blocks_left, SMALL_SEGMENT);
    CHECK(!wal_has_room(fixture.wal, 500 + WAL_ENTRY_OVERHEAD));
    test_time_ns += 1500000000U;
    CHECK(wal_has_room(fixture.wal, 500 + WAL_ENTRY_OVERHEAD));
    while (wal_has_room(fixture.wal, 500 + WAL_ENTRY_OVERHEAD))
        put_zeros(group, ++index, 500);
    flush_and_wait(fixture.wal);

    // A snapshot frees segments, which are used again.
    wal_put_snapshot(group, index, 1, (struct span){NULL, 0}, 0, index + 1);
    flush_and_wait(fixture.wal);
    bool has_room = false;
    for (int i = 0; i < 1000 && !has_room; i++) {
        has_room = wal_has_room(fixture.wal, 8000);
        usleep(1000);
    }
    CHECK(has_room);
    put_zeros(group, ++index, 7000);
    flush_and_wait(fixture.wal);
    REQUIRE_OK(open_scarce(&fixture));
    CHECK_EQ_U64(last_index(wal_find(fixture.wal, 1)), index);
    fixture_deinit(&fixture);
    clock_set_source(NULL);
}

TEST(nothing_that_was_found_room_for_stops_the_process)
{
    // Whatever the sizes: as long as there was said to be room, putting it must work.
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fixture fixture;
        fixture_init(&fixture);
        struct rng rng;
        rng_init(&rng, seed);
        atomic_store(&blocks_left, (long long)(SMALL_SEGMENT * (2 + rng_below(&rng, 5))));
        REQUIRE_OK(open_scarce(&fixture));
        struct wal_group *groups[8];
        for (uint64_t i = 0; i < 8; i++)
            groups[i] = wal_add(fixture.wal, i);
        for (uint32_t refused_count = 0; refused_count < 20;) {
            struct wal_group *group = groups[rng_below(&rng, 8)];
            size_t size = rng_below(&rng, 8000);
            if (wal_has_room(fixture.wal, size + WAL_ENTRY_OVERHEAD))
                put_zeros(group, last_index(group) + 1, size);
            else
                refused_count++;
            if (rng_below(&rng, 4) == 0)
                (void)wal_flush(fixture.wal);
        }
        for (uint64_t i = 0; i < 8; i++) {
            wal_put_vote(groups[i], 2, 1);
            uint64_t last = last_index(groups[i]);
            wal_put_snapshot(groups[i], last, last == 0 ? 0 : 1, (struct span){NULL, 0}, 0,
                             last + 1);
        }
        flush_and_wait(fixture.wal);
        REQUIRE_OK(open_scarce(&fixture));
        fixture_deinit(&fixture);
    }
}

TEST(the_first_segment_needs_room)
{
    struct fixture fixture;
    fixture_init(&fixture);
    atomic_store(&blocks_left, 100);
    CHECK_STATUS(open_scarce(&fixture), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(fixture.error.text), STR("allocate wal-0000000000000001"));
    CHECK_EQ_U64(count_files(&fixture), 0);
    fixture_deinit(&fixture);
}

TEST(room_for_much_at_once_is_made)
{
    struct fixture fixture;
    fixture_init(&fixture);
    atomic_store(&blocks_left, (long long)1 << 30);
    REQUIRE_OK(open_scarce(&fixture));
    struct wal_group *group = wal_add(fixture.wal, 1);
    CHECK(wal_has_room(fixture.wal, (size_t)100 * 8000));
    CHECK(!wal_has_room(fixture.wal, SIZE_MAX));
    for (uint64_t index = 1; index <= 100; index++)
        put_zeros(group, index, 8000 - WAL_ENTRY_OVERHEAD);
    flush_and_wait(fixture.wal);
    REQUIRE_OK(open_scarce(&fixture));
    CHECK_EQ_U64(last_index(wal_find(fixture.wal, 1)), 100);
    fixture_deinit(&fixture);
}

// --- A broken disk

static int64_t failing_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    if (size > 1000) {
        errno = EIO;
        return -1;
    }
    return pwrite(fd, bytes, size, offset);
}

static int failing_sync(int fd)
{
    if (lseek(fd, 0, SEEK_CUR) == 1) {
        errno = EIO;
        return -1;
    }
    return fdatasync(fd);
}

static int64_t marking_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    if (size > 1000)
        (void)lseek(fd, 1, SEEK_SET); // a mark for failing_sync
    return pwrite(fd, bytes, size, offset);
}

static void check_stops(const struct replica_files *files)
{
    struct fixture fixture;
    fixture_init(&fixture);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct wal_options options = small_options(&fixture);
        options.files = files;
        if (freopen("/dev/null", "w", stderr) == NULL ||
            wal_open(&options, &fixture.error, &fixture.wal) != STATUS_OK)
            _exit(1);
        struct wal_group *group = wal_add(fixture.wal, 1);
        flush_and_wait(fixture.wal);
        signal(SIGABRT, SIG_DFL);
        put_zeros(group, 1, 2000);
        flush_and_wait(fixture.wal);
        _exit(2);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    REQUIRE_OK(reopen(&fixture));
    CHECK(wal_find(fixture.wal, 1) != NULL);
    fixture_deinit(&fixture);
}

TEST(a_failed_write_or_sync_stops_the_process)
{
    static const struct replica_files write_fails = {failing_write, plain_sync, NULL};
    static const struct replica_files sync_fails = {marking_write, failing_sync, NULL};
    check_stops(&write_fails);
    check_stops(&sync_fails);
}

// --- Damage

static void flip(const struct fixture *fixture, const char *name, off_t offset)
{
    int fd = openat(fixture->directory_fd, name, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

// Segment 1 is full, 2 has some batches.
static void fill_two_segments(struct fixture *fixture)
{
    REQUIRE_OK(reopen(fixture));
    struct wal_group *group = wal_add(fixture->wal, 1);
    for (uint64_t index = 1; index <= 25; index++) {
        put_zeros(group, index, 800);
        flush_and_wait(fixture->wal);
    }
    wal_close(fixture->wal);
    fixture->wal = NULL;
}

static bool is_used(const struct fixture *fixture, const char *name, off_t offset)
{
    int fd = openat(fixture->directory_fd, name, O_RDONLY | O_CLOEXEC);
    static uint8_t bytes[SMALL_SEGMENT];
    CHECK(pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes));
    close(fd);
    size_t used = sizeof(bytes);
    while (used > 0 && bytes[used - 1] == 0)
        used--;
    return (size_t)offset < used;
}

TEST(damage_is_told_with_its_place)
{
    struct fixture fixture;
    fixture_init(&fixture);
    fill_two_segments(&fixture);
    const char *first = "wal-0000000000000001";
    for (off_t offset = 0; offset < SMALL_SEGMENT; offset += 7) {
        if (!is_used(&fixture, first, offset))
            break;
        flip(&fixture, first, offset);
        if (!CHECK_STATUS(reopen(&fixture), STATUS_CORRUPT))
            printf("at byte %lld\n", (long long)offset);
        CHECK_CONTAINS(str_from_cstr(fixture.error.text), str_from_cstr(first));
        CHECK_CONTAINS(str_from_cstr(fixture.error.text), STR("byte"));
        flip(&fixture, first, offset);
    }
    // In the newest one all but the last batch is known to have been synced.
    const char *second = "wal-0000000000000002";
    for (off_t offset = 0; offset < 4000; offset += 7) {
        flip(&fixture, second, offset);
        CHECK_STATUS(reopen(&fixture), STATUS_CORRUPT);
        flip(&fixture, second, offset);
    }
    REQUIRE_OK(reopen(&fixture));
    CHECK_EQ_U64(last_index(wal_find(fixture.wal, 1)), 25);
    fixture_deinit(&fixture);
}

TEST(a_missing_segment_is_told)
{
    struct fixture fixture;
    fixture_init(&fixture);
    fill_two_segments(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_find(fixture.wal, 1);
    for (uint64_t index = 26; index <= 60; index++)
        put_zeros(group, index, 800);
    wal_close(fixture.wal);
    fixture.wal = NULL;
    int fd = fixture.directory_fd;
    const char *first = "wal-0000000000000001";
    const char *second = "wal-0000000000000002";
    REQUIRE(renameat(fd, second, fd, "away") == 0);
    CHECK_STATUS(reopen(&fixture), STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(fixture.error.text), STR("wal-0000000000000002 is missing"));
    REQUIRE(renameat(fd, "away", fd, second) == 0);
    REQUIRE(renameat(fd, first, fd, "away") == 0);
    CHECK_STATUS(reopen(&fixture), STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(fixture.error.text), STR("entry 1 of group 1 is missing"));
    REQUIRE(renameat(fd, "away", fd, first) == 0);
    REQUIRE_OK(reopen(&fixture));
    CHECK_EQ_U64(last_index(wal_find(fixture.wal, 1)), 60);
    fixture_deinit(&fixture);
}

TEST(damage_after_the_start_is_seen_when_it_is_read)
{
    struct fixture fixture;
    fixture_init(&fixture);
    fill_two_segments(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_find(fixture.wal, 1);
    flip(&fixture, "wal-0000000000000001", 1000);
    struct buf data;
    buf_init(&data, SIZE_MAX);
    CHECK_OK(wal_read(group, 1, &data, &fixture.error));
    CHECK_STATUS(wal_read(group, 2, &data, &fixture.error), STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(fixture.error.text), STR("wal-0000000000000001: byte "));
    CHECK_EQ_U64(data.len, 800);
    buf_deinit(&data);
    fixture_deinit(&fixture);
}

TEST(an_entry_that_cannot_be_copied_stays_where_it_is)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *cold = wal_add(fixture.wal, 1);
    put_text(cold, 1, 1, "kept");
    struct wal_group *hot = wal_add(fixture.wal, 2);
    flush_and_wait(fixture.wal);
    flip(&fixture, "wal-0000000000000001", KEPT_OFFSET);
    for (uint64_t index = 1; index <= 400; index++) {
        put_zeros(hot, index, 1000);
        wal_put_snapshot(hot, index, 1, (struct span){NULL, 0}, 0, index);
        flush_and_wait(fixture.wal);
    }
    struct wal_stats stats;
    wal_stats(fixture.wal, &stats);
    CHECK_EQ_U64(stats.copy_failure_count, 1);
    CHECK(stats.segment_count > 20);
    flip(&fixture, "wal-0000000000000001", KEPT_OFFSET);
    check_text(cold, 1, "kept");
    REQUIRE_OK(reopen(&fixture));
    check_text(wal_find(fixture.wal, 1), 1, "kept");
    fixture_deinit(&fixture);
}

TEST(left_overs_are_cleared_away)
{
    struct fixture fixture;
    fixture_init(&fixture);
    fill_two_segments(&fixture);
    REQUIRE_OK(reopen(&fixture));
    struct wal_group *group = wal_find(fixture.wal, 1);
    wal_put_snapshot(group, 25, 1, (struct span){NULL, 0}, 0, 26);
    wal_close(fixture.wal);
    fixture.wal = NULL;
    // The end came between the new header of a dead segment and its new name; and in the middle of
    // making one.
    int fd = fixture.directory_fd;
    int from = openat(fd, "wal-0000000000000003", O_RDONLY | O_CLOEXEC);
    int to = openat(fd, "wal-0000000000000001", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static uint8_t bytes[SMALL_SEGMENT];
    CHECK(pread(from, bytes, sizeof(bytes), 0) == sizeof(bytes));
    CHECK(pwrite(to, bytes, sizeof(bytes), 0) == sizeof(bytes));
    close(from);
    close(to);
    to = openat(fd, "wal-0000000000000004.tmp", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(to);
    REQUIRE_OK(reopen(&fixture));
    CHECK_EQ_U64(last_index(wal_find(fixture.wal, 1)), 25);
    CHECK(faccessat(fd, "wal-0000000000000001", F_OK, 0) != 0);
    CHECK(faccessat(fd, "wal-0000000000000004.tmp", F_OK, 0) != 0);
    fixture_deinit(&fixture);
}

TEST_MAIN()
