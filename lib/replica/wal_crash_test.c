#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/replica.h"
#include "replica/wal_testing.h"
#include "testing/test.h"

// A process writes to a log on a disk that keeps nothing until a sync, and ends at some byte: of
// what was not synced any sectors may have got there. The next one opens the log, finds it as it
// was after some step, no earlier than the last one reported as written, and goes on from there,
// until its own end, which may come while it is still opening.
//
// Some processes end alone: the kernel has all that they wrote, the next one finds it and goes on
// behind it, and a power cut may still take it, unless it has been synced by then.

enum {
    ROUND_COUNT = 150,
    STEP_COUNT_MAX = 3000, // a round
    BATCH_COUNT_MAX = 8192,
    GROUP_COUNT = 12,
    ENTRY_SIZE_MAX = 3000,
    SECTOR_SIZE = 512,
    WRITE_COUNT_MAX = 4096,
    UNSYNCED_MAX = 65536, // parts of sectors
    FAILED = 3,
    ENDED = 4,
};

// A part of a sector that the kernel has and the disk may not have, with what the disk has there.
struct unsynced {
    uint64_t inode;
    int64_t offset;
    size_t size;
    uint8_t bytes[SECTOR_SIZE];
};

// What the processes tell each other.
struct shared {
    atomic_uint_fast64_t written_steps; // reported as on disk
    atomic_uint_fast64_t issued_steps;
    atomic_uint_fast64_t steps_of_batch[BATCH_COUNT_MAX];
    atomic_uint open_count;
    atomic_uint lost_count; // steps that were issued and did not survive
    atomic_uint segment_count_max;
    atomic_uint copy_size;
    atomic_uint alone_count; // processes that ended alone
    atomic_uint taken_count; // parts of sectors that a power cut took from an earlier process
    size_t unsynced_count;
    struct unsynced unsynced[UNSYNCED_MAX];
    char text[256];
};
static struct shared *shared;

// --- The disk

struct stashed {
    int fd;
    size_t size;
    int64_t offset;
    uint8_t *bytes;
};
static struct stashed stash[WRITE_COUNT_MAX];
static size_t stash_count;
static uint64_t bytes_until_end;
static struct rng disk_rng;

static int disk_directory_fd;

static void fail(const char *what, const char *why)
{
    snprintf(shared->text, sizeof(shared->text), "%s: %s", what, why);
    _exit(FAILED);
}

static uint64_t inode_of(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        fail("the disk", "fstat");
    return info.st_ino;
}

static void keep_old(int fd, int64_t offset, size_t size)
{
    if (shared->unsynced_count == UNSYNCED_MAX)
        fail("the disk", "too much is not synced");
    struct unsynced *unsynced = &shared->unsynced[shared->unsynced_count];
    *unsynced = (struct unsynced){.inode = inode_of(fd), .offset = offset, .size = size};
    if (pread(fd, unsynced->bytes, size, offset) != (ssize_t)size)
        fail("the disk", "a write behind the end of a file");
    shared->unsynced_count++;
}

enum kept { KEPT_SYNCED, KEPT_BY_KERNEL, KEPT_IN_PART };

static void put_sectors(const struct stashed *stashed, enum kept kept)
{
    size_t done = 0;
    while (done < stashed->size) {
        size_t place = (size_t)stashed->offset + done;
        size_t size = SECTOR_SIZE - place % SECTOR_SIZE;
        if (size > stashed->size - done)
            size = stashed->size - done;
        if (kept == KEPT_BY_KERNEL)
            keep_old(stashed->fd, (int64_t)place, size);
        bool is_kept = kept != KEPT_IN_PART || rng_below(&disk_rng, 2) == 0;
        if (is_kept && pwrite(stashed->fd, stashed->bytes + done, size, (off_t)place) < 0)
            fail("the disk", "pwrite");
        done += size;
    }
}

