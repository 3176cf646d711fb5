#pragma once

#include "base/error.h"
#include "placementdriver/command.h"
#include "placementdriver/state.h"

// Which worker gets which shard. Pure: the answer depends on the state and the command alone.
//
// Each shard goes to the candidate with the fewest shards, those just placed included; of equals to
// the one with the lowest id. The ranges are equal parts of all hashes.

// The shards of a new collection; ids are left to the caller, who frees them with mem_free.
// UNAVAILABLE: no candidate may take shards. EXHAUSTED: too many collections or shards.
enum status placement_choose(const struct state *state, const struct command *command,
                             struct error *error, struct shard **out_shards,
                             uint32_t *out_shard_count);
