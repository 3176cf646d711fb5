#include <string.h>

#include "base/assert.h"
#include "base/map.h"
#include "placementdriver/scheduler_internal.h"

// The cluster counted: who holds how much, who is where, and how each shard stands.

uint32_t set_count(uint32_t set)
{
    return (uint32_t)__builtin_popcount(set);
}

bool set_has(uint32_t set, uint32_t place)
{
    return (set >> place & 1) > 0;
}

// --- Workers

// The number of a text; a new one when it is new. The values of the map are numbers plus one.
static uint32_t number_of(struct map *numbers, struct str text)
{
    uintptr_t number = (uintptr_t)map_get(numbers, text);
    if (number == 0) {
        number = map_count(numbers) + 1;
        (void)map_put(numbers, text, (void *)number); // NOLINT(performance-no-int-to-ptr)
    }
    return (uint32_t)(number - 1);
}

static void add_workers(struct plan *plan)
{
    struct map *zones = map_create();
    struct map *racks = map_create();
    uint32_t count = plan->view->worker_count;
    plan->workers = arena_alloc(plan->arena, (count + 1) * sizeof(*plan->workers));
    for (uint32_t i = 0; i < count; i++) {
        struct worker_plan *worker = &plan->workers[i];
        worker->worker = &plan->view->workers[i];
        ASSERT(i == 0 || worker[-1].worker->id < worker->worker->id);
        worker->zone = number_of(zones, worker->worker->zone);
        worker->rack = number_of(racks, arena_format(plan->arena, "%u/%.*s", worker->zone,
                                                     STR_ARG(worker->worker->rack)));
    }
    plan->zone_count = (uint32_t)map_count(zones);
    plan->rack_count = (uint32_t)map_count(racks);
    map_destroy(zones);
    map_destroy(racks);
}

uint32_t plan_find_worker(const struct plan *plan, uint64_t worker_id)
{
    uint32_t low = 0;
    uint32_t high = plan->view->worker_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint64_t id = plan->view->workers[middle].id;
        if (id == worker_id)
            return middle;
        if (id < worker_id)
            low = middle + 1;
        else
            high = middle;
    }
    return NO_WORKER;
}

// --- A shard

static bool has_member(const struct view_shard *view, uint64_t worker_id)
{
    for (uint32_t i = 0; i < view->member_count; i++) {
        if (view->member_ids[i] == worker_id)
            return true;
    }
    return false;
}

static void look_at_replica(const struct plan *plan, uint32_t place, struct shard_look *look)
{
    const struct shard *shard = look->shard;
    const uint32_t bit = 1U << place;
    look->workers[place] = plan_find_worker(plan, shard->replica_ids[place]);
    ASSERT(look->workers[place] != NO_WORKER); // the state keeps a worker that holds a replica
    const struct view_worker *worker = plan->workers[look->workers[place]].worker;
    bool is_voter = shard->roles[place] == REPLICA_VOTER;
    look->voters |= is_voter ? bit : 0;
    look->learners |= is_voter ? 0 : bit;
    look->alive |= worker->is_alive ? bit : 0;
    look->lost |= worker->is_lost ? bit : 0;
    look->leaving |= worker->is_draining || worker->is_search_only == is_voter ? bit : 0;
    look->members |= is_voter && has_member(look->view, worker->id) ? bit : 0;
    if (look->view->leader_id == worker->id && is_voter)
        look->leader = place;
    if (!is_voter && worker->is_alive && !set_has(look->view->running, place))
        look->is_learning = true;
}

static uint32_t count_live_members(const struct plan *plan, const struct view_shard *view)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < view->member_count; i++) {
        uint32_t place = plan_find_worker(plan, view->member_ids[i]);
        count += place != NO_WORKER && plan->workers[place].worker->is_alive;
    }
    return count;
}

struct shard_look plan_look(const struct plan *plan, uint32_t shard_index)
{
    const struct view_shard *view = &plan->view->shards[shard_index];
    struct shard_look look = {
        .view = view, .shard = view->shard, .index = shard_index, .leader = NO_REPLICA};
    for (uint32_t i = 0; i < view->shard->replica_count; i++)
        look_at_replica(plan, i, &look);
    look.has_majority = view->leader_id != 0 && view->member_count > 0 &&
                        count_live_members(plan, view) > view->member_count / 2;
    look.is_settled = look.has_majority && look.members == look.voters &&
                      set_count(look.members) == view->member_count;
    look.is_blocked = look.has_majority && look.members == look.voters && !look.is_settled &&
                      set_count(look.voters & look.alive) <= set_count(look.voters) / 2;
    return look;
}

