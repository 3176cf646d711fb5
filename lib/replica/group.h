#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/replica.pb-c.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"
#include "replica/wal.h"

// One member of a Raft group (D. Ongaro, Consensus: Bridging Theory and Practice, 2014):
// cowsql/raft's raft_step with its entries in the log, its messages as protocol messages, and reads
// by ReadIndex (section 6.4). No thread, no clock, no socket, no file but the log's: time is an
// argument and whatever shall happen is asked of the host. That makes it the same code in a process
// and in a simulation.
//
// One thread, the log's owner. After a call that may have changed the log the host flushes it in
// the same turn and calls group_flushed, then group_written when that batch is on disk.

struct group;

#define PEER(name)      Vectron__Replica__V1__##name
#define PEER_INIT(name) VECTRON__REPLICA__V1__##name##__INIT

enum group_role { GROUP_LEARNER, GROUP_VOTER };

struct group_member {
    uint64_t id; // more than 0
    struct str address;
    enum group_role role;
};

// What a group asks of who runs it. None of these may call back into the group, except
// group_installed later on.
struct group_host {
    // Pack it now; it is borrowed. is_held: only after what is in the log now is on disk.
    void (*send)(uint64_t to, const PEER(PeerMessage) * message, bool is_held, void *context);
    // A committed command that is on this disk, in order, each once since the start. proposal is
    // what group_propose was given when it was made here and nobody was told otherwise, or NULL.
    void (*apply)(uint64_t index, struct span command, void *proposal, void *context);
    // A proposal that may or may not be applied some day: the lead was lost.
    void (*lost)(void *proposal, void *context);
    // A read may go on (OK), or this member does not lead any more.
    void (*read_done)(void *read, enum status status, void *context);
    // The lead was won and everything of former leads is applied, or it was lost.
    void (*lead_changed)(bool is_leading, uint64_t term, void *context);
    // Fetch the snapshot from the member, make it the machine's state, durably; then
    // group_installed. The former state does not count any more.
    void (*install)(uint64_t from, uint64_t index, uint64_t term, void *context);
    // What is on this disk and what the others have contradict each other. The group takes no
    // further part.
    void (*failed)(struct str reason, void *context);
};

struct group_options {
    uint64_t group_id;
    uint64_t node_id; // this member
    struct wal *wal;
    const struct group_host *host;
    void *context;
    uint64_t now_ms; // of a monotonic clock
    uint32_t seed;   // of election timeouts: another one for each group and member
    uint32_t election_ms;
    uint32_t heartbeat_ms;
    // The members of a new group, the same for each of them: used when the log has nothing of it.
    // None: wait until a leader of the group calls.
    const struct group_member *members;
    uint32_t member_count;
    uint64_t applied_index; // of the machine's state: nothing up to there is applied again
};

// CORRUPT: the log's entries are none of a group.
enum status group_create(const struct group_options *options, struct error *error,
                         struct group **out_group);
void group_destroy(struct group *group); // its proposals are lost, its reads fail; may be NULL

// When group_tick is due, in the clock of now_ms; UINT64_MAX: never.
uint64_t group_timeout_ms(const struct group *group);
void group_tick(struct group *group, uint64_t now_ms);
// from is who it came from. What makes no sense is dropped.
void group_receive(struct group *group, uint64_t now_ms, uint64_t from,
                   const PEER(PeerMessage) * message);
// The log was flushed as this batch, after the last call.
void group_flushed(struct group *group, uint64_t batch);
// Everything up to this batch is on disk.
void group_written(struct group *group, uint64_t now_ms, uint64_t batch);

// Commands that shall follow each other in the log. proposals[i] comes back with apply or lost.
// NOT_LEADER: nothing was taken.
enum status group_propose(struct group *group, uint64_t now_ms, const struct span *commands,
                          void *const *proposals, uint32_t count);
// A linearizable read: read_done when what was acknowledged anywhere before is applied here.
void group_read(struct group *group, uint64_t now_ms, void *read);
// One member is added as learner, made voter, or removed (role is not looked at when is_removed).
// NOT_LEADER; PRECONDITION: a change is under way, or the member is not what it must be.
enum status group_change(struct group *group, uint64_t now_ms, const struct group_member *member,
                         bool is_removed, struct error *error);
// Hold proposals, wait until the voter has everything, hand it the lead. NOT_LEADER; INVALID: no
// other voter.
enum status group_transfer(struct group *group, uint64_t now_ms, uint64_t to);

// The machine's state up to index (applied) is on disk without the log; a member that has less than
// the last `trailing` entries before it will be sent a snapshot.
void group_snapshotted(struct group *group, uint64_t now_ms, uint64_t index, uint32_t trailing);
// The snapshot that install asked for is the machine's state, durably.
void group_installed(struct group *group, uint64_t now_ms);

struct group_status {
    uint64_t term;
    uint64_t leader_id; // 0: not known
    bool is_leading;    // with everything of former leads applied
    bool is_voter;
    bool is_installing;
    uint64_t last_index;
    uint64_t commit_index;
    uint64_t applied_index;
    uint64_t snapshot_index;
};
void group_status(struct group *group, struct group_status *out_status);
// The members as of the newest configuration; valid until the next call that takes the group.
// Returns their number.
uint32_t group_members(const struct group *group, struct group_member *out_members, uint32_t max);
// How far a member is known to be; 0: this one does not lead, or it is no member.
uint64_t group_match_index(const struct group *group, uint64_t member_id);
