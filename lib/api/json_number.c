#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/json_number_internal.h"

// Vectors are many short decimal numbers. One whose digits fit into 53 bits and whose exponent is
// small is an exact double divided or multiplied by an exact power of ten: one operation that IEEE
// 754 rounds correctly. Narrowing that to float rounds a second time, which goes wrong only when
// the double lies exactly between two floats: these few, and all others, go through strtof. Writing
// is the same backwards: the fewest digits, from 6 on, that read back.

enum {
    POWERS = 23,           // 10^22 is the last that a double holds exactly
    NUMBER_SIZE_MAX = 400, // of a number that goes through strtod
    DIGITS_MAX = 19,       // that surely fit into 64 bits
    EXPONENT_MAX = 100000, // larger ones are cut to it: they overflow or vanish all the same
    FLOAT_DIGITS_MIN = 6,  // any decimal of 6 digits survives being a float
    FLOAT_DIGITS_MAX = 9,  // any float survives being a decimal of 9 digits
    DOUBLE_DIGITS_MIN = 15,
    DOUBLE_DIGITS_MAX = 17,
};

#define EXACT_MAX       9007199254740992.0 // 2^53: up to here every whole number is a double
#define FLOAT_WHOLE_MAX 999999999.0        // larger ones are shorter with an exponent

static const double powers[POWERS] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// --- Reading

static bool is_digit(struct str text, size_t i)
{
    return i < text.len && text.data[i] >= '0' && text.data[i] <= '9';
}

static size_t skip_digits(struct str text, size_t i)
{
    while (is_digit(text, i))
        i++;
    return i;
}

size_t json_number_size(struct str text)
{
    size_t i = 0;
    if (text.len > 0 && text.data[0] == '-')
        i++;
    if (!is_digit(text, i))
        return 0;
    i = text.data[i] == '0' ? i + 1 : skip_digits(text, i);
    if (i < text.len && text.data[i] == '.') {
        if (!is_digit(text, i + 1))
            return 0;
        i = skip_digits(text, i + 1);
    }
    if (i < text.len && (text.data[i] == 'e' || text.data[i] == 'E')) {
        i++;
        if (i < text.len && (text.data[i] == '-' || text.data[i] == '+'))
            i++;
        if (!is_digit(text, i))
            return 0;
        i = skip_digits(text, i);
    }
    return i;
}

bool json_number_is_integer(struct str text)
{
    size_t start = text.len > 0 && text.data[0] == '-' ? 1 : 0;
    return start < text.len && skip_digits(text, start) == text.len;
}

struct decimal {
    bool is_negative;
    bool is_exact; // mantissa holds all digits
    uint64_t mantissa;
    int exponent;
};

static int read_exponent(struct str text, size_t i)
{
    bool is_negative = text.data[i] == '-';
    int exponent = 0;
    if (text.data[i] == '-' || text.data[i] == '+')
        i++;
    for (; i < text.len; i++) {
        if (exponent < EXPONENT_MAX)
            exponent = exponent * 10 + (text.data[i] - '0');
    }
    return is_negative ? -exponent : exponent;
}

// text follows the grammar.
static struct decimal read_decimal(struct str text)
{
    struct decimal decimal = {.is_exact = true, .is_negative = text.data[0] == '-'};
    bool is_fraction = false;
    unsigned digits = 0;
    for (size_t i = decimal.is_negative ? 1 : 0; i < text.len; i++) {
        char c = text.data[i];
        if (c == '.') {
            is_fraction = true;
            continue;
        }
        if (c == 'e' || c == 'E') {
            decimal.exponent += read_exponent(text, i + 1);
            break;
        }
        if (digits == DIGITS_MAX) {
            decimal.is_exact = false;
            break;
        }
        decimal.mantissa = decimal.mantissa * 10 + (uint64_t)(c - '0');
        digits += decimal.mantissa > 0;
        decimal.exponent -= is_fraction;
    }
    return decimal;
}

static bool scale_exactly(const struct decimal *decimal, double *out_value)
{
    if (!decimal->is_exact || decimal->mantissa > (uint64_t)EXACT_MAX ||
        decimal->exponent >= POWERS || decimal->exponent <= -POWERS)
        return false;
    double value = (double)decimal->mantissa;
    if (decimal->exponent < 0)
        value /= powers[-decimal->exponent];
    else
        value *= powers[decimal->exponent];
    *out_value = decimal->is_negative ? -value : value;
    return true;
}

// Exactly between two floats: the 29 bits that a float does not have are one and zeros.
static bool is_between_floats(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return (bits & 0x1FFFFFFF) == 0x10000000;
}

static bool copy_number(struct str text, char out[static NUMBER_SIZE_MAX])
{
    if (text.len == 0 || text.len >= NUMBER_SIZE_MAX || json_number_size(text) != text.len)
        return false;
    memcpy(out, text.data, text.len);
    out[text.len] = '\0';
    return true;
}

