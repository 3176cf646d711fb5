#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "replica/directory.h"
#include "replica/wal_internal.h"

#define TEMPORARY_SUFFIX ".tmp"
enum { WIPE_SIZE = 1 << 16 };

// Places in a segment are 32 bits.
#define SEGMENT_SIZE_MAX ((uint64_t)1 << 31)

void wal_name(uint64_t number, char out[static WAL_NAME_SIZE])
{
    snprintf(out, WAL_NAME_SIZE, "wal-%016" PRIx64, number);
}

static enum status system_error(struct error *error, const char *what, const char *name, int number)
{
    bool is_full = number == ENOSPC || number == EDQUOT || number == EFBIG;
    return error_set(error, is_full ? STATUS_EXHAUSTED : STATUS_IO, "%s %s: %s", what, name,
                     error_system_text(number));
}

static bool write_all(const struct wal_writer *writer, int fd, struct span bytes, size_t offset)
{
    while (bytes.len > 0) {
        int64_t written = writer->files->write(fd, bytes.data, bytes.len, (int64_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return false;
        }
        bytes.data += written;
        bytes.len -= (size_t)written;
        offset += (size_t)written;
    }
    return true;
}

static struct wal_header make_header(uint64_t number)
{
    struct wal_header header = {.number = number};
    while ((uint32_t)header.salt == 0)
        rng_secure(&header.salt, sizeof(header.salt));
    return header;
}

static enum status write_header(const struct wal_writer *writer, int fd, const char *name,
                                const struct wal_header *header, struct error *error)
{
    uint8_t bytes[WAL_HEADER_SIZE];
    wal_header_encode(header, bytes);
    if (!write_all(writer, fd, (struct span){bytes, sizeof(bytes)}, 0))
        return system_error(error, "write", name, errno);
    if (writer->files->sync(fd) != 0)
        return system_error(error, "sync", name, errno);
    return STATUS_OK;
}

static enum status allocate(const struct wal_writer *writer, int fd, const char *name, size_t size,
                            struct error *error)
{
    int number = EINTR;
    while (number == EINTR)
        number = writer->files->allocate != NULL ? writer->files->allocate(fd, (int64_t)size)
                                                 : posix_fallocate(fd, 0, (off_t)size);
    return number == 0 ? STATUS_OK : system_error(error, "allocate", name, number);
}

static struct wal_segment *make_segment(const struct wal_header *header, int fd, size_t size)
{
    struct wal_segment *segment = mem_alloc(sizeof(*segment));
    segment->header = *header;
    segment->fd = fd;
    segment->size = size;
    segment->used = WAL_HEADER_SIZE;
    segment->synced = WAL_HEADER_SIZE;
    return segment;
}

enum status wal_segment_create(const struct wal_writer *writer, uint64_t number, size_t size,
                               struct error *error, struct wal_segment **out_segment)
{
    char name[WAL_NAME_SIZE];
    char temporary[WAL_NAME_SIZE + sizeof(TEMPORARY_SUFFIX)];
    wal_name(number, name);
    snprintf(temporary, sizeof(temporary), "%s" TEMPORARY_SUFFIX, name);
    int fd = openat(writer->directory_fd, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return system_error(error, "create", temporary, errno);
    struct wal_header header = make_header(number);
    enum status status = allocate(writer, fd, temporary, size, error);
    if (status == STATUS_OK)
        status = write_header(writer, fd, temporary, &header, error);
    if (status == STATUS_OK &&
        renameat(writer->directory_fd, temporary, writer->directory_fd, name) != 0)
        status = system_error(error, "rename", temporary, errno);
    if (status == STATUS_OK)
        status = directory_sync(writer->directory_fd, error);
    if (status != STATUS_OK) {
        close(fd);
        // Only a left-over; the next start removes it when this does not succeed.
        (void)unlinkat(writer->directory_fd, temporary, 0);
        return status;
    }
    *out_segment = make_segment(&header, fd, size);
    return STATUS_OK;
}

// The header first: a segment under the name of the oldest whose header has another number is known
// at the next start for one that was on its way to be something else.
enum status wal_segment_recycle(const struct wal_writer *writer, struct wal_segment *segment,
                                uint64_t number, struct error *error)
{
    char old_name[WAL_NAME_SIZE];
    char name[WAL_NAME_SIZE];
    wal_name(segment->header.number, old_name);
    wal_name(number, name);
    if (segment->fd < 0)
        segment->fd = openat(writer->directory_fd, old_name, O_RDWR | O_CLOEXEC);
    if (segment->fd < 0)
        return system_error(error, "open", old_name, errno);
    struct wal_header header = make_header(number);
    TRY(write_header(writer, segment->fd, old_name, &header, error));
    if (renameat(writer->directory_fd, old_name, writer->directory_fd, name) != 0)
        return system_error(error, "rename", old_name, errno);
    segment->header = header;
    segment->used = WAL_HEADER_SIZE;
    segment->synced = WAL_HEADER_SIZE;
    segment->dead_batch = 0;
    return directory_sync(writer->directory_fd, error);
}

enum status wal_segment_grow(const struct wal_writer *writer, struct wal_segment *segment,
                             size_t size, struct error *error)
{
    char name[WAL_NAME_SIZE];
    wal_name(segment->header.number, name);
    TRY(allocate(writer, segment->fd, name, size, error));
    if (writer->files->sync(segment->fd) != 0)
        return system_error(error, "sync", name, errno);
    segment->size = size;
    return STATUS_OK;
}

static enum status read_bytes(int fd, size_t offset, uint8_t *out, size_t size, const char *name,
                              struct error *error)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, out + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return system_error(error, "read", name, errno);
        if (got == 0)
            return error_set(error, STATUS_CORRUPT, "%s: ends at byte %zu", name, offset + done);
        done += (size_t)got;
    }
    return STATUS_OK;
}

