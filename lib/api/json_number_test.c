#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/json_number_internal.h"
#include "base/rng.h"
#include "testing/test.h"

static struct str print_float(float value, char out[static 64])
{
    struct buf buf;
    buf_init(&buf, 64);
    json_append_float(&buf, value);
    size_t len = buf.len;
    memcpy(out, buf.data, len);
    out[len] = '\0';
    buf_deinit(&buf);
    return (struct str){out, len};
}

static struct str print_double(double value, char out[static 64])
{
    struct buf buf;
    buf_init(&buf, 64);
    json_append_double(&buf, value);
    size_t len = buf.len;
    memcpy(out, buf.data, len);
    out[len] = '\0';
    buf_deinit(&buf);
    return (struct str){out, len};
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

TEST(grammar)
{
    static const char *const numbers[] = {
        "0",   "-0",   "7",    "10",     "1.5", "-1.25", "1e5",
        "1E5", "1e+5", "1e-5", "1.5e10", "0.0", "0e0",   "100000000000000000000000000000000"};
    static const char *const others[] = {"",    "-",   "+1", ".5", "1.", "1e",
                                         "1e+", "01x", "a",  " 1", "-a", "1.e1"};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        CHECK_EQ_U64(json_number_size(str_from_cstr(numbers[i])), strlen(numbers[i]));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        CHECK(json_number_size(str_from_cstr(others[i])) < strlen(others[i]) ||
              others[i][0] == '\0');
    CHECK_EQ_U64(json_number_size(STR("01")), 1);
    CHECK_EQ_U64(json_number_size(STR("12,3")), 2);
}

TEST(known_floats)
{
    char out[64];
    CHECK_STR(print_float(1, out), STR("1"));
    CHECK_STR(print_float(-1, out), STR("-1"));
    CHECK_STR(print_float(0.1F, out), STR("0.1"));
    CHECK_STR(print_float(-0.5F, out), STR("-0.5"));
    CHECK_STR(print_float(0, out), STR("0"));
    CHECK_STR(print_float(-0.0F, out), STR("-0"));
    CHECK_STR(print_float(3.4028235e38F, out), STR("3.4028235e+38"));
    CHECK_STR(print_float(1e-45F, out), STR("1e-45"));
    CHECK_STR(print_float(16777216, out), STR("16777216"));
    CHECK_STR(print_float(0.000001F, out), STR("1e-06"));
    CHECK_STR(print_float(0.33333334F, out), STR("0.33333334"));
    CHECK_STR(print_float(123456.7F, out), STR("123456.7"));
    CHECK_STR(print_float(1e10F, out), STR("1e+10"));
    CHECK_STR(print_float(NAN, out), STR("\"NaN\""));
    CHECK_STR(print_float(-INFINITY, out), STR("\"-Infinity\""));
    CHECK_STR(print_double(0.1, out), STR("0.1"));
    CHECK_STR(print_double(1.0 / 3, out), STR("0.3333333333333333"));
    CHECK_STR(print_double(9007199254740992.0, out), STR("9007199254740992"));
    CHECK_STR(print_double(-1e300, out), STR("-1e+300"));
    CHECK_STR(print_double(100, out), STR("100"));
}

// The fewest digits that read back, by trying them all.
static size_t digits_needed(float value)
{
    char text[64];
    for (int digits = 1; digits < 10; digits++) {
        (void)snprintf(text, sizeof(text), "%.*e", digits - 1, (double)value);
        if (strtof(text, NULL) == value)
            return (size_t)digits;
    }
    return 10;
}

static size_t count_digits(struct str text)
{
    size_t count = 0;
    size_t zeros = 0;
    for (size_t i = 0; i < text.len && text.data[i] != 'e'; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || (count == 0 && text.data[i] == '0'))
            continue;
        count++;
        zeros = text.data[i] == '0' ? zeros + 1 : 0;
    }
    return count - zeros;
}

