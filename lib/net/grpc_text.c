#include "net/grpc_text.h"

#include <stdio.h>
#include <string.h>

bool grpc_timeout_parse(struct str text, uint64_t *out_ns)
{
    static const char units[] = "HMSmun";
    static const uint64_t factors[] = {3600000000000, 60000000000, 1000000000, 1000000, 1000, 1};
    if (text.len < 2 || text.len > 9)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    const char *unit = memchr(units, text.data[text.len - 1], sizeof(units) - 1);
    if (unit == NULL)
        return false;
    uint64_t factor = factors[unit - units];
    *out_ns = value > UINT64_MAX / factor ? UINT64_MAX : value * factor;
    return true;
}

struct str grpc_timeout_format(uint64_t timeout_ns, char out[static GRPC_TIMEOUT_SIZE])
{
    static const char units[] = "numSMH";
    static const uint64_t factors[] = {1, 1000, 1000000, 1000000000, 60000000000, 3600000000000};
    enum { UNIT_COUNT = 6 };
    uint64_t value = timeout_ns > 0 ? timeout_ns : 1;
    int unit = 0;
    // The finest unit whose number fits into 8 digits loses at most a hundred-thousandth.
    while (unit + 1 < UNIT_COUNT && timeout_ns / factors[unit] > 99999999) {
        unit++;
        value = timeout_ns / factors[unit];
    }
    if (value > 99999999)
        value = 99999999;
    int len = snprintf(out, GRPC_TIMEOUT_SIZE, "%u%c", (unsigned)value, units[unit]);
    return (struct str){out, (size_t)len};
}

// HTTP/2 allows no space at either end of a header's value: peers reset the call for it.
static bool is_plain(struct str text, size_t i)
{
    char c = text.data[i];
    bool is_at_end = i == 0 || i + 1 == text.len;
    return c >= ' ' && c <= '~' && c != '%' && !(c == ' ' && is_at_end);
}

struct str grpc_percent_encode(struct arena *arena, struct str text)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t special = 0;
    for (size_t i = 0; i < text.len; i++)
        special += is_plain(text, i) ? 0 : 1;
    if (special == 0)
        return arena_str(arena, text);
    char *out = arena_alloc(arena, text.len + special * 2);
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (is_plain(text, i)) {
            out[len++] = (char)c;
        } else {
            out[len++] = '%';
            out[len++] = digits[c >> 4];
            out[len++] = digits[c & 15];
        }
    }
    return (struct str){out, len};
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

struct str grpc_percent_decode(struct arena *arena, struct str text)
{
    if (text.len == 0 || memchr(text.data, '%', text.len) == NULL)
        return text;
    char *out = arena_alloc(arena, text.len);
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        int high = -1;
        int low = -1;
        if (text.data[i] == '%' && text.len - i > 2) {
            high = hex_value(text.data[i + 1]);
            low = hex_value(text.data[i + 2]);
        }
        if (high < 0 || low < 0) {
            out[len++] = text.data[i];
            continue;
        }
        out[len++] = (char)(high * 16 + low);
        i += 2;
    }
    return (struct str){out, len};
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

bool grpc_base64_decode(struct str text, uint8_t *out, size_t *out_size)
{
    size_t len = text.len;
    for (int i = 0; i < 2 && len > 0 && text.data[len - 1] == '='; i++)
        len--;
    if (len % 4 == 1 || (len != text.len && text.len % 4 != 0))
        return false;
    size_t size = 0;
    uint32_t bits = 0;
    unsigned bit_count = 0;
    for (size_t i = 0; i < len; i++) {
        int value = base64_value(text.data[i]);
        if (value < 0)
            return false;
        bits = (bits << 6 | (uint32_t)value) & 0xffffff;
        bit_count += 6;
        if (bit_count >= 8) {
            bit_count -= 8;
            out[size++] = (uint8_t)(bits >> bit_count);
        }
    }
    *out_size = size;
    return true;
}

struct str grpc_base64_encode(struct arena *arena, struct span bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = arena_alloc(arena, bytes.len / 3 * 4 + 4);
    size_t len = 0;
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t left = bytes.len - i;
        uint32_t bits = (uint32_t)bytes.data[i] << 16;
        if (left > 1)
            bits |= (uint32_t)bytes.data[i + 1] << 8;
        if (left > 2)
            bits |= bytes.data[i + 2];
        size_t count = left > 2 ? 4 : left + 1;
        for (size_t j = 0; j < count; j++)
            out[len++] = digits[bits >> (18 - 6 * j) & 63];
    }
    return (struct str){out, len};
}