enum status wal_segment_open(int directory_fd, uint64_t number, struct error *error,
                             struct buf *bytes, struct wal_segment **out_segment)
{
    char name[WAL_NAME_SIZE];
    wal_name(number, name);
    int fd = openat(directory_fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return system_error(error, "open", name, errno);
    struct stat info;
    struct wal_header header;
    uint8_t *room = NULL;
    enum status status = STATUS_OK;
    if (fstat(fd, &info) != 0)
        status = system_error(error, "stat", name, errno);
    else if (info.st_size > (int64_t)SEGMENT_SIZE_MAX)
        status = error_set(error, STATUS_CORRUPT, "%s: too large for a segment", name);
    else if ((room = buf_reserve(bytes, (size_t)info.st_size)) == NULL)
        status = error_set(error, STATUS_EXHAUSTED, "%s: no memory to read it", name);
    else
        status = read_bytes(fd, 0, room, (size_t)info.st_size, name, error);
    if (status == STATUS_OK) {
        buf_commit(bytes, (size_t)info.st_size);
        status = wal_header_decode(buf_span(bytes), error, &header);
        if (status != STATUS_OK)
            status = error_prefix(error, status, "%s", name);
    }
    if (status != STATUS_OK)
        close(fd);
    else
        *out_segment = make_segment(&header, fd, (size_t)info.st_size);
    return status;
}

enum status wal_segment_read(int directory_fd, struct wal_segment *segment, size_t offset,
                             uint8_t *out, size_t size, struct error *error)
{
    char name[WAL_NAME_SIZE];
    wal_name(segment->header.number, name);
    if (segment->fd < 0)
        segment->fd = openat(directory_fd, name, O_RDWR | O_CLOEXEC);
    if (segment->fd < 0)
        return system_error(error, "open", name, errno);
    return read_bytes(segment->fd, offset, out, size, name, error);
}

enum status wal_segment_wipe(const struct wal_writer *writer, const struct wal_segment *segment,
                             size_t offset, struct error *error)
{
    static const uint8_t zeros[WIPE_SIZE];
    char name[WAL_NAME_SIZE];
    wal_name(segment->header.number, name);
    while (offset < segment->size) {
        size_t left = segment->size - offset;
        struct span part = {zeros, left < WIPE_SIZE ? left : WIPE_SIZE};
        if (!write_all(writer, segment->fd, part, offset))
            return system_error(error, "write", name, errno);
        offset += part.len;
    }
    if (writer->files->sync(segment->fd) != 0)
        return system_error(error, "sync", name, errno);
    return STATUS_OK;
}

enum status wal_segment_remove(const struct wal_writer *writer, const struct wal_segment *segment,
                               struct error *error)
{
    char name[WAL_NAME_SIZE];
    wal_name(segment->header.number, name);
    TRY(directory_remove_file(writer->directory_fd, name, error));
    return directory_sync(writer->directory_fd, error);
}

void wal_segment_destroy(struct wal_segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->fd >= 0)
        close(segment->fd);
    mem_free(segment);
}
