#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"
#include "net/channel.h"
#include "net/net.h"

// Replicated state machines: commands go in, are made durable on a majority of a group's members,
// and are applied in one order, the same on every member. A node is a process's part in all its
// groups: one log on disk for all of them, one connection to each other node. A group of one member
// is the same without the others.
//
// A command is on the disks of a majority (fdatasync) before it is applied, and applied before it
// is acknowledged. All commands that wait while the disk is busy share the next write and sync. If
// a sync fails the process stops: what is on disk is then unknown, and nothing may be acknowledged.
//
// Threads: machines are called on the net's first loop only, which runs all groups; what others
// read of a machine the machine guards itself. All nodes of a process are on one net: the Raft
// library writes into static buffers.

struct replica_node;
struct replica;
struct rpc_router;

struct replica_machine {
    // Apply a command. Deterministic: no clock, no chance, nothing but the state and the command.
    // An answer for the proposer is appended to result. What is refused (a name that is taken) is
    // an answer too: a command in the log cannot fail.
    void (*apply)(uint64_t index, struct span command, struct buf *result, void *context);
    // Append the whole state.
    void (*encode)(struct buf *out, void *context);
    // Replace the state. CORRUPT, with a sentence; then it is as it was.
    enum status (*decode)(struct span bytes, struct error *error, void *context);
    // This member leads now, and everything that was acknowledged before is applied; or it does not
    // any more. May be NULL.
    void (*lead_changed)(bool is_leading, void *context);
};

// System calls that a test may replace to fail them.
struct replica_files {
    int64_t (*write)(int fd, const void *bytes, size_t size, int64_t offset); // as pwrite
    int (*sync)(int fd);                                                      // as fdatasync
    // Blocks for the first size bytes; 0 or an error number, as posix_fallocate. NULL: that.
    int (*allocate)(int fd, int64_t size);
};

struct replica_node_options {
    struct net *net;
    struct str directory; // made when it is missing
    uint64_t cluster_id;  // messages of other clusters are refused
    uint64_t node_id;     // this node, more than 0
    struct str address;   // where others than members reach it, for replica_leader_address
    struct str internal_token;
    const struct replica_files *files; // NULL: the system's
    uint32_t election_ms;              // 0: 1000; heartbeats come a tenth as often
    // Something worth a log line: a snapshot that could not be written, a group that cannot go on.
    // On the first loop. May be NULL.
    void (*trouble)(uint64_t group_id, struct str text, void *context);
    void *context;
};

// Not on a loop. PRECONDITION: another process has the directory. CORRUPT: the bytes on disk are
// not what was written; a tail that was being written when the machine stopped is no corruption, it
// is cut. IO. EXHAUSTED: the disk is full.
enum status replica_node_open(const struct replica_node_options *options, struct error *error,
                              struct replica_node **out_node);
// Not on a loop, after the server whose router has the node's service, and its replicas, are gone.
// node may be NULL.
void replica_node_close(struct replica_node *node);
// What the members say to each other comes in by this router. The node must outlive it.
void replica_node_serve(struct replica_node *node, struct rpc_router *router);
// Any thread: where a node is reached by the others. INVALID: no address.
enum status replica_node_set_peer(struct replica_node *node, uint64_t node_id, struct str address,
                                  struct error *error);

struct replica_member {
    uint64_t node_id;
    bool is_learner; // gets everything and has no vote
};

struct replica_options {
    struct replica_node *node;
    uint64_t group_id;
    const struct replica_machine *machine;
    void *context; // the machine's
    // Of a new group, the same for each member; ignored when this node knows the group already.
    const struct replica_member *members;
    uint32_t member_count;
    size_t log_size_max; // a snapshot is made after so many bytes of commands; 0: 4 MiB
};

// A command larger than this is refused: an entry must not hold up heartbeats between members.
#define REPLICA_COMMAND_SIZE_MAX ((size_t)1 << 20)

// Not on a loop. The machine has what its last snapshot has when this returns; what the log has
// after it is applied as soon as it is known to be committed. CORRUPT, IO.
enum status replica_open(const struct replica_options *options, struct error *error,
                         struct replica **out_replica);
// Not on a loop. What was proposed and is not applied ends with UNAVAILABLE. replica may be NULL.
void replica_close(struct replica *replica);

// The end of a proposal, exactly once: on the loop where it was made, never before replica_propose
// has returned; for a thread that is no loop, on the first loop. OK: durable and applied, result is
// the machine's answer. UNAVAILABLE: the outcome is unknown, it may still be applied. NOT_LEADER,
// EXHAUSTED (disk full): it was not and will not be applied; result is a sentence. The result is
// borrowed.
typedef void (*replica_done_fn)(enum status status, uint64_t index, struct span result,
                                void *context);

// Any thread; the command is copied. INVALID: larger than REPLICA_COMMAND_SIZE_MAX. EXHAUSTED: too
// much waits already. UNAVAILABLE: being closed. When it does not return OK, done is not called and
// nothing is applied.
enum status replica_propose(struct replica *replica, struct span command, replica_done_fn done,
                            void *context);

// Before a linearizable read: done comes with OK, on the calling loop and never before this has
// returned, when everything that was acknowledged anywhere before the call has been applied here.
// Loop only. NOT_LEADER, UNAVAILABLE: ask the leader.
void replica_read_barrier(struct replica *replica, void (*done)(enum status status, void *context),
                          void *context);

// Any thread.
bool replica_is_leading(const struct replica *replica);
// Hand the lead to another voter once it has everything. Any thread; whether it worked shows.
void replica_transfer(struct replica *replica, uint64_t node_id);
// The address of the member that leads, NUL-terminated. False: not known, or not told yet.
bool replica_leader_address(const struct replica *replica, char *out, size_t size);
// A channel to the member that leads, owned by the node; NULL: not known, or it is this one.
struct channel *replica_leader_channel(const struct replica *replica);

struct replica_stats {
    uint64_t term;
    uint64_t leader_id; // 0: not known
    uint64_t applied_index;
    uint64_t snapshot_index;
    uint64_t log_size;               // bytes of commands since the last snapshot
    uint64_t snapshot_failure_count; // tried again after another log_size_max
};
void replica_get_stats(const struct replica *replica, struct replica_stats *out_stats);
