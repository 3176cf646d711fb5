#include "identity/account_store_sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

// One connection, one statement at a time. Versions come from a counter of the whole file and are
// never used twice, so an entry that was removed and made again does not look unchanged.

enum { PATH_SIZE_MAX = 4096, FORMAT_VERSION = 1, BUSY_TIMEOUT_MS = 500 };

enum statement { GET, LIST, PUT, REMOVE, NEXT_VERSION, BEGIN, COMMIT, ROLLBACK, STATEMENT_COUNT };

static const char *const statement_texts[STATEMENT_COUNT] = {
    [GET] = "SELECT value, version FROM entries WHERE key = ?1",
    [LIST] = "SELECT key, value, version FROM entries WHERE key > ?1 AND key >= ?2 "
             "AND substr(key, 1, ?3) = ?2 AND (?4 IS NULL OR key < ?4) ORDER BY key LIMIT ?5",
    [PUT] = "INSERT INTO entries(key, value, version) VALUES(?1, ?2, ?3) "
            "ON CONFLICT(key) DO UPDATE SET value = ?2, version = ?3",
    [REMOVE] = "DELETE FROM entries WHERE key = ?1",
    [NEXT_VERSION] = "UPDATE counter SET version = version + 1 RETURNING version",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
};

struct store {
    struct account_store base; // first
    pthread_mutex_t lock;
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
};

static struct store *store_of(struct account_store *base)
{
    return (struct store *)base;
}

static enum status fail(struct store *store, const char *what, struct error *error)
{
    int code = store->db != NULL ? sqlite3_errcode(store->db) & 0xff : SQLITE_NOMEM;
    const char *text = store->db != NULL ? sqlite3_errmsg(store->db) : "no memory";
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        return error_set(error, STATUS_IO, "%s: auth.db is in use by another process", what);
    bool is_corrupt = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
    return error_set(error, is_corrupt ? STATUS_CORRUPT : STATUS_IO, "%s: auth.db: %s", what, text);
}

// --- Statements

static bool bind(sqlite3_stmt *statement, int place, struct str bytes)
{
    // An empty blob, not NULL.
    const char *data = bytes.len > 0 ? bytes.data : "";
    return sqlite3_bind_blob64(statement, place, data, bytes.len, SQLITE_TRANSIENT) == SQLITE_OK;
}

static void reset(struct store *store, enum statement which)
{
    // The step has told the error already.
    (void)sqlite3_reset(store->statements[which]);
    (void)sqlite3_clear_bindings(store->statements[which]);
}

static enum status run(struct store *store, enum statement which, const char *what,
                       struct error *error)
{
    int code = sqlite3_step(store->statements[which]);
    enum status status = code == SQLITE_DONE ? STATUS_OK : fail(store, what, error);
    reset(store, which);
    return status;
}

static enum status column_str(sqlite3_stmt *statement, int column, struct arena *arena,
                              struct error *error, struct str *out_bytes)
{
    const void *data = sqlite3_column_blob(statement, column);
    size_t size = (size_t)sqlite3_column_bytes(statement, column);
    char *copy = arena_try_alloc(arena, size + 1);
    if (copy == NULL)
        return error_set(error, STATUS_EXHAUSTED, "read accounts: no room for %zu bytes", size);
    if (size > 0)
        memcpy(copy, data, size);
    *out_bytes = (struct str){copy, size};
    return STATUS_OK;
}

// The version of a key now, 0 when there is none.
static enum status find_version(struct store *store, struct str key, struct error *error,
                                uint64_t *out_version)
{
    sqlite3_stmt *get = store->statements[GET];
    enum status status = STATUS_OK;
    int code = bind(get, 1, key) ? sqlite3_step(get) : SQLITE_NOMEM;
    if (code == SQLITE_ROW)
        *out_version = (uint64_t)sqlite3_column_int64(get, 1);
    else if (code == SQLITE_DONE)
        *out_version = 0;
    else
        status = fail(store, "read an account", error);
    reset(store, GET);
    return status;
}

// --- The interface

static enum status get_locked(struct store *store, struct str key, struct arena *arena,
                              struct error *error, struct account_entry *out_entry)
{
    sqlite3_stmt *get = store->statements[GET];
    int code = bind(get, 1, key) ? sqlite3_step(get) : SQLITE_NOMEM;
    enum status status = STATUS_OK;
    struct account_entry entry = {.key = arena_str(arena, key)};
    if (code == SQLITE_ROW) {
        entry.version = (uint64_t)sqlite3_column_int64(get, 1);
        status = column_str(get, 0, arena, error, &entry.value);
    } else if (code == SQLITE_DONE) {
        status = error_set(error, STATUS_NOT_FOUND, "not found");
    } else {
        status = fail(store, "read an account", error);
    }
    reset(store, GET);
    if (status == STATUS_OK)
        *out_entry = entry;
    return status;
}

