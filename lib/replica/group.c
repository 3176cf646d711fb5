#include "replica/group.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "replica/group_internal.h"

// The library's state machine between its events and what it wants done. It keeps only indexes and
// terms; entries are the log's. Its traps, each of which costs data or a process, are listed in
// docs/decisions/0003-raft-library.md.

void group_fail(struct group *group, const char *reason)
{
    if (group->has_failed)
        return;
    group->has_failed = true;
    group->timeout_ms = UINT64_MAX;
    group->options.host->failed(str_from_cstr(reason), group->options.context);
}

// --- Entries on their way to disk

static void runs_truncate(struct group *group, uint64_t from)
{
    while (group->run_count > 0 && group->runs[group->run_count - 1].last_index >= from) {
        struct written_run *run = &group->runs[group->run_count - 1];
        uint64_t before = group->run_count > 1 ? run[-1].last_index : group->persisted_index;
        run->last_index = from - 1;
        if (run->last_index > before)
            break;
        group->run_count--;
    }
    if (group->persisted_index >= from)
        group->persisted_index = from - 1;
}

static void runs_add(struct group *group, uint64_t last_index)
{
    if (group->run_count > 0 && group->runs[group->run_count - 1].batch == UINT64_MAX) {
        group->runs[group->run_count - 1].last_index = last_index;
        return;
    }
    if (group->run_count == group->run_capacity) {
        group->run_capacity = group->run_capacity == 0 ? 4 : 2 * group->run_capacity;
        group->runs = mem_resize(group->runs, group->run_capacity * sizeof(*group->runs));
    }
    group->runs[group->run_count++] = (struct written_run){UINT64_MAX, last_index};
}

// --- Proposals

static struct pending_proposal *proposal_at(struct group *group, uint32_t position)
{
    return &group->proposals[(group->proposal_first + position) & (group->proposal_capacity - 1)];
}

static void proposals_push(struct group *group, uint64_t index, void *proposal)
{
    if (group->proposal_count == group->proposal_capacity) {
        uint32_t capacity = group->proposal_capacity == 0 ? 16 : 2 * group->proposal_capacity;
        struct pending_proposal *grown = mem_alloc(capacity * sizeof(*grown));
        for (uint32_t i = 0; i < group->proposal_count; i++)
            grown[i] = *proposal_at(group, i);
        mem_free(group->proposals);
        group->proposals = grown;
        group->proposal_first = 0;
        group->proposal_capacity = capacity;
    }
    group->proposal_count++;
    *proposal_at(group, group->proposal_count - 1) = (struct pending_proposal){index, proposal};
}

static void *proposals_take(struct group *group, uint64_t index)
{
    if (group->proposal_count == 0 || proposal_at(group, 0)->index != index)
        return NULL;
    void *proposal = proposal_at(group, 0)->proposal;
    group->proposal_first = (group->proposal_first + 1) & (group->proposal_capacity - 1);
    group->proposal_count--;
    return proposal;
}

static void proposals_lose(struct group *group)
{
    while (group->proposal_count > 0) {
        void *proposal = proposals_take(group, proposal_at(group, 0)->index);
        group->options.host->lost(proposal, group->options.context);
    }
}

// --- What the library asks for

static void take_entries(struct group *group, const struct raft_update *update)
{
    struct raft_entry *entries = update->entries.batch;
    uint32_t count = update->entries.n;
    uint64_t first_index = update->entries.index;
    void *batch = entries[0].batch;
    struct wal_entry *records = mem_alloc(count * sizeof(*records));
    for (uint32_t i = 0; i < count; i++)
        records[i] = (struct wal_entry){
            .term = entries[i].term,
            .kind = (uint8_t)entries[i].type,
            .data = {entries[i].buf.base, entries[i].buf.len},
        };
    runs_truncate(group, first_index);
    wal_put_entries(group->log, first_index, records, count);
    runs_add(group, first_index + count - 1);
    mem_free(records);
    raft_free(batch);
}

