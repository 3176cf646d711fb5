#include "replica/replica.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "net/net.h"
#include "testing/test.h"

// The machine of these tests is a list of commands, with a count in front of each answer.

struct list {
    struct buf bytes; // each command with its length
    uint64_t count;
    uint64_t last_index;
};

static void list_apply(uint64_t index, struct span command, struct buf *result, void *context)
{
    struct list *list = context;
    CHECK(index == list->last_index + 1);
    list->last_index = index;
    list->count++;
    buf_append_u32(&list->bytes, (uint32_t)command.len);
    buf_append(&list->bytes, command.data, command.len);
    buf_append_u64(result, list->count);
}

static void list_encode(struct buf *out, void *context)
{
    struct list *list = context;
    buf_append_u64(out, list->count);
    buf_append_u64(out, list->last_index);
    buf_append(out, list->bytes.data, list->bytes.len);
}

static enum status list_decode(struct span bytes, struct error *error, void *context)
{
    struct list *list = context;
    if (bytes.len < 16)
        return error_set(error, STATUS_CORRUPT, "short");
    memcpy(&list->count, bytes.data, 8);
    memcpy(&list->last_index, bytes.data + 8, 8);
    buf_append(&list->bytes, bytes.data + 16, bytes.len - 16);
    return STATUS_OK;
}

static const struct replica_machine list_machine = {list_apply, list_encode, list_decode};

static void list_init(struct list *list)
{
    *list = (struct list){0};
    buf_init(&list->bytes, SIZE_MAX);
}

static void list_deinit(struct list *list)
{
    buf_deinit(&list->bytes);
}

static enum status open_list(const char *folder, struct list *list, size_t log_size_max,
                             struct error *error, struct replica **out_replica)
{
    list_init(list);
    struct replica_options options = {
        .directory = str_from_cstr(folder),
        .machine = &list_machine,
        .context = list,
        .address = STR("localhost:1"),
        .log_size_max = log_size_max,
    };
    return replica_open(&options, error, out_replica);
}

// --- Waiting for answers

struct answer {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint32_t done_count;
    enum status status;
    uint64_t index;
    uint64_t number;
    char text[128];
    bool was_on_loop;
};

static void answer_init(struct answer *answer)
{
    *answer = (struct answer){0};
    pthread_mutex_init(&answer->lock, NULL);
    pthread_cond_init(&answer->wake, NULL);
}

static void answer_set(enum status status, uint64_t index, struct span result, void *context)
{
    struct answer *answer = context;
    pthread_mutex_lock(&answer->lock);
    answer->status = status;
    answer->index = index;
    answer->was_on_loop = loop_current() != NULL;
    if (status == STATUS_OK && result.len == 8)
        memcpy(&answer->number, result.data, 8);
    if (status != STATUS_OK)
        snprintf(answer->text, sizeof(answer->text), "%.*s", (int)result.len,
                 (const char *)result.data);
    answer->done_count++;
    pthread_cond_signal(&answer->wake);
    pthread_mutex_unlock(&answer->lock);
}

static void answer_wait(struct answer *answer, uint32_t count)
{
    pthread_mutex_lock(&answer->lock);
    while (answer->done_count < count)
        pthread_cond_wait(&answer->wake, &answer->lock);
    pthread_mutex_unlock(&answer->lock);
}

static enum status put(struct replica *replica, const char *text, struct answer *answer)
{
    answer_init(answer);
    enum status status =
        replica_propose(replica, str_span(str_from_cstr(text)), answer_set, answer);
    if (status == STATUS_OK) {
        answer_wait(answer, 1);
        status = answer->status;
    }
    return status;
}

// The only file in the folder whose name starts with the prefix; counts them.
static int find_file(const char *folder, const char *prefix, char path[static 512])
{
    int count = 0;
    DIR *directory = opendir(folder);
    struct dirent *entry;
    // The stream belongs to this call. NOLINTNEXTLINE(concurrency-mt-unsafe)
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) {
            snprintf(path, 512, "%s/%.200s", folder, entry->d_name);
            count++;
        }
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

static void change_byte(const char *path, off_t offset)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x40;
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

