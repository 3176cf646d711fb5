#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "replica/replica.h"
#include "replica/wal.h"
#include "testing/test.h"

// The log on disks in trouble: a process that ends while the machine goes on, files that cannot be
// read, a disk of so many bytes that gets back what is removed, a caller that is wrong.

enum { SMALL_SEGMENT = 16384 };

// --- Helpers

struct fixture {
    int directory_fd;
    struct wal *wal;
    struct error error;
};

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

static enum status reopen(struct fixture *fixture, const struct replica_files *files)
{
    wal_close(fixture->wal);
    fixture->wal = NULL;
    struct wal_options options = {.directory_fd = fixture->directory_fd,
                                  .files = files,
                                  .segment_size = SMALL_SEGMENT,
                                  .size_max = (size_t)8 * SMALL_SEGMENT};
    return wal_open(&options, &fixture->error, &fixture->wal);
}

static void flush_and_wait(struct wal *wal)
{
    uint64_t batch = wal_flush(wal);
    while (wal_written(wal) < batch)
        usleep(50);
}

static void put_zeros(struct wal_group *group, uint64_t index, size_t size)
{
    static const uint8_t zeros[SMALL_SEGMENT];
    struct wal_entry entry = {1, 0, {zeros, size}};
    wal_put_entries(group, index, &entry, 1);
}

static uint64_t last_index(const struct wal_group *group)
{
    struct wal_state state;
    wal_state(group, &state);
    return state.last_index;
}

static uint64_t inode_of(const struct fixture *fixture, const char *name)
{
    struct stat info = {0};
    CHECK(fstatat(fixture->directory_fd, name, &info, 0) == 0);
    return info.st_ino;
}

static int64_t plain_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

// --- A process ends, the machine does not

enum { SYNCED_MAX = 64 };
static uint64_t fatal_inode; // its sync ends the process; 0: none
static uint64_t synced_inodes[SYNCED_MAX];
static size_t synced_count;
static _Thread_local bool is_opening; // the writer's thread is none of this

static int watch(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return -1;
    if (info.st_ino == fatal_inode)
        (void)raise(SIGKILL);
    if (is_opening && synced_count < SYNCED_MAX)
        synced_inodes[synced_count++] = info.st_ino;
    return 0;
}

static int watched_sync(int fd)
{
    return watch(fd) == 0 ? fdatasync(fd) : -1;
}

// Instead of the C library's: folders are synced past the files that the log is given.
int fsync(int fd)
{
    return watch(fd) == 0 ? (int)syscall(SYS_fsync, fd) : -1;
}

static const struct replica_files watched_files = {plain_write, watched_sync, NULL};

static bool is_synced(uint64_t inode)
{
    for (size_t i = 0; i < synced_count; i++) {
        if (synced_inodes[i] == inode)
            return true;
    }
    return false;
}

TEST(what_counts_from_the_start_on_is_synced_at_the_start)
{
    struct fixture fixture;
    fixture_init(&fixture);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (reopen(&fixture, &watched_files) != STATUS_OK)
            _exit(1);
        struct wal_group *group = wal_add(fixture.wal, 1);
        flush_and_wait(fixture.wal);
        // The next batch fills the first segment; it is written, and its sync does not come.
        for (uint64_t index = 1; index <= 25; index++)
            put_zeros(group, index, 800);
        fatal_inode = inode_of(&fixture, "wal-0000000000000001");
        flush_and_wait(fixture.wal);
        _exit(2);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    synced_count = 0;
    is_opening = true;
    enum status opened = reopen(&fixture, &watched_files);
    is_opening = false;
    REQUIRE_OK(opened);
    struct wal_group *group = wal_find(fixture.wal, 1);
    REQUIRE(group != NULL);
    CHECK(last_index(group) > 10 && last_index(group) < 25);
    // The log goes on in the second segment and would not ask for the first again.
    CHECK(is_synced(inode_of(&fixture, "wal-0000000000000002")));
    CHECK(is_synced(inode_of(&fixture, "wal-0000000000000001")));
    // And takes a spare under the name that it has now.
    CHECK(is_synced(inode_of(&fixture, ".")));
    fixture_deinit(&fixture);
}

// --- Files that cannot be read

