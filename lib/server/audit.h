#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

// The audit log: who did what, to what, from where, with which result. A line of JSON for each
// event, only ever appended; each line holds the hash of the one before and of itself, so that a
// line that was changed, taken out or put in shows (audit_check_file). Whoever can write the whole
// log can write another one: keep the last hash elsewhere.
//
// The log is bounded: a full file (16 MiB) is put aside under the number of its first event, and
// the oldest of more than eight goes. A line that a crash cut is taken away at the next start; a
// log that was changed is put aside then, and a new chain begins. What was written survives the
// process; a power loss may take the last seconds. Any thread, not on a loop.

enum { AUDIT_HASH_SIZE = 64, AUDIT_TEXT_SIZE_MAX = 128, AUDIT_PAGE_MAX = 1000 };

// Texts are cut at AUDIT_TEXT_SIZE_MAX, and what is not plain ASCII is shown as '?'. They must not
// hold a secret.
struct audit_event {
    uint64_t sequence; // from 1; audit_add gives it, as it does the time and the hash
    uint64_t time_unix_ms;
    struct str who;    // user id; empty: nobody known
    struct str what;   // the call
    struct str target; // e.g. a key id
    struct str from;   // the address
    struct str result; // "OK", or the name of the error
    struct str hash;   // lower-case hex
};

struct audit;

// Makes the folder. IO, and INVALID for a path that is too long.
enum status audit_open(struct str folder, struct error *error, struct audit **out_audit);
void audit_close(struct audit *audit); // audit may be NULL

// IO: it is not written.
enum status audit_add(struct audit *audit, const struct audit_event *event, struct error *error);

struct audit_page {
    const struct audit_event *events; // by sequence; in the arena
    uint32_t count;
};

// Up to limit (AUDIT_PAGE_MAX at most) events with greater numbers than after. IO.
enum status audit_read(struct audit *audit, uint64_t after, uint32_t limit, struct arena *arena,
                       struct error *error, struct audit_page *out_page);

// --- Checking

// Where a chain has come to; begin with zeros. The next file of a log goes on from it.
struct audit_chain {
    uint64_t sequence;
    char hash[AUDIT_HASH_SIZE + 1];
    uint64_t count; // of lines
};

// CORRUPT: the error names the line. An unfinished last line is CORRUPT too. IO.
enum status audit_check_file(const char *path, struct audit_chain *chain, struct error *error);

// One line without its end. The texts point into it. CORRUPT: not one of ours, or its own hash is
// another.
enum status audit_line_decode(struct str line, struct error *error, struct audit_event *out_event,
                              struct str *out_previous_hash);
