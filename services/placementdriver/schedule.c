#include "placementdriver/schedule.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "placementdriver/driver.h"

enum {
    WISH_SECONDS = 10, // a lead that has not moved by then is decided anew
    CHANGES_MAX = 16,
    INCOMING_MAX = 2,
    TOLERANCE_PERCENT = 10,
};
#define VIEW_SIZE_MAX ((size_t)1 << 30)

// --- The view

static uint64_t silent_ns(const struct worker_presence *presence, uint64_t now_ns)
{
    uint64_t silence_limit_ns = PRESENCE_HEALTHY_SECONDS * NS_PER_SECOND;
    uint64_t end_ns = presence->healthy_until_ns;
    return now_ns + silence_limit_ns > end_ns ? now_ns + silence_limit_ns - end_ns : 0;
}

static struct view_worker view_worker(const struct driver *driver, const struct worker *worker,
                                      uint64_t now_ns)
{
    const struct worker_presence *presence = presence_worker(&driver->presence, worker->id);
    struct view_worker view = {
        .id = worker->id,
        .zone = worker->profile.zone,
        .rack = worker->profile.rack,
        .is_draining = worker->state == WORKER_DRAINING,
        .is_search_only = worker_is_search_only(worker),
        .is_alive = presence != NULL && presence->is_healthy,
    };
    if (presence != NULL && !view.is_alive) {
        view.silent_seconds = silent_ns(presence, now_ns) / NS_PER_SECOND;
        view.is_lost = silent_ns(presence, now_ns) >= driver->schedule.lost_ns;
    }
    return view;
}

static uint32_t running_set(const struct driver *driver, const struct shard *shard)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < shard->replica_count; i++)
        set |= (uint32_t)presence_runs_shard(&driver->presence, shard->replica_ids[i], shard->id)
               << i;
    return set;
}

static struct view_shard view_shard(const struct driver *driver,
                                    const struct collection *collection, const struct shard *shard)
{
    const struct shard_presence *presence = presence_shard(&driver->presence, shard->id);
    struct view_shard view = {
        .collection = collection->name,
        .shard = shard,
        .replication_factor = collection->replication_factor,
        .running = running_set(driver, shard),
        .leader_id = driver_shard_leader(driver, shard),
        .wanted_leader_id = schedule_wanted_leader(driver, shard->id),
    };
    if (view.replication_factor == 0)
        view.replication_factor = driver->replication_factor;
    if (view.replication_factor == 0)
        view.replication_factor = 1;
    if (driver->replication_factor == 0) { // it is no group: the one that there is, is enough
        view.member_ids = shard->replica_ids;
        view.member_count = shard->replica_count;
    } else if (presence != NULL) {
        view.member_ids = presence->member_ids;
        view.member_count = presence->member_count;
    }
    return view;
}

struct scheduler_view schedule_view(const struct driver *driver, uint64_t now_ns,
                                    struct arena *arena)
{
    const struct state *state = &driver->state;
    struct view_worker *workers = arena_alloc(arena, (state->worker_count + 1) * sizeof(*workers));
    struct view_shard *shards = arena_alloc(arena, (state->shard_count + 1) * sizeof(*shards));
    uint32_t shard_count = 0;
    for (uint32_t i = 0; i < state->worker_count; i++)
        workers[i] = view_worker(driver, state->workers[i], now_ns);
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        for (uint32_t i = 0; i < collection->shard_count; i++)
            shards[shard_count++] = view_shard(driver, collection, &collection->shards[i]);
    }
    return (struct scheduler_view){workers, state->worker_count, shards, shard_count};
}

static struct scheduler_options options_of(const struct driver *driver)
{
    return (struct scheduler_options){
        .change_count_max = CHANGES_MAX,
        .incoming_count_max = INCOMING_MAX,
        .lead_count_max = SCHEDULE_TRANSFER_COUNT_MAX,
        .tolerance_percent = driver->schedule.is_eager ? 0 : TOLERANCE_PERCENT,
        .lost_seconds = (uint32_t)(driver->schedule.lost_ns / NS_PER_SECOND),
    };
}

// --- Who is to lead