static uint32_t count_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

TEST(files_that_cannot_be_read_are_closed_again)
{
    struct fixture fixture;
    fixture_init(&fixture);
    REQUIRE_OK(reopen(&fixture, NULL));
    uint32_t before = count_descriptors();
    struct wal_group *group = wal_add(fixture.wal, 1);
    for (uint64_t index = 1; index <= 1000; index++)
        put_zeros(group, index, 1000);
    flush_and_wait(fixture.wal);
    for (unsigned number = 1; number <= 50; number++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "wal-%016x", number); // fits
        int fd = openat(fixture.directory_fd, name, O_WRONLY | O_CLOEXEC);
        CHECK(fd >= 0 && ftruncate(fd, 32) == 0);
        close(fd);
    }
    struct buf data;
    buf_init(&data, SIZE_MAX);
    for (uint64_t index = 1; index <= 600; index += 10)
        CHECK_STATUS(wal_read(group, index, &data, &fixture.error), STATUS_CORRUPT);
    CHECK(count_descriptors() <= before + 12);
    CHECK_OK(wal_read(group, 1000, &data, &fixture.error));
    buf_deinit(&data);
    fixture_deinit(&fixture);
}

// --- A disk of so many bytes

static int plain_sync(int fd)
{
    return fdatasync(fd);
}

static int limited_directory_fd;
static atomic_llong capacity;

static long long used_bytes(void)
{
    int fd = openat(limited_directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fdopendir(fd);
    long long sum = 0;
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) { // NOLINT(concurrency-mt-unsafe): own stream
        struct stat info;
        if (entry->d_name[0] != '.' && fstatat(fd, entry->d_name, &info, 0) == 0)
            sum += info.st_size;
    }
    closedir(directory);
    return sum;
}

static int limited_allocate(int fd, int64_t size)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return errno;
    long long more = size - info.st_size;
    if (more > 0 && used_bytes() + more > atomic_load(&capacity))
        return ENOSPC;
    return posix_fallocate(fd, 0, (off_t)size);
}

static const struct replica_files limited_files = {plain_write, plain_sync, limited_allocate};

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

TEST(a_dead_segment_goes_when_a_larger_one_is_needed)
{
    struct fixture fixture;
    fixture_init(&fixture);
    clock_set_source(&test_clock);
    test_time_ns = 5000000000U;
    limited_directory_fd = fixture.directory_fd;
    atomic_store(&capacity, 4LL * SMALL_SEGMENT);
    REQUIRE_OK(reopen(&fixture, &limited_files));
    struct wal_group *group = wal_add(fixture.wal, 1);
    for (uint64_t index = 1; index <= 20; index++)
        put_zeros(group, index, 1000);
    flush_and_wait(fixture.wal);
    wal_put_snapshot(group, 20, 1, (struct span){NULL, 0}, 0, 21);
    flush_and_wait(fixture.wal);
    // The one written to, the next, and a dead one: the next may become two once that is gone.
    (void)wal_has_room(fixture.wal, 1);
    usleep(20000);
    CHECK_EQ_I64(used_bytes(), 3LL * SMALL_SEGMENT);
    CHECK(wal_has_room(fixture.wal, (size_t)5 * SMALL_SEGMENT / 2));
    CHECK(used_bytes() <= 4LL * SMALL_SEGMENT);
    fixture_deinit(&fixture);
    clock_set_source(NULL);
}

// --- A caller that is wrong

TEST(entries_in_the_snapshot_are_not_replaced)
{
    struct fixture fixture;
    fixture_init(&fixture);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL || reopen(&fixture, NULL) != STATUS_OK)
            _exit(1);
        struct wal_group *group = wal_add(fixture.wal, 1);
        for (uint64_t i = 1; i <= 5; i++)
            put_zeros(group, i, 100);
        wal_put_snapshot(group, 3, 1, (struct span){NULL, 0}, 0, 1);
        put_zeros(group, 4, 100);
        wal_put_entries(group, 3, NULL, 0); // none
        signal(SIGABRT, SIG_DFL);
        if (last_index(group) == 4)
            put_zeros(group, 3, 100);
        _exit(2);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    fixture_deinit(&fixture);
}

TEST_MAIN()
