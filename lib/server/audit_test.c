#include "server/audit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing/test.h"

enum { PATH_SIZE = 700, TEXT_SIZE = 64 << 10, THREAD_COUNT = 4, ROUNDS = 200 };

static struct error error;

static void path_of(const char *folder, const char *name, char path[static PATH_SIZE])
{
    int len = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    CHECK(len > 0 && len < PATH_SIZE);
}

static struct audit *open_log(const char *folder)
{
    struct audit *audit = NULL;
    error.text[0] = '\0';
    if (!CHECK_OK(audit_open(str_from_cstr(folder), &error, &audit)))
        fprintf(stderr, "%s\n", error.text);
    return audit;
}

static void add(struct audit *audit, const char *what)
{
    CHECK_OK(audit_add(audit,
                       &(struct audit_event){.who = STR("user-1"),
                                             .what = str_from_cstr(what),
                                             .target = STR("vtk_abcdefgh"),
                                             .from = STR("127.0.0.1"),
                                             .result = STR("ok")},
                       &error));
}

static size_t read_file(const char *path, char text[static TEXT_SIZE])
{
    FILE *file = fopen(path, "r");
    size_t size = file != NULL ? fread(text, 1, TEXT_SIZE - 1, file) : 0;
    text[size] = '\0';
    if (file != NULL)
        CHECK(fclose(file) == 0);
    return size;
}

static void write_file(const char *path, const char *text, size_t size)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fwrite(text, 1, size, file) == size && fclose(file) == 0);
}

static enum status check(const char *path, struct audit_chain *chain)
{
    *chain = (struct audit_chain){0};
    return audit_check_file(path, chain, &error);
}

TEST(events_come_back)
{
    char folder[PATH_SIZE];
    char path[PATH_SIZE];
    struct audit_page page = {0};
    struct audit_chain chain;
    struct stat info;
    path_of(test_temporary_folder(), "a/deep/folder", folder);
    path_of(folder, "audit.log", path);
    struct audit *audit = open_log(folder);
    struct arena *arena = arena_create(1 << 20);
    add(audit, "Login");
    add(audit, "a \"quoted\"\\\n\xc3\xa4 text");
    add(audit, "Logout");
    CHECK_OK(audit_read(audit, 0, 100, arena, &error, &page));
    REQUIRE(page.count == 3);
    CHECK_EQ_U64(page.events[0].sequence, 1);
    CHECK(page.events[0].time_unix_ms > 1700000000000);
    CHECK_STR(page.events[0].who, STR("user-1"));
    CHECK_STR(page.events[0].what, STR("Login"));
    CHECK_STR(page.events[0].target, STR("vtk_abcdefgh"));
    CHECK_STR(page.events[0].from, STR("127.0.0.1"));
    CHECK_STR(page.events[0].result, STR("ok"));
    CHECK_STR(page.events[1].what, STR("a ?quoted????? text"));
    CHECK_OK(audit_read(audit, 1, 1, arena, &error, &page));
    CHECK(page.count == 1 && page.events[0].sequence == 2);
    CHECK_OK(audit_read(audit, 3, 100, arena, &error, &page));
    CHECK_EQ_U64(page.count, 0);
    CHECK_OK(audit_read(audit, UINT64_MAX, 100, arena, &error, &page));
    CHECK_EQ_U64(page.count, 0);
    CHECK_OK(audit_read(audit, 0, 0, arena, &error, &page));
    CHECK_EQ_U64(page.count, 0);
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
    CHECK_OK(check(path, &chain));
    CHECK(chain.count == 3 && chain.sequence == 3);
    audit_close(audit);
    arena_destroy(arena);
}

TEST(the_chain_goes_on_after_a_restart)
{
    char path[PATH_SIZE];
    struct audit_chain chain;
    const char *folder = test_temporary_folder();
    path_of(folder, "audit.log", path);
    for (int i = 0; i < 3; i++) {
        struct audit *audit = open_log(folder);
        add(audit, "Start");
        add(audit, "Login");
        audit_close(audit);
    }
    CHECK_OK(check(path, &chain));
    CHECK_EQ_U64(chain.count, 6);
}

TEST(a_cut_last_line_goes)
{
    char path[PATH_SIZE];
    static char text[TEXT_SIZE];
    struct audit_chain chain;
    const char *folder = test_temporary_folder();
    path_of(folder, "audit.log", path);
    struct audit *audit = open_log(folder);
    add(audit, "one");
    add(audit, "two");
    audit_close(audit);
    size_t size = read_file(path, text);
    write_file(path, text, size - 5);
    CHECK_STATUS(check(path, &chain), STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("cut"));
    audit = open_log(folder);
    add(audit, "three");
    audit_close(audit);
    CHECK_OK(check(path, &chain));
    CHECK(chain.count == 2 && chain.sequence == 2);
}

