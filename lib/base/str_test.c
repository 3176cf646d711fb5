#include "base/str.h"

#include <math.h>
#include <string.h>

#include "testing/test.h"

TEST(equality_and_order)
{
    CHECK(str_equal(STR("abc"), STR("abc")));
    CHECK(!str_equal(STR("abc"), STR("abd")));
    CHECK(!str_equal(STR("abc"), STR("ab")));
    CHECK(str_equal((struct str){0}, STR("")));
    CHECK(str_equal_cstr(STR("x"), "x"));
    CHECK(str_equal_cstr(STR(""), NULL));
    CHECK(str_equal_ignoring_case(STR("Content-TYPE"), STR("content-type")));
    CHECK(!str_equal_ignoring_case(STR("["), STR("{"))); // 0x5B and 0x7B
    CHECK(str_compare(STR("a"), STR("b")) < 0);
    CHECK(str_compare(STR("a"), STR("aa")) < 0);
    CHECK(str_compare(STR("b"), STR("aa")) > 0);
    CHECK(str_compare(STR("\xFF"), STR("a")) > 0);
    CHECK(str_compare((struct str){0}, STR("")) == 0);
}

TEST(parts)
{
    CHECK(str_starts_with(STR("/v1/keys"), STR("/v1/")));
    CHECK(!str_starts_with(STR("/v"), STR("/v1/")));
    CHECK(str_starts_with(STR("x"), (struct str){0}));
    CHECK(str_ends_with(STR("a.pb"), STR(".pb")));
    CHECK(!str_ends_with(STR("b"), STR(".pb")));
    CHECK(str_ends_with((struct str){0}, (struct str){0}));
    CHECK(str_contains(STR("a\0bc"), STR("\0b")));
    CHECK(!str_contains(STR("abc"), STR("ca")));
    CHECK(str_contains((struct str){0}, STR("")));
    CHECK(!str_contains((struct str){0}, STR("a")));
    CHECK_STR(str_trim(STR(" \t a b\r\n")), STR("a b"));
    CHECK_STR(str_trim(STR(" \n ")), STR(""));
    CHECK_STR(str_trim((struct str){0}), STR(""));
}

TEST(cutting)
{
    struct str rest = STR("a,b,,c");
    CHECK_STR(str_cut(&rest, ','), STR("a"));
    CHECK_STR(str_cut(&rest, ','), STR("b"));
    CHECK_STR(str_cut(&rest, ','), STR(""));
    CHECK_STR(str_cut(&rest, ','), STR("c"));
    CHECK_EQ_U64(rest.len, 0);
    rest = (struct str){0};
    CHECK_EQ_U64(str_cut(&rest, ',').len, 0);
}

TEST(whole_numbers)
{
    uint64_t value = 1;
    CHECK(str_to_u64(STR("0"), &value) && value == 0);
    CHECK(str_to_u64(STR("18446744073709551615"), &value) && value == UINT64_MAX);
    CHECK(str_to_u64(STR("007"), &value) && value == 7);
    static const char *const bad[] = {
        "",    " 1",   "1 ", "+1", "-1", "18446744073709551616", "99999999999999999999999",
        "1e3", "0x10", "1.0"};
    value = 42;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(!str_to_u64(str_from_cstr(bad[i]), &value));
    CHECK(!str_to_u64(STR("1\0"), &value));
    CHECK_EQ_U64(value, 42);

    int64_t number = 0;
    CHECK(str_to_i64(STR("-9223372036854775808"), &number) && number == INT64_MIN);
    CHECK(str_to_i64(STR("9223372036854775807"), &number) && number == INT64_MAX);
    CHECK(str_to_i64(STR("-0"), &number) && number == 0);
    CHECK(!str_to_i64(STR("9223372036854775808"), &number));
    CHECK(!str_to_i64(STR("-9223372036854775809"), &number));
    CHECK(!str_to_i64(STR("-"), &number));
    CHECK(!str_to_i64(STR("--1"), &number));
    CHECK(!str_to_i64((struct str){0}, &number));
}

TEST(real_numbers)
{
    double value = 0;
    CHECK(str_to_double(STR("0.1"), &value) && value == 0.1);
    CHECK(str_to_double(STR("-1.5e3"), &value) && value == -1500);
    CHECK(str_to_double(STR("+5."), &value) && value == 5);
    CHECK(str_to_double(STR(".5"), &value) && value == 0.5);
    CHECK(str_to_double(STR("1E-5"), &value) && value == 1e-5);
    CHECK(str_to_double(STR("1.7976931348623157e308"), &value) && value == 1.7976931348623157e308);
    CHECK(str_to_double(STR("1e-400"), &value) && value == 0);
    CHECK(str_to_double(STR("-0"), &value) && signbit(value));
    static const char *const bad[] = {"",      ".",  "-",  "e5",  "1e",    "1e+", "nan",   "inf",
                                      "0x1p3", " 1", "1 ", "1,5", "1e400", "--1", "1.2.3", "-.e1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(!str_to_double(str_from_cstr(bad[i]), &value));
    char zeros[1000];
    memset(zeros, '0', sizeof(zeros));
    CHECK(!str_to_double((struct str){zeros, sizeof(zeros)}, &value));
}

TEST(utf8)
{
    static const char *const good[] = {"",
                                       "abc",
                                       "\xC2\x80",
                                       "\xDF\xBF",
                                       "\xE0\xA0\x80",
                                       "\xED\x9F\xBF",
                                       "\xEE\x80\x80",
                                       "\xEF\xBF\xBF",
                                       "\xF0\x90\x80\x80",
                                       "\xF4\x8F\xBF\xBF",
                                       "long enough to go by words \xE2\x82\xAC and on"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        CHECK(str_is_utf8(str_from_cstr(good[i])));
    CHECK(str_is_utf8(STR("a\0b")));
    static const char *const bad[] = {"\x80",
                                      "\xBF",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xC2",
                                      "\xC2Z",
                                      "\xE0\x9F\xBF",
                                      "\xE0\xA0",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFF",
                                      "\xFE",
                                      "\xF0\x90\x80",
                                      "12345678\xE2\x82"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK(!str_is_utf8(str_from_cstr(bad[i])));
    CHECK_EQ_U64(str_utf8_size(STR("\xE2\x82\xAC+")), 3);
    CHECK_EQ_U64(str_utf8_size(STR("\xE2\x82+")), 0);
    CHECK_EQ_U64(str_utf8_size((struct str){0}), 0);
}

TEST(secrets_are_equal_or_not)
{
    CHECK(str_equal_in_constant_time(STR("secret"), STR("secret")));
    CHECK(str_equal_in_constant_time(STR(""), STR("")));
    CHECK(!str_equal_in_constant_time(STR("secret"), STR("secreT")));
    CHECK(!str_equal_in_constant_time(STR("secret"), STR("secre")));
    CHECK(!str_equal_in_constant_time(STR(""), STR("s")));
}

TEST_MAIN()
