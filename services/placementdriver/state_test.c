#include "placementdriver/state.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/rng.h"
#include "placementdriver/command.h"
#include "placementdriver/wire.h"
#include "testing/test.h"

static struct answer apply(struct state *state, const struct command *command)
{
    struct buf bytes;
    struct answer answer;
    buf_init(&bytes, SIZE_MAX);
    command_encode(command, &bytes);
    CHECK_OK(state_apply(state, state->index + 1, buf_span(&bytes), &answer));
    buf_deinit(&bytes);
    return answer;
}

static uint64_t add_worker(struct state *state, const char *identity, const char *address)
{
    struct command command = {.kind = COMMAND_REGISTER_WORKER, .now = 100};
    command.profile.identity = str_from_cstr(identity);
    command.profile.grpc_address = str_from_cstr(address);
    struct answer answer = apply(state, &command);
    CHECK_OK(answer.status);
    return answer.value;
}

static struct answer create(struct state *state, const char *name, uint32_t shard_count)
{
    uint64_t ids[64];
    struct command command = {.kind = COMMAND_CREATE_COLLECTION,
                              .now = 200,
                              .name = str_from_cstr(name),
                              .dimension = 8,
                              .distance = DISTANCE_DOT,
                              .shard_count = shard_count,
                              .candidate_ids = ids};
    for (uint32_t i = 0; i < state->worker_count && i < 64; i++)
        ids[command.candidate_count++] = state->workers[i]->id;
    return apply(state, &command);
}

static struct answer with_worker(struct state *state, enum command_kind kind, uint64_t id)
{
    return apply(state, &(struct command){.kind = kind, .worker_id = id});
}

static struct answer put(struct state *state, const char *key, const char *value, uint64_t expected,
                         bool is_removal)
{
    struct entry_change change = {str_from_cstr(key), str_from_cstr(value), expected, is_removal};
    return apply(state, &(struct command){
                            .kind = COMMAND_PUT_ENTRIES, .changes = &change, .change_count = 1});
}

TEST(a_worker_keeps_its_id)
{
    struct state state;
    state_init(&state);
    CHECK_EQ_U64(add_worker(&state, "aaa", "a:1"), 1);
    CHECK_EQ_U64(add_worker(&state, "bbb", "b:1"), 2);
    CHECK_EQ_U64(add_worker(&state, "aaa", "a:2"), 1); // moved
    CHECK_STR(state_worker(&state, 1)->profile.grpc_address, STR("a:2"));
    CHECK_EQ_U64(add_worker(&state, "", "b:1"), 2);
    CHECK_STR(state_worker(&state, 2)->profile.identity, STR("bbb"));
    CHECK_EQ_U64(add_worker(&state, "", "c:1"), 3);
    CHECK_EQ_U64(add_worker(&state, "ccc", "c:1"), 3); // now it says who it is
    CHECK_EQ_U64(add_worker(&state, "ddd", "c:1"), 4); // another one at its place
    CHECK_EQ_U64(state.worker_count, 4);
    // Removed and back again: a new id.
    CHECK_OK(with_worker(&state, COMMAND_REMOVE_WORKER, 4).status);
    CHECK_STATUS(with_worker(&state, COMMAND_REMOVE_WORKER, 4).status, STATUS_NOT_FOUND);
    CHECK_STATUS(with_worker(&state, COMMAND_DRAIN_WORKER, 4).status, STATUS_NOT_FOUND);
    CHECK_EQ_U64(add_worker(&state, "ddd", "c:1"), 5);
    state_deinit(&state);
}

