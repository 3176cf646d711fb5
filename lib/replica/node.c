#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/metrics.h"
#include "replica/directory.h"
#include "replica/node_internal.h"

// A node's life and its turns: whatever happened to any group in a turn of the loop goes to the log
// as one batch, and to each other node as one call.

uint64_t node_now_ms(const struct replica_node *node)
{
    return loop_now_ns(node->loop) / NS_PER_MS;
}

struct replica *node_find(struct replica_node *node, uint64_t group_id)
{
    struct replica *replica = node->replicas;
    while (replica != NULL && replica->group_id != group_id)
        replica = replica->next;
    return replica;
}

void node_trouble(const struct replica *replica, struct str text)
{
    const struct replica_node_options *options = &replica->node->options;
    if (options->trouble != NULL)
        options->trouble(replica->group_id, text, options->context);
}

// --- Turns

static void end_turn(struct task *task)
{
    struct replica_node *node =
        (struct replica_node *)(void *)((char *)task - offsetof(struct replica_node, turn_task));
    node->is_turn_queued = false;
    if (node->is_closing)
        return; // the log is being closed
    node->batch = wal_flush(node->wal);
    for (struct replica *it = node->replicas; it != NULL; it = it->next)
        group_flushed(it->group, node->batch);
    for (struct held_message *it = node->held; it != NULL; it = it->next) {
        if (it->batch == UINT64_MAX)
            it->batch = node->batch;
    }
    peers_release_held(node, wal_written(node->wal));
    peers_flush(node);
}

void node_turn(struct replica_node *node)
{
    if (node->is_turn_queued)
        return;
    node->is_turn_queued = true;
    loop_defer(node->loop, &node->turn_task);
}

static void take_written(struct task *task)
{
    struct replica_node *node =
        (struct replica_node *)(void *)((char *)task - offsetof(struct replica_node, written_task));
    atomic_store(&node->is_written_posted, false);
    if (node->is_closing)
        return;
    uint64_t written = wal_written(node->wal);
    peers_release_held(node, written);
    for (struct replica *it = node->replicas; it != NULL; it = it->next)
        replica_written(it, written);
    node_turn(node);
}

// On the log's thread.
static void written(uint64_t batch, void *context)
{
    (void)batch; // the newest counts
    struct replica_node *node = context;
    if (!atomic_exchange(&node->is_written_posted, true))
        loop_post(node->loop, &node->written_task);
}

// --- From other threads

struct waiting_task {
    struct task task;
    void (*run)(void *argument);
    void *argument;
    sem_t done;
};

static void run_waiting(struct task *task)
{
    struct waiting_task *waiting = (struct waiting_task *)(void *)task;
    waiting->run(waiting->argument);
    (void)sem_post(&waiting->done);
}

void node_run_wait(struct replica_node *node, void (*run)(void *argument), void *argument)
{
    ASSERT(loop_current() == NULL);
    struct waiting_task waiting = {.task = {.run = run_waiting}, .run = run, .argument = argument};
    (void)sem_init(&waiting.done, 0, 0);
    loop_post(node->loop, &waiting.task);
    while (sem_wait(&waiting.done) != 0)
        continue; // interrupted
    (void)sem_destroy(&waiting.done);
}

// --- Life

static enum status check_no_old_log(int directory_fd, struct error *error)
{
    uint64_t *numbers = NULL;
    size_t count = 0;
    TRY(directory_list_numbers(directory_fd, "log-", error, &numbers, &count));
    mem_free(numbers);
    if (count == 0)
        return STATUS_OK;
    return error_set(error, STATUS_CORRUPT,
                     "it holds the log of an older version, which this one does not read; start "
                     "with an empty folder");
}

