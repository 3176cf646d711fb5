#include "placementdriver/command.h"

#include "placementdriver/wire.h"

// Version 1 had no number of replicas in its create; it is still read.
enum { COMMAND_VERSION_OF_ONE_REPLICA = 1, COMMAND_VERSION = 2 };

static void encode_create(const struct command *command, struct buf *out)
{
    wire_append_text(out, command->name);
    buf_append_u32(out, command->dimension);
    buf_append_byte(out, (uint8_t)command->distance);
    buf_append_u64(out, command->now);
    buf_append_u32(out, command->shard_count);
    buf_append_u32(out, command->replication_factor);
    buf_append_u32(out, command->candidate_count);
    for (uint32_t i = 0; i < command->candidate_count; i++)
        buf_append_u64(out, command->candidate_ids[i]);
}

static void encode_changes(const struct command *command, struct buf *out)
{
    buf_append_u32(out, command->change_count);
    for (uint32_t i = 0; i < command->change_count; i++) {
        const struct entry_change *change = &command->changes[i];
        wire_append_text(out, change->key);
        wire_append_text(out, change->value);
        buf_append_u64(out, change->expected_version);
        buf_append_byte(out, change->is_removal);
    }
}

static void encode_replicas(const struct command *command, struct buf *out)
{
    wire_append_text(out, command->name);
    buf_append_u32(out, command->shard_id);
    buf_append_u64(out, command->expected_epoch);
    buf_append_u32(out, command->replica_count);
    for (uint32_t i = 0; i < command->replica_count; i++) {
        buf_append_u64(out, command->replicas[i].worker_id);
        buf_append_byte(out, (uint8_t)command->replicas[i].role);
    }
}

void command_encode(const struct command *command, struct buf *out)
{
    buf_append_byte(out, COMMAND_VERSION);
    buf_append_byte(out, (uint8_t)command->kind);
    switch (command->kind) {
    case COMMAND_LEAD:
        wire_append_text(out, command->incarnation);
        break;
    case COMMAND_REGISTER_WORKER:
        worker_profile_encode(&command->profile, out);
        buf_append_u64(out, command->now);
        break;
    case COMMAND_DRAIN_WORKER:
    case COMMAND_REMOVE_WORKER:
        buf_append_u64(out, command->worker_id);
        break;
    case COMMAND_CREATE_COLLECTION:
        encode_create(command, out);
        break;
    case COMMAND_DELETE_COLLECTION:
        wire_append_text(out, command->name);
        break;
    case COMMAND_PUT_ENTRIES:
        encode_changes(command, out);
        break;
    case COMMAND_SET_REPLICAS:
        encode_replicas(command, out);
        break;
    }
}

// --- From bytes

static bool decode_create(struct wire_reader *reader, uint8_t version, struct arena *arena,
                          struct command *command)
{
    command->name = wire_read_text(reader);
    command->dimension = wire_read_u32(reader);
    uint8_t distance = wire_read_byte(reader);
    command->now = wire_read_u64(reader);
    command->shard_count = wire_read_u32(reader);
    if (version > COMMAND_VERSION_OF_ONE_REPLICA)
        command->replication_factor = wire_read_u32(reader);
    command->candidate_count = wire_read_count(reader, sizeof(uint64_t));
    if (distance >= DISTANCE_COUNT || command->shard_count > STATE_SHARDS_PER_COLLECTION_MAX ||
        command->replication_factor > STATE_REPLICATION_FACTOR_MAX)
        return false;
    command->distance = (enum distance)distance;
    uint64_t *ids = arena_try_alloc(arena, (command->candidate_count + 1) * sizeof(*ids));
    if (ids == NULL)
        return false;
    for (uint32_t i = 0; i < command->candidate_count; i++) {
        ids[i] = wire_read_u64(reader);
        if (i > 0 && ids[i] <= ids[i - 1])
            return false;
    }
    command->candidate_ids = ids;
    return true;
}

static bool decode_changes(struct wire_reader *reader, struct arena *arena, struct command *command)
{
    // Two lengths, a version and a flag.
    command->change_count = wire_read_count(reader, 17);
    struct entry_change *changes =
        arena_try_alloc(arena, (command->change_count + 1) * sizeof(*changes));
    if (changes == NULL)
        return false;
    for (uint32_t i = 0; i < command->change_count; i++) {
        changes[i].key = wire_read_text(reader);
        changes[i].value = wire_read_text(reader);
        changes[i].expected_version = wire_read_u64(reader);
        changes[i].is_removal = wire_read_byte(reader) != 0;
    }
    command->changes = changes;
    return true;
}

static bool decode_replicas(struct wire_reader *reader, struct arena *arena,
                            struct command *command)
{
    command->name = wire_read_text(reader);
    command->shard_id = wire_read_u32(reader);
    command->expected_epoch = wire_read_u64(reader);
    command->replica_count = wire_read_count(reader, sizeof(uint64_t) + 1);
    if (command->replica_count > STATE_REPLICA_COUNT_MAX)
        return false;
    struct replica_change *replicas =
        arena_alloc(arena, (command->replica_count + 1) * sizeof(*replicas));
    for (uint32_t i = 0; i < command->replica_count; i++) {
        replicas[i].worker_id = wire_read_u64(reader);
        uint8_t role = wire_read_byte(reader);
        if (role != REPLICA_VOTER && role != REPLICA_LEARNER)
            return false;
        replicas[i].role = (enum replica_role)role;
    }
    command->replicas = replicas;
    return true;
}

static bool decode_body(struct wire_reader *reader, uint8_t version, struct arena *arena,
                        struct command *command)
{
    switch (command->kind) {
    case COMMAND_LEAD:
        command->incarnation = wire_read_text(reader);
        return true;
    case COMMAND_REGISTER_WORKER:
        command->profile = worker_profile_decode(reader);
        command->now = wire_read_u64(reader);
        return true;
    case COMMAND_DRAIN_WORKER:
    case COMMAND_REMOVE_WORKER:
        command->worker_id = wire_read_u64(reader);
        return true;
    case COMMAND_CREATE_COLLECTION:
        return decode_create(reader, version, arena, command);
    case COMMAND_DELETE_COLLECTION:
        command->name = wire_read_text(reader);
        return true;
    case COMMAND_PUT_ENTRIES:
        return decode_changes(reader, arena, command);
    case COMMAND_SET_REPLICAS:
        return decode_replicas(reader, arena, command);
    }
    return false;
}

enum status command_decode(struct span bytes, struct arena *arena, struct error *error,
                           struct command *out_command)
{
    struct wire_reader reader = {bytes, false};
    uint8_t version = wire_read_byte(&reader);
    uint8_t kind = wire_read_byte(&reader);
    if (version < COMMAND_VERSION_OF_ONE_REPLICA || version > COMMAND_VERSION ||
        kind < COMMAND_LEAD || kind > COMMAND_SET_REPLICAS)
        return error_set(error, STATUS_INVALID, "command %u of version %u is not known", kind,
                         version);
    struct command command = {.kind = (enum command_kind)kind};
    bool is_sound = decode_body(&reader, version, arena, &command);
    if (!is_sound || reader.has_failed || reader.rest.len > 0)
        return error_set(error, STATUS_INVALID, "command %u of %zu bytes is malformed", kind,
                         bytes.len);
    *out_command = command;
    return STATUS_OK;
}
