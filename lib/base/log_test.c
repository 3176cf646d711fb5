#include "base/log.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "testing/test.h"

enum { THREAD_COUNT = 4, LINE_COUNT = 300 };

// 2023-11-14T22:13:20.007Z
static uint64_t fixed_ms(void)
{
    return 1700000000007;
}

static const struct clock_source fixed_clock = {NULL, fixed_ms};

// Standard error goes into a file while `body` runs; what came is in out.
static void capture(void (*body)(void), struct buf *out)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/log", test_temporary_folder());
    int file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int before = dup(STDERR_FILENO);
    REQUIRE(file >= 0 && before >= 0 && dup2(file, STDERR_FILENO) >= 0);
    body();
    CHECK(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    buf_init(out, 1 << 24);
    for (;;) {
        uint8_t *room = buf_reserve(out, 65536);
        ssize_t got = pread(file, room, 65536, (off_t)out->len);
        if (got <= 0)
            break;
        buf_commit(out, (size_t)got);
    }
    close(file);
}

static void write_text(void)
{
    log_info("shard opened", LOG_U64("shard", 7), LOG_STR("collection", STR("my words")),
             LOG_CSTR("path", "/data/x.log"), LOG_I64("delta", -3), LOG_DOUBLE("ms", 1.25));
    log_warn("plain");
    log_debug("not shown");
}

TEST(text_lines)
{
    struct buf out;
    clock_set_source(&fixed_clock);
    log_set_service("worker");
    capture(write_text, &out);
    clock_set_source(NULL);
    CHECK_STR(buf_str(&out),
              STR("time=2023-11-14T22:13:20.007Z level=info service=worker event=\"shard opened\" "
                  "shard=7 collection=\"my words\" path=/data/x.log delta=-3 ms=1.25\n"
                  "time=2023-11-14T22:13:20.007Z level=warn service=worker event=plain\n"));
    buf_deinit(&out);
}

static void write_json(void)
{
    log_error("it broke", LOG_CSTR("why", "a \"quoted\" \\ path"), LOG_U64("n", UINT64_MAX),
              LOG_DOUBLE("ratio", NAN), LOG_STR("empty", (struct str){0}));
}

TEST(json_lines)
{
    struct buf out;
    clock_set_source(&fixed_clock);
    log_set_format(LOG_FORMAT_JSON);
    capture(write_json, &out);
    log_set_format(LOG_FORMAT_TEXT);
    clock_set_source(NULL);
    CHECK_STR(buf_str(&out),
              STR("{\"time\":\"2023-11-14T22:13:20.007Z\",\"level\":\"error\","
                  "\"service\":\"worker\",\"event\":\"it broke\","
                  "\"why\":\"a \\\"quoted\\\" \\\\ path\",\"n\":18446744073709551615,"
                  "\"ratio\":null,\"empty\":\"\"}\n"));
    buf_deinit(&out);
}

static const char hostile[] = "x\ntime=1 level=info event=\"all is well\"\r\x1b[2J\x07\x7f"
                              "\xC2\x85\xFF\xE2\x80 end";

static void write_hostile(void)
{
    log_warn("login failed", LOG_STR("email", ((struct str){hostile, sizeof(hostile) - 1})),
             LOG_STR("nul", STR("a\0b")));
}

// No value can end its line, its quotes, or speak to the terminal; the line stays UTF-8.
TEST(values_cannot_forge_lines)
{
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        struct buf out;
        log_set_format((enum log_format)format);
        capture(write_hostile, &out);
        struct str line = buf_str(&out);
        CHECK(line.len > 0 && line.data[line.len - 1] == '\n');
        line.len--;
        for (size_t i = 0; i < line.len; i++)
            CHECK((unsigned char)line.data[i] >= 0x20 && line.data[i] != 0x7F);
        CHECK(str_is_utf8(line));
        CHECK_CONTAINS(line, STR("x\\ntime=1 level=info event=\\\"all is well\\\"\\r\\u001b[2J"
                                 "\\u0007\\u007f\\u0085\\ufffd\\ufffd\\ufffd end\""));
        CHECK_CONTAINS(line, STR("\"a\\u0000b\""));
        buf_deinit(&out);
    }
    log_set_format(LOG_FORMAT_TEXT);
}

static void write_long(void)
{
    static char text[100000];
    memset(text, '\n', sizeof(text));
    log_info("long", LOG_STR("text", ((struct str){text, sizeof(text)})), LOG_U64("last", 1));
}

TEST(long_values_are_cut)
{
    struct buf out;
    capture(write_long, &out);
    CHECK(out.len < 5000);
    CHECK(str_ends_with(buf_str(&out), STR("...\" last=1\n")));
    buf_deinit(&out);
}

TEST(levels)
{
    enum log_level level = LOG_OFF;
    CHECK(log_level_from_str(STR("DEBUG"), &level) && level == LOG_DEBUG);
    CHECK(log_level_from_str(STR("warning"), &level) && level == LOG_WARN);
    CHECK(log_level_from_str(STR("off"), &level) && level == LOG_OFF);
    CHECK(!log_level_from_str(STR("loud"), &level));
    CHECK(log_is_on(LOG_INFO) && !log_is_on(LOG_DEBUG));
    log_set_level(LOG_OFF);
    CHECK(!log_is_on(LOG_ERROR) && !log_is_on(LOG_OFF));
    log_set_level(LOG_INFO);
}

static void *write_many(void *thread)
{
    for (unsigned i = 0; i < LINE_COUNT; i++)
        log_info("from a thread", LOG_CSTR("thread", thread), LOG_U64("line", i));
    return NULL;
}

static void write_from_threads(void)
{
    static char names[THREAD_COUNT][2];
    pthread_t threads[THREAD_COUNT];
    for (int i = 0; i < THREAD_COUNT; i++) {
        names[i][0] = (char)('a' + i);
        CHECK(pthread_create(&threads[i], NULL, write_many, names[i]) == 0);
    }
    for (int i = 0; i < THREAD_COUNT; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

TEST(lines_of_threads_do_not_mix)
{
    struct buf out;
    capture(write_from_threads, &out);
    struct str rest = buf_str(&out);
    unsigned count = 0;
    while (rest.len > 0) {
        struct str line = str_cut(&rest, '\n');
        CHECK(str_starts_with(line, STR("time=")));
        CHECK_CONTAINS(line, STR(" event=\"from a thread\" thread="));
        count++;
    }
    CHECK_EQ_U64(count, THREAD_COUNT * LINE_COUNT);
    buf_deinit(&out);
}

TEST_MAIN()