static int open_inode(uint64_t inode)
{
    int fd = openat(disk_directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fdopendir(fd);
    int found = -1;
    struct dirent *entry;
    while (found < 0 && (entry = readdir(directory)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        if (entry->d_ino == inode && entry->d_type == DT_REG)
            found = openat(disk_directory_fd, entry->d_name, O_WRONLY | O_CLOEXEC);
    }
    closedir(directory);
    return found;
}

// Whole sectors: of two writes to one, the later does not stay without the earlier.
static void take_unsynced(void)
{
    uint64_t salt = rng_u64(&disk_rng);
    for (size_t i = shared->unsynced_count; i > 0; i--) {
        const struct unsynced *unsynced = &shared->unsynced[i - 1];
        struct rng rng;
        rng_init(&rng, salt ^ (unsynced->inode << 32) ^ (uint64_t)(unsynced->offset / SECTOR_SIZE));
        int fd = rng_below(&rng, 2) == 0 ? -1 : open_inode(unsynced->inode);
        if (fd < 0)
            continue; // kept, or the file is gone
        if (pwrite(fd, unsynced->bytes, unsynced->size, (off_t)unsynced->offset) < 0)
            fail("the disk", "pwrite");
        close(fd);
        atomic_fetch_add(&shared->taken_count, 1);
    }
    shared->unsynced_count = 0;
}

static void end_process(void)
{
    // Also all of it, or nothing.
    uint64_t mode = rng_below(&disk_rng, 6);
    bool is_alone = mode >= 4;
    for (size_t i = 0; i < stash_count && mode != 0; i++)
        put_sectors(&stash[i], is_alone ? KEPT_BY_KERNEL : mode == 1 ? KEPT_SYNCED : KEPT_IN_PART);
    if (is_alone)
        atomic_fetch_add(&shared->alone_count, 1);
    else if (mode == 1)
        shared->unsynced_count = 0;
    else
        take_unsynced();
    (void)raise(SIGKILL); // not _exit, for which a sanitizer waits a second
    _exit(FAILED);
}

static void count_bytes(size_t size)
{
    if (size >= bytes_until_end)
        end_process();
    bytes_until_end -= size;
}

static int64_t disk_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    if (stash_count == WRITE_COUNT_MAX)
        _exit(FAILED);
    struct stashed *stashed = &stash[stash_count];
    *stashed = (struct stashed){fd, size, offset, malloc(size)};
    memcpy(stashed->bytes, bytes, size);
    stash_count++;
    count_bytes(size);
    return (int64_t)size;
}

static int disk_sync(int fd)
{
    count_bytes(1);
    size_t kept = 0;
    for (size_t i = 0; i < stash_count; i++) {
        if (stash[i].fd != fd) {
            stash[kept++] = stash[i];
            continue;
        }
        put_sectors(&stash[i], KEPT_SYNCED);
        free(stash[i].bytes);
    }
    stash_count = kept;
    uint64_t inode = inode_of(fd);
    kept = 0;
    for (size_t i = 0; i < shared->unsynced_count; i++) {
        if (shared->unsynced[i].inode != inode)
            shared->unsynced[kept++] = shared->unsynced[i];
    }
    shared->unsynced_count = kept;
    return 0;
}

static const struct replica_files disk = {disk_write, disk_sync, NULL};

// --- A process

static void written(uint64_t batch, void *context)
{
    (void)context;
    atomic_store(&shared->written_steps, atomic_load(&shared->steps_of_batch[batch]));
}

static enum status open_log(int directory_fd, const struct replica_files *files,
                            struct error *error, struct wal **out_wal)
{
    struct wal_options options = {
        .directory_fd = directory_fd,
        .files = files,
        .segment_size = 16384,
        .size_max = 131072,
        .written = written,
    };
    return wal_open(&options, error, out_wal);
}

// The model goes on to the step that the log has.
static void find_step(struct model *model, struct wal *wal)
{
    struct error error = {{0}};
    uint32_t found;
    if (!wal_digest(wal, model->group_count, &found, &error))
        fail("an entry cannot be read", error.text);
    while (model_digest(model) != found) {
        if (model->step_count == atomic_load(&shared->issued_steps))
            fail("the log is not as it was", "after any step");
        model_step(model, NULL);
    }
    atomic_fetch_add(&shared->lost_count,
                     (unsigned)(atomic_load(&shared->issued_steps) - model->step_count));
    atomic_fetch_add(&shared->open_count, 1);
    // The other way round an end in between would leave more written than was issued.
    atomic_store(&shared->written_steps, model->step_count);
    atomic_store(&shared->issued_steps, model->step_count);
}

static void run_process(int directory_fd, struct model *model, uint64_t seed)
{
    rng_init(&disk_rng, seed);
    // Some end at once, most after some turns of the log.
    bytes_until_end = 1 + rng_below(&disk_rng, 1U << (4 + rng_below(&disk_rng, 18)));
    disk_directory_fd = directory_fd;
    // Also between the syncs of opening.
    if (shared->unsynced_count > 0 && rng_below(&disk_rng, 8) == 0)
        bytes_until_end = 1 + rng_below(&disk_rng, 3);
    struct wal *wal = NULL;
    struct error error = {{0}};
    if (open_log(directory_fd, &disk, &error, &wal) != STATUS_OK)
        fail("open", error.text);
    find_step(model, wal);
    struct rng rng;
    rng_init(&rng, seed + 1);
    // Rare flushes leave several segments that begin while nothing of them is on disk.
    uint64_t steps_per_flush = 1U << rng_below(&rng, 10);
    uint64_t batch = 0;
    for (int i = 0; i < STEP_COUNT_MAX; i++) {
        atomic_store(&shared->issued_steps, model->step_count + 1);
        model_step(model, wal);
        if (rng_below(&rng, steps_per_flush) == 0) {
            atomic_store(&shared->steps_of_batch[batch + 1], model->step_count);
            batch = wal_flush(wal);
        }
        // Now and then the disk is let catch up, so that old segments go.
        if (rng_below(&rng, 50) == 0) {
            while (wal_written(wal) < batch)
                usleep(20);
        }
    }
    struct wal_stats stats;
    wal_stats(wal, &stats);
    if (stats.segment_count > atomic_load(&shared->segment_count_max))
        atomic_store(&shared->segment_count_max, (unsigned)stats.segment_count);
    atomic_fetch_add(&shared->copy_size, (unsigned)stats.copy_size);
    atomic_store(&shared->steps_of_batch[batch + 1], model->step_count);
    wal_close(wal);
    _exit(ENDED);
}

// Returns how much power cuts took from earlier processes.
static unsigned run_rounds(uint64_t seed)
{
    printf("seed %llu\n", (unsigned long long)seed);
    int directory_fd = open(test_temporary_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!CHECK(directory_fd >= 0))
        return 0;
    memset(shared, 0, sizeof(*shared));
    struct model model;
    model_init(&model, seed, GROUP_COUNT, ENTRY_SIZE_MAX);
    bool is_right = true;
    for (uint64_t round = 0; round < ROUND_COUNT && is_right; round++) {
        (void)fflush(stdout); // or the child would print it again
        pid_t child = fork();
        if (child == 0)
            run_process(directory_fd, &model, seed * 1000 + round);
        int status = 0;
        is_right = CHECK(waitpid(child, &status, 0) == child) &&
                   CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
                         (WIFEXITED(status) && WEXITSTATUS(status) == ENDED));
        if (!is_right)
            printf("round %llu: %s\n", (unsigned long long)round, shared->text);
        while (model.step_count < atomic_load(&shared->written_steps))
            model_step(&model, NULL);
    }
    printf("%u opened, %llu steps, %u lost, %u segments at most, %u bytes copied\n",
           atomic_load(&shared->open_count), (unsigned long long)model.step_count,
           atomic_load(&shared->lost_count), atomic_load(&shared->segment_count_max),
           atomic_load(&shared->copy_size));
    printf("%u ended alone, %u parts of sectors taken later\n", atomic_load(&shared->alone_count),
           atomic_load(&shared->taken_count));
    // Otherwise this tested nothing.
    CHECK(!is_right || (atomic_load(&shared->open_count) > ROUND_COUNT / 2 &&
                        atomic_load(&shared->lost_count) > 0 && model.step_count > 5000 &&
                        atomic_load(&shared->alone_count) > ROUND_COUNT / 10));
    model_deinit(&model);
    close(directory_fd);
    return atomic_load(&shared->taken_count);
}

TEST(what_was_written_survives_any_end)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    const char *text = getenv("WAL_SEED"); // NOLINT(concurrency-mt-unsafe): no other thread yet
    uint64_t seed = 0;
    if (text != NULL && str_to_u64(str_from_cstr(text), &seed)) {
        (void)run_rounds(seed); // one seed may take nothing
    } else {
        unsigned taken = 0;
        for (seed = 1; seed <= 3; seed++)
            taken += run_rounds(seed);
        rng_secure(&seed, sizeof(seed));
        taken += run_rounds(seed % 1000000);
        CHECK(taken > 0);
    }
    munmap(shared, sizeof(*shared));
}

TEST_MAIN()
