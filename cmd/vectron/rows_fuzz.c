#include "vectron/rows.h"

#include <stdint.h>

#include "base/assert.h"
#include "vectron/import_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The first byte chooses the format. Every row is read, and the place never goes back, so that an
// import ends whatever the file holds.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum rows_format formats[] = {ROWS_JSON_LINES, ROWS_CSV, ROWS_NPY};
    struct rows *rows = NULL;
    struct error error;
    struct import_state state;
    if (size == 0)
        return 0;
    struct span bytes = {data + 1, size - 1};
    (void)import_state_decode(span_str(bytes), &error, &state);
    // A matrix's ids may be anything as well.
    if (rows_open(formats[data[0] % 3], bytes, span_str(bytes), &error, &rows) != STATUS_OK)
        return 0;
    (void)rows_check_ids(rows, &error);
    struct arena *arena = arena_create(1 << 24);
    for (;;) {
        Vectron__V1__Point *point = NULL;
        struct rows_position before = rows_position(rows);
        arena_reset(arena);
        enum status status = rows_next(rows, arena, &error, &point);
        if (status == STATUS_NOT_FOUND)
            break;
        ASSERT(rows_position(rows).offset > before.offset);
        ASSERT(rows_position(rows).line > before.line);
        ASSERT((status == STATUS_OK) == (point != NULL));
    }
    ASSERT(rows_seek(rows, rows_position(rows), &error) == STATUS_OK);
    arena_destroy(arena);
    rows_close(rows);
    return 0;
}
