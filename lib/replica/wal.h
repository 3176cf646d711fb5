#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// The one write-ahead log of a process, for all its Raft groups: votes, entries and what is known
// of snapshots, in segment files that are allocated before they are needed. Changes are buffered in
// memory; wal_flush hands them to a writer thread, which makes them durable with one write and one
// fdatasync for all groups. When a write or a sync fails the process stops: what is on disk is then
// unknown.
//
// What a group has put can be read back at once, whether it is on disk yet or not; wal_written says
// what is. Of an entry only its place is kept in memory once it is on disk.
//
// Threads: one, the owner's, calls everything that does not say otherwise. What is borrowed from a
// group is so until the next change of that group. Errors name the file and the byte.

struct wal;
struct wal_group;
struct replica_files;

struct wal_entry {
    uint64_t term;
    uint8_t kind; // the owner's, opaque here
    struct span data;
};

struct wal_options {
    int directory_fd;                  // borrowed, locked by the caller
    const struct replica_files *files; // NULL: the system's
    size_t segment_size;               // 0: 4 MiB
    // Live segments beyond this make the log copy forward what groups that write little still have
    // in old ones; 0: 256 MiB.
    size_t size_max;
    // On the writer's thread after a sync: everything up to this batch is on disk. It must not call
    // the log, except for wal_written.
    void (*written)(uint64_t batch, void *context); // may be NULL
    void *context;
};

// --- Life cycle

// Reads all segments and cuts a tail that was being written when the machine stopped. CORRUPT:
// bytes that were on disk for certain are damaged. EXHAUSTED: no room for the first segment. IO.
enum status wal_open(const struct wal_options *options, struct error *error, struct wal **out_wal);
// Writes what is buffered first. wal may be NULL.
void wal_close(struct wal *wal);

// --- Groups

struct wal_group *wal_find(struct wal *wal, uint64_t group_id); // NULL: none
// A new, empty group, which must not exist yet; durable with the next flush.
struct wal_group *wal_add(struct wal *wal, uint64_t group_id);
// Forgets all of it, and frees group; durable with the next flush.
void wal_remove(struct wal *wal, struct wal_group *group);
// In no particular order. each must not add or remove groups.
void wal_for_each(struct wal *wal,
                  void (*each)(uint64_t group_id, struct wal_group *group, void *context),
                  void *context);

// --- Questions about a group

struct wal_state {
    uint64_t term;
    uint64_t voted_for;
    uint64_t snapshot_index;
    uint64_t snapshot_term;
    struct span configuration; // of the snapshot; borrowed
    uint64_t configuration_index;
    uint64_t first_index;
    uint64_t last_index; // first_index - 1: there are no entries
};

void wal_state(const struct wal_group *group, struct wal_state *out_state);
// False: the entry is not held.
bool wal_entry_info(const struct wal_group *group, uint64_t index, uint64_t *out_term,
                    uint8_t *out_kind, uint32_t *out_size);
// Append an entry's data: from memory while it is buffered, afterwards from the file, whose
// checksum is verified. NOT_FOUND: not held. CORRUPT, IO.
enum status wal_read(struct wal_group *group, uint64_t index, struct buf *out, struct error *error);

// --- Changes, buffered until wal_flush

// An entry's data and a configuration may not be larger, nor larger than fits into half a segment.
#define WAL_DATA_SIZE_MAX ((size_t)3 << 19)

void wal_put_vote(struct wal_group *group, uint64_t term, uint64_t voted_for);
// Entries from first_index on, in place of all that were there; there must be no gap before them
// and none may lie before what is held, nor in the snapshot. Without entries nothing is replaced.
void wal_put_entries(struct wal_group *group, uint64_t first_index, const struct wal_entry *entries,
                     uint32_t count);
// Everything up to index is in a durable snapshot; entries before keep_from may go. If the log has
// no entry `index` of that term, all entries are dropped and the log goes on at index + 1: the
// snapshot was installed.
void wal_put_snapshot(struct wal_group *group, uint64_t index, uint64_t term,
                      struct span configuration, uint64_t configuration_index, uint64_t keep_from);

// Hand what is buffered to the writer. Returns the number of its batch, or, when nothing was
// buffered, that of the newest batch.
uint64_t wal_flush(struct wal *wal);
// Any thread: the newest batch that is on disk.
uint64_t wal_written(const struct wal *wal);

// What an entry takes beside its data.
#define WAL_ENTRY_OVERHEAD ((size_t)48)

// Whether entries of this many bytes, overhead included, are certain to find room on disk, if they
// are put next. False when the disk is full: it says so early, while there still is a reserve for
// votes and for snapshots, which free space. Asked again, the log tries to allocate at most once a
// second. May wait while a segment is being allocated.
bool wal_has_room(struct wal *wal, size_t bytes);

struct wal_stats {
    uint64_t size;      // bytes of all segments, allocated ones included
    uint64_t live_size; // bytes of the records in them that are still needed
    uint64_t segment_count;
    uint64_t batch_count;        // written since wal_open
    uint64_t sync_ns;            // spent writing and syncing them
    uint64_t copy_size;          // bytes copied forward since wal_open
    uint64_t copy_failure_count; // old entries that could not be read; their segments stay
};
void wal_stats(const struct wal *wal, struct wal_stats *out_stats);
