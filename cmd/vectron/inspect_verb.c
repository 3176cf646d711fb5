// `vectron inspect`: what is in a file of ours, and whether it is whole. Reads only, and opens no
// folder as a service would, so it may be used on a copy, and on a folder that somebody has open.
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "index/image.h"
#include "placementdriver/inspect.h"
#include "replica/inspect.h"
#include "replica/snapshot_format.h"
#include "vectron/verb.h"

enum { PATHS_MAX = 256 };
#define FILE_SIZE_MAX ((size_t)4 << 30)
#define TEXT_SIZE_MAX ((size_t)1 << 30)

static const struct setting inspect_settings[] = {
    {"records", NULL, SETTING_BOOL, false, "false", "print each record of the log too"},
};

static const char *const distances[] = {"cosine", "euclidean", "dot"};

static enum status read_file(const char *path, struct buf *out, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : 1;
    while (size > 0) {
        uint8_t *room = buf_reserve(out, 1 << 20);
        if (room == NULL) {
            close(fd);
            return error_set(error, STATUS_EXHAUSTED, "larger than %zu bytes", FILE_SIZE_MAX);
        }
        size = read(fd, room, 1 << 20);
        if (size > 0)
            buf_commit(out, (size_t)size);
    }
    int number = errno;
    if (fd >= 0)
        close(fd);
    return size < 0 ? error_set(error, STATUS_IO, "%s", error_system_text(number)) : STATUS_OK;
}

static enum status inspect_snapshot(struct span bytes, struct buf *out, struct error *error)
{
    uint64_t index;
    struct span state;
    TRY(snapshot_decode(bytes, error, &index, &state));
    buf_append_format(out, "snapshot up to index %llu, %zu bytes of state\n",
                      (unsigned long long)index, state.len);
    return placementdriver_inspect(state, out, error);
}

static enum status inspect_image(struct span bytes, struct buf *out, struct error *error)
{
    struct index_image_info info;
    TRY(index_image_inspect(bytes, error, &info));
    buf_append_format(out, "graph image: dimension %u, %s, %u points in %u slots\n", info.dimension,
                      distances[info.distance], info.point_count, info.slot_count);
    return STATUS_OK;
}

static bool begins_with(struct span bytes, const char *magic)
{
    size_t size = strlen(magic);
    return bytes.len >= size && memcmp(bytes.data, magic, size) == 0;
}

// False: none of ours.
static bool inspect_bytes(struct span bytes, bool has_records, struct buf *out,
                          enum status *out_status, struct error *error)
{
    if (log_segment_is(bytes))
        *out_status = log_segment_inspect(bytes, has_records, out, error);
    else if (begins_with(bytes, "VECTSNAP"))
        *out_status = inspect_snapshot(bytes, out, error);
    else if (begins_with(bytes, "VGI1"))
        *out_status = inspect_image(bytes, out, error);
    else
        return false;
    return true;
}

struct counts {
    uint32_t whole;
    uint32_t damaged;
};

// is_named: on the command line, so that it must be one of ours.
static enum status inspect_file(struct session *session, const char *path, bool is_named,
                                struct counts *counts)
{
    struct buf bytes;
    struct buf text;
    struct error error = {{0}};
    bool has_records = config_bool(session->config, "records");
    buf_init(&bytes, FILE_SIZE_MAX);
    buf_init(&text, TEXT_SIZE_MAX);
    enum status status = read_file(path, &bytes, &error);
    bool is_ours =
        status != STATUS_OK || inspect_bytes(buf_span(&bytes), has_records, &text, &status, &error);
    if (is_ours) {
        printf("%s: %.*s", path, STR_ARG(buf_str(&text)));
        if (status != STATUS_OK)
            printf("%s%s: %s\n", text.len > 0 ? "  " : "", status_text(status), error.text);
        counts->whole += status == STATUS_OK;
        counts->damaged += status != STATUS_OK;
    }
    buf_deinit(&text);
    buf_deinit(&bytes);
    return is_ours || !is_named
               ? STATUS_OK
               : error_set(&session->error, STATUS_INVALID,
                           "%s is no segment of a log, no snapshot and no graph image", path);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

// The file, or those of ours in the folder and below it, in the order of their names.
static enum status inspect_path(struct session *session, char *path, struct counts *counts)
{
    char *const paths[] = {path, NULL};
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    enum status status = STATUS_OK;
    if (walk == NULL)
        return error_set(&session->error, STATUS_IO, "%s: %s", path, error_system_text(errno));
    for (const FTSENT *entry; status == STATUS_OK && (entry = fts_read(walk)) != NULL;) {
        if (entry->fts_info == FTS_F)
            status = inspect_file(session, entry->fts_path, entry->fts_level == 0, counts);
        else if (entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR)
            status = error_set(&session->error, STATUS_NOT_FOUND, "%s: %s", entry->fts_path,
                               error_system_text(entry->fts_errno));
    }
    (void)fts_close(walk);
    return status;
}

static enum status run_inspect(struct session *session)
{
    struct counts counts = {0};
    for (uint32_t i = 0; i < config_word_count(session->config); i++)
        TRY(inspect_path(session, session_word_cstr(session, i), &counts));
    if (counts.damaged > 0)
        return error_set(&session->error, STATUS_CORRUPT, "%u files are whole, %u are not",
                         counts.whole, counts.damaged);
    printf("%u files are whole\n", counts.whole);
    return STATUS_OK;
}

const struct verb inspect_verb = {
    "inspect",
    "PATH…",
    "check files of the log, snapshots and graph images, and print what they hold",
    inspect_settings,
    sizeof(inspect_settings) / sizeof(inspect_settings[0]),
    1,
    PATHS_MAX,
    run_inspect,
};
