#include "apigateway/collections.h"

#include "api/placementdriver.pb-c.h"
#include "api/vectron.pb-c.h"
#include "apigateway/authenticate.h"
#include "apigateway/collection_find.h"
#include "apigateway/gateway.h"
#include "apigateway/pd_call.h"
#include "base/clock.h"
#include "base/limits.h"
#include "net/loop.h"

enum {
    FREE_COLLECTIONS_MAX = 100,
    PAID_COLLECTIONS_MAX = 10000,
    // How long a new collection is waited for until each shard has a leader.
    SETTLE_SECONDS_MAX = 2,
    SETTLE_PAUSE_MS = 15,
    // A collection that is this young may be what a lost answer of ours was about.
    OWN_SECONDS_MAX = 10,
};

struct change {
    struct rpc *rpc;
    struct gateway *gateway;
    struct str name; // as the user has it
    struct str full_name;
    int32_t dimension;
    struct str distance;
    bool is_create;
    struct timer settle;
    uint64_t settle_until_ns;
};

static void reply_success(const struct change *change)
{
    Vectron__V1__CreateCollectionResponse created = VECTRON__V1__CREATE_COLLECTION_RESPONSE__INIT;
    Vectron__V1__DeleteCollectionResponse deleted = VECTRON__V1__DELETE_COLLECTION_RESPONSE__INIT;
    created.success = true;
    deleted.success = true;
    rpc_reply(change->rpc, change->is_create ? &created.base : &deleted.base);
}

// --- After the change: the next call must find things as they are now

static bool has_settled(const struct change *change, const struct cluster_map *map)
{
    const struct cluster_collection *collection = cluster_map_find(map, change->full_name);
    if (!change->is_create)
        return collection == NULL;
    if (collection == NULL)
        return false;
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        if (collection->shards[i].leader == NULL)
            return false;
    }
    return true;
}

static void refreshed(enum status status, struct cluster_map *map, void *context)
{
    (void)status; // the change is made, whatever becomes of the map
    struct change *change = context;
    bool waits =
        map != NULL && !has_settled(change, map) && clock_monotonic_ns() < change->settle_until_ns;
    if (!rpc_is_done(change->rpc) && waits) {
        timer_start(&change->settle, SETTLE_PAUSE_MS * NS_PER_MS);
        return;
    }
    if (!rpc_is_done(change->rpc))
        reply_success(change);
    rpc_unref(change->rpc);
}

static void settle_fired(struct timer *timer)
{
    struct change *change =
        (struct change *)(void *)((char *)timer - offsetof(struct change, settle));
    cluster_client_refresh(change->gateway->cluster, change->settle_until_ns, refreshed, change);
}

// Holds the request until the timer or the refresh has come back; both are bounded.
static void settle(struct change *change)
{
    uint64_t latest = clock_monotonic_ns() + SETTLE_SECONDS_MAX * NS_PER_SECOND;
    uint64_t deadline = gateway_deadline_ns(change->rpc, SETTLE_SECONDS_MAX);
    change->settle_until_ns = deadline < latest ? deadline : latest;
    timer_init(&change->settle, call_loop(rpc_call(change->rpc)), settle_fired);
    rpc_ref(change->rpc);
    settle_fired(&change->settle);
}

// --- Create

static enum status check_create(const Vectron__V1__CreateCollectionRequest *request,
                                struct error *error, struct str *out_distance)
{
    struct str distance = str_from_cstr(request->distance);
    TRY(collection_name_check(str_from_cstr(request->name), "name", error));
    if (request->dimension < 1 || request->dimension > LIMIT_DIMENSION_MAX)
        return error_set(error, STATUS_INVALID, "dimension is %d; it must be 1 to %d",
                         request->dimension, LIMIT_DIMENSION_MAX);
    if (distance.len == 0)
        distance = STR("cosine");
    if (!str_equal_cstr(distance, "cosine") && !str_equal_cstr(distance, "euclidean") &&
        !str_equal_cstr(distance, "dot"))
        return error_set(error, STATUS_INVALID,
                         "distance \"%.*s\" is unknown; it must be cosine, euclidean or dot",
                         STR_ARG(distance));
    *out_distance = distance;
    return STATUS_OK;
}

static uint32_t collections_max(enum plan plan)
{
    return plan == PLAN_PAID ? PAID_COLLECTIONS_MAX : FREE_COLLECTIONS_MAX;
}

// Counted from this gateway's map: creations at the same instant may pass the limit by a few.
static bool is_within_quota(struct rpc *rpc, struct gateway *gateway)
{
    const struct caller *caller = authenticated_caller(rpc);
    uint32_t count = 0;
    struct cluster_map *map = cluster_client_map(gateway->cluster);
    if (map != NULL)
        (void)collections_of(map, caller->user_id, rpc_arena(rpc), &count);
    cluster_map_unref(map);
    if (count < collections_max(caller->plan))
        return true;
    rpc_fail(rpc, STATUS_EXHAUSTED,
             "the plan %s allows %u collections and you have %u: delete one first%s",
             plan_name(caller->plan), collections_max(caller->plan), count,
             caller->plan == PLAN_PAID ? "" : ", or change to the plan PAID");
    return false;
}

