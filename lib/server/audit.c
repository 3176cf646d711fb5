#include "server/audit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/audit_internal.h"

enum {
    FOLDER_SIZE_MAX = 3900,
    PATH_SIZE = 4096,
    FILE_SIZE_MAX = 16 << 20,
    FILES_KEPT = 8, // besides the one that is written
    FILES_SEEN_MAX = 64,
    LINE_BUFFER_SIZE = 4096,
};

struct audit {
    pthread_mutex_t lock; // of the rest
    char folder[FOLDER_SIZE_MAX + 1];
    int file;
    uint64_t size;
    uint64_t first_sequence; // of the file that is written
    struct audit_chain chain;
};

// --- Names

static void current_path(const struct audit *audit, char out_path[static PATH_SIZE])
{
    (void)snprintf(out_path, PATH_SIZE, "%s/audit.log", audit->folder);
}

static void old_path(const struct audit *audit, uint64_t first, char out_path[static PATH_SIZE])
{
    (void)snprintf(out_path, PATH_SIZE, "%s/audit-%020llu.log", audit->folder,
                   (unsigned long long)first);
}

static int compare_numbers(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    return (*x > *y) - (*x < *y);
}

// The first events of the files that were put aside, in order; the oldest are left out when there
// are very many.
static uint32_t list_old(const struct audit *audit, uint64_t out_first[static FILES_SEEN_MAX])
{
    uint32_t count = 0;
    DIR *folder = opendir(audit->folder);
    if (folder == NULL)
        return 0;
    for (;;) {
        const struct dirent *entry = readdir(folder); // NOLINT(concurrency-mt-unsafe): its own DIR
        if (entry == NULL)
            break;
        struct str name = str_from_cstr(entry->d_name);
        struct str rest = name;
        struct str number = {0};
        uint64_t first = 0;
        if (!str_starts_with(name, STR("audit-")) || name.len != strlen("audit-.log") + 20)
            continue;
        (void)str_cut(&rest, '-');
        number = str_cut(&rest, '.');
        if (!str_equal_cstr(rest, "log") || !str_to_u64(number, &first))
            continue;
        if (count == FILES_SEEN_MAX) {
            qsort(out_first, count, sizeof(*out_first), compare_numbers);
            memmove(out_first, out_first + 1, sizeof(*out_first) * --count);
        }
        out_first[count++] = first;
    }
    closedir(folder);
    qsort(out_first, count, sizeof(*out_first), compare_numbers);
    return count;
}

// --- Opening

static enum status make_folder(const struct audit *audit, struct error *error)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s", audit->folder);
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return error_set(error, STATUS_IO, "cannot make the folder %s: %s", path,
                             error_system_text(errno));
        if (slash == NULL)
            return STATUS_OK;
        *slash = '/';
    }
}

static enum status open_current(struct audit *audit, struct error *error)
{
    char path[PATH_SIZE];
    current_path(audit, path);
    audit->file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (audit->file < 0)
        return error_set(error, STATUS_IO, "cannot open %s: %s", path, error_system_text(errno));
    return STATUS_OK;
}

static enum status put_aside(struct audit *audit, struct error *error)
{
    char from[PATH_SIZE];
    char to[PATH_SIZE];
    uint64_t old[FILES_SEEN_MAX];
    current_path(audit, from);
    old_path(audit, audit->first_sequence, to);
    if (audit->file >= 0)
        (void)close(audit->file); // a failure was seen by write
    audit->file = -1;
    if (rename(from, to) != 0)
        return error_set(error, STATUS_IO, "cannot rename %s: %s", from, error_system_text(errno));
    uint32_t count = list_old(audit, old);
    for (uint32_t i = 0; i + FILES_KEPT < count; i++) {
        old_path(audit, old[i], to);
        (void)unlink(to); // tried again the next time
    }
    audit->size = 0;
    audit->first_sequence = audit->chain.sequence + 1;
    return open_current(audit, error);
}

