#include "placementdriver/scheduler.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"
#include "testing/test.h"

// Random clusters whose shards follow what is wanted with delays, while workers fail, come and are
// drained; every step is checked when it is made, and when the faults are over everything has
// to come to rest where it should be.

enum {
    WORKER_MAX = 14,
    SHARD_MAX = 30,
    LOST_ROUNDS = 6,
    REST_ROUNDS_MAX = 3000,
    TRANSFER_ROUNDS_MAX = 5,
    QUIET_ROUNDS = 25,
    SEED_COUNT = 2000,
};

struct world_worker {
    struct view_worker view;
    uint32_t down_rounds; // 0: it is up
    char zone[8];
    char rack[8];
};

struct world_shard {
    struct shard shard;
    uint64_t members[STATE_REPLICA_COUNT_MAX];
    uint32_t member_count;
    uint64_t leader_id;
    uint64_t wanted_leader_id;
    uint32_t wanted_rounds;
    uint32_t running; // by worker
    uint32_t factor;
};

struct world {
    struct rng rng;
    struct world_worker workers[WORKER_MAX];
    uint32_t worker_count;
    struct world_shard shards[SHARD_MAX];
    uint32_t shard_count;
    struct view_worker view_workers[WORKER_MAX];
    struct view_shard view_shards[SHARD_MAX];
    struct scheduler_options options;
    uint64_t seed;
    uint64_t round;
    uint64_t step_count;
    uint64_t trace; // of all steps
    bool has_failed;
};

static void print_world(const struct world *world)
{
    for (uint32_t i = 0; i < world->worker_count; i++) {
        const struct world_worker *worker = &world->workers[i];
        printf("  worker %u in %s/%s, down for %u%s%s\n", i + 1, worker->zone, worker->rack,
               worker->down_rounds, worker->view.is_draining ? ", draining" : "",
               worker->view.is_search_only ? ", only searches" : "");
    }
    for (uint32_t i = 0; i < world->shard_count; i++) {
        const struct world_shard *shard = &world->shards[i];
        printf("  shard %u of %u, leader %" PRIu64 ", to be %" PRIu64 ":", shard->shard.id,
               shard->factor, shard->leader_id, shard->wanted_leader_id);
        for (uint32_t k = 0; k < shard->shard.replica_count; k++)
            printf(" %" PRIu64 "%s", shard->shard.replica_ids[k],
                   shard->shard.roles[k] == REPLICA_VOTER ? "" : "l");
        printf("; members");
        for (uint32_t k = 0; k < shard->member_count; k++)
            printf(" %" PRIu64, shard->members[k]);
        printf("\n");
    }
}

static bool world_check(struct world *world, bool is_good, const char *what, uint64_t number)
{
    if (!is_good && !world->has_failed) {
        printf("seed %" PRIu64 " round %" PRIu64 ": %s (%" PRIu64 ")\n", world->seed, world->round,
               what, number);
        world->has_failed = true;
        print_world(world);
    }
    return is_good;
}

static struct world_worker *find_worker(struct world *world, uint64_t id)
{
    ASSERT(id >= 1 && id <= world->worker_count);
    return &world->workers[id - 1];
}

static bool is_up(struct world *world, uint64_t id)
{
    return find_worker(world, id)->down_rounds == 0;
}

static bool is_open(struct world *world, uint64_t id)
{
    const struct world_worker *worker = find_worker(world, id);
    return worker->down_rounds == 0 && !worker->view.is_draining && !worker->view.is_search_only;
}

static bool is_member(const struct world_shard *shard, uint64_t id)
{
    for (uint32_t i = 0; i < shard->member_count; i++) {
        if (shard->members[i] == id)
            return true;
    }
    return false;
}

static enum replica_role role_of(const struct shard *shard, uint64_t id)
{
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        if (shard->replica_ids[i] == id)
            return shard->roles[i];
    }
    return 0;
}

static uint32_t count_up(struct world *world, const uint64_t *ids, uint32_t count)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < count; i++)
        up += is_up(world, ids[i]);
    return up;
}

