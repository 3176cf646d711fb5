#include <inttypes.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/mem.h"
#include "placementdriver/state_internal.h"
#include "placementdriver/wire.h"

// The state as bytes: a version, the counters, then workers, collections and entries in their
// order, each list with its count. Equal states give equal bytes.
//
// Version 1 had one replica of each shard, which led; it is still read.

enum { STATE_VERSION_OF_ONE_REPLICA = 1, STATE_VERSION = 2 };

// The least bytes that one thing of each list takes: what a count can promise at most.
enum { WORKER_SIZE_MIN = 69, COLLECTION_SIZE_MIN = 21, SHARD_SIZE_MIN = 41, ENTRY_SIZE_MIN = 16 };

// --- To bytes

static void encode_shard(const struct shard *shard, struct buf *out)
{
    buf_append_u32(out, shard->id);
    buf_append_u64(out, shard->range_start);
    buf_append_u64(out, shard->range_end);
    buf_append_u64(out, shard->epoch);
    buf_append_u32(out, shard->replica_count);
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        buf_append_u64(out, shard->replica_ids[i]);
        buf_append_byte(out, (uint8_t)shard->roles[i]);
    }
}

static void encode_collection(const struct collection *collection, struct buf *out)
{
    wire_append_text(out, collection->name);
    buf_append_u32(out, collection->dimension);
    buf_append_byte(out, (uint8_t)collection->distance);
    buf_append_u64(out, collection->created_at);
    buf_append_u32(out, collection->replication_factor);
    buf_append_u32(out, collection->shard_count);
    for (uint32_t i = 0; i < collection->shard_count; i++)
        encode_shard(&collection->shards[i], out);
}

static void encode_worker(const struct worker *worker, struct buf *out)
{
    buf_append_u64(out, worker->id);
    buf_append_byte(out, (uint8_t)worker->state);
    buf_append_u64(out, worker->registered_at);
    worker_profile_encode(&worker->profile, out);
}

void state_encode(const struct state *state, struct buf *out)
{
    buf_append_u32(out, STATE_VERSION);
    buf_append_u64(out, state->index);
    buf_append_u64(out, state->map_index);
    buf_append_u64(out, state->lead_count);
    wire_append_text(out, state->incarnation);
    buf_append_u64(out, state->next_worker_id);
    buf_append_u32(out, state->next_shard_id);

    buf_append_u32(out, state->worker_count);
    for (uint32_t i = 0; i < state->worker_count; i++)
        encode_worker(state->workers[i], out);

    buf_append_u32(out, (uint32_t)state->collections.count);
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL)
        encode_collection(collection, out);

    buf_append_u32(out, (uint32_t)state->entries.count);
    cursor = table_seek(&state->entries, STR(""));
    const struct entry *entry;
    while ((entry = table_next(&cursor)) != NULL) {
        wire_append_text(out, entry->key);
        wire_append_text(out, entry->value);
        buf_append_u64(out, entry->version);
    }
}

// --- From bytes

static void decode_workers(struct wire_reader *reader, struct state *state)
{
    uint32_t count = wire_read_count(reader, WORKER_SIZE_MIN);
    uint64_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id = wire_read_u64(reader);
        uint8_t worker_state = wire_read_byte(reader);
        uint64_t registered_at = wire_read_u64(reader);
        struct worker_profile profile = worker_profile_decode(reader);
        if (id <= before || worker_state < WORKER_JOINING || worker_state > WORKER_DRAINING)
            reader->has_failed = true;
        if (reader->has_failed)
            return;
        struct worker *worker = state_add_worker(state, id, &profile);
        worker->state = (enum worker_state)worker_state;
        worker->registered_at = registered_at;
        before = id;
    }
}

static void decode_replicas(struct wire_reader *reader, uint32_t version, struct shard *shard)
{
    bool has_roles = version >= STATE_VERSION;
    shard->replica_count = wire_read_count(reader, sizeof(uint64_t) + has_roles);
    if (shard->replica_count == 0 || shard->replica_count > STATE_REPLICA_COUNT_MAX) {
        reader->has_failed = true;
        shard->replica_count = 0;
    }
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        shard->replica_ids[i] = wire_read_u64(reader);
        uint8_t role = has_roles ? wire_read_byte(reader) : REPLICA_VOTER;
        if (role != REPLICA_VOTER && role != REPLICA_LEARNER)
            reader->has_failed = true;
        shard->roles[i] = (enum replica_role)role;
    }
}

static void decode_shard(struct wire_reader *reader, uint32_t version, struct shard *shard)
{
    shard->id = wire_read_u32(reader);
    shard->range_start = wire_read_u64(reader);
    shard->range_end = wire_read_u64(reader);
    shard->epoch = wire_read_u64(reader);
    if (version == STATE_VERSION_OF_ONE_REPLICA)
        (void)wire_read_u64(reader); // who leads, and that is the one
    decode_replicas(reader, version, shard);
}

static void decode_collection(struct wire_reader *reader, uint32_t version, struct state *state)
{
    struct str name = wire_read_text(reader);
    uint32_t dimension = wire_read_u32(reader);
    uint8_t distance = wire_read_byte(reader);
    uint64_t created_at = wire_read_u64(reader);
    uint32_t replication_factor = version >= STATE_VERSION ? wire_read_u32(reader) : 0;
    uint32_t shard_count = wire_read_count(reader, SHARD_SIZE_MIN);
    if (shard_count == 0 || shard_count > STATE_SHARDS_PER_COLLECTION_MAX ||
        distance >= DISTANCE_COUNT || replication_factor > STATE_REPLICATION_FACTOR_MAX ||
        state_collection(state, name) != NULL)
        reader->has_failed = true;
    if (reader->has_failed)
        return;
    struct shard *shards = mem_alloc(shard_count * sizeof(*shards));
    for (uint32_t i = 0; i < shard_count; i++)
        decode_shard(reader, version, &shards[i]);
    struct collection *collection = state_add_collection(state, name, shards, shard_count);
    collection->dimension = dimension;
    collection->distance = (enum distance)distance;
    collection->created_at = created_at;
    collection->replication_factor = replication_factor;
}