TEST(commands_survive_a_restart)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct answer answer;
    REQUIRE_OK(open_list(folder, &list, 0, &error, &replica));
    CHECK(replica_is_leader(replica));
    CHECK_STR(replica_leader_address(replica), STR("localhost:1"));
    CHECK_OK(put(replica, "one", &answer));
    CHECK_EQ_U64(answer.index, 1);
    CHECK_OK(put(replica, "", &answer));
    CHECK_EQ_U64(answer.number, 2);
    replica_close(replica);
    struct list again;
    REQUIRE_OK(open_list(folder, &again, 0, &error, &replica));
    CHECK_EQ_U64(again.count, 2);
    CHECK_STR(buf_str(&again.bytes), buf_str(&list.bytes));
    CHECK_OK(put(replica, "three", &answer));
    CHECK_EQ_U64(answer.index, 3);
    replica_close(replica);
    list_deinit(&list);
    list_deinit(&again);
}

TEST(a_directory_has_one_owner)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct list other;
    struct error error;
    struct replica *replica = NULL;
    struct replica *second = NULL;
    REQUIRE_OK(open_list(folder, &list, 0, &error, &replica));
    CHECK_STATUS(open_list(folder, &other, 0, &error, &second), STATUS_PRECONDITION);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("in use by another process"));
    replica_close(replica);
    list_deinit(&list);
    list_deinit(&other);
}

TEST(snapshots_replace_the_log)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct answer answer;
    char path[512];
    REQUIRE_OK(open_list(folder, &list, 1000, &error, &replica));
    for (int i = 0; i < 200; i++) {
        char text[32];
        snprintf(text, sizeof(text), "command %d", i);
        CHECK_OK(put(replica, text, &answer));
    }
    replica_close(replica);
    CHECK(find_file(folder, "log-", path) == 1);
    CHECK(find_file(folder, "snapshot", path) == 1);

    struct list again;
    struct replica_stats stats;
    REQUIRE_OK(open_list(folder, &again, 1000, &error, &replica));
    replica_get_stats(replica, &stats);
    CHECK_EQ_U64(stats.applied_index, 200);
    CHECK(stats.snapshot_index > 150 && stats.log_size <= 1100);
    CHECK_EQ_U64(again.count, 200);
    CHECK_STR(buf_str(&again.bytes), buf_str(&list.bytes));
    replica_close(replica);
    list_deinit(&list);
    list_deinit(&again);

    // Without its log a snapshot is not all that was acknowledged.
    CHECK(find_file(folder, "log-", path) == 1);
    CHECK(unlink(path) == 0);
    CHECK_STATUS(open_list(folder, &again, 0, &error, &replica), STATUS_CORRUPT);
    list_deinit(&again);
}

TEST(damage_is_refused_and_a_torn_tail_is_cut)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct answer answer;
    char path[512];
    REQUIRE_OK(open_list(folder, &list, 0, &error, &replica));
    CHECK_OK(put(replica, "first", &answer));
    CHECK_OK(put(replica, "second", &answer));
    replica_close(replica);
    list_deinit(&list);

    CHECK(find_file(folder, "log-", path) == 1);
    int fd = open(path, O_WRONLY | O_APPEND);
    CHECK(write(fd, "VREC torn", 9) == 9);
    close(fd);
    REQUIRE_OK(open_list(folder, &list, 0, &error, &replica));
    CHECK_EQ_U64(list.count, 2);
    CHECK_OK(put(replica, "third", &answer));
    CHECK_EQ_U64(answer.index, 3);
    replica_close(replica);
    list_deinit(&list);

    change_byte(path, 32 + 32 + 2); // in "first"
    CHECK_STATUS(open_list(folder, &list, 0, &error, &replica), STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("damaged at byte 32"));
    list_deinit(&list);
}

static void count_barrier(enum status status, void *context)
{
    answer_set(status, 0, (struct span){0}, context);
}

struct loop_job {
    struct task task;
    struct replica *replica;
    struct answer *answer;
    struct answer *barrier;
};

