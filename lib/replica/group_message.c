#include <string.h>

#include "base/mem.h"
#include "replica/group_internal.h"

// The library's messages as ours and back. What comes in is not trusted: a message that the library
// could not have made is dropped before it sees it, because its own checks are compiled out.

#define KIND(name) VECTRON__REPLICA__V1__PEER_MESSAGE_KIND__PEER_MESSAGE_##name

static bool is_held(const struct group *group)
{
    return group->hold_batch != 0;
}

// --- Out

struct outgoing {
    PEER(PeerMessage) message;
    PEER(PeerEntry) * entries;
    PEER(PeerEntry) * *pointers;
    struct buf data;
};

// Entries from the log, until the message is large enough. False: one cannot be read.
static bool fill_entries(struct group *group, const struct raft_append_entries *append,
                         struct outgoing *out)
{
    size_t *offsets = mem_alloc((append->n_entries + 1) * sizeof(*offsets));
    uint32_t count = 0;
    bool is_fine = true;
    out->entries = mem_alloc((append->n_entries + 1) * sizeof(*out->entries));
    out->pointers = mem_alloc((append->n_entries + 1) * sizeof(void *));
    while (count < append->n_entries && out->data.len < GROUP_MESSAGE_SIZE_MAX) {
        uint64_t index = append->prev_log_index + 1 + count;
        uint8_t kind;
        uint32_t size;
        PEER(PeerEntry) *entry = &out->entries[count];
        vectron__replica__v1__peer_entry__init(entry);
        offsets[count] = out->data.len;
        is_fine = wal_entry_info(group->log, index, &entry->term, &kind, &size) &&
                  wal_read(group->log, index, &out->data, NULL) == STATUS_OK;
        if (!is_fine)
            break;
        entry->kind = kind;
        entry->data.len = out->data.len - offsets[count];
        out->pointers[count] = entry;
        count++;
    }
    for (uint32_t i = 0; i < count; i++)
        out->entries[i].data.data = out->data.data + offsets[i]; // it has stopped growing
    out->message.entries = out->pointers;
    out->message.n_entries = count;
    mem_free(offsets);
    return is_fine;
}

static bool fill_message(struct group *group, const struct raft_message *from, struct outgoing *out)
{
    PEER(PeerMessage) *to = &out->message;
    struct wal_state state;
    to->group_id = group->options.group_id;
    switch (from->type) {
    case RAFT_APPEND_ENTRIES:
        to->kind = KIND(APPEND);
        to->term = from->append_entries.term;
        to->log_index = from->append_entries.prev_log_index;
        to->log_term = from->append_entries.prev_log_term;
        to->commit_index = from->append_entries.leader_commit;
        return fill_entries(group, &from->append_entries, out);
    case RAFT_APPEND_ENTRIES_RESULT:
        to->kind = KIND(APPEND_RESULT);
        to->term = from->append_entries_result.term;
        to->rejected_index = from->append_entries_result.rejected;
        to->log_index = from->append_entries_result.last_log_index;
        return true;
    case RAFT_REQUEST_VOTE:
        to->kind = KIND(VOTE);
        to->term = from->request_vote.term;
        to->log_index = from->request_vote.last_log_index;
        to->log_term = from->request_vote.last_log_term;
        to->disrupts_leader = from->request_vote.disrupt_leader;
        to->is_pre_vote = from->request_vote.pre_vote;
        return true;
    case RAFT_REQUEST_VOTE_RESULT:
        to->kind = KIND(VOTE_RESULT);
        to->term = from->request_vote_result.term;
        to->is_granted = from->request_vote_result.vote_granted;
        to->is_pre_vote = from->request_vote_result.pre_vote;
        // The library echoes the candidate's term. One with the longest log and an old term would
        // ask in vain for ever: it must learn the term, as from a vote.
        if (to->is_pre_vote && !to->is_granted && to->term < raft_current_term(&group->raft))
            to->term = raft_current_term(&group->raft);
        return true;
    case RAFT_INSTALL_SNAPSHOT:
        // The members as of the snapshot, which the log's record has; not those of today.
        wal_state(group->log, &state);
        to->kind = KIND(SNAPSHOT);
        to->term = from->install_snapshot.term;
        to->log_index = from->install_snapshot.last_index;
        to->log_term = from->install_snapshot.last_term;
        buf_append(&out->data, state.configuration.data, state.configuration.len);
        to->configuration.data = out->data.data;
        to->configuration.len = out->data.len;
        to->configuration_index = state.configuration_index;
        return state.snapshot_index == to->log_index;
    case RAFT_TIMEOUT_NOW:
        to->kind = KIND(TIMEOUT_NOW);
        to->term = from->timeout_now.term;
        to->log_index = from->timeout_now.last_log_index;
        to->log_term = from->timeout_now.last_log_term;
        return true;
    default:
        return false;
    }
}

