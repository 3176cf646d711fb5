// `vectron import`: the points of a file, in requests that the server checks whole. A request that
// it refuses is cut down until the row is found that is to blame; that row goes into the report,
// the others are stored.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/mem.h"
#include "vectron/import_state.h"
#include "vectron/progress.h"
#include "vectron/rows.h"
#include "vectron/verb.h"

enum {
    BATCH_MAX = 10000,
    BATCH_SIZE_MAX = 64 << 20, // a request is sent when its rows take that much
    BATCH_ARENA_SIZE_MAX = 1 << 30,
    PATH_SIZE_MAX = 4096,
    IDS_SIZE_MAX = 1 << 29,
};

static const struct setting import_settings[] = {
    {"format", NULL, SETTING_STR, false, "", "jsonl, csv or npy; else as the file's name ends"},
    {"ids", NULL, SETTING_STR, false, "",
     "the ids of a .npy file's rows, one a line (else the rows' numbers)"},
    {"batch", NULL, SETTING_U64, false, "256", "points in one request, at most 10000"},
    {"retry-seconds", NULL, SETTING_U64, false, "30",
     "how long a request is tried again while the server cannot be reached or is over a limit"},
    {"restart", NULL, SETTING_BOOL, false, "false", "from the beginning, whatever was done before"},
};

struct refusal {
    uint64_t number;
    struct str reason;
};

struct import {
    struct session *session;
    struct arena *arena; // of the request that is being filled
    char *collection;
    const char *unit; // "line" or "row"
    uint32_t dimension;
    struct rows *rows;
    struct progress progress;
    struct import_state state;
    char state_path[PATH_SIZE_MAX];
    char report_path[PATH_SIZE_MAX];
    int report;
    Vectron__V1__Point **points;
    uint64_t *numbers; // of the points' rows
    size_t count;
    struct refusal *refusals;
    size_t refusal_count;
    size_t batch_max;
};

// --- Requests

static void refuse(struct import *import, uint64_t number)
{
    import->refusals[import->refusal_count++] = (struct refusal){
        number,
        arena_format(import->arena, "%s", import->session->error.text),
    };
}

// What would be refused anyway, found without asking.
static enum status check_point(const Vectron__V1__Point *point, uint32_t dimension,
                               struct error *error)
{
    if (point->id[0] == '\0')
        return error_set(error, STATUS_INVALID, "id: missing or empty");
    if (point->n_vector != dimension)
        return error_set(error, STATUS_INVALID,
                         "vector: %zu values, and the collection's dimension is %u",
                         point->n_vector, dimension);
    for (size_t i = 0; i < point->n_vector; i++) {
        if (!isfinite(point->vector[i]))
            return error_set(error, STATUS_INVALID, "vector: value %zu is not finite", i);
    }
    return STATUS_OK;
}

static enum status send_points(struct import *import, size_t start, size_t count)
{
    Vectron__V1__UpsertRequest request = VECTRON__V1__UPSERT_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.collection = import->collection;
    request.points = import->points + start;
    request.n_points = count;
    return session_call_data_patiently(import->session, "Upsert", &request.base,
                                       config_u64(import->session->config, "retry-seconds"),
                                       import->arena, &message);
}

// All points of the batch but those that the server refuses: a request that it refuses is halved,
// one that it takes is followed by a larger one.
static enum status send_batch(struct import *import)
{
    size_t start = 0;
    size_t size = import->count;
    while (start < import->count) {
        if (size > import->count - start)
            size = import->count - start;
        enum status status = send_points(import, start, size);
        if (status == STATUS_OK) {
            import->state.stored += size;
            start += size;
            size *= 2;
        } else if (status == STATUS_INVALID && size > 1) {
            size /= 2;
        } else if (status == STATUS_INVALID) {
            refuse(import, import->numbers[start]);
            start++;
        } else {
            return status;
        }
    }
    return STATUS_OK;
}

static int compare_refusals(const void *a, const void *b)
{
    const struct refusal *one = a;
    const struct refusal *other = b;
    return one->number < other->number ? -1 : one->number > other->number;
}

static enum status report_refusals(struct import *import)
{
    enum status status = STATUS_OK;
    struct buf text;
    buf_init(&text, SIZE_MAX);
    qsort(import->refusals, import->refusal_count, sizeof(struct refusal), compare_refusals);
    for (size_t i = 0; i < import->refusal_count; i++) {
        buf_append_format(&text, "%s %" PRIu64 ": ", import->unit, import->refusals[i].number);
        // One line each, whatever the row holds.
        for (size_t j = 0; j < import->refusals[i].reason.len; j++) {
            char byte = import->refusals[i].reason.data[j];
            buf_append_byte(&text, (uint8_t)byte < ' ' ? ' ' : (uint8_t)byte);
        }
        buf_append_byte(&text, '\n');
    }
    if (text.len > 0 && write(import->report, text.data, text.len) != (ssize_t)text.len)
        status = error_set(&import->session->error, STATUS_IO, "write %s: %s", import->report_path,
                           error_system_text(errno));
    import->state.report_size += text.len;
    import->state.refused += import->refusal_count;
    buf_deinit(&text);
    return status;
}