TEST(a_collection_covers_every_hash)
{
    struct state state;
    struct error error;
    state_init(&state);
    CHECK_STATUS(create(&state, "none", 0).status, STATUS_UNAVAILABLE);
    for (int i = 0; i < 10; i++) {
        char address[16];
        snprintf(address, sizeof(address), "w:%d", i);
        add_worker(&state, address, address);
    }
    CHECK_OK(create(&state, "eight", 0).status);
    CHECK_EQ_U64(state_collection(&state, STR("eight"))->shard_count, 8);
    for (uint32_t count = 1; count <= 40; count++) {
        char name[16];
        snprintf(name, sizeof(name), "c%u", count);
        CHECK_OK(create(&state, name, count).status);
        CHECK_OK(state_check(&state, &error));
        const struct collection *collection = state_collection(&state, str_from_cstr(name));
        CHECK_EQ_U64(collection->shard_count, count);
        uint64_t size = collection->shards[0].range_end;
        for (uint32_t i = 1; i + 1 < count; i++)
            CHECK_EQ_U64(collection->shards[i].range_end - collection->shards[i].range_start, size);
    }
    // 828 shards on 10 workers.
    for (uint32_t i = 0; i < state.worker_count; i++)
        CHECK(state.workers[i]->shard_count == 82 || state.workers[i]->shard_count == 83);

    struct answer answer = create(&state, "c1", 1);
    CHECK_STATUS(answer.status, STATUS_EXISTS);
    CHECK_CONTAINS(str_from_cstr(answer.error.text), STR("c1 already exists"));
    state_deinit(&state);
}

TEST(a_worker_with_shards_stays)
{
    struct state state;
    state_init(&state);
    uint64_t first = add_worker(&state, "a", "a:1");
    CHECK_OK(create(&state, "user-1/docs", 0).status);
    struct answer answer = with_worker(&state, COMMAND_REMOVE_WORKER, first);
    CHECK_STATUS(answer.status, STATUS_PRECONDITION);
    CHECK_CONTAINS(str_from_cstr(answer.error.text), STR("only copy of 1 shards"));
    CHECK_OK(with_worker(&state, COMMAND_DRAIN_WORKER, first).status);
    // A worker that is being drained takes nothing new.
    CHECK_STATUS(create(&state, "more", 0).status, STATUS_UNAVAILABLE);
    add_worker(&state, "b", "b:1");
    CHECK_OK(create(&state, "more", 3).status);
    CHECK_EQ_U64(state_worker(&state, first)->shard_count, 1);
    CHECK_EQ_U64(state_worker(&state, first)->state, WORKER_DRAINING);

    struct command remove = {.kind = COMMAND_DELETE_COLLECTION, .name = STR("user-1/docs")};
    CHECK_OK(apply(&state, &remove).status);
    answer = apply(&state, &remove);
    CHECK_STATUS(answer.status, STATUS_NOT_FOUND);
    CHECK_CONTAINS(str_from_cstr(answer.error.text), STR("collection docs not found"));
    CHECK_OK(with_worker(&state, COMMAND_REMOVE_WORKER, first).status);
    state_deinit(&state);
}

// --- Replicas

static void add_placed_worker(struct state *state, const char *name, const char *zone,
                              const char *rack, const char *capabilities)
{
    struct command command = {.kind = COMMAND_REGISTER_WORKER, .now = 100};
    command.profile.identity = str_from_cstr(name);
    command.profile.grpc_address = str_from_cstr(name);
    command.profile.zone = str_from_cstr(zone);
    command.profile.rack = str_from_cstr(rack);
    command.profile.capabilities = str_from_cstr(capabilities);
    CHECK_OK(apply(state, &command).status);
}

static struct answer create_replicated(struct state *state, const char *name, uint32_t shard_count,
                                       uint32_t replication_factor)
{
    uint64_t ids[64];
    struct command command = {.kind = COMMAND_CREATE_COLLECTION,
                              .now = 200,
                              .name = str_from_cstr(name),
                              .dimension = 8,
                              .shard_count = shard_count,
                              .replication_factor = replication_factor,
                              .candidate_ids = ids};
    for (uint32_t i = 0; i < state->worker_count && i < 64; i++)
        ids[command.candidate_count++] = state->workers[i]->id;
    return apply(state, &command);
}