static bool has_majority(struct world *world, const struct world_shard *shard)
{
    return count_up(world, shard->members, shard->member_count) > shard->member_count / 2;
}

// --- A random beginning

static void add_worker(struct world *world, uint32_t zone_count, uint32_t rack_count)
{
    struct world_worker *worker = &world->workers[world->worker_count++];
    *worker = (struct world_worker){0};
    snprintf(worker->zone, sizeof(worker->zone), "z%u",
             (unsigned)rng_below(&world->rng, zone_count));
    snprintf(worker->rack, sizeof(worker->rack), "r%u",
             (unsigned)rng_below(&world->rng, rack_count));
    worker->view.id = world->worker_count;
    worker->view.zone = str_from_cstr(worker->zone);
    worker->view.rack = str_from_cstr(worker->rack);
    worker->view.is_search_only = world->worker_count > 1 && rng_below(&world->rng, 8) == 0;
}

static void add_shard(struct world *world, uint32_t factor)
{
    struct world_shard *shard = &world->shards[world->shard_count++];
    *shard = (struct world_shard){.factor = factor};
    shard->shard.id = world->shard_count;
    shard->shard.epoch = 1;
    uint64_t first = rng_below(&world->rng, world->worker_count);
    for (uint32_t i = 0; i < world->worker_count && shard->member_count < factor; i++) {
        uint64_t id = (first + i) % world->worker_count + 1;
        if (find_worker(world, id)->view.is_search_only)
            continue;
        shard->shard.replica_ids[shard->member_count] = id;
        shard->shard.roles[shard->member_count] = REPLICA_VOTER;
        shard->members[shard->member_count++] = id;
    }
    shard->shard.replica_count = shard->member_count;
    shard->leader_id = shard->members[0];
}

static void world_init(struct world *world, uint64_t seed)
{
    *world = (struct world){.seed = seed};
    rng_init(&world->rng, seed);
    uint32_t zone_count = (uint32_t)rng_below(&world->rng, 4) + 1;
    uint32_t rack_count = (uint32_t)rng_below(&world->rng, 3) + 1;
    uint32_t worker_count = (uint32_t)rng_below(&world->rng, WORKER_MAX - 2) + 1;
    uint32_t factor = (uint32_t)rng_below(&world->rng, 5) + 1;
    uint32_t shard_count = (uint32_t)rng_below(&world->rng, SHARD_MAX) + 1;
    for (uint32_t i = 0; i < worker_count; i++)
        add_worker(world, zone_count, rack_count);
    for (uint32_t i = 0; i < shard_count; i++)
        add_shard(world, factor);
    world->options = (struct scheduler_options){
        .change_count_max = (uint32_t)rng_below(&world->rng, 10) + 1,
        .incoming_count_max = (uint32_t)rng_below(&world->rng, 3) + 1,
        .lead_count_max = (uint32_t)rng_below(&world->rng, 5) + 1,
        .tolerance_percent = rng_below(&world->rng, 2) == 0 ? 0 : 10,
        .lost_seconds = 30,
    };
}

// --- What the groups do by themselves

static void elect(struct world *world, struct world_shard *shard)
{
    if (is_up(world, shard->leader_id) && is_member(shard, shard->leader_id))
        return;
    if (!has_majority(world, shard))
        return;
    do {
        shard->leader_id = shard->members[rng_below(&world->rng, shard->member_count)];
    } while (!is_up(world, shard->leader_id));
}

static void hand_over(struct world *world, struct world_shard *shard)
{
    if (shard->wanted_leader_id == 0)
        return;
    bool can_lead = is_up(world, shard->wanted_leader_id) &&
                    is_member(shard, shard->wanted_leader_id) && has_majority(world, shard);
    if (can_lead && rng_below(&world->rng, 2) == 0)
        shard->leader_id = shard->wanted_leader_id;
    if (shard->leader_id == shard->wanted_leader_id ||
        shard->wanted_rounds++ >= TRANSFER_ROUNDS_MAX)
        shard->wanted_leader_id = 0;
}

