#include <inttypes.h>

#include "base/assert.h"
#include "placementdriver/scheduler_internal.h"

// The stages in the order of their urgency. Each goes over all shards that have no step under way;
// a shard that gets a step is done for this run.

enum { LEARNERS_PER_SHARD = 1 };

const char *step_kind_text(enum step_kind kind)
{
    static const char *const texts[] = {"add", "remove", "transfer lead"};
    ASSERT(kind < sizeof(texts) / sizeof(texts[0]));
    return texts[kind];
}

uint32_t step_apply(const struct step *step, const struct shard *shard,
                    struct replica_change out_replicas[static STATE_REPLICA_COUNT_MAX + 1])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        bool is_kept = step->kind != STEP_REMOVE || shard->replica_ids[i] != step->worker_id;
        if (is_kept)
            out_replicas[count++] = (struct replica_change){shard->replica_ids[i], shard->roles[i]};
    }
    if (step->kind == STEP_ADD)
        out_replicas[count++] = (struct replica_change){step->worker_id, step->role};
    return count;
}

// --- Operators

static void push(struct plan *plan, const struct shard_look *look, struct step step)
{
    step.shard_index = look->index;
    plan->is_busy[look->index] = true;
    plan->list.steps[plan->list.count++] = step;
}

static bool has_room(const struct plan *plan)
{
    return plan->changing_count < plan->options->change_count_max;
}

static uint64_t id_at(const struct plan *plan, uint32_t worker)
{
    return plan->workers[worker].worker->id;
}

static void add(struct plan *plan, const struct shard_look *look, uint32_t worker,
                enum replica_role role, struct str reason)
{
    plan->workers[worker].replica_count++;
    plan->workers[worker].planned_count++;
    plan->workers[worker].incoming_count++;
    plan->changing_count++;
    push(plan, look,
         (struct step){
             .kind = STEP_ADD, .worker_id = id_at(plan, worker), .role = role, .reason = reason});
}

static void drop(struct plan *plan, const struct shard_look *look, uint32_t place,
                 struct str reason)
{
    plan->changing_count += !plan->is_busy[look->index];
    push(plan, look,
         (struct step){.kind = STEP_REMOVE,
                       .worker_id = look->shard->replica_ids[place],
                       .role = look->shard->roles[place],
                       .reason = reason});
}

static bool transfer(struct plan *plan, const struct shard_look *look, uint32_t to,
                     struct str reason)
{
    if (plan->transfer_count >= plan->options->lead_count_max)
        return false;
    plan->transfer_count++;
    uint32_t from = plan_find_worker(plan, look->view->leader_id);
    if (from != NO_WORKER)
        plan->workers[from].lead_count--;
    plan->workers[look->workers[to]].lead_count++;
    push(plan, look,
         (struct step){.kind = STEP_TRANSFER_LEAD,
                       .worker_id = look->shard->replica_ids[to],
                       .role = REPLICA_VOTER,
                       .reason = reason});
    return true;
}

static const char *why_gone(const struct shard_look *look, uint32_t place)
{
    if (set_has(look->lost, place))
        return "is lost";
    return look->shard->roles[place] == REPLICA_VOTER ? "is being drained" : "holds no learners";
}

// The live voter, other than these, that leads the fewest shards.
static uint32_t best_heir(const struct plan *plan, const struct shard_look *look, uint32_t others)
{
    uint32_t best = NO_REPLICA;
    uint32_t set = look->members & look->alive & ~look->leaving & ~others;
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        if (!set_has(set, i))
            continue;
        if (best == NO_REPLICA || plan->workers[look->workers[i]].lead_count <
                                      plan->workers[look->workers[best]].lead_count)
            best = i;
    }
    return best;
}

// --- Stages

typedef void (*stage_fn)(struct plan *plan, const struct shard_look *look);