TEST(replicas_are_spread_over_zones_then_racks)
{
    struct state state;
    struct error error;
    state_init(&state);
    // Six in zone a, two of them in one rack; two in b; one in c; one that only searches in d.
    const char *const places[][3] = {
        {"w1", "a", "r1"}, {"w2", "a", "r1"}, {"w3", "a", "r2"},
        {"w4", "a", "r3"}, {"w5", "a", "r4"}, {"w6", "a", "r5"},
        {"w7", "b", "r1"}, {"w8", "b", "r2"}, {"w9", "c", "r1"},
    };
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        add_placed_worker(&state, places[i][0], places[i][1], places[i][2], "");
    add_placed_worker(&state, "w10", "d", "", "x,search-only");
    CHECK_OK(create_replicated(&state, "three", 18, 3).status);
    CHECK_OK(create_replicated(&state, "five", 18, 5).status);
    CHECK_OK(state_check(&state, &error));
    const struct collection *three = state_collection(&state, STR("three"));
    CHECK_EQ_U64(three->replication_factor, 3);
    for (uint32_t i = 0; i < three->shard_count; i++) {
        const struct shard *shard = &three->shards[i];
        CHECK_EQ_U64(shard->replica_count, 3);
        for (uint32_t k = 0; k < 3; k++) {
            for (uint32_t j = 0; j < k; j++)
                CHECK(!str_equal(state_worker(&state, shard->replica_ids[k])->profile.zone,
                                 state_worker(&state, shard->replica_ids[j])->profile.zone));
        }
    }
    const struct collection *five = state_collection(&state, STR("five"));
    for (uint32_t i = 0; i < five->shard_count; i++)
        CHECK(!shard_has_replica(&five->shards[i], 1) || !shard_has_replica(&five->shards[i], 2));
    for (uint32_t i = 0; i < 9; i++)
        CHECK_EQ_U64(state.workers[i]->first_count, 4);
    CHECK_EQ_U64(state_worker(&state, 10)->shard_count, 0);

    // More copies than workers: as many as there are. The wish is kept.
    CHECK_OK(create_replicated(&state, "seven", 1, 7).status);
    CHECK_EQ_U64(state_collection(&state, STR("seven"))->shards[0].replica_count, 7);
    struct command none = {.kind = COMMAND_CREATE_COLLECTION, .name = STR("none"), .dimension = 1};
    const uint64_t searcher = 10;
    none.candidate_ids = &searcher;
    none.candidate_count = 1;
    CHECK_STATUS(apply(&state, &none).status, STATUS_UNAVAILABLE);
    state_deinit(&state);
}

static struct answer set_replicas(struct state *state, uint64_t epoch,
                                  const struct replica_change *replicas, uint32_t count)
{
    return apply(state, &(struct command){.kind = COMMAND_SET_REPLICAS,
                                          .name = STR("docs"),
                                          .shard_id = 1,
                                          .expected_epoch = epoch,
                                          .replicas = replicas,
                                          .replica_count = count});
}

