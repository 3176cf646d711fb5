#include "vectron/csv.h"

#include <string.h>

// The cell whose first quote is at the front; how many bytes of the text it takes.
static enum status decode_quoted(struct str text, struct arena *arena, struct error *error,
                                 struct str *out_cell, size_t *out_size)
{
    size_t end = 1;
    size_t doubled = 0;
    for (;;) {
        const char *quote = memchr(text.data + end, '"', text.len - end);
        if (quote == NULL)
            return error_set(error, STATUS_INVALID, "a quote is not closed");
        end = (size_t)(quote - text.data) + 1;
        if (end == text.len || text.data[end] != '"')
            break;
        doubled++;
        end++;
    }
    struct str inside = {text.data + 1, end - 2};
    *out_size = end;
    if (doubled == 0) {
        *out_cell = inside;
        return STATUS_OK;
    }
    char *plain = arena_try_alloc(arena, inside.len - doubled);
    if (plain == NULL)
        return error_set(error, STATUS_INVALID, "a cell is too large");
    size_t len = 0;
    for (size_t i = 0; i < inside.len; i++) {
        plain[len++] = inside.data[i];
        if (inside.data[i] == '"')
            i++;
    }
    *out_cell = (struct str){plain, len};
    return STATUS_OK;
}

static struct str plain_cell(struct str text)
{
    size_t len = 0;
    while (len < text.len && text.data[len] != ',' && text.data[len] != '\n')
        len++;
    return (struct str){text.data, len};
}

enum status csv_decode(struct str text, size_t cell_count_max, struct arena *arena,
                       struct error *error, struct csv_record *record)
{
    size_t at = 0;
    record->cell_count = 0;
    for (;;) {
        struct str rest = {text.data + at, text.len - at};
        struct str cell = {0};
        if (record->cell_count == cell_count_max)
            return error_set(error, STATUS_INVALID, "more than %zu cells", cell_count_max);
        if (rest.len > 0 && rest.data[0] == '"') {
            size_t size = 0;
            TRY(decode_quoted(rest, arena, error, &cell, &size));
            at += size;
            if (at + 1 < text.len && text.data[at] == '\r' && text.data[at + 1] == '\n')
                at++;
        } else {
            cell = plain_cell(rest);
            at += cell.len;
            bool ends_line = at < text.len && text.data[at] == '\n';
            if (ends_line && cell.len > 0 && cell.data[cell.len - 1] == '\r')
                cell.len--;
        }
        record->cells[record->cell_count++] = cell;
        if (at == text.len || text.data[at] == '\n')
            break;
        if (text.data[at] != ',')
            return error_set(error, STATUS_INVALID, "cell %zu goes on behind its quotes",
                             record->cell_count);
        at++;
    }
    record->size = at == text.len ? at : at + 1;
    return STATUS_OK;
}
