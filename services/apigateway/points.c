#include "apigateway/points.h"

#include "api/vectron.pb-c.h"
#include "apigateway/authenticate.h"
#include "apigateway/collection_find.h"
#include "apigateway/fanout.h"
#include "apigateway/gateway.h"
#include "apigateway/point_batch.h"
#include "apigateway/point_check.h"
#include "apigateway/quota.h"
#include "base/clock.h"
#include "base/limits.h"

// What is checked on the loop; more goes to the pool, because other calls wait meanwhile.
enum { INLINE_POINTS_MAX = 16, INLINE_VALUES_MAX = 1 << 16 };
// A batch that was checked in the pool: its payloads as JSON, and a few words for each point.
enum { BATCH_MEMORY_MAX = 2 * LIMIT_REQUEST_SIZE_GATEWAY };

static void fail_call(struct rpc *rpc, enum status status, struct str text)
{
    if (status != STATUS_CANCELLED) // nobody is there to be told
        rpc_fail(rpc, status, "%.*s", STR_ARG(text));
}

// --- Upsert

struct upsert {
    struct fanout fanout; // first
    struct gateway *gateway;
    const Vectron__V1__UpsertRequest *request;
    struct cluster_map *map;
    const struct cluster_collection *collection;
    struct arena *arena; // of the batch; the request's, or its own when the pool makes the batch
    struct point_batch batch;
    enum status status; // of the check
    struct error error;
};

static const ProtobufCMessage *build_upsert(struct fanout *fanout, const uint32_t *parts,
                                            uint32_t part_count)
{
    (void)part_count; // one shard a call
    struct upsert *upsert = (struct upsert *)fanout;
    const struct point_group *group = &upsert->batch.groups[parts[0]];
    Vectron__Worker__V1__UpsertPointsRequest *message =
        arena_alloc(rpc_arena(fanout->rpc), sizeof(*message));
    vectron__worker__v1__upsert_points_request__init(message);
    message->shard = fanout_shard_ref(fanout, parts[0]);
    message->n_points = group->count;
    message->points = group->points;
    return &message->base;
}

static void upsert_release(struct upsert *upsert, struct rpc *rpc)
{
    cluster_map_unref(upsert->map);
    upsert->map = NULL;
    if (upsert->arena != rpc_arena(rpc))
        arena_destroy(upsert->arena);
    upsert->arena = rpc_arena(rpc);
}

static void upsert_done(struct fanout *fanout, enum status status, struct str text)
{
    struct upsert *upsert = (struct upsert *)fanout;
    struct rpc *rpc = fanout->rpc;
    upsert_release(upsert, rpc);
    if (status != STATUS_OK) {
        fail_call(rpc, status, text);
        return;
    }
    Vectron__V1__UpsertResponse message = VECTRON__V1__UPSERT_RESPONSE__INIT;
    message.upserted = (int32_t)upsert->request->n_points;
    rpc_reply(rpc, &message.base);
}

static const struct fanout_ops upsert_ops = {
    .method = "UpsertPoints",
    .build = build_upsert,
    .done = upsert_done,
};

static void upsert_send(struct rpc *rpc, struct upsert *upsert)
{
    if (upsert->status != STATUS_OK) {
        rpc_fail_error(rpc, upsert->status, &upsert->error);
        upsert_release(upsert, rpc);
        return;
    }
    uint32_t count = upsert->batch.group_count;
    struct fanout_part *parts = arena_alloc(rpc_arena(rpc), count * sizeof(*parts));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t shard_index = upsert->batch.groups[i].shard_index;
        parts[i].shard_index = shard_index;
        parts[i].shard_id = upsert->collection->shards[shard_index].shard_id;
    }
    upsert->fanout = (struct fanout){
        .rpc = rpc,
        .gateway = upsert->gateway,
        .ops = &upsert_ops,
        .parts = parts,
        .part_count = count,
        .deadline_ns = gateway_deadline_ns(rpc, DEFAULT_UPSERT_DEADLINE_SECONDS),
        .partial_ns = UINT64_MAX,
    };
    fanout_start(&upsert->fanout, upsert->map, upsert->collection);
}

static void upsert_check(struct upsert *upsert)
{
    upsert->status = point_batch_create(upsert->request, upsert->collection, upsert->arena,
                                        &upsert->error, &upsert->batch);
}

static void check_pooled(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct upsert *upsert = context;
    upsert->arena = arena_create(BATCH_MEMORY_MAX);
    upsert_check(upsert);
}

static void checked_pooled(struct rpc *rpc, void *context)
{
    struct upsert *upsert = context;
    if (rpc_is_done(rpc))
        upsert_release(upsert, rpc);
    else
        upsert_send(rpc, upsert);
}

