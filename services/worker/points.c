#include <stddef.h>
#include <string.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "worker/worker_internal.h"

// Upsert, delete, get.

enum {
    ID_SHOWN_MAX = 64,
    ANSWER_SIZE_MAX = 8 << 20,
    CHECK_INLINE_MAX =
        1 << 20, // floats of a request that the loop itself checks: under a millisecond
};

#define AS(type, message) ((const type *)(const void *)(message))
#define NO_MEMORY         "there is no memory for the request"

// --- Checking

static enum status check_id(struct str id, struct error *error)
{
    if (id.len == 0)
        return error_set(error, STATUS_INVALID, "id is empty");
    if (id.len > LIMIT_POINT_ID_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "id has %zu bytes; the limit is %d", id.len,
                         LIMIT_POINT_ID_SIZE_MAX);
    return STATUS_OK;
}

static enum status check_point(const struct hosted *hosted,
                               const Vectron__Worker__V1__ShardPoint *point, struct error *error)
{
    TRY(check_id(str_from_cstr(point->id), error));
    if (point->payload.len > LIMIT_PAYLOAD_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "payload has %zu bytes; the limit is %d",
                         point->payload.len, LIMIT_PAYLOAD_SIZE_MAX);
    return distance_check_vector(hosted->distance, hosted->dimension, point->vector,
                                 point->n_vector, error);
}

// As much of an id as is worth showing, whole characters.
static struct str shown(const char *text)
{
    struct str id = str_from_cstr(text);
    struct str rest = id;
    while (rest.len > 0) {
        size_t size = str_utf8_size(rest);
        if (size == 0 || (size_t)(rest.data - id.data) + size > ID_SHOWN_MAX)
            break;
        rest = (struct str){rest.data + size, rest.len - size};
    }
    return (struct str){id.data, (size_t)(rest.data - id.data)};
}

// --- Writing. The request's messages are read by the thread that writes; they stay where they are
// until the answer, because the request is held.

struct write_request {
    struct shard_write write; // first
    struct task task;
    struct worker *worker;
    struct rpc *rpc;
    struct loop *loop;
    struct hosted *hosted;
    struct shard_point *points;
    struct str *removed;
    enum status status;
    struct error error;
};

// Has a thread of the pool write what waits for the shard.
struct drain {
    struct job job;
    struct worker *worker;
    struct hosted *hosted;
    bool has_more;
};

static void start_drain(struct worker *worker, struct hosted *hosted);

static void run_drain(struct job *job)
{
    struct drain *drain = (void *)job;
    drain->has_more = shard_drain(drain->hosted->shard);
}

static void drain_done(struct job *job)
{
    struct drain *drain = (void *)job;
    if (drain->has_more)
        start_drain(drain->worker, drain->hosted);
    hosted_unref(drain->hosted);
    worker_end(drain->worker);
    mem_free(drain);
}

static void start_drain(struct worker *worker, struct hosted *hosted)
{
    struct drain *drain = mem_alloc(sizeof(*drain));
    *drain = (struct drain){
        .job = {.loop = loop_current(), .run = run_drain, .done = drain_done},
        .worker = worker,
        .hosted = hosted,
    };
    hosted_ref(hosted);
    worker_begin(worker);
    if (pool_submit(net_pool(worker->net), &drain->job) == STATUS_OK)
        return;
    struct error error;
    (void)error_set(&error, STATUS_EXHAUSTED, "the worker is overloaded; try again in a second");
    shard_refuse(hosted->shard, STATUS_EXHAUSTED, &error);
    hosted_unref(hosted);
    worker_end(worker);
    mem_free(drain);
}

void worker_wake_shards(struct worker *worker)
{
    uint32_t count = 0;
    struct hosted **list = hosting_list(worker->hosting, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (shard_wake(list[i]->shard))
            start_drain(worker, list[i]);
    }
    hosting_list_free(list, count);
}

static void free_write(struct write_request *request)
{
    struct worker *worker = request->worker;
    hosted_unref(request->hosted);
    rpc_unref(request->rpc);
    mem_free(request->points);
    mem_free(request->removed);
    mem_free(request);
    worker_end(worker);
}

static void reply_upserted(struct rpc *rpc)
{
    const Vectron__Worker__V1__UpsertPointsResponse answer =
        VECTRON__WORKER__V1__UPSERT_POINTS_RESPONSE__INIT;
    rpc_reply(rpc, &answer.base);
}

static void reply_deleted(struct rpc *rpc)
{
    const Vectron__Worker__V1__DeletePointsResponse answer =
        VECTRON__WORKER__V1__DELETE_POINTS_RESPONSE__INIT;
    rpc_reply(rpc, &answer.base);
}