static enum status sqlite_get(struct account_store *base, struct str key, struct arena *arena,
                              struct error *error, struct account_entry *out_entry)
{
    struct store *store = store_of(base);
    pthread_mutex_lock(&store->lock);
    enum status status = get_locked(store, key, arena, error, out_entry);
    pthread_mutex_unlock(&store->lock);
    return status;
}

// The first key that is greater than everything that begins with prefix; empty: there is none.
static struct str key_behind(struct str prefix, struct arena *arena)
{
    size_t len = prefix.len;
    while (len > 0 && (uint8_t)prefix.data[len - 1] == 0xff)
        len--;
    if (len == 0)
        return (struct str){0};
    char *end = arena_cstr(arena, (struct str){prefix.data, len});
    end[len - 1] = (char)((uint8_t)end[len - 1] + 1);
    return (struct str){end, len};
}

static enum status list_locked(struct store *store, const struct account_list *list,
                               struct arena *arena, struct error *error,
                               struct account_page *out_page)
{
    sqlite3_stmt *statement = store->statements[LIST];
    struct str end = key_behind(list->prefix, arena);
    struct account_entry *entries =
        arena_try_alloc(arena, sizeof(*entries) * ((size_t)list->limit + 1));
    if (entries == NULL)
        return error_set(error, STATUS_EXHAUSTED, "read accounts: no room");
    uint32_t count = 0;
    enum status status = STATUS_OK;
    bool is_bound =
        bind(statement, 1, list->after) && bind(statement, 2, list->prefix) &&
        sqlite3_bind_int64(statement, 3, (sqlite3_int64)list->prefix.len) == SQLITE_OK &&
        (end.len == 0 || bind(statement, 4, end)) &&
        sqlite3_bind_int64(statement, 5, (sqlite3_int64)list->limit + 1) == SQLITE_OK;
    int code = is_bound ? SQLITE_ROW : SQLITE_NOMEM;
    while (status == STATUS_OK && code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        if (code != SQLITE_ROW || count > list->limit)
            break;
        struct account_entry *entry = &entries[count++];
        entry->version = (uint64_t)sqlite3_column_int64(statement, 2);
        status = column_str(statement, 0, arena, error, &entry->key);
        if (status == STATUS_OK)
            status = column_str(statement, 1, arena, error, &entry->value);
    }
    if (status == STATUS_OK && code != SQLITE_DONE)
        status = fail(store, "list accounts", error);
    reset(store, LIST);
    if (status != STATUS_OK)
        return status;
    bool has_more = count > list->limit;
    *out_page = (struct account_page){entries, has_more ? list->limit : count, has_more};
    return STATUS_OK;
}

static enum status sqlite_list(struct account_store *base, const struct account_list *list,
                               struct arena *arena, struct error *error,
                               struct account_page *out_page)
{
    struct store *store = store_of(base);
    pthread_mutex_lock(&store->lock);
    enum status status = list_locked(store, list, arena, error, out_page);
    pthread_mutex_unlock(&store->lock);
    return status;
}

static enum status take_version(struct store *store, struct error *error, int64_t *out_version)
{
    sqlite3_stmt *statement = store->statements[NEXT_VERSION];
    enum status status = STATUS_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *out_version = sqlite3_column_int64(statement, 0);
    else
        status = fail(store, "count versions", error);
    // The row came with RETURNING; the statement ends with another step.
    if (status == STATUS_OK && sqlite3_step(statement) != SQLITE_DONE)
        status = fail(store, "count versions", error);
    reset(store, NEXT_VERSION);
    return status;
}

static enum status put_entry(struct store *store, const struct account_entry *entry,
                             int64_t new_version, struct error *error)
{
    uint64_t version = 0;
    TRY(find_version(store, entry->key, error, &version));
    if (version != entry->version)
        return error_set(error, STATUS_ABORTED, "somebody else changed it at the same time");
    enum statement which = entry->is_removed ? REMOVE : PUT;
    sqlite3_stmt *statement = store->statements[which];
    bool is_bound = bind(statement, 1, entry->key);
    if (!entry->is_removed)
        is_bound = is_bound && bind(statement, 2, entry->value) &&
                   sqlite3_bind_int64(statement, 3, new_version) == SQLITE_OK;
    if (!is_bound) {
        reset(store, which);
        return error_set(error, STATUS_IO, "write an account: no memory");
    }
    return run(store, which, "write an account", error);
}

static enum status put_locked(struct store *store, const struct account_entry *entries,
                              uint32_t count, struct error *error)
{
    TRY(run(store, BEGIN, "write accounts", error));
    int64_t version = 0;
    enum status status = take_version(store, error, &version);
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++)
        status = put_entry(store, &entries[i], version, error);
    if (status == STATUS_OK)
        status = run(store, COMMIT, "write accounts", error);
    // A failed COMMIT may or may not have left the transaction open.
    if (status != STATUS_OK && sqlite3_get_autocommit(store->db) == 0) {
        struct error ignored;
        (void)run(store, ROLLBACK, "write accounts", &ignored);
    }
    return status;
}

