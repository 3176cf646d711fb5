#include "replica/replica.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/metrics.h"
#include "base/rng.h"
#include "replica/node_internal.h"

// A group with its machine. Proposals come from any thread into a bounded queue, which the first
// loop empties once per turn: what waited goes into the log together.

enum { QUEUE_COUNT_MAX = 65536, BATCH_COUNT_MAX = 4096, ELECTION_MS = 1000, MEMBERS_MAX = 16 };
#define QUEUE_SIZE_MAX  ((size_t)64 << 20)
#define BATCH_SIZE_MAX  ((size_t)8 << 20)
#define LOG_SIZE_MAX    ((size_t)4 << 20)
#define RESULT_SIZE_MAX ((size_t)64 << 20)

struct barrier {
    struct task task;
    struct loop *loop;
    struct replica *replica;
    enum status status;
    void (*done)(enum status status, void *context);
    void *context;
};

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

static void refuse(struct proposal *proposal, enum status status, const char *reason)
{
    proposal->status = status;
    buf_append_cstr(&proposal->result, reason);
    answer(proposal);
}

static void run_barrier(struct task *task)
{
    struct barrier *barrier = (struct barrier *)task;
    barrier->done(barrier->status, barrier->context);
    mem_free(barrier);
}

// --- What the group asks for

static void host_send(uint64_t to, const PEER(PeerMessage) * message, bool is_held, void *context)
{
    struct replica *replica = context;
    peer_send(replica->node, to, message, is_held);
}

static void host_apply(uint64_t index, struct span command, void *context_of_proposal,
                       void *context)
{
    struct replica *replica = context;
    struct proposal *proposal = context_of_proposal;
    struct buf ignored;
    buf_init(&ignored, RESULT_SIZE_MAX);
    // A snapshot that was fetched may know more than the log's place says.
    if (index > replica->machine_index) {
        replica->machine->apply(index, command, proposal != NULL ? &proposal->result : &ignored,
                                replica->context);
        replica->machine_index = index;
        metric_add(replica->node->commands_total, 1);
        replica->size_since_snapshot += command.len;
    }
    buf_deinit(&ignored);
    atomic_store_explicit(&replica->applied, index, memory_order_release);
    if (proposal != NULL) {
        proposal->status = STATUS_OK;
        proposal->index = index;
        answer(proposal);
    }
}

static void host_lost(void *proposal, void *context)
{
    (void)context;
    refuse(proposal, STATUS_UNAVAILABLE, "");
}

static void host_read_done(void *read, enum status status, void *context)
{
    struct barrier *barrier = read;
    (void)context;
    barrier->status = status;
    loop_post(barrier->loop, &barrier->task);
}

static void host_lead_changed(bool is_leading, uint64_t term, void *context)
{
    struct replica *replica = context;
    atomic_store(&replica->term, term);
    atomic_store(&replica->is_leading, is_leading);
    if (replica->machine->lead_changed != NULL)
        replica->machine->lead_changed(is_leading, replica->context);
}

static void host_install(uint64_t from, uint64_t index, uint64_t term, void *context)
{
    (void)term;
    snapshot_fetch_start(context, from, index);
}

static void host_failed(struct str reason, void *context)
{
    node_trouble(context, reason);
}

static const struct group_host host = {
    .send = host_send,
    .apply = host_apply,
    .lost = host_lost,
    .read_done = host_read_done,
    .lead_changed = host_lead_changed,
    .install = host_install,
    .failed = host_failed,
};

// --- Turns

static void tell_others(struct replica *replica)
{
    struct group_status status;
    group_status(replica->group, &status);
    atomic_store_explicit(&replica->term, status.term, memory_order_relaxed);
    atomic_store_explicit(&replica->leader_id, status.leader_id, memory_order_relaxed);
    atomic_store_explicit(&replica->snapshot, status.snapshot_index, memory_order_relaxed);
    atomic_store_explicit(&replica->log_size, replica->size_since_snapshot, memory_order_relaxed);
}

