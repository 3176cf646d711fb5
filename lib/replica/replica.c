#include "replica/replica.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/loop.h"
#include "replica/directory.h"
#include "replica/log.h"

#define SNAPSHOT_NAME "snapshot"

// The thread takes what waits, up to a batch, and works without the lock: encode, write, sync,
// apply, answer. The queue is bounded in bytes and in number, so that a slow disk pushes back.
enum { QUEUE_COUNT_MAX = 65536, BATCH_COUNT_MAX = 4096 };
#define QUEUE_SIZE_MAX    ((size_t)64 << 20)
#define BATCH_SIZE_MAX    ((size_t)8 << 20)
#define LOG_SIZE_MAX      ((size_t)4 << 20)
#define SNAPSHOT_SIZE_MAX ((size_t)2 << 30)
#define RESULT_SIZE_MAX   ((size_t)64 << 20)

struct proposal {
    struct task task;
    struct proposal *next;
    struct loop *loop; // NULL: made by a thread that is no loop
    replica_done_fn done;
    void *context;
    enum status status;
    uint64_t index;
    struct buf result;
    size_t size;
    uint8_t command[];
};

struct barrier {
    struct task task;
    void (*done)(enum status status, void *context);
    void *context;
};

struct replica {
    const struct replica_machine *machine;
    void *context;
    char *address; // NUL-terminated
    int directory_fd;
    int lock_fd;
    size_t log_size_max;
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; // of what follows up to the blank line
    pthread_cond_t wake;
    struct proposal *first;
    struct proposal **last;
    uint32_t queue_count;
    size_t queue_size;
    bool is_closing;

    struct log log;            // the thread's, as all below
    uint64_t snapshot_size_at; // the log's size at which a snapshot is due
    struct buf batch;
    struct metric *sync_seconds;
    struct metric *commands_total;

    atomic_uint_fast64_t applied_index; // written by the thread, read by any
    atomic_uint_fast64_t snapshot_index;
    atomic_uint_fast64_t log_size;
    atomic_uint_fast64_t snapshot_failure_count;
};

static int64_t system_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

static int system_sync(int fd)
{
    return fdatasync(fd);
}

static const struct replica_files system_files = {system_write, system_sync, NULL};

// --- Answers

static void proposal_finish(struct proposal *proposal)
{
    proposal->done(proposal->status, proposal->index, buf_span(&proposal->result),
                   proposal->context);
    buf_deinit(&proposal->result);
    mem_free(proposal);
}

static void run_finish(struct task *task)
{
    proposal_finish((struct proposal *)task);
}

static void answer(struct proposal *proposal)
{
    if (proposal->loop != NULL)
        loop_post(proposal->loop, &proposal->task);
    else
        proposal_finish(proposal);
}

// --- The thread

// A part of the queue that makes one batch. Waits for work; NULL: closed and nothing is left.
static struct proposal *take_batch(struct replica *replica)
{
    pthread_mutex_lock(&replica->lock);
    while (replica->first == NULL && !replica->is_closing)
        pthread_cond_wait(&replica->wake, &replica->lock);
    struct proposal *first = replica->first;
    struct proposal **end = &replica->first;
    size_t size = 0;
    for (uint32_t count = 0; *end != NULL && count < BATCH_COUNT_MAX; count++) {
        size_t next_size = (*end)->size + LOG_RECORD_HEADER_SIZE;
        if (count > 0 && size + next_size > BATCH_SIZE_MAX)
            break;
        size += next_size;
        replica->queue_count--;
        replica->queue_size -= (*end)->size;
        end = &(*end)->next;
    }
    struct proposal *rest = *end;
    *end = NULL;
    replica->first = rest;
    if (rest == NULL)
        replica->last = &replica->first;
    pthread_mutex_unlock(&replica->lock);
    return first;
}

static void write_batch(struct replica *replica, struct proposal *batch)
{
    buf_clear(&replica->batch);
    uint64_t first_index = replica->log.next_index;
    uint32_t count = 0;
    for (struct proposal *proposal = batch; proposal != NULL; proposal = proposal->next) {
        struct span command = {proposal->command, proposal->size};
        log_encode(&replica->log, count, command, &replica->batch);
        count++;
    }

    struct error error = {{0}};
    enum status status = STATUS_EXHAUSTED;
    uint64_t started_ns = clock_monotonic_ns();
    if (buf_has_overflowed(&replica->batch))
        (void)error_set(&error, status, "no memory for the log");
    else
        status = log_append(&replica->log, buf_span(&replica->batch), count, &error);
    metric_observe(replica->sync_seconds, (double)(clock_monotonic_ns() - started_ns) * 1e-9);
    atomic_store_explicit(&replica->log_size, replica->log.size, memory_order_relaxed);

    uint64_t index = first_index;
    struct proposal *next;
    for (struct proposal *proposal = batch; proposal != NULL; proposal = next) {
        next = proposal->next;
        struct span command = {proposal->command, proposal->size};
        proposal->status = status;
        if (status == STATUS_OK) {
            proposal->index = index;
            replica->machine->apply(index, command, &proposal->result, replica->context);
            atomic_store_explicit(&replica->applied_index, index, memory_order_release);
            index++;
        } else {
            buf_append_cstr(&proposal->result, error.text);
        }
        answer(proposal);
    }
    if (status == STATUS_OK)
        metric_add(replica->commands_total, count);
}