// Where the chain of the files that were put aside ends.
static void find_end_of_old(struct audit *audit)
{
    uint64_t old[FILES_SEEN_MAX];
    char path[PATH_SIZE];
    struct error ignored = {0};
    uint32_t count = list_old(audit, old);
    if (count == 0)
        return;
    old_path(audit, old[count - 1], path);
    struct audit_chain chain = {0};
    if (audit_check_file(path, &chain, &ignored) == STATUS_OK && chain.count > 0)
        audit->chain = chain;
    else
        audit->chain.sequence = old[count - 1] + chain.count; // a new chain, behind all numbers
}

static enum status note_first(struct str line, uint64_t number, void *context, struct error *error)
{
    uint64_t *first = context;
    struct audit_event event;
    struct str previous;
    if (number == 1 && audit_line_decode(line, error, &event, &previous) == STATUS_OK)
        *first = event.sequence;
    return STATUS_OK;
}

static enum status start_new_chain(struct audit *audit, const struct audit_chain *broken,
                                   struct error *error)
{
    if (broken->sequence > audit->chain.sequence)
        audit->chain.sequence = broken->sequence;
    audit->chain.hash[0] = '\0';
    // A number that no file has, however the old one's lines read.
    audit->first_sequence = audit->chain.sequence + 1;
    audit->chain.sequence++;
    return put_aside(audit, error);
}

// What stands in the file is checked; a cut last line goes.
static enum status take_over(struct audit *audit, struct error *error)
{
    char path[PATH_SIZE];
    struct error reason = {0};
    struct audit_chain chain = audit->chain;
    struct audit_lines lines = {.each = note_first, .context = &audit->first_sequence};
    audit->first_sequence = audit->chain.sequence + 1;
    current_path(audit, path);
    enum status status = audit_read_lines(path, &lines, error);
    if (status == STATUS_NOT_FOUND)
        return open_current(audit, error);
    if (status != STATUS_OK && status != STATUS_CORRUPT)
        return status;
    if (status == STATUS_OK && lines.tail_offset != lines.size &&
        truncate(path, (off_t)lines.tail_offset) != 0)
        return error_set(error, STATUS_IO, "cannot cut %s: %s", path, error_system_text(errno));
    chain.count = 0;
    if (status != STATUS_OK || audit_check_file(path, &chain, &reason) != STATUS_OK)
        return start_new_chain(audit, &chain, error);
    audit->chain = chain;
    audit->size = lines.tail_offset;
    return open_current(audit, error);
}

enum status audit_open(struct str folder, struct error *error, struct audit **out_audit)
{
    if (folder.len == 0 || folder.len > FOLDER_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "the audit log's folder has a path of %zu bytes",
                         folder.len);
    struct audit *audit = mem_alloc(sizeof(*audit));
    pthread_mutex_init(&audit->lock, NULL);
    memcpy(audit->folder, folder.data, folder.len);
    audit->folder[folder.len] = '\0';
    audit->file = -1;
    enum status status = make_folder(audit, error);
    if (status == STATUS_OK) {
        find_end_of_old(audit);
        status = take_over(audit, error);
    }
    if (status != STATUS_OK) {
        audit_close(audit);
        return status;
    }
    *out_audit = audit;
    return STATUS_OK;
}

void audit_close(struct audit *audit)
{
    if (audit == NULL)
        return;
    if (audit->file >= 0)
        (void)close(audit->file); // a failure was seen by write
    pthread_mutex_destroy(&audit->lock);
    mem_free(audit);
}

// --- Writing

// A line that is not written whole is taken back, so that the next one does not stand behind half
// of it.
static enum status write_line(struct audit *audit, struct span line, struct error *error)
{
    ssize_t written = write(audit->file, line.data, line.len);
    if (written == (ssize_t)line.len)
        return STATUS_OK;
    int reason = written < 0 ? errno : ENOSPC;
    if (written > 0 && ftruncate(audit->file, (off_t)audit->size) != 0)
        reason = errno;
    return error_set(error, STATUS_IO, "cannot write the audit log: %s", error_system_text(reason));
}

