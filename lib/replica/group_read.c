#include "base/mem.h"
#include "replica/group_internal.h"

// Linearizable reads without writing to the log and without trusting clocks (ReadIndex, section 6.4
// of the dissertation): remember how far the log is committed, ask the others whether this term is
// still theirs, and when a majority says so wait until that much is applied. Reads that come while
// the others are being asked wait for the next question, because they may have begun after it.

#define KIND(name) VECTRON__REPLICA__V1__PEER_MESSAGE_KIND__PEER_MESSAGE_##name

static void finish_all(struct group *group, struct pending_read **list, enum status status)
{
    struct pending_read *read = *list;
    *list = NULL;
    while (read != NULL) {
        struct pending_read *next = read->next;
        group->options.host->read_done(read->read, status, group->options.context);
        mem_free(read);
        read = next;
    }
}

void group_reads_fail(struct group *group)
{
    finish_all(group, &group->reads_asked, STATUS_NOT_LEADER);
    finish_all(group, &group->reads_confirming, STATUS_NOT_LEADER);
    finish_all(group, &group->reads_applying, STATUS_NOT_LEADER);
}

void group_reads_applied(struct group *group)
{
    struct pending_read *ready = NULL;
    struct pending_read **link = &group->reads_applying;
    while (*link != NULL) {
        struct pending_read *read = *link;
        if (read->index > group->applied_index) {
            link = &read->next;
            continue;
        }
        *link = read->next;
        read->next = ready;
        ready = read;
    }
    finish_all(group, &ready, STATUS_OK);
}

static void ask_voters(struct group *group)
{
    const struct raft_configuration *members = &group->raft.configuration;
    for (unsigned i = 0; i < members->n; i++) {
        if (members->servers[i].role == RAFT_VOTER &&
            members->servers[i].id != group->options.node_id)
            group_send_read(group, members->servers[i].id, KIND(READ),
                            raft_current_term(&group->raft), group->read_id);
    }
}

// Own answer included, when this member has a vote.
static bool is_confirmed(const struct group *group)
{
    uint32_t acks =
        group->read_ack_count + (group_has_voter(group, group->options.node_id) ? 1 : 0);
    return acks > group_voter_count(group) / 2;
}

static void confirm(struct group *group)
{
    struct pending_read **last = &group->reads_applying;
    while (*last != NULL)
        last = &(*last)->next;
    *last = group->reads_confirming;
    group->reads_confirming = NULL;
    for (struct pending_read *it = *last; it != NULL; it = it->next)
        it->index = group->read_index;
    group_reads_applied(group);
}

void group_reads_start(struct group *group)
{
    // Before the first entry of an own term is committed nobody knows what former terms committed.
    while (group->reads_confirming == NULL && group->reads_asked != NULL && group->is_leader &&
           raft_commit_index(&group->raft) >= group->lead_index) {
        group->reads_confirming = group->reads_asked;
        group->reads_asked = NULL;
        group->read_id++;
        group->read_ack_count = 0;
        group->read_index = raft_commit_index(&group->raft);
        ask_voters(group);
        if (is_confirmed(group))
            confirm(group);
    }
}

void group_reads_repeat(struct group *group)
{
    if (group->is_leader && group->reads_confirming != NULL)
        ask_voters(group);
}

void group_receive_read(struct group *group, uint64_t from, const PEER(PeerMessage) * message)
{
    bool is_same_term = message->term == raft_current_term(&group->raft);
    if (message->kind == KIND(READ)) {
        if (is_same_term && !group->is_leader)
            group_send_read(group, from, KIND(READ_RESULT), message->term, message->read_id);
        return;
    }
    if (!is_same_term || !group->is_leader || group->reads_confirming == NULL ||
        message->read_id != group->read_id || !group_has_voter(group, from))
        return;
    for (uint32_t i = 0; i < group->read_ack_count; i++) {
        if (group->read_acks[i] == from)
            return;
    }
    if (group->read_ack_count < GROUP_MEMBERS_MAX)
        group->read_acks[group->read_ack_count++] = from;
    if (is_confirmed(group))
        confirm(group);
}

void group_read(struct group *group, uint64_t now_ms, void *read)
{
    (void)now_ms;
    if (group->has_failed || !group->is_leader) {
        group->options.host->read_done(read, STATUS_NOT_LEADER, group->options.context);
        return;
    }
    struct pending_read *pending = mem_alloc(sizeof(*pending));
    *pending = (struct pending_read){.next = group->reads_asked, .read = read};
    group->reads_asked = pending;
    group_reads_start(group);
}
