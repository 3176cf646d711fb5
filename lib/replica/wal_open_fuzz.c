#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "replica/replica.h"
#include "replica/wal.h"
#include "replica/wal_format.h"

// Segments of records with right checksums in any order. Opening takes them for a log or says that
// they are none; a log can be read, written to, and is the same when it is opened again.

enum { SEGMENT_SIZE = 16384, OP_SIZE = 8, SEGMENT_COUNT_MAX = 4, GROUP_COUNT = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/wal_open_fuzz.XXXXXX";
static int directory_fd = -1;

static void require(bool holds)
{
    if (!holds)
        abort();
}

// --- Files, which need not survive anything

static int64_t plain_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

static int no_allocate(int fd, int64_t size)
{
    return ftruncate(fd, size) == 0 ? 0 : ENOSPC;
}

static const struct replica_files files = {plain_write, no_sync, no_allocate};

// Instead of the C library's, for the folder.
int fsync(int fd)
{
    return no_sync(fd);
}

static void remove_files(void)
{
    DIR *directory = opendir(folder);
    require(directory != NULL);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) { // NOLINT(concurrency-mt-unsafe): own stream
        if (entry->d_name[0] != '.')
            require(unlinkat(directory_fd, entry->d_name, 0) == 0);
    }
    closedir(directory);
}

static void remove_folder(void)
{
    remove_files();
    (void)rmdir(folder); // nobody is left to be told
}

// --- Segments

static void write_segment(uint64_t number, const struct buf *bytes)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "wal-%016llx", (unsigned long long)number); // fits
    int fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd >= 0 && ftruncate(fd, SEGMENT_SIZE) == 0);
    require(pwrite(fd, bytes->data, bytes->len, 0) == (ssize_t)bytes->len);
    close(fd);
}

static struct wal_header begin_segment(uint64_t number, struct buf *bytes)
{
    struct wal_header header = {number, number * 0x0101010101010101 + 77};
    uint8_t encoded[WAL_HEADER_SIZE];
    wal_header_encode(&header, encoded);
    buf_clear(bytes);
    buf_append(bytes, encoded, sizeof(encoded));
    return header;
}

// Small, or just before the largest: a table in between would be larger than the machine.
static uint64_t get_index(uint8_t byte)
{
    return byte < 250 ? byte : UINT64_MAX - (255 - byte);
}

static void put_record(const struct wal_header *header, const uint8_t *op, struct buf *bytes)
{
    static const uint8_t zeros[256];
    struct wal_record record = {.kind = (enum wal_kind)(op[0] % WAL_END + 1),
                                .group_id = op[1] % GROUP_COUNT,
                                .index = get_index(op[2]),
                                .term = op[3],
                                .data = {zeros, op[6]}};
    struct wal_snapshot snapshot = {.first_index = get_index(op[4]),
                                    .last_index = get_index(op[5]),
                                    .configuration = {zeros, op[6]}};
    bool is_snapshot = record.kind == WAL_SNAPSHOT && op[7] % 8 != 0;
    wal_record_encode(header, &record, is_snapshot ? &snapshot : NULL, bytes);
}

// Eight bytes are a record; one that ends a segment begins the next one.
static void write_segments(const uint8_t *data, size_t size)
{
    struct buf bytes;
    buf_init(&bytes, SIZE_MAX);
    uint64_t number = 1 + (size > 0 ? data[0] % 3 : 0);
    uint64_t last_number = number + SEGMENT_COUNT_MAX - 1;
    struct wal_header header = begin_segment(number, &bytes);
    for (size_t at = 0; at + OP_SIZE <= size && number <= last_number; at += OP_SIZE) {
        const uint8_t *op = data + at;
        if (bytes.len + 512 > SEGMENT_SIZE)
            break;
        put_record(&header, op, &bytes);
        if (op[0] % WAL_END + 1 == WAL_END) {
            write_segment(number, &bytes);
            number++;
            header = begin_segment(number, &bytes);
        }
    }
    if (number <= last_number)
        write_segment(number, &bytes);
    buf_deinit(&bytes);
}

// --- The log

static enum status open_log(struct wal **out_wal)
{
    struct error error;
    struct wal_options options = {.directory_fd = directory_fd,
                                  .files = &files,
                                  .segment_size = SEGMENT_SIZE,
                                  .size_max = (size_t)2 * SEGMENT_SIZE};
    return wal_open(&options, &error, out_wal);
}

static uint32_t digest(uint32_t before, uint64_t value)
{
    return crc32c(before, &value, sizeof(value));
}

static uint32_t read_group(struct wal_group *group)
{
    struct error error;
    struct buf data;
    buf_init(&data, SIZE_MAX);
    struct wal_state state;
    wal_state(group, &state);
    require(state.first_index <= state.snapshot_index + 1);
    require(state.last_index >= state.snapshot_index);
    uint32_t result = digest(0, state.term);
    result = digest(result, state.voted_for);
    result = digest(result, state.snapshot_index);
    result = digest(result, state.first_index);
    result = digest(result, state.last_index);
    for (uint64_t i = 0; i < state.last_index - state.first_index + 1; i++) {
        uint64_t term;
        uint8_t kind;
        uint32_t size;
        buf_clear(&data);
        require(wal_entry_info(group, state.first_index + i, &term, &kind, &size));
        require(wal_read(group, state.first_index + i, &data, &error) == STATUS_OK);
        require(data.len == size);
        result = digest(digest(result, term), size);
    }
    buf_deinit(&data);
    return result;
}

static uint32_t read_all(struct wal *wal)
{
    uint32_t result = 0;
    for (uint64_t id = 0; id < GROUP_COUNT; id++) {
        struct wal_group *group = wal_find(wal, id);
        if (group != NULL)
            result = digest(digest(result, id), read_group(group));
    }
    return result;
}

// Through some segments, so that old ones are copied and go.
static void write_more(struct wal *wal)
{
    static const uint8_t zeros[1000];
    struct wal_entry entry = {1, 1, {zeros, sizeof(zeros)}};
    struct wal_group *group = wal_find(wal, GROUP_COUNT);
    if (group == NULL)
        group = wal_add(wal, GROUP_COUNT);
    struct wal_state state;
    wal_state(group, &state);
    for (uint64_t index = state.last_index + 1; index <= state.last_index + 60; index++) {
        wal_put_entries(group, index, &entry, 1);
        wal_put_snapshot(group, index, 1, (struct span){NULL, 0}, 0, index);
        uint64_t batch = wal_flush(wal);
        while (wal_written(wal) < batch)
            usleep(1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (directory_fd < 0) {
        require(mkdtemp(folder) != NULL && atexit(remove_folder) == 0);
        directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        require(directory_fd >= 0);
    }
    remove_files();
    write_segments(data, size);
    struct wal *wal = NULL;
    enum status status = open_log(&wal);
    require(status == STATUS_OK || status == STATUS_CORRUPT);
    if (status != STATUS_OK)
        return 0;
    uint32_t found = read_all(wal);
    wal_close(wal);
    require(open_log(&wal) == STATUS_OK && read_all(wal) == found);
    write_more(wal);
    require(read_all(wal) == found);
    wal_close(wal);
    require(open_log(&wal) == STATUS_OK && read_all(wal) == found);
    wal_close(wal);
    return 0;
}
