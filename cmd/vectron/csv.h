#pragma once

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

// Comma-separated values as RFC 4180 has them, one record at a time: cells in double quotes may
// hold commas, line ends and doubled quotes; LF, CRLF or the end of the text ends a record. One
// thread.

struct csv_record {
    struct str *cells; // the caller's
    size_t cell_count;
    size_t size; // bytes of the text that the record takes, its line end with them
};

// The record at the front of the text, which is not empty. Cells that hold no doubled quotes are
// views of the text, the others lie in the arena. INVALID: more than cell_count_max cells, a quote
// that is not closed within the text, or something behind a closed one.
enum status csv_decode(struct str text, size_t cell_count_max, struct arena *arena,
                       struct error *error, struct csv_record *record);
