#include "apigateway/fanout.h"

#include <string.h>

#include "api/client.h"
#include "apigateway/collection_find.h"
#include "base/clock.h"
#include "base/rng.h"

// Hot path: without failures there is no lock, no log, and no allocation but the request's own.

enum { PAUSE_MS_MIN = 4, PAUSE_MS_MAX = 400, TEXT_SHOWN_MAX = 256 };

struct fanout_call {
    struct fanout *fanout;
    struct channel_call *call;
    struct fanout_call *next;
    struct fanout_call *previous;
    uint32_t part_count;
    uint32_t parts[];
};

const struct cluster_shard *fanout_shard(const struct fanout *fanout, uint32_t part)
{
    return &fanout->collection->shards[fanout->parts[part].shard_index];
}

Vectron__Worker__V1__ShardRef *fanout_shard_ref(struct fanout *fanout, uint32_t part)
{
    const struct cluster_shard *shard = fanout_shard(fanout, part);
    Vectron__Worker__V1__ShardRef *ref = arena_alloc(rpc_arena(fanout->rpc), sizeof(*ref));
    vectron__worker__v1__shard_ref__init(ref);
    ref->shard_id = shard->shard_id;
    ref->epoch = shard->epoch;
    return ref;
}

static void link_call(struct fanout *fanout, struct fanout_call *call)
{
    call->next = fanout->calls;
    call->previous = NULL;
    if (fanout->calls != NULL)
        fanout->calls->previous = call;
    fanout->calls = call;
}

static void unlink_call(struct fanout *fanout, struct fanout_call *call)
{
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        fanout->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
}

static void finish(struct fanout *fanout, enum status status, struct str text)
{
    if (fanout->is_over)
        return;
    fanout->is_over = true;
    for (struct fanout_call *call = fanout->calls; call != NULL; call = call->next)
        channel_call_cancel(call->call);
    fanout->calls = NULL;
    timer_stop(&fanout->retry);
    timer_stop(&fanout->end);
    fanout->ops->done(fanout, status, text);
    cluster_map_unref(fanout->map);
    fanout->map = NULL;
    rpc_unref(fanout->rpc);
}

static void cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    finish(context, STATUS_CANCELLED, STR(""));
}

static void end_fired(struct timer *timer)
{
    struct fanout *fanout = (struct fanout *)(void *)((char *)timer - offsetof(struct fanout, end));
    if (fanout->partial_ns < fanout->deadline_ns)
        finish(fanout, STATUS_OK, STR(""));
    else
        finish(fanout, STATUS_TIMEOUT, STR("the deadline passed before every shard had answered"));
}

// --- Again

static void wait_and_retry(struct fanout *fanout)
{
    if (timer_is_running(&fanout->retry) || fanout->is_refreshing)
        return;
    uint64_t seed;
    struct rng rng;
    rng_secure(&seed, sizeof(seed));
    rng_init(&rng, seed);
    uint64_t pause_ms = (uint64_t)PAUSE_MS_MIN << (fanout->attempt < 8 ? fanout->attempt : 8);
    if (pause_ms > PAUSE_MS_MAX)
        pause_ms = PAUSE_MS_MAX;
    fanout->attempt++;
    uint64_t pause_ns = (pause_ms / 2 + rng_below(&rng, pause_ms)) * NS_PER_MS;
    if (clock_monotonic_ns() + pause_ns < fanout->retry_until_ns) {
        timer_start(&fanout->retry, pause_ns);
        return;
    }
    // Tried long enough. With a time for partial answers the rest may still come until then.
    if (fanout->partial_ns == UINT64_MAX)
        finish(fanout, fanout->last_status, fanout->last_text);
    else if (fanout->calls == NULL)
        finish(fanout, STATUS_OK, STR(""));
}

static void part_failed(struct fanout *fanout, enum status status, struct str text)
{
    if (text.len > TEXT_SHOWN_MAX)
        text.len = TEXT_SHOWN_MAX;
    fanout->last_status = status;
    fanout->last_text = arena_str(rpc_arena(fanout->rpc), text);
}

static void send_waiting(struct fanout *fanout);

// The same collection with the same shards, which may have moved.
static enum status take_map(struct fanout *fanout, struct cluster_map *map)
{
    const struct cluster_collection *collection = cluster_map_find(map, fanout->collection->name);
    if (collection == NULL)
        return STATUS_NOT_FOUND;
    for (uint32_t i = 0; i < fanout->part_count; i++) {
        const struct fanout_part *part = &fanout->parts[i];
        if (part->shard_index >= collection->shard_count ||
            collection->shards[part->shard_index].shard_id != part->shard_id)
            return STATUS_UNAVAILABLE;
    }
    cluster_map_ref(map);
    cluster_map_unref(fanout->map);
    fanout->map = map;
    fanout->collection = collection;
    return STATUS_OK;
}

static void refreshed(enum status refresh_status, struct cluster_map *map, void *context)
{
    (void)refresh_status; // without a fresh map the workers may still come back
    struct fanout *fanout = context;
    struct rpc *rpc = fanout->rpc;
    fanout->is_refreshing = false;
    if (!fanout->is_over) {
        enum status status = map != NULL ? take_map(fanout, map) : STATUS_OK;
        if (status == STATUS_OK)
            send_waiting(fanout);
        else if (status == STATUS_NOT_FOUND) {
            fanout->has_lost_collection = true;
            finish(fanout, status,
                   arena_format(rpc_arena(rpc), "collection \"%.*s\" not found",
                                STR_ARG(collection_bare_name(fanout->collection))));
        } else
            finish(fanout, status, STR("the collection's shards have changed: try again"));
    }
    rpc_unref(rpc);
}