void replica_arm(struct replica *replica)
{
    uint64_t timeout_ms = group_timeout_ms(replica->group);
    tell_others(replica);
    if (replica->size_since_snapshot > replica->snapshot_size_at && replica->snapshot_job == NULL &&
        replica->fetch == NULL && replica->ended == NULL)
        snapshot_make(replica);
    if (timeout_ms == UINT64_MAX)
        timer_stop(&replica->timer);
    else
        timer_start_at(&replica->timer, timeout_ms * NS_PER_MS);
    node_turn(replica->node);
}

void replica_written(struct replica *replica, uint64_t batch)
{
    group_written(replica->group, node_now_ms(replica->node), batch);
    replica_arm(replica);
}

static void propose_taken(struct replica *replica);

static void fire(struct timer *timer)
{
    struct replica *replica =
        (struct replica *)(void *)((char *)timer - offsetof(struct replica, timer));
    group_tick(replica->group, node_now_ms(replica->node));
    propose_taken(replica);
    replica_arm(replica);
}

// Proposes the first part of what was taken. False: nothing more can be done now.
static bool propose_batch(struct replica *replica)
{
    static const char full[] = "the disk is full";
    struct span commands[BATCH_COUNT_MAX / 16];
    void *proposals[BATCH_COUNT_MAX / 16];
    uint32_t count = 0;
    size_t size = 0;
    struct proposal *end = replica->taken;
    while (end != NULL && count < sizeof(commands) / sizeof(commands[0]) &&
           (count == 0 || size + end->size <= BATCH_SIZE_MAX)) {
        commands[count] = (struct span){end->command, end->size};
        proposals[count++] = end;
        size += end->size;
        end = end->next;
    }
    if (count == 0)
        return false;
    enum status status = STATUS_EXHAUSTED;
    if (wal_has_room(replica->node->wal, size + count * WAL_ENTRY_OVERHEAD))
        status =
            group_propose(replica->group, node_now_ms(replica->node), commands, proposals, count);
    if (status == STATUS_UNAVAILABLE)
        return false; // the lead is being handed over: they wait
    replica->taken = end;
    for (uint32_t i = 0; i < count && status != STATUS_OK; i++)
        refuse(proposals[i], status, status == STATUS_EXHAUSTED ? full : "");
    return true;
}

static void propose_taken(struct replica *replica)
{
    while (propose_batch(replica))
        continue;
}

static void run_queue(struct task *task)
{
    struct replica *replica =
        (struct replica *)(void *)((char *)task - offsetof(struct replica, task));
    struct proposal **last = &replica->taken;
    while (*last != NULL)
        last = &(*last)->next;
    pthread_mutex_lock(&replica->lock);
    *last = replica->first;
    replica->first = NULL;
    replica->last = &replica->first;
    replica->queue_count = 0;
    replica->queue_size = 0;
    replica->is_posted = false;
    pthread_mutex_unlock(&replica->lock);
    propose_taken(replica);
    replica_arm(replica);
}

// --- Open and close

struct opening {
    struct replica *replica;
    const struct replica_options *options;
    struct error *error;
    enum status status;
};

static uint64_t log_snapshot_index(const struct replica *replica)
{
    struct wal_state state = {0};
    struct wal_group *group = wal_find(replica->node->wal, replica->group_id);
    if (group != NULL)
        wal_state(group, &state);
    return state.snapshot_index;
}