// --- Closeness

struct closeness plan_closeness(const struct plan *plan, const struct shard_look *look,
                                uint32_t voters, uint32_t further_worker)
{
    uint32_t workers[STATE_REPLICA_COUNT_MAX + 1];
    uint32_t count = 0;
    struct closeness closeness = {0};
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        if (set_has(voters, i))
            workers[count++] = look->workers[i];
    }
    if (further_worker != NO_WORKER)
        workers[count++] = further_worker;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            const struct worker_plan *a = &plan->workers[workers[i]];
            const struct worker_plan *b = &plan->workers[workers[k]];
            closeness.zone_pairs += a->zone == b->zone;
            closeness.rack_pairs += a->rack == b->rack;
        }
    }
    return closeness;
}

// Pairs in one box when things are spread evenly over boxes.
static uint32_t least_pairs(uint32_t thing_count, uint32_t box_count)
{
    if (box_count == 0)
        return 0;
    uint32_t each = thing_count / box_count;
    uint32_t fuller_count = thing_count % box_count;
    return fuller_count * (each + 1) * each / 2 +
           (box_count - fuller_count) * each * (each > 0 ? each - 1 : 0) / 2;
}

struct closeness plan_least_closeness(const struct plan *plan, uint32_t voter_count)
{
    return (struct closeness){least_pairs(voter_count, plan->zone_count),
                              least_pairs(voter_count, plan->rack_count)};
}

int closeness_compare(struct closeness a, struct closeness b)
{
    if (a.zone_pairs != b.zone_pairs)
        return a.zone_pairs < b.zone_pairs ? -1 : 1;
    if (a.rack_pairs != b.rack_pairs)
        return a.rack_pairs < b.rack_pairs ? -1 : 1;
    return 0;
}

// --- Choices

// Lost ones go first, then those that are to leave.
static uint32_t urgency_of(const struct shard_look *look, uint32_t place)
{
    return set_has(look->lost, place) * 2U + set_has(look->leaving, place);
}

// Whether a is more superfluous than b.
static bool goes_before(const struct plan *plan, const struct shard_look *look, uint32_t a,
                        uint32_t b)
{
    uint32_t urgency_a = urgency_of(look, a);
    uint32_t urgency_b = urgency_of(look, b);
    if (urgency_a != urgency_b)
        return urgency_a > urgency_b;
    int order = closeness_compare(plan_closeness(plan, look, look->voters & ~(1U << a), NO_WORKER),
                                  plan_closeness(plan, look, look->voters & ~(1U << b), NO_WORKER));
    if (order != 0)
        return order < 0;
    uint32_t count_a = plan->workers[look->workers[a]].replica_count;
    uint32_t count_b = plan->workers[look->workers[b]].replica_count;
    if (count_a != count_b)
        return count_a > count_b;
    if ((look->leader == a) != (look->leader == b))
        return look->leader == b;
    return look->workers[a] < look->workers[b];
}

uint32_t plan_superfluous(const struct plan *plan, const struct shard_look *look,
                          uint32_t candidates)
{
    uint32_t best = NO_REPLICA;
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        uint32_t rest = look->voters & ~(1U << i);
        if (!set_has(candidates, i) || rest == 0 ||
            set_count(rest & look->alive) <= set_count(rest) / 2)
            continue;
        if (best == NO_REPLICA || goes_before(plan, look, i, best))
            best = i;
    }
    return best;
}

static bool may_take(const struct plan *plan, const struct shard_look *look, uint32_t place,
                     bool is_any)
{
    const struct worker_plan *worker = &plan->workers[place];
    if (worker->worker->is_draining || worker->worker->is_search_only ||
        shard_has_replica(look->shard, worker->worker->id))
        return false;
    return is_any ? !worker->worker->is_lost
                  : worker->worker->is_alive &&
                        worker->incoming_count < plan->options->incoming_count_max;
}