uint64_t schedule_wanted_leader(const struct driver *driver, uint32_t shard_id)
{
    for (uint32_t i = 0; i < driver->schedule.wish_count; i++) {
        if (driver->schedule.wishes[i].shard_id == shard_id)
            return driver->schedule.wishes[i].worker_id;
    }
    return 0;
}

// Forget the wishes that came true, and those that did not in time.
static void expire_wishes(struct driver *driver, uint64_t now_ns)
{
    struct schedule *schedule = &driver->schedule;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < schedule->wish_count; i++) {
        struct lead_wish wish = schedule->wishes[i];
        const struct shard_presence *presence = presence_shard(&driver->presence, wish.shard_id);
        bool is_over =
            presence == NULL || presence->leader_id == wish.worker_id || wish.until_ns <= now_ns;
        if (!is_over)
            schedule->wishes[kept++] = wish;
    }
    if (kept != schedule->wish_count)
        map_has_changed(driver);
    schedule->wish_count = kept;
}

static void wish(struct driver *driver, uint32_t shard_id, uint64_t worker_id, uint64_t now_ns)
{
    struct schedule *schedule = &driver->schedule;
    ASSERT(schedule->wish_count < SCHEDULE_TRANSFER_COUNT_MAX);
    schedule->wishes[schedule->wish_count++] =
        (struct lead_wish){shard_id, worker_id, now_ns + WISH_SECONDS * NS_PER_SECOND};
    map_has_changed(driver);
}

// --- Changes of replicas

static void proposed(enum status status, uint64_t index, struct span result, void *context)
{
    (void)index;
    (void)result;
    (void)context;
    // A refusal is no failure: the state was another one by then, and the next tick sees it. Until
    // the change is applied each tick proposes the same again, which the epoch then refuses.
    if (status != STATUS_OK)
        log_warn("whether replicas were changed is not known",
                 LOG_CSTR("reason", status_text(status)));
}

static void encode_step(const struct scheduler_view *view, const struct step *step, struct buf *out)
{
    const struct view_shard *shard = &view->shards[step->shard_index];
    struct replica_change replicas[STATE_REPLICA_COUNT_MAX + 1];
    struct command command = {
        .kind = COMMAND_SET_REPLICAS,
        .name = shard->collection,
        .shard_id = shard->shard->id,
        .expected_epoch = shard->shard->epoch,
        .replicas = replicas,
    };
    command.replica_count = step_apply(step, shard->shard, replicas);
    command_encode(&command, out);
}

static void log_step(const struct scheduler_view *view, const struct step *step)
{
    log_info("a shard is to change", LOG_U64("shard", view->shards[step->shard_index].shard->id),
             LOG_CSTR("step", step_kind_text(step->kind)), LOG_U64("worker", step->worker_id),
             LOG_STR("because", step->reason));
}

// Under the lock: the commands as bytes in the arena, to be proposed without it.
static uint32_t take_steps(struct driver *driver, const struct scheduler_view *view,
                           const struct step_list *list, struct arena *arena,
                           struct span *out_commands)
{
    uint32_t count = 0;
    uint64_t now_ns = clock_monotonic_ns();
    for (uint32_t i = 0; i < list->count; i++) {
        const struct step *step = &list->steps[i];
        struct buf bytes;
        log_step(view, step);
        if (step->kind == STEP_TRANSFER_LEAD) {
            wish(driver, view->shards[step->shard_index].shard->id, step->worker_id, now_ns);
            continue;
        }
        buf_init(&bytes, REPLICA_COMMAND_SIZE_MAX);
        encode_step(view, step, &bytes);
        out_commands[count++] = str_span(arena_str(arena, buf_str(&bytes)));
        buf_deinit(&bytes);
    }
    return count;
}

// --- The tick