static enum status open_group(struct replica *replica, const struct replica_options *options,
                              struct error *error)
{
    struct replica_node *node = replica->node;
    struct group_member members[MEMBERS_MAX];
    char addresses[MEMBERS_MAX][24];
    uint32_t seed;
    if (options->member_count > MEMBERS_MAX)
        return error_set(error, STATUS_INVALID, "%u members, the limit is %d",
                         options->member_count, MEMBERS_MAX);
    for (uint32_t i = 0; i < options->member_count; i++) {
        // The library wants an address of each; ours are the peers', which may change.
        (void)snprintf(addresses[i], sizeof(addresses[i]), "%llu",
                       (unsigned long long)options->members[i].node_id);
        members[i] = (struct group_member){
            .id = options->members[i].node_id,
            .address = str_from_cstr(addresses[i]),
            .role = options->members[i].is_learner ? GROUP_LEARNER : GROUP_VOTER,
        };
    }
    TRY(snapshot_load(replica, log_snapshot_index(replica), error));
    rng_secure(&seed, sizeof(seed));
    uint32_t election_ms = node->options.election_ms == 0 ? ELECTION_MS : node->options.election_ms;
    TRY(group_create(
        &(struct group_options){
            .group_id = replica->group_id,
            .node_id = node->options.node_id,
            .wal = node->wal,
            .host = &host,
            .context = replica,
            .now_ms = node_now_ms(node),
            .seed = seed,
            .election_ms = election_ms,
            .heartbeat_ms = election_ms / 10,
            .members = members,
            .member_count = options->member_count,
            .applied_index = replica->snapshot_index,
        },
        error, &replica->group));
    replica->next = node->replicas;
    node->replicas = replica;
    replica_arm(replica);
    return STATUS_OK;
}

static void run_opening(void *argument)
{
    struct opening *opening = argument;
    opening->status = open_group(opening->replica, opening->options, opening->error);
}

static void replica_free(struct replica *replica)
{
    (void)pthread_mutex_destroy(&replica->lock);
    mem_free(replica);
}

enum status replica_open(const struct replica_options *options, struct error *error,
                         struct replica **out_replica)
{
    struct replica *replica = mem_alloc(sizeof(*replica));
    replica->node = options->node;
    replica->group_id = options->group_id;
    replica->machine = options->machine;
    replica->context = options->context;
    replica->log_size_max = options->log_size_max == 0 ? LOG_SIZE_MAX : options->log_size_max;
    replica->snapshot_size_at = replica->log_size_max;
    replica->last = &replica->first;
    replica->task.run = run_queue;
    timer_init(&replica->timer, options->node->loop, fire);
    (void)pthread_mutex_init(&replica->lock, NULL); // a default one cannot fail
    struct opening opening = {replica, options, error, STATUS_OK};
    node_run_wait(options->node, run_opening, &opening);
    if (opening.status != STATUS_OK) {
        replica_free(replica);
        return opening.status;
    }
    *out_replica = replica;
    return STATUS_OK;
}

static void leave_node(struct replica *replica)
{
    struct replica **link = &replica->node->replicas;
    while (*link != replica)
        link = &(*link)->next;
    *link = replica->next;
    timer_stop(&replica->timer);
    while (replica->taken != NULL) {
        struct proposal *next = replica->taken->next;
        refuse(replica->taken, STATUS_UNAVAILABLE, "");
        replica->taken = next;
    }
    group_destroy(replica->group);
    replica->group = NULL;
}

void replica_job_ended(struct replica *replica)
{
    if (replica->ended == NULL || replica->snapshot_job != NULL || replica->fetch != NULL)
        return;
    sem_t *ended = replica->ended;
    leave_node(replica);
    (void)sem_post(ended);
}

struct closing {
    struct task task; // first
    struct replica *replica;
    sem_t ended;
};

static void run_closing(struct task *task)
{
    struct closing *closing = (struct closing *)(void *)task;
    struct replica *replica = closing->replica;
    replica->ended = &closing->ended;
    if (replica->fetch != NULL)
        snapshot_fetch_cancel(replica);
    else
        replica_job_ended(replica);
}

