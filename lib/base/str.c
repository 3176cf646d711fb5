#include "base/str.h"

#include <stdlib.h>
#include <string.h>

struct str str_from_cstr(const char *cstr)
{
    return cstr == NULL ? STR("") : (struct str){cstr, strlen(cstr)};
}

struct span str_span(struct str str)
{
    return (struct span){(const uint8_t *)str.data, str.len};
}

struct str span_str(struct span span)
{
    return (struct str){(const char *)span.data, span.len};
}

bool str_equal(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool str_equal_cstr(struct str a, const char *b)
{
    return str_equal(a, str_from_cstr(b));
}

static char to_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool str_equal_in_constant_time(struct str a, struct str b)
{
    volatile uint8_t difference = 0;
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        difference |= (uint8_t)(a.data[i] ^ b.data[i]);
    return difference == 0;
}

bool str_equal_ignoring_case(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (to_lower(a.data[i]) != to_lower(b.data[i]))
            return false;
    }
    return true;
}

int str_compare(struct str a, struct str b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

bool str_starts_with(struct str str, struct str prefix)
{
    return str.len >= prefix.len && str_equal((struct str){str.data, prefix.len}, prefix);
}

bool str_ends_with(struct str str, struct str suffix)
{
    if (suffix.len == 0)
        return true;
    return str.len >= suffix.len &&
           str_equal((struct str){str.data + (str.len - suffix.len), suffix.len}, suffix);
}

bool str_contains(struct str str, struct str needle)
{
    if (needle.len == 0)
        return true;
    return str.len >= needle.len && memmem(str.data, str.len, needle.data, needle.len) != NULL;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str str_trim(struct str str)
{
    while (str.len > 0 && is_space(str.data[0])) {
        str.data++;
        str.len--;
    }
    while (str.len > 0 && is_space(str.data[str.len - 1]))
        str.len--;
    return str;
}

struct str str_cut(struct str *rest, char separator)
{
    struct str whole = *rest;
    const char *at = whole.len == 0 ? NULL : memchr(whole.data, separator, whole.len);
    if (at == NULL) {
        *rest = STR("");
        return whole;
    }
    size_t len = (size_t)(at - whole.data);
    *rest = (struct str){at + 1, whole.len - len - 1};
    return (struct str){whole.data, len};
}

bool str_to_u64(struct str str, uint64_t *out_value)
{
    if (str.len == 0)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < str.len; i++) {
        if (str.data[i] < '0' || str.data[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(str.data[i] - '0'), &value))
            return false;
    }
    *out_value = value;
    return true;
}

bool str_to_i64(struct str str, int64_t *out_value)
{
    bool is_negative = str.len > 0 && str.data[0] == '-';
    if (is_negative) {
        str.data++;
        str.len--;
    }
    uint64_t size;
    if (!str_to_u64(str, &size))
        return false;
    if (size > (uint64_t)INT64_MAX + (is_negative ? 1 : 0))
        return false;
    // Negated as unsigned: INT64_MIN has no positive counterpart.
    *out_value = (int64_t)(is_negative ? 0 - size : size);
    return true;
}

static size_t count_digits(struct str str, size_t start)
{
    size_t end = start;
    while (end < str.len && str.data[end] >= '0' && str.data[end] <= '9')
        end++;
    return end - start;
}

// Sign, digits with a point somewhere, exponent. strtod alone would also take hexadecimal, names of
// infinities, and spaces in front.
static bool is_decimal(struct str str)
{
    size_t i = 0;
    if (i < str.len && (str.data[i] == '-' || str.data[i] == '+'))
        i++;
    size_t digits = count_digits(str, i);
    i += digits;
    if (i < str.len && str.data[i] == '.') {
        size_t fraction = count_digits(str, i + 1);
        digits += fraction;
        i += 1 + fraction;
    }
    if (digits == 0)
        return false;
    if (i < str.len && (str.data[i] == 'e' || str.data[i] == 'E')) {
        i++;
        if (i < str.len && (str.data[i] == '-' || str.data[i] == '+'))
            i++;
        size_t exponent = count_digits(str, i);
        if (exponent == 0)
            return false;
        i += exponent;
    }
    return i == str.len;
}

bool str_to_double(struct str str, double *out_value)
{
    char text[400]; // more digits than any double needs to be told from its neighbours is no number
    if (str.len >= sizeof(text) || !is_decimal(str))
        return false;
    memcpy(text, str.data, str.len);
    text[str.len] = '\0';
    double value = strtod(text, NULL);
    if (value > 1.7976931348623157e308 || value < -1.7976931348623157e308)
        return false;
    *out_value = value;
    return true;
}

size_t str_utf8_size(struct str str)
{
    if (str.len == 0)
        return 0;
    const uint8_t *bytes = (const uint8_t *)str.data;
    if (bytes[0] < 0x80)
        return 1;
    // What the second byte may be keeps overlong forms, surrogates and what lies beyond U+10FFFF
    // out (RFC 3629, section 4).
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    size_t size;
    if (bytes[0] >= 0xC2 && bytes[0] <= 0xDF) {
        size = 2;
    } else if (bytes[0] >= 0xE0 && bytes[0] <= 0xEF) {
        size = 3;
        low = bytes[0] == 0xE0 ? 0xA0 : low;
        high = bytes[0] == 0xED ? 0x9F : high;
    } else if (bytes[0] >= 0xF0 && bytes[0] <= 0xF4) {
        size = 4;
        low = bytes[0] == 0xF0 ? 0x90 : low;
        high = bytes[0] == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (str.len < size || bytes[1] < low || bytes[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++) {
        if ((bytes[i] & 0xC0) != 0x80)
            return 0;
    }
    return size;
}

bool str_is_utf8(struct str str)
{
    while (str.len > 0) {
        // Mostly ASCII: eight bytes at a time.
        uint64_t word;
        if (str.len >= sizeof(word)) {
            memcpy(&word, str.data, sizeof(word));
            if ((word & 0x8080808080808080U) == 0) {
                str.data += sizeof(word);
                str.len -= sizeof(word);
                continue;
            }
        }
        size_t size = str_utf8_size(str);
        if (size == 0)
            return false;
        str.data += size;
        str.len -= size;
    }
    return true;
}
