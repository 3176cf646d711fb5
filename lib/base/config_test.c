#include "base/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/test.h"

static const struct setting settings[] = {
    {"grpc-addr", "TEST_GRPC_ADDR", SETTING_STR, false, "localhost:9090", "where gRPC listens"},
    {"node-id", "TEST_NODE_ID", SETTING_U64, false, "1", "the node's number"},
    {"rate-limit-rps", "TEST_RATE_LIMIT_RPS", SETTING_I64, false, "100", "requests per second"},
    {"boost", "TEST_BOOST", SETTING_DOUBLE, false, "0.5", "how much"},
    {"cache", "TEST_CACHE", SETTING_BOOL, false, "false", "keep answers"},
    {"jwt-secret", "TEST_JWT_SECRET", SETTING_STR, true, "", "a secret"},
    {"data-dir", NULL, SETTING_STR, false, "./data", "where data is kept"},
    {"shards", "TEST_SHARDS", SETTING_U64, false, "", "0: as many as workers"},
};

enum { SETTING_COUNT = sizeof(settings) / sizeof(settings[0]), ARGUMENTS_MAX = 16 };

static struct error error;

// Arguments as one text, cut at blanks. The caller destroys the config; NULL: it failed.
static struct config *read(enum status wanted, const char *line)
{
    char text[500];
    static char name[] = "program";
    char *argv[ARGUMENTS_MAX] = {name};
    int argc = 1;
    snprintf(text, sizeof(text), "%s", line);
    for (char *at = text; *at != '\0' && argc < ARGUMENTS_MAX;) {
        argv[argc++] = at;
        at += strcspn(at, " ");
        if (*at == ' ')
            *at++ = '\0';
    }
    struct config *config = NULL;
    memset(&error, 0, sizeof(error));
    CHECK_STATUS(config_create(settings, SETTING_COUNT, argc, argv, &error, &config), wanted);
    if (error.text[0] != '\0' && wanted == STATUS_OK)
        printf("    %s\n", error.text);
    return config;
}

static void check_fails(const char *line, struct str words)
{
    struct config *config = read(STATUS_INVALID, line);
    CHECK(config == NULL);
    CHECK_CONTAINS(str_from_cstr(error.text), words);
}

// NULL: not there.
static void set_variable(const char *name, const char *value)
{
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    CHECK((value == NULL ? unsetenv(name) : setenv(name, value, 1)) == 0);
}

static const char *write_file(const char *text)
{
    static char path[600];
    snprintf(path, sizeof(path), "%s/settings", test_temporary_folder());
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    return path;
}

TEST(defaults)
{
    struct config *config = read(STATUS_OK, "");
    REQUIRE(config != NULL);
    CHECK_STR(config_str(config, "grpc-addr"), STR("localhost:9090"));
    CHECK_EQ_U64(config_u64(config, "node-id"), 1);
    CHECK_EQ_I64(config_i64(config, "rate-limit-rps"), 100);
    CHECK(config_double(config, "boost") == 0.5);
    CHECK(!config_bool(config, "cache"));
    CHECK_EQ_U64(config_u64(config, "shards"), 0);
    CHECK(!config_is_set(config, "node-id"));
    CHECK(config_source(config, "node-id") == CONFIG_DEFAULT);
    CHECK(config_has(config, "node-id") && !config_has(config, "node"));
    CHECK(!config_wants_help(config) && !config_wants_version(config) &&
          !config_wants_print(config));
    config_destroy(config);
    config_destroy(NULL);
}

TEST(both_ways_to_write_a_flag)
{
    struct config *config = read(STATUS_OK, "--grpc-addr=:1 --node-id 7 --rate-limit-rps -1 "
                                            "--boost=1e-2 --cache word -- --node-id");
    REQUIRE(config != NULL);
    CHECK_STR(config_str(config, "grpc-addr"), STR(":1"));
    CHECK_EQ_U64(config_u64(config, "node-id"), 7);
    CHECK_EQ_I64(config_i64(config, "rate-limit-rps"), -1);
    CHECK(config_double(config, "boost") == 0.01);
    CHECK(config_bool(config, "cache"));
    CHECK(config_source(config, "cache") == CONFIG_FLAG);
    CHECK_EQ_U64(config_word_count(config), 2);
    CHECK_STR(config_word(config, 0), STR("word"));
    CHECK_STR(config_word(config, 1), STR("--node-id"));
    config_destroy(config);
}