static enum status sqlite_put(struct account_store *base, const struct account_entry *entries,
                              uint32_t count, struct error *error)
{
    struct store *store = store_of(base);
    pthread_mutex_lock(&store->lock);
    enum status status = put_locked(store, entries, count, error);
    pthread_mutex_unlock(&store->lock);
    return status;
}

static void sqlite_destroy(struct account_store *base)
{
    struct store *store = store_of(base);
    for (int i = 0; i < STATEMENT_COUNT; i++)
        (void)sqlite3_finalize(store->statements[i]); // repeats an error that was told before
    (void)sqlite3_close(store->db);                   // nothing is open on it any more
    pthread_mutex_destroy(&store->lock);
    mem_free(store);
}

// --- Opening

// mkdir -p, for one path of bounded length.
static enum status make_folder(const char *path, struct error *error)
{
    char part[PATH_SIZE_MAX];
    size_t size = strlen(path);
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return error_set(error, STATUS_IO, "make folder %s: %s", part, strerrordesc_np(errno));
    }
    return STATUS_OK;
}

// SQLite gives its other files the mode of this one, so it must exist with the right mode first,
// and its name must be on the disk.
static enum status make_file(const char *folder, const char *path, struct error *error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, STATUS_IO, "open %s: %s", path, strerrordesc_np(errno));
    close(fd);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, STATUS_IO, "open %s: %s", folder, strerrordesc_np(errno));
    int failed = fsync(fd);
    close(fd);
    if (failed != 0)
        return error_set(error, STATUS_IO, "sync folder %s", folder);
    return STATUS_OK;
}

static enum status exec(struct store *store, const char *sql, struct error *error)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(store, "open", error);
    return STATUS_OK;
}

static enum status read_format(struct store *store, struct error *error, int *out_format)
{
    sqlite3_stmt *statement = NULL;
    enum status status = STATUS_OK;
    if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        *out_format = sqlite3_column_int(statement, 0);
    else
        status = fail(store, "open", error);
    (void)sqlite3_finalize(statement); // repeats an error that was told before
    return status;
}

static enum status set_up(struct store *store, struct error *error)
{
    // The lock is taken with the first read and kept: the only other user would be a second auth
    // service, which would not hear of our changes.
    TRY(exec(store,
             "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
             "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;",
             error));
    int format = 0;
    TRY(read_format(store, error, &format));
    if (format > FORMAT_VERSION)
        return error_set(error, STATUS_CORRUPT,
                         "auth.db is of format %d, this version knows up to %d", format,
                         FORMAT_VERSION);
    TRY(exec(store,
             "BEGIN IMMEDIATE;"
             "CREATE TABLE IF NOT EXISTS entries(key BLOB PRIMARY KEY, value BLOB NOT NULL,"
             " version INTEGER NOT NULL) WITHOUT ROWID;"
             "CREATE TABLE IF NOT EXISTS counter(version INTEGER NOT NULL);"
             "INSERT INTO counter SELECT 0 WHERE NOT EXISTS(SELECT * FROM counter);"
             "PRAGMA user_version=1;"
             "COMMIT;",
             error));
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        if (sqlite3_prepare_v3(store->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &store->statements[i], NULL) != SQLITE_OK)
            return fail(store, "prepare", error);
    }
    return STATUS_OK;
}

enum status account_store_sqlite_create(struct str folder, struct error *error,
                                        struct account_store **out_store)
{
    static const struct account_store_ops ops = {sqlite_get, sqlite_list, sqlite_put,
                                                 sqlite_destroy};
    char name[PATH_SIZE_MAX];
    char path[PATH_SIZE_MAX];
    if (folder.len == 0 || folder.len + sizeof("/auth.db") > sizeof(path))
        return error_set(error, STATUS_INVALID, "a data folder of %zu bytes", folder.len);
    memcpy(name, folder.data, folder.len);
    name[folder.len] = '\0';
    memcpy(path, folder.data, folder.len);
    memcpy(path + folder.len, "/auth.db", sizeof("/auth.db"));
    TRY(make_folder(name, error));
    TRY(make_file(name, path, error));

    struct store *store = mem_alloc(sizeof(*store));
    store->base.ops = &ops;
    pthread_mutex_init(&store->lock, NULL);
    enum status status = STATUS_OK;
    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK)
        status = fail(store, "open", error);
    else
        (void)sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS); // cannot fail on an open database
    if (status == STATUS_OK)
        status = set_up(store, error);
    if (status != STATUS_OK) {
        sqlite_destroy(&store->base);
        return status;
    }
    *out_store = &store->base;
    return STATUS_OK;
}