TEST(replicas_change_one_at_a_time)
{
    struct state state;
    struct error error;
    state_init(&state);
    const char *const names[] = {"w1", "w2", "w3", "w4"};
    for (size_t i = 0; i < 4; i++)
        add_placed_worker(&state, names[i], "", "", "");
    add_placed_worker(&state, "w5", "", "", "search-only");
    CHECK_OK(create_replicated(&state, "docs", 1, 2).status);
    const struct shard *shard = &state_collection(&state, STR("docs"))->shards[0];
    CHECK(shard->replica_ids[0] == 1 && shard->replica_ids[1] == 2);

    struct replica_change wanted[] = {{1, REPLICA_VOTER},
                                      {2, REPLICA_VOTER},
                                      {3, REPLICA_VOTER},
                                      {4, REPLICA_VOTER},
                                      {5, REPLICA_VOTER}};
    CHECK_STATUS(set_replicas(&state, 9, wanted, 3).status, STATUS_ABORTED);
    CHECK_STATUS(set_replicas(&state, 1, wanted, 2).status, STATUS_INVALID);     // no change
    CHECK_STATUS(set_replicas(&state, 1, wanted, 4).status, STATUS_INVALID);     // two changes
    CHECK_STATUS(set_replicas(&state, 1, wanted + 1, 2).status, STATUS_INVALID); // 1 to 3
    CHECK_STATUS(set_replicas(&state, 1, wanted, 0).status, STATUS_INVALID);
    CHECK_OK(set_replicas(&state, 1, wanted, 3).status);
    CHECK(shard->epoch == 2 && shard->replica_count == 3);
    CHECK_EQ_U64(state_worker(&state, 3)->shard_count, 1);
    CHECK_OK(set_replicas(&state, 2, wanted + 1, 2).status); // 1 leaves
    CHECK_EQ_U64(state_worker(&state, 1)->shard_count, 0);
    CHECK_EQ_U64(state_worker(&state, 2)->first_count, 1);
    CHECK_OK(with_worker(&state, COMMAND_REMOVE_WORKER, 1).status);
    CHECK_STATUS(set_replicas(&state, 3, wanted, 3).status, STATUS_NOT_FOUND);

    struct answer answer = with_worker(&state, COMMAND_REMOVE_WORKER, 3);
    CHECK_STATUS(answer.status, STATUS_PRECONDITION);
    CHECK_CONTAINS(str_from_cstr(answer.error.text), STR("drain it first"));
    CHECK_OK(with_worker(&state, COMMAND_DRAIN_WORKER, 4).status);
    CHECK_STATUS(set_replicas(&state, 3, wanted + 1, 3).status, STATUS_PRECONDITION);
    struct replica_change searched[] = {
        {2, REPLICA_VOTER}, {3, REPLICA_VOTER}, {5, REPLICA_VOTER}, {5, REPLICA_LEARNER}};
    CHECK_STATUS(set_replicas(&state, 3, searched, 3).status, STATUS_PRECONDITION);
    searched[2].role = REPLICA_LEARNER;
    CHECK_STATUS(set_replicas(&state, 3, searched, 4).status, STATUS_INVALID); // twice
    CHECK_OK(set_replicas(&state, 3, searched, 3).status);
    CHECK_EQ_U64(shard_voter_count(shard), 2);
    searched[1].role = REPLICA_LEARNER;
    CHECK_OK(set_replicas(&state, 4, searched, 3).status);
    searched[0].role = REPLICA_LEARNER;
    CHECK_STATUS(set_replicas(&state, 5, searched, 3).status, STATUS_INVALID); // nobody votes
    CHECK_OK(state_check(&state, &error));
    state_deinit(&state);
}