// Send what has come together and remember how far that is.
static enum status flush(struct import *import)
{
    TRY(send_batch(import));
    TRY(report_refusals(import));
    import->count = 0;
    import->refusal_count = 0;
    arena_reset(import->arena);
    import->state.position = rows_position(import->rows);
    progress_show(&import->progress, import->state.position.line);
    return import_state_save(import->state_path, &import->state, &import->session->error);
}

static enum status import_rows(struct import *import)
{
    struct error *error = &import->session->error;
    for (;;) {
        Vectron__V1__Point *point = NULL;
        enum status status = rows_next(import->rows, import->arena, error, &point);
        if (status == STATUS_NOT_FOUND)
            return flush(import);
        if (status == STATUS_OK)
            status = check_point(point, import->dimension, error);
        if (status == STATUS_OK) {
            import->numbers[import->count] = rows_number(import->rows);
            import->points[import->count++] = point;
        } else {
            refuse(import, rows_number(import->rows));
        }
        if (import->count + import->refusal_count == import->batch_max ||
            arena_size(import->arena) > BATCH_SIZE_MAX)
            TRY(flush(import));
    }
}

// --- Before and after

// Where the last run has come to, or the beginning.
static enum status find_state(struct import *import, struct span bytes)
{
    struct error *error = &import->session->error;
    struct import_state fresh = {.source_size = bytes.len,
                                 .source_crc = crc32c(0, bytes.data, bytes.len)};
    (void)snprintf(fresh.collection, sizeof(fresh.collection), "%s", import->collection);
    enum status status = STATUS_NOT_FOUND;
    if (!config_bool(import->session->config, "restart"))
        status = import_state_load(import->state_path, error, &import->state);
    if (status == STATUS_NOT_FOUND) {
        import->state = fresh;
        import->state.position = rows_position(import->rows);
        return STATUS_OK;
    }
    if (status == STATUS_OK && (strcmp(import->state.collection, fresh.collection) != 0 ||
                                import->state.source_size != fresh.source_size ||
                                import->state.source_crc != fresh.source_crc))
        status = error_set(error, STATUS_INVALID,
                           "%s is of another collection, or the file has changed since",
                           import->state_path);
    if (status == STATUS_OK)
        status = rows_seek(import->rows, import->state.position, error);
    if (status != STATUS_OK) {
        size_t used = strlen(error->text);
        (void)snprintf(error->text + used, sizeof(error->text) - used, "; --restart begins anew");
    }
    return status;
}