static void answer_write(struct task *task)
{
    struct write_request *request = (void *)((char *)task - offsetof(struct write_request, task));
    struct rpc *rpc = request->rpc;
    if (rpc_is_done(rpc)) {
        // The caller has gone.
    } else if (request->status != STATUS_OK) {
        rpc_fail_error(rpc, request->status, &request->error);
    } else if (request->points != NULL) {
        reply_upserted(rpc);
    } else {
        reply_deleted(rpc);
    }
    free_write(request);
}

// On the thread that wrote.
static void write_done(struct shard_write *write, enum status status, const struct error *error)
{
    struct write_request *request = (void *)write;
    request->status = status;
    if (status != STATUS_OK)
        request->error = *error;
    request->task.run = answer_write;
    loop_post(request->loop, &request->task);
}

static void submit(struct write_request *request)
{
    struct worker *worker = request->worker;
    struct hosted *hosted = request->hosted;
    bool must_drain = false;
    hosted_ref(hosted);
    enum status status = shard_submit(hosted->shard, &request->write, &request->error, &must_drain);
    if (status != STATUS_OK) {
        rpc_fail_error(request->rpc, status, &request->error);
        free_write(request);
    } else if (must_drain) {
        start_drain(worker, hosted);
    }
    hosted_unref(hosted);
}

static struct write_request *create_write(struct rpc *rpc, struct worker *worker,
                                          struct hosted *hosted)
{
    struct write_request *request = mem_alloc(sizeof(*request));
    request->worker = worker;
    request->rpc = rpc;
    request->loop = call_loop(rpc_call(rpc));
    request->hosted = hosted;
    request->write.done = write_done;
    request->write.deadline_ns = call_deadline_ns(rpc_call(rpc));
    rpc_ref(rpc);
    worker_begin(worker);
    return request;
}

// --- Upsert: checked whole before anything is written

static enum status check_points(const struct hosted *hosted,
                                const Vectron__Worker__V1__UpsertPointsRequest *message,
                                struct error *error)
{
    for (size_t i = 0; i < message->n_points; i++) {
        enum status status = check_point(hosted, message->points[i], error);
        struct str id = shown(message->points[i]->id);
        if (status != STATUS_OK)
            return error_prefix(error, status, "points[%zu] (id \"%.*s\")", i, STR_ARG(id));
    }
    return STATUS_OK;
}

static void prepare_upsert(struct rpc *rpc, void *context)
{
    struct write_request *request = context;
    const Vectron__Worker__V1__UpsertPointsRequest *message =
        AS(Vectron__Worker__V1__UpsertPointsRequest, rpc_request(rpc));
    request->status = check_points(request->hosted, message, &request->error);
    if (request->status != STATUS_OK)
        return;
    request->points = mem_try_alloc(message->n_points * sizeof(request->points[0]));
    if (request->points == NULL) {
        request->status = error_set(&request->error, STATUS_EXHAUSTED, NO_MEMORY);
        return;
    }
    for (size_t i = 0; i < message->n_points; i++) {
        const Vectron__Worker__V1__ShardPoint *point = message->points[i];
        request->points[i] = (struct shard_point){
            .id = str_from_cstr(point->id),
            .vector = point->vector,
            .payload = {(const char *)point->payload.data, point->payload.len},
        };
    }
    request->write.points = request->points;
    request->write.point_count = (uint32_t)message->n_points;
}

static void upsert_prepared(struct rpc *rpc, void *context)
{
    struct write_request *request = context;
    if (request->status == STATUS_OK && !rpc_is_done(rpc)) {
        metric_add(request->worker->upserts, 1);
        metric_add(request->worker->points_upserted, request->write.point_count);
        submit(request);
        return;
    }
    if (!rpc_is_done(rpc))
        rpc_fail_error(rpc, request->status, &request->error);
    free_write(request);
}

static void upsert(struct rpc *rpc, struct worker *worker, struct hosted **shards, uint32_t count)
{
    (void)count;
    const Vectron__Worker__V1__UpsertPointsRequest *message =
        AS(Vectron__Worker__V1__UpsertPointsRequest, rpc_request(rpc));
    if (message->n_points == 0) {
        reply_upserted(rpc);
        hosted_unref(shards[0]);
        return;
    }
    struct write_request *request = create_write(rpc, worker, shards[0]);
    if (message->n_points * (uint64_t)shards[0]->dimension <= CHECK_INLINE_MAX) {
        prepare_upsert(rpc, request);
        upsert_prepared(rpc, request);
        return;
    }
    rpc_run_pooled(rpc, prepare_upsert, upsert_prepared, request);
    // Failed at once: the pool is full, and nobody calls upsert_prepared.
    if (rpc_is_done(rpc))
        free_write(request);
}

void worker_upsert_points(struct rpc *rpc, void *context)
{
    const Vectron__Worker__V1__UpsertPointsRequest *message =
        AS(Vectron__Worker__V1__UpsertPointsRequest, rpc_request(rpc));
    worker_with_shards(rpc, context, &message->shard, 1, upsert);
}

