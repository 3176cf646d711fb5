#pragma once

#include "api/vectron.pb-c.h"
#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

// Points in a file that somebody else made, row by row. One thread.
//
//   JSON lines   {"id": …, "vector": […], "payload": {…}}, one a line; empty lines are passed over
//   CSV          the first record names the columns: `id`; the vector as one column `vector`
//                ("[0.1, 2]", or with spaces or semicolons between) or as columns 0, 1, … or v0,
//                v1, …; the payload as one column `payload` (a JSON object) or as any other columns
//                (text)
//   .npy         a matrix; ids are lines of a file of their own, else the number of the row
//
// A row that makes no point is refused with a reason and passed over. The file is mapped, so one of
// any size costs the memory of a row.

enum rows_format { ROWS_JSON_LINES, ROWS_CSV, ROWS_NPY };

// From a name (jsonl, csv, npy), or, when that is empty, from how the path ends. INVALID: neither.
enum status rows_format_of(struct str name, struct str path, struct error *error,
                           enum rows_format *out_format);

// Where the next row starts; a value, to be kept and gone back to.
struct rows_position {
    uint64_t offset; // bytes; .npy: rows
    uint64_t line;   // lines or rows before it
    uint64_t ids_offset;
};

struct rows;

// ids: only for .npy; empty: the number of the row. Both are borrowed until rows_close. INVALID:
// what the head of the file says cannot be: no such matrix, columns without an id.
enum status rows_open(enum rows_format format, struct span bytes, struct str ids,
                      struct error *error, struct rows **out_rows);
void rows_close(struct rows *rows); // may be NULL

// The next row as a point in the arena. NOT_FOUND: there are no more. INVALID: this one is refused,
// the error says why; the next call gives the one after it.
enum status rows_next(struct rows *rows, struct arena *arena, struct error *error,
                      Vectron__V1__Point **out_point);
// The line (the first is 1), or the row of a matrix (the first is 0), that rows_next was last at.
uint64_t rows_number(const struct rows *rows);

struct rows_position rows_position(const struct rows *rows);
// INVALID: the file has no such place.
enum status rows_seek(struct rows *rows, struct rows_position position, struct error *error);

// Values of each row's vector, where the head of the file tells; else 0.
uint32_t rows_dimension(const struct rows *rows);
uint64_t rows_count_estimate(const struct rows *rows); // lines or rows, for a progress bar
// All ids are there and none is left over; only a matrix has such. INVALID: the error says which.
enum status rows_check_ids(const struct rows *rows, struct error *error);
