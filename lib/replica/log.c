#include "replica/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "replica/directory.h"

#define LOG_PREFIX "log-"
enum { LOG_NAME_SIZE = 32 };

// A file grows past log_size_max only while snapshots fail, i.e. while the disk is full.
#define LOG_FILE_SIZE_MAX ((size_t)4 << 30)

static void log_name(uint64_t first_index, char out[static LOG_NAME_SIZE])
{
    snprintf(out, LOG_NAME_SIZE, LOG_PREFIX "%016" PRIx64, first_index);
}

// What is on disk is unknown now, and the kernel may have dropped the pages that it could not
// write: trying again could succeed without anything having been written.
static void stop_process(const char *what) __attribute__((noreturn, cold));
static void stop_process(const char *what)
{
    fprintf(stderr, "%s failed: %s; stopping, because what is on disk is unknown\n", what,
            error_system_text(errno));
    abort();
}

static enum status create_file(struct log *log, uint64_t first_index, struct error *error)
{
    char name[LOG_NAME_SIZE];
    log_name(first_index, name);
    struct log_header header = {.first_index = first_index};
    rng_secure(&header.salt, sizeof(header.salt));
    uint8_t encoded[LOG_HEADER_SIZE];
    log_header_encode(&header, encoded);
    struct span head = {encoded, sizeof(encoded)};
    TRY(directory_write_file(log->directory_fd, name, head, (struct span){0}, error));

    int fd = openat(log->directory_fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, STATUS_IO, "open %s: %s", name, error_system_text(errno));
    log_close(log);
    log->fd = fd;
    log->header = header;
    log->size = LOG_HEADER_SIZE;
    log->next_index = first_index;
    return STATUS_OK;
}

// Open the newest file behind its last whole record, without what may follow.
static enum status open_newest(struct log *log, const char *name, const struct log_reader *reader,
                               struct error *error)
{
    log->fd = openat(log->directory_fd, name, O_RDWR | O_CLOEXEC);
    if (log->fd < 0)
        return error_set(error, STATUS_IO, "open: %s", error_system_text(errno));
    if (reader->offset < reader->bytes.len && ftruncate(log->fd, (off_t)reader->offset) != 0)
        return error_set(error, STATUS_IO, "cut at byte %zu: %s", reader->offset,
                         error_system_text(errno));
    // Also what was written but not synced before the stop: it counts from now on.
    if (log->files->sync(log->fd) != 0)
        return error_set(error, STATUS_IO, "sync: %s", error_system_text(errno));
    log->header = reader->header;
    log->size = reader->offset;
    return STATUS_OK;
}

struct recovery {
    uint64_t snapshot_index;
    void (*each)(uint64_t index, struct span command, void *context);
    void *context;
    bool is_newest;
};

static enum status read_file(struct log *log, const char *name, const struct recovery *recovery,
                             struct buf *bytes, struct error *error)
{
    TRY(directory_read_file(log->directory_fd, name, error, bytes));
    struct log_reader reader;
    TRY(log_reader_init(&reader, buf_span(bytes), error));
    if (reader.next_index > log->next_index)
        return error_set(error, STATUS_CORRUPT,
                         "starts at index %" PRIu64 ", %" PRIu64 " is missing", reader.next_index,
                         log->next_index);
    enum log_read result;
    struct span command;
    while ((result = log_reader_next(&reader, &command)) == LOG_READ_RECORD) {
        uint64_t index = reader.next_index - 1;
        if (index < log->next_index)
            continue; // in the snapshot
        recovery->each(index, command, recovery->context);
        log->next_index = index + 1;
    }
    if (result == LOG_READ_CORRUPT || (result == LOG_READ_TORN && !recovery->is_newest))
        return error_set(error, STATUS_CORRUPT,
                         "damaged at byte %zu, where index %" PRIu64
                         " should be; what follows was acknowledged",
                         reader.offset, reader.next_index);
    if (!recovery->is_newest)
        return STATUS_OK;
    if (reader.next_index != log->next_index)
        return error_set(error, STATUS_CORRUPT,
                         "ends before index %" PRIu64 ", which the snapshot has",
                         log->next_index - 1);
    return open_newest(log, name, &reader, error);
}

enum status log_open(struct log *log, uint64_t snapshot_index,
                     void (*each)(uint64_t index, struct span command, void *context),
                     void *context, struct error *error)
{
    log->fd = -1;
    log->next_index = snapshot_index + 1;
    uint64_t *numbers = NULL;
    size_t count = 0;
    TRY(directory_list_numbers(log->directory_fd, LOG_PREFIX, error, &numbers, &count));
    if (count == 0) {
        mem_free(numbers);
        if (snapshot_index > 0)
            return error_set(error, STATUS_CORRUPT, "there is a snapshot but no log");
        return create_file(log, 1, error);
    }

    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        struct recovery recovery = {snapshot_index, each, context, i + 1 == count};
        char name[LOG_NAME_SIZE];
        log_name(numbers[i], name);
        struct buf bytes;
        buf_init(&bytes, LOG_FILE_SIZE_MAX);
        status = read_file(log, name, &recovery, &bytes, error);
        if (status != STATUS_OK)
            status = error_prefix(error, status, "%s", name);
        buf_deinit(&bytes);
    }
    mem_free(numbers);
    return status;
}

void log_close(struct log *log)
{
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
}

void log_encode(const struct log *log, uint32_t position, struct span command, struct buf *batch)
{
    log_record_encode(&log->header, log->next_index + position, log->size, command, batch);
}

static bool write_batch(const struct log *log, struct span batch)
{
    uint64_t offset = log->size;
    while (batch.len > 0) {
        int64_t written = log->files->write(log->fd, batch.data, batch.len, (int64_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return false;
        }
        batch.data += written;
        batch.len -= (size_t)written;
        offset += (uint64_t)written;
    }
    return true;
}

enum status log_append(struct log *log, struct span batch, uint32_t count, struct error *error)
{
    if (!write_batch(log, batch)) {
        int number = errno;
        // A record of the batch that is whole must not come back after a restart: its proposer is
        // told that it was not applied.
        if (ftruncate(log->fd, (off_t)log->size) != 0)
            stop_process("ftruncate of the log");
        if (log->files->sync(log->fd) != 0)
            stop_process("fdatasync of the log");
        bool is_full = number == ENOSPC || number == EDQUOT || number == EFBIG;
        return error_set(error, is_full ? STATUS_EXHAUSTED : STATUS_IO, "write the log: %s",
                         error_system_text(number));
    }
    if (log->files->sync(log->fd) != 0)
        stop_process("fdatasync of the log");
    log->size += batch.len;
    log->next_index += count;
    return STATUS_OK;
}

enum status log_rotate(struct log *log, struct error *error)
{
    if (log->header.first_index == log->next_index)
        return STATUS_OK; // nothing in it
    uint64_t first_index = log->next_index;
    enum status status = create_file(log, first_index, error);
    if (status != STATUS_OK) {
        // Records that went on into the old file while a newer one lies there would look like
        // damage at the next start.
        char name[LOG_NAME_SIZE];
        log_name(first_index, name);
        if (faccessat(log->directory_fd, name, F_OK, 0) == 0)
            stop_process("rotation of the log");
        return status;
    }
    uint64_t *numbers = NULL;
    size_t count = 0;
    status = directory_list_numbers(log->directory_fd, LOG_PREFIX, error, &numbers, &count);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        char name[LOG_NAME_SIZE];
        log_name(numbers[i], name);
        if (numbers[i] < log->header.first_index)
            status = directory_remove_file(log->directory_fd, name, error);
    }
    mem_free(numbers);
    return status;
}