// One step of the group to what is wanted; what is new comes first.
static void reconcile(struct world *world, struct world_shard *shard)
{
    if (!has_majority(world, shard) || rng_below(&world->rng, 3) == 0)
        return;
    for (uint32_t i = 0; i < shard->shard.replica_count; i++) {
        uint64_t id = shard->shard.replica_ids[i];
        if (shard->shard.roles[i] == REPLICA_VOTER && !is_member(shard, id) && is_up(world, id)) {
            shard->members[shard->member_count++] = id;
            return;
        }
    }
    for (uint32_t i = 0; i < shard->member_count; i++) {
        uint64_t id = shard->members[i];
        if (role_of(&shard->shard, id) == REPLICA_VOTER || id == shard->leader_id)
            continue;
        // No group does that to itself: somebody fell silent since it was wanted.
        if (count_up(world, shard->members, shard->member_count) - is_up(world, id) <=
            (shard->member_count - 1) / 2)
            return;
        shard->members[i] = shard->members[--shard->member_count];
        return;
    }
}

static void run_shard(struct world *world, struct world_shard *shard)
{
    elect(world, shard);
    hand_over(world, shard);
    reconcile(world, shard);
    for (uint64_t id = 1; id <= world->worker_count; id++) {
        bool is_wanted = role_of(&shard->shard, id) != 0 && is_up(world, id);
        if (!is_wanted)
            shard->running &= ~(1U << id);
        else if (rng_below(&world->rng, 4) > 0)
            shard->running |= 1U << id;
    }
}

// --- Faults

static void run_fault(struct world *world)
{
    struct world_worker *worker = &world->workers[rng_below(&world->rng, world->worker_count)];
    switch (rng_below(&world->rng, 12)) {
    case 0:
    case 1:
        if (worker->down_rounds == 0)
            worker->down_rounds = 1;
        break;
    case 2:
    case 3:
    case 4:
        worker->down_rounds = 0;
        break;
    case 5:
        if (rng_below(&world->rng, 4) == 0)
            worker->view.is_draining = true;
        break;
    case 6:
        if (world->worker_count < WORKER_MAX)
            add_worker(world, 4, 3);
        break;
    default:
        break;
    }
}

// --- One run of the scheduler

static uint32_t running_of(const struct world_shard *shard)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < shard->shard.replica_count; i++)
        set |= (shard->running >> shard->shard.replica_ids[i] & 1) << i;
    return set;
}

static struct scheduler_view make_view(struct world *world)
{
    for (uint32_t i = 0; i < world->worker_count; i++) {
        struct world_worker *worker = &world->workers[i];
        worker->view.is_alive = worker->down_rounds == 0;
        worker->view.is_lost = worker->down_rounds > LOST_ROUNDS;
        worker->view.silent_seconds = worker->down_rounds;
        world->view_workers[i] = worker->view;
    }
    for (uint32_t i = 0; i < world->shard_count; i++) {
        const struct world_shard *shard = &world->shards[i];
        world->view_shards[i] = (struct view_shard){
            .collection = STR("docs"),
            .shard = &shard->shard,
            .replication_factor = shard->factor,
            .running = running_of(shard),
            .leader_id = shard->leader_id,
            .wanted_leader_id = shard->wanted_leader_id,
            .member_ids = shard->members,
            .member_count = shard->member_count,
        };
    }
    return (struct scheduler_view){world->view_workers, world->worker_count, world->view_shards,
                                   world->shard_count};
}

static bool is_settled(const struct world_shard *shard)
{
    uint32_t voters = 0;
    for (uint32_t i = 0; i < shard->shard.replica_count; i++) {
        if (shard->shard.roles[i] != REPLICA_VOTER)
            continue;
        voters++;
        if (!is_member(shard, shard->shard.replica_ids[i]))
            return false;
    }
    return voters == shard->member_count;
}