TEST(values_of_flags)
{
    struct config *config = read(STATUS_OK, "--cache false --node-id=1 --node-id=2 --data-dir=a=b "
                                            "--grpc-addr= --jwt-secret=--x -");
    REQUIRE(config != NULL);
    CHECK(!config_bool(config, "cache"));
    CHECK(config_is_set(config, "cache"));
    CHECK_EQ_U64(config_u64(config, "node-id"), 2); // the last one counts
    CHECK_STR(config_str(config, "data-dir"), STR("a=b"));
    CHECK_STR(config_str(config, "grpc-addr"), STR(""));
    CHECK_STR(config_str(config, "jwt-secret"), STR("--x"));
    CHECK_STR(config_word(config, 0), STR("-"));
    config_destroy(config);
}

TEST(mistakes_are_named)
{
    check_fails("--grpc-adr=:1", STR("unknown flag --grpc-adr, did you mean --grpc-addr?"));
    check_fails("--gprc-addr :1", STR("did you mean --grpc-addr?"));
    check_fails("--GRPC_ADDR=:1", STR("did you mean --grpc-addr?"));
    check_fails("--hlep", STR("did you mean --help?"));
    check_fails("--confg x", STR("did you mean --config?"));
    check_fails("--utterly-different-from-all", STR("did you mean --"));
    check_fails("-node-id 3", STR("did you mean --node-id?"));
    check_fails("--=3", STR("unknown flag --"));
    check_fails("--node-id=abc", STR("--node-id: \"abc\" is not a whole number"));
    check_fails("--node-id=", STR("--node-id: \"\" is not a whole number"));
    check_fails("--node-id=-1", STR("--node-id: \"-1\""));
    check_fails("--boost=nan", STR("--boost: \"nan\" is not a number"));
    check_fails("--cache=maybe", STR("--cache: \"maybe\" is not true or false"));
    check_fails("--node-id", STR("--node-id needs a value"));
    check_fails("--node-id --cache", STR("--node-id needs a value"));
    check_fails("--print-config=perhaps", STR("\"perhaps\" is not true or false"));
}

TEST(environment)
{
    set_variable("TEST_GRPC_ADDR", ""); // counts as unset
    set_variable("TEST_NODE_ID", "5");
    set_variable("TEST_BOOST", "2");
    set_variable("TEST_UNKNOWN", "x");
    struct config *config = read(STATUS_OK, "--boost=3");
    REQUIRE(config != NULL);
    CHECK_STR(config_str(config, "grpc-addr"), STR("localhost:9090"));
    CHECK(!config_is_set(config, "grpc-addr"));
    CHECK_EQ_U64(config_u64(config, "node-id"), 5);
    CHECK(config_source(config, "node-id") == CONFIG_ENVIRONMENT);
    CHECK(config_double(config, "boost") == 3);
    config_destroy(config);

    set_variable("TEST_NODE_ID", "five");
    check_fails("", STR("--node-id (from TEST_NODE_ID): \"five\" is not a whole number"));
    config = read(STATUS_OK, "--node-id=6"); // the bad one is not looked at
    config_destroy(config);
    config = read(STATUS_OK, "--help");
    REQUIRE(config != NULL);
    CHECK(config_wants_help(config));
    config_destroy(config);
    set_variable("TEST_GRPC_ADDR", NULL);
    set_variable("TEST_NODE_ID", NULL);
    set_variable("TEST_BOOST", NULL);
    set_variable("TEST_UNKNOWN", NULL);
}

TEST(file)
{
    char line[700];
    snprintf(line, sizeof(line), "--node-id=9 --config %s",
             write_file("# a comment\n"
                        "\n"
                        "  grpc-addr =  :7   # where\r\n"
                        "node-id = 4\n"
                        "rate-limit-rps=5\n"
                        "cache = yes\n"
                        "jwt-secret = a#b = c"));
    set_variable("TEST_RATE_LIMIT_RPS", "6");
    struct config *config = read(STATUS_OK, line);
    set_variable("TEST_RATE_LIMIT_RPS", NULL);
    REQUIRE(config != NULL);
    CHECK_STR(config_str(config, "grpc-addr"), STR(":7"));
    CHECK(config_source(config, "grpc-addr") == CONFIG_FILE);
    CHECK_EQ_U64(config_u64(config, "node-id"), 9);
    CHECK_EQ_I64(config_i64(config, "rate-limit-rps"), 6);
    CHECK(config_bool(config, "cache"));
    CHECK_STR(config_str(config, "jwt-secret"), STR("a#b = c"));
    config_destroy(config);
}