static enum status add(struct audit *audit, const struct audit_event *event, struct error *error)
{
    struct buf line;
    char hash[AUDIT_HASH_SIZE + 1];
    struct audit_event numbered = *event;
    if (audit->size >= FILE_SIZE_MAX)
        TRY(put_aside(audit, error));
    if (audit->file < 0) // putting aside went wrong the last time
        TRY(open_current(audit, error));
    numbered.sequence = audit->chain.sequence + 1;
    numbered.time_unix_ms = clock_unix_ms();
    buf_init(&line, LINE_BUFFER_SIZE);
    audit_line_encode(&line, &numbered, audit->chain.hash, hash);
    struct span bytes = buf_span(&line);
    enum status status = write_line(audit, bytes, error);
    if (status == STATUS_OK) {
        audit->size += bytes.len;
        audit->chain.sequence = numbered.sequence;
        memcpy(audit->chain.hash, hash, sizeof(hash));
    }
    buf_deinit(&line);
    return status;
}

enum status audit_add(struct audit *audit, const struct audit_event *event, struct error *error)
{
    pthread_mutex_lock(&audit->lock);
    enum status status = add(audit, event, error);
    pthread_mutex_unlock(&audit->lock);
    return status;
}

// --- Reading

struct selection {
    uint64_t after;
    uint32_t limit;
    struct arena *arena;
    struct audit_event *events;
    uint32_t count;
};

// A line that does not read is for audit_check_file; here it is left out.
static enum status select_line(struct str line, uint64_t number, void *context, struct error *error)
{
    (void)number;
    struct selection *selection = context;
    struct audit_event event;
    struct str previous;
    struct error ignored;
    if (selection->count == selection->limit)
        return error_set(error, STATUS_CANCELLED, "enough");
    struct str rest = line;
    (void)str_cut(&rest, ':');
    uint64_t sequence = 0;
    if (!str_to_u64(str_cut(&rest, ','), &sequence) || sequence <= selection->after)
        return STATUS_OK;
    struct str kept = arena_str(selection->arena, line);
    if (audit_line_decode(kept, &ignored, &event, &previous) == STATUS_OK)
        selection->events[selection->count++] = event;
    return STATUS_OK;
}

static enum status select_file(const char *path, struct selection *selection, struct error *error)
{
    struct audit_lines lines = {.each = select_line, .context = selection};
    enum status status = audit_read_lines(path, &lines, error);
    // Enough; gone since; a torn or foreign rest.
    if (status == STATUS_CANCELLED || status == STATUS_NOT_FOUND || status == STATUS_CORRUPT)
        return STATUS_OK;
    return status;
}

enum status audit_read(struct audit *audit, uint64_t after, uint32_t limit, struct arena *arena,
                       struct error *error, struct audit_page *out_page)
{
    char path[PATH_SIZE];
    uint64_t old[FILES_SEEN_MAX];
    struct selection selection = {.after = after, .arena = arena};
    selection.limit = limit < AUDIT_PAGE_MAX ? limit : AUDIT_PAGE_MAX;
    selection.events = arena_alloc(arena, sizeof(*selection.events) * (selection.limit + 1));
    pthread_mutex_lock(&audit->lock); // a file that is put aside meanwhile would be read twice
    uint32_t count = list_old(audit, old);
    enum status status = STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < count; i++) {
        bool is_before =
            i + 1 < count ? old[i + 1] <= after + 1 : audit->first_sequence <= after + 1;
        old_path(audit, old[i], path);
        if (!is_before)
            status = select_file(path, &selection, error);
    }
    current_path(audit, path);
    if (status == STATUS_OK)
        status = select_file(path, &selection, error);
    pthread_mutex_unlock(&audit->lock);
    if (status == STATUS_OK)
        *out_page = (struct audit_page){selection.events, selection.count};
    return status;
}
