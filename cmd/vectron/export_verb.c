// `vectron export`: points as a file that `vectron import` reads back bit for bit.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/json.h"
#include "base/limits.h"
#include "base/mem.h"
#include "vectron/progress.h"
#include "vectron/rows.h"
#include "vectron/verb.h"

enum {
    NPY_HEADER_SIZE = 128,
    POINT_ARENA_SIZE_MAX = 1 << 28,
    PATH_SIZE_MAX = 4096,
    IDS_SIZE_MAX = 1 << 29,
};

static const struct setting export_settings[] = {
    {"format", NULL, SETTING_STR, false, "", "jsonl, csv or npy; else as the file's name ends"},
    {"ids", NULL, SETTING_STR, false, "",
     "a file with the ids of the points, one a line; needed for more than 10000"},
    {"retry-seconds", NULL, SETTING_U64, false, "30",
     "how long a request is tried again while the server cannot be reached or is over a limit"},
};

struct export
{
    struct session *session;
    struct arena *arena; // of one point
    char *collection;
    uint32_t dimension;
    enum rows_format format;
    FILE *file;
    FILE *ids_file; // of a .npy file
    struct buf text;
    struct progress progress;
    uint64_t written;
    uint64_t missing;
    uint64_t without_payload; // payloads that a .npy file cannot hold
};

static enum status call(struct export *export, const char *method, const ProtobufCMessage *request,
                        struct arena *arena, const ProtobufCMessage **out_response)
{
    return session_call_data_patiently(export->session, method, request,
                                       config_u64(export->session->config, "retry-seconds"), arena,
                                       out_response);
}

// --- Points

static void append_quoted(struct buf *out, struct str text)
{
    buf_append_byte(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '"')
            buf_append_byte(out, '"');
        buf_append_byte(out, (uint8_t)text.data[i]);
    }
    buf_append_byte(out, '"');
}

static enum status append_csv(struct export *export, const Vectron__V1__Point *point)
{
    struct str payload = {0};
    append_quoted(&export->text, str_from_cstr(point->id));
    buf_append_str(&export->text, STR(",\"["));
    for (size_t i = 0; i < point->n_vector; i++) {
        if (i > 0)
            buf_append_byte(&export->text, ',');
        json_append_float(&export->text, point->vector[i]);
    }
    buf_append_str(&export->text, STR("]\","));
    if (point->document != NULL) {
        TRY(json_from_struct((const ProtobufCMessage *)point->document, "payload", export->arena,
                             &export->session->error, &payload));
        append_quoted(&export->text, payload);
    }
    buf_append_byte(&export->text, '\n');
    return STATUS_OK;
}

static enum status append_npy(struct export *export, const Vectron__V1__Point *point)
{
    if (strchr(point->id, '\n') != NULL)
        return error_set(&export->session->error, STATUS_INVALID,
                         "an id with a line end has no place in a list of ids; export to .jsonl");
    buf_append(&export->text, point->vector, point->n_vector * sizeof(float));
    export->without_payload += point->document != NULL && point->document->n_fields > 0 ? 1 : 0;
    if (fprintf(export->ids_file, "%s\n", point->id) < 0)
        return error_set(&export->session->error, STATUS_IO, "write the ids: %s",
                         error_system_text(errno));
    return STATUS_OK;
}

static enum status write_text(struct export *export)
{
    size_t size = export->text.len;
    bool is_written = size == 0 || fwrite(export->text.data, 1, size, export->file) == size;
    buf_clear(&export->text);
    return is_written ? STATUS_OK
                      : error_set(&export->session->error, STATUS_IO, "write: %s",
                                  error_system_text(errno));
}

static enum status write_point(struct export *export, const Vectron__V1__Point *point)
{
    if (export->format == ROWS_CSV) {
        TRY(append_csv(export, point));
    } else if (export->format == ROWS_NPY) {
        TRY(append_npy(export, point));
    } else {
        json_encode_message(&point->base, &export->text);
        buf_append_byte(&export->text, '\n');
    }
    export->written++;
    return write_text(export);
}

