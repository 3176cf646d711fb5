#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "replica/log_format.h"
#include "replica/replica.h"

// The log on disk: the newest file is appended to, older ones exist only between a snapshot and
// their removal. One thread.

struct log {
    int directory_fd; // borrowed
    const struct replica_files *files;
    int fd; // of the newest file
    struct log_header header;
    uint64_t size; // of the newest file; all of it is synced
    uint64_t next_index;
};

// Read every record above snapshot_index, in order and without gaps; cut a torn tail; open the
// newest file for appending, making the first one when there is neither log nor snapshot.
enum status log_open(struct log *log, uint64_t snapshot_index,
                     void (*each)(uint64_t index, struct span command, void *context),
                     void *context, struct error *error);
void log_close(struct log *log);

// Add a record to the batch; its index is next_index plus its position in the batch.
void log_encode(const struct log *log, uint32_t position, struct span command, struct buf *batch);
// Write and sync a batch of count records. EXHAUSTED, IO: it was not written, the log is as before.
// Stops the process when a sync fails.
enum status log_append(struct log *log, struct span batch, uint32_t count, struct error *error);
// After a snapshot of everything before next_index: a new file, and the older ones go.
enum status log_rotate(struct log *log, struct error *error);
