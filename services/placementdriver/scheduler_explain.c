#include <inttypes.h>

#include "placementdriver/scheduler_internal.h"

// How a shard is and why, as sentences for people.

#define TEXT_SIZE_MAX ((size_t)64 << 10)

static void say_workers(const struct shard_look *look, uint32_t set, struct buf *out)
{
    const char *separator = " ";
    buf_append_cstr(out, set_count(set) == 1 ? "worker" : "workers");
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        if (!set_has(set, i))
            continue;
        buf_append_format(out, "%s%" PRIu64, separator, look->shard->replica_ids[i]);
        separator = ", ";
    }
}

static void say_state(const struct shard_look *look, struct buf *out)
{
    buf_append_format(out, "shard %u of %.*s has %u of %u replicas, on ", look->shard->id,
                      STR_ARG(look->view->collection), set_count(look->voters),
                      look->view->replication_factor);
    say_workers(look, look->voters, out);
    if (look->learners > 0) {
        buf_append_cstr(out, ", and learners on ");
        say_workers(look, look->learners, out);
    }
    if (look->view->leader_id != 0)
        buf_append_format(out, "; worker %" PRIu64 " leads.", look->view->leader_id);
    else
        buf_append_cstr(out, "; no worker says that it leads.");
}

static void say_silent(const struct plan *plan, const struct shard_look *look, struct buf *out)
{
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        const struct view_worker *worker = plan->workers[look->workers[i]].worker;
        if (worker->is_lost)
            buf_append_format(out, " worker %" PRIu64 " is silent for %" PRIu64 " s and is lost.",
                              worker->id, worker->silent_seconds);
        else if (!worker->is_alive)
            buf_append_format(out,
                              " worker %" PRIu64 " is silent for %" PRIu64
                              " s; after %u s its replica is replaced.",
                              worker->id, worker->silent_seconds, plan->options->lost_seconds);
    }
}

static bool is_wanted_voter(const struct shard_look *look, uint64_t worker_id)
{
    for (uint32_t i = 0; i < look->shard->replica_count; i++) {
        if (look->shard->replica_ids[i] == worker_id)
            return set_has(look->voters, i);
    }
    return false;
}

static void say_changes(const struct shard_look *look, struct buf *out)
{
    uint32_t coming = look->voters & ~look->members;
    if (coming > 0 && look->view->member_count > 0) {
        buf_append_cstr(out, " the leader has not made a voter yet of ");
        say_workers(look, coming, out);
        buf_append_byte(out, '.');
    }
    for (uint32_t i = 0; i < look->view->member_count; i++) {
        if (!is_wanted_voter(look, look->view->member_ids[i]))
            buf_append_format(out, " the leader has not removed worker %" PRIu64 " yet.",
                              look->view->member_ids[i]);
    }
    if (look->is_learning)
        buf_append_cstr(out, " a learner does not run yet.");
    if (look->view->wanted_leader_id != 0)
        buf_append_format(out, " the lead is being handed to worker %" PRIu64 ".",
                          look->view->wanted_leader_id);
}

static const struct step *find_step(const struct step_list *list, uint32_t shard_index)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->steps[i].shard_index == shard_index)
            return &list->steps[i];
    }
    return NULL;
}

// Why a settled shard that is not as it should be gets no step.
static void say_obstacle(const struct plan *plan, const struct shard_look *look,
                         const struct step_list *list, struct buf *out)
{
    uint32_t kept = look->voters & ~look->lost & ~look->leaving;
    bool is_short = set_count(kept) < look->view->replication_factor;
    if (!is_short && look->leaving == 0)
        buf_append_cstr(out, " nothing is to be done.");
    else if (is_short && plan_candidate(plan, look, kept, true) == NO_WORKER)
        buf_append_cstr(out, " there is no further worker that may take a replica.");
    else if (list->changing_count >= plan->options->change_count_max)
        buf_append_format(out, " it waits: %u shards are changing, the limit is %u.",
                          list->changing_count, plan->options->change_count_max);
    else if (is_short && plan_candidate(plan, look, kept, false) == NO_WORKER)
        buf_append_format(out,
                          " it waits: the workers that may take a replica are silent or receive "
                          "%u already.",
                          plan->options->incoming_count_max);
    else
        buf_append_cstr(out, " it waits for the changes of other shards.");
    if (look->leaving > 0) {
        buf_append_byte(out, ' ');
        say_workers(look, look->leaving, out);
        buf_append_cstr(out, " is to leave.");
    }
}

static void say_next(const struct plan *plan, const struct shard_look *look,
                     const struct step_list *list, struct buf *out)
{
    const struct step *next = find_step(list, look->index);
    if (next != NULL)
        buf_append_format(out, " next: %s worker %" PRIu64 ", because %.*s.",
                          next->kind == STEP_TRANSFER_LEAD ? "hand the lead to"
                                                           : step_kind_text(next->kind),
                          next->worker_id, STR_ARG(next->reason));
    else if (look->view->leader_id == 0)
        buf_append_cstr(out, " nothing can be changed before there is a leader.");
    else if (look->view->member_count == 0)
        buf_append_cstr(out, " the leader has not said yet who votes.");
    else if (!look->has_majority)
        buf_append_format(out,
                          " fewer than a majority of its %u voters are there: nothing can be "
                          "changed until one of the others is back.",
                          look->view->member_count);
    else if (look->is_settled && look->view->wanted_leader_id == 0)
        say_obstacle(plan, look, list, out);
}

struct str scheduler_explain(const struct scheduler_view *view,
                             const struct scheduler_options *options, uint32_t shard_id,
                             struct arena *arena)
{
    uint32_t index = 0;
    while (index < view->shard_count && view->shards[index].shard->id != shard_id)
        index++;
    if (index == view->shard_count)
        return STR("");
    struct plan plan = plan_create(view, options, arena);
    struct step_list list = scheduler_run(view, options, arena);
    struct shard_look look = plan_look(&plan, index);
    struct buf text;
    buf_init(&text, TEXT_SIZE_MAX);
    say_state(&look, &text);
    say_silent(&plan, &look, &text);
    say_changes(&look, &text);
    say_next(&plan, &look, &list, &text);
    struct str copy = arena_str(arena, buf_str(&text));
    buf_deinit(&text);
    return copy;
}
