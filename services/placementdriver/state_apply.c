#include <inttypes.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "placementdriver/command.h"
#include "placementdriver/placement.h"
#include "placementdriver/state_internal.h"

// Each function applies one kind of command. All conditions are looked at before anything changes,
// so a refusal leaves the state as it was.

// Room for the arrays of one command: change lists of a megabyte of tiny entries.
#define COMMAND_ARENA_SIZE_MAX ((size_t)16 << 20)

static void refuse(struct answer *answer, enum status status)
{
    answer->status = status;
}

static void apply_lead(struct state *state, const struct command *command)
{
    state->lead_count++;
    if (state->incarnation.len == 0)
        state->incarnation = text_copy(command->incarnation);
}

static void apply_register(struct state *state, const struct command *command,
                           struct answer *answer)
{
    struct worker *worker = state_find_worker(state, &command->profile);
    if (worker == NULL) {
        if (state->worker_count >= STATE_WORKER_COUNT_MAX) {
            refuse(answer, error_set(&answer->error, STATUS_EXHAUSTED,
                                     "there are %u workers already, the limit is %d",
                                     state->worker_count, STATE_WORKER_COUNT_MAX));
            return;
        }
        worker = state_add_worker(state, state->next_worker_id++, &command->profile);
        worker->state = WORKER_READY;
        worker->registered_at = command->now;
    } else {
        struct worker_profile profile = command->profile;
        if (profile.identity.len == 0)
            profile.identity = worker->profile.identity;
        state_set_profile(worker, &profile);
    }
    state->map_index = state->index;
    answer->value = worker->id;
}

static struct worker *require_worker(struct state *state, uint64_t id, struct answer *answer)
{
    struct worker *worker = state_worker(state, id);
    if (worker == NULL)
        refuse(answer,
               error_set(&answer->error, STATUS_NOT_FOUND, "worker %" PRIu64 " not found", id));
    return worker;
}

static void apply_drain(struct state *state, const struct command *command, struct answer *answer)
{
    struct worker *worker = require_worker(state, command->worker_id, answer);
    if (worker == NULL || worker->state == WORKER_DRAINING)
        return;
    worker->state = WORKER_DRAINING;
    state->map_index = state->index;
}

// Shards of which this worker has the only voter.
static uint32_t count_only_copies(const struct state *state, uint64_t worker_id)
{
    uint32_t count = 0;
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        for (uint32_t i = 0; i < collection->shard_count; i++) {
            const struct shard *shard = &collection->shards[i];
            for (uint32_t k = 0; k < shard->replica_count; k++)
                count += shard->replica_ids[k] == worker_id && shard->roles[k] == REPLICA_VOTER &&
                         shard_voter_count(shard) == 1;
        }
    }
    return count;
}

static enum status refuse_removal(const struct state *state, const struct worker *worker,
                                  struct error *error)
{
    uint32_t only = count_only_copies(state, worker->id);
    if (only > 0)
        return error_set(error, STATUS_PRECONDITION,
                         "worker %" PRIu64 " holds the only copy of %u shards; delete "
                         "their collections first, or drain it while there are other workers",
                         worker->id, only);
    return error_set(error, STATUS_PRECONDITION,
                     "worker %" PRIu64 " holds replicas of %u shards; drain it first", worker->id,
                     worker->shard_count);
}

static void apply_remove_worker(struct state *state, const struct command *command,
                                struct answer *answer)
{
    struct worker *worker = require_worker(state, command->worker_id, answer);
    if (worker == NULL)
        return;
    if (worker->shard_count > 0) {
        refuse(answer, refuse_removal(state, worker, &answer->error));
        return;
    }
    state_remove_worker(state, worker->id);
    state->map_index = state->index;
}

static void apply_create(struct state *state, const struct command *command, struct answer *answer)
{
    struct str short_name = collection_short_name(command->name);
    if (state_collection(state, command->name) != NULL) {
        refuse(answer, error_set(&answer->error, STATUS_EXISTS, "collection %.*s already exists",
                                 STR_ARG(short_name)));
        return;
    }
    struct shard *shards = NULL;
    uint32_t shard_count = 0;
    enum status status = placement_choose(state, command, &answer->error, &shards, &shard_count);
    if (status != STATUS_OK) {
        refuse(answer, status);
        return;
    }
    for (uint32_t i = 0; i < shard_count; i++)
        shards[i].id = state->next_shard_id++;
    struct collection *collection = state_add_collection(state, command->name, shards, shard_count);
    collection->dimension = command->dimension;
    collection->distance = command->distance;
    collection->created_at = command->now;
    collection->replication_factor = command->replication_factor;
    state->map_index = state->index;
}

static void apply_delete(struct state *state, const struct command *command, struct answer *answer)
{
    struct collection *collection = state_collection(state, command->name);
    if (collection == NULL) {
        struct str short_name = collection_short_name(command->name);
        refuse(answer, error_set(&answer->error, STATUS_NOT_FOUND, "collection %.*s not found",
                                 STR_ARG(short_name)));
        return;
    }
    state_remove_collection(state, collection);
    state->map_index = state->index;
}

// --- The replicas of a shard

static enum replica_role role_of(const struct shard *shard, uint64_t worker_id)
{
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        if (shard->replica_ids[i] == worker_id)
            return shard->roles[i];
    }
    return 0;
}

// What the command would make of the shard.
static struct shard with_replicas(const struct shard *shard, const struct command *command)
{
    struct shard wanted = *shard;
    wanted.epoch++;
    wanted.replica_count = command->replica_count;
    for (uint32_t i = 0; i < command->replica_count; i++) {
        wanted.replica_ids[i] = command->replicas[i].worker_id;
        wanted.roles[i] = command->replicas[i].role;
    }
    return wanted;
}

