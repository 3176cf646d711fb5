#include "replica/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define TEMPORARY_SUFFIX ".tmp"
#define LOCK_NAME        "lock"
enum { NAME_SIZE_MAX = 64, READ_SIZE = 1 << 20, NUMBER_DIGITS = 16 };

static enum status system_error(struct error *error, const char *what, const char *name)
{
    return error_set(error, STATUS_IO, "%s %s: %s", what, name, error_system_text(errno));
}

static enum status make_path(const char *path, struct error *error)
{
    char part[PATH_MAX];
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof(part))
        return error_set(error, STATUS_INVALID, "the directory's name has %zu bytes", size);
    for (size_t i = 1; i <= size; i++) {
        if (i < size && path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return system_error(error, "make directory", part);
    }
    return STATUS_OK;
}

enum status directory_open(const char *path, struct error *error, int *out_fd, int *out_lock_fd)
{
    TRY(make_path(path, error));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return system_error(error, "open directory", path);
    int lock_fd = openat(fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock_fd < 0) {
        enum status status = system_error(error, "open", LOCK_NAME);
        close(fd);
        return status;
    }
    if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
        enum status status =
            errno == EWOULDBLOCK
                ? error_set(error, STATUS_PRECONDITION, "%s is in use by another process", path)
                : system_error(error, "lock", path);
        close(lock_fd);
        close(fd);
        return status;
    }
    *out_fd = fd;
    *out_lock_fd = lock_fd;
    return STATUS_OK;
}

enum status directory_read_file(int directory_fd, const char *name, struct error *error,
                                struct buf *out)
{
    int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT)
            return error_set(error, STATUS_NOT_FOUND, "%s does not exist", name);
        return system_error(error, "open", name);
    }
    enum status status = STATUS_OK;
    for (;;) {
        uint8_t *room = buf_reserve(out, READ_SIZE);
        if (room == NULL) {
            status = error_set(error, STATUS_EXHAUSTED, "%s is too large to be read", name);
            break;
        }
        ssize_t got = read(fd, room, READ_SIZE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = system_error(error, "read", name);
        if (got <= 0)
            break;
        buf_commit(out, (size_t)got);
    }
    close(fd);
    return status;
}

static bool write_all(int fd, struct span bytes)
{
    while (bytes.len > 0) {
        ssize_t written = write(fd, bytes.data, bytes.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes.data += written;
        bytes.len -= (size_t)written;
    }
    return true;
}

enum status directory_write_file(int directory_fd, const char *name, struct span head,
                                 struct span body, struct error *error)
{
    char temporary[NAME_SIZE_MAX];
    snprintf(temporary, sizeof(temporary), "%s" TEMPORARY_SUFFIX, name);
    int fd = openat(directory_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return system_error(error, "create", temporary);
    enum status status = STATUS_OK;
    if (!write_all(fd, head) || !write_all(fd, body))
        status = system_error(error, "write", temporary);
    else if (fsync(fd) != 0)
        status = system_error(error, "sync", temporary);
    if (close(fd) != 0 && status == STATUS_OK)
        status = system_error(error, "close", temporary);
    if (status == STATUS_OK && renameat(directory_fd, temporary, directory_fd, name) != 0)
        status = system_error(error, "rename", temporary);
    if (status != STATUS_OK) {
        // Only a left-over; the next start removes it when this does not succeed.
        (void)unlinkat(directory_fd, temporary, 0);
        return status;
    }
    return directory_sync(directory_fd, error);
}

enum status directory_remove_file(int directory_fd, const char *name, struct error *error)
{
    if (unlinkat(directory_fd, name, 0) != 0 && errno != ENOENT)
        return system_error(error, "remove", name);
    return STATUS_OK;
}

enum status directory_sync(int directory_fd, struct error *error)
{
    if (fsync(directory_fd) != 0)
        return error_set(error, STATUS_IO, "sync directory: %s", error_system_text(errno));
    return STATUS_OK;
}

static bool parse_number(const char *name, const char *prefix, uint64_t *out_number)
{
    size_t prefix_size = strlen(prefix);
    if (strncmp(name, prefix, prefix_size) != 0 || strlen(name) != prefix_size + NUMBER_DIGITS)
        return false;
    uint64_t number = 0;
    for (const char *digit = name + prefix_size; *digit != '\0'; digit++) {
        const char *digits = "0123456789abcdef";
        const char *found = strchr(digits, *digit);
        if (found == NULL)
            return false;
        number = number << 4 | (uint64_t)(found - digits);
    }
    *out_number = number;
    return true;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

enum status directory_list_numbers(int directory_fd, const char *prefix, struct error *error,
                                   uint64_t **out_numbers, size_t *out_count)
{
    int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        if (fd >= 0)
            close(fd);
        return system_error(error, "list", "directory");
    }
    uint64_t *numbers = NULL;
    size_t count = 0;
    struct dirent *entry;
    // readdir is safe here: the stream belongs to this call alone.
    while ((entry = readdir(directory)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        struct str name = str_from_cstr(entry->d_name);
        if (str_ends_with(name, STR(TEMPORARY_SUFFIX))) {
            (void)unlinkat(directory_fd, entry->d_name, 0); // a left-over harms nobody
            continue;
        }
        uint64_t number;
        if (!parse_number(entry->d_name, prefix, &number))
            continue;
        numbers = mem_resize(numbers, (count + 1) * sizeof(*numbers));
        numbers[count++] = number;
    }
    closedir(directory);
    if (count > 1)
        qsort(numbers, count, sizeof(*numbers), compare_numbers);
    *out_numbers = numbers;
    *out_count = count;
    return STATUS_OK;
}
