#pragma once

#include "base/error.h"
#include "base/str.h"
#include "vectron/rows.h"

// How far an import has come, kept in a file beside the one that is imported, as lines
// `name=value`. Written after each request that the server has acknowledged: whatever comes
// between, a second run goes on there. One thread.

struct import_state {
    char collection[129];
    uint64_t source_size; // with source_crc what tells whether the file is still the same
    uint64_t source_crc;
    struct rows_position position;
    uint64_t stored;
    uint64_t refused;
    uint64_t report_size; // bytes of the report that belong to it
};

// NOT_FOUND: there is none. INVALID: it is none of ours. IO.
enum status import_state_load(const char *path, struct error *error,
                              struct import_state *out_state);
enum status import_state_save(const char *path, const struct import_state *state,
                              struct error *error);

enum status import_state_decode(struct str text, struct error *error,
                                struct import_state *out_state);
