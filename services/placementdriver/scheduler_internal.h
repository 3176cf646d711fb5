#pragma once

#include "placementdriver/scheduler.h"

// What the parts of the scheduler share: scheduler.c decides, scheduler_plan.c counts, and
// scheduler_explain.c says it in words.

#define NO_WORKER  UINT32_MAX
#define NO_REPLICA UINT32_MAX

struct worker_plan {
    const struct view_worker *worker;
    uint32_t zone; // a number for each
    uint32_t rack; // different in different zones
    uint32_t replica_count;
    uint32_t planned_count; // when what is superfluous has gone
    uint32_t lead_count;    // when the transfers under way are done
    uint32_t incoming_count;
};

struct plan {
    const struct scheduler_view *view;
    const struct scheduler_options *options;
    struct arena *arena;
    struct worker_plan *workers; // as in the view
    uint32_t zone_count;
    uint32_t rack_count;
    uint32_t least_count; // of the replicas of a worker that may take a voter
    // How much two loads must differ before anything is moved from one to the other.
    uint32_t voter_gap;
    uint32_t learner_gap;
    uint32_t lead_gap;
    bool *is_busy; // by shard: changing already, or it got a step
    uint32_t changing_count;
    uint32_t transfer_count;
    struct step_list list;
};

// A shard with its workers; bit i of a set is replica i.
struct shard_look {
    const struct view_shard *view;
    const struct shard *shard;
    uint32_t index;
    uint32_t workers[STATE_REPLICA_COUNT_MAX]; // their places in the plan
    uint32_t voters;
    uint32_t learners;
    uint32_t alive;
    uint32_t lost;
    uint32_t leaving;  // on a worker that is to hold no replica of this role
    uint32_t members;  // the wanted voters that vote already
    uint32_t leader;   // a place; NO_REPLICA: unknown, or no replica that is wanted
    bool has_majority; // of live voters, among those that there are
    bool is_settled;   // the group is what is wanted
    // A removal is wanted that would leave no live majority now: somebody fell silent meanwhile.
    bool is_blocked;
    bool is_learning; // a learner does not run yet
};

struct plan plan_create(const struct scheduler_view *view, const struct scheduler_options *options,
                        struct arena *arena);
uint32_t plan_find_worker(const struct plan *plan, uint64_t worker_id); // NO_WORKER
struct shard_look plan_look(const struct plan *plan, uint32_t shard_index);

uint32_t set_count(uint32_t set);
bool set_has(uint32_t set, uint32_t place);

// How close voters are to each other: pairs in one zone, then pairs in one rack.
struct closeness {
    uint32_t zone_pairs;
    uint32_t rack_pairs;
};
// Of these replicas, with one worker more (or NO_WORKER).
struct closeness plan_closeness(const struct plan *plan, const struct shard_look *look,
                                uint32_t voters, uint32_t further_worker);
struct closeness plan_least_closeness(const struct plan *plan, uint32_t voter_count);
int closeness_compare(struct closeness a, struct closeness b);

// The voter that is superfluous first, when there are too many; NO_REPLICA: none that may go.
uint32_t plan_superfluous(const struct plan *plan, const struct shard_look *look,
                          uint32_t candidates);
// A worker for one more voter beside `voters`; is_any: or that may come to be one,
// limits not looked at. NO_WORKER.
uint32_t plan_candidate(const struct plan *plan, const struct shard_look *look, uint32_t voters,
                        bool is_any);
