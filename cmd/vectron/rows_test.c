#include "vectron/rows.h"

#include <stdio.h>

#include "testing/test.h"
#include "vectron/import_state.h"

static struct rows *open_text(enum rows_format format, const char *text)
{
    struct rows *rows = NULL;
    struct error error;
    CHECK_OK(rows_open(format, str_span(str_from_cstr(text)), (struct str){0}, &error, &rows));
    return rows;
}

// The ids of all rows, "-N" for one refused with its number.
static void collect(struct rows *rows, char out[static 256])
{
    struct arena *arena = arena_create(1 << 20);
    struct error error;
    size_t len = 0;
    out[0] = '\0';
    for (;;) {
        Vectron__V1__Point *point = NULL;
        enum status status = rows_next(rows, arena, &error, &point);
        if (status == STATUS_NOT_FOUND)
            break;
        if (status == STATUS_OK)
            len += (size_t)snprintf(out + len, 256 - len, "%s ", point->id);
        else
            len += (size_t)snprintf(out + len, 256 - len, "-%u ", (unsigned)rows_number(rows));
    }
    arena_destroy(arena);
}

TEST(a_refused_row_does_not_hide_the_next)
{
    char found[256];
    struct rows *rows = open_text(ROWS_JSON_LINES, "\n{\"id\":\"a\",\"vector\":[1]}\n\nnonsense\n"
                                                   "{\"id\":\"b\",\"vector\":[2]}");
    collect(rows, found);
    CHECK_CSTR(found, "a -4 b ");
    rows_close(rows);

    // A quote that is not closed takes its own line with it and no more.
    rows =
        open_text(ROWS_CSV, "id,vector,note\na,[1],\"two\nlines\"\nb,\"[2],x\nc,1 2,\"q\"\nd,[3]\n"
                            "e,[1,2],x\nf,\"[1,2]\",\n");
    collect(rows, found);
    CHECK_CSTR(found, "a -4 c -6 -7 f ");
    rows_close(rows);
}

TEST(a_place_can_be_gone_back_to)
{
    char found[256];
    static const char text[] = "id,0,1\r\na,1,2\r\nb,3,4\r\nc,5,6\r\n";
    struct rows *rows = open_text(ROWS_CSV, text);
    struct arena *arena = arena_create(1 << 20);
    struct error error;
    Vectron__V1__Point *point = NULL;
    CHECK_EQ_U64(rows_dimension(rows), 2);
    REQUIRE_OK(rows_next(rows, arena, &error, &point));
    struct rows_position position = rows_position(rows);
    rows_close(rows);
    rows = open_text(ROWS_CSV, text);
    REQUIRE_OK(rows_seek(rows, position, &error));
    collect(rows, found);
    CHECK_CSTR(found, "b c ");
    position.offset = sizeof(text);
    CHECK_STATUS(rows_seek(rows, position, &error), STATUS_INVALID);
    position.offset = 1;
    CHECK_STATUS(rows_seek(rows, position, &error), STATUS_INVALID);
    rows_close(rows);
    arena_destroy(arena);
}

TEST(vectors_in_a_cell)
{
    static const struct {
        const char *cell;
        size_t count; // SIZE_MAX: refused
    } cases[] = {
        {"\"[1, 2,3]\"", 3},
        {"1 2 3", 3},
        {"1;2;3", 3},
        {"[]", 0},
        {"", 0},
        {"1;;2", SIZE_MAX},
        {"1;2;", SIZE_MAX},
        {"[1 2", SIZE_MAX},
        {"nan", SIZE_MAX},
        {"1e39", SIZE_MAX},
        {"3.4028235e38", 1},
        {"-3.4028235e38", 1},
        {"0x10", SIZE_MAX},
        {"inf", SIZE_MAX},
        {"\";1\"", SIZE_MAX},
        {"3.4028236e38", SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[128];
        struct error error;
        struct arena *arena = arena_create(1 << 20);
        Vectron__V1__Point *point = NULL;
        (void)snprintf(text, sizeof(text), "id,vector\nx,%s\n", cases[i].cell);
        struct rows *rows = open_text(ROWS_CSV, text);
        enum status status = rows_next(rows, arena, &error, &point);
        if (cases[i].count == SIZE_MAX)
            CHECK_STATUS(status, STATUS_INVALID);
        else if (CHECK_OK(status))
            CHECK_EQ_U64(point->n_vector, cases[i].count);
        rows_close(rows);
        arena_destroy(arena);
    }
}

TEST(columns_that_make_no_points_are_refused)
{
    static const char *const heads[] = {
        "name,vector\n",
        "id\n",
        "id,vector,0\n",
        "id,vector,payload,title\n",
        "id,1,3\n",
        "id,0,x,1\n",
        "",
        "id,2,3\n",
        "id,\"vector\n",
    };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        struct rows *rows = NULL;
        struct error error;
        CHECK_STATUS(
            rows_open(ROWS_CSV, str_span(str_from_cstr(heads[i])), (struct str){0}, &error, &rows),
            STATUS_INVALID);
        CHECK(rows == NULL);
    }
}

TEST(a_state_comes_back)
{
    char path[256];
    struct error error;
    struct import_state state = {"words", 1, UINT64_MAX, {2, 3, 4}, 5, 6, 7};
    struct import_state found;
    (void)snprintf(path, sizeof(path), "%s/state", test_temporary_folder());
    CHECK_STATUS(import_state_load(path, &error, &found), STATUS_NOT_FOUND);
    REQUIRE_OK(import_state_save(path, &state, &error));
    REQUIRE_OK(import_state_load(path, &error, &found));
    CHECK_CSTR(found.collection, "words");
    CHECK(found.source_size == 1 && found.source_crc == UINT64_MAX && found.position.offset == 2 &&
          found.position.line == 3 && found.position.ids_offset == 4 && found.stored == 5 &&
          found.refused == 6 && found.report_size == 7);
    CHECK_STATUS(import_state_decode(STR("collection=words\noffset=1\n"), &error, &found),
                 STATUS_INVALID);
    CHECK_STATUS(import_state_decode(STR(""), &error, &found), STATUS_INVALID);
}

TEST_MAIN()
