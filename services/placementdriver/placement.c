#include "placementdriver/placement.h"

#include "base/assert.h"
#include "base/limits.h"
#include "base/mem.h"

struct load {
    uint64_t worker_id;
    uint32_t shard_count;
};

// The candidates that may still take shards; some may have gone since the command was made.
static uint32_t collect_loads(const struct state *state, const struct command *command,
                              struct load *out_loads)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < command->candidate_count; i++) {
        const struct worker *worker = state_worker(state, command->candidate_ids[i]);
        if (worker != NULL && worker->state == WORKER_READY)
            out_loads[count++] = (struct load){worker->id, worker->shard_count};
    }
    return count;
}

static struct load *least_loaded(struct load *loads, uint32_t count)
{
    struct load *least = &loads[0];
    for (uint32_t i = 1; i < count; i++) {
        if (loads[i].shard_count < least->shard_count)
            least = &loads[i];
    }
    return least;
}

static void place(struct load *loads, uint32_t load_count, struct shard *shards,
                  uint32_t shard_count)
{
    // 2^64 / shard_count, rounded down; 2^64 itself has no room in 64 bits.
    uint64_t step = UINT64_MAX / shard_count + (UINT64_MAX % shard_count == shard_count - 1);
    for (uint32_t i = 0; i < shard_count; i++) {
        struct load *load = least_loaded(loads, load_count);
        load->shard_count++;
        bool is_last = i + 1 == shard_count;
        shards[i].range_start = i * step;
        shards[i].range_end = is_last ? UINT64_MAX : (i + 1) * step - 1;
        shards[i].epoch = 1;
        shards[i].leader_id = load->worker_id;
        shards[i].replica_ids[0] = load->worker_id;
        shards[i].replica_count = 1;
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
        place(loads, load_count, shards, shard_count);
        *out_shards = shards;
        *out_shard_count = shard_count;
    }
    mem_free(loads);
    return status;
}