uint32_t plan_candidate(const struct plan *plan, const struct shard_look *look, uint32_t voters,
                        bool is_any)
{
    uint32_t best = NO_WORKER;
    struct closeness best_closeness = {0};
    for (uint32_t i = 0; i < plan->view->worker_count; i++) {
        if (!may_take(plan, look, i, is_any))
            continue;
        struct closeness closeness = plan_closeness(plan, look, voters, i);
        int order = best == NO_WORKER ? -1 : closeness_compare(closeness, best_closeness);
        if (order < 0 ||
            (order == 0 && plan->workers[i].planned_count < plan->workers[best].planned_count)) {
            best = i;
            best_closeness = closeness;
        }
    }
    return best;
}

// --- The whole

static void count_shard(struct plan *plan, const struct shard_look *look)
{
    const struct shard *shard = look->shard;
    uint64_t lead_id =
        look->view->wanted_leader_id != 0 ? look->view->wanted_leader_id : look->view->leader_id;
    uint32_t lead = plan_find_worker(plan, lead_id);
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        struct worker_plan *worker = &plan->workers[look->workers[i]];
        bool is_coming = set_has(look->voters, i) ? !set_has(look->members, i)
                                                  : !set_has(look->view->running, i);
        worker->replica_count++;
        worker->planned_count++;
        worker->incoming_count += is_coming && look->has_majority && worker->worker->is_alive;
    }
    if (lead != NO_WORKER)
        plan->workers[lead].lead_count++;
    // Where nothing can go on, it must not hold up the others.
    bool is_changing =
        look->has_majority && !look->is_blocked && (!look->is_settled || look->is_learning);
    plan->changing_count += is_changing;
    plan->transfer_count += look->view->wanted_leader_id != 0;
    plan->is_busy[look->index] = !look->is_settled || look->view->wanted_leader_id != 0;
}

// Two at least: then what is moved makes the loads more equal, and nothing moves back.
static uint32_t gap_of(const struct plan *plan, uint64_t sum, uint32_t count)
{
    uint64_t mean = count > 0 ? sum / count : 0;
    return 2 + (uint32_t)(mean * plan->options->tolerance_percent / 100);
}

static void measure_loads(struct plan *plan)
{
    uint64_t sums[2] = {0};
    uint32_t counts[2] = {0};
    plan->least_count = UINT32_MAX / 2;
    for (uint32_t i = 0; i < plan->view->worker_count; i++) {
        const struct worker_plan *worker = &plan->workers[i];
        sums[worker->worker->is_search_only] += worker->planned_count;
        counts[worker->worker->is_search_only]++;
        bool is_open = worker->worker->is_alive && !worker->worker->is_draining &&
                       !worker->worker->is_search_only;
        if (is_open && worker->planned_count < plan->least_count)
            plan->least_count = worker->planned_count;
    }
    plan->voter_gap = gap_of(plan, sums[0], counts[0]);
    plan->learner_gap = gap_of(plan, sums[1], counts[1]);
    plan->lead_gap = gap_of(plan, plan->view->shard_count, counts[0]);
}

struct plan plan_create(const struct scheduler_view *view, const struct scheduler_options *options,
                        struct arena *arena)
{
    struct plan plan = {.view = view, .options = options, .arena = arena};
    add_workers(&plan);
    plan.is_busy = arena_alloc(arena, view->shard_count + 1);
    plan.list.steps = arena_alloc(arena, (view->shard_count + 1) * sizeof(struct step));
    for (uint32_t i = 0; i < view->shard_count; i++) {
        struct shard_look look = plan_look(&plan, i);
        count_shard(&plan, &look);
    }
    plan.list.changing_count = plan.changing_count;
    // Only now is it known who is the fullest.
    for (uint32_t i = 0; i < view->shard_count; i++) {
        struct shard_look look = plan_look(&plan, i);
        uint32_t place = NO_REPLICA;
        if (set_count(look.voters) > look.view->replication_factor)
            place = plan_superfluous(&plan, &look, look.voters);
        if (place != NO_REPLICA)
            plan.workers[look.workers[place]].planned_count--;
    }
    measure_loads(&plan);
    return plan;
}
