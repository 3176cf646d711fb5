#pragma once

#include "base/buf.h"
#include "server/audit.h"

// A line, its end included.
void audit_line_encode(struct buf *out, const struct audit_event *event, const char *previous_hash,
                       char out_hash[static AUDIT_HASH_SIZE + 1]);

// Calls each for every line of the file from its start; what comes after the last end of a line is
// the tail. each says CORRUPT or whatever else ends the reading. IO.
struct audit_lines {
    enum status (*each)(struct str line, uint64_t number, void *context, struct error *error);
    void *context;
    uint64_t tail_offset; // afterwards: where the last whole line ends
    uint64_t size;        // afterwards
};
enum status audit_read_lines(const char *path, struct audit_lines *lines, struct error *error);