void group_send(struct group *group, const struct raft_message *message)
{
    struct outgoing out = {.message = PEER_INIT(PEER_MESSAGE)};
    buf_init(&out.data, SIZE_MAX);
    if (fill_message(group, message, &out))
        group->options.host->send(message->server_id, &out.message, is_held(group),
                                  group->options.context);
    buf_deinit(&out.data);
    mem_free(out.entries);
    mem_free(out.pointers);
}

void group_send_read(struct group *group, uint64_t to, PEER(PeerMessageKind) kind, uint64_t term,
                     uint64_t read_id)
{
    PEER(PeerMessage) message = PEER_INIT(PEER_MESSAGE);
    message.group_id = group->options.group_id;
    message.kind = kind;
    message.term = term;
    message.read_id = read_id;
    group->options.host->send(to, &message, is_held(group), group->options.context);
}

// --- In

static bool is_entry_kind(uint32_t kind)
{
    return kind == RAFT_COMMAND || kind == RAFT_BARRIER || kind == RAFT_CHANGE;
}

static bool is_append_valid(const PEER(PeerMessage) * message)
{
    uint64_t term = message->log_term;
    if ((message->log_index == 0) != (message->log_term == 0))
        return false;
    for (size_t i = 0; i < message->n_entries; i++) {
        const PEER(PeerEntry) *entry = message->entries[i];
        struct span bytes = {entry->data.data, entry->data.len};
        struct raft_configuration configuration;
        if (!is_entry_kind(entry->kind) || entry->term < term || entry->term == 0 ||
            entry->term > message->term)
            return false;
        if (entry->kind == RAFT_CHANGE) {
            if (group_decode_members(bytes, &configuration) != 0)
                return false;
            raft_configuration_close(&configuration);
        }
        term = entry->term;
    }
    return true;
}

static int receive(struct group *group, uint64_t now_ms, struct raft_message *message)
{
    struct raft_event event = {.time = now_ms, .type = RAFT_RECEIVE};
    event.receive.message = message;
    return group_step(group, &event);
}

// Entries [first, first + count) of the message as a message of their own.
static int receive_entries(struct group *group, uint64_t now_ms, struct raft_message *raft,
                           const PEER(PeerMessage) * message, size_t first, size_t count)
{
    struct raft_append_entries *append = &raft->append_entries;
    size_t size = 0;
    append->prev_log_index = message->log_index + first;
    append->prev_log_term = first == 0 ? message->log_term : message->entries[first - 1]->term;
    append->n_entries = (unsigned)count;
    append->entries = NULL;
    if (count == 0)
        return receive(group, now_ms, raft);
    for (size_t i = 0; i < count; i++)
        size += message->entries[first + i]->data.len;
    struct raft_entry *entries = raft_calloc(count, sizeof(*entries));
    uint8_t *batch = raft_malloc(size + 1); // the library's from here on
    if (entries == NULL || batch == NULL) {
        raft_free(entries);
        raft_free(batch);
        return 0; // as if it had been lost on its way
    }
    uint8_t *end = batch;
    for (size_t i = 0; i < count; i++) {
        const PEER(PeerEntry) *entry = message->entries[first + i];
        entries[i].term = entry->term;
        entries[i].type = (enum raft_entry_type)entry->kind;
        entries[i].buf = (struct raft_buffer){end, entry->data.len};
        entries[i].batch = batch;
        if (entry->data.len > 0)
            memcpy(end, entry->data.data, entry->data.len);
        end += entry->data.len;
    }
    append->entries = entries;
    int result = receive(group, now_ms, raft);
    raft_free(entries);
    return result;
}

