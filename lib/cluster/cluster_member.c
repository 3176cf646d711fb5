#include "cluster/cluster_member.h"

#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

// One call at a time, on the first loop: a registration until it succeeds, then heartbeats. What a
// timer or a wish starts is always "the next thing": register when there is no id, else a
// heartbeat.

enum {
    HEARTBEAT_MS = 1000,
    CALL_MS_MAX = 3000,
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 1000,
    TEXT_SIZE = 256,
    ID_SIZE = 24,
    ARENA_SIZE_MAX = 64 << 20,
};

struct cluster_member {
    struct cluster_member_options options;
    struct loop *loop;
    // Copies of the texts in the options.
    char grpc_address[TEXT_SIZE];
    char raft_address[TEXT_SIZE];
    char identity[TEXT_SIZE];
    char rack[TEXT_SIZE];
    char zone[TEXT_SIZE];
    char region[TEXT_SIZE];
    char capability[TEXT_SIZE];
    _Atomic uint64_t id;
    char id_text[ID_SIZE];

    struct timer timer;
    struct channel_call *call; // NULL: none
    struct channel *channel;   // of the call
    struct arena *arena;       // of the request that is being written
    struct rng rng;
    uint64_t backoff_ms;
    bool has_trouble; // and it was told
    bool wants_hurry; // while a call is on its way
    atomic_bool is_hurry_posted;
    struct task start_task;
    struct task hurry_task;
    struct task stop_task;
    bool is_stopped;
    sem_t stopped;
};

static void next(struct cluster_member *member);

// --- What came of a call

static void tell_trouble(struct cluster_member *member, enum status status, struct str text)
{
    if (member->has_trouble)
        return;
    member->has_trouble = true;
    if (member->options.trouble != NULL)
        member->options.trouble(status, text, member->options.context);
}

static void retry_later(struct cluster_member *member)
{
    uint64_t half_ms = member->backoff_ms / 2;
    timer_start(&member->timer, (half_ms + rng_below(&member->rng, half_ms + 1)) * NS_PER_MS);
    member->backoff_ms *= 2;
    if (member->backoff_ms > BACKOFF_MS_MAX)
        member->backoff_ms = BACKOFF_MS_MAX;
}

static void call_failed(struct cluster_member *member, enum status status, struct str text)
{
    cluster_client_pd_failed(member->options.client, member->channel);
    tell_trouble(member, status, text);
    retry_later(member);
}

static void went_well(struct cluster_member *member)
{
    member->backoff_ms = BACKOFF_MS_MIN;
    member->has_trouble = false;
    if (member->wants_hurry)
        next(member);
    else
        timer_start(&member->timer, HEARTBEAT_MS * NS_PER_MS);
}

static void take_id(struct cluster_member *member, bool success, const char *id_text)
{
    uint64_t id = 0;
    if (!success || !str_to_u64(str_from_cstr(id_text), &id) || id == 0) {
        call_failed(member, STATUS_BUG, STR("the placement driver gave no id"));
        return;
    }
    (void)snprintf(member->id_text, sizeof(member->id_text), "%" PRIu64, id);
    atomic_store(&member->id, id);
    if (member->options.registered != NULL)
        member->options.registered(id, member->options.context);
    member->wants_hurry = true; // so that it is known at once what runs here
    went_well(member);
}

static void take_answer(struct cluster_member *member, bool is_known, const char *text)
{
    if (is_known) {
        went_well(member);
        return;
    }
    tell_trouble(member, STATUS_NOT_FOUND, str_from_cstr(text));
    atomic_store(&member->id, 0);
    retry_later(member);
}

static void registered(enum status status, struct str text, const ProtobufCMessage *message,
                       void *context)
{
    struct cluster_member *member = context;
    member->call = NULL;
    if (status != STATUS_OK) {
        call_failed(member, status, text);
    } else if (member->options.kind == CLUSTER_MEMBER_WORKER) {
        const Vectron__Placementdriver__V1__RegisterWorkerResponse *answer = (const void *)message;
        take_id(member, answer->success, answer->worker_id);
    } else {
        const Vectron__Placementdriver__V1__RegisterRerankerResponse *answer =
            (const void *)message;
        take_id(member, answer->success, answer->reranker_id);
    }
}