TEST(bytes_from_before_there_were_replicas)
{
    struct state state;
    struct error error = {{0}};
    struct buf bytes;
    struct worker_profile profile = {.identity = STR("a"), .grpc_address = STR("a:1")};
    state_init(&state);
    buf_init(&bytes, SIZE_MAX);
    buf_append_u32(&bytes, 1); // version
    buf_append_u64(&bytes, 8);
    buf_append_u64(&bytes, 7);
    buf_append_u64(&bytes, 1);
    wire_append_text(&bytes, STR("incarnation"));
    buf_append_u64(&bytes, 5); // the next worker
    buf_append_u32(&bytes, 4); // the next shard
    buf_append_u32(&bytes, 1); // workers
    buf_append_u64(&bytes, 4);
    buf_append_byte(&bytes, WORKER_READY);
    buf_append_u64(&bytes, 100);
    worker_profile_encode(&profile, &bytes);
    buf_append_u32(&bytes, 1); // collections
    wire_append_text(&bytes, STR("docs"));
    buf_append_u32(&bytes, 8);
    buf_append_byte(&bytes, DISTANCE_DOT);
    buf_append_u64(&bytes, 200);
    buf_append_u32(&bytes, 1); // shards
    buf_append_u32(&bytes, 3);
    buf_append_u64(&bytes, 0);
    buf_append_u64(&bytes, UINT64_MAX);
    buf_append_u64(&bytes, 6); // epoch
    buf_append_u64(&bytes, 4); // who leads
    buf_append_u32(&bytes, 1);
    buf_append_u64(&bytes, 4);
    buf_append_u32(&bytes, 0); // entries
    if (!CHECK_OK(state_decode(buf_span(&bytes), &error, &state)))
        printf("%s\n", error.text);
    const struct collection *docs = state_collection(&state, STR("docs"));
    CHECK(docs != NULL && docs->replication_factor == 0);
    if (docs != NULL) {
        const struct shard *shard = collection_shard(docs, 3);
        CHECK(shard != NULL && shard->epoch == 6 && shard_voter_count(shard) == 1);
    }
    CHECK_EQ_U64(state_worker(&state, 4)->first_count, 1);

    // A create of then: one replica.
    struct answer answer;
    buf_clear(&bytes);
    buf_append_byte(&bytes, 1);
    buf_append_byte(&bytes, COMMAND_CREATE_COLLECTION);
    wire_append_text(&bytes, STR("more"));
    buf_append_u32(&bytes, 8);
    buf_append_byte(&bytes, DISTANCE_DOT);
    buf_append_u64(&bytes, 200);
    buf_append_u32(&bytes, 2); // shards
    buf_append_u32(&bytes, 1); // candidates
    buf_append_u64(&bytes, 4);
    CHECK_OK(state_apply(&state, 9, buf_span(&bytes), &answer));
    CHECK_OK(answer.status);
    const struct collection *more = state_collection(&state, STR("more"));
    CHECK(more != NULL && more->shard_count == 2 && more->shards[1].replica_count == 1);
    buf_deinit(&bytes);
    state_deinit(&state);
}

TEST(entries_change_by_version)
{
    struct state state;
    state_init(&state);
    CHECK_OK(put(&state, "k", "one", 0, false).status);
    uint64_t version = state_entry(&state, STR("k"))->version;
    CHECK_STATUS(put(&state, "k", "two", 0, false).status, STATUS_ABORTED);
    CHECK_STATUS(put(&state, "k", "two", version + 1, false).status, STATUS_ABORTED);
    CHECK_OK(put(&state, "k", "three", version, false).status);
    CHECK_STR(state_entry(&state, STR("k"))->value, STR("three"));
    CHECK_EQ_U64(state.entries_size, 6);
    CHECK_STATUS(put(&state, "k", "", version, true).status, STATUS_ABORTED);
    version = state_entry(&state, STR("k"))->version;

    // All or none.
    struct entry_change changes[] = {{STR("new"), STR("x"), 0, false},
                                     {STR("k"), STR(""), version + 1, true}};
    struct command command = {.kind = COMMAND_PUT_ENTRIES, .changes = changes, .change_count = 2};
    CHECK_STATUS(apply(&state, &command).status, STATUS_ABORTED);
    CHECK(state_entry(&state, STR("new")) == NULL);
    changes[1].expected_version = version;
    CHECK_OK(apply(&state, &command).status);
    CHECK(state_entry(&state, STR("k")) == NULL && state_entry(&state, STR("new")) != NULL);
    CHECK_EQ_U64(state.entries_size, 4);
    // A key that comes back has a version that it never had.
    CHECK_OK(put(&state, "k", "back", 0, false).status);
    CHECK(state_entry(&state, STR("k"))->version > version);
    state_deinit(&state);
}

// --- Random commands

static struct str numbered(char *out, size_t size, const char *word, uint64_t number)
{
    int written = snprintf(out, size, "%s%" PRIu64, word, number);
    return (struct str){out, (size_t)written};
}

struct random_command {
    struct command command;
    char texts[4][24];
    uint64_t ids[8];
    struct entry_change changes[3];
    struct replica_change replicas[STATE_REPLICA_COUNT_MAX];
};

