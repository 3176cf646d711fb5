#include "server/process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    FILES_MAX = 1 << 20,  // some libraries walk through all that may be open
    ADDRESSES_MAX = 16,   // in the ready line
    SETTINGS_MAX = 128,   // of one program
    SIGNAL_PAIR_MS = 200, // a terminal and a supervisor often both send one: that is one wish
    TEXT_SIZE_MAX = 1 << 20,
};

const struct setting process_settings[] = {
    {"log-level", "VECTRON_LOG_LEVEL", SETTING_STR, false, "info",
     "debug, info, warn, error or off"},
    {"log-format", "VECTRON_LOG_FORMAT", SETTING_STR, false, "text", "text or json"},
    {"loops", "VECTRON_LOOPS", SETTING_U64, false, "0",
     "threads for the network; 0: one per processor"},
    {"pool-threads", "VECTRON_POOL_THREADS", SETTING_U64, false, "0",
     "threads for slow work; 0: twice the processors, 4 at least"},
    {"pool-queue-max", "VECTRON_POOL_QUEUE_MAX", SETTING_U64, false, "1024",
     "pieces of slow work that may wait"},
    {"network-memory-max", "VECTRON_NETWORK_MEMORY_MAX", SETTING_U64, false, "1073741824",
     "bytes that all connections may buffer together"},
    {"core-dumps", "VECTRON_CORE_DUMPS", SETTING_BOOL, false, "false",
     "leave core dumps, which hold secrets"},
};
const uint32_t process_setting_count = sizeof(process_settings) / sizeof(process_settings[0]);

struct process {
    struct net *net;
    sigset_t signals; // SIGTERM and SIGINT: blocked everywhere, waited for
    pthread_t watcher;
    bool has_watcher;
    int first_signal;
    atomic_bool has_ended;
};

static atomic_bool has_failed;

const char *version_text(void)
{
#if defined(__clang__)
    return "vectron " VECTRON_VERSION " (clang " __clang_version__ ")";
#else
    return "vectron " VECTRON_VERSION " (gcc " __VERSION__ ")";
#endif
}

// --- The ready line

static struct {
    char name[32];
    char address[280];
} addresses[ADDRESSES_MAX];
static unsigned address_count;
static const char *address_prefix = "";

void ready_set_prefix(const char *prefix)
{
    address_prefix = prefix;
}

void ready_add(const char *name, const char *address)
{
    if (address_prefix == NULL || strncmp(address, "inproc:", 7) == 0)
        return;
    ASSERT(address_count < ADDRESSES_MAX);
    // Names are ours and addresses were parsed: both are short.
    (void)snprintf(addresses[address_count].name, sizeof(addresses[0].name), "%s%s", address_prefix,
                   name);
    (void)snprintf(addresses[address_count].address, sizeof(addresses[0].address), "%s", address);
    address_count++;
}

// gRPC first, then HTTP, then the others as they came.
static int rank_of(const char *name)
{
    return strcmp(name, "grpc") == 0 ? 0 : strcmp(name, "http") == 0 ? 1 : 2;
}

void process_print_ready(struct process *process, const char *binary)
{
    (void)process;
    struct buf line;
    buf_init(&line, TEXT_SIZE_MAX);
    buf_append_format(&line, "%s ready", binary);
    for (int rank = 0; rank <= 2; rank++) {
        for (unsigned i = 0; i < address_count; i++) {
            if (rank_of(addresses[i].name) == rank)
                buf_append_format(&line, " %s=%s", addresses[i].name, addresses[i].address);
        }
    }
    buf_append_byte(&line, '\n');
    // Nobody may be reading; the service is ready all the same.
    (void)fwrite(line.data, 1, line.len, stdout);
    (void)fflush(stdout);
    buf_deinit(&line);
}

// --- Before the first thread

// A socket that got the number of a closed standard stream would receive log lines.
static void fill_standard_streams(void)
{
    for (;;) {
        int file = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (file < 0 || file > STDERR_FILENO) {
            if (file >= 0)
                (void)close(file);
            return;
        }
        (void)fcntl(file, F_SETFD, 0); // like the standard stream whose place it takes
    }
}

static void set_limits(const struct config *config)
{
    // Best effort: a lower limit is met later, with a message where it is met.
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max < FILES_MAX ? limit.rlim_max : FILES_MAX;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (config_has(config, "core-dumps") && !config_bool(config, "core-dumps")) {
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
    }
}