static enum status write_snapshot(struct replica *replica, struct error *error)
{
    uint64_t index = replica->log.next_index - 1;
    struct buf state;
    buf_init(&state, SNAPSHOT_SIZE_MAX);
    replica->machine->encode(&state, replica->context);
    enum status status = STATUS_OK;
    if (buf_has_overflowed(&state)) {
        status = error_set(error, STATUS_EXHAUSTED, "the state is too large for a snapshot");
    } else {
        uint8_t header[SNAPSHOT_HEADER_SIZE];
        snapshot_header_encode(index, buf_span(&state), header);
        struct span head = {header, sizeof(header)};
        status = directory_write_file(replica->directory_fd, SNAPSHOT_NAME, head, buf_span(&state),
                                      error);
    }
    buf_deinit(&state);
    TRY(status);
    atomic_store_explicit(&replica->snapshot_index, index, memory_order_relaxed);
    return log_rotate(&replica->log, error);
}

static void make_snapshot(struct replica *replica)
{
    struct error error;
    if (write_snapshot(replica, &error) == STATUS_OK) {
        replica->snapshot_size_at = replica->log_size_max;
    } else {
        // The log still has everything. Trying again at each write would only make them slow.
        replica->snapshot_size_at = replica->log.size + replica->log_size_max;
        atomic_fetch_add_explicit(&replica->snapshot_failure_count, 1, memory_order_relaxed);
    }
    atomic_store_explicit(&replica->log_size, replica->log.size, memory_order_relaxed);
}

static void *run_thread(void *argument)
{
    struct replica *replica = argument;
    struct proposal *batch;
    while ((batch = take_batch(replica)) != NULL) {
        write_batch(replica, batch);
        if (replica->log.size > replica->snapshot_size_at)
            make_snapshot(replica);
    }
    return NULL;
}

// --- Open and close

static void apply_recovered(uint64_t index, struct span command, void *context)
{
    struct replica *replica = context;
    struct buf ignored;
    buf_init(&ignored, RESULT_SIZE_MAX);
    replica->machine->apply(index, command, &ignored, replica->context);
    buf_deinit(&ignored);
    atomic_store_explicit(&replica->applied_index, index, memory_order_relaxed);
}

static enum status read_snapshot(struct replica *replica, struct error *error)
{
    struct buf bytes;
    buf_init(&bytes, SNAPSHOT_SIZE_MAX + SNAPSHOT_HEADER_SIZE);
    struct span state;
    uint64_t index = 0;
    enum status status = directory_read_file(replica->directory_fd, SNAPSHOT_NAME, error, &bytes);
    if (status == STATUS_OK) {
        status = snapshot_decode(buf_span(&bytes), error, &index, &state);
        if (status == STATUS_OK)
            status = replica->machine->decode(state, error, replica->context);
    } else if (status == STATUS_NOT_FOUND) {
        status = STATUS_OK;
    }
    buf_deinit(&bytes);
    if (status != STATUS_OK)
        return error_prefix(error, status, SNAPSHOT_NAME);
    atomic_store_explicit(&replica->snapshot_index, index, memory_order_relaxed);
    atomic_store_explicit(&replica->applied_index, index, memory_order_relaxed);
    return STATUS_OK;
}

static enum status recover(struct replica *replica, const char *path, struct error *error)
{
    TRY(directory_open(path, error, &replica->directory_fd, &replica->lock_fd));
    replica->log.directory_fd = replica->directory_fd;
    TRY(read_snapshot(replica, error));
    TRY(log_open(&replica->log, atomic_load(&replica->snapshot_index), apply_recovered, replica,
                 error));
    atomic_store_explicit(&replica->log_size, replica->log.size, memory_order_relaxed);
    if (pthread_create(&replica->thread, NULL, run_thread, replica) != 0)
        return error_set(error, STATUS_IO, "cannot start a thread");
    replica->has_thread = true;
    return STATUS_OK;
}