void replica_close(struct replica *replica)
{
    if (replica == NULL)
        return;
    ASSERT(loop_current() == NULL);
    pthread_mutex_lock(&replica->lock);
    replica->is_closing = true;
    pthread_mutex_unlock(&replica->lock);
    // The queue's task, when it is posted, runs before this one.
    struct closing closing = {.task = {.run = run_closing}, .replica = replica};
    (void)sem_init(&closing.ended, 0, 0);
    loop_post(replica->node->loop, &closing.task);
    while (sem_wait(&closing.ended) != 0)
        continue; // interrupted
    (void)sem_destroy(&closing.ended);
    replica_free(replica);
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
    if (!replica->is_posted)
        loop_post(replica->node->loop, &replica->task);
    replica->is_posted = true;
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

static void run_read(struct task *task)
{
    struct barrier *barrier = (struct barrier *)task;
    struct replica *replica = barrier->replica;
    barrier->task.run = run_barrier;
    group_read(replica->group, node_now_ms(replica->node), barrier);
    replica_arm(replica);
}

void replica_read_barrier(struct replica *replica, void (*done)(enum status status, void *context),
                          void *context)
{
    struct barrier *barrier = mem_alloc(sizeof(*barrier));
    barrier->task.run = run_read;
    barrier->loop = loop_current();
    barrier->replica = replica;
    barrier->done = done;
    barrier->context = context;
    ASSERT(barrier->loop != NULL);
    loop_post(replica->node->loop, &barrier->task);
}

// --- Questions

bool replica_is_leading(const struct replica *replica)
{
    return atomic_load_explicit(&replica->is_leading, memory_order_acquire);
}

bool replica_leader_address(const struct replica *replica, char *out, size_t size)
{
    struct replica_node *node = replica->node;
    uint64_t leader_id = atomic_load_explicit(&replica->leader_id, memory_order_relaxed);
    if (leader_id == node->options.node_id) {
        (void)snprintf(out, size, "%s", node->address);
        return true;
    }
    const struct peer *peer = leader_id == 0 ? NULL : node_peer(node, leader_id);
    if (peer == NULL)
        return false;
    pthread_mutex_lock(&node->lock);
    (void)snprintf(out, size, "%s", peer->public_address);
    pthread_mutex_unlock(&node->lock);
    return out[0] != '\0';
}

struct channel *replica_leader_channel(const struct replica *replica)
{
    uint64_t leader_id = atomic_load_explicit(&replica->leader_id, memory_order_relaxed);
    struct peer *peer = leader_id == 0 ? NULL : node_peer(replica->node, leader_id);
    return peer != NULL ? peer->channel : NULL;
}

struct transfer_task {
    struct task task;
    struct replica *replica;
    uint64_t to;
};

static void run_transfer(struct task *task)
{
    struct transfer_task *transfer = (struct transfer_task *)(void *)task;
    (void)group_transfer(transfer->replica->group, node_now_ms(transfer->replica->node),
                         transfer->to);
    replica_arm(transfer->replica);
    mem_free(transfer);
}

void replica_transfer(struct replica *replica, uint64_t node_id)
{
    struct transfer_task *transfer = mem_alloc(sizeof(*transfer));
    *transfer = (struct transfer_task){{.run = run_transfer}, replica, node_id};
    loop_post(replica->node->loop, &transfer->task);
}

void replica_get_stats(const struct replica *replica, struct replica_stats *out_stats)
{
    *out_stats = (struct replica_stats){
        .term = atomic_load_explicit(&replica->term, memory_order_relaxed),
        .leader_id = atomic_load_explicit(&replica->leader_id, memory_order_relaxed),
        .applied_index = atomic_load_explicit(&replica->applied, memory_order_acquire),
        .snapshot_index = atomic_load_explicit(&replica->snapshot, memory_order_relaxed),
        .log_size = atomic_load_explicit(&replica->log_size, memory_order_relaxed),
        .snapshot_failure_count =
            atomic_load_explicit(&replica->snapshot_failure_count, memory_order_relaxed),
    };
}