// glibc would give up to eight heaps to every processor, each of which keeps what it once grew to,
// and after the first large request it would keep large blocks too.
static void tune_malloc(void)
{
    static const int block_size_kept_max = 4 << 20;
    // NOLINTBEGIN(concurrency-mt-unsafe): before the first thread
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    // One for the main thread and one for each loop, which are the first to ask for theirs.
    (void)mallopt(M_ARENA_MAX, processors > 2 ? (int)processors + 1 : 3);
    (void)mallopt(M_MMAP_THRESHOLD, block_size_kept_max);
    (void)mallopt(M_TRIM_THRESHOLD, 4 * block_size_kept_max);
    // NOLINTEND(concurrency-mt-unsafe)
}

static enum status set_log(const struct config *config, struct error *error)
{
    if (!config_has(config, "log-level"))
        return STATUS_OK;
    enum log_level level = LOG_INFO;
    struct str text = config_str(config, "log-level");
    if (!log_level_from_str(text, &level))
        return error_set(error, STATUS_INVALID,
                         "--log-level: \"%s\" is none of debug, info, warn, error, off", text.data);
    struct str format = config_str(config, "log-format");
    if (!str_equal_cstr(format, "text") && !str_equal_cstr(format, "json"))
        return error_set(error, STATUS_INVALID, "--log-format: \"%s\" is neither text nor json",
                         format.data);
    log_set_level(level);
    log_set_format(str_equal_cstr(format, "json") ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
    return STATUS_OK;
}

static enum status read_u32(const struct config *config, const char *name, struct error *error,
                            uint32_t *out_value)
{
    if (!config_has(config, name))
        return STATUS_OK;
    uint64_t value = config_u64(config, name);
    if (value > UINT32_MAX)
        return error_set(error, STATUS_INVALID, "--%s: %llu is too large", name,
                         (unsigned long long)value);
    *out_value = (uint32_t)value;
    return STATUS_OK;
}

static enum status create_net(const struct config *config, struct error *error,
                              struct net **out_net)
{
    struct net_options options = {0};
    TRY(read_u32(config, "loops", error, &options.loop_count));
    TRY(read_u32(config, "pool-threads", error, &options.pool_thread_count));
    TRY(read_u32(config, "pool-queue-max", error, &options.pool_queue_max));
    if (config_has(config, "network-memory-max"))
        options.memory_max = (size_t)config_u64(config, "network-memory-max");
    return net_create(&options, error, out_net);
}

// --- Life cycle

enum status process_create(const struct config *config, struct error *error,
                           struct process **out_process)
{
    TRY(set_log(config, error));
    fill_standard_streams();
    set_limits(config);
    tune_malloc();

    struct process *process = mem_alloc(sizeof(*process));
    // Threads inherit what is blocked, so only process_wait and its watcher ever see these.
    sigemptyset(&process->signals);
    sigaddset(&process->signals, SIGTERM);
    sigaddset(&process->signals, SIGINT);
    ASSERT(pthread_sigmask(SIG_BLOCK, &process->signals, NULL) == 0);
    // A peer that goes away is an error of its write, not the end of the process.
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    ASSERT(sigaction(SIGPIPE, &ignore, NULL) == 0);

    enum status status = create_net(config, error, &process->net);
    if (status != STATUS_OK) {
        mem_free(process);
        return status;
    }
    *out_process = process;
    return STATUS_OK;
}

struct net *process_net(struct process *process)
{
    return process->net;
}

void process_fail(void)
{
    atomic_store(&has_failed, true);
    // To the process, not to the thread: every thread has it blocked, process_wait takes it.
    (void)kill(getpid(), SIGTERM);
}

// Wait for a signal until the given time (monotonic); 0 when the time has come.
static int wait_signal(const sigset_t *signals, uint64_t end_ns)
{
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= end_ns)
            return 0;
        uint64_t left_ns = end_ns - now_ns;
        struct timespec left = {(time_t)(left_ns / NS_PER_SECOND), (long)(left_ns % NS_PER_SECOND)};
        int number = sigtimedwait(signals, NULL, &left);
        if (number > 0)
            return number;
    }
}

static void end_at_once(const char *reason, int code) __attribute__((noreturn));