// The library takes the first entry's index for that of a change of members anywhere in the
// message, so each change is made the first of a message.
static int receive_append(struct group *group, uint64_t now_ms, struct raft_message *raft,
                          const PEER(PeerMessage) * message)
{
    size_t first = 0;
    int result = 0;
    do {
        size_t end = first + 1;
        while (end < message->n_entries && message->entries[end]->kind != RAFT_CHANGE)
            end++;
        size_t count = message->n_entries == 0 ? 0 : end - first;
        result = receive_entries(group, now_ms, raft, message, first, count);
        first = end;
    } while (result == 0 && first < message->n_entries);
    return result;
}

static int receive_snapshot(struct group *group, uint64_t now_ms, struct raft_message *raft,
                            const PEER(PeerMessage) * message)
{
    struct span bytes = {message->configuration.data, message->configuration.len};
    struct raft_install_snapshot *install = &raft->install_snapshot;
    if (group->is_installing || message->log_index == 0 || message->log_term == 0 ||
        group_decode_members(bytes, &install->conf) != 0)
        return 0;
    install->last_index = message->log_index;
    install->last_term = message->log_term;
    install->conf_index = message->configuration_index;
    install->data.base = raft_malloc(1); // the bytes take another way
    install->data.len = 1;
    return receive(group, now_ms, raft);
}

void group_receive_raft(struct group *group, uint64_t now_ms, uint64_t from,
                        const PEER(PeerMessage) * message)
{
    char address[32];
    struct raft_message raft = {.server_id = from, .server_address = address};
    int result = 0;
    snprintf(address, sizeof(address), "%llu", (unsigned long long)from);
    // Nobody else leads in a term in which this member does; the library takes it for granted.
    if ((message->kind == KIND(APPEND) || message->kind == KIND(SNAPSHOT)) && group->is_leader &&
        message->term == raft_current_term(&group->raft))
        return;
    switch (message->kind) {
    case KIND(APPEND):
        raft.type = RAFT_APPEND_ENTRIES;
        raft.append_entries.term = message->term;
        raft.append_entries.leader_commit = message->commit_index;
        if (is_append_valid(message))
            result = receive_append(group, now_ms, &raft, message);
        break;
    case KIND(APPEND_RESULT):
        raft.type = RAFT_APPEND_ENTRIES_RESULT;
        raft.append_entries_result.term = message->term;
        raft.append_entries_result.rejected = message->rejected_index;
        raft.append_entries_result.last_log_index = message->log_index;
        result = receive(group, now_ms, &raft);
        break;
    case KIND(VOTE):
        raft.type = RAFT_REQUEST_VOTE;
        raft.request_vote.version = 2;
        raft.request_vote.term = message->term;
        raft.request_vote.candidate_id = from;
        raft.request_vote.last_log_index = message->log_index;
        raft.request_vote.last_log_term = message->log_term;
        raft.request_vote.disrupt_leader = message->disrupts_leader;
        raft.request_vote.pre_vote = message->is_pre_vote;
        result = receive(group, now_ms, &raft);
        break;
    case KIND(VOTE_RESULT):
        raft.type = RAFT_REQUEST_VOTE_RESULT;
        raft.request_vote_result.version = 2;
        raft.request_vote_result.term = message->term;
        raft.request_vote_result.vote_granted = message->is_granted;
        raft.request_vote_result.pre_vote = message->is_pre_vote;
        result = receive(group, now_ms, &raft);
        break;
    case KIND(SNAPSHOT):
        raft.type = RAFT_INSTALL_SNAPSHOT;
        raft.install_snapshot.term = message->term;
        result = receive_snapshot(group, now_ms, &raft, message);
        break;
    case KIND(TIMEOUT_NOW):
        raft.type = RAFT_TIMEOUT_NOW;
        raft.timeout_now.term = message->term;
        raft.timeout_now.last_log_index = message->log_index;
        raft.timeout_now.last_log_term = message->log_term;
        result = receive(group, now_ms, &raft);
        break;
    default:
        break; // of a newer program
    }
    if (result != 0)
        group_fail(group, "its log contradicts what the leader has committed");
}