static bool is_large(const Vectron__V1__UpsertRequest *request, uint32_t dimension)
{
    return request->n_points > INLINE_POINTS_MAX ||
           request->n_points * dimension > INLINE_VALUES_MAX;
}

static void fail_quota(struct rpc *rpc, struct str what, uint64_t max, uint64_t used)
{
    rpc_add_header(rpc, STR("retry-after"),
                   arena_format(rpc_arena(rpc), "%d", QUOTA_RETRY_SECONDS));
    enum plan plan = authenticated_caller(rpc)->plan;
    rpc_fail(rpc, STATUS_EXHAUSTED,
             "the plan %s allows %llu %.*s and you have %llu: delete some first%s; what was "
             "deleted counts no more after %d s",
             plan_name(plan), (unsigned long long)max, STR_ARG(what), (unsigned long long)used,
             plan == PLAN_PAID ? "" : ", or change to the plan PAID", QUOTA_RETRY_SECONDS);
}

// An admin who writes into somebody else's collection uses nobody's quota.
static bool is_within_quota(struct rpc *rpc, const struct upsert *upsert,
                            const struct cluster_collection *collection)
{
    const struct caller *caller = authenticated_caller(rpc);
    struct quota *quota = upsert->gateway->quota;
    struct str rest = collection->name;
    uint64_t count = upsert->request->n_points;
    struct quota_amount amount = {count, count * collection->dimension * sizeof(float)};
    struct quota_amount max = quota_max(quota, caller->plan);
    struct quota_amount used;
    if (!str_equal(str_cut(&rest, '/'), caller->user_id) ||
        quota_take(quota, caller->user_id, caller->plan, &amount, &used))
        return true;
    if (max.points > 0 && used.points + amount.points > max.points)
        fail_quota(rpc, STR("points"), max.points, used.points);
    else
        fail_quota(rpc, STR("bytes"), max.bytes, used.bytes);
    return false;
}

static void upsert_found(struct rpc *rpc, struct cluster_map *map,
                         const struct cluster_collection *collection, void *context)
{
    struct upsert *upsert = context;
    if (upsert->request->n_points == 0) {
        Vectron__V1__UpsertResponse message = VECTRON__V1__UPSERT_RESPONSE__INIT;
        rpc_reply(rpc, &message.base);
        return;
    }
    if (upsert->request->n_points > INT32_MAX) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "points: more than %d in one request", INT32_MAX);
        return;
    }
    if (!is_within_quota(rpc, upsert, collection))
        return;
    cluster_map_ref(map);
    upsert->map = map;
    upsert->collection = collection;
    upsert->arena = rpc_arena(rpc);
    if (!is_large(upsert->request, collection->dimension)) {
        upsert_check(upsert);
        upsert_send(rpc, upsert);
        return;
    }
    rpc_run_pooled(rpc, check_pooled, checked_pooled, upsert);
    if (rpc_is_done(rpc)) // the pool is full: neither function is called
        upsert_release(upsert, rpc);
}

void points_upsert(struct rpc *rpc, void *context)
{
    struct upsert *upsert = arena_alloc(rpc_arena(rpc), sizeof(*upsert));
    upsert->gateway = context;
    upsert->request = (const Vectron__V1__UpsertRequest *)(const void *)rpc_request(rpc);
    collection_find(rpc, context, str_from_cstr(upsert->request->collection), "collection",
                    upsert_found, upsert);
}

// --- One point: get and delete

struct single {
    struct fanout fanout; // first
    struct gateway *gateway;
    const struct fanout_ops *ops;
    char *id;
    struct fanout_part part;
    const Vectron__Worker__V1__ShardPoint *point; // get: the answer
};

static void single_found(struct rpc *rpc, struct cluster_map *map,
                         const struct cluster_collection *collection, void *context)
{
    struct single *single = context;
    const struct cluster_shard *shard =
        cluster_collection_route(collection, str_from_cstr(single->id));
    single->part.shard_index = (uint32_t)(shard - collection->shards);
    single->part.shard_id = shard->shard_id;
    single->fanout = (struct fanout){
        .rpc = rpc,
        .gateway = single->gateway,
        .ops = single->ops,
        .parts = &single->part,
        .part_count = 1,
        .deadline_ns = gateway_deadline_ns(rpc, DEFAULT_DEADLINE_SECONDS),
        .partial_ns = UINT64_MAX,
    };
    fanout_start(&single->fanout, map, collection);
}

static void single_start(struct rpc *rpc, struct gateway *gateway, const struct fanout_ops *ops,
                         const char *collection, char *id)
{
    struct error error;
    enum status status = point_id_check(str_from_cstr(id), "id", &error);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    struct single *single = arena_alloc(rpc_arena(rpc), sizeof(*single));
    single->gateway = gateway;
    single->ops = ops;
    single->id = id;
    collection_find(rpc, gateway, str_from_cstr(collection), "collection", single_found, single);
}

