// Verbs on points: upsert from JSON lines or a .npy file, get, delete, search.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/vectron.pb-c.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "vectron/npy.h"
#include "vectron/progress.h"
#include "vectron/verb.h"

enum { BATCH_MAX = 10000, BATCH_ARENA_SIZE_MAX = 1 << 30 };

static const struct setting upsert_settings[] = {
    {"file", NULL, SETTING_STR, false, "",
     "JSON lines {\"id\": …, \"vector\": […], \"payload\": {…}}; - is standard input"},
    {"npy", NULL, SETTING_STR, false, "", "vectors as a .npy matrix, with --ids"},
    {"ids", NULL, SETTING_STR, false, "", "the ids of the .npy file's rows, one a line"},
    {"batch", NULL, SETTING_U64, false, "256", "points in one request, at most 10000"},
};

// Points on their way: one request's worth, in an arena that is emptied with it.
struct batch {
    struct session *session;
    struct arena *arena;
    struct progress progress;
    char *collection;
    Vectron__V1__Point **points;
    size_t count;
    size_t count_max;
    uint64_t stored;
};

static enum status batch_init(struct session *session, uint64_t total, struct batch *batch)
{
    uint64_t count_max = config_u64(session->config, "batch");
    if (count_max < 1 || count_max > BATCH_MAX) {
        (void)error_set(&session->error, STATUS_INVALID, "--batch must be 1 to %d", BATCH_MAX);
        return STATUS_INVALID;
    }
    *batch = (struct batch){
        .session = session,
        .arena = arena_create(BATCH_ARENA_SIZE_MAX),
        .collection = session_word_cstr(session, 0),
        .points = mem_alloc(count_max * sizeof(Vectron__V1__Point *)),
        .count_max = count_max,
    };
    progress_start(&batch->progress, "upsert", total, session->is_json);
    return STATUS_OK;
}

static void batch_deinit(struct batch *batch)
{
    arena_destroy(batch->arena);
    mem_free(batch->points);
}

static enum status batch_send(struct batch *batch)
{
    Vectron__V1__UpsertRequest request = VECTRON__V1__UPSERT_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    if (batch->count == 0)
        return STATUS_OK;
    request.collection = batch->collection;
    request.points = batch->points;
    request.n_points = batch->count;
    enum status status =
        session_call_data(batch->session, "Upsert", &request.base, batch->arena, &message);
    if (status != STATUS_OK)
        return error_prefix(&batch->session->error, status, "%" PRIu64 " points were stored, then",
                            batch->stored);
    batch->stored += batch->count;
    batch->count = 0;
    arena_reset(batch->arena);
    progress_show(&batch->progress, batch->stored);
    return STATUS_OK;
}

// A new point at the end of the batch; what was full is sent first.
static enum status batch_add(struct batch *batch, Vectron__V1__Point **out_point)
{
    if (batch->count == batch->count_max)
        TRY(batch_send(batch));
    Vectron__V1__Point *point = arena_alloc(batch->arena, sizeof(*point));
    vectron__v1__point__init(point);
    batch->points[batch->count++] = point;
    *out_point = point;
    return STATUS_OK;
}

static enum status batch_end(struct batch *batch)
{
    TRY(batch_send(batch));
    progress_end(&batch->progress);
    if (batch->session->is_json)
        printf("{\"upserted\":%" PRIu64 "}\n", batch->stored);
    else
        printf("%" PRIu64 " points upserted into %s\n", batch->stored, batch->collection);
    return STATUS_OK;
}

// Line by line, so that a file of any size passes through the memory of one batch.
static enum status upsert_lines(struct session *session, FILE *file, struct batch *batch)
{
    char *line = NULL;
    size_t capacity = 0;
    uint64_t number = 0;
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        ssize_t size = getline(&line, &capacity, file);
        if (size < 0)
            break;
        number++;
        struct str text = str_trim((struct str){line, (size_t)size});
        Vectron__V1__Point *point = NULL;
        if (text.len == 0)
            continue;
        status = batch_add(batch, &point);
        if (status == STATUS_OK)
            status = json_decode_message(text, batch->arena, &session->error, &point->base);
        if (status != STATUS_OK)
            status = error_prefix(&session->error, status, "line %" PRIu64, number);
    }
    mem_free(line); // getline's memory is the C library's, as mem_free's is
    if (status == STATUS_OK && ferror(file) != 0)
        status = error_set(&session->error, STATUS_IO, "read: %s", strerrordesc_np(errno));
    return status == STATUS_OK ? batch_end(batch) : status;
}