static void take_snapshot(struct group *group, const struct raft_update *update)
{
    raft_free(update->snapshot.chunk.base);
    group->install = update->snapshot.metadata;
    group->is_installing = true;
    group->install_batch = 0;
    group->run_count = 0;
    group->options.host->install(group->raft.follower_state.current_leader.id, group->install.index,
                                 group->install.term, group->options.context);
}

static void tell_lead(struct group *group)
{
    bool is_leading = group->is_leader && group->applied_index >= group->lead_index;
    if (is_leading == group->is_leading)
        return;
    group->is_leading = is_leading;
    group->options.host->lead_changed(is_leading, raft_current_term(&group->raft),
                                      group->options.context);
}

static void take_state(struct group *group)
{
    bool is_leader = raft_state(&group->raft) == RAFT_LEADER;
    if (is_leader && !group->is_leader)
        group->lead_index = raft_last_index(&group->raft);
    bool has_lost = group->is_leader && !is_leader;
    group->is_leader = is_leader;
    if (!has_lost)
        return;
    group->transfer_to = 0;
    group_reads_fail(group);
    proposals_lose(group);
    tell_lead(group);
}

static void update_timeout(struct group *group)
{
    // Who leads nobody else has nobody to hear from.
    if (group->has_failed || (group->is_leader && group_is_alone(group))) {
        group->timeout_ms = UINT64_MAX;
        return;
    }
    uint64_t timeout_ms = raft_timeout(&group->raft);
    group->timeout_ms = timeout_ms > group->first_tick_ms ? timeout_ms : group->first_tick_ms;
}

int group_step(struct group *group, struct raft_event *event)
{
    struct raft_update update = {0};
    int result = raft_step(&group->raft, event, &update);
    if (result != 0)
        return result;
    if ((update.flags & (RAFT_UPDATE_CURRENT_TERM)) != 0 ||
        (update.flags & (RAFT_UPDATE_VOTED_FOR)) != 0) {
        wal_put_vote(group->log, raft_current_term(&group->raft), raft_voted_for(&group->raft));
        group->hold_batch = UINT64_MAX;
    }
    if ((update.flags & (RAFT_UPDATE_ENTRIES)) != 0)
        take_entries(group, &update);
    if ((update.flags & (RAFT_UPDATE_SNAPSHOT)) != 0)
        take_snapshot(group, &update);
    if ((update.flags & (RAFT_UPDATE_MESSAGES)) != 0) {
        for (uint32_t i = 0; i < update.messages.n; i++)
            group_send(group, &update.messages.batch[i]);
    }
    if ((update.flags & (RAFT_UPDATE_STATE)) != 0)
        take_state(group);
    update_timeout(group);
    return 0;
}

// --- Applying

static bool apply_configuration(struct group *group, uint64_t index, const struct buf *data)
{
    struct raft_event event = {.time = group->raft.now, .type = RAFT_CONFIGURATION};
    event.configuration.index = index;
    if (group_decode_members(buf_span(data), &event.configuration.conf) != 0)
        return false;
    return group_step(group, &event) == 0;
}

static bool apply_one(struct group *group, uint64_t index, struct buf *data, struct error *error)
{
    uint64_t term;
    uint32_t size;
    uint8_t kind = 0;
    buf_clear(data);
    if (!wal_entry_info(group->log, index, &term, &kind, &size) ||
        (kind != RAFT_BARRIER && wal_read(group->log, index, data, error) != STATUS_OK))
        return false;
    group->applied_index = index;
    if (kind == RAFT_CHANGE && !apply_configuration(group, index, data))
        return false;
    if (kind == RAFT_COMMAND)
        group->options.host->apply(index, buf_span(data), proposals_take(group, index),
                                   group->options.context);
    return true;
}

