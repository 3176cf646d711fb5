#include "vectron/csv.h"

#include "testing/test.h"

enum { CELLS_MAX = 4 };

static enum status decode(const char *text, struct arena *arena, struct csv_record *record)
{
    struct error error;
    return csv_decode(str_from_cstr(text), CELLS_MAX, arena, &error, record);
}

TEST(cells_are_cut_at_commas_outside_of_quotes)
{
    static const struct {
        const char *text;
        size_t count;
        const char *cells[CELLS_MAX];
        size_t size;
    } cases[] = {
        {"a,b\nc", 2, {"a", "b"}, 4},
        {"a,b", 2, {"a", "b"}, 3},
        {"a,b\r\nc", 2, {"a", "b"}, 5},
        {",\n", 2, {"", ""}, 2},
        {"\n", 1, {""}, 1},
        {"\"a,b\",c\n", 2, {"a,b", "c"}, 8},
        {"\"a\nb\"\r\nc", 1, {"a\nb"}, 7},
        {"\"say \"\"hi\"\"\",\"\"\n", 2, {"say \"hi\"", ""}, 16},
        {"a \"b\" c\n", 1, {"a \"b\" c"}, 8},
        {"1,2,3,4\n", 4, {"1", "2", "3", "4"}, 8},
        {"a,\"\"\"\"", 2, {"a", "\""}, 6},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arena *arena = arena_create(1 << 16);
        struct str cells[CELLS_MAX];
        struct csv_record record = {.cells = cells};
        if (CHECK_OK(decode(cases[i].text, arena, &record)) &&
            CHECK_EQ_U64(record.cell_count, cases[i].count)) {
            CHECK_EQ_U64(record.size, cases[i].size);
            for (size_t j = 0; j < cases[i].count; j++)
                CHECK_STR(cells[j], str_from_cstr(cases[i].cells[j]));
        }
        arena_destroy(arena);
    }
}

TEST(what_is_no_record_is_refused)
{
    static const char *const texts[] = {"1,2,3,4,5\n", "\"a", "\"a\"b,c\n", "a,\"\"\"\n", "\""};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct arena *arena = arena_create(1 << 16);
        struct str cells[CELLS_MAX];
        struct csv_record record = {.cells = cells};
        CHECK_STATUS(decode(texts[i], arena, &record), STATUS_INVALID);
        arena_destroy(arena);
    }
}

TEST_MAIN()
