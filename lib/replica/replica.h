#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// A replicated state machine: commands go in, are made durable, and are applied in one order, the
// same on every replica. Here a group has one member; its log and snapshots are on this disk only.
// The interface is the one of a larger group, so callers are already written for losing the lead
// and for outcomes that nobody knows.
//
// A command is on disk (fdatasync) before it is applied, and applied before it is acknowledged. All
// commands that wait while the disk is busy share the next write and sync. When the log has grown
// past its size the machine's state is written as a snapshot and the log starts anew. If a sync
// fails the process stops: what is on disk is then unknown, and nothing may be acknowledged.
//
// Threads: the machine is called by the opening thread until replica_open has returned, afterwards
// by the replica's own thread only; what others read of it the machine guards itself.

struct replica;

struct replica_machine {
    // Apply a command. Deterministic: no clock, no chance, nothing but the state and the command.
    // An answer for the proposer is appended to result. What is refused (a name that is taken) is
    // an answer too: a command in the log cannot fail.
    void (*apply)(uint64_t index, struct span command, struct buf *result, void *context);
    // Append the whole state.
    void (*encode)(struct buf *out, void *context);
    // Replace the state, which is still empty. CORRUPT, with a sentence.
    enum status (*decode)(struct span bytes, struct error *error, void *context);
};

// System calls that a test may replace to fail them.
struct replica_files {
    int64_t (*write)(int fd, const void *bytes, size_t size, int64_t offset); // as pwrite
    int (*sync)(int fd);                                                      // as fdatasync
    // Blocks for the first size bytes; 0 or an error number, as posix_fallocate. NULL: that.
    int (*allocate)(int fd, int64_t size);
};

struct replica_options {
    struct str directory; // made when it is missing
    const struct replica_machine *machine;
    void *context;                     // the machine's
    struct str address;                // this node's, for replica_leader_address
    size_t log_size_max;               // a snapshot is made when the log is larger; 0: 4 MiB
    const struct replica_files *files; // NULL: the system's
};

// A command larger than this is refused: an entry must not hold up heartbeats between replicas.
#define REPLICA_COMMAND_SIZE_MAX ((size_t)1 << 20)

// PRECONDITION: another process has the directory. CORRUPT: the bytes on disk are not what was
// written; a tail that was being written when the machine stopped is no corruption, it is cut. IO.
enum status replica_open(const struct replica_options *options, struct error *error,
                         struct replica **out_replica);
// Finishes what was proposed, then closes. Not on a loop. replica may be NULL.
void replica_close(struct replica *replica);

// The end of a proposal, exactly once: on the loop where it was made, never before replica_propose
// has returned; for a thread that is no loop, on the replica's thread. OK: durable and applied,
// result is the machine's answer. UNAVAILABLE: the outcome is unknown, it may still be applied.
// EXHAUSTED (disk full), IO: it was not and will not be applied; result is a sentence. The result
// is borrowed.
typedef void (*replica_done_fn)(enum status status, uint64_t index, struct span result,
                                void *context);

// Any thread; the command is copied. INVALID: larger than REPLICA_COMMAND_SIZE_MAX. EXHAUSTED: too
// much waits for the disk already. NOT_LEADER: propose at replica_leader_address. UNAVAILABLE:
// being closed. When it does not return OK, done is not called and nothing is applied.
enum status replica_propose(struct replica *replica, struct span command, replica_done_fn done,
                            void *context);

// Before a linearizable read: done comes with OK, on the calling loop and never before this has
// returned, when everything that was acknowledged anywhere before the call has been applied here.
// Loop only. NOT_LEADER, UNAVAILABLE: ask the leader.
void replica_read_barrier(struct replica *replica, void (*done)(enum status status, void *context),
                          void *context);

// Any thread.
bool replica_is_leader(const struct replica *replica);
struct str replica_leader_address(const struct replica *replica); // empty: not known

struct replica_stats {
    uint64_t applied_index;
    uint64_t snapshot_index;
    uint64_t log_size;               // bytes
    uint64_t snapshot_failure_count; // tried again after another log_size_max
};
void replica_get_stats(const struct replica *replica, struct replica_stats *out_stats);