static void check_file_fails(struct str text, struct str words)
{
    struct config *config = read(STATUS_OK, "");
    REQUIRE(config != NULL);
    CHECK_STATUS(config_read_file(config, text, "my.conf", &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), words);
    config_destroy(config);
}

TEST(mistakes_in_a_file)
{
    check_file_fails(STR("\n\nnode_id = 3"), STR("(my.conf, line 3), did you mean --node-id?"));
    check_file_fails(STR("node-id"), STR("not `name = value` (my.conf, line 1): \"node-id\""));
    check_file_fails(STR("cache=true\nnode-id = x\n"), STR("--node-id (my.conf, line 2): \"x\""));
    check_file_fails(STR("data-dir = a\0b"), STR("zero byte"));
    check_file_fails(STR("= 3"), STR("unknown flag --"));

    struct config *config = read(STATUS_IO, "--config /nonexistent/file");
    CHECK(config == NULL);
    CHECK_CONTAINS(str_from_cstr(error.text),
                   STR("--config /nonexistent/file: cannot open: No such file"));
    config = read(STATUS_IO, "--config /"); // a folder
    CHECK(config == NULL);
}

TEST(print)
{
    set_variable("TEST_NODE_ID", "5");
    struct config *config = read(STATUS_OK, "--print-config --cache --jwt-secret=hush");
    set_variable("TEST_NODE_ID", NULL);
    REQUIRE(config != NULL);
    CHECK(config_wants_print(config));
    CHECK_OK(config_read_file(config, STR("boost = 2.50"), "x", &error));
    CHECK_OK(config_set(config, "data-dir", STR("a\nb"), &error));
    struct buf out;
    buf_init(&out, 1 << 16);
    config_print(config, &out);
    CHECK_STR(buf_str(&out), STR("grpc-addr=localhost:9090  # default\n"
                                 "node-id=5  # environment\n"
                                 "rate-limit-rps=100  # default\n"
                                 "boost=2.50  # file\n"
                                 "cache=true  # flag\n"
                                 "jwt-secret=(set)  # flag\n"
                                 "data-dir=a\\x0ab  # flag\n"
                                 "shards=  # default\n"));
    buf_clear(&out);
    config_print_help(config, "Usage: program [flags]", &out);
    CHECK(str_starts_with(buf_str(&out), STR("Usage: program [flags]\n\nFlags:\n")));
    CHECK_CONTAINS(buf_str(&out), STR("  --grpc-addr=TEXT            where gRPC listens (default "
                                      "localhost:9090) [TEST_GRPC_ADDR]\n"));
    CHECK_CONTAINS(buf_str(&out), STR("--config=FILE"));
    CHECK_CONTAINS(buf_str(&out), STR("--version"));
    buf_deinit(&out);
    config_destroy(config);
}

TEST(set)
{
    struct config *config = read(STATUS_OK, "-h --version");
    REQUIRE(config != NULL);
    CHECK(config_wants_help(config) && config_wants_version(config));
    CHECK_OK(config_set(config, "node-id", STR("12"), &error));
    CHECK_EQ_U64(config_u64(config, "node-id"), 12);
    CHECK_STATUS(config_set(config, "node-id", STR("x"), &error), STATUS_INVALID);
    CHECK_EQ_U64(config_u64(config, "node-id"), 12);
    CHECK_STATUS(config_set(config, "nod-id", STR("x"), &error), STATUS_INVALID);
    config_destroy(config);
}

TEST(nearest)
{
    static const char *const names[] = {"search", "upsert", "delete", "keys"};
    CHECK_CSTR(config_nearest(names, 4, STR("serach")), "search");
    CHECK_CSTR(config_nearest(names, 4, STR("key")), "keys");
    CHECK_CSTR(config_nearest(names, 4, STR("DELETE")), "delete");
    CHECK(config_nearest(names, 4, STR("xyz")) == NULL);
    CHECK(config_nearest(names, 4, STR("")) == NULL);
    CHECK(config_nearest(names, 0, STR("search")) == NULL);
    static char long_word[5000];
    memset(long_word, 's', sizeof(long_word));
    CHECK(config_nearest(names, 4, (struct str){long_word, sizeof(long_word)}) == NULL);
}

TEST_MAIN()