// What never counted in a majority, or has no vote, can go at once.
static void drop_strays(struct plan *plan, const struct shard_look *look)
{
    uint32_t strays = look->voters & ~look->members & (look->lost | look->leaving);
    // Without a leader's word a voter may vote already.
    if (!look->has_majority || set_count(look->voters & ~strays) == 0)
        strays = 0;
    uint32_t good = look->learners & look->alive & ~look->leaving;
    strays |= look->learners & (look->leaving | (good > 0 ? look->lost : 0));
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        if (!set_has(strays, i))
            continue;
        drop(plan, look, i,
             arena_format(plan->arena, "worker %" PRIu64 " %s before its replica counted",
                          look->shard->replica_ids[i], why_gone(look, i)));
        return;
    }
}

// The leader's own replica is not wanted any more, and no leader can remove itself.
static void lead_back(struct plan *plan, const struct shard_look *look)
{
    if (!look->has_majority || look->leader != NO_REPLICA || look->view->wanted_leader_id != 0)
        return;
    uint32_t heir = best_heir(plan, look, 0);
    if (heir != NO_REPLICA)
        (void)transfer(plan, look, heir,
                       arena_format(plan->arena,
                                    "worker %" PRIu64 ", which leads, is to have no replica",
                                    look->view->leader_id));
}

static void lead_away(struct plan *plan, const struct shard_look *look)
{
    if (look->leader == NO_REPLICA || !set_has(look->leaving, look->leader))
        return;
    uint32_t heir = best_heir(plan, look, 0);
    if (heir != NO_REPLICA)
        (void)transfer(plan, look, heir,
                       arena_format(plan->arena, "worker %" PRIu64 ", which leads, %s",
                                    look->shard->replica_ids[look->leader],
                                    why_gone(look, look->leader)));
}

static void add_voter(struct plan *plan, const struct shard_look *look, uint32_t kept,
                      struct str reason)
{
    if (!has_room(plan) || look->shard->replica_count >= STATE_REPLICA_COUNT_MAX)
        return;
    uint32_t worker = plan_candidate(plan, look, kept, false);
    if (worker != NO_WORKER)
        add(plan, look, worker, REPLICA_VOTER, reason);
}

static uint32_t first_of(uint32_t set)
{
    return (uint32_t)__builtin_ctz(set);
}

static void repair(struct plan *plan, const struct shard_look *look)
{
    uint32_t kept = look->voters & ~look->lost;
    uint32_t lost = look->voters & look->lost;
    if (set_count(kept) >= look->view->replication_factor)
        return;
    struct str reason =
        lost == 0
            ? arena_format(plan->arena, "it has %u of %u replicas", set_count(look->voters),
                           look->view->replication_factor)
            : arena_format(plan->arena, "worker %" PRIu64 " is silent for %" PRIu64 " s",
                           look->shard->replica_ids[first_of(lost)],
                           plan->workers[look->workers[first_of(lost)]].worker->silent_seconds);
    add_voter(plan, look, kept & ~look->leaving, reason);
}

// A further voter makes the removal possible again.
static void unblock(struct plan *plan, const struct shard_look *look)
{
    if (!look->is_blocked)
        return;
    plan->is_busy[look->index] = false;
    repair(plan, look);
    plan->is_busy[look->index] = true;
}

static void drain(struct plan *plan, const struct shard_look *look)
{
    uint32_t kept = look->voters & ~look->lost & ~look->leaving;
    uint32_t leaving = look->voters & look->leaving;
    if (leaving == 0 || set_count(kept) >= look->view->replication_factor)
        return;
    add_voter(plan, look, kept,
              arena_format(plan->arena, "worker %" PRIu64 " is being drained",
                           look->shard->replica_ids[first_of(leaving)]));
}

static void trim_voter(struct plan *plan, const struct shard_look *look, uint32_t place)
{
    uint64_t id = look->shard->replica_ids[place];
    struct str reason =
        arena_format(plan->arena, "worker %" PRIu64 " %s", id, why_gone(look, place));
    if (!set_has(look->lost | look->leaving, place))
        reason = arena_format(
            plan->arena, "it has %u of %u replicas; that on worker %" PRIu64 " is the one to go",
            set_count(look->voters), look->view->replication_factor, id);
    if (place != look->leader) {
        if (has_room(plan))
            drop(plan, look, place, reason);
        return;
    }
    uint32_t heir = best_heir(plan, look, 1U << place);
    if (heir != NO_REPLICA)
        (void)transfer(plan, look, heir, reason);
}