static enum status open_files(struct replica_node *node, struct str directory,
                              const struct replica_node_options *options, struct error *error)
{
    char path[4096];
    if (directory.len >= sizeof(path))
        return error_set(error, STATUS_INVALID, "a path of %zu bytes", directory.len);
    (void)snprintf(path, sizeof(path), "%.*s", STR_ARG(directory));
    enum status status = directory_open(path, error, &node->directory_fd, &node->lock_fd);
    if (status == STATUS_OK)
        status = check_no_old_log(node->directory_fd, error);
    if (status == STATUS_OK)
        status = wal_open(
            &(struct wal_options){
                .directory_fd = node->directory_fd,
                .files = options->files,
                .written = written,
                .context = node,
            },
            error, &node->wal);
    return status == STATUS_OK ? status : error_prefix(error, status, "%s", path);
}

static void node_free(struct replica_node *node)
{
    wal_close(node->wal);
    for (uint32_t i = 0; i < node->peer_count; i++)
        peer_free(node->peers[i]);
    while (node->held != NULL) {
        struct held_message *next = node->held->next;
        mem_free(node->held);
        node->held = next;
    }
    if (node->lock_fd >= 0)
        close(node->lock_fd);
    if (node->directory_fd >= 0)
        close(node->directory_fd);
    (void)sem_destroy(&node->nothing_sent);
    (void)pthread_mutex_destroy(&node->lock);
    mem_free(node);
}

enum status replica_node_open(const struct replica_node_options *options, struct error *error,
                              struct replica_node **out_node)
{
    struct replica_node *node = mem_alloc(sizeof(*node));
    ASSERT(options->internal_token.len < sizeof(node->internal_token));
    ASSERT(options->address.len < sizeof(node->address));
    node->net = options->net;
    node->loop = net_loop(options->net, 0);
    node->options = *options;
    node->options.directory = STR("");
    node->directory_fd = -1;
    node->lock_fd = -1;
    node->held_last = &node->held;
    node->commands_total = metric_counter("vectron_replica_commands_total", NULL,
                                          "Commands that are durable and applied.");
    node->turn_task.run = end_turn;
    node->written_task.run = take_written;
    (void)pthread_mutex_init(&node->lock, NULL); // a default one cannot fail
    (void)sem_init(&node->nothing_sent, 0, 0);
    (void)snprintf(node->address, sizeof(node->address), "%.*s", STR_ARG(options->address));
    (void)snprintf(node->internal_token, sizeof(node->internal_token), "%.*s",
                   STR_ARG(options->internal_token));
    node->metadata =
        (struct metadata){STR("vectron-internal"), str_from_cstr(node->internal_token)};
    node->metadata_count = options->internal_token.len > 0 ? 1 : 0;
    enum status status = open_files(node, options->directory, options, error);
    if (status != STATUS_OK) {
        node_free(node);
        return status;
    }
    *out_node = node;
    return STATUS_OK;
}

static bool is_sending(const struct replica_node *node)
{
    for (uint32_t i = 0; i < node->peer_count; i++) {
        if (node->peers[i]->is_sending)
            return true;
    }
    return false;
}

void node_sent(struct replica_node *node)
{
    if (node->is_closing && !is_sending(node))
        (void)sem_post(&node->nothing_sent);
}

static void start_closing(void *argument)
{
    struct replica_node *node = argument;
    ASSERT(node->replicas == NULL);
    node->is_closing = true;
    node_sent(node);
}

// Whatever was posted or deferred before has run when this has.
static void pass(void *argument)
{
    (void)argument;
}

void replica_node_close(struct replica_node *node)
{
    if (node == NULL)
        return;
    node_run_wait(node, start_closing, node);
    for (uint32_t i = 0; i < node->peer_count; i++) {
        channel_destroy(node->peers[i]->channel); // calls in flight end with CANCELLED
        node->peers[i]->channel = NULL;
    }
    wal_close(node->wal); // its thread calls nobody any more
    node->wal = NULL;
    while (sem_wait(&node->nothing_sent) != 0)
        continue; // interrupted
    node_run_wait(node, pass, NULL);
    node_free(node);
}

void replica_node_serve(struct replica_node *node, struct rpc_router *router)
{
    peers_add_service(node, router);
}
