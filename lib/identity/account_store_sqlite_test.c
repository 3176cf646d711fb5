#include "identity/account_store_sqlite.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing/test.h"

static char folder[64];

static void set_up(void)
{
    snprintf(folder, sizeof(folder), "/tmp/account-store-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
}

static void tear_down(void)
{
    static const char *const names[] = {"auth.db", "auth.db-wal", "auth.db-shm", "auth.db-journal"};
    char path[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    CHECK(rmdir(folder) == 0);
}

static struct account_store *open_store(void)
{
    struct account_store *store = NULL;
    struct error error = {0};
    enum status status = account_store_sqlite_create(str_from_cstr(folder), &error, &store);
    CHECK(status == STATUS_OK);
    if (status != STATUS_OK) {
        printf("%s\n", error.text);
        abort();
    }
    return store;
}

static enum status put(struct account_store *store, const char *key, const char *value,
                       uint64_t version)
{
    struct account_entry entry = {
        .key = str_from_cstr(key), .value = str_from_cstr(value), .version = version};
    return account_store_put(store, &entry, 1, NULL);
}

static uint64_t version_of(struct account_store *store, const char *key)
{
    struct arena *arena = arena_create(1 << 20);
    struct account_entry entry = {0};
    enum status status = account_store_get(store, str_from_cstr(key), arena, NULL, &entry);
    CHECK(status == STATUS_OK || status == STATUS_NOT_FOUND);
    arena_destroy(arena);
    return status == STATUS_OK ? entry.version : 0;
}

static bool holds(struct account_store *store, const char *key, const char *value)
{
    struct arena *arena = arena_create(1 << 20);
    struct account_entry entry = {0};
    enum status status = account_store_get(store, str_from_cstr(key), arena, NULL, &entry);
    bool is_right = value == NULL ? status == STATUS_NOT_FOUND
                                  : status == STATUS_OK && str_equal_cstr(entry.value, value) &&
                                        str_equal_cstr(entry.key, key);
    arena_destroy(arena);
    return is_right;
}

TEST(compare_and_set)
{
    set_up();
    struct account_store *store = open_store();
    CHECK(holds(store, "a", NULL));
    CHECK(put(store, "a", "1", 0) == STATUS_OK);
    CHECK(holds(store, "a", "1"));
    uint64_t version = version_of(store, "a");
    CHECK(version > 0);
    CHECK(put(store, "a", "2", 0) == STATUS_ABORTED);
    CHECK(put(store, "a", "2", version + 1) == STATUS_ABORTED);
    CHECK(put(store, "b", "2", version) == STATUS_ABORTED);
    CHECK(put(store, "a", "", version) == STATUS_OK);
    CHECK(holds(store, "a", "") && version_of(store, "a") > version);
    // Removed and made again: an old version does not fit.
    version = version_of(store, "a");
    struct account_entry removal = {.key = STR("a"), .version = version, .is_removed = true};
    CHECK(account_store_put(store, &removal, 1, NULL) == STATUS_OK);
    CHECK(account_store_put(store, &removal, 1, NULL) == STATUS_ABORTED);
    CHECK(put(store, "a", "3", 0) == STATUS_OK);
    CHECK(put(store, "a", "4", version) == STATUS_ABORTED);
    account_store_destroy(store);
    tear_down();
}

TEST(all_or_nothing)
{
    set_up();
    struct account_store *store = open_store();
    CHECK(put(store, "taken", "1", 0) == STATUS_OK);
    const struct account_entry entries[] = {{.key = STR("new"), .value = STR("x")},
                                            {.key = STR("taken"), .value = STR("x")}};
    CHECK(account_store_put(store, entries, 2, NULL) == STATUS_ABORTED);
    CHECK(holds(store, "new", NULL) && holds(store, "taken", "1"));
    CHECK(account_store_put(store, entries, 1, NULL) == STATUS_OK);
    CHECK(holds(store, "new", "x"));
    char large[ACCOUNT_KEY_SIZE_MAX + 1];
    memset(large, 'k', sizeof(large));
    struct account_entry entry = {.key = {large, sizeof(large)}};
    CHECK(account_store_put(store, &entry, 1, NULL) == STATUS_INVALID);
    entry.key.len = 0;
    CHECK(account_store_put(store, &entry, 1, NULL) == STATUS_INVALID);
    account_store_destroy(store);
    tear_down();
}

TEST(lists_by_prefix_in_pages)
{
    set_up();
    struct account_store *store = open_store();
    static const char *const keys[] = {"k/1", "k/2", "k/3", "k/4", "k/5", "j/9", "k0", "k", "l/1"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        CHECK(put(store, keys[i], keys[i], 0) == STATUS_OK);
    struct arena *arena = arena_create(1 << 20);
    struct account_page page;
    struct account_list list = {.prefix = STR("k/"), .limit = 2};
    CHECK(account_store_list(store, &list, arena, NULL, &page) == STATUS_OK);
    CHECK(page.count == 2 && page.has_more);
    CHECK(str_equal_cstr(page.entries[0].key, "k/1") && str_equal_cstr(page.entries[1].key, "k/2"));
    CHECK(str_equal_cstr(page.entries[1].value, "k/2") && page.entries[1].version > 0);
    list.after = STR("k/4");
    CHECK(account_store_list(store, &list, arena, NULL, &page) == STATUS_OK);
    CHECK(page.count == 1 && !page.has_more && str_equal_cstr(page.entries[0].key, "k/5"));
    list = (struct account_list){.prefix = STR("k/"), .limit = 5};
    CHECK(account_store_list(store, &list, arena, NULL, &page) == STATUS_OK);
    CHECK(page.count == 5 && !page.has_more);
    list = (struct account_list){.prefix = STR(""), .limit = 100};
    CHECK(account_store_list(store, &list, arena, NULL, &page) == STATUS_OK);
    CHECK(page.count == 9 && !page.has_more);
    list = (struct account_list){.prefix = STR("x"), .limit = 100};
    CHECK(account_store_list(store, &list, arena, NULL, &page) == STATUS_OK);
    CHECK(page.count == 0 && !page.has_more);
    arena_destroy(arena);
    account_store_destroy(store);
    tear_down();
}

TEST(is_there_after_a_kill)
{
    set_up();
    pid_t child = fork();
    if (child == 0) {
        struct account_store *store = open_store();
        if (put(store, "a", "1", 0) != STATUS_OK)
            _exit(1);
        _exit(0); // without closing
    }
    int result = 1;
    CHECK(waitpid(child, &result, 0) == child && result == 0);
    struct account_store *store = open_store();
    CHECK(holds(store, "a", "1"));
    uint64_t version = version_of(store, "a");
    CHECK(put(store, "b", "1", 0) == STATUS_OK && version_of(store, "b") > version);
    account_store_destroy(store);
    tear_down();
}

TEST(files_are_private_and_locked)
{
    set_up();
    struct account_store *store = open_store();
    CHECK(put(store, "a", "1", 0) == STATUS_OK);
    char path[128];
    struct stat status;
    snprintf(path, sizeof(path), "%s/auth.db", folder);
    CHECK(stat(path, &status) == 0 && (status.st_mode & 0777) == 0600);
    snprintf(path, sizeof(path), "%s/auth.db-wal", folder);
    CHECK(stat(path, &status) == 0 && (status.st_mode & 0777) == 0600);
    struct account_store *second;
    struct error error = {0};
    CHECK(account_store_sqlite_create(str_from_cstr(folder), &error, &second) == STATUS_IO);
    CHECK(strstr(error.text, "another process") != NULL);
    account_store_destroy(store);
    tear_down();
}

TEST(refuses_a_file_that_is_not_ours)
{
    set_up();
    char path[128];
    snprintf(path, sizeof(path), "%s/auth.db", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0);
    char text[8192];
    memset(text, 'x', sizeof(text));
    CHECK(write(fd, text, sizeof(text)) == sizeof(text));
    close(fd);
    struct account_store *store;
    struct error error = {0};
    CHECK(account_store_sqlite_create(str_from_cstr(folder), &error, &store) == STATUS_CORRUPT);
    CHECK(account_store_sqlite_create(STR("/proc/none/x"), &error, &store) == STATUS_IO);
    tear_down();
}

static atomic_int won_count;

static void *create_one(void *context)
{
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key %d", i);
        enum status status = put(context, key, "x", 0);
        CHECK(status == STATUS_OK || status == STATUS_ABORTED);
        atomic_fetch_add(&won_count, status == STATUS_OK);
    }
    return NULL;
}

TEST(one_of_many_wins)
{
    set_up();
    struct account_store *store = open_store();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, create_one, store) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&won_count) == 20);
    account_store_destroy(store);
    tear_down();
}

TEST_MAIN()
