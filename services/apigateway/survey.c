#include "apigateway/survey.h"

#include <string.h>

#include "api/client.h"
#include "api/health.pb-c.h"
#include "apigateway/identity_watch.h"
#include "base/clock.h"

enum { SURVEY_SECONDS = 2, TEXT_MAX = 256, CONDITIONS_MAX = 256, LEADERLESS_SHOWN_MAX = 100 };

// --- What is wrong

struct conditions {
    struct arena *arena;
    struct alert_condition all[CONDITIONS_MAX];
    uint32_t count;
};

static void add_condition(struct conditions *conditions, enum alert_level level, struct str key,
                          struct str message)
{
    if (conditions->count < CONDITIONS_MAX)
        conditions->all[conditions->count++] = (struct alert_condition){key, level, message};
}

static void judge_item(const struct survey *survey, const struct survey_item *item,
                       struct conditions *conditions)
{
    static const struct {
        const char *name;
        enum alert_level level;
    } kinds[] = {
        [SURVEY_PLACEMENT_DRIVER] = {"placement driver", ALERT_WARNING},
        [SURVEY_WORKER_LIST] = {"placement driver's leader", ALERT_CRITICAL},
        [SURVEY_WORKER] = {"worker", ALERT_CRITICAL},
        [SURVEY_AUTH] = {"auth service", ALERT_CRITICAL},
        [SURVEY_RERANKER] = {"reranker", ALERT_WARNING},
    };
    bool is_needed = item->kind != SURVEY_RERANKER || survey->gateway->reranks;
    if (item->is_reached || !is_needed)
        return;
    const char *name = kinds[item->kind].name;
    add_condition(conditions, kinds[item->kind].level,
                  arena_format(conditions->arena, "%s/%.*s", name, STR_ARG(item->address)),
                  arena_format(conditions->arena, "%s %.*s cannot be reached: %.*s", name,
                               STR_ARG(item->address), STR_ARG(item->error)));
}

static void judge_map(const struct cluster_map *map, struct conditions *conditions)
{
    for (uint32_t i = 0; i < map->worker_count; i++) {
        const struct cluster_worker *worker = &map->workers[i];
        if (worker->is_healthy)
            continue;
        add_condition(
            conditions, ALERT_CRITICAL,
            arena_format(conditions->arena, "heartbeat/%llu",
                         (unsigned long long)worker->worker_id),
            arena_format(conditions->arena,
                         "the placement driver has not heard of worker %llu (%.*s) lately",
                         (unsigned long long)worker->worker_id, STR_ARG(worker->address)));
    }
    if (map->worker_count == 0)
        add_condition(conditions, ALERT_WARNING, STR("no worker"), STR("no worker is registered"));
    uint32_t shown_count = 0;
    for (uint32_t i = 0; i < map->collection_count && shown_count < LEADERLESS_SHOWN_MAX; i++) {
        const struct cluster_collection *collection = &map->collections[i];
        uint32_t leaderless = 0;
        for (uint32_t j = 0; j < collection->shard_count; j++)
            leaderless += collection->shards[j].leader == NULL;
        if (leaderless == 0)
            continue;
        shown_count++;
        add_condition(conditions, ALERT_CRITICAL,
                      arena_format(conditions->arena, "collection/%.*s", STR_ARG(collection->name)),
                      arena_format(conditions->arena,
                                   "collection %.*s: %u of %u shards have no leader",
                                   STR_ARG(collection->name), leaderless, collection->shard_count));
    }
}

static void judge(struct survey *survey)
{
    struct conditions *conditions = arena_alloc(survey->arena, sizeof(*conditions));
    conditions->arena = survey->arena;
    for (uint32_t i = 0; i < survey->item_count; i++)
        judge_item(survey, &survey->items[i], conditions);
    if (survey->map != NULL)
        judge_map(survey->map, conditions);
    for (uint32_t i = 0; i < conditions->count; i++) {
        if (conditions->all[i].level == ALERT_CRITICAL)
            survey->critical_count++;
        else
            survey->warning_count++;
    }
    alerts_update(survey->gateway->alerts, conditions->all, conditions->count, survey->at);
}

// --- Asking

static void answered(enum status status, struct str text, const ProtobufCMessage *message,
                     void *context)
{
    struct survey_item *item = context;
    struct survey *survey = item->survey;
    if (text.len > TEXT_MAX)
        text.len = TEXT_MAX;
    item->call = NULL;
    item->response_ms = (double)(clock_monotonic_ns() - item->started_ns) / NS_PER_MS;
    item->is_reached = status == STATUS_OK;
    item->answer = message;
    if (status != STATUS_OK)
        item->error =
            text.len > 0 ? arena_str(survey->arena, text) : str_from_cstr(status_text(status));
    if (--survey->pending_count > 0)
        return;
    judge(survey);
    survey->done(survey, survey->context);
}