// All that are wanted vote, and without the others they would be no live majority.
static bool is_blocked(struct world *world, const struct world_shard *shard)
{
    uint32_t voters = 0;
    uint32_t live = 0;
    for (uint32_t i = 0; i < shard->shard.replica_count; i++) {
        if (shard->shard.roles[i] != REPLICA_VOTER)
            continue;
        voters++;
        live += is_up(world, shard->shard.replica_ids[i]);
        if (!is_member(shard, shard->shard.replica_ids[i]))
            return false;
    }
    return live <= voters / 2;
}

static void check_add(struct world *world, const struct world_shard *shard, const struct step *step)
{
    const struct world_worker *worker = find_worker(world, step->worker_id);
    world_check(world, is_settled(shard) || is_blocked(world, shard), "a second change of shard",
                shard->shard.id);
    world_check(world, role_of(&shard->shard, worker->view.id) == 0,
                "two replicas on one worker, shard", shard->shard.id);
    world_check(world, worker->down_rounds == 0 && !worker->view.is_draining,
                "add to a worker that is down or drained", worker->view.id);
    world_check(world, worker->view.is_search_only == (step->role == REPLICA_LEARNER),
                "the wrong role on worker", worker->view.id);
}

static void check_remove(struct world *world, const struct world_shard *shard,
                         const struct step *step)
{
    uint64_t rest[STATE_REPLICA_COUNT_MAX];
    uint32_t count = 0;
    enum replica_role role = role_of(&shard->shard, step->worker_id);
    world_check(world, role != 0, "removal of no replica of shard", shard->shard.id);
    if (role != REPLICA_VOTER || !is_member(shard, step->worker_id))
        return;
    world_check(world, is_settled(shard), "a second change of shard", shard->shard.id);
    world_check(world, step->worker_id != shard->leader_id, "removal of the leader of shard",
                shard->shard.id);
    for (uint32_t i = 0; i < shard->member_count; i++) {
        if (shard->members[i] != step->worker_id)
            rest[count++] = shard->members[i];
    }
    world_check(world, count > 0 && count_up(world, rest, count) > count / 2,
                "removal leaves no live majority of shard", shard->shard.id);
}

static void check_transfer(struct world *world, const struct world_shard *shard,
                           const struct step *step)
{
    world_check(world, is_up(world, step->worker_id), "lead to a worker that is down, shard",
                shard->shard.id);
    world_check(world, is_member(shard, step->worker_id), "lead to no voter of shard",
                shard->shard.id);
    world_check(world, step->worker_id != shard->leader_id, "lead to who has it, shard",
                shard->shard.id);
}

static void apply(struct world *world, struct world_shard *shard, const struct step *step)
{
    struct replica_change replicas[STATE_REPLICA_COUNT_MAX + 1];
    if (step->kind == STEP_TRANSFER_LEAD) {
        shard->wanted_leader_id = step->worker_id;
        shard->wanted_rounds = 0;
        return;
    }
    uint32_t count = step_apply(step, &shard->shard, replicas);
    if (!world_check(world, count > 0 && count <= STATE_REPLICA_COUNT_MAX,
                     "number of replicas of shard", shard->shard.id))
        return;
    for (uint32_t i = 0; i < count; i++) {
        shard->shard.replica_ids[i] = replicas[i].worker_id;
        shard->shard.roles[i] = replicas[i].role;
    }
    shard->shard.replica_count = count;
    shard->shard.epoch++;
}

static void check_limits(struct world *world)
{
    for (uint32_t i = 0; i < world->worker_count; i++) {
        uint32_t incoming = 0;
        for (uint32_t k = 0; k < world->shard_count; k++) {
            const struct world_shard *shard = &world->shards[k];
            incoming += role_of(&shard->shard, i + 1) == REPLICA_VOTER &&
                        !is_member(shard, i + 1) && has_majority(world, shard) &&
                        is_up(world, i + 1);
        }
        // Some wait for a majority meanwhile and come on top when it is back.
        if (world->round == 0)
            world_check(world, incoming <= world->options.incoming_count_max,
                        "too many replicas come to worker", i + 1);
    }
}

