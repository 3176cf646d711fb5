#include "vectron/rows_csv.h"

#include <string.h>

#include "api/json.h"
#include "base/buf.h"
#include "base/limits.h"

// --- Columns

// "7" and "v7" are the column of value 7.
static bool value_number(struct str name, uint64_t *out_number)
{
    if (name.len > 1 && (name.data[0] == 'v' || name.data[0] == 'V'))
        name = (struct str){name.data + 1, name.len - 1};
    return str_to_u64(name, out_number);
}

// Columns of values stand side by side, in order, from 0 or from 1.
static enum status take_value(struct csv_columns *columns, size_t column, uint64_t number,
                              struct error *error)
{
    uint64_t first = 0;
    if (columns->value_count == 0)
        columns->value_first = column;
    else
        (void)value_number(columns->names[columns->value_first], &first);
    bool is_next = columns->value_count == 0
                       ? number <= 1
                       : column == columns->value_first + columns->value_count &&
                             number == first + columns->value_count;
    if (!is_next)
        return error_set(error, STATUS_INVALID,
                         "column %zu, '%.*s': the vector's columns are 0, 1, 2, … side by side",
                         column + 1, STR_ARG(columns->names[column]));
    columns->value_count++;
    return STATUS_OK;
}

enum status csv_columns_decode(const struct csv_record *record, struct arena *arena,
                               struct error *error, struct csv_columns *out_columns)
{
    struct csv_columns columns = {
        .count = record->cell_count,
        .names = arena_try_alloc(arena, record->cell_count * sizeof(struct str)),
        .id = SIZE_MAX,
        .vector = SIZE_MAX,
        .payload = SIZE_MAX,
    };
    size_t other_count = 0;
    if (columns.names == NULL)
        return error_set(error, STATUS_INVALID, "too many columns");
    for (size_t i = 0; i < columns.count; i++) {
        uint64_t number;
        columns.names[i] = str_trim(record->cells[i]);
        if (str_equal(columns.names[i], STR("id")))
            columns.id = i;
        else if (str_equal(columns.names[i], STR("vector")))
            columns.vector = i;
        else if (str_equal(columns.names[i], STR("payload")))
            columns.payload = i;
        else if (value_number(columns.names[i], &number))
            TRY(take_value(&columns, i, number, error));
        else
            other_count++;
    }
    if (columns.id == SIZE_MAX)
        return error_set(error, STATUS_INVALID, "no column is named id");
    if ((columns.vector == SIZE_MAX) == (columns.value_count == 0))
        return error_set(error, STATUS_INVALID,
                         "the vector is either a column named vector or columns 0, 1, 2, …");
    if (columns.payload != SIZE_MAX && other_count > 0)
        return error_set(error, STATUS_INVALID,
                         "the payload is either a column named payload or other columns");
    *out_columns = columns;
    return STATUS_OK;
}

// --- Records