static void ask(struct survey_item *item, struct channel *channel)
{
    struct survey *survey = item->survey;
    Vectron__Worker__V1__ListShardsRequest shards = VECTRON__WORKER__V1__LIST_SHARDS_REQUEST__INIT;
    Vectron__Placementdriver__V1__ListWorkersRequest workers =
        VECTRON__PLACEMENTDRIVER__V1__LIST_WORKERS_REQUEST__INIT;
    Grpc__Health__V1__HealthCheckRequest health = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct client_request request = {
        .channel = channel,
        .service = &grpc__health__v1__health__descriptor,
        .method = "Check",
        .message = &health.base,
        .deadline_ns = clock_monotonic_ns() + SURVEY_SECONDS * NS_PER_SECOND,
        .context = item,
        .arena = survey->arena,
        .done = answered,
    };
    request.metadata = cluster_client_metadata(survey->gateway->cluster, &request.metadata_count);
    if (item->kind == SURVEY_WORKER) {
        request.service = &vectron__worker__v1__worker_service__descriptor;
        request.method = "ListShards";
        request.message = &shards.base;
    } else if (item->kind == SURVEY_WORKER_LIST) {
        request.service = &vectron__placementdriver__v1__placement_service__descriptor;
        request.method = "ListWorkers";
        request.message = &workers.base;
    }
    item->started_ns = clock_monotonic_ns();
    survey->pending_count++;
    item->call = client_call(&request);
}

static struct survey_item *add_item(struct survey *survey, enum survey_kind kind,
                                    struct str address)
{
    struct survey_item *item = &survey->items[survey->item_count++];
    item->survey = survey;
    item->kind = kind;
    item->address = address;
    return item;
}

static void ask_or_fail(struct survey_item *item, struct channel *channel)
{
    if (channel != NULL)
        ask(item, channel);
    else
        item->error = STR("not an address");
}

static uint32_t count_parts(struct str list)
{
    uint32_t count = 1;
    for (size_t i = 0; i < list.len; i++)
        count += list.data[i] == ',';
    return count;
}

struct survey *survey_start(struct gateway *gateway, struct arena *arena,
                            void (*done)(struct survey *survey, void *context), void *context)
{
    struct survey *survey = arena_alloc(arena, sizeof(*survey));
    struct str pd_addresses = gateway->pd_addresses;
    *survey = (struct survey){
        .gateway = gateway,
        .arena = arena,
        .map = cluster_client_map(gateway->cluster),
        .at = clock_unix_seconds(),
        .done = done,
        .context = context,
    };
    uint32_t worker_count = survey->map != NULL ? survey->map->worker_count : 0;
    survey->items =
        arena_alloc(arena, (worker_count + count_parts(pd_addresses) + 3) * sizeof(*survey->items));
    while (pd_addresses.len > 0) {
        struct str address = str_trim(str_cut(&pd_addresses, ','));
        if (address.len > 0)
            ask_or_fail(add_item(survey, SURVEY_PLACEMENT_DRIVER, address),
                        cluster_client_channel(gateway->cluster, address));
    }
    ask(add_item(survey, SURVEY_WORKER_LIST, gateway->pd_addresses),
        cluster_client_pd(gateway->cluster));
    for (uint32_t i = 0; i < worker_count; i++) {
        const struct cluster_worker *worker = &survey->map->workers[i];
        struct survey_item *item = add_item(survey, SURVEY_WORKER, worker->address);
        item->worker_id = worker->worker_id;
        ask_or_fail(item, worker->channel);
    }
    ask(add_item(survey, SURVEY_AUTH, gateway->auth_address), gateway->auth);
    ask(add_item(survey, SURVEY_RERANKER, gateway->reranker_address), gateway->reranker);
    return survey;
}

void survey_cancel(struct survey *survey)
{
    for (uint32_t i = 0; i < survey->item_count; i++) {
        if (survey->items[i].call != NULL)
            channel_call_cancel(survey->items[i].call);
        survey->items[i].call = NULL;
    }
}

void survey_release(struct survey *survey)
{
    cluster_map_unref(survey->map);
    survey->map = NULL;
}

// --- What they said

const Vectron__Worker__V1__ListShardsResponse *survey_shards(const struct survey *survey,
                                                             uint64_t worker_id)
{
    for (uint32_t i = 0; i < survey->item_count; i++) {
        const struct survey_item *item = &survey->items[i];
        if (item->kind == SURVEY_WORKER && item->worker_id == worker_id)
            return (const Vectron__Worker__V1__ListShardsResponse *)(const void *)item->answer;
    }
    return NULL;
}

const Vectron__Placementdriver__V1__ListWorkersResponse *survey_workers(const struct survey *survey)
{
    for (uint32_t i = 0; i < survey->item_count; i++) {
        const struct survey_item *item = &survey->items[i];
        if (item->kind == SURVEY_WORKER_LIST)
            return (const Vectron__Placementdriver__V1__ListWorkersResponse *)(const void *)
                item->answer;
    }
    return NULL;
}
