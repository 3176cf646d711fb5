#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/str.h"
#include "placementdriver/command.h"
#include "placementdriver/state.h"

// What has to move: a pure function from a view of the cluster to steps, each of one
// shard. Nothing is remembered between two runs: a replica moves by being added in one run and by
// the old one being found superfluous in a later one. No clock, no chance; one thread.
//
// A shard gets a new step only when its Raft group has come to be what the state wants, so at most
// one change of a shard is under way. In this order, while the limits leave room:
//   a wanted voter that is lost before it became one, and a learner in the wrong place, is dropped
//   lead away: a leader on a worker that is to leave hands its lead over
//   repair: fewer voters than wanted, those on lost workers not counted
//   drain: the same, those on workers that are to leave not counted
//   trim: more voters than wanted, or one that is to leave and cannot be replaced
//   learners: one of each shard on a worker that only searches, if there is one
//   spread: fewer voters in one zone, then in one rack
//   balance of replicas, then of leads
// A removal leaves a majority of live voters, always. Balance moves something only when the two
// loads differ by two at least, so that each move makes the loads more equal and none is undone.

struct view_worker {
    uint64_t id;
    struct str zone;
    struct str rack; // within the zone
    uint64_t silent_seconds;
    bool is_draining;
    bool is_search_only;
    bool is_alive; // heard of within the last seconds
    bool is_lost;  // not alive for so long that it counts as gone
};

struct view_shard {
    struct str collection;
    const struct shard *shard;   // what is wanted
    uint32_t replication_factor; // 1 at least
    uint32_t running;            // bit i: replica i's worker says that it runs the shard
    uint64_t leader_id;          // 0: not known
    uint64_t wanted_leader_id;   // of a transfer under way; 0: none
    const uint64_t *member_ids;  // the voters that there are
    uint32_t member_count;       // 0: not known
};

struct scheduler_view {
    const struct view_worker *workers; // by id
    uint32_t worker_count;
    const struct view_shard *shards;
    uint32_t shard_count;
};

struct scheduler_options {
    uint32_t change_count_max;   // shards whose replicas change at the same time
    uint32_t incoming_count_max; // of these, replicas that one worker receives
    uint32_t lead_count_max;     // transfers at the same time
    uint32_t tolerance_percent;  // of the mean load, that balance leaves alone
    uint32_t lost_seconds;       // for the explanation
};

enum step_kind { STEP_ADD, STEP_REMOVE, STEP_TRANSFER_LEAD };

struct step {
    enum step_kind kind;
    uint32_t shard_index;   // in the view
    uint64_t worker_id;     // that is added, removed, or is to lead
    enum replica_role role; // of the one that is added
    struct str reason;
};

// At most one step a shard; all in the arena.
struct step_list {
    struct step *steps;
    uint32_t count;
    uint32_t changing_count; // shards whose replicas were changing already
};
struct step_list scheduler_run(const struct scheduler_view *view,
                               const struct scheduler_options *options, struct arena *arena);

// The replicas that the shard is to have after a step that adds or removes; how many.
uint32_t step_apply(const struct step *step, const struct shard *shard,
                    struct replica_change out_replicas[static STATE_REPLICA_COUNT_MAX + 1]);
const char *step_kind_text(enum step_kind kind);

// Sentences: how the shard is, and why it moves or does not. Empty: there is no such shard.
struct str scheduler_explain(const struct scheduler_view *view,
                             const struct scheduler_options *options, uint32_t shard_id,
                             struct arena *arena);