static void heard(enum status status, struct str text, const ProtobufCMessage *message,
                  void *context)
{
    struct cluster_member *member = context;
    member->call = NULL;
    if (status != STATUS_OK) {
        call_failed(member, status, text);
    } else if (member->options.kind == CLUSTER_MEMBER_WORKER) {
        const Vectron__Placementdriver__V1__HeartbeatResponse *answer = (const void *)message;
        take_answer(member, answer->ok, answer->message);
    } else {
        const Vectron__Placementdriver__V1__RerankerHeartbeatResponse *answer =
            (const void *)message;
        take_answer(member, answer->ok, answer->message);
    }
}

// --- The calls

static void send(struct cluster_member *member, const char *method, const ProtobufCMessage *message,
                 void (*done)(enum status status, struct str text, const ProtobufCMessage *answer,
                              void *context))
{
    struct client_request request = {
        .service = &vectron__placementdriver__v1__placement_service__descriptor,
        .method = method,
        .message = message,
        .deadline_ns = clock_monotonic_ns() + CALL_MS_MAX * NS_PER_MS,
        .context = member,
        .done = done,
    };
    request.metadata = cluster_client_metadata(member->options.client, &request.metadata_count);
    member->channel = cluster_client_pd(member->options.client);
    request.channel = member->channel;
    member->call = client_call(&request);
    arena_reset(member->arena);
}

static void register_worker(struct cluster_member *member)
{
    Vectron__Placementdriver__V1__RegisterWorkerRequest request =
        VECTRON__PLACEMENTDRIVER__V1__REGISTER_WORKER_REQUEST__INIT;
    char *capabilities[] = {member->capability};
    request.grpc_address = member->grpc_address;
    request.raft_address = member->raft_address;
    request.n_capabilities = member->capability[0] != '\0' ? 1 : 0;
    request.capabilities = capabilities;
    request.timestamp = clock_unix_seconds();
    request.cpu_cores = (int32_t)member->options.cpu_count;
    request.memory_bytes = (int64_t)member->options.memory_bytes;
    request.disk_bytes = (int64_t)member->options.disk_bytes;
    request.rack = member->rack;
    request.zone = member->zone;
    request.region = member->region;
    request.identity = member->identity;
    send(member, "RegisterWorker", &request.base, registered);
}

static void register_reranker(struct cluster_member *member)
{
    Vectron__Placementdriver__V1__RegisterRerankerRequest request =
        VECTRON__PLACEMENTDRIVER__V1__REGISTER_RERANKER_REQUEST__INIT;
    char *capabilities[] = {member->capability};
    request.grpc_address = member->grpc_address;
    request.n_capabilities = member->capability[0] != '\0' ? 1 : 0;
    request.capabilities = capabilities;
    request.timestamp = clock_unix_seconds();
    request.cpu_cores = (int32_t)member->options.cpu_count;
    request.memory_bytes = (int64_t)member->options.memory_bytes;
    request.disk_bytes = (int64_t)member->options.disk_bytes;
    request.rack = member->rack;
    request.zone = member->zone;
    request.region = member->region;
    send(member, "RegisterReranker", &request.base, registered);
}

static void worker_heartbeat(struct cluster_member *member)
{
    Vectron__Placementdriver__V1__HeartbeatRequest request =
        VECTRON__PLACEMENTDRIVER__V1__HEARTBEAT_REQUEST__INIT;
    request.worker_id = member->id_text;
    request.timestamp = clock_unix_seconds();
    if (member->options.fill_heartbeat != NULL)
        member->options.fill_heartbeat(&request, member->arena, member->options.context);
    send(member, "Heartbeat", &request.base, heard);
}

static void reranker_heartbeat(struct cluster_member *member)
{
    Vectron__Placementdriver__V1__RerankerHeartbeatRequest request =
        VECTRON__PLACEMENTDRIVER__V1__RERANKER_HEARTBEAT_REQUEST__INIT;
    request.reranker_id = member->id_text;
    request.timestamp = clock_unix_seconds();
    send(member, "RerankerHeartbeat", &request.base, heard);
}

