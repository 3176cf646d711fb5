#include "placementdriver/placement.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"

struct load {
    const struct worker *worker;
    uint32_t shard_count;
    uint32_t first_count;
};

// The candidates that may still take voters; some may have gone since the command was made.
static uint32_t collect_loads(const struct state *state, const struct command *command,
                              struct load *out_loads)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < command->candidate_count; i++) {
        const struct worker *worker = state_worker(state, command->candidate_ids[i]);
        if (worker != NULL && worker->state == WORKER_READY && !worker_is_search_only(worker))
            out_loads[count++] = (struct load){worker, worker->shard_count, worker->first_count};
    }
    return count;
}

// How bad a place is beside the replicas that the shard has already: the smaller the better, the
// first number first.
struct place_cost {
    uint32_t numbers[3];
};

static struct place_cost first_cost(const struct load *load)
{
    return (struct place_cost){{load->first_count, load->shard_count, 0}};
}

static struct place_cost next_cost(const struct state *state, const struct load *load,
                                   const struct shard *shard)
{
    struct place_cost cost = {{0, 0, load->shard_count}};
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        const struct worker *other = state_worker(state, shard->replica_ids[i]);
        bool is_same_zone = str_equal(other->profile.zone, load->worker->profile.zone);
        cost.numbers[0] += is_same_zone;
        cost.numbers[1] +=
            is_same_zone && str_equal(other->profile.rack, load->worker->profile.rack);
    }
    return cost;
}

static bool is_cheaper(struct place_cost a, struct place_cost b)
{
    for (uint32_t i = 0; i < 3; i++) {
        if (a.numbers[i] != b.numbers[i])
            return a.numbers[i] < b.numbers[i];
    }
    return false;
}

static struct load *choose(const struct state *state, struct load *loads, uint32_t count,
                           const struct shard *shard)
{
    struct load *best = NULL;
    struct place_cost best_cost = {{0}};
    for (uint32_t i = 0; i < count; i++) {
        if (shard_has_replica(shard, loads[i].worker->id))
            continue;
        struct place_cost cost =
            shard->replica_count == 0 ? first_cost(&loads[i]) : next_cost(state, &loads[i], shard);
        if (best == NULL || is_cheaper(cost, best_cost)) {
            best = &loads[i];
            best_cost = cost;
        }
    }
    ASSERT(best != NULL); // there are as many candidates as replicas at least
    return best;
}

static void place(const struct state *state, struct load *loads, uint32_t load_count,
                  uint32_t replica_count, struct shard *shards, uint32_t shard_count)
{
    // 2^64 / shard_count, rounded down; 2^64 itself has no room in 64 bits.
    uint64_t step = UINT64_MAX / shard_count + (UINT64_MAX % shard_count == shard_count - 1);
    for (uint32_t i = 0; i < shard_count; i++) {
        struct shard *shard = &shards[i];
        bool is_last = i + 1 == shard_count;
        shard->range_start = i * step;
        shard->range_end = is_last ? UINT64_MAX : (i + 1) * step - 1;
        shard->epoch = 1;
        while (shard->replica_count < replica_count) {
            struct load *load = choose(state, loads, load_count, shard);
            load->shard_count++;
            load->first_count += shard->replica_count == 0;
            shard->replica_ids[shard->replica_count] = load->worker->id;
            shard->roles[shard->replica_count++] = REPLICA_VOTER;
        }
    }
}

enum status placement_choose(const struct state *state, const struct command *command,
                             struct error *error, struct shard **out_shards,
                             uint32_t *out_shard_count)
{
    struct load *loads = mem_alloc((command->candidate_count + 1) * sizeof(*loads));
    uint32_t load_count = collect_loads(state, command, loads);
    uint32_t shard_count = command->shard_count;
    if (shard_count == 0)
        shard_count = load_count < LIMIT_SHARDS_PER_COLLECTION_DEFAULT_MAX
                          ? load_count
                          : LIMIT_SHARDS_PER_COLLECTION_DEFAULT_MAX;
    enum status status = STATUS_OK;
    if (load_count == 0)
        status = error_set(error, STATUS_UNAVAILABLE, "no worker is there to hold the collection");
    else if (state->collections.count >= STATE_COLLECTION_COUNT_MAX)
        status = error_set(error, STATUS_EXHAUSTED, "there are %zu collections, the limit is %d",
                           state->collections.count, STATE_COLLECTION_COUNT_MAX);
    else if (state->shard_count + shard_count > STATE_SHARD_COUNT_MAX)
        status = error_set(error, STATUS_EXHAUSTED, "there are %u shards, the limit is %d",
                           state->shard_count, STATE_SHARD_COUNT_MAX);
    if (status == STATUS_OK) {
        ASSERT(shard_count > 0);
        struct shard *shards = mem_alloc(shard_count * sizeof(*shards));
        uint32_t replica_count = command->replication_factor == 0 ? 1 : command->replication_factor;
        if (replica_count > load_count)
            replica_count = load_count;
        place(state, loads, load_count, replica_count, shards, shard_count);
        *out_shards = shards;
        *out_shard_count = shard_count;
    }
    mem_free(loads);
    return status;
}
