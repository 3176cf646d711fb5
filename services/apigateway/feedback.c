#include "apigateway/feedback.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apigateway/authenticate.h"
#include "apigateway/collection_find.h"
#include "apigateway/gateway.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

// One row for the request, one for each item; result ids and context as rows as well, so that what
// people ask ("which results were clicked for this query") is plain SQL.

enum { RELEVANCE_MAX = 5, LIST_MAX = 10000, BUSY_MS = 5000 };

static const char schema[] =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    "CREATE TABLE IF NOT EXISTS feedback (id TEXT PRIMARY KEY, user_id TEXT NOT NULL,"
    " collection TEXT NOT NULL, query TEXT NOT NULL, created_at INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS feedback_item (feedback_id TEXT NOT NULL, result_id TEXT NOT NULL,"
    " relevance INTEGER NOT NULL, clicked INTEGER NOT NULL, position INTEGER NOT NULL,"
    " comment TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS feedback_item_of ON feedback_item (feedback_id);"
    "CREATE INDEX IF NOT EXISTS feedback_of_user ON feedback (user_id);"
    "CREATE TABLE IF NOT EXISTS feedback_result (feedback_id TEXT NOT NULL,"
    " rank INTEGER NOT NULL, result_id TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS feedback_context (feedback_id TEXT NOT NULL, name TEXT NOT NULL,"
    " value TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS feedback_result_of ON feedback_result (feedback_id);"
    "CREATE INDEX IF NOT EXISTS feedback_context_of ON feedback_context (feedback_id);";

struct feedback {
    char *path;
    pthread_mutex_t lock;
    sqlite3 *database; // NULL: not open yet
};

struct feedback *feedback_create(struct str path)
{
    struct feedback *feedback = mem_alloc(sizeof(*feedback));
    feedback->path = mem_alloc(path.len + 1);
    memcpy(feedback->path, path.data, path.len);
    pthread_mutex_init(&feedback->lock, NULL);
    return feedback;
}

void feedback_destroy(struct feedback *feedback)
{
    if (feedback == NULL)
        return;
    (void)sqlite3_close(feedback->database); // every statement has been finalized
    pthread_mutex_destroy(&feedback->lock);
    mem_free(feedback->path);
    mem_free(feedback);
}

// --- Opening

static enum status make_folders(const char *path, struct error *error)
{
    size_t size = strlen(path) + 1;
    char *part = mem_alloc(size);
    enum status status = STATUS_OK;
    memcpy(part, path, size);
    for (char *end = strchr(part + 1, '/'); end != NULL && status == STATUS_OK;
         end = strchr(end + 1, '/')) {
        *end = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            status =
                error_set(error, STATUS_IO, "make folder %s: %s", part, error_system_text(errno));
        *end = '/';
    }
    mem_free(part);
    return status;
}

static enum status fail_sqlite(struct feedback *feedback, struct error *error)
{
    return error_set(error, STATUS_IO, "feedback database %s: %s", feedback->path,
                     sqlite3_errmsg(feedback->database));
}