static void trim(struct plan *plan, const struct shard_look *look)
{
    uint32_t candidates = 0;
    uint32_t leaving = look->voters & look->leaving;
    uint32_t kept = look->voters & ~leaving & ~look->lost;
    if (set_count(look->voters) > look->view->replication_factor)
        candidates = look->voters;
    else if (leaving > 0 && kept > 0 && plan_candidate(plan, look, kept, true) == NO_WORKER)
        candidates = leaving; // nobody can take its place, and somebody wants it empty
    uint32_t place = plan_superfluous(plan, look, candidates);
    if (place != NO_REPLICA)
        trim_voter(plan, look, place);
}

// --- Learners

static uint32_t learner_candidate(const struct plan *plan, const struct shard_look *look)
{
    uint32_t best = NO_WORKER;
    for (uint32_t i = 0; i < plan->view->worker_count; i++) {
        const struct worker_plan *worker = &plan->workers[i];
        if (!worker->worker->is_search_only || !worker->worker->is_alive ||
            worker->worker->is_draining || shard_has_replica(look->shard, worker->worker->id) ||
            worker->incoming_count >= plan->options->incoming_count_max)
            continue;
        if (best == NO_WORKER || worker->planned_count < plan->workers[best].planned_count)
            best = i;
    }
    return best;
}

static uint32_t fullest(const struct plan *plan, const struct shard_look *look, uint32_t set)
{
    uint32_t best = NO_REPLICA;
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        if (set_has(set, i) &&
            (best == NO_REPLICA || plan->workers[look->workers[i]].planned_count >
                                       plan->workers[look->workers[best]].planned_count))
            best = i;
    }
    return best;
}

static void keep_learners(struct plan *plan, const struct shard_look *look)
{
    uint32_t good = look->learners & ~look->lost & ~look->leaving;
    if (look->is_learning || !has_room(plan))
        return;
    if (set_count(good) > LEARNERS_PER_SHARD) {
        uint32_t place = fullest(plan, look, good);
        plan->workers[look->workers[place]].planned_count--;
        drop(plan, look, place, STR("there is another learner"));
        return;
    }
    if (set_count(good) == LEARNERS_PER_SHARD ||
        look->shard->replica_count >= STATE_REPLICA_COUNT_MAX)
        return;
    uint32_t worker = learner_candidate(plan, look);
    if (worker != NO_WORKER)
        add(plan, look, worker, REPLICA_LEARNER,
            STR("a worker that only searches is there for it"));
}

// --- Spread and balance

// Neither too few nor too many, and everybody where he may stay.
static bool is_complete(const struct shard_look *look)
{
    return set_count(look->voters) == look->view->replication_factor &&
           (look->voters & ~look->alive) == 0 && look->leaving == 0 && !look->is_learning &&
           look->shard->replica_count < STATE_REPLICA_COUNT_MAX;
}

static void spread(struct plan *plan, const struct shard_look *look)
{
    struct closeness now = plan_closeness(plan, look, look->voters, NO_WORKER);
    struct closeness best = now;
    uint32_t best_worker = NO_WORKER;
    if (!is_complete(look) || !has_room(plan) ||
        closeness_compare(now, plan_least_closeness(plan, set_count(look->voters))) == 0)
        return;
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        uint32_t rest = look->voters & ~(1U << i);
        uint32_t worker =
            rest != look->voters ? plan_candidate(plan, look, rest, false) : NO_WORKER;
        if (worker == NO_WORKER)
            continue;
        struct closeness then = plan_closeness(plan, look, rest, worker);
        if (closeness_compare(then, best) < 0) {
            best = then;
            best_worker = worker;
        }
    }
    if (best_worker != NO_WORKER)
        add(plan, look, best_worker, REPLICA_VOTER,
            STR("its replicas are too close: several in one zone or rack"));
}

