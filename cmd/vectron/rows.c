#include "vectron/rows.h"

#include <inttypes.h>
#include <string.h>

#include "api/json.h"
#include "base/mem.h"
#include "vectron/csv.h"
#include "vectron/npy.h"
#include "vectron/rows_csv.h"

enum {
    LINE_SIZE_MAX =
        16 << 20, // of one row's text: a payload of 1 MiB and the largest vector fit well
    COLUMNS_SIZE_MAX = 16 << 20,
};

struct rows {
    enum rows_format format;
    struct str text;
    struct str ids;
    struct rows_position position;
    uint64_t number;
    struct npy npy;
    struct arena *arena; // of the columns
    struct csv_columns columns;
    struct csv_record record;
};

// --- Lines

static struct str text_after(const struct rows *rows)
{
    return (struct str){rows->text.data + rows->position.offset,
                        rows->text.len - rows->position.offset};
}

static void pass(struct rows *rows, size_t size)
{
    struct str passed = {rows->text.data + rows->position.offset, size};
    rows->position.offset += size;
    while (passed.len > 0) {
        (void)str_cut(&passed, '\n');
        rows->position.line++;
    }
}

// The bytes of the first line, its end with them.
static size_t line_size(struct str text)
{
    const char *end = memchr(text.data, '\n', text.len);
    return end == NULL ? text.len : (size_t)(end - text.data) + 1;
}

// Go to the next line that is not empty. False: there is none.
static bool find_line(struct rows *rows, struct str *out_line)
{
    while (rows->position.offset < rows->text.len) {
        struct str rest = text_after(rows);
        *out_line = (struct str){rest.data, line_size(rest)};
        if (str_trim(*out_line).len > 0) {
            rows->number = rows->position.line + 1;
            return true;
        }
        pass(rows, out_line->len);
    }
    return false;
}

static enum status next_json(struct rows *rows, struct arena *arena, struct error *error,
                             Vectron__V1__Point **out_point)
{
    struct str line;
    if (!find_line(rows, &line))
        return STATUS_NOT_FOUND;
    pass(rows, line.len);
    if (line.len > LINE_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "longer than %d bytes", LINE_SIZE_MAX);
    Vectron__V1__Point *point = arena_alloc(arena, sizeof(*point));
    vectron__v1__point__init(point);
    // What takes too much memory is refused like what is malformed.
    if (json_decode_message(str_trim(line), arena, error, &point->base) != STATUS_OK)
        return STATUS_INVALID;
    *out_point = point;
    return STATUS_OK;
}

// --- CSV

// A record of the wrong shape ends with its first line: a quote too many must not swallow the rows
// behind it.
static enum status next_csv(struct rows *rows, struct arena *arena, struct error *error,
                            Vectron__V1__Point **out_point)
{
    struct str line;
    if (!find_line(rows, &line))
        return STATUS_NOT_FOUND;
    struct str text = text_after(rows);
    if (text.len > LINE_SIZE_MAX)
        text.len = LINE_SIZE_MAX;
    enum status status = csv_decode(text, rows->columns.count, arena, error, &rows->record);
    if (status != STATUS_OK || rows->record.cell_count != rows->columns.count) {
        pass(rows, line.len);
        return status != STATUS_OK
                   ? status
                   : csv_columns_point(&rows->columns, &rows->record, arena, error, out_point);
    }
    pass(rows, rows->record.size);
    return csv_columns_point(&rows->columns, &rows->record, arena, error, out_point) == STATUS_OK
               ? STATUS_OK
               : STATUS_INVALID;
}

static enum status open_csv(struct rows *rows, struct error *error)
{
    struct str line;
    if (!find_line(rows, &line))
        return error_set(error, STATUS_INVALID, "the file is empty; its first line names columns");
    size_t count_max = 1;
    for (size_t i = 0; i < line.len; i++)
        count_max += line.data[i] == ',' ? 1 : 0;
    rows->arena = arena_create(COLUMNS_SIZE_MAX);
    rows->record.cells = arena_try_alloc(rows->arena, count_max * sizeof(struct str));
    if (rows->record.cells == NULL)
        return error_set(error, STATUS_INVALID, "too many columns");
    enum status status = csv_decode(line, count_max, rows->arena, error, &rows->record);
    if (status == STATUS_OK)
        status = csv_columns_decode(&rows->record, rows->arena, error, &rows->columns);
    if (status != STATUS_OK)
        return error_prefix(error, status, "line %" PRIu64, rows->number);
    pass(rows, line.len);
    return STATUS_OK;
}

// --- Matrices