static enum status check_new_replica(const struct state *state, const struct shard *wanted,
                                     uint32_t place, struct error *error)
{
    const struct worker *worker = state_worker(state, wanted->replica_ids[place]);
    if (worker == NULL)
        return error_set(error, STATUS_NOT_FOUND, "worker %" PRIu64 " not found",
                         wanted->replica_ids[place]);
    if (worker->state != WORKER_READY)
        return error_set(error, STATUS_PRECONDITION, "worker %" PRIu64 " takes no replicas",
                         worker->id);
    if (wanted->roles[place] == REPLICA_VOTER && worker_is_search_only(worker))
        return error_set(error, STATUS_PRECONDITION, "worker %" PRIu64 " takes learners only",
                         worker->id);
    return STATUS_OK;
}

// One replica comes, goes or changes its role: then any majority before and any majority after
// have a voter in common.
static enum status check_step(const struct state *state, const struct shard *shard,
                              const struct shard *wanted, struct error *error)
{
    uint32_t steps = 0;
    for (uint32_t i = 0; i < wanted->replica_count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (wanted->replica_ids[k] == wanted->replica_ids[i])
                return error_set(error, STATUS_INVALID, "worker %" PRIu64 " is named twice",
                                 wanted->replica_ids[i]);
        }
        if (role_of(shard, wanted->replica_ids[i]) == wanted->roles[i])
            continue;
        TRY(check_new_replica(state, wanted, i, error));
        steps++;
    }
    for (uint32_t i = 0; i < shard->replica_count; i++)
        steps += !shard_has_replica(wanted, shard->replica_ids[i]);
    if (shard_voter_count(wanted) == 0)
        return error_set(error, STATUS_INVALID, "a shard needs a voter");
    if (steps != 1)
        return error_set(error, STATUS_INVALID, "%u replicas would change; one at a time", steps);
    return STATUS_OK;
}

static void apply_replicas(struct state *state, const struct command *command,
                           struct answer *answer)
{
    struct collection *collection = state_collection(state, command->name);
    struct shard *shard =
        collection != NULL ? collection_shard(collection, command->shard_id) : NULL;
    if (shard == NULL) {
        refuse(answer, error_set(&answer->error, STATUS_NOT_FOUND, "shard %u not found",
                                 command->shard_id));
        return;
    }
    if (shard->epoch != command->expected_epoch) {
        refuse(answer, error_set(&answer->error, STATUS_ABORTED,
                                 "shard %u has epoch %" PRIu64 ", not %" PRIu64, shard->id,
                                 shard->epoch, command->expected_epoch));
        return;
    }
    struct shard wanted = with_replicas(shard, command);
    enum status status = check_step(state, shard, &wanted, &answer->error);
    if (status != STATUS_OK) {
        refuse(answer, status);
        return;
    }
    state_count_replicas(state, shard, false);
    *shard = wanted;
    state_count_replicas(state, shard, true);
    state->map_index = state->index;
    answer->value = shard->epoch;
}

// --- Entries

static void apply_put(struct state *state, const struct command *command, struct answer *answer)
{
    size_t added = 0;
    for (uint32_t i = 0; i < command->change_count; i++) {
        const struct entry_change *change = &command->changes[i];
        const struct entry *entry = state_entry(state, change->key);
        uint64_t version = entry == NULL ? 0 : entry->version;
        if (version != change->expected_version) {
            refuse(answer, error_set(&answer->error, STATUS_ABORTED,
                                     "entry %u has version %" PRIu64 ", not %" PRIu64, i, version,
                                     change->expected_version));
            return;
        }
        added += change->is_removal ? 0 : change->key.len + change->value.len;
    }
    // Removals always go through: they are the way out.
    if (added > 0 && state->entries_size + added > STATE_ENTRIES_SIZE_MAX) {
        refuse(answer, error_set(&answer->error, STATUS_EXHAUSTED,
                                 "the entries take %zu bytes already, the limit is %zu",
                                 state->entries_size, STATE_ENTRIES_SIZE_MAX));
        return;
    }
    for (uint32_t i = 0; i < command->change_count; i++) {
        const struct entry_change *change = &command->changes[i];
        if (change->is_removal)
            state_remove_entry(state, change->key);
        else
            state_put_entry(state, change->key, change->value, state->index);
    }
}

static void apply_command(struct state *state, const struct command *command, struct answer *answer)
{
    switch (command->kind) {
    case COMMAND_LEAD:
        apply_lead(state, command);
        break;
    case COMMAND_REGISTER_WORKER:
        apply_register(state, command, answer);
        break;
    case COMMAND_DRAIN_WORKER:
        apply_drain(state, command, answer);
        break;
    case COMMAND_REMOVE_WORKER:
        apply_remove_worker(state, command, answer);
        break;
    case COMMAND_CREATE_COLLECTION:
        apply_create(state, command, answer);
        break;
    case COMMAND_DELETE_COLLECTION:
        apply_delete(state, command, answer);
        break;
    case COMMAND_PUT_ENTRIES:
        apply_put(state, command, answer);
        break;
    case COMMAND_SET_REPLICAS:
        apply_replicas(state, command, answer);
        break;
    }
}

enum status state_apply(struct state *state, uint64_t index, struct span bytes,
                        struct answer *out_answer)
{
    struct arena *arena = arena_create(COMMAND_ARENA_SIZE_MAX);
    struct command command;
    struct answer answer = {.status = STATUS_OK};
    enum status status = command_decode(bytes, arena, &answer.error, &command);
    if (status == STATUS_OK) {
        state->index = index;
        apply_command(state, &command, &answer);
    }
    arena_destroy(arena);
    *out_answer = answer;
    return status;
}