// Never ahead of this disk: a state that was saved must not know more than the log does.
static void apply_committed(struct group *group)
{
    if (group->is_applying || group->is_installing)
        return;
    group->is_applying = true;
    struct buf data;
    buf_init(&data, SIZE_MAX);
    uint64_t until = raft_commit_index(&group->raft);
    if (until > group->persisted_index)
        until = group->persisted_index;
    while (group->applied_index < until && !group->has_failed) {
        struct error error = {{0}};
        if (!apply_one(group, group->applied_index + 1, &data, &error))
            group_fail(group,
                       error.text[0] != '\0' ? error.text : "a committed entry is not in the log");
    }
    buf_deinit(&data);
    group->is_applying = false;
    group_reads_applied(group);
    tell_lead(group);
}

// After any event: what it made possible.
static void settle(struct group *group, uint64_t now_ms)
{
    if (group->has_failed)
        return;
    apply_committed(group);
    group_continue_transfer(group, now_ms);
    group_reads_start(group);
    update_timeout(group);
}

// --- Start

// The configuration that is the first entry of a new group, equal for all its members.
static enum status encode_first(const struct group_options *options, struct error *error,
                                struct raft_buffer *out)
{
    struct raft_configuration configuration;
    raft_configuration_init(&configuration);
    int result = 0;
    for (uint32_t i = 0; i < options->member_count && result == 0; i++) {
        char address[256] = {0};
        struct str text = options->members[i].address;
        ASSERT(text.len < sizeof(address));
        memcpy(address, text.data, text.len);
        result = raft_configuration_add(&configuration, options->members[i].id, address,
                                        options->members[i].role == GROUP_VOTER ? RAFT_VOTER
                                                                                : RAFT_STANDBY);
    }
    if (result == 0)
        result = raft_configuration_encode(&configuration, out);
    raft_configuration_close(&configuration);
    if (result != 0)
        return error_set(error, STATUS_INVALID, "the members: %s", raft_strerror(result));
    return STATUS_OK;
}

static enum status bootstrap(struct group *group, struct error *error)
{
    struct raft_buffer first;
    TRY(encode_first(&group->options, error, &first));
    struct wal_entry entry = {1, RAFT_CHANGE, {first.base, first.len}};
    wal_put_vote(group->log, 1, 0);
    wal_put_entries(group->log, 1, &entry, 1);
    raft_free(first.base);
    group->hold_batch = UINT64_MAX;
    return STATUS_OK;
}

// The library wants the terms of all entries, and of configurations what is in them.
static enum status load_entries(struct group *group, uint64_t first_index, uint64_t last_index,
                                struct error *error, struct raft_entry **out_entries)
{
    uint64_t count = last_index + 1 - first_index;
    struct raft_entry *entries = raft_calloc(count + 1, sizeof(*entries));
    if (entries == NULL)
        return error_set(error, STATUS_EXHAUSTED, "no memory for %llu entries",
                         (unsigned long long)count);
    struct buf data;
    buf_init(&data, SIZE_MAX);
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < count && status == STATUS_OK; i++) {
        uint64_t term = 0;
        uint32_t size;
        uint8_t kind = 0;
        if (!wal_entry_info(group->log, first_index + i, &term, &kind, &size))
            status = error_set(error, STATUS_CORRUPT, "the log has no entry %llu",
                               (unsigned long long)(first_index + i));
        entries[i].term = term;
        entries[i].type = (enum raft_entry_type)kind;
        if (status != STATUS_OK || kind != RAFT_CHANGE)
            continue;
        buf_clear(&data);
        status = wal_read(group->log, first_index + i, &data, error);
        entries[i].buf.base = raft_malloc(data.len + 1);
        entries[i].buf.len = data.len;
        if (data.len > 0)
            memcpy(entries[i].buf.base, data.data, data.len);
        struct raft_configuration configuration;
        if (status == STATUS_OK && group_decode_members(buf_span(&data), &configuration) != 0)
            status = error_set(error, STATUS_CORRUPT, "entry %llu is no list of members",
                               (unsigned long long)(first_index + i));
        else if (status == STATUS_OK)
            raft_configuration_close(&configuration);
    }
    buf_deinit(&data);
    *out_entries = entries;
    return status;
}