// Every byte of a log, changed; every line, taken out, doubled or swapped.
TEST(a_changed_log_shows)
{
    char path[PATH_SIZE];
    static char text[TEXT_SIZE];
    static char changed[TEXT_SIZE];
    struct audit_chain chain;
    const char *folder = test_temporary_folder();
    path_of(folder, "audit.log", path);
    struct audit *audit = open_log(folder);
    for (int i = 0; i < 4; i++)
        add(audit, "Login");
    audit_close(audit);
    size_t size = read_file(path, text);
    size_t line_size = size / 4; // numbers of one digit: all lines are equally long
    for (size_t i = 0; i < size; i++) {
        memcpy(changed, text, size);
        changed[i] ^= 1;
        write_file(path, changed, size);
        CHECK_STATUS(check(path, &chain), STATUS_CORRUPT);
    }
    memcpy(changed, text, line_size);
    memcpy(changed + line_size, text + 2 * line_size, 2 * line_size);
    write_file(path, changed, 3 * line_size); // without the second
    CHECK_STATUS(check(path, &chain), STATUS_CORRUPT);
    memcpy(changed + line_size, text, line_size);
    write_file(path, changed, 2 * line_size); // the first one twice
    CHECK_STATUS(check(path, &chain), STATUS_CORRUPT);
    memcpy(changed, text + line_size, line_size);
    write_file(path, changed, 2 * line_size); // the second before the first
    CHECK_STATUS(check(path, &chain), STATUS_CORRUPT);
    // Service goes on in a new chain, and what was found is kept.
    char kept[PATH_SIZE];
    audit = open_log(folder);
    add(audit, "after");
    audit_close(audit);
    CHECK_OK(check(path, &chain));
    CHECK_EQ_U64(chain.count, 1);
    path_of(folder, "audit-00000000000000000003.log", kept);
    CHECK_STATUS(check(kept, &chain), STATUS_CORRUPT);
    audit = open_log(folder); // and again after the next start
    add(audit, "after");
    audit_close(audit);
    CHECK_OK(check(path, &chain));
    CHECK_EQ_U64(chain.count, 2);
}

TEST(full_files_are_put_aside_and_the_oldest_go)
{
    enum { FILE_SIZE = 16 << 20, KEPT = 8 };
    char long_text[AUDIT_TEXT_SIZE_MAX + 1];
    char path[PATH_SIZE];
    struct audit_page page = {0};
    struct audit_chain chain = {0};
    const char *folder = test_temporary_folder();
    struct audit *audit = open_log(folder);
    struct arena *arena = arena_create(64 << 20);
    memset(long_text, 'x', AUDIT_TEXT_SIZE_MAX);
    long_text[AUDIT_TEXT_SIZE_MAX] = '\0';
    struct str text = str_from_cstr(long_text);
    const uint64_t line_size = 5 * AUDIT_TEXT_SIZE_MAX + 200; // and a little more
    const uint64_t count = (KEPT + 3) * (FILE_SIZE / line_size);
    for (uint64_t i = 0; i < count; i++) {
        struct audit_event event = {
            .who = text, .what = text, .target = text, .from = text, .result = text};
        if (!CHECK_OK(audit_add(audit, &event, &error)))
            break;
    }
    // The newest come back across the border of two files, the oldest are gone.
    CHECK_OK(audit_read(audit, count - 1000, 1000, arena, &error, &page));
    CHECK_EQ_U64(page.count, 1000);
    CHECK_EQ_U64(page.events[999].sequence, count);
    arena_reset(arena);
    CHECK_OK(audit_read(audit, 0, 1, arena, &error, &page));
    REQUIRE(page.count == 1);
    uint64_t first = page.events[0].sequence;
    CHECK(first > FILE_SIZE / line_size);
    // The files are one chain, in order.
    uint64_t next = first;
    for (int i = 0; i < KEPT; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "audit-%020llu.log", (unsigned long long)next);
        path_of(folder, name, path);
        CHECK_OK(audit_check_file(path, &chain, &error));
        next = chain.sequence + 1;
    }
    path_of(folder, "audit.log", path);
    CHECK_OK(audit_check_file(path, &chain, &error));
    CHECK_EQ_U64(chain.sequence, count);
    CHECK_EQ_U64(chain.count, count - first + 1);
    audit_close(audit);
    arena_destroy(arena);
}

static void *add_many(void *context)
{
    for (int i = 0; i < ROUNDS; i++)
        add(context, "Login");
    return NULL;
}

TEST(many_threads_write_one_chain)
{
    pthread_t threads[THREAD_COUNT];
    char path[PATH_SIZE];
    struct audit_chain chain;
    const char *folder = test_temporary_folder();
    struct audit *audit = open_log(folder);
    struct arena *arena = arena_create(16 << 20);
    struct audit_page page;
    for (int i = 0; i < THREAD_COUNT; i++)
        CHECK(pthread_create(&threads[i], NULL, add_many, audit) == 0);
    CHECK_OK(audit_read(audit, 0, AUDIT_PAGE_MAX, arena, &error, &page));
    for (int i = 0; i < THREAD_COUNT; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    audit_close(audit);
    path_of(folder, "audit.log", path);
    CHECK_OK(check(path, &chain));
    CHECK_EQ_U64(chain.count, THREAD_COUNT * ROUNDS);
    arena_destroy(arena);
}

TEST(a_folder_that_cannot_be_made)
{
    struct audit *audit = NULL;
    CHECK_STATUS(audit_open(STR("/proc/none/audit"), &error, &audit), STATUS_IO);
    CHECK_STATUS(audit_open(STR(""), &error, &audit), STATUS_INVALID);
}

TEST_MAIN()