static void random_create(struct random_command *random, struct rng *rng)
{
    struct command *command = &random->command;
    command->name = numbered(random->texts[0], 24, "c", rng_below(rng, 30));
    command->dimension = (uint32_t)rng_below(rng, 1000) + 1;
    command->distance = (enum distance)rng_below(rng, DISTANCE_COUNT);
    command->shard_count = (uint32_t)rng_below(rng, 20);
    command->replication_factor = (uint32_t)rng_below(rng, STATE_REPLICATION_FACTOR_MAX + 1);
    command->candidate_ids = random->ids;
    uint64_t id = 0;
    while (command->candidate_count < 8 && rng_below(rng, 5) > 0) {
        id += rng_below(rng, 6) + 1;
        random->ids[command->candidate_count++] = id;
    }
}

static void random_put(struct random_command *random, const struct state *state, struct rng *rng)
{
    random->command.changes = random->changes;
    random->command.change_count = (uint32_t)rng_below(rng, 4);
    for (uint32_t i = 0; i < random->command.change_count; i++) {
        struct entry_change *change = &random->changes[i];
        change->key = numbered(random->texts[i], 24, "k", rng_below(rng, 50));
        change->value = change->key;
        const struct entry *entry = state_entry(state, change->key);
        if (entry != NULL && rng_below(rng, 10) > 0)
            change->expected_version = entry->version;
        change->is_removal = rng_below(rng, 3) == 0;
    }
}

// What there is with one change, or nearly so.
static void random_replicas(struct random_command *random, const struct state *state,
                            struct rng *rng)
{
    struct command *command = &random->command;
    command->name = numbered(random->texts[0], 24, "c", rng_below(rng, 30));
    command->replicas = random->replicas;
    const struct collection *collection = state_collection(state, command->name);
    if (collection == NULL)
        return;
    const struct shard *shard = &collection->shards[rng_below(rng, collection->shard_count)];
    command->shard_id = shard->id;
    command->expected_epoch = shard->epoch + (rng_below(rng, 10) == 0);
    uint64_t skipped = rng_below(rng, 2 * shard->replica_count);
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        enum replica_role role = rng_below(rng, 20) > 0 ? shard->roles[i] : REPLICA_LEARNER;
        if (i != skipped)
            random->replicas[command->replica_count++] =
                (struct replica_change){shard->replica_ids[i], role};
    }
    if (command->replica_count < STATE_REPLICA_COUNT_MAX && rng_below(rng, 2) == 0)
        random->replicas[command->replica_count++] = (struct replica_change){
            rng_below(rng, 12), rng_below(rng, 2) == 0 ? REPLICA_VOTER : REPLICA_LEARNER};
}

static void random_make(struct random_command *random, const struct state *state, struct rng *rng)
{
    *random = (struct random_command){0};
    struct command *command = &random->command;
    command->kind = (enum command_kind)(rng_below(rng, COMMAND_SET_REPLICAS) + 1);
    command->now = rng_below(rng, 1000000);
    command->worker_id = rng_below(rng, 30);
    switch (command->kind) {
    case COMMAND_LEAD:
        command->incarnation = numbered(random->texts[0], 24, "i", rng_u64(rng));
        break;
    case COMMAND_REGISTER_WORKER:
        if (rng_below(rng, 4) > 0)
            command->profile.identity = numbered(random->texts[0], 24, "w", rng_below(rng, 12));
        command->profile.grpc_address = numbered(random->texts[1], 24, "a:", rng_below(rng, 12));
        command->profile.capabilities = rng_below(rng, 4) > 0 ? STR("x,y") : STR("search-only");
        command->profile.memory_bytes = rng_u64(rng);
        break;
    case COMMAND_CREATE_COLLECTION:
        random_create(random, rng);
        break;
    case COMMAND_DELETE_COLLECTION:
        command->name = numbered(random->texts[0], 24, "c", rng_below(rng, 30));
        break;
    case COMMAND_PUT_ENTRIES:
        random_put(random, state, rng);
        break;
    case COMMAND_SET_REPLICAS:
        random_replicas(random, state, rng);
        break;
    case COMMAND_DRAIN_WORKER:
        if (rng_below(rng, 4) > 0)
            command->kind = COMMAND_REMOVE_WORKER;
        break;
    case COMMAND_REMOVE_WORKER:
        break;
    }
}