static void check_round_trip(float value)
{
    char text[64];
    struct str printed = print_float(value, text);
    float back = 0;
    if (!CHECK_EQ_U64(bits_of(strtof(text, NULL)), bits_of(value)))
        CHECK_STR(printed, STR("what strtof reads back"));
    CHECK(json_number_to_float(printed, &back));
    CHECK_EQ_U64(bits_of(back), bits_of(value));
    if (fabsf(value) < 1e9F && !(value == floorf(value)))
        CHECK_EQ_U64(count_digits(printed), digits_needed(value));
}

TEST(floats_read_back)
{
    struct rng rng;
    rng_init(&rng, 7);
    for (int i = 0; i < 100000; i++) {
        float any = float_of((uint32_t)rng_u64(&rng));
        if (isfinite(any))
            check_round_trip(any);
        check_round_trip((float)((double)(rng_u64(&rng) >> 11) * 0x1p-53 * 2 - 1));
        check_round_trip((float)(rng_u64(&rng) % 2000000) / 1000);
    }
}

static void check_like_strtof(const char *text)
{
    float value = 0;
    float wanted = strtof(text, NULL);
    bool fits = json_number_to_float(str_from_cstr(text), &value);
    if (!CHECK(fits == (isfinite(wanted) != 0)) ||
        (fits && !CHECK_EQ_U64(bits_of(value), bits_of(wanted))))
        CHECK_CSTR(text, "read as strtof does");
    double wide = 0;
    double wide_wanted = strtod(text, NULL);
    fits = json_number_to_double(str_from_cstr(text), &wide);
    CHECK(fits == (isfinite(wide_wanted) != 0) &&
          (!fits || (wide == wide_wanted && signbit(wide) == signbit(wide_wanted))));
}

TEST(numbers_are_rounded_correctly)
{
    struct rng rng;
    char text[64];
    static const char *const hard[] = {
        "16777217",
        "16777217.0000001",
        "16777216.9999999",
        "1e-46",
        "7.0e-46",
        "1.4e-45",
        "3.4028235677973366e38",
        "3.4028236e38",
        "1e-400",
        "1e400",
        "9007199254740993",
        "1.00000005960464477539062",
        "1.00000005960464477539063",
        "-0.0",
        "0.000000000000000000000000000000000000000000000000000001e54"};
    for (size_t i = 0; i < sizeof(hard) / sizeof(hard[0]); i++)
        check_like_strtof(hard[i]);
    rng_init(&rng, 11);
    for (int i = 0; i < 100000; i++) {
        uint64_t whole = rng_u64(&rng) >> (rng_below(&rng, 64));
        (void)snprintf(text, sizeof(text), "%lu.%luE%d", (unsigned long)(whole % 1000000),
                       (unsigned long)(rng_u64(&rng) >> (rng_below(&rng, 64))),
                       (int)(rng_u64(&rng) % 90) - 45);
        check_like_strtof(text);
        // On and beside what lies between two floats.
        float low = float_of((uint32_t)(rng_u64(&rng) % 0x7F000000));
        double between = ((double)low + (double)nextafterf(low, INFINITY)) / 2;
        (void)snprintf(text, sizeof(text), "%.17g", between);
        check_like_strtof(text);
    }
}

TEST(whole_numbers)
{
    int64_t value = 0;
    uint64_t large = 0;
    CHECK(json_number_to_i64(STR("-9223372036854775808"), &value) && value == INT64_MIN);
    CHECK(!json_number_to_i64(STR("9223372036854775808"), &value));
    CHECK(json_number_to_u64(STR("18446744073709551615"), &large) && large == UINT64_MAX);
    CHECK(!json_number_to_u64(STR("18446744073709551616"), &large));
    CHECK(json_number_to_i64(STR("1.0"), &value) && value == 1);
    CHECK(json_number_to_i64(STR("-12e2"), &value) && value == -1200);
    CHECK(json_number_to_u64(STR("-0"), &large) && large == 0);
    CHECK(!json_number_to_i64(STR("1.5"), &value));
    CHECK(!json_number_to_i64(STR("1e300"), &value));
    CHECK(!json_number_to_i64(STR(""), &value));
    CHECK(!json_number_to_i64(STR("1 "), &value));
    CHECK(!json_number_to_i64(STR("01"), &value));
    CHECK(!json_number_to_u64(STR("-1"), &large));
}

TEST_MAIN()