static void decode_entries(struct wire_reader *reader, struct state *state)
{
    uint32_t count = wire_read_count(reader, ENTRY_SIZE_MIN);
    for (uint32_t i = 0; i < count; i++) {
        struct str key = wire_read_text(reader);
        struct str value = wire_read_text(reader);
        uint64_t version = wire_read_u64(reader);
        if (state_entry(state, key) != NULL)
            reader->has_failed = true;
        if (reader->has_failed)
            return;
        state_put_entry(state, key, value, version);
    }
}

enum status state_decode(struct span bytes, struct error *error, struct state *state)
{
    struct wire_reader reader = {bytes, false};
    uint32_t version = wire_read_u32(&reader);
    if (version < STATE_VERSION_OF_ONE_REPLICA || version > STATE_VERSION)
        return error_set(error, STATUS_CORRUPT, "state version %u, this program knows up to %d",
                         version, STATE_VERSION);
    state->index = wire_read_u64(&reader);
    state->map_index = wire_read_u64(&reader);
    state->lead_count = wire_read_u64(&reader);
    state->incarnation = text_copy(wire_read_text(&reader));
    state->next_worker_id = wire_read_u64(&reader);
    state->next_shard_id = wire_read_u32(&reader);
    decode_workers(&reader, state);
    uint32_t count = wire_read_count(&reader, COLLECTION_SIZE_MIN);
    for (uint32_t i = 0; i < count && !reader.has_failed; i++)
        decode_collection(&reader, version, state);
    decode_entries(&reader, state);
    if (reader.has_failed || reader.rest.len > 0)
        return error_set(error, STATUS_CORRUPT, "malformed near byte %zu",
                         bytes.len - reader.rest.len);
    return state_check(state, error);
}

// --- Invariants

static enum status check_replicas(const struct state *state, const struct shard *shard,
                                  struct error *error)
{
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        if (state_worker(state, shard->replica_ids[i]) == NULL)
            return error_set(error, STATUS_CORRUPT,
                             "shard %u lies on worker %" PRIu64 ", which is not there", shard->id,
                             shard->replica_ids[i]);
        for (uint32_t j = 0; j < i; j++) {
            if (shard->replica_ids[i] == shard->replica_ids[j])
                return error_set(error, STATUS_CORRUPT, "shard %u lies twice on worker %" PRIu64,
                                 shard->id, shard->replica_ids[i]);
        }
    }
    if (shard_voter_count(shard) == 0)
        return error_set(error, STATUS_CORRUPT, "shard %u has no voter", shard->id);
    return STATUS_OK;
}

static enum status check_collection(const struct state *state, const struct collection *collection,
                                    struct error *error)
{
    uint64_t next = 0;
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        const struct shard *shard = &collection->shards[i];
        bool is_last = i + 1 == collection->shard_count;
        if (shard->range_start != next || shard->range_end < next ||
            is_last != (shard->range_end == UINT64_MAX))
            return error_set(error, STATUS_CORRUPT, "shard %u does not join its neighbours",
                             shard->id);
        next = shard->range_end + 1;
        if (shard->id == 0 || shard->id >= state->next_shard_id)
            return error_set(error, STATUS_CORRUPT, "shard %u was never made", shard->id);
        TRY(check_replicas(state, shard, error));
    }
    return STATUS_OK;
}

static int compare_shard_ids(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static enum status check_shard_ids(const struct state *state, struct error *error)
{
    uint32_t *ids = mem_alloc((state->shard_count + 1) * sizeof(*ids));
    uint32_t count = 0;
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        for (uint32_t i = 0; i < collection->shard_count; i++) {
            ASSERT(count < state->shard_count);
            ids[count++] = collection->shards[i].id;
        }
    }
    if (count > 1)
        qsort(ids, count, sizeof(*ids), compare_shard_ids);
    enum status status = STATUS_OK;
    for (uint32_t i = 1; i < count; i++) {
        if (ids[i] == ids[i - 1])
            status = error_set(error, STATUS_CORRUPT, "shard %u is there twice", ids[i]);
    }
    mem_free(ids);
    return status;
}

enum status state_check(const struct state *state, struct error *error)
{
    uint64_t held = 0;
    for (uint32_t i = 0; i < state->worker_count; i++) {
        const struct worker *worker = state->workers[i];
        if (worker->id >= state->next_worker_id)
            return error_set(error, STATUS_CORRUPT, "worker %" PRIu64 " was never made",
                             worker->id);
        held += worker->shard_count;
    }
    uint64_t placed = 0;
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        enum status status = check_collection(state, collection, error);
        if (status != STATUS_OK)
            return error_prefix(error, status, "collection %.*s", STR_ARG(collection->name));
        for (uint32_t i = 0; i < collection->shard_count; i++)
            placed += collection->shards[i].replica_count;
    }
    if (held != placed)
        return error_set(error, STATUS_CORRUPT,
                         "workers hold %" PRIu64 " replicas, %" PRIu64 " are placed", held, placed);
    return check_shard_ids(state, error);
}