static enum status next_npy(struct rows *rows, struct arena *arena, struct error *error,
                            Vectron__V1__Point **out_point)
{
    uint64_t row = rows->position.offset;
    if (row >= rows->npy.row_count)
        return STATUS_NOT_FOUND;
    rows->number = row;
    rows->position.offset++;
    rows->position.line++;
    Vectron__V1__Point *point = arena_alloc(arena, sizeof(*point));
    vectron__v1__point__init(point);
    if (rows->ids.len == 0) {
        point->id = arena_cstr(arena, arena_format(arena, "%" PRIu64, row));
    } else {
        struct str rest = {rows->ids.data + rows->position.ids_offset,
                           rows->ids.len - rows->position.ids_offset};
        struct str id = str_cut(&rest, '\n');
        rows->position.ids_offset = rows->ids.len - rest.len;
        if (id.len > 0 && id.data[id.len - 1] == '\r')
            id.len--;
        if (!str_is_utf8(id) || memchr(id.data, '\0', id.len) != NULL)
            return error_set(error, STATUS_INVALID, "id: not UTF-8 text");
        point->id = arena_cstr(arena, id);
    }
    point->n_vector = rows->npy.column_count;
    point->vector = arena_try_alloc(arena, rows->npy.column_count * sizeof(float));
    if (point->vector == NULL)
        return error_set(error, STATUS_INVALID, "vector: too large");
    npy_row(&rows->npy, row, point->vector);
    *out_point = point;
    return STATUS_OK;
}

enum status rows_check_ids(const struct rows *rows, struct error *error)
{
    if (rows->format != ROWS_NPY || rows->ids.len == 0)
        return STATUS_OK;
    struct str rest = rows->ids;
    uint64_t count = 0;
    for (; rest.len > 0; count++)
        (void)str_cut(&rest, '\n');
    if (count != rows->npy.row_count)
        return error_set(error, STATUS_INVALID, "%" PRIu64 " ids for %" PRIu64 " rows", count,
                         rows->npy.row_count);
    return STATUS_OK;
}

// --- All

enum status rows_format_of(struct str name, struct str path, struct error *error,
                           enum rows_format *out_format)
{
    static const struct {
        const char *name;
        const char *ending;
        enum rows_format format;
    } known[] = {
        {"jsonl", ".jsonl", ROWS_JSON_LINES},
        {"jsonl", ".ndjson", ROWS_JSON_LINES},
        {"csv", ".csv", ROWS_CSV},
        {"npy", ".npy", ROWS_NPY},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (name.len > 0 ? str_equal_cstr(name, known[i].name)
                         : str_ends_with(path, str_from_cstr(known[i].ending))) {
            *out_format = known[i].format;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_INVALID,
                     "--format is one of jsonl, csv, npy; without it the file's name ends so");
}

enum status rows_open(enum rows_format format, struct span bytes, struct str ids,
                      struct error *error, struct rows **out_rows)
{
    struct rows *rows = mem_alloc(sizeof(*rows));
    *rows = (struct rows){.format = format, .text = span_str(bytes), .ids = ids};
    enum status status = STATUS_OK;
    if (format == ROWS_CSV)
        status = open_csv(rows, error);
    else if (format == ROWS_NPY)
        status = npy_decode_header(bytes, error, &rows->npy);
    if (status != STATUS_OK) {
        rows_close(rows);
        return status;
    }
    *out_rows = rows;
    return STATUS_OK;
}

void rows_close(struct rows *rows)
{
    if (rows == NULL)
        return;
    arena_destroy(rows->arena);
    mem_free(rows);
}

enum status rows_next(struct rows *rows, struct arena *arena, struct error *error,
                      Vectron__V1__Point **out_point)
{
    switch (rows->format) {
    case ROWS_JSON_LINES:
        return next_json(rows, arena, error, out_point);
    case ROWS_CSV:
        return next_csv(rows, arena, error, out_point);
    case ROWS_NPY:
    default:
        return next_npy(rows, arena, error, out_point);
    }
}

uint64_t rows_number(const struct rows *rows)
{
    return rows->number;
}

struct rows_position rows_position(const struct rows *rows)
{
    return rows->position;
}

enum status rows_seek(struct rows *rows, struct rows_position position, struct error *error)
{
    uint64_t end = rows->format == ROWS_NPY ? rows->npy.row_count : rows->text.len;
    if (position.offset < rows->position.offset || position.offset > end ||
        position.ids_offset > rows->ids.len)
        return error_set(error, STATUS_INVALID, "the file has no place %" PRIu64, position.offset);
    rows->position = position;
    return STATUS_OK;
}

uint32_t rows_dimension(const struct rows *rows)
{
    return rows->format == ROWS_NPY ? rows->npy.column_count : (uint32_t)rows->columns.value_count;
}

uint64_t rows_count_estimate(const struct rows *rows)
{
    if (rows->format == ROWS_NPY)
        return rows->npy.row_count;
    struct str rest = rows->text;
    uint64_t count = 0;
    for (; rest.len > 0; count++)
        (void)str_cut(&rest, '\n');
    return count;
}