static void propose_on_loop(struct task *task)
{
    struct loop_job *job = (struct loop_job *)task;
    CHECK_OK(replica_propose(job->replica, str_span(STR("x")), answer_set, job->answer));
    replica_read_barrier(job->replica, count_barrier, job->barrier);
}

TEST(answers_come_on_the_loop_of_the_proposal)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct net *net = NULL;
    REQUIRE_OK(net_create(&(struct net_options){.loop_count = 2}, &error, &net));
    REQUIRE_OK(open_list(folder, &list, 0, &error, &replica));
    struct answer answer;
    struct answer barrier;
    answer_init(&answer);
    answer_init(&barrier);
    struct loop_job job = {{NULL, propose_on_loop}, replica, &answer, &barrier};
    loop_post(net_loop(net, 1), &job.task);
    answer_wait(&answer, 1);
    answer_wait(&barrier, 1);
    CHECK(answer.was_on_loop && answer.status == STATUS_OK && answer.index == 1);
    CHECK(barrier.was_on_loop && barrier.status == STATUS_OK);
    replica_close(replica);
    net_destroy(net);
    list_deinit(&list);
}

// --- Many proposers

enum { PROPOSERS = 4, PROPOSALS = 250 };

struct proposer {
    struct replica *replica;
    struct answer answer;
};

static void *propose_many(void *argument)
{
    struct proposer *proposer = argument;
    answer_init(&proposer->answer);
    for (uint32_t i = 0; i < PROPOSALS; i++)
        CHECK_OK(replica_propose(proposer->replica, (struct span){(const uint8_t *)&i, sizeof(i)},
                                 answer_set, &proposer->answer));
    answer_wait(&proposer->answer, PROPOSALS);
    return NULL;
}

TEST(many_threads_share_the_syncs)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct proposer proposers[PROPOSERS];
    pthread_t threads[PROPOSERS];
    REQUIRE_OK(open_list(folder, &list, 4096, &error, &replica));
    for (int i = 0; i < PROPOSERS; i++) {
        proposers[i].replica = replica;
        pthread_create(&threads[i], NULL, propose_many, &proposers[i]);
    }
    for (int i = 0; i < PROPOSERS; i++)
        pthread_join(threads[i], NULL);
    struct replica_stats stats;
    replica_get_stats(replica, &stats);
    CHECK_EQ_U64(stats.applied_index, PROPOSERS * PROPOSALS);
    CHECK_EQ_U64(list.count, PROPOSERS * PROPOSALS);
    uint8_t *large = mem_alloc(REPLICA_COMMAND_SIZE_MAX + 1);
    CHECK_STATUS(replica_propose(replica, (struct span){large, REPLICA_COMMAND_SIZE_MAX + 1},
                                 answer_set, NULL),
                 STATUS_INVALID);
    mem_free(large);
    replica_close(replica);
    list_deinit(&list);
}

// --- A disk that fails

static atomic_int writes_until_full = INT32_MAX;
static atomic_int syncs_until_failure = INT32_MAX;

static int64_t failing_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    if (atomic_fetch_sub(&writes_until_full, 1) <= 0) {
        // The disk takes a part, then it is full.
        if (size > 1)
            return pwrite(fd, bytes, size / 2, offset);
        errno = ENOSPC;
        return -1;
    }
    return pwrite(fd, bytes, size, offset);
}

static int failing_sync(int fd)
{
    if (atomic_fetch_sub(&syncs_until_failure, 1) <= 0) {
        errno = EIO;
        return -1;
    }
    return fdatasync(fd);
}

static const struct replica_files failing_files = {failing_write, failing_sync, NULL};

static enum status open_failing(const char *folder, struct list *list, struct replica **out_replica)
{
    struct error error;
    list_init(list);
    struct replica_options options = {.directory = str_from_cstr(folder),
                                      .machine = &list_machine,
                                      .context = list,
                                      .files = &failing_files};
    return replica_open(&options, &error, out_replica);
}