static void free_entries(struct raft_entry *entries, uint64_t count)
{
    for (uint64_t i = 0; entries != NULL && i < count; i++)
        raft_free(entries[i].buf.base);
    raft_free(entries);
}

static enum status start(struct group *group, struct error *error)
{
    struct wal_state state;
    struct raft_snapshot_metadata metadata = {0};
    struct raft_event event = {.time = group->options.now_ms, .type = RAFT_START};
    wal_state(group->log, &state);
    event.start.term = state.term;
    event.start.voted_for = state.voted_for;
    event.start.start_index = 1;
    if (state.snapshot_index > 0) {
        metadata.index = state.snapshot_index;
        metadata.term = state.snapshot_term;
        metadata.configuration_index = state.configuration_index;
        if (group_decode_members(state.configuration, &metadata.configuration) != 0)
            return error_set(error, STATUS_CORRUPT, "the members in the snapshot's record");
        event.start.metadata = &metadata;
        event.start.start_index = state.snapshot_index + 1;
    }
    uint64_t last_index =
        state.last_index > state.snapshot_index ? state.last_index : state.snapshot_index;
    uint64_t count = last_index + 1 - event.start.start_index;
    enum status status =
        load_entries(group, event.start.start_index, last_index, error, &event.start.entries);
    if (status == STATUS_OK) {
        event.start.n_entries = (unsigned)count;
        group->applied_index = group->options.applied_index > state.snapshot_index
                                   ? group->options.applied_index
                                   : state.snapshot_index;
        group->persisted_index = last_index;
        if (group_step(group, &event) != 0)
            status = error_set(error, STATUS_CORRUPT, "the log's entries make no group");
    }
    free_entries(event.start.entries, count);
    return status;
}

enum status group_create(const struct group_options *options, struct error *error,
                         struct group **out_group)
{
    struct group *group = mem_alloc(sizeof(*group));
    char address[32];
    group->options = *options;
    group->timeout_ms = UINT64_MAX;
    snprintf(address, sizeof(address), "%llu", (unsigned long long)options->node_id);
    if (raft_init(&group->raft, NULL, NULL, options->node_id, address) != 0) {
        mem_free(group);
        return error_set(error, STATUS_EXHAUSTED, "no memory for a group");
    }
    raft_seed(&group->raft, options->seed);
    raft_set_election_timeout(&group->raft, options->election_ms);
    raft_set_heartbeat_timeout(&group->raft, options->heartbeat_ms);
    raft_set_pre_vote(&group->raft, true);
    raft_set_install_snapshot_timeout(&group->raft, 3600 * 1000);
    raft_set_max_inflight_entries(&group->raft, GROUP_INFLIGHT_ENTRIES);
    group->log = wal_find(options->wal, options->group_id);
    bool is_new = group->log == NULL;
    if (is_new)
        group->log = wal_add(options->wal, options->group_id);
    enum status status = is_new && options->member_count > 0 ? bootstrap(group, error) : STATUS_OK;
    if (status == STATUS_OK)
        status = start(group, error);
    group->options.members = NULL; // borrowed until now
    group->options.member_count = 0;
    if (status != STATUS_OK) {
        group_destroy(group);
        return status;
    }
    settle(group, options->now_ms);
    *out_group = group;
    return STATUS_OK;
}

void group_destroy(struct group *group)
{
    if (group == NULL)
        return;
    group_reads_fail(group);
    proposals_lose(group);
    if (group->is_installing)
        raft_configuration_close(&group->install.configuration);
    raft_close(&group->raft, NULL);
    mem_free(group->proposals);
    mem_free(group->runs);
    mem_free(group);
}

// --- Events

uint64_t group_timeout_ms(const struct group *group)
{
    return group->timeout_ms;
}

