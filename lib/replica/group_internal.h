#pragma once

#include <raft.h>

#include "replica/group.h"

// What the parts of a group share: group.c steps the library and follows what it asks for;
// group_message.c turns its messages into ours and back; group_read.c has the linearizable reads;
// group_members.c changes of members and of the lead.

enum {
    GROUP_MEMBERS_MAX = 16,
    GROUP_INFLIGHT_ENTRIES = 256,
    GROUP_TICK_MS_MIN = 10, // between two ticks, whatever the library wants
};
// Entries of one message stop here; what was left out is sent when the member asks for it.
#define GROUP_MESSAGE_SIZE_MAX ((size_t)8 << 20)

// The entries up to last_index were given to the log with this batch.
struct written_run {
    uint64_t batch; // UINT64_MAX: with the next one
    uint64_t last_index;
};

struct pending_proposal {
    uint64_t index;
    void *proposal;
};

struct pending_read {
    struct pending_read *next;
    uint64_t index; // that must be applied
    void *read;
};

struct group {
    struct raft raft;
    struct group_options options;
    struct wal_group *log;
    bool is_leader;  // as the library sees it
    bool is_leading; // as the host was told
    bool has_failed;
    bool is_applying;
    uint64_t timeout_ms;
    uint64_t first_tick_ms; // not before
    uint64_t applied_index;
    uint64_t persisted_index;
    uint64_t lead_index; // the last entry when the lead was won
    uint64_t hold_batch; // a vote is on its way to disk with it; UINT64_MAX: with the next; 0: none

    struct written_run *runs; // oldest first
    uint32_t run_count;
    uint32_t run_capacity;

    struct pending_proposal *proposals; // by index, a ring
    uint32_t proposal_count;
    uint32_t proposal_first;
    uint32_t proposal_capacity; // a power of two

    // The snapshot that is being fetched.
    bool is_installing;
    uint64_t install_batch; // that has its record; UINT64_MAX: the next; 0: not yet
    struct raft_snapshot_metadata install;

    // Reads: those that wait for the next question to the others, those that wait for its answers,
    // and those that wait for entries to be applied.
    struct pending_read *reads_asked;
    struct pending_read *reads_confirming;
    struct pending_read *reads_applying;
    uint64_t read_id;
    uint64_t read_index;
    uint64_t read_acks[GROUP_MEMBERS_MAX];
    uint32_t read_ack_count;

    uint64_t transfer_to; // 0: none
    uint64_t transfer_until_ms;
};

// --- group.c

// Hand an event to the library and do what it asks for. The library's code; the group has failed
// when what it says cannot be.
int group_step(struct group *group, struct raft_event *event);
void group_fail(struct group *group, const char *reason);

// --- group_message.c

void group_send(struct group *group, const struct raft_message *message);
// A message that the library does not make: reads.
void group_send_read(struct group *group, uint64_t to, PEER(PeerMessageKind) kind, uint64_t term,
                     uint64_t read_id);
void group_receive_raft(struct group *group, uint64_t now_ms, uint64_t from,
                        const PEER(PeerMessage) * message);

// --- group_read.c

void group_reads_start(struct group *group);
void group_reads_repeat(struct group *group);
void group_reads_applied(struct group *group);
void group_reads_fail(struct group *group);
void group_receive_read(struct group *group, uint64_t from, const PEER(PeerMessage) * message);

// --- group_members.c

// The library's code. Its own decoder trusts what it is given.
int group_decode_members(struct span bytes, struct raft_configuration *out_members);
uint32_t group_voter_count(const struct group *group);
bool group_is_alone(const struct group *group); // no other member
bool group_has_voter(const struct group *group, uint64_t member_id);
void group_continue_transfer(struct group *group, uint64_t now_ms);