TEST(a_full_disk_refuses_and_recovers)
{
    const char *folder = test_temporary_folder();
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct answer answer;
    REQUIRE_OK(open_failing(folder, &list, &replica));
    CHECK_OK(put(replica, "before", &answer));
    atomic_store(&writes_until_full, 0);
    CHECK_STATUS(put(replica, "refused", &answer), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(answer.text), STR("No space left"));
    atomic_store(&writes_until_full, INT32_MAX);
    CHECK_OK(put(replica, "after", &answer));
    CHECK_EQ_U64(answer.index, 2);
    replica_close(replica);
    struct list again;
    REQUIRE_OK(open_list(folder, &again, 0, &error, &replica));
    CHECK_STR(buf_str(&again.bytes), buf_str(&list.bytes));
    replica_close(replica);
    list_deinit(&list);
    list_deinit(&again);
}

TEST(a_failed_sync_stops_the_process)
{
    const char *folder = test_temporary_folder();
    int pipe_fds[2];
    CHECK(pipe(pipe_fds) == 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct list list;
        struct replica *replica = NULL;
        struct answer answer;
        dup2(pipe_fds[1], STDERR_FILENO);
        if (open_failing(folder, &list, &replica) != STATUS_OK)
            _exit(1);
        atomic_store(&syncs_until_failure, 0);
        (void)put(replica, "never acknowledged", &answer); // does not come back
        _exit(2);
    }
    close(pipe_fds[1]);
    char text[256] = {0};
    CHECK(read(pipe_fds[0], text, sizeof(text) - 1) > 0);
    close(pipe_fds[0]);
    int result = 0;
    waitpid(child, &result, 0);
    CHECK(WIFSIGNALED(result) && WTERMSIG(result) == SIGABRT);
    CHECK_CONTAINS(str_from_cstr(text), STR("fdatasync of the log failed"));
}

// --- Crashes

// The child says through the pipe which number was acknowledged; it is killed at some moment.
struct crash_writer {
    int fd;
};

static void acknowledge(enum status status, uint64_t index, struct span result, void *context)
{
    struct crash_writer *writer = context;
    (void)result;
    if (status != STATUS_OK || write(writer->fd, &index, sizeof(index)) != sizeof(index))
        _exit(3);
}

static void run_crash_child(const char *folder, int fd)
{
    struct list list;
    struct error error;
    struct replica *replica = NULL;
    struct crash_writer writer = {fd};
    if (open_list(folder, &list, 3000, &error, &replica) != STATUS_OK) {
        fprintf(stderr, "%s\n", error.text);
        _exit(1);
    }
    for (;;) {
        uint8_t command[100] = {0};
        if (replica_propose(replica, (struct span){command, sizeof(command)}, acknowledge,
                            &writer) != STATUS_OK)
            usleep(100); // the queue is full
    }
}

TEST(everything_acknowledged_survives_kill)
{
    const char *folder = test_temporary_folder();
    struct rng rng;
    rng_init(&rng, 42);
    uint64_t acknowledged = 0;
    for (int round = 0; round < 15; round++) {
        int fds[2];
        CHECK(pipe(fds) == 0);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            close(fds[0]);
            run_crash_child(folder, fds[1]);
        }
        close(fds[1]);
        // After a random number of acknowledgements, and then at any place.
        uint64_t wanted = rng_below(&rng, 400) + 1;
        uint64_t index = 0;
        for (uint64_t i = 0; i < wanted; i++) {
            if (read(fds[0], &index, sizeof(index)) != sizeof(index))
                break;
            acknowledged = index;
        }
        kill(child, SIGKILL);
        while (read(fds[0], &index, sizeof(index)) == sizeof(index))
            acknowledged = index;
        close(fds[0]);
        int result = 0;
        waitpid(child, &result, 0);
        CHECK(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);

        struct list list;
        struct error error = {{0}};
        struct replica *replica = NULL;
        enum status status = open_list(folder, &list, 3000, &error, &replica);
        if (status != STATUS_OK)
            printf("%s\n", error.text);
        REQUIRE(status == STATUS_OK);
        CHECK(list.count >= acknowledged);
        CHECK_EQ_U64(list.last_index, list.count);
        replica_close(replica);
        list_deinit(&list);
    }
    CHECK(acknowledged > 15);
}

TEST_MAIN()