static bool is_worth_it(const struct plan *plan, uint32_t from, uint32_t to)
{
    bool is_search_only = plan->workers[from].worker->is_search_only;
    return plan->workers[from].planned_count >=
           plan->workers[to].planned_count + (is_search_only ? plan->learner_gap : plan->voter_gap);
}

static struct str balance_reason(const struct plan *plan, uint32_t from, uint32_t to)
{
    return arena_format(plan->arena, "worker %" PRIu64 " holds %u replicas, worker %" PRIu64 " %u",
                        id_at(plan, from), plan->workers[from].planned_count, id_at(plan, to),
                        plan->workers[to].planned_count);
}

static void balance_voters(struct plan *plan, const struct shard_look *look)
{
    struct closeness now = plan_closeness(plan, look, look->voters, NO_WORKER);
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        uint32_t from = look->workers[i];
        uint32_t rest = look->voters & ~(1U << i);
        if (!set_has(look->voters, i) ||
            plan->workers[from].planned_count < plan->least_count + plan->voter_gap)
            continue;
        uint32_t to = plan_candidate(plan, look, rest, false);
        if (to == NO_WORKER || !is_worth_it(plan, from, to) ||
            closeness_compare(plan_closeness(plan, look, rest, to), now) > 0)
            continue;
        struct str reason = balance_reason(plan, from, to);
        plan->workers[from].planned_count--;
        add(plan, look, to, REPLICA_VOTER, reason);
        return;
    }
}

static void balance_learners(struct plan *plan, const struct shard_look *look)
{
    uint32_t place = fullest(plan, look, look->learners);
    uint32_t to = place != NO_REPLICA ? learner_candidate(plan, look) : NO_WORKER;
    if (to == NO_WORKER || !is_worth_it(plan, look->workers[place], to))
        return;
    struct str reason = balance_reason(plan, look->workers[place], to);
    add(plan, look, to, REPLICA_LEARNER, reason);
}

static void balance(struct plan *plan, const struct shard_look *look)
{
    if (!is_complete(look) || !has_room(plan))
        return;
    balance_voters(plan, look);
    if (!plan->is_busy[look->index])
        balance_learners(plan, look);
}

static void balance_leads(struct plan *plan, const struct shard_look *look)
{
    if (look->leader == NO_REPLICA)
        return;
    uint32_t heir = best_heir(plan, look, 1U << look->leader);
    if (heir == NO_REPLICA)
        return;
    const struct worker_plan *from = &plan->workers[look->workers[look->leader]];
    const struct worker_plan *to = &plan->workers[look->workers[heir]];
    if (from->lead_count < to->lead_count + plan->lead_gap)
        return;
    (void)transfer(
        plan, look, heir,
        arena_format(plan->arena, "worker %" PRIu64 " leads %u shards, worker %" PRIu64 " %u",
                     from->worker->id, from->lead_count, to->worker->id, to->lead_count));
}

// --- The run

static bool has_step(const struct plan *plan, uint32_t shard_index)
{
    uint32_t count = plan->list.count;
    return count > 0 && plan->list.steps[count - 1].shard_index == shard_index;
}

static void run_stage(struct plan *plan, stage_fn stage)
{
    for (uint32_t i = 0; i < plan->view->shard_count; i++) {
        if (plan->is_busy[i])
            continue;
        struct shard_look look = plan_look(plan, i);
        if (look.is_settled)
            stage(plan, &look);
    }
}

struct step_list scheduler_run(const struct scheduler_view *view,
                               const struct scheduler_options *options, struct arena *arena)
{
    static const stage_fn stages[] = {lead_away,     repair, drain,   trim,
                                      keep_learners, spread, balance, balance_leads};
    struct plan plan = plan_create(view, options, arena);
    for (uint32_t i = 0; i < view->shard_count; i++) {
        struct shard_look look = plan_look(&plan, i);
        // Of shards that are changing too.
        drop_strays(&plan, &look);
        if (!has_step(&plan, i))
            lead_back(&plan, &look);
        if (!has_step(&plan, i))
            unblock(&plan, &look);
    }
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
        run_stage(&plan, stages[i]);
    return plan.list;
}
