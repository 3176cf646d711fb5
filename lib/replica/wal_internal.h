#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/map.h"
#include "replica/replica.h"
#include "replica/wal.h"
#include "replica/wal_format.h"

// The parts of the log. wal.c is what the owner calls, wal_open.c reads everything at the start,
// wal_group.c holds where a group's entries are, wal_segment.c makes and reads files, wal_writer.c
// is the thread. The owner's thread has all of it, except for struct wal_writer, whose lock says
// what the thread and the owner share, and for the bytes of pieces while the thread writes them.
//
// Segments go in the order in which they were filled, so that whatever ends a record outlives it: a
// log read from any segment on gives the same state as from the one before, once that one holds
// nothing that is needed. Each segment begins with the state of every group.

enum { WAL_NAME_SIZE = 32 };

struct wal_segment {
    struct wal_header header;
    size_t size; // bytes allocated
    size_t used;
    size_t synced;
    int fd; // -1: not open
    uint64_t used_at;
    uint32_t piece_count; // not written yet
    uint64_t pin_count;   // entries and states that are still needed
    uint64_t live_size;   // bytes of the entries among them
    uint64_t dead_batch;  // once this is on disk nothing in it is needed; 0: not known
};

// Bytes for one place in a segment. Only the writer looks at next_queued.
struct wal_piece {
    struct wal_piece *next;
    struct wal_piece *next_queued;
    struct wal_segment *segment;
    size_t offset;
    uint64_t batch;
    struct buf bytes;
};

// Where an entry is.
struct wal_place {
    uint64_t term;
    uint32_t segment; // number; 0: not known, only while the log is being read
    uint32_t offset;
    uint32_t size; // of the data
    uint8_t kind;
};
_Static_assert(sizeof(struct wal_place) == 24, "one per entry");

struct wal_group {
    struct wal *wal;
    uint64_t id;
    uint64_t term;
    uint64_t voted_for;
    uint64_t snapshot_index;
    uint64_t snapshot_term;
    uint64_t configuration_index;
    struct buf configuration;
    uint32_t vote_segment; // where the newest record of it is; 0: there is none
    uint32_t snapshot_segment;
    struct wal_place *places; // from start on, count of them
    size_t start;
    size_t count;
    size_t capacity;
    uint64_t first_index;
};

enum wal_spare {
    WAL_SPARE_WANTED,
    WAL_SPARE_READY,
    WAL_SPARE_FAILED, // the disk is full; there may be one that is smaller than wanted
};

struct wal_writer {
    int directory_fd;
    const struct replica_files *files;
    void (*written_fn)(uint64_t batch, void *context);
    void *context;
    pthread_t thread;
    bool has_thread;
    struct wal_segment *held; // the thread's: a dead one, for the next spare

    pthread_mutex_t lock; // of what follows up to the blank line
    pthread_cond_t wake;
    pthread_cond_t answer;
    struct wal_piece *first;
    struct wal_piece *last;
    struct wal_segment **retired; // dead, oldest first
    size_t retired_count;
    enum wal_spare spare_state;
    struct wal_segment *spare;
    uint64_t spare_number;
    size_t spare_size; // wanted
    struct error spare_error;
    bool is_closing;

    atomic_uint_fast64_t written;
    atomic_uint_fast64_t batch_count;
    atomic_uint_fast64_t sync_ns;
};

struct wal_copy {
    uint64_t group_id;
    uint64_t index; // 0: the group's state
};

struct wal {
    struct wal_writer writer;
    size_t segment_size;
    size_t size_max;
    struct map *groups;
    size_t head_size; // of the state of all groups

    struct wal_segment **segments; // oldest first; the last one is written to
    size_t segment_count;
    uint32_t open_count; // of their files
    uint64_t use_count;
    uint64_t size;
    uint64_t live_size;

    struct wal_piece *first_piece; // all that are not known to be written
    struct wal_piece *last_flushed;
    struct wal_piece *first_open; // not flushed
    struct wal_piece *last_piece;
    uint64_t newest_batch;
    uint64_t reaped_batch; // its pieces, and those before, are gone
    uint64_t spare_failed_ns;