void group_tick(struct group *group, uint64_t now_ms)
{
    struct raft_event event = {.time = now_ms, .type = RAFT_TIMEOUT};
    if (group->has_failed || now_ms < group->timeout_ms)
        return;
    group->first_tick_ms = now_ms + GROUP_TICK_MS_MIN;
    if (group_step(group, &event) != 0) {
        group_fail(group, "the clock could not be advanced");
        return;
    }
    group_reads_repeat(group);
    settle(group, now_ms);
}

void group_receive(struct group *group, uint64_t now_ms, uint64_t from,
                   const PEER(PeerMessage) * message)
{
    if (group->has_failed)
        return;
    if (message->kind == VECTRON__REPLICA__V1__PEER_MESSAGE_KIND__PEER_MESSAGE_READ ||
        message->kind == VECTRON__REPLICA__V1__PEER_MESSAGE_KIND__PEER_MESSAGE_READ_RESULT)
        group_receive_read(group, from, message);
    else
        group_receive_raft(group, now_ms, from, message);
    settle(group, now_ms);
}

void group_flushed(struct group *group, uint64_t batch)
{
    if (group->run_count > 0 && group->runs[group->run_count - 1].batch == UINT64_MAX)
        group->runs[group->run_count - 1].batch = batch;
    if (group->hold_batch == UINT64_MAX)
        group->hold_batch = batch;
    if (group->install_batch == UINT64_MAX)
        group->install_batch = batch;
}

static void finish_install(struct group *group, uint64_t now_ms)
{
    struct raft_event event = {.time = now_ms, .type = RAFT_PERSISTED_SNAPSHOT};
    event.persisted_snapshot.metadata = group->install;
    event.persisted_snapshot.last = true;
    group->is_installing = false;
    group->install_batch = 0;
    group->persisted_index = group->install.index;
    if (group->applied_index < group->install.index)
        group->applied_index = group->install.index;
    if (group_step(group, &event) != 0)
        group_fail(group, "a snapshot could not be taken over");
}

void group_written(struct group *group, uint64_t now_ms, uint64_t batch)
{
    if (group->has_failed)
        return;
    if (group->hold_batch <= batch)
        group->hold_batch = 0;
    if (group->install_batch > 0 && group->install_batch <= batch)
        finish_install(group, now_ms);
    uint64_t persisted_index = group->persisted_index;
    uint32_t done = 0;
    while (done < group->run_count && group->runs[done].batch <= batch)
        persisted_index = group->runs[done++].last_index;
    if (done > 0) {
        group->run_count -= done;
        memmove(group->runs, group->runs + done, group->run_count * sizeof(*group->runs));
    }
    if (persisted_index > group->persisted_index && !group->is_installing) {
        struct raft_event event = {.time = now_ms, .type = RAFT_PERSISTED_ENTRIES};
        group->persisted_index = persisted_index;
        event.persisted_entries.index = persisted_index;
        if (group_step(group, &event) != 0)
            group_fail(group, "written entries could not be counted");
    }
    settle(group, now_ms);
}

// --- Proposals