static enum status cell_value(struct str cell, struct error *error, float *out_value)
{
    double value;
    if (!str_to_double(str_trim(cell), &value))
        return error_set(error, STATUS_INVALID, "vector: '%.*s' is not a number",
                         (int)(cell.len < 40 ? cell.len : 40), cell.data);
    // Half a step above the largest float32; all below rounds to one.
    const double end = 0x1.ffffffp127;
    if (value >= end || value <= -end)
        return error_set(error, STATUS_INVALID, "vector: a value is larger than a float32 can be");
    *out_value = (float)value;
    return STATUS_OK;
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

// Values with a comma, a semicolon or spaces between, in brackets or not.
static enum status decode_vector(struct str cell, struct arena *arena, struct error *error,
                                 Vectron__V1__Point *point)
{
    struct str rest = str_trim(cell);
    if (rest.len > 1 && rest.data[0] == '[' && rest.data[rest.len - 1] == ']')
        rest = str_trim((struct str){rest.data + 1, rest.len - 2});
    // A value and what separates it take two bytes at least.
    size_t count_max = rest.len / 2 + 1;
    point->vector = arena_try_alloc(arena, count_max * sizeof(float));
    if (point->vector == NULL)
        return error_set(error, STATUS_INVALID, "vector: too large");
    size_t at = 0;
    while (at < rest.len) {
        size_t end = at;
        while (end < rest.len && rest.data[end] != ',' && rest.data[end] != ';' &&
               !is_space(rest.data[end]))
            end++;
        if (point->n_vector == count_max)
            return error_set(error, STATUS_INVALID, "vector: malformed");
        TRY(cell_value((struct str){rest.data + at, end - at}, error,
                       &point->vector[point->n_vector++]));
        while (end < rest.len && is_space(rest.data[end]))
            end++;
        bool has_separator = end < rest.len && (rest.data[end] == ',' || rest.data[end] == ';');
        at = has_separator ? end + 1 : end;
        while (at < rest.len && is_space(rest.data[at]))
            at++;
        if (has_separator && at == rest.len)
            return error_set(error, STATUS_INVALID, "vector: ends with a separator");
    }
    return STATUS_OK;
}

static enum status decode_values(const struct csv_columns *columns, const struct csv_record *record,
                                 struct arena *arena, struct error *error,
                                 Vectron__V1__Point *point)
{
    point->vector = arena_try_alloc(arena, columns->value_count * sizeof(float));
    if (point->vector == NULL)
        return error_set(error, STATUS_INVALID, "vector: too large");
    for (; point->n_vector < columns->value_count; point->n_vector++)
        TRY(cell_value(record->cells[columns->value_first + point->n_vector], error,
                       &point->vector[point->n_vector]));
    return STATUS_OK;
}

// The other columns as members of a JSON object.
static enum status members(const struct csv_columns *columns, const struct csv_record *record,
                           struct buf *json, struct error *error)
{
    buf_append_byte(json, '{');
    for (size_t i = 0; i < columns->count; i++) {
        bool is_value =
            i >= columns->value_first && i < columns->value_first + columns->value_count;
        if (i == columns->id || i == columns->vector || is_value)
            continue;
        if (!str_is_utf8(columns->names[i]) || !str_is_utf8(record->cells[i]))
            return error_set(error, STATUS_INVALID, "column %zu: not UTF-8", i + 1);
        if (json->len > 1)
            buf_append_byte(json, ',');
        json_append_string(json, columns->names[i]);
        buf_append_byte(json, ':');
        json_append_string(json, record->cells[i]);
    }
    buf_append_byte(json, '}');
    if (buf_has_overflowed(json))
        return error_set(error, STATUS_INVALID, "the payload is larger than %d bytes",
                         LIMIT_PAYLOAD_SIZE_MAX);
    return STATUS_OK;
}

static enum status decode_payload(const struct csv_columns *columns,
                                  const struct csv_record *record, struct arena *arena,
                                  struct error *error, Vectron__V1__Point *point)
{
    ProtobufCMessage *document = NULL;
    struct buf json;
    enum status status = STATUS_OK;
    buf_init(&json, LIMIT_PAYLOAD_SIZE_MAX);
    if (columns->payload == SIZE_MAX) {
        status = members(columns, record, &json, error);
    } else {
        struct str cell = str_trim(record->cells[columns->payload]);
        struct str compact = STR("{}");
        if (cell.len > 0)
            status = json_compact_payload(cell, "payload", arena, error, &compact);
        if (status == STATUS_OK)
            buf_append_str(&json, compact);
    }
    if (status == STATUS_OK && json.len > strlen("{}"))
        status = json_to_struct(arena_str(arena, buf_str(&json)), arena, error, &document);
    buf_deinit(&json);
    point->document = (void *)document;
    return status;
}

enum status csv_columns_point(const struct csv_columns *columns, const struct csv_record *record,
                              struct arena *arena, struct error *error,
                              Vectron__V1__Point **out_point)
{
    if (record->cell_count != columns->count)
        return error_set(error, STATUS_INVALID, "%zu cells where the first line has %zu columns",
                         record->cell_count, columns->count);
    Vectron__V1__Point *point = arena_alloc(arena, sizeof(*point));
    vectron__v1__point__init(point);
    struct str id = record->cells[columns->id];
    if (!str_is_utf8(id) || memchr(id.data, '\0', id.len) != NULL)
        return error_set(error, STATUS_INVALID, "id: not UTF-8 text");
    point->id = arena_cstr(arena, id);
    if (columns->vector != SIZE_MAX)
        TRY(decode_vector(record->cells[columns->vector], arena, error, point));
    else
        TRY(decode_values(columns, record, arena, error, point));
    TRY(decode_payload(columns, record, arena, error, point));
    *out_point = point;
    return STATUS_OK;
}