static void check_equal(const struct state *a, const struct state *b)
{
    struct buf left;
    struct buf right;
    buf_init(&left, SIZE_MAX);
    buf_init(&right, SIZE_MAX);
    state_encode(a, &left);
    state_encode(b, &right);
    CHECK(str_equal(buf_str(&left), buf_str(&right)));
    buf_deinit(&left);
    buf_deinit(&right);
}

static void copy_state(const struct state *from, struct state *to)
{
    struct buf bytes;
    struct error error = {{0}};
    buf_init(&bytes, SIZE_MAX);
    state_encode(from, &bytes);
    state_init(to);
    if (!CHECK_OK(state_decode(buf_span(&bytes), &error, to)))
        printf("%s\n", error.text);
    buf_deinit(&bytes);
}

static void run_random(uint64_t seed)
{
    struct rng rng;
    struct state state;
    struct state follower; // began with a snapshot of some moment, then the same commands
    struct error error;
    rng_init(&rng, seed);
    state_init(&state);
    state_init(&follower);
    uint64_t snapshot_at = rng_below(&rng, 400);
    for (uint64_t i = 0; i < 500; i++) {
        struct random_command random;
        random_make(&random, &state, &rng);
        if (i == snapshot_at) {
            state_deinit(&follower);
            copy_state(&state, &follower);
        }
        struct answer answer = apply(&state, &random.command);
        CHECK(answer.status == STATUS_OK || answer.error.text[0] != '\0');
        if (!CHECK_OK(state_check(&state, &error))) {
            printf("seed %" PRIu64 " step %" PRIu64 ": %s\n", seed, i, error.text);
            break;
        }
        if (i >= snapshot_at)
            CHECK_STATUS(apply(&follower, &random.command).status, answer.status);
    }
    check_equal(&state, &follower);
    state_deinit(&state);
    state_deinit(&follower);
}

TEST(any_commands_keep_the_invariants_and_replay_to_equal_bytes)
{
    for (uint64_t seed = 1; seed <= 60; seed++)
        run_random(seed);
}

TEST(damaged_bytes_are_refused)
{
    struct state state;
    struct error error;
    struct buf bytes;
    state_init(&state);
    buf_init(&bytes, SIZE_MAX);
    add_worker(&state, "a", "a:1");
    CHECK_OK(create(&state, "docs", 3).status);
    CHECK_OK(put(&state, "k", "v", 0, false).status);
    state_encode(&state, &bytes);
    for (size_t cut = 0; cut < bytes.len; cut++) {
        struct state other;
        state_init(&other);
        CHECK_STATUS(state_decode((struct span){bytes.data, cut}, &error, &other), STATUS_CORRUPT);
        state_deinit(&other);
    }
    struct answer answer;
    CHECK_STATUS(state_apply(&state, 99, str_span(STR("\x01\x63")), &answer), STATUS_INVALID);
    CHECK_EQ_U64(state.index, 3);
    buf_deinit(&bytes);
    state_deinit(&state);
}

TEST(names_and_distances)
{
    enum distance distance = DISTANCE_DOT;
    CHECK(distance_parse(STR(""), &distance) && distance == DISTANCE_COSINE);
    CHECK(distance_parse(STR("euclidean"), &distance) && distance == DISTANCE_EUCLIDEAN);
    CHECK(!distance_parse(STR("Cosine"), &distance));
    CHECK_STR(collection_short_name(STR("user/docs")), STR("docs"));
    CHECK_STR(collection_short_name(STR("docs")), STR("docs"));
}

TEST_MAIN()