bool json_number_to_float(struct str text, float *out_value)
{
    if (text.len == 0 || json_number_size(text) != text.len)
        return false;
    struct decimal decimal = read_decimal(text);
    double exact = 0;
    // No product or quotient of the exact ones is outside of what normal floats reach.
    if (scale_exactly(&decimal, &exact) && !is_between_floats(exact)) {
        *out_value = (float)exact;
        return true;
    }
    char copy[NUMBER_SIZE_MAX];
    if (!copy_number(text, copy))
        return false;
    float value = strtof(copy, NULL);
    if (isinf(value))
        return false;
    *out_value = value;
    return true;
}

bool json_number_to_double(struct str text, double *out_value)
{
    if (text.len == 0 || json_number_size(text) != text.len)
        return false;
    struct decimal decimal = read_decimal(text);
    if (scale_exactly(&decimal, out_value))
        return true;
    char copy[NUMBER_SIZE_MAX];
    if (!copy_number(text, copy))
        return false;
    double value = strtod(copy, NULL);
    if (isinf(value))
        return false;
    *out_value = value;
    return true;
}

bool json_number_to_i64(struct str text, int64_t *out_value)
{
    if (json_number_is_integer(text))
        return json_number_size(text) == text.len && str_to_i64(text, out_value);
    double value = 0;
    if (!json_number_to_double(text, &value) || value != floor(value) || fabs(value) > EXACT_MAX)
        return false;
    *out_value = (int64_t)value;
    return true;
}

bool json_number_to_u64(struct str text, uint64_t *out_value)
{
    if (json_number_is_integer(text) && text.data[0] != '-')
        return json_number_size(text) == text.len && str_to_u64(text, out_value);
    int64_t value = 0;
    if (!json_number_to_i64(text, &value) || value < 0)
        return false;
    *out_value = (uint64_t)value;
    return true;
}

// --- Writing

static void append_whole(struct buf *out, uint64_t value)
{
    char digits[24];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    buf_append(out, digits + at, sizeof(digits) - at);
}

// mantissa / 10^places, without zeros at the end. places is 1 to 14.
static void append_fixed(struct buf *out, uint64_t mantissa, unsigned places)
{
    char digits[32];
    size_t at = sizeof(digits);
    while (mantissa % 10 == 0 && places > 0) {
        mantissa /= 10;
        places--;
    }
    for (unsigned i = 0; i < places; i++) {
        digits[--at] = (char)('0' + mantissa % 10);
        mantissa /= 10;
    }
    if (places > 0)
        digits[--at] = '.';
    do {
        digits[--at] = (char)('0' + mantissa % 10);
        mantissa /= 10;
    } while (mantissa > 0);
    buf_append(out, digits + at, sizeof(digits) - at);
}

// value is from 0.00001 to 1e9, and not whole.
static bool append_short_float(struct buf *out, float value)
{
    const double wide = (double)value;
    int places = FLOAT_DIGITS_MIN + 4; // so many that the first of 6 digits is at 0.00001
    double limit = 1e-4;
    while (wide >= limit && places >= 0) {
        places--;
        limit *= 10;
    }
    for (int digits = FLOAT_DIGITS_MIN; digits <= FLOAT_DIGITS_MAX; digits++, places++) {
        if (places < 1)
            continue;
        double mantissa = floor(wide * powers[places] + 0.5);
        double back = mantissa / powers[places];
        if ((float)back != value)
            continue;
        if (is_between_floats(back))
            return false;
        append_fixed(out, (uint64_t)mantissa, (unsigned)places);
        return true;
    }
    return false;
}

static bool append_special(struct buf *out, double value)
{
    if (isnan(value))
        buf_append_cstr(out, "\"NaN\"");
    else if (isinf(value))
        buf_append_cstr(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else if (value == 0)
        buf_append_cstr(out, signbit(value) != 0 ? "-0" : "0");
    else
        return false;
    return true;
}

static bool append_if_whole(struct buf *out, double value, double max)
{
    if (value != floor(value) || fabs(value) > max)
        return false;
    if (value < 0)
        buf_append_byte(out, '-');
    append_whole(out, (uint64_t)fabs(value));
    return true;
}

void json_append_float(struct buf *out, float value)
{
    if (append_special(out, (double)value) || append_if_whole(out, (double)value, FLOAT_WHOLE_MAX))
        return;
    if (value < 0) {
        buf_append_byte(out, '-');
        value = -value;
    }
    if (value >= 1e-5F && value < 1e9F && append_short_float(out, value))
        return;
    char text[32];
    // The smallest floats, which have lost bits, need fewer digits.
    for (int digits = value < FLT_MIN ? 1 : FLOAT_DIGITS_MIN; digits <= FLOAT_DIGITS_MAX;
         digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    buf_append_cstr(out, text);
}

void json_append_double(struct buf *out, double value)
{
    if (append_special(out, value) || append_if_whole(out, value, EXACT_MAX))
        return;
    char text[40];
    for (int digits = fabs(value) < DBL_MIN ? 1 : DOUBLE_DIGITS_MIN; digits <= DOUBLE_DIGITS_MAX;
         digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_append_cstr(out, text);
}