static char *copy_cstr(struct str text)
{
    char *copy = mem_alloc(text.len + 1);
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

enum status replica_open(const struct replica_options *options, struct error *error,
                         struct replica **out_replica)
{
    struct replica *replica = mem_alloc(sizeof(*replica));
    replica->machine = options->machine;
    replica->context = options->context;
    replica->address = copy_cstr(options->address);
    replica->directory_fd = -1;
    replica->lock_fd = -1;
    replica->log.fd = -1;
    replica->log.files = options->files == NULL ? &system_files : options->files;
    replica->log_size_max = options->log_size_max == 0 ? LOG_SIZE_MAX : options->log_size_max;
    replica->snapshot_size_at = replica->log_size_max;
    replica->last = &replica->first;
    buf_init(&replica->batch, 2 * BATCH_SIZE_MAX);
    replica->sync_seconds = metric_histogram("vectron_replica_write_seconds", NULL,
                                             "Time to write and sync a batch of the log.");
    replica->commands_total = metric_counter("vectron_replica_commands_total", NULL,
                                             "Commands that are durable and applied.");
    pthread_mutex_init(&replica->lock, NULL);
    pthread_cond_init(&replica->wake, NULL);

    char *path = copy_cstr(options->directory);
    enum status status = recover(replica, path, error);
    if (status != STATUS_OK) {
        status = error_prefix(error, status, "%s", path);
        replica_close(replica);
    } else {
        *out_replica = replica;
    }
    mem_free(path);
    return status;
}

void replica_close(struct replica *replica)
{
    if (replica == NULL)
        return;
    if (replica->has_thread) {
        pthread_mutex_lock(&replica->lock);
        replica->is_closing = true;
        pthread_cond_signal(&replica->wake);
        pthread_mutex_unlock(&replica->lock);
        pthread_join(replica->thread, NULL);
    }
    log_close(&replica->log);
    if (replica->lock_fd >= 0)
        close(replica->lock_fd);
    if (replica->directory_fd >= 0)
        close(replica->directory_fd);
    pthread_cond_destroy(&replica->wake);
    pthread_mutex_destroy(&replica->lock);
    buf_deinit(&replica->batch);
    mem_free(replica->address);
    mem_free(replica);
}

// --- Proposals and reads

// Under the lock.
static enum status enqueue(struct replica *replica, struct proposal *proposal)
{
    if (replica->is_closing)
        return STATUS_UNAVAILABLE;
    if (replica->queue_count >= QUEUE_COUNT_MAX ||
        replica->queue_size + proposal->size > QUEUE_SIZE_MAX)
        return STATUS_EXHAUSTED;
    *replica->last = proposal;
    replica->last = &proposal->next;
    replica->queue_count++;
    replica->queue_size += proposal->size;
    pthread_cond_signal(&replica->wake);
    return STATUS_OK;
}

enum status replica_propose(struct replica *replica, struct span command, replica_done_fn done,
                            void *context)
{
    if (command.len > REPLICA_COMMAND_SIZE_MAX)
        return STATUS_INVALID;
    struct proposal *proposal = mem_try_alloc(sizeof(*proposal) + command.len);
    if (proposal == NULL)
        return STATUS_EXHAUSTED;
    proposal->task.run = run_finish;
    proposal->loop = loop_current();
    proposal->done = done;
    proposal->context = context;
    proposal->size = command.len;
    buf_init(&proposal->result, RESULT_SIZE_MAX);
    if (command.len > 0)
        memcpy(proposal->command, command.data, command.len);

    pthread_mutex_lock(&replica->lock);
    enum status status = enqueue(replica, proposal);
    pthread_mutex_unlock(&replica->lock);
    if (status != STATUS_OK)
        mem_free(proposal);
    return status;
}

static void run_barrier(struct task *task)
{
    struct barrier *barrier = (struct barrier *)task;
    barrier->done(STATUS_OK, barrier->context);
    mem_free(barrier);
}

// A group of one has applied whatever it acknowledged, so there is nothing to wait for.
void replica_read_barrier(struct replica *replica, void (*done)(enum status status, void *context),
                          void *context)
{
    ASSERT(replica->has_thread);
    struct barrier *barrier = mem_alloc(sizeof(*barrier));
    barrier->task.run = run_barrier;
    barrier->done = done;
    barrier->context = context;
    loop_post(loop_current(), &barrier->task);
}

// --- Questions

bool replica_is_leader(const struct replica *replica)
{
    return replica->has_thread;
}

struct str replica_leader_address(const struct replica *replica)
{
    return str_from_cstr(replica->address);
}

void replica_get_stats(const struct replica *replica, struct replica_stats *out_stats)
{
    *out_stats = (struct replica_stats){
        .applied_index = atomic_load_explicit(&replica->applied_index, memory_order_acquire),
        .snapshot_index = atomic_load_explicit(&replica->snapshot_index, memory_order_relaxed),
        .log_size = atomic_load_explicit(&replica->log_size, memory_order_relaxed),
        .snapshot_failure_count =
            atomic_load_explicit(&replica->snapshot_failure_count, memory_order_relaxed),
    };
}