// The first is written again at the end, when the number of rows is known.
static enum status write_head(struct export *export)
{
    // Version 1.0; what follows takes 118 bytes, so that the values are aligned.
    static const uint8_t magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, NPY_HEADER_SIZE - 10, 0};
    if (export->format == ROWS_CSV) {
        buf_append_str(&export->text, STR("id,vector,payload\n"));
    } else if (export->format == ROWS_NPY) {
        char head[NPY_HEADER_SIZE + 1];
        memcpy(head, magic, sizeof(magic));
        int size =
            snprintf(head + 10, sizeof(head) - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %u), }",
                     export->written, export->dimension);
        memset(head + 10 + size, ' ', NPY_HEADER_SIZE - 10 - (size_t)size);
        head[NPY_HEADER_SIZE - 1] = '\n';
        buf_append(&export->text, head, NPY_HEADER_SIZE);
    }
    return write_text(export);
}

static enum status export_point(struct export *export, struct str id)
{
    Vectron__V1__GetRequest request = VECTRON__V1__GET_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    arena_reset(export->arena);
    request.collection = export->collection;
    request.id = arena_cstr(export->arena, id);
    enum status status = call(export, "Get", &request.base, export->arena, &message);
    if (status == STATUS_NOT_FOUND) {
        export->missing++;
        return STATUS_OK;
    }
    if (status == STATUS_OK)
        status =
            write_point(export, ((const Vectron__V1__GetResponse *)(const void *)message)->point);
    if (status == STATUS_OK)
        return STATUS_OK;
    return error_prefix(&export->session->error, status, "point '%.*s'", STR_ARG(id));
}

// --- Which

static enum status find_dimension(struct export *export)
{
    Vectron__V1__GetCollectionStatusRequest request =
        VECTRON__V1__GET_COLLECTION_STATUS_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.name = export->collection;
    TRY(call(export, "GetCollectionStatus", &request.base, export->session->arena, &message));
    export->dimension =
        (uint32_t)((const Vectron__V1__GetCollectionStatusResponse *)(const void *)message)
            ->dimension;
    return STATUS_OK;
}

static enum status export_listed(struct export *export, struct str path)
{
    struct str ids = {0};
    uint64_t done = 0;
    TRY(session_read_file(export->session, path, IDS_SIZE_MAX, &ids));
    uint64_t total = 0;
    for (struct str rest = ids; rest.len > 0; total++)
        (void)str_cut(&rest, '\n');
    progress_start(&export->progress, "export", total, export->session->is_json);
    while (ids.len > 0) {
        struct str id = str_cut(&ids, '\n');
        if (id.len > 0 && id.data[id.len - 1] == '\r')
            id.len--;
        if (id.len > 0)
            TRY(export_point(export, id));
        progress_show(&export->progress, ++done);
    }
    return STATUS_OK;
}

// All points of a collection that has few enough for one exact search to name them.
static enum status export_all(struct export *export)
{
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    struct arena *arena = export->session->arena;
    request.collection = export->collection;
    request.n_vector = export->dimension;
    request.vector = arena_alloc(arena, export->dimension * sizeof(float));
    request.vector[0] = 1;
    request.top_k = LIMIT_TOP_K_MAX;
    request.exact = true;
    TRY(call(export, "Search", &request.base, arena, &message));
    const Vectron__V1__SearchResponse *response = (const void *)message;
    if (response->n_results >= LIMIT_TOP_K_MAX)
        return error_set(&export->session->error, STATUS_INVALID,
                         "the collection has %d points or more; name them with --ids",
                         LIMIT_TOP_K_MAX);
    progress_start(&export->progress, "export", response->n_results, export->session->is_json);
    for (size_t i = 0; i < response->n_results; i++) {
        TRY(export_point(export, str_from_cstr(response->results[i]->id)));
        progress_show(&export->progress, i + 1);
    }
    return STATUS_OK;
}

// --- Files

