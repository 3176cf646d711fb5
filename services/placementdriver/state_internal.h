#pragma once

#include "placementdriver/state.h"

// What the parts of the state share.

struct str text_copy(struct str text); // owned; text_free
void text_free(struct str text);

struct worker *state_add_worker(struct state *state, uint64_t id,
                                const struct worker_profile *profile);
void state_set_profile(struct worker *worker, const struct worker_profile *profile);
void state_remove_worker(struct state *state, uint64_t id);
// Takes over shards.
struct collection *state_add_collection(struct state *state, struct str name, struct shard *shards,
                                        uint32_t shard_count);
void state_remove_collection(struct state *state, struct collection *collection);
// Change the number of replicas that the workers of this shard hold.
void state_count_replicas(struct state *state, const struct shard *shard, bool is_new);
void state_put_entry(struct state *state, struct str key, struct str value, uint64_t version);
void state_remove_entry(struct state *state, struct str key);