static uint32_t run_scheduler(struct world *world, struct arena *arena)
{
    uint32_t change_count = 0;
    uint32_t transfer_count = 0;
    bool is_done[SHARD_MAX] = {false};
    struct scheduler_view view = make_view(world);
    struct step_list list = scheduler_run(&view, &world->options, arena);
    for (uint32_t i = 0; i < list.count; i++) {
        const struct step *step = &list.steps[i];
        struct world_shard *shard = &world->shards[step->shard_index];
        world_check(world, !is_done[step->shard_index], "two steps for shard", shard->shard.id);
        is_done[step->shard_index] = true;
        world_check(world, step->reason.len > 0, "no reason for shard", shard->shard.id);
        change_count += step->kind == STEP_ADD;
        transfer_count += step->kind == STEP_TRANSFER_LEAD;
        if (step->kind == STEP_ADD)
            check_add(world, shard, step);
        else if (step->kind == STEP_REMOVE)
            check_remove(world, shard, step);
        else
            check_transfer(world, shard, step);
        apply(world, shard, step);
        world->trace =
            world->trace * 31 + step->kind * 1000003 + step->worker_id * 101 + step->shard_index;
    }
    world_check(world,
                change_count == 0 ||
                    list.changing_count + change_count <= world->options.change_count_max,
                "more changes than the limit", list.changing_count + change_count);
    world_check(world, transfer_count <= world->options.lead_count_max,
                "more transfers than the limit", transfer_count);
    check_limits(world);
    arena_reset(arena);
    world->step_count += list.count;
    return list.count;
}

static uint32_t world_step(struct world *world, struct arena *arena)
{
    for (uint32_t i = 0; i < world->worker_count; i++)
        world->workers[i].down_rounds += world->workers[i].down_rounds > 0;
    for (uint32_t i = 0; i < world->shard_count; i++)
        run_shard(world, &world->shards[i]);
    uint32_t count = run_scheduler(world, arena);
    world->round++;
    return count;
}

// --- At rest

struct pairs {
    uint32_t zones;
    uint32_t racks;
};

// With worker `to` in the place of worker `from`; both may be 0.
static struct pairs count_pairs(struct world *world, const struct world_shard *shard, uint64_t from,
                                uint64_t to)
{
    struct pairs pairs = {0};
    for (uint32_t i = 0; i < shard->member_count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            uint64_t a = shard->members[i] == from ? to : shard->members[i];
            uint64_t b = shard->members[k] == from ? to : shard->members[k];
            const struct view_worker *x = &find_worker(world, a)->view;
            const struct view_worker *y = &find_worker(world, b)->view;
            pairs.zones += str_equal(x->zone, y->zone);
            pairs.racks += str_equal(x->zone, y->zone) && str_equal(x->rack, y->rack);
        }
    }
    return pairs;
}

static uint32_t load_of(const struct world *world, uint64_t id)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->shard_count; i++)
        count += role_of(&world->shards[i].shard, id) != 0;
    return count;
}

static uint32_t leads_of(const struct world *world, uint64_t id)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->shard_count; i++)
        count += world->shards[i].leader_id == id;
    return count;
}

// No single move makes the shard less close, or the loads more equal at the same closeness.
static void check_place(struct world *world, const struct world_shard *shard, uint64_t from,
                        uint64_t to)
{
    struct pairs now = count_pairs(world, shard, 0, 0);
    struct pairs then = count_pairs(world, shard, from, to);
    bool is_closer = then.zones < now.zones || (then.zones == now.zones && then.racks < now.racks);
    bool is_equal = then.zones == now.zones && then.racks == now.racks;
    world_check(world, !is_closer, "a better spread is possible for shard", shard->shard.id);
    uint32_t tolerated = world->options.tolerance_percent == 0 ? 1 : 1 + SHARD_MAX / 10;
    world_check(world, !is_equal || load_of(world, from) <= load_of(world, to) + tolerated,
                "a better balance is possible for shard", shard->shard.id);
}