static enum status write_all(struct export *export)
{
    struct str ids = config_str(export->session->config, "ids");
    TRY(find_dimension(export));
    TRY(write_head(export));
    TRY(ids.len > 0 ? export_listed(export, ids) : export_all(export));
    if (export->format != ROWS_NPY)
        return STATUS_OK;
    if (fseek(export->file, 0, SEEK_SET) != 0)
        return error_set(&export->session->error, STATUS_IO, "write: %s", error_system_text(errno));
    return write_head(export);
}

static enum status finish(struct export *export, const char *path)
{
    const char *payloads = " payloads are left out: a .npy file holds vectors only\n";
    if (export->without_payload > 0)
        fprintf(stderr, "%" PRIu64 "%s", export->without_payload, payloads);
    if (export->session->is_json)
        printf("{\"exported\":%" PRIu64 ",\"missing\":%" PRIu64 "}\n", export->written,
               export->missing);
    else
        printf("%" PRIu64 " points of %s exported to %s\n", export->written, export->collection,
               path);
    if (export->missing > 0)
        return error_set(&export->session->error, STATUS_NOT_FOUND,
                         "%" PRIu64 " ids are not in the collection", export->missing);
    return STATUS_OK;
}

// A file comes into place when it is whole, the ids of a matrix before the matrix.
static enum status close_file(FILE **file, const char *fresh, const char *path, enum status status,
                              struct error *error)
{
    if (*file == NULL)
        return status;
    bool is_closed = fclose(*file) == 0;
    *file = NULL;
    if (status == STATUS_OK && (!is_closed || rename(fresh, path) != 0))
        status = error_set(error, STATUS_IO, "write %s: %s", path, error_system_text(errno));
    if (status != STATUS_OK)
        (void)unlink(fresh); // half a file is of no use
    return status;
}

static enum status open_file(const char *path, const char *ending, char *out_path, char *out_fresh,
                             struct error *error, FILE **out_file)
{
    if (snprintf(out_path, PATH_SIZE_MAX, "%s%s", path, ending) >= PATH_SIZE_MAX ||
        snprintf(out_fresh, PATH_SIZE_MAX, "%s%s.new", path, ending) >= PATH_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "the path is too long");
    FILE *file = fopen(out_fresh, "wbe");
    if (file == NULL)
        return error_set(error, STATUS_IO, "write %s: %s", out_fresh, error_system_text(errno));
    *out_file = file;
    return STATUS_OK;
}

static enum status run_export(struct session *session)
{
    const char *word = session_word_cstr(session, 1);
    char path[PATH_SIZE_MAX];
    char fresh[PATH_SIZE_MAX];
    char ids_path[PATH_SIZE_MAX];
    char ids_fresh[PATH_SIZE_MAX];
    struct error *error = &session->error;
    struct export export = {.session = session, .collection = session_word_cstr(session, 0)};
    TRY(rows_format_of(config_str(session->config, "format"), str_from_cstr(word), error,
                       &export.format));
    export.arena = arena_create(POINT_ARENA_SIZE_MAX);
    buf_init(&export.text, SIZE_MAX);
    enum status status = open_file(word, "", path, fresh, error, &export.file);
    if (status == STATUS_OK && export.format == ROWS_NPY)
        status = open_file(word, ".ids", ids_path, ids_fresh, error, &export.ids_file);
    if (status == STATUS_OK)
        status = write_all(&export);
    progress_end(&export.progress);
    status = close_file(&export.ids_file, ids_fresh, ids_path, status, error);
    status = close_file(&export.file, fresh, path, status, error);
    if (status == STATUS_OK)
        status = finish(&export, path);
    buf_deinit(&export.text);
    arena_destroy(export.arena);
    return status;
}

const struct verb export_verb = {
    "export",
    "COLLECTION FILE",
    "write points to a .jsonl, .csv or .npy file",
    export_settings,
    sizeof(export_settings) / sizeof(export_settings[0]),
    2,
    2,
    run_export,
};