static void retry_fired(struct timer *timer)
{
    struct fanout *fanout =
        (struct fanout *)(void *)((char *)timer - offsetof(struct fanout, retry));
    fanout->is_refreshing = true;
    rpc_ref(fanout->rpc);
    cluster_client_refresh(fanout->gateway->cluster, fanout->retry_until_ns, refreshed, fanout);
}

// --- The calls

// The caller has not cancelled, or no answer would come: a worker that shuts down has.
static bool is_worth_retrying(enum status status)
{
    return status == STATUS_UNAVAILABLE || status == STATUS_NOT_LEADER ||
           status == STATUS_CANCELLED;
}

static void call_done(enum status status, struct str text, const ProtobufCMessage *message,
                      void *context)
{
    struct fanout_call *call = context;
    struct fanout *fanout = call->fanout;
    unlink_call(fanout, call);
    if (status == STATUS_OK) {
        for (uint32_t i = 0; i < call->part_count; i++)
            fanout->parts[call->parts[i]].state = PART_ANSWERED;
        fanout->answered_count += call->part_count;
        if (fanout->ops->answered != NULL)
            fanout->ops->answered(fanout, message);
        if (fanout->answered_count == fanout->part_count)
            finish(fanout, STATUS_OK, STR(""));
        return;
    }
    if (!is_worth_retrying(status)) {
        finish(fanout, status, text);
        return;
    }
    for (uint32_t i = 0; i < call->part_count; i++)
        fanout->parts[call->parts[i]].state = PART_WAITING;
    part_failed(fanout, STATUS_UNAVAILABLE, text);
    wait_and_retry(fanout);
}

static void send_call(struct fanout *fanout, struct fanout_call *call, struct channel *channel)
{
    uint32_t metadata_count = 0;
    const struct metadata *metadata =
        cluster_client_metadata(fanout->gateway->cluster, &metadata_count);
    call->fanout = fanout;
    for (uint32_t i = 0; i < call->part_count; i++)
        fanout->parts[call->parts[i]].state = PART_IN_FLIGHT;
    link_call(fanout, call);
    call->call = client_call(&(struct client_request){
        .channel = channel,
        .service = &vectron__worker__v1__worker_service__descriptor,
        .method = fanout->ops->method,
        .message = fanout->ops->build(fanout, call->parts, call->part_count),
        .deadline_ns = fanout->deadline_ns,
        .metadata = metadata,
        .metadata_count = metadata_count,
        .context = call,
        .arena = rpc_arena(fanout->rpc),
        .done = call_done,
    });
}

// The parts that wait for the same worker as the first one, that one included.
static struct fanout_call *gather(struct fanout *fanout, uint32_t first,
                                  const struct cluster_worker *leader)
{
    uint32_t count_max = fanout->ops->groups_by_worker ? fanout->part_count - first : 1;
    struct fanout_call *call =
        arena_alloc(rpc_arena(fanout->rpc), sizeof(*call) + sizeof(call->parts[0]) * count_max);
    call->part_count = 0;
    for (uint32_t i = first; i < fanout->part_count && call->part_count < count_max; i++) {
        if (fanout->parts[i].state == PART_WAITING && fanout_shard(fanout, i)->leader == leader)
            call->parts[call->part_count++] = i;
    }
    return call;
}

static void send_waiting(struct fanout *fanout)
{
    bool has_leaderless = false;
    for (uint32_t i = 0; i < fanout->part_count; i++) {
        if (fanout->parts[i].state != PART_WAITING)
            continue;
        const struct cluster_shard *shard = fanout_shard(fanout, i);
        if (shard->leader != NULL && shard->leader->channel != NULL) {
            send_call(fanout, gather(fanout, i, shard->leader), shard->leader->channel);
            continue;
        }
        if (!has_leaderless)
            part_failed(fanout, STATUS_UNAVAILABLE,
                        arena_format(rpc_arena(fanout->rpc),
                                     "shard %u has no leader now: try again", shard->shard_id));
        has_leaderless = true;
    }
    if (has_leaderless)
        wait_and_retry(fanout);
}

void fanout_start(struct fanout *fanout, struct cluster_map *map,
                  const struct cluster_collection *collection)
{
    struct loop *loop = call_loop(rpc_call(fanout->rpc));
    uint64_t end_ns =
        fanout->partial_ns < fanout->deadline_ns ? fanout->partial_ns : fanout->deadline_ns;
    uint64_t latest = clock_monotonic_ns() + RETRY_SECONDS_MAX * NS_PER_SECOND;
    fanout->map = map;
    fanout->collection = collection;
    fanout->retry_until_ns = end_ns < latest ? end_ns : latest;
    cluster_map_ref(map);
    rpc_ref(fanout->rpc);
    timer_init(&fanout->retry, loop, retry_fired);
    timer_init(&fanout->end, loop, end_fired);
    rpc_on_cancel(fanout->rpc, cancelled, fanout);
    if (end_ns != UINT64_MAX)
        timer_start_at(&fanout->end, end_ns);
    send_waiting(fanout);
}