static void next(struct cluster_member *member)
{
    bool is_worker = member->options.kind == CLUSTER_MEMBER_WORKER;
    timer_stop(&member->timer);
    member->wants_hurry = false;
    if (atomic_load(&member->id) == 0)
        (is_worker ? register_worker : register_reranker)(member);
    else
        (is_worker ? worker_heartbeat : reranker_heartbeat)(member);
}

static void on_timer(struct timer *timer)
{
    next((struct cluster_member *)(void *)((char *)timer - offsetof(struct cluster_member, timer)));
}

static void on_start(struct task *task)
{
    struct cluster_member *member =
        (struct cluster_member *)(void *)((char *)task -
                                          offsetof(struct cluster_member, start_task));
    if (!member->is_stopped)
        next(member);
}

static void on_hurry(struct task *task)
{
    struct cluster_member *member =
        (struct cluster_member *)(void *)((char *)task -
                                          offsetof(struct cluster_member, hurry_task));
    atomic_store(&member->is_hurry_posted, false);
    if (member->is_stopped || atomic_load(&member->id) == 0)
        return; // a registration is followed by a heartbeat anyway
    if (member->call != NULL)
        member->wants_hurry = true;
    else
        next(member);
}

static void on_stop(struct task *task)
{
    struct cluster_member *member =
        (struct cluster_member *)(void *)((char *)task -
                                          offsetof(struct cluster_member, stop_task));
    member->is_stopped = true;
    timer_stop(&member->timer);
    if (member->call != NULL)
        channel_call_cancel(member->call);
    member->call = NULL;
    if (atomic_exchange(&member->is_hurry_posted, true))
        loop_post(member->loop, &member->stop_task); // its task must run before the member goes
    else
        (void)sem_post(&member->stopped);
}

// --- Life

static void copy_text(char out[static TEXT_SIZE], struct str text)
{
    (void)snprintf(out, TEXT_SIZE, "%.*s", STR_ARG(text));
}

static void measure_machine(struct cluster_member_options *options)
{
    // NOLINTBEGIN(concurrency-mt-unsafe): numbers of the machine
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_size = sysconf(_SC_PAGESIZE);
    // NOLINTEND(concurrency-mt-unsafe)
    if (options->cpu_count == 0 && processors > 0)
        options->cpu_count = (uint32_t)processors;
    if (options->memory_bytes == 0 && pages > 0 && page_size > 0)
        options->memory_bytes = (uint64_t)pages * (uint64_t)page_size;
}

struct cluster_member *cluster_member_create(const struct cluster_member_options *options)
{
    uint64_t seed = 0;
    struct cluster_member *member = mem_alloc(sizeof(*member));
    member->options = *options;
    member->loop = net_loop(options->net, 0);
    member->arena = arena_create(ARENA_SIZE_MAX);
    member->backoff_ms = BACKOFF_MS_MIN;
    measure_machine(&member->options);
    copy_text(member->grpc_address, options->grpc_address);
    copy_text(member->raft_address, options->raft_address);
    copy_text(member->identity, options->identity);
    copy_text(member->rack, options->rack);
    copy_text(member->zone, options->zone);
    copy_text(member->region, options->region);
    copy_text(member->capability, options->capability);
    rng_secure(&seed, sizeof(seed));
    rng_init(&member->rng, seed);
    timer_init(&member->timer, member->loop, on_timer);
    member->start_task.run = on_start;
    member->hurry_task.run = on_hurry;
    member->stop_task.run = on_stop;
    (void)sem_init(&member->stopped, 0, 0);
    loop_post(member->loop, &member->start_task);
    return member;
}

void cluster_member_destroy(struct cluster_member *member)
{
    if (member == NULL)
        return;
    ASSERT(loop_current() == NULL);
    loop_post(member->loop, &member->stop_task);
    while (sem_wait(&member->stopped) != 0)
        continue; // interrupted
    (void)sem_destroy(&member->stopped);
    arena_destroy(member->arena);
    mem_free(member);
}

uint64_t cluster_member_id(const struct cluster_member *member)
{
    return atomic_load(&member->id);
}

void cluster_member_hurry(struct cluster_member *member)
{
    if (!atomic_exchange(&member->is_hurry_posted, true))
        loop_post(member->loop, &member->hurry_task);
}