// The answer to an earlier attempt got lost, and what is there now is what it made.
static bool is_ours(const struct change *change, const struct cluster_map *map)
{
    const struct cluster_collection *collection = cluster_map_find(map, change->full_name);
    return collection != NULL && collection->dimension == (uint32_t)change->dimension &&
           str_equal(collection->distance, change->distance) &&
           (int64_t)collection->created_at + OWN_SECONDS_MAX >= clock_unix_seconds();
}

static void looked_after_repeat(enum status status, struct cluster_map *map, void *context)
{
    (void)status;
    struct change *change = context;
    if (rpc_is_done(change->rpc)) {
        rpc_unref(change->rpc);
        return;
    }
    if (map != NULL && is_ours(change, map))
        settle(change);
    else
        rpc_fail(change->rpc, STATUS_EXISTS, "collection \"%.*s\" already exists",
                 STR_ARG(change->name));
    rpc_unref(change->rpc);
}

static void created(struct rpc *rpc, enum status status, struct str text,
                    const ProtobufCMessage *message, bool was_repeated, void *context)
{
    (void)message;
    struct change *change = context;
    if (status == STATUS_OK) {
        settle(change);
    } else if (status == STATUS_EXISTS && was_repeated) {
        rpc_ref(rpc);
        cluster_client_refresh(change->gateway->cluster,
                               gateway_deadline_ns(rpc, SETTLE_SECONDS_MAX), looked_after_repeat,
                               change);
    } else if (status == STATUS_EXISTS) {
        rpc_fail(rpc, status, "collection \"%.*s\" already exists", STR_ARG(change->name));
    } else {
        rpc_fail(rpc, status, "%.*s", STR_ARG(text));
    }
}

void collections_create(struct rpc *rpc, void *context)
{
    struct gateway *gateway = context;
    struct arena *arena = rpc_arena(rpc);
    const Vectron__V1__CreateCollectionRequest *request =
        (const Vectron__V1__CreateCollectionRequest *)(const void *)rpc_request(rpc);
    const struct caller *caller = authenticated_caller(rpc);
    struct str name = str_from_cstr(request->name);
    struct str distance = {0};
    struct error error;
    enum status status = check_create(request, &error, &distance);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    if (!caller_may_touch(caller, name)) {
        rpc_fail(rpc, STATUS_FORBIDDEN,
                 "the key is bound to named collections; it needs \"%.*s\" on its list",
                 STR_ARG(name));
        return;
    }
    if (!is_within_quota(rpc, gateway))
        return;
    struct change *change = arena_alloc(arena, sizeof(*change));
    *change = (struct change){
        .rpc = rpc,
        .gateway = gateway,
        .name = name,
        .full_name = collection_full_name(arena, caller->user_id, name),
        .dimension = request->dimension,
        .distance = distance,
        .is_create = true,
    };
    Vectron__Placementdriver__V1__CreateCollectionRequest *message =
        arena_alloc(arena, sizeof(*message));
    vectron__placementdriver__v1__create_collection_request__init(message);
    message->name = arena_cstr(arena, change->full_name);
    message->dimension = request->dimension;
    message->distance = arena_cstr(arena, distance);
    pd_call(
        &(struct pd_request){rpc, gateway, "CreateCollection", &message->base, change, created});
}

// --- Delete

static void deleted(struct rpc *rpc, enum status status, struct str text,
                    const ProtobufCMessage *message, bool was_repeated, void *context)
{
    (void)message;
    struct change *change = context;
    // Gone after a repeat: the attempt whose answer was lost did it.
    if (status == STATUS_OK || (status == STATUS_NOT_FOUND && was_repeated))
        settle(change);
    else if (status == STATUS_NOT_FOUND)
        collection_fail_missing(rpc, change->name);
    else
        rpc_fail(rpc, status, "%.*s", STR_ARG(text));
}

static void delete_found(struct rpc *rpc, struct cluster_map *map,
                         const struct cluster_collection *collection, void *context)
{
    (void)map;
    struct gateway *gateway = context;
    struct arena *arena = rpc_arena(rpc);
    struct change *change = arena_alloc(arena, sizeof(*change));
    *change = (struct change){
        .rpc = rpc,
        .gateway = gateway,
        .full_name = arena_str(arena, collection->name),
    };
    struct str rest = collection_bare_name(collection);
    change->name = arena_str(arena, rest);
    Vectron__Placementdriver__V1__DeleteCollectionRequest *message =
        arena_alloc(arena, sizeof(*message));
    vectron__placementdriver__v1__delete_collection_request__init(message);
    message->name = arena_cstr(arena, change->full_name);
    pd_call(
        &(struct pd_request){rpc, gateway, "DeleteCollection", &message->base, change, deleted});
}

