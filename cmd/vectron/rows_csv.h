#pragma once

#include "api/vectron.pb-c.h"
#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "vectron/csv.h"

// What the columns of a CSV file of points mean, and records as points. One thread.

struct csv_columns {
    size_t count;
    struct str *names;  // views of the file
    size_t id;          // the column of the id
    size_t vector;      // of the whole vector; SIZE_MAX: it has a column per value
    size_t payload;     // of the whole payload; SIZE_MAX: other columns are its members
    size_t value_first; // the columns of values, side by side
    size_t value_count;
};

// record: the first of the file; what it names is borrowed, columns' memory is the arena's.
// INVALID: no column `id`, none for the vector, both a payload and members.
enum status csv_columns_decode(const struct csv_record *record, struct arena *arena,
                               struct error *error, struct csv_columns *out_columns);

// INVALID: the error names the column.
enum status csv_columns_point(const struct csv_columns *columns, const struct csv_record *record,
                              struct arena *arena, struct error *error,
                              Vectron__V1__Point **out_point);