static void delete_points(struct rpc *rpc, struct worker *worker, struct hosted **shards,
                          uint32_t count)
{
    (void)count;
    const Vectron__Worker__V1__DeletePointsRequest *message =
        AS(Vectron__Worker__V1__DeletePointsRequest, rpc_request(rpc));
    if (message->n_ids == 0) {
        reply_deleted(rpc);
        hosted_unref(shards[0]);
        return;
    }
    for (size_t i = 0; i < message->n_ids; i++) {
        struct error error;
        enum status status = check_id(str_from_cstr(message->ids[i]), &error);
        if (status != STATUS_OK) {
            rpc_fail(rpc, status, "ids[%zu]: %s", i, error.text);
            hosted_unref(shards[0]);
            return;
        }
    }
    struct write_request *request = create_write(rpc, worker, shards[0]);
    request->removed = mem_try_alloc(message->n_ids * sizeof(request->removed[0]));
    if (request->removed == NULL) {
        rpc_fail(rpc, STATUS_EXHAUSTED, NO_MEMORY);
        free_write(request);
        return;
    }
    for (size_t i = 0; i < message->n_ids; i++)
        request->removed[i] = str_from_cstr(message->ids[i]);
    request->write.removed = request->removed;
    request->write.removed_count = (uint32_t)message->n_ids;
    submit(request);
}

void worker_delete_points(struct rpc *rpc, void *context)
{
    const Vectron__Worker__V1__DeletePointsRequest *message =
        AS(Vectron__Worker__V1__DeletePointsRequest, rpc_request(rpc));
    worker_with_shards(rpc, context, &message->shard, 1, delete_points);
}

// --- Getting: waits for the disk, so on the pool

struct get_request {
    struct worker *worker;
    struct hosted *hosted;
    struct str id;
    struct arena *arena;
    struct shard_point point;
    enum status status;
    struct error error;
};

static void free_get(struct get_request *request)
{
    struct worker *worker = request->worker;
    hosted_unref(request->hosted);
    arena_destroy(request->arena);
    mem_free(request);
    worker_end(worker);
}

static void run_get(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct get_request *request = context;
    request->status = shard_get(request->hosted->shard, request->id, request->arena,
                                &request->error, &request->point);
}

static void answer_point(struct rpc *rpc, const struct get_request *request)
{
    const struct shard_point *stored = &request->point;
    Vectron__Worker__V1__ShardPoint point = VECTRON__WORKER__V1__SHARD_POINT__INIT;
    Vectron__Worker__V1__GetPointResponse answer = VECTRON__WORKER__V1__GET_POINT_RESPONSE__INIT;
    point.id = arena_cstr(request->arena, stored->id);
    // protobuf-c knows no const; encoding only reads.
    memcpy(&point.vector, &stored->vector, sizeof(point.vector));
    point.n_vector = request->hosted->dimension;
    memcpy(&point.payload.data, &stored->payload.data, sizeof(point.payload.data));
    point.payload.len = stored->payload.len;
    answer.point = &point;
    rpc_reply(rpc, &answer.base);
}

static void get_done(struct rpc *rpc, void *context)
{
    struct get_request *request = context;
    if (rpc_is_done(rpc)) {
        // The caller has gone.
    } else if (request->status == STATUS_OK) {
        answer_point(rpc, request);
    } else if (request->status == STATUS_NOT_FOUND) {
        rpc_fail(rpc, STATUS_NOT_FOUND, "point \"%.*s\" not found", STR_ARG(request->id));
    } else {
        (void)error_prefix(&request->error, request->status, "point \"%.*s\"",
                           STR_ARG(request->id));
        rpc_fail_error(rpc, request->status, &request->error);
    }
    free_get(request);
}

static void get_point(struct rpc *rpc, struct worker *worker, struct hosted **shards,
                      uint32_t count)
{
    (void)count;
    const Vectron__Worker__V1__GetPointRequest *message =
        AS(Vectron__Worker__V1__GetPointRequest, rpc_request(rpc));
    struct get_request *request = mem_alloc(sizeof(*request));
    request->worker = worker;
    request->hosted = shards[0];
    request->id = str_from_cstr(message->id);
    request->arena = arena_create(ANSWER_SIZE_MAX);
    worker_begin(worker);
    rpc_run_pooled(rpc, run_get, get_done, request);
    // Failed at once: the pool is full, and nobody calls get_done.
    if (rpc_is_done(rpc))
        free_get(request);
}

void worker_get_point(struct rpc *rpc, void *context)
{
    const Vectron__Worker__V1__GetPointRequest *message =
        AS(Vectron__Worker__V1__GetPointRequest, rpc_request(rpc));
    struct error error;
    enum status status = check_id(str_from_cstr(message->id), &error);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    worker_with_shards(rpc, context, &message->shard, 1, get_point);
}