void collections_delete(struct rpc *rpc, void *context)
{
    const Vectron__V1__DeleteCollectionRequest *request =
        (const Vectron__V1__DeleteCollectionRequest *)(const void *)rpc_request(rpc);
    collection_find(rpc, context, str_from_cstr(request->name), "name", delete_found, context);
}

// --- List

static void reply_list(struct rpc *rpc, const struct cluster_map *map)
{
    struct arena *arena = rpc_arena(rpc);
    const struct caller *caller = authenticated_caller(rpc);
    uint32_t count = 0;
    const struct cluster_collection *collections =
        collections_of(map, caller->user_id, arena, &count);
    Vectron__V1__ListCollectionsResponse message = VECTRON__V1__LIST_COLLECTIONS_RESPONSE__INIT;
    message.collections = arena_alloc(arena, (count + 1) * sizeof(*message.collections));
    for (uint32_t i = 0; i < count; i++) {
        struct str name = collection_bare_name(&collections[i]);
        if (caller_may_touch(caller, name))
            message.collections[message.n_collections++] = arena_cstr(arena, name);
    }
    rpc_reply(rpc, &message.base);
}

static void list_refreshed(enum status status, struct cluster_map *map, void *context)
{
    (void)status;
    struct rpc *rpc = context;
    if (!rpc_is_done(rpc) && map != NULL)
        reply_list(rpc, map);
    else if (!rpc_is_done(rpc))
        rpc_fail(rpc, STATUS_UNAVAILABLE, "the placement driver does not answer: try again");
    rpc_unref(rpc);
}

void collections_list(struct rpc *rpc, void *context)
{
    struct gateway *gateway = context;
    struct cluster_map *map = cluster_client_map(gateway->cluster);
    if (map != NULL && cluster_client_is_connected(gateway->cluster)) {
        reply_list(rpc, map);
    } else {
        uint64_t latest = clock_monotonic_ns() + RETRY_SECONDS_MAX * NS_PER_SECOND;
        uint64_t deadline = gateway_deadline_ns(rpc, RETRY_SECONDS_MAX);
        rpc_ref(rpc);
        cluster_client_refresh(gateway->cluster, deadline < latest ? deadline : latest,
                               list_refreshed, rpc);
    }
    cluster_map_unref(map);
}

// --- Status

static void status_done(struct rpc *rpc, enum status status, struct str text,
                        const ProtobufCMessage *message, bool was_repeated, void *context)
{
    (void)was_repeated;
    const struct str *name = context;
    struct arena *arena = rpc_arena(rpc);
    if (status == STATUS_NOT_FOUND) {
        collection_fail_missing(rpc, *name);
        return;
    }
    if (status != STATUS_OK) {
        rpc_fail(rpc, status, "%.*s", STR_ARG(text));
        return;
    }
    const Vectron__Placementdriver__V1__GetCollectionStatusResponse *from =
        (const Vectron__Placementdriver__V1__GetCollectionStatusResponse *)(const void *)message;
    Vectron__V1__GetCollectionStatusResponse to = VECTRON__V1__GET_COLLECTION_STATUS_RESPONSE__INIT;
    Vectron__V1__ShardStatus *shards = arena_alloc(arena, (from->n_shards + 1) * sizeof(*shards));
    to.name = arena_cstr(arena, *name);
    to.dimension = from->dimension;
    to.distance = from->distance;
    to.n_shards = from->n_shards;
    to.shards = arena_alloc(arena, (from->n_shards + 1) * sizeof(*to.shards));
    for (size_t i = 0; i < from->n_shards; i++) {
        vectron__v1__shard_status__init(&shards[i]);
        shards[i].shard_id = from->shards[i]->shard_id;
        shards[i].n_replicas = from->shards[i]->n_replicas;
        shards[i].replicas = from->shards[i]->replicas;
        shards[i].leader_id = from->shards[i]->leader_id;
        shards[i].ready = from->shards[i]->ready;
        to.shards[i] = &shards[i];
    }
    rpc_reply(rpc, &to.base);
}

static void status_found(struct rpc *rpc, struct cluster_map *map,
                         const struct cluster_collection *collection, void *context)
{
    (void)map;
    struct arena *arena = rpc_arena(rpc);
    struct str *name = arena_alloc(arena, sizeof(*name));
    *name = arena_str(arena, collection_bare_name(collection));
    Vectron__Placementdriver__V1__GetCollectionStatusRequest *message =
        arena_alloc(arena, sizeof(*message));
    vectron__placementdriver__v1__get_collection_status_request__init(message);
    message->name = arena_cstr(arena, collection->name);
    pd_call(&(struct pd_request){rpc, context, "GetCollectionStatus", &message->base, name,
                                 status_done});
}

void collections_status(struct rpc *rpc, void *context)
{
    const Vectron__V1__GetCollectionStatusRequest *request =
        (const Vectron__V1__GetCollectionStatusRequest *)(const void *)rpc_request(rpc);
    collection_find(rpc, context, str_from_cstr(request->name), "name", status_found, context);
}
