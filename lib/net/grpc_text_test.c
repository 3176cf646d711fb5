#include "net/grpc_text.h"

#include <string.h>

#include "testing/test.h"

static uint64_t parsed(const char *text)
{
    uint64_t ns = 12345;
    return grpc_timeout_parse(str_from_cstr(text), &ns) ? ns : 0;
}

TEST(timeouts_are_parsed)
{
    CHECK_EQ_U64(parsed("1H"), 3600000000000);
    CHECK_EQ_U64(parsed("2M"), 120000000000);
    CHECK_EQ_U64(parsed("3S"), 3000000000);
    CHECK_EQ_U64(parsed("4m"), 4000000);
    CHECK_EQ_U64(parsed("5u"), 5000);
    CHECK_EQ_U64(parsed("6n"), 6);
    CHECK_EQ_U64(parsed("99999999H"), UINT64_MAX);
    const char *const bad[] = {"", "1", "S", "1s", "-1S", "1.5S", "123456789S", " 1S", "1S "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(!grpc_timeout_parse(str_from_cstr(bad[i]), &(uint64_t){0}));
}

TEST(timeouts_are_written)
{
    char out[GRPC_TIMEOUT_SIZE];
    CHECK_STR(grpc_timeout_format(0, out), STR("1n"));
    CHECK_STR(grpc_timeout_format(99999999, out), STR("99999999n"));
    CHECK_STR(grpc_timeout_format(100000000, out), STR("100000u"));
    CHECK_STR(grpc_timeout_format(5000000000, out), STR("5000000u"));
    CHECK_STR(grpc_timeout_format(UINT64_MAX - 1, out), STR("5124095H"));
}

TEST(status_messages)
{
    struct arena *arena = arena_create(10000);
    CHECK_STR(grpc_percent_encode(arena, STR("plain text")), STR("plain text"));
    CHECK_STR(grpc_percent_encode(arena, STR("100% caf\xc3\xa9\n")), STR("100%25 caf%C3%A9%0A"));
    CHECK_STR(grpc_percent_encode(arena, STR("  in front")), STR("%20 in front"));
    CHECK_STR(grpc_percent_encode(arena, STR("at the end ")), STR("at the end%20"));
    CHECK_STR(grpc_percent_encode(arena, STR(" ")), STR("%20"));
    CHECK_STR(grpc_percent_decode(arena, STR("100%25 caf%c3%A9%0a")), STR("100% caf\xc3\xa9\n"));
    CHECK_STR(grpc_percent_decode(arena, STR("%%4%zz%41%")), STR("%%4%zzA%"));
    arena_destroy(arena);
}

static bool decodes(const char *text, const char *wanted)
{
    uint8_t out[64];
    size_t size = 0;
    return grpc_base64_decode(str_from_cstr(text), out, &size) && size == strlen(wanted) &&
           memcmp(out, wanted, size) == 0;
}

TEST(binary_metadata)
{
    CHECK(decodes("", ""));
    CHECK(decodes("aGk=", "hi") && decodes("aGk", "hi"));
    CHECK(decodes("aA==", "h") && decodes("aA", "h"));
    CHECK(decodes("aGV5", "hey"));
    uint8_t out[64];
    size_t size = 7;
    CHECK(!grpc_base64_decode(STR("a"), out, &size));
    CHECK(!grpc_base64_decode(STR("aGk=="), out, &size));
    CHECK(!grpc_base64_decode(STR("aG!k"), out, &size));
    CHECK(!grpc_base64_decode(STR("===="), out, &size));
    CHECK_EQ_U64(size, 7);
    struct arena *arena = arena_create(10000);
    CHECK_STR(grpc_base64_encode(arena, str_span(STR("hi"))), STR("aGk"));
    CHECK_STR(grpc_base64_encode(arena, str_span(STR("hey"))), STR("aGV5"));
    CHECK_STR(grpc_base64_encode(arena, (struct span){(const uint8_t *)"\xfb\xff", 2}), STR("+/8"));
    arena_destroy(arena);
}

TEST_MAIN()