    struct wal_copy *copies; // out of one segment; from copy_at on they are to be made
    uint64_t copy_segment;
    size_t copy_count;
    size_t copy_at;
    uint64_t copy_segment_blocked; // an entry in it cannot be read
    uint64_t copy_size;
    uint64_t copy_failure_count;
};

// --- wal_segment.c: files. The errors name them.

void wal_name(uint64_t number, char out[static WAL_NAME_SIZE]);
// A file of that number with its blocks allocated, on disk with its name. EXHAUSTED: disk full. IO.
enum status wal_segment_create(const struct wal_writer *writer, uint64_t number, size_t size,
                               struct error *error, struct wal_segment **out_segment);
// A dead segment becomes a new, empty one.
enum status wal_segment_recycle(const struct wal_writer *writer, struct wal_segment *segment,
                                uint64_t number, struct error *error);
enum status wal_segment_grow(const struct wal_writer *writer, struct wal_segment *segment,
                             size_t size, struct error *error);
// The whole file into bytes; the segment is returned open, as far as its header is right.
enum status wal_segment_open(int directory_fd, uint64_t number, struct error *error,
                             struct buf *bytes, struct wal_segment **out_segment);
enum status wal_segment_read(int directory_fd, struct wal_segment *segment, size_t offset,
                             uint8_t *out, size_t size, struct error *error);
// Zeros from an offset to the end, synced.
enum status wal_segment_wipe(const struct wal_writer *writer, const struct wal_segment *segment,
                             size_t offset, struct error *error);
enum status wal_segment_remove(const struct wal_writer *writer, const struct wal_segment *segment,
                               struct error *error);
void wal_segment_destroy(struct wal_segment *segment); // the file stays; NULL is fine

// --- wal_writer.c

void wal_writer_init(struct wal_writer *writer, const struct wal_options *options);
void wal_writer_deinit(struct wal_writer *writer); // writes what it has, and ends the thread
enum status wal_writer_start(struct wal_writer *writer, struct error *error);
// The piece and those that follow it are of one batch. True: the bytes of the first one went into
// last_flushed, which has not been written yet.
bool wal_writer_push(struct wal_writer *writer, struct wal_piece *last_flushed,
                     struct wal_piece *first, uint64_t batch);
void wal_writer_want(struct wal_writer *writer, size_t size); // a spare that is at least so large
// Waits while one is being made. Size of the spare, 0: there is none.
size_t wal_writer_spare_size(struct wal_writer *writer, bool *out_has_failed);
// Waits for the spare and takes it; the next one is wanted at once. NULL: it cannot be made.
struct wal_segment *wal_writer_take_spare(struct wal_writer *writer, size_t next_size,
                                          struct error *error);
void wal_writer_retire(struct wal_writer *writer, struct wal_segment *segment);
void wal_stop_process(const char *what, const char *why) __attribute__((noreturn, cold));

// --- wal_group.c: what a group has, in memory only.

struct wal_group *wal_group_create(struct wal *wal, uint64_t id);
void wal_group_destroy(struct wal_group *group);
uint64_t wal_group_last_index(const struct wal_group *group);
// NULL: not held.
struct wal_place *wal_group_place(const struct wal_group *group, uint64_t index);
void wal_group_set(struct wal_group *group, uint64_t index, const struct wal_place *place);
void wal_group_push(struct wal_group *group, const struct wal_place *place);
void wal_group_cut_front(struct wal_group *group, uint64_t first_index);
void wal_group_cut_back(struct wal_group *group, uint64_t last_index);
// Places that are not known, so that the table reaches from first to last at least. False: too far.
bool wal_group_cover(struct wal_group *group, uint64_t first_index, uint64_t last_index);
void wal_group_set_vote(struct wal_group *group, uint64_t term, uint64_t voted_for,
                        uint32_t segment);
void wal_group_set_snapshot(struct wal_group *group, uint64_t index, uint64_t term,
                            const struct wal_snapshot *snapshot, uint32_t segment);
size_t wal_group_state_size(const struct wal_group *group); // of its records

// --- wal.c

struct wal_segment *wal_segment_of(const struct wal *wal, uint32_t number); // NULL: not there
void wal_push_segment(struct wal *wal, struct wal_segment *segment);
size_t wal_segment_size_wanted(const struct wal *wal);

// --- wal_open.c

enum status wal_recover(struct wal *wal, struct error *error);
