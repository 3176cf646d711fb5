#pragma once

#include "base/error.h"
#include "placementdriver/command.h"
#include "placementdriver/state.h"

// Which worker gets which shard. Pure: the answer depends on the state and the command alone.
//
// A shard's first replica, which leads at first, goes to the candidate with the fewest first
// replicas; each further one to another zone if there is one, then to another rack, then to the
// candidate with the fewest replicas, those just placed included; of equals to the one with the
// lowest id. Workers that only search get none. The ranges are equal parts of all hashes.

// The shards of a new collection; ids are left to the caller, who frees them with mem_free.
// UNAVAILABLE: no candidate may take shards. EXHAUSTED: too many collections or shards.
enum status placement_choose(const struct state *state, const struct command *command,
                             struct error *error, struct shard **out_shards,
                             uint32_t *out_shard_count);