static void end_at_once(const char *reason, int code)
{
    log_error("ended at once", LOG_CSTR("reason", reason));
    _exit(code);
}

// Sees to it that the process really ends.
static void *watch_end(void *argument)
{
    struct process *process = argument;
    uint64_t start_ns = clock_monotonic_ns();
    for (;;) {
        int number = wait_signal(&process->signals,
                                 start_ns + (uint64_t)PROCESS_END_SECONDS * NS_PER_SECOND);
        if (atomic_load(&process->has_ended))
            return NULL;
        if (number == 0)
            end_at_once("draining and stopping took too long", 1);
        if (clock_monotonic_ns() - start_ns >= SIGNAL_PAIR_MS * NS_PER_MS)
            end_at_once("a second signal", 128 + number);
    }
}

int process_wait(struct process *process)
{
    int number = 0;
    do
        number = sigwaitinfo(&process->signals, NULL);
    while (number < 0 && errno == EINTR);
    ASSERT(number > 0);
    bool failed = atomic_load(&has_failed);
    log_info("ending", LOG_CSTR("reason", failed              ? "failure"
                                          : number == SIGTERM ? "SIGTERM"
                                                              : "SIGINT"));
    // Without a watcher a second signal waits until the first is dealt with, no more.
    process->has_watcher = pthread_create(&process->watcher, NULL, watch_end, process) == 0;
    return failed ? 1 : 0;
}

void process_destroy(struct process *process)
{
    if (process == NULL)
        return;
    net_destroy(process->net);
    if (process->has_watcher) {
        atomic_store(&process->has_ended, true);
        ASSERT(pthread_kill(process->watcher, SIGINT) == 0);
        ASSERT(pthread_join(process->watcher, NULL) == 0);
    }
    mem_free(process);
}

// --- A main

static int run(const struct service_ops *service, const struct config *config)
{
    struct process *process = NULL;
    void *instance = NULL;
    struct error error = {0};
    int code = 1;

    enum status status = process_create(config, &error, &process);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s: %s\n", service->name, error.text);
        return status == STATUS_INVALID ? 2 : 1;
    }
    log_set_service(service->name);
    status = service->start(process_net(process), config, &error, &instance);
    if (status == STATUS_OK) {
        process_print_ready(process, service->name);
        log_info("ready", LOG_CSTR("version", version_text()));
        code = process_wait(process);
        service->drain(instance, (uint64_t)PROCESS_DRAIN_SECONDS * NS_PER_SECOND);
        service->stop(instance);
    } else {
        fprintf(stderr, "%s: cannot start: %s\n", service->name, error.text);
    }
    process_destroy(process);
    return code;
}

static int print_or_run(const struct service_ops *service, const struct config *config)
{
    struct buf text;
    buf_init(&text, TEXT_SIZE_MAX);
    bool prints = true;
    if (config_wants_help(config)) {
        char usage[128];
        (void)snprintf(usage, sizeof(usage), "Usage: %s [--flag=value ...]", service->name);
        config_print_help(config, usage, &text);
    } else if (config_wants_version(config)) {
        buf_append_format(&text, "%s\n", version_text());
    } else if (config_wants_print(config)) {
        config_print(config, &text);
    } else {
        prints = false;
    }
    size_t written = text.len == 0 ? 0 : fwrite(text.data, 1, text.len, stdout);
    bool is_whole = written == text.len && fflush(stdout) == 0;
    buf_deinit(&text);
    if (prints)
        return is_whole ? 0 : 1;
    if (config_word_count(config) > 0) {
        fprintf(stderr, "%s: unexpected argument \"%s\"\n", service->name,
                config_word(config, 0).data);
        return 2;
    }
    return run(service, config);
}

int process_main(const struct service_ops *service, int argc, char **argv)
{
    struct setting settings[SETTINGS_MAX];
    ASSERT(service->setting_count + process_setting_count <= SETTINGS_MAX);
    if (service->setting_count > 0)
        memcpy(settings, service->settings, service->setting_count * sizeof(settings[0]));
    memcpy(settings + service->setting_count, process_settings, sizeof(process_settings));

    struct config *config = NULL;
    struct error error = {0};
    enum status status = config_create(settings, service->setting_count + process_setting_count,
                                       argc, argv, &error, &config);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s: %s\n", service->name, error.text);
        return 2;
    }
    int code = print_or_run(service, config);
    config_destroy(config);
    return code;
}