static int compare_shard_ids(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

// What was said of shards that are no more.
static void forget_shards(struct driver *driver, const struct scheduler_view *view,
                          struct arena *arena)
{
    if (presence_shard_count(&driver->presence) <= view->shard_count)
        return;
    uint32_t *ids = arena_alloc(arena, (view->shard_count + 1) * sizeof(*ids));
    for (uint32_t i = 0; i < view->shard_count; i++)
        ids[i] = view->shards[i].shard->id;
    if (view->shard_count > 1)
        qsort(ids, view->shard_count, sizeof(*ids), compare_shard_ids);
    presence_keep_shards(&driver->presence, ids, view->shard_count);
}

static uint32_t schedule_run(struct driver *driver, struct arena *arena, struct span **out_commands)
{
    uint64_t now_ns = clock_monotonic_ns();
    expire_wishes(driver, now_ns);
    struct scheduler_view view = schedule_view(driver, now_ns, arena);
    struct scheduler_options options = options_of(driver);
    struct step_list list = scheduler_run(&view, &options, arena);
    if (list.count == 0 && list.changing_count == 0 && driver->schedule.wish_count == 0)
        driver->schedule.is_eager = false; // it is done
    *out_commands = arena_alloc(arena, (list.count + 1) * sizeof(**out_commands));
    uint32_t count = take_steps(driver, &view, &list, arena, *out_commands);
    forget_shards(driver, &view, arena); // last: the view has their members
    return count;
}

void schedule_tick(struct driver *driver)
{
    // Without groups there is nothing that could move.
    if (driver->replication_factor == 0 || !replica_is_leading(driver->replica))
        return;
    struct arena *arena = arena_create(VIEW_SIZE_MAX);
    struct span *commands = NULL;
    pthread_mutex_lock(&driver->lock);
    uint32_t count = schedule_run(driver, arena, &commands);
    pthread_mutex_unlock(&driver->lock);
    for (uint32_t i = 0; i < count; i++)
        (void)replica_propose(driver->replica, commands[i], proposed, NULL); // else the next tick
    arena_destroy(arena);
}

// --- Told to people

static void explain_shard(struct driver *driver, struct rpc *rpc)
{
    const PD(ExplainShardRequest) *request = (const void *)rpc_request(rpc);
    PD(ExplainShardResponse) response = PD_INIT(EXPLAIN_SHARD_RESPONSE);
    struct arena *arena = arena_create(VIEW_SIZE_MAX);
    pthread_mutex_lock(&driver->lock);
    struct scheduler_view view = schedule_view(driver, clock_monotonic_ns(), arena);
    struct scheduler_options options = options_of(driver);
    struct str text = scheduler_explain(&view, &options, request->shard_id, arena);
    bool has_groups = driver->replication_factor > 0;
    pthread_mutex_unlock(&driver->lock);
    if (text.len == 0)
        rpc_fail(rpc, STATUS_NOT_FOUND, "shard %u not found", request->shard_id);
    else
        response.text = arena_cstr(
            arena, has_groups ? text
                              : arena_format(arena, "%.*s no shard is moved by this version.",
                                             STR_ARG(text)));
    rpc_reply(rpc, &response.base); // nothing when it has failed
    arena_destroy(arena);
}

void shard_explain(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, explain_shard);
}

static void fill_step(const struct scheduler_view *view, const struct step *step,
                      struct arena *arena, PD(ShardStep) * out)
{
    const struct view_shard *shard = &view->shards[step->shard_index];
    vectron__placementdriver__v1__shard_step__init(out);
    out->shard_id = shard->shard->id;
    out->collection = arena_cstr(arena, shard->collection);
    out->step = arena_cstr(arena, str_from_cstr(step_kind_text(step->kind)));
    out->worker_id = step->worker_id;
    out->reason = arena_cstr(arena, step->reason);
}

static void list_steps(struct driver *driver, struct rpc *rpc)
{
    PD(ListShardStepsResponse) response = PD_INIT(LIST_SHARD_STEPS_RESPONSE);
    struct arena *arena = arena_create(VIEW_SIZE_MAX);
    struct step_list list = {0};
    pthread_mutex_lock(&driver->lock);
    struct scheduler_view view = schedule_view(driver, clock_monotonic_ns(), arena);
    struct scheduler_options options = options_of(driver);
    if (driver->replication_factor > 0)
        list = scheduler_run(&view, &options, arena);
    PD(ShardStep) *steps = arena_alloc(arena, (list.count + 1) * sizeof(*steps));
    response.steps = arena_alloc(arena, (list.count + 1) * sizeof(*response.steps));
    for (uint32_t i = 0; i < list.count; i++) {
        fill_step(&view, &list.steps[i], arena, &steps[i]);
        response.steps[response.n_steps++] = &steps[i];
    }
    response.changing_count = list.changing_count;
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
    arena_destroy(arena);
}

void steps_list(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, list_steps);
}