static enum status open_database(struct feedback *feedback, struct error *error)
{
    if (feedback->database != NULL)
        return STATUS_OK;
    TRY(make_folders(feedback->path, error));
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int code = sqlite3_open_v2(feedback->path, &feedback->database, flags, NULL);
    if (code == SQLITE_OK)
        (void)sqlite3_busy_timeout(feedback->database, BUSY_MS); // fails only without a database
    if (code == SQLITE_OK)
        code = sqlite3_exec(feedback->database, schema, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        return STATUS_OK;
    enum status status = fail_sqlite(feedback, error);
    (void)sqlite3_close(feedback->database);
    feedback->database = NULL;
    return status;
}

// --- Writing

enum value_kind { VALUE_END, VALUE_TEXT, VALUE_NUMBER };

struct value {
    enum value_kind kind;
    struct str text;
    int64_t number;
};

#define TEXT_VALUE(text)     ((struct value){VALUE_TEXT, (text), 0})
#define NUMBER_VALUE(number) ((struct value){VALUE_NUMBER, {0}, (number)})

static enum status run(struct feedback *feedback, const char *sql, const struct value *values,
                       struct error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(feedback->database, sql, -1, &statement, NULL);
    for (int i = 0; code == SQLITE_OK && values[i].kind != VALUE_END; i++) {
        if (values[i].kind == VALUE_TEXT)
            code = sqlite3_bind_text(statement, i + 1,
                                     values[i].text.data != NULL ? values[i].text.data : "",
                                     (int)values[i].text.len, SQLITE_STATIC);
        else
            code = sqlite3_bind_int64(statement, i + 1, values[i].number);
    }
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    enum status status = code == SQLITE_DONE ? STATUS_OK : fail_sqlite(feedback, error);
    (void)sqlite3_finalize(statement); // repeats the error of the step
    return status;
}

static enum status insert_all(struct feedback *feedback, const struct feedback_origin *origin,
                              const Vectron__V1__SubmitFeedbackRequest *request, struct str id,
                              struct error *error)
{
    TRY(run(feedback, "INSERT INTO feedback VALUES (?,?,?,?,?)",
            (const struct value[]){TEXT_VALUE(id),
                                   TEXT_VALUE(origin->user_id),
                                   TEXT_VALUE(origin->collection),
                                   TEXT_VALUE(str_from_cstr(request->query)),
                                   NUMBER_VALUE(origin->at),
                                   {0}},
            error));
    for (size_t i = 0; i < request->n_feedback_items; i++) {
        const Vectron__V1__FeedbackItem *item = request->feedback_items[i];
        TRY(run(feedback, "INSERT INTO feedback_item VALUES (?,?,?,?,?,?)",
                (const struct value[]){TEXT_VALUE(id),
                                       TEXT_VALUE(str_from_cstr(item->result_id)),
                                       NUMBER_VALUE(item->relevance_score),
                                       NUMBER_VALUE(item->clicked),
                                       NUMBER_VALUE(item->position),
                                       TEXT_VALUE(str_from_cstr(item->comment)),
                                       {0}},
                error));
    }
    for (size_t i = 0; i < request->n_result_ids; i++)
        TRY(run(feedback, "INSERT INTO feedback_result VALUES (?,?,?)",
                (const struct value[]){TEXT_VALUE(id),
                                       NUMBER_VALUE((int64_t)i),
                                       TEXT_VALUE(str_from_cstr(request->result_ids[i])),
                                       {0}},
                error));
    for (size_t i = 0; i < request->n_context; i++)
        TRY(run(feedback, "INSERT INTO feedback_context VALUES (?,?,?)",
                (const struct value[]){TEXT_VALUE(id),
                                       TEXT_VALUE(str_from_cstr(request->context[i]->key)),
                                       TEXT_VALUE(str_from_cstr(request->context[i]->value)),
                                       {0}},
                error));
    return STATUS_OK;
}

static enum status begin(struct feedback *feedback, struct error *error)
{
    TRY(open_database(feedback, error));
    if (sqlite3_exec(feedback->database, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return fail_sqlite(feedback, error);
    return STATUS_OK;
}

// All of it, or nothing when status says that something went wrong.
static enum status end(struct feedback *feedback, enum status status, struct error *error)
{
    if (status == STATUS_OK &&
        sqlite3_exec(feedback->database, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        status = fail_sqlite(feedback, error);
    if (status != STATUS_OK) // fails when SQLite has rolled back by itself
        (void)sqlite3_exec(feedback->database, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static enum status store_locked(struct feedback *feedback, const struct feedback_origin *origin,
                                const Vectron__V1__SubmitFeedbackRequest *request, struct str id,
                                struct error *error)
{
    TRY(begin(feedback, error));
    return end(feedback, insert_all(feedback, origin, request, id, error), error);
}

enum status feedback_store(struct feedback *feedback, const struct feedback_origin *origin,
                           const Vectron__V1__SubmitFeedbackRequest *request, struct error *error,
                           char out_id[static FEEDBACK_ID_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t random[FEEDBACK_ID_SIZE / 2];
    char id[FEEDBACK_ID_SIZE + 1] = {0};
    rng_secure(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++) {
        id[2 * i] = digits[random[i] >> 4];
        id[2 * i + 1] = digits[random[i] & 15];
    }
    pthread_mutex_lock(&feedback->lock);
    enum status status = store_locked(feedback, origin, request, str_from_cstr(id), error);
    pthread_mutex_unlock(&feedback->lock);
    if (status == STATUS_OK)
        memcpy(out_id, id, sizeof(id));
    return status;
}

// --- Forgetting

static enum status list_locked(struct feedback *feedback, struct str after, struct arena *arena,
                               struct error *error, struct feedback_users *out_users)
{
    sqlite3_stmt *statement = NULL;
    TRY(open_database(feedback, error));
    int code = sqlite3_prepare_v2(feedback->database,
                                  "SELECT DISTINCT user_id FROM feedback WHERE user_id > ?"
                                  " ORDER BY user_id LIMIT ?",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_bind_text(statement, 1, after.data != NULL ? after.data : "", (int)after.len,
                                 SQLITE_STATIC);
    if (code == SQLITE_OK)
        code = sqlite3_bind_int64(statement, 2, FEEDBACK_PAGE_USERS);
    while (code == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        out_users->ids[out_users->count++] =
            arena_str(arena, str_from_cstr((const char *)sqlite3_column_text(statement, 0)));
    enum status status = code == SQLITE_OK ? STATUS_OK : fail_sqlite(feedback, error);
    code = sqlite3_finalize(statement); // the error of the last step, if there was one
    if (status == STATUS_OK && code != SQLITE_OK)
        status = fail_sqlite(feedback, error);
    return status;
}

enum status feedback_list_users(struct feedback *feedback, struct str after, struct arena *arena,
                                struct error *error, struct feedback_users *out_users)
{
    out_users->count = 0;
    if (access(feedback->path, F_OK) != 0)
        return STATUS_OK;
    pthread_mutex_lock(&feedback->lock);
    enum status status = list_locked(feedback, after, arena, error, out_users);
    pthread_mutex_unlock(&feedback->lock);
    return status;
}

static enum status forget_all(struct feedback *feedback, struct str user_id, struct error *error)
{
    static const char *const statements[] = {
        "DELETE FROM feedback_item WHERE feedback_id IN (SELECT id FROM feedback WHERE user_id = "
        "?)",
        "DELETE FROM feedback_result"
        " WHERE feedback_id IN (SELECT id FROM feedback WHERE user_id = ?)",
        "DELETE FROM feedback_context"
        " WHERE feedback_id IN (SELECT id FROM feedback WHERE user_id = ?)",
        "DELETE FROM feedback WHERE user_id = ?",
    };
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
        TRY(run(feedback, statements[i], (const struct value[]){TEXT_VALUE(user_id), {0}}, error));
    return STATUS_OK;
}

enum status feedback_forget_user(struct feedback *feedback, struct str user_id, struct error *error)
{
    pthread_mutex_lock(&feedback->lock);
    enum status status = begin(feedback, error);
    if (status == STATUS_OK)
        status = end(feedback, forget_all(feedback, user_id, error), error);
    pthread_mutex_unlock(&feedback->lock);
    return status;
}

// --- The call

enum status feedback_check(const Vectron__V1__SubmitFeedbackRequest *request, struct error *error)
{
    if (request->n_feedback_items == 0)
        return error_set(error, STATUS_INVALID, "feedback_items is empty; it needs at least one");
    if (request->n_feedback_items > LIST_MAX || request->n_result_ids > LIST_MAX ||
        request->n_context > LIST_MAX)
        return error_set(error, STATUS_INVALID,
                         "feedback_items, result_ids and context may have %d entries each",
                         LIST_MAX);
    for (size_t i = 0; i < request->n_feedback_items; i++) {
        const Vectron__V1__FeedbackItem *item = request->feedback_items[i];
        if (item->relevance_score < 0 || item->relevance_score > RELEVANCE_MAX)
            return error_set(error, STATUS_INVALID,
                             "feedback_items[%zu]: relevance_score is %d; it must be 0 to %d", i,
                             item->relevance_score, RELEVANCE_MAX);
    }
    return STATUS_OK;
}

struct submission {
    struct gateway *gateway;
    struct feedback_origin origin;
    const Vectron__V1__SubmitFeedbackRequest *request;
    enum status status;
    struct error error;
    char id[FEEDBACK_ID_SIZE + 1];
};

static void store(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct submission *submission = context;
    submission->status = feedback_store(submission->gateway->feedback, &submission->origin,
                                        submission->request, &submission->error, submission->id);
}

static void stored(struct rpc *rpc, void *context)
{
    struct submission *submission = context;
    if (rpc_is_done(rpc))
        return;
    if (submission->status != STATUS_OK) {
        rpc_fail_error(rpc, submission->status, &submission->error);
        return;
    }
    Vectron__V1__SubmitFeedbackResponse message = VECTRON__V1__SUBMIT_FEEDBACK_RESPONSE__INIT;
    message.success = true;
    message.feedback_id = submission->id;
    rpc_reply(rpc, &message.base);
}

static void found(struct rpc *rpc, struct cluster_map *map,
                  const struct cluster_collection *collection, void *context)
{
    (void)map;
    struct submission *submission = context;
    struct error error;
    enum status status = feedback_check(submission->request, &error);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    submission->origin = (struct feedback_origin){
        .user_id = authenticated_caller(rpc)->user_id,
        .collection = arena_str(rpc_arena(rpc), collection_bare_name(collection)),
        .at = clock_unix_seconds(),
    };
    rpc_run_pooled(rpc, store, stored, submission);
}

void feedback_submit(struct rpc *rpc, void *context)
{
    struct submission *submission = arena_alloc(rpc_arena(rpc), sizeof(*submission));
    submission->gateway = context;
    submission->request =
        (const Vectron__V1__SubmitFeedbackRequest *)(const void *)rpc_request(rpc);
    collection_find(rpc, context, str_from_cstr(submission->request->collection), "collection",
                    found, submission);
}
