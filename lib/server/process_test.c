#include "server/process.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "testing/test.h"

// Each test runs process_main in a child, with a service that does little.

enum { WAIT_SECONDS_MAX = 60, ARGUMENTS_MAX = 8 };

static const struct setting settings[] = {
    {"grpc-addr", "TEST_GRPC_ADDR", SETTING_STR, false, "localhost:9090", "where gRPC listens"},
    {"mode", NULL, SETTING_STR, false, "", "what the service does"},
};

static bool is_hanging;

static void *fail_later(void *unused)
{
    (void)unused;
    process_fail();
    return NULL;
}

static enum status start(struct net *net, const struct config *config, struct error *error,
                         void **out_service)
{
    struct str mode = config_str(config, "mode");
    CHECK(net_loop_count(net) == 1);
    if (str_equal_cstr(mode, "broken"))
        return error_set(error, STATUS_IO, "cannot bind");
    if (str_equal_cstr(mode, "failing")) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, fail_later, NULL) == 0);
        CHECK(pthread_detach(thread) == 0);
    }
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(limit.rlim_cur == limit.rlim_max || limit.rlim_cur >= 1 << 20);
    CHECK(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0);
    CHECK(raise(SIGPIPE) == 0); // is ignored
    ready_add("http", "127.0.0.1:2");
    ready_set_prefix("auth-");
    ready_add("grpc", "127.0.0.1:3");
    ready_set_prefix(NULL);
    ready_add("hidden", "127.0.0.1:4");
    ready_set_prefix("");
    ready_add("inner", "inproc:worker");
    ready_add("grpc", "127.0.0.1:1");
    is_hanging = str_equal_cstr(mode, "hanging");
    *out_service = &is_hanging;
    return STATUS_OK;
}

static void drain(void *instance, uint64_t grace_ns)
{
    CHECK(grace_ns == 30 * NS_PER_SECOND);
    fprintf(stderr, "draining\n");
    if (*(const bool *)instance) {
        for (;;)
            pause();
    }
}

static void stop(void *instance)
{
    CHECK(instance == &is_hanging);
    fprintf(stderr, "stopped\n");
}

static const struct service_ops service = {
    .name = "tester",
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .start = start,
    .drain = drain,
    .stop = stop,
};

struct child {
    pid_t pid;
    int out; // what it prints on stdout and stderr
    struct buf text;
};

// Arguments are separated by blanks.
static void child_start(struct child *child, const char *line)
{
    char text[300];
    char *argv[ARGUMENTS_MAX] = {NULL};
    int argc = 0;
    snprintf(text, sizeof(text), "tester %s", line);
    char *rest = text;
    for (char *word; argc < ARGUMENTS_MAX - 1 && (word = strsep(&rest, " ")) != NULL;) {
        if (word[0] != '\0')
            argv[argc++] = word;
    }
    int pipes[2];
    buf_init(&child->text, 1 << 20);
    CHECK(pipe(pipes) == 0);
    fflush(stdout);
    child->pid = fork();
    CHECK(child->pid >= 0);
    if (child->pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        alarm(WAIT_SECONDS_MAX);
        int code = process_main(&service, argc, argv);
        fflush(stdout);
        _exit(code);
    }
    close(pipes[1]);
    child->out = pipes[0];
}

// Read on until the text holds words; NULL: to the end.
static void child_read(struct child *child, const char *words)
{
    while (words == NULL || !str_contains(buf_str(&child->text), str_from_cstr(words))) {
        uint8_t *room = buf_reserve(&child->text, 4096);
        ssize_t got = read(child->out, room, 4096);
        if (got <= 0) {
            CHECK(words == NULL);
            return;
        }
        buf_commit(&child->text, (size_t)got);
    }
}

// To the end; the exit code, or the negative number of the signal.
static int child_end(struct child *child)
{
    int status = 0;
    child_read(child, NULL);
    close(child->out);
    CHECK(waitpid(child->pid, &status, 0) == child->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void check_run(const char *line, int code, const char *words)
{
    struct child child;
    child_start(&child, line);
    CHECK_EQ_I64(child_end(&child), code);
    CHECK_CONTAINS(buf_str(&child.text), str_from_cstr(words));
    CHECK(!str_contains(buf_str(&child.text), STR("CHECK(")));
    buf_deinit(&child.text);
}

TEST(answers_without_starting)
{
    check_run("--version", 0, "vectron 0.");
    check_run("--help", 0, "Usage: tester [--flag=value ...]\n\nFlags:\n  --grpc-addr=TEXT");
    check_run("-h", 0, "--log-level=TEXT");
    check_run("--print-config --grpc-addr :1", 0, "grpc-addr=:1  # flag\nmode=  # default\n");
}

TEST(mistakes_end_with_two)
{
    check_run("--grpc-adr :1", 2, "tester: unknown flag --grpc-adr, did you mean --grpc-addr?\n");
    check_run("--loops=many", 2, "tester: --loops: \"many\" is not a whole number");
    check_run("--loops=99999999999", 2, "tester: --loops: 99999999999 is too large");
    check_run("--log-level=loud", 2, "tester: --log-level: \"loud\" is none of");
    check_run("--log-format=xml", 2, "tester: --log-format: \"xml\" is neither");
    check_run("word", 2, "tester: unexpected argument \"word\"");
}

TEST(a_start_that_fails_ends_with_one)
{
    check_run("--loops=1 --mode=broken", 1, "tester: cannot start: cannot bind\n");
}

TEST(signals_drain_and_exit_zero)
{
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        struct child child;
        child_start(&child, "--loops=1 --pool-threads=1");
        child_read(&child, "tester ready grpc=127.0.0.1:1 http=127.0.0.1:2 "
                           "auth-grpc=127.0.0.1:3\n");
        CHECK(kill(child.pid, signals[i]) == 0);
        CHECK_EQ_I64(child_end(&child), 0);
        CHECK_CONTAINS(buf_str(&child.text), STR("draining\nstopped\n"));
        CHECK(!str_contains(buf_str(&child.text), STR("CHECK(")));
        buf_deinit(&child.text);
    }
}

TEST(a_failure_ends_it_too)
{
    check_run("--loops=1 --mode=failing", 1, "draining\nstopped\n");
}

// Two at the same instant are one wish; one that comes later ends the process at once.
TEST(a_second_signal_ends_at_once)
{
    struct child child;
    child_start(&child, "--loops=1 --mode=hanging");
    child_read(&child, "ready");
    CHECK(kill(child.pid, SIGTERM) == 0);
    child_read(&child, "draining");
    struct pollfd end = {.fd = child.out, .events = POLLIN};
    for (int i = 0; i < 100; i++) {
        CHECK(kill(child.pid, SIGTERM) == 0);
        if (poll(&end, 1, 100) > 0)
            break;
    }
    CHECK_EQ_I64(child_end(&child), 128 + SIGTERM);
    CHECK(!str_contains(buf_str(&child.text), STR("stopped")));
    buf_deinit(&child.text);
}

TEST_MAIN()
