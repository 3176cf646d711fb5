#include "base/buf.h"

#include <string.h>

#include "base/mem.h"
#include "testing/test.h"

TEST(appends_in_order)
{
    struct buf buf;
    buf_init(&buf, 1000);
    CHECK_EQ_U64(buf_str(&buf).len, 0);
    buf_append_cstr(&buf, "ab");
    buf_append_str(&buf, STR("cd"));
    buf_append_byte(&buf, 'e');
    buf_append_format(&buf, "%d", 12);
    buf_append_str(&buf, (struct str){0});
    CHECK_STR(buf_str(&buf), STR("abcde12"));
    buf_clear(&buf);
    buf_append_u32(&buf, 0x04030201);
    buf_append_u64(&buf, 0x0C0B0A0908070605);
    CHECK_STR(buf_str(&buf), STR("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C"));
    buf_consume(&buf, 4);
    CHECK_STR(buf_str(&buf), STR("\x05\x06\x07\x08\x09\x0A\x0B\x0C"));
    buf_consume(&buf, 8);
    CHECK_EQ_U64(buf_span(&buf).len, 0);
    buf_deinit(&buf);
}

TEST(the_maximum_is_inclusive_and_remembered)
{
    struct buf buf;
    buf_init(&buf, 100);
    char text[101];
    memset(text, 'x', 100);
    text[100] = '\0';
    buf_append_format(&buf, "%s", text);
    CHECK_EQ_U64(buf.len, 100);
    CHECK(!buf_has_overflowed(&buf));
    buf_append(&buf, text, 0);
    CHECK(!buf_has_overflowed(&buf));
    buf_append_byte(&buf, 'y');
    CHECK(buf_has_overflowed(&buf));
    CHECK_EQ_U64(buf.len, 100);

    buf_clear(&buf);
    CHECK(!buf_has_overflowed(&buf));
    buf_append_cstr(&buf, "start");
    buf_append_format(&buf, "%s", text); // does not fit
    buf_append_byte(&buf, 'y');          // would, but something is missing before it
    CHECK(buf_has_overflowed(&buf));
    CHECK_STR(buf_str(&buf), STR("start"));
    buf_clear(&buf);
    CHECK(buf_reserve(&buf, 101) == NULL);
    CHECK(buf_has_overflowed(&buf));
    buf_clear(&buf);
    CHECK(buf_reserve(&buf, SIZE_MAX) == NULL);
    buf_deinit(&buf);
}

TEST(reserve_commit_detach)
{
    struct buf buf;
    buf_init(&buf, SIZE_MAX);
    CHECK(buf_reserve(&buf, 0) != NULL);
    uint8_t *room = buf_reserve(&buf, 300);
    memset(room, 7, 300);
    buf_commit(&buf, 200);
    CHECK_EQ_U64(buf.len, 200);
    uint8_t *data = buf_detach(&buf);
    CHECK(data[199] == 7);
    mem_free(data);
    CHECK_EQ_U64(buf.len, 0);
    buf_append_cstr(&buf, "again");
    CHECK_STR(buf_str(&buf), STR("again"));
    buf_deinit(&buf);
    mem_free(buf_detach(&buf));
}

TEST_MAIN()
