#include "replica/wal.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "replica/replica.h"

// The log beside a bare loop that writes and syncs the same bytes into an allocated file, batch by
// batch: what group commit, segments and checksums cost. wal_bench FOLDER, which is made.

enum { RUN_COUNT = 5 };

struct load {
    const char *name;
    uint32_t group_count;
    uint32_t entry_size;
    uint32_t entry_count; // a batch
    uint32_t batch_count;
    uint32_t ahead_max; // batches that may wait for the disk
};

static const struct load loads[] = {
    {"1 group, 1 KiB, one at a time", 1, 1024, 1, 2000, 1},
    {"64 groups, 1 KiB, 64 a batch", 64, 1024, 64, 1000, 1},
    {"64 groups, 1 KiB, 64 a batch, 4 ahead", 64, 1024, 64, 1000, 4},
    {"1 group, 64 KiB, 16 a batch, 4 ahead", 1, 65536, 16, 200, 4},
};

static uint8_t data[1 << 20];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static void written(uint64_t batch, void *context)
{
    (void)batch;
    (void)context;
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void wait_until_written(const struct wal *wal, uint64_t batch)
{
    pthread_mutex_lock(&lock);
    while (wal_written(wal) < batch)
        pthread_cond_wait(&wake, &lock);
    pthread_mutex_unlock(&lock);
}

static void fail(const char *what)
{
    fprintf(stderr, "%s failed\n", what);
    exit(1); // NOLINT(concurrency-mt-unsafe): a benchmark's end
}

static void remove_files(int directory_fd)
{
    for (unsigned number = 1; number < 4096; number++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "wal-%016x", number); // fits
        (void)unlinkat(directory_fd, name, 0);                   // or it is not there
    }
}

// Records of an entry each, with the snapshots that let old segments go.
static uint64_t run_log(int directory_fd, const struct load *load)
{
    struct wal_options options = {.directory_fd = directory_fd, .written = written};
    struct error error = {{0}};
    struct wal *wal = NULL;
    remove_files(directory_fd);
    if (wal_open(&options, &error, &wal) != STATUS_OK)
        fail(error.text);
    struct wal_group *groups[64] = {NULL};
    for (uint32_t i = 0; i < load->group_count; i++)
        groups[i] = wal_add(wal, i + 1);
    uint64_t index[64] = {0};
    struct wal_entry entry = {1, 1, {data, load->entry_size}};
    uint64_t started_ns = clock_monotonic_ns();
    for (uint32_t i = 0; i < load->batch_count; i++) {
        for (uint32_t j = 0; j < load->entry_count; j++) {
            uint32_t at = j % load->group_count;
            wal_put_entries(groups[at], ++index[at], &entry, 1);
            if (index[at] % 128 == 0)
                wal_put_snapshot(groups[at], index[at], 1, (struct span){NULL, 0}, 0, index[at]);
        }
        uint64_t batch = wal_flush(wal);
        if (batch >= load->ahead_max)
            wait_until_written(wal, batch - load->ahead_max + 1);
    }
    wait_until_written(wal, wal_flush(wal));
    uint64_t took_ns = clock_monotonic_ns() - started_ns;
    wal_close(wal);
    return took_ns;
}

static uint64_t run_loop(int directory_fd, const struct load *load)
{
    int fd = openat(directory_fd, "bare", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t batch_size = (size_t)load->entry_count * (load->entry_size + WAL_ENTRY_OVERHEAD);
    uint8_t *batch = calloc(1, batch_size);
    if (fd < 0 || batch == NULL ||
        posix_fallocate(fd, 0, (off_t)(batch_size * load->batch_count)) != 0 || fsync(fd) != 0)
        fail("bare file");
    uint64_t started_ns = clock_monotonic_ns();
    for (uint32_t i = 0; i < load->batch_count; i++) {
        if (pwrite(fd, batch, batch_size, (off_t)(batch_size * i)) != (ssize_t)batch_size ||
            fdatasync(fd) != 0)
            fail("bare write");
    }
    uint64_t took_ns = clock_monotonic_ns() - started_ns;
    free(batch);
    close(fd);
    (void)unlinkat(directory_fd, "bare", 0); // the folder is the user's
    return took_ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    (void)mkdir(argv[1], 0700); // or it is there
    int directory_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory_fd < 0)
        fail("open the folder");
    memset(data, 'x', sizeof(data));
    printf("%-40s %12s %12s %10s %8s\n", "medians of 5", "log", "bare loop", "MB/s", "ratio");
    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        const struct load *load = &loads[i];
        uint64_t log_ns[RUN_COUNT];
        uint64_t bare_ns[RUN_COUNT];
        for (int run = 0; run < RUN_COUNT; run++) {
            log_ns[run] = run_log(directory_fd, load);
            bare_ns[run] = run_loop(directory_fd, load);
        }
        qsort(log_ns, RUN_COUNT, sizeof(uint64_t), compare);
        qsort(bare_ns, RUN_COUNT, sizeof(uint64_t), compare);
        const int middle = RUN_COUNT / 2;
        double log_ms = (double)log_ns[middle] / 1e6;
        double bare_ms = (double)bare_ns[middle] / 1e6;
        double size = (double)load->batch_count * load->entry_count * load->entry_size;
        printf("%-40s %9.1f ms %9.1f ms %10.1f %8.2f\n", load->name, log_ms, bare_ms,
               size / 1e3 / log_ms, log_ms / bare_ms);
    }
    remove_files(directory_fd);
    close(directory_fd);
    return 0;
}
