#include "worker/data_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"

enum { FILE_PATH_SIZE = 4200, PATH_SIZE_MAX = 4000 };

static enum status fail_io(struct error *error, const char *what, const char *path)
{
    int number = errno;
    return error_set(error, STATUS_IO, "%s %s: %s", what, path, error_system_text(number));
}

static enum status make_folders(const char *path, struct error *error)
{
    char part[FILE_PATH_SIZE];
    size_t size = strlen(path);
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return fail_io(error, "make", part);
    }
    return STATUS_OK;
}

static enum status lock(struct data_folder *folder, struct error *error)
{
    char path[FILE_PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/worker.lock", folder->path);
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (folder->lock < 0)
        return fail_io(error, "open", path);
    if (flock(folder->lock, LOCK_EX | LOCK_NB) == 0)
        return STATUS_OK;
    if (errno == EWOULDBLOCK)
        return error_set(error, STATUS_IO, "data-dir %s is in use by another worker", folder->path);
    return fail_io(error, "lock", path);
}

static bool is_identity(const char *text, ssize_t size)
{
    for (ssize_t i = 0; i < size; i++) {
        if (strchr("0123456789abcdef", text[i]) == NULL || text[i] == '\0')
            return false;
    }
    return size == IDENTITY_SIZE;
}

static enum status sync_folder(const char *path, struct error *error)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status status = STATUS_OK;
    if (folder < 0 || fsync(folder) != 0)
        status = fail_io(error, "sync", path);
    if (folder >= 0)
        (void)close(folder);
    return status;
}

// Put in place whole: a file that is there is complete.
static enum status make_identity(struct data_folder *folder, const char *path, struct error *error)
{
    uint8_t bytes[IDENTITY_SIZE / 2];
    char fresh[FILE_PATH_SIZE + 8];
    rng_secure(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(folder->identity + 2 * i, 3, "%02x", bytes[i]);
    (void)snprintf(fresh, sizeof(fresh), "%s.new", path);
    int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return fail_io(error, "make", fresh);
    bool is_written =
        write(file, folder->identity, IDENTITY_SIZE) == IDENTITY_SIZE && fsync(file) == 0;
    enum status status = is_written ? STATUS_OK : fail_io(error, "write", fresh);
    (void)close(file);
    if (status == STATUS_OK && rename(fresh, path) != 0)
        status = fail_io(error, "rename", fresh);
    return status == STATUS_OK ? sync_folder(folder->path, error) : status;
}

static enum status read_identity(struct data_folder *folder, struct error *error)
{
    char path[FILE_PATH_SIZE];
    char text[IDENTITY_SIZE + 1];
    (void)snprintf(path, sizeof(path), "%s/identity", folder->path);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return errno == ENOENT ? make_identity(folder, path, error) : fail_io(error, "open", path);
    ssize_t size = read(file, text, sizeof(text));
    (void)close(file);
    if (!is_identity(text, size))
        return error_set(error, STATUS_CORRUPT, "%s is not %d hexadecimal digits", path,
                         IDENTITY_SIZE);
    memcpy(folder->identity, text, IDENTITY_SIZE);
    return STATUS_OK;
}

enum status data_folder_open(struct data_folder *folder, struct str path, struct error *error)
{
    *folder = (struct data_folder){.lock = -1};
    if (path.len == 0 || path.len > PATH_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "data-dir has %zu bytes; 1 to %d are possible",
                         path.len, PATH_SIZE_MAX);
    folder->path = mem_alloc(path.len + 1);
    memcpy(folder->path, path.data, path.len);
    TRY(make_folders(folder->path, error));
    TRY(lock(folder, error));
    return read_identity(folder, error);
}

void data_folder_close(struct data_folder *folder)
{
    if (folder->lock >= 0)
        (void)close(folder->lock);
    mem_free(folder->path);
    *folder = (struct data_folder){.lock = -1};
}