enum status group_propose(struct group *group, uint64_t now_ms, const struct span *commands,
                          void *const *proposals, uint32_t count)
{
    size_t size = 0;
    if (group->has_failed || !group->is_leader)
        return STATUS_NOT_LEADER;
    if (group->transfer_to != 0)
        return STATUS_UNAVAILABLE;
    for (uint32_t i = 0; i < count; i++)
        size += commands[i].len;
    struct raft_entry *entries = raft_calloc(count, sizeof(*entries));
    uint8_t *batch = raft_malloc(size + 1);
    if (entries == NULL || batch == NULL) {
        raft_free(entries);
        raft_free(batch);
        return STATUS_EXHAUSTED;
    }
    uint8_t *end = batch;
    for (uint32_t i = 0; i < count; i++) {
        entries[i].term = raft_current_term(&group->raft);
        entries[i].type = RAFT_COMMAND;
        entries[i].buf = (struct raft_buffer){end, commands[i].len};
        entries[i].batch = batch;
        if (commands[i].len > 0)
            memcpy(end, commands[i].data, commands[i].len);
        end += commands[i].len;
    }
    uint64_t first_index = raft_last_index(&group->raft) + 1;
    struct raft_event event = {.time = now_ms, .type = RAFT_SUBMIT};
    event.submit.entries = entries;
    event.submit.n = count;
    for (uint32_t i = 0; i < count; i++)
        proposals_push(group, first_index + i, proposals[i]);
    int result = group_step(group, &event);
    if (result != 0) {
        raft_free(batch);
        group->proposal_count -= count;
    }
    raft_free(entries);
    settle(group, now_ms);
    return result == 0 ? STATUS_OK : STATUS_NOT_LEADER;
}

// --- Snapshots

static void put_snapshot(struct group *group, uint64_t index, uint64_t term,
                         const struct raft_configuration *configuration,
                         uint64_t configuration_index, uint64_t keep_from)
{
    struct raft_buffer bytes;
    if (raft_configuration_encode(configuration, &bytes) != 0) {
        group_fail(group, "no memory for the members");
        return;
    }
    wal_put_snapshot(group->log, index, term, (struct span){bytes.base, bytes.len},
                     configuration_index, keep_from);
    raft_free(bytes.base);
}

void group_snapshotted(struct group *group, uint64_t now_ms, uint64_t index, uint32_t trailing)
{
    struct raft_event event = {.time = now_ms, .type = RAFT_SNAPSHOT};
    uint64_t term;
    uint32_t size;
    uint8_t kind;
    struct wal_state state;
    wal_state(group->log, &state);
    if (group->has_failed || group->is_installing || index <= state.snapshot_index ||
        index > group->applied_index || !wal_entry_info(group->log, index, &term, &kind, &size))
        return;
    uint64_t keep_from = index > trailing ? index - trailing + 1 : 1;
    put_snapshot(group, index, term, &group->raft.configuration_committed,
                 group->raft.configuration_committed_index, keep_from);
    struct raft_buffer bytes;
    if (raft_configuration_encode(&group->raft.configuration_committed, &bytes) != 0 ||
        raft_configuration_decode(&bytes, &event.snapshot.metadata.configuration) != 0) {
        group_fail(group, "no memory for the members");
        return;
    }
    raft_free(bytes.base);
    event.snapshot.metadata.index = index;
    event.snapshot.metadata.term = term;
    event.snapshot.metadata.configuration_index = group->raft.configuration_committed_index;
    event.snapshot.trailing = trailing;
    if (group_step(group, &event) != 0)
        group_fail(group, "a snapshot could not be counted");
    settle(group, now_ms);
}

void group_installed(struct group *group, uint64_t now_ms)
{
    ASSERT(group->is_installing);
    put_snapshot(group, group->install.index, group->install.term, &group->install.configuration,
                 group->install.configuration_index, group->install.index + 1);
    group->install_batch = UINT64_MAX;
    settle(group, now_ms);
}

// --- Questions

void group_status(struct group *group, struct group_status *out_status)
{
    struct raft *raft = &group->raft;
    struct wal_state state;
    raft_id leader_id = 0;
    const char *address;
    wal_state(group->log, &state);
    raft_leader(raft, &leader_id, &address);
    *out_status = (struct group_status){
        .term = raft_current_term(raft),
        .leader_id = group->has_failed ? 0 : leader_id,
        .is_leading = group->is_leading && !group->has_failed,
        .is_voter = group_has_voter(group, group->options.node_id),
        .is_installing = group->is_installing,
        .last_index = raft_last_index(raft),
        .commit_index = raft_commit_index(raft),
        .applied_index = group->applied_index,
        .snapshot_index = state.snapshot_index,
    };
}