static void check_shard_at_rest(struct world *world, const struct world_shard *shard)
{
    uint32_t learners = 0;
    uint32_t voters = 0;
    for (uint32_t i = 0; i < shard->shard.replica_count; i++) {
        uint64_t id = shard->shard.replica_ids[i];
        bool is_voter = shard->shard.roles[i] == REPLICA_VOTER;
        voters += is_voter;
        learners += !is_voter && is_up(world, id);
        world_check(world, !is_voter || is_open(world, id),
                    "a voter of shard stayed on a bad worker", shard->shard.id);
    }
    world_check(world, voters == shard->factor, "number of voters of shard", shard->shard.id);
    world_check(world, learners <= 1, "more than one live learner of shard", shard->shard.id);
    for (uint32_t i = 0; i < shard->member_count; i++) {
        uint64_t from = shard->members[i];
        for (uint64_t to = 1; to <= world->worker_count; to++) {
            if (is_open(world, to) && role_of(&shard->shard, to) == 0)
                check_place(world, shard, from, to);
        }
        if (world->options.tolerance_percent == 0)
            world_check(world, leads_of(world, shard->leader_id) <= leads_of(world, from) + 1,
                        "leads are not equal, shard", shard->shard.id);
    }
}

static uint32_t count_learners(const struct world_shard *shard)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < shard->shard.replica_count; i++)
        count += shard->shard.roles[i] == REPLICA_LEARNER;
    return count;
}

static void check_rest(struct world *world)
{
    uint32_t open = 0;
    uint32_t searching = 0;
    for (uint64_t id = 1; id <= world->worker_count; id++) {
        const struct view_worker *worker = &find_worker(world, id)->view;
        open += is_open(world, id);
        searching += is_up(world, id) && worker->is_search_only && !worker->is_draining;
    }
    for (uint32_t i = 0; i < world->shard_count; i++) {
        const struct world_shard *shard = &world->shards[i];
        if (!has_majority(world, shard))
            continue; // nothing can be done about it
        bool is_stuck = is_blocked(world, shard) && open < shard->factor;
        world_check(world, is_settled(shard) || is_stuck, "a change never ended, shard",
                    shard->shard.id);
        if (open >= shard->factor)
            check_shard_at_rest(world, shard);
        world_check(world, searching == 0 || is_stuck || count_learners(shard) > 0,
                    "no learner of shard", shard->shard.id);
        for (uint32_t k = 0; k < shard->shard.replica_count; k++) {
            const struct world_worker *worker = find_worker(world, shard->shard.replica_ids[k]);
            bool may_stay = !worker->view.is_draining || open < shard->factor;
            world_check(world, may_stay, "a drained worker is not empty", worker->view.id);
        }
    }
}

static void come_to_rest(struct world *world, struct arena *arena)
{
    uint32_t quiet = 0;
    uint64_t steps_before = world->step_count;
    uint64_t end = world->round + REST_ROUNDS_MAX;
    // Longer than a transfer takes, a worker to be lost, and any group to go on.
    while (quiet < QUIET_ROUNDS && world->round < end && !world->has_failed)
        quiet = world_step(world, arena) == 0 ? quiet + 1 : 0;
    world_check(world, world->round < end, "steps without end", world->step_count);
    // Each replica moves a few times at most.
    world_check(world,
                world->step_count - steps_before <=
                    8 * (uint64_t)world->shard_count * (world->shards[0].factor + 2),
                "far too many steps", world->step_count - steps_before);
}

static struct world world; // too large for the stack

static uint64_t run_world(uint64_t seed)
{
    struct arena *arena = arena_create(SIZE_MAX);
    world_init(&world, seed);
    uint64_t fault_rounds = rng_below(&world.rng, 60);
    while (world.round < fault_rounds && !world.has_failed) {
        run_fault(&world);
        (void)world_step(&world, arena);
    }
    come_to_rest(&world, arena);
    if (!world.has_failed)
        check_rest(&world);
    CHECK(!world.has_failed);
    arena_destroy(arena);
    return world.trace;
}