static enum status run_upsert_lines(struct session *session, struct str path)
{
    bool is_stdin = str_equal_cstr(path, "-");
    FILE *file = is_stdin ? stdin : fopen(path.data, "re");
    struct batch batch;
    if (file == NULL)
        return error_set(&session->error, STATUS_IO, "open %s: %s", path.data,
                         strerrordesc_np(errno));
    enum status status = batch_init(session, 0, &batch);
    if (status == STATUS_OK) {
        status = upsert_lines(session, file, &batch);
        batch_deinit(&batch);
    }
    if (!is_stdin)
        (void)fclose(file); // it was only read
    return status;
}

static enum status upsert_rows(struct session *session, const struct npy *npy, struct str ids,
                               struct batch *batch)
{
    for (uint64_t row = 0; row < npy->row_count; row++) {
        Vectron__V1__Point *point = NULL;
        if (ids.len == 0)
            return error_set(&session->error, STATUS_INVALID,
                             "--ids has %" PRIu64 " lines, --npy %" PRIu64 " rows", row,
                             npy->row_count);
        TRY(batch_add(batch, &point));
        point->id = arena_cstr(batch->arena, str_cut(&ids, '\n'));
        point->n_vector = npy->column_count;
        point->vector = arena_alloc(batch->arena, npy->column_count * sizeof(float));
        npy_row(npy, row, point->vector);
    }
    if (str_trim(ids).len > 0)
        return error_set(&session->error, STATUS_INVALID,
                         "--ids has more lines than --npy has rows (%" PRIu64 ")", npy->row_count);
    return batch_end(batch);
}

static enum status run_upsert_npy(struct session *session, struct str path)
{
    struct npy npy;
    struct str ids = {0};
    struct batch batch;
    TRY(session_read_file(session, config_str(session->config, "ids"), BATCH_ARENA_SIZE_MAX / 2,
                          &ids));
    TRY(npy_open(path.data, &session->error, &npy));
    enum status status = batch_init(session, npy.row_count, &batch);
    if (status == STATUS_OK) {
        status = upsert_rows(session, &npy, ids, &batch);
        batch_deinit(&batch);
    }
    npy_close(&npy);
    return status;
}

static enum status run_upsert(struct session *session)
{
    struct str file = config_str(session->config, "file");
    struct str npy = config_str(session->config, "npy");
    struct str ids = config_str(session->config, "ids");
    if ((file.len > 0) == (npy.len > 0))
        return error_set(&session->error, STATUS_INVALID, "give either --file or --npy");
    if (npy.len > 0 && ids.len == 0)
        return error_set(&session->error, STATUS_INVALID, "--npy needs --ids");
    return npy.len > 0 ? run_upsert_npy(session, npy) : run_upsert_lines(session, file);
}

static enum status point_get(struct session *session, uint32_t id_word,
                             const Vectron__V1__Point **out_point)
{
    Vectron__V1__GetRequest request = VECTRON__V1__GET_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.collection = session_word_cstr(session, 0);
    request.id = session_word_cstr(session, id_word);
    TRY(session_call_data(session, "Get", &request.base, session->arena, &message));
    *out_point = ((const Vectron__V1__GetResponse *)(const void *)message)->point;
    return STATUS_OK;
}

static enum status run_get(struct session *session)
{
    for (uint32_t i = 1; i < config_word_count(session->config); i++) {
        const Vectron__V1__Point *point = NULL;
        TRY(point_get(session, i, &point));
        session_print_json(&point->base);
    }
    return STATUS_OK;
}

static enum status run_delete(struct session *session)
{
    for (uint32_t i = 1; i < config_word_count(session->config); i++) {
        Vectron__V1__DeleteRequest request = VECTRON__V1__DELETE_REQUEST__INIT;
        const ProtobufCMessage *message = NULL;
        request.collection = session_word_cstr(session, 0);
        request.id = session_word_cstr(session, i);
        TRY(session_call_data(session, "Delete", &request.base, session->arena, &message));
    }
    if (session->is_json)
        printf("{\"deleted\":%u}\n", config_word_count(session->config) - 1);
    return STATUS_OK;
}