static enum status open_report(struct import *import)
{
    import->report = open(import->report_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    // What was reported after the last state was kept will be reported again.
    if (import->report < 0 || ftruncate(import->report, (off_t)import->state.report_size) != 0)
        return error_set(&import->session->error, STATUS_IO, "write %s: %s", import->report_path,
                         error_system_text(errno));
    return STATUS_OK;
}

static enum status find_dimension(struct import *import)
{
    Vectron__V1__GetCollectionStatusRequest request =
        VECTRON__V1__GET_COLLECTION_STATUS_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.name = import->collection;
    TRY(session_call_data(import->session, "GetCollectionStatus", &request.base,
                          import->session->arena, &message));
    const Vectron__V1__GetCollectionStatusResponse *response = (const void *)message;
    import->dimension = (uint32_t)response->dimension;
    uint32_t dimension = rows_dimension(import->rows);
    if (dimension != 0 && dimension != import->dimension)
        return error_set(&import->session->error, STATUS_INVALID,
                         "vectors of %u values, and the collection's dimension is %u", dimension,
                         import->dimension);
    return STATUS_OK;
}

static enum status finish(struct import *import)
{
    const struct import_state *state = &import->state;
    progress_end(&import->progress);
    (void)unlink(import->state_path); // left behind, it says that all is done
    if (state->refused == 0)
        (void)unlink(import->report_path); // empty
    if (import->session->is_json)
        printf("{\"stored\":%" PRIu64 ",\"refused\":%" PRIu64 "}\n", state->stored, state->refused);
    else
        printf("%" PRIu64 " points stored in %s, %" PRIu64 " rows refused\n", state->stored,
               import->collection, state->refused);
    if (state->refused > 0)
        return error_set(&import->session->error, STATUS_INVALID,
                         "%" PRIu64 " of %" PRIu64 " rows were refused; %s says which and why",
                         state->refused, state->stored + state->refused, import->report_path);
    return STATUS_OK;
}

static enum status run_with(struct import *import, struct span bytes)
{
    struct session *session = import->session;
    TRY(find_dimension(import));
    TRY(find_state(import, bytes));
    TRY(open_report(import));
    if (import->state.position.line > 0 && !session->is_json && import->state.stored > 0)
        fprintf(stderr, "goes on behind %s %" PRIu64 "\n", import->unit,
                import->state.position.line);
    progress_start(&import->progress, "import", rows_count_estimate(import->rows),
                   session->is_json);
    enum status status = import_rows(import);
    if (status == STATUS_OK)
        return finish(import);
    progress_end(&import->progress);
    return error_prefix(&session->error, status,
                        "%" PRIu64 " points are stored; the same command goes on there",
                        import->state.stored);
}

static enum status import_init(struct session *session, const char *path, struct import *import)
{
    uint64_t batch_max = config_u64(session->config, "batch");
    if (batch_max < 1 || batch_max > BATCH_MAX)
        return error_set(&session->error, STATUS_INVALID, "--batch must be 1 to %d", BATCH_MAX);
    *import = (struct import){
        .session = session,
        .collection = session_word_cstr(session, 0),
        .report = -1,
        .batch_max = batch_max,
    };
    if (snprintf(import->state_path, PATH_SIZE_MAX, "%s.import", path) >= PATH_SIZE_MAX ||
        snprintf(import->report_path, PATH_SIZE_MAX, "%s.refused", path) >= PATH_SIZE_MAX)
        return error_set(&session->error, STATUS_INVALID, "the path is too long");
    import->arena = arena_create(BATCH_ARENA_SIZE_MAX);
    import->points = mem_alloc(batch_max * sizeof(import->points[0]));
    import->numbers = mem_alloc(batch_max * sizeof(import->numbers[0]));
    import->refusals = mem_alloc(batch_max * sizeof(import->refusals[0]));
    return STATUS_OK;
}

static void import_deinit(struct import *import)
{
    if (import->report >= 0)
        (void)close(import->report); // written by write, which was checked
    rows_close(import->rows);
    arena_destroy(import->arena);
    mem_free(import->points);
    mem_free(import->numbers);
    mem_free(import->refusals);
}

static enum status map_file(const char *path, struct error *error, void **out_map, size_t *out_size)
{
    struct stat info = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
        enum status status = error_set(error, STATUS_IO, "open %s: %s", path,
                                       error_system_text(file < 0 ? errno : EINVAL));
        if (file >= 0)
            (void)close(file); // it was only read
        return status;
    }
    void *map = info.st_size == 0
                    ? NULL
                    : mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    (void)close(file); // the map stays
    if (map == NULL || map == MAP_FAILED)
        return error_set(error, STATUS_INVALID, "%s is empty or cannot be mapped", path);
    *out_map = map;
    *out_size = (size_t)info.st_size;
    return STATUS_OK;
}

static enum status run_import(struct session *session)
{
    const char *path = session_word_cstr(session, 1);
    struct str ids_path = config_str(session->config, "ids");
    struct str ids = {0};
    void *map = NULL;
    size_t size = 0;
    struct import import;
    enum rows_format format;
    TRY(rows_format_of(config_str(session->config, "format"), str_from_cstr(path), &session->error,
                       &format));
    if (ids_path.len > 0 && format != ROWS_NPY)
        return error_set(&session->error, STATUS_INVALID, "--ids is for .npy files");
    if (ids_path.len > 0)
        TRY(session_read_file(session, ids_path, IDS_SIZE_MAX, &ids));
    TRY(map_file(path, &session->error, &map, &size));
    struct span bytes = {map, size};
    enum status status = import_init(session, path, &import);
    if (status == STATUS_OK) {
        import.unit = format == ROWS_NPY ? "row" : "line";
        status = rows_open(format, bytes, ids, &session->error, &import.rows);
        if (status == STATUS_OK)
            status = rows_check_ids(import.rows, &session->error);
        if (status != STATUS_OK)
            status = error_prefix(&session->error, status, "%s", path);
        if (status == STATUS_OK)
            status = run_with(&import, bytes);
        import_deinit(&import);
    }
    (void)munmap(map, size);
    return status;
}

const struct verb import_verb = {
    "import",
    "COLLECTION FILE",
    "store the points of a .jsonl, .csv or .npy file",
    import_settings,
    sizeof(import_settings) / sizeof(import_settings[0]),
    2,
    2,
    run_import,
};
