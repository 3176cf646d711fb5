#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"
#include "placementdriver/state.h"

// A change to the state, as it stands in the replicated log. Texts are borrowed: from whoever made
// the command, or from the bytes it was decoded from.

// The numbers are stored; never change them.
enum command_kind {
    COMMAND_LEAD = 1,
    COMMAND_REGISTER_WORKER = 2,
    COMMAND_DRAIN_WORKER = 3,
    COMMAND_REMOVE_WORKER = 4,
    COMMAND_CREATE_COLLECTION = 5,
    COMMAND_DELETE_COLLECTION = 6,
    COMMAND_PUT_ENTRIES = 7,
    COMMAND_SET_REPLICAS = 8,
};

struct replica_change {
    uint64_t worker_id;
    enum replica_role role;
};

struct entry_change {
    struct str key;
    struct str value;
    uint64_t expected_version; // 0: there must be no such entry
    bool is_removal;
};

struct command {
    enum command_kind kind;
    struct str incarnation;        // lead: taken when the state has none yet
    struct worker_profile profile; // register
    uint64_t now;                  // register, create: Unix seconds
    uint64_t worker_id;            // drain, remove
    struct str name;               // create, delete, replicas
    uint32_t dimension;            // create, as all below up to the blank line
    enum distance distance;
    uint32_t shard_count;          // 0: one per candidate, 8 at most
    uint32_t replication_factor;   // voters of a shard; 0: one, and whoever leads may want more
    const uint64_t *candidate_ids; // workers that were healthy when the command was made, ascending
    uint32_t candidate_count;

    const struct entry_change *changes; // put
    uint32_t change_count;

    uint32_t shard_id;       // replicas: all that the shard is to have
    uint64_t expected_epoch; // ABORTED when it has another one
    const struct replica_change *replicas;
    uint32_t replica_count;
};

void command_encode(const struct command *command, struct buf *out);
// INVALID: no command that this program knows. Arrays lie in the arena.
enum status command_decode(struct span bytes, struct arena *arena, struct error *error,
                           struct command *out_command);