static const struct setting search_settings[] = {
    {"id", NULL, SETTING_STR, false, "", "search near the point with this id"},
    {"vector", NULL, SETTING_STR, false, "", "search near this vector: [0.1, 0.2, …]"},
    {"top-k", NULL, SETTING_U64, false, "10", "how many, at most 10000"},
    {"exact", NULL, SETTING_BOOL, false, "false", "compare with every point"},
    {"payload", NULL, SETTING_BOOL, false, "false", "show payloads"},
};

// The query's vector: the stored one of --id, or the text of --vector.
static enum status search_vector(struct session *session, Vectron__V1__SearchRequest *request)
{
    struct str id = config_str(session->config, "id");
    struct str text = config_str(session->config, "vector");
    if ((id.len > 0) == (text.len > 0))
        return error_set(&session->error, STATUS_INVALID, "give either --id or --vector");
    if (id.len == 0)
        return json_decode_message(arena_format(session->arena, "{\"vector\":%.*s}", STR_ARG(text)),
                                   session->arena, &session->error, &request->base);

    Vectron__V1__GetRequest get = VECTRON__V1__GET_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    get.collection = request->collection;
    get.id = arena_cstr(session->arena, id);
    TRY(session_call_data(session, "Get", &get.base, session->arena, &message));
    const Vectron__V1__GetResponse *response = (const void *)message;
    request->vector = response->point->vector;
    request->n_vector = response->point->n_vector;
    return STATUS_OK;
}

static void print_hits(const Vectron__V1__SearchResponse *response, bool shows_payload)
{
    for (size_t i = 0; i < response->n_results; i++) {
        const Vectron__V1__SearchResult *hit = response->results[i];
        printf("%4zu  %-24s %.6f", i + 1, hit->id, (double)hit->score);
        if (shows_payload && hit->document != NULL) {
            struct buf text;
            buf_init(&text, SIZE_MAX);
            json_encode_message((const ProtobufCMessage *)hit->document, &text);
            printf("  %.*s", STR_ARG(buf_str(&text)));
            buf_deinit(&text);
        }
        putchar('\n');
    }
}

static enum status run_search(struct session *session)
{
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    uint64_t top_k = config_u64(session->config, "top-k");
    if (top_k > LIMIT_TOP_K_MAX)
        return error_set(&session->error, STATUS_INVALID, "--top-k is at most %d", LIMIT_TOP_K_MAX);
    request.collection = session_word_cstr(session, 0);
    request.top_k = (uint32_t)top_k;
    request.exact = config_bool(session->config, "exact");
    request.include_metadata = config_bool(session->config, "payload");
    TRY(search_vector(session, &request));
    uint64_t started = clock_monotonic_ns();
    TRY(session_call_data(session, "Search", &request.base, session->arena, &message));
    uint64_t took = clock_monotonic_ns() - started;
    const Vectron__V1__SearchResponse *response = (const void *)message;
    if (session->is_json) {
        session_print_json(message);
        return STATUS_OK;
    }
    print_hits(response, request.include_metadata);
    printf("%zu hits in %.2f ms (%u of %u shards)\n", response->n_results,
           (double)took / (double)NS_PER_MS, response->shards_answered, response->shards_total);
    return STATUS_OK;
}

#define SETTINGS(list) list, sizeof(list) / sizeof((list)[0])

const struct verb point_verbs[] = {
    {"points upsert", "COLLECTION --file F | --npy F --ids F", "store points",
     SETTINGS(upsert_settings), 1, 1, run_upsert},
    {"points get", "COLLECTION ID…", "print points as JSON", NULL, 0, 2, UINT32_MAX, run_get},
    {"points delete", "COLLECTION ID…", "delete points", NULL, 0, 2, UINT32_MAX, run_delete},
    {"search", "COLLECTION --id ID | --vector V", "the nearest points", SETTINGS(search_settings),
     1, 1, run_search},
};
const uint32_t point_verb_count = sizeof(point_verbs) / sizeof(point_verbs[0]);