static const ProtobufCMessage *build_get(struct fanout *fanout, const uint32_t *parts,
                                         uint32_t part_count)
{
    (void)part_count; // one
    struct single *single = (struct single *)fanout;
    Vectron__Worker__V1__GetPointRequest *message =
        arena_alloc(rpc_arena(fanout->rpc), sizeof(*message));
    vectron__worker__v1__get_point_request__init(message);
    message->shard = fanout_shard_ref(fanout, parts[0]);
    message->id = single->id;
    return &message->base;
}

static void get_answered(struct fanout *fanout, const ProtobufCMessage *answer)
{
    struct single *single = (struct single *)fanout;
    single->point = ((const Vectron__Worker__V1__GetPointResponse *)(const void *)answer)->point;
}

static enum status fill_payload(struct rpc *rpc, struct str json, Vectron__V1__Point *point)
{
    struct arena *arena = rpc_arena(rpc);
    struct payload_member *members = NULL;
    TRY(payload_to_document(json, arena, &point->document));
    if (rpc_is_http(rpc)) // one object there, and that is the document
        return STATUS_OK;
    TRY(payload_to_members(json, arena, &members, &point->n_payload));
    point->payload = arena_try_alloc(arena, (point->n_payload + 1) * sizeof(*point->payload));
    Vectron__V1__Point__PayloadEntry *entries =
        arena_try_alloc(arena, (point->n_payload + 1) * sizeof(*entries));
    if (point->payload == NULL || entries == NULL)
        return STATUS_EXHAUSTED;
    for (size_t i = 0; i < point->n_payload; i++) {
        vectron__v1__point__payload_entry__init(&entries[i]);
        entries[i].key = members[i].key;
        entries[i].value = members[i].value;
        point->payload[i] = &entries[i];
    }
    return STATUS_OK;
}

static void get_done(struct fanout *fanout, enum status status, struct str text)
{
    struct single *single = (struct single *)fanout;
    struct rpc *rpc = fanout->rpc;
    if (status == STATUS_OK && single->point == NULL)
        status = STATUS_NOT_FOUND;
    if (status == STATUS_NOT_FOUND && !fanout->has_lost_collection) {
        rpc_fail(rpc, status, "point \"%s\" not found", single->id);
        return;
    }
    if (status != STATUS_OK) {
        fail_call(rpc, status, text);
        return;
    }
    Vectron__V1__Point point = VECTRON__V1__POINT__INIT;
    Vectron__V1__GetResponse message = VECTRON__V1__GET_RESPONSE__INIT;
    struct str json = {(const char *)single->point->payload.data, single->point->payload.len};
    status = fill_payload(rpc, json, &point);
    if (status != STATUS_OK) {
        rpc_fail(rpc, status, "the point's payload cannot be shown: %s", status_text(status));
        return;
    }
    point.id = single->id;
    point.n_vector = single->point->n_vector;
    point.vector = single->point->vector;
    message.point = &point;
    rpc_reply(rpc, &message.base);
}

static const struct fanout_ops get_ops = {
    .method = "GetPoint",
    .build = build_get,
    .answered = get_answered,
    .done = get_done,
};

void points_get(struct rpc *rpc, void *context)
{
    const Vectron__V1__GetRequest *request =
        (const Vectron__V1__GetRequest *)(const void *)rpc_request(rpc);
    single_start(rpc, context, &get_ops, request->collection, request->id);
}

static const ProtobufCMessage *build_delete(struct fanout *fanout, const uint32_t *parts,
                                            uint32_t part_count)
{
    (void)part_count; // one
    struct single *single = (struct single *)fanout;
    Vectron__Worker__V1__DeletePointsRequest *message =
        arena_alloc(rpc_arena(fanout->rpc), sizeof(*message));
    vectron__worker__v1__delete_points_request__init(message);
    message->shard = fanout_shard_ref(fanout, parts[0]);
    message->n_ids = 1;
    message->ids = &single->id;
    return &message->base;
}

static void delete_done(struct fanout *fanout, enum status status, struct str text)
{
    if (status != STATUS_OK) {
        fail_call(fanout->rpc, status, text);
        return;
    }
    Vectron__V1__DeleteResponse message = VECTRON__V1__DELETE_RESPONSE__INIT;
    rpc_reply(fanout->rpc, &message.base);
}

static const struct fanout_ops delete_ops = {
    .method = "DeletePoints",
    .build = build_delete,
    .done = delete_done,
};

void points_delete(struct rpc *rpc, void *context)
{
    const Vectron__V1__DeleteRequest *request =
        (const Vectron__V1__DeleteRequest *)(const void *)rpc_request(rpc);
    single_start(rpc, context, &delete_ops, request->collection, request->id);
}