TEST(every_cluster_comes_to_rest_where_it_should)
{
    for (uint64_t seed = 1; seed <= SEED_COUNT && !world.has_failed; seed++)
        (void)run_world(seed);
}

TEST(the_same_cluster_gets_the_same_steps)
{
    for (uint64_t seed = 5001; seed <= 5100; seed++) {
        uint64_t trace = run_world(seed);
        CHECK_EQ_U64(run_world(seed), trace);
    }
}

// --- What people are told

// Three workers in three zones, a shard on 1, 2 and 3, a fourth worker that is free.
static void world_of_three(struct world *told)
{
    *told = (struct world){0};
    told->options = (struct scheduler_options){
        .change_count_max = 4, .incoming_count_max = 2, .lead_count_max = 4, .lost_seconds = 30};
    rng_init(&told->rng, 1);
    for (uint32_t i = 0; i < 4; i++)
        add_worker(told, 1, 1);
    for (uint32_t i = 0; i < 4; i++)
        told->workers[i].view.is_search_only = false;
    struct world_shard *shard = &told->shards[0];
    told->shard_count = 1;
    shard->factor = 3;
    shard->shard.id = 7;
    shard->shard.epoch = 1;
    for (uint32_t i = 0; i < 3; i++) {
        shard->shard.replica_ids[i] = i + 1;
        shard->shard.roles[i] = REPLICA_VOTER;
        shard->members[i] = i + 1;
    }
    shard->shard.replica_count = 3;
    shard->member_count = 3;
    shard->leader_id = 1;
}

static void check_told(struct world *told, const char *sentence)
{
    struct arena *arena = arena_create(SIZE_MAX);
    struct scheduler_view view = make_view(told);
    struct str text = scheduler_explain(&view, &told->options, 7, arena);
    if (!CHECK_CONTAINS(text, str_from_cstr(sentence)))
        printf("%.*s\n", STR_ARG(text));
    arena_destroy(arena);
}

TEST(people_are_told_why)
{
    world_of_three(&world);
    struct world_shard *shard = &world.shards[0];
    check_told(&world, "shard 7 of docs has 3 of 3 replicas, on workers 1, 2, 3; worker 1 leads. "
                       "nothing is to be done.");
    world.workers[1].down_rounds = 3;
    check_told(&world, "worker 2 is silent for 3 s; after 30 s its replica is replaced.");
    world.workers[1].down_rounds = 40;
    check_told(&world, "next: add worker 4, because worker 2 is silent for 40 s.");
    world.workers[3].view.is_draining = true;
    check_told(&world, "there is no further worker that may take a replica");
    world.workers[2].down_rounds = 2;
    check_told(&world, "fewer than a majority of its 3 voters are there");
    world.workers[1].down_rounds = 0;
    world.workers[2].down_rounds = 0;
    world.workers[3].view.is_draining = false;
    world.workers[0].view.is_draining = true;
    check_told(&world, "next: hand the lead to worker 2, because worker 1, which leads, is being "
                       "drained.");
    shard->leader_id = 2;
    check_told(&world, "next: add worker 4, because worker 1 is being drained.");
    shard->shard.replica_ids[3] = 4;
    shard->shard.roles[3] = REPLICA_VOTER;
    shard->shard.replica_count = 4;
    check_told(&world, "the leader has not made a voter yet of worker 4.");
    shard->members[3] = 4;
    shard->member_count = 4;
    check_told(&world, "next: remove worker 1, because worker 1 is being drained.");
    shard->leader_id = 0;
    check_told(&world, "no worker says that it leads. nothing can be changed");

    struct arena *arena = arena_create(SIZE_MAX);
    struct scheduler_view view = make_view(&world);
    CHECK_EQ_U64(scheduler_explain(&view, &world.options, 8, arena).len, 0);
    arena_destroy(arena);
}

TEST_MAIN()
