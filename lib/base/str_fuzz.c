#include "base/str.h"

#include <math.h>
#include <stdio.h>

#include "base/assert.h"

// Numbers that are taken print and read back as themselves; UTF-8 is held against a second,
// slower decoder.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_utf8_by_code_points(const uint8_t *bytes, size_t len)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < len;) {
        unsigned first = bytes[i];
        size_t count = first < 0x80           ? 1
                       : (first >> 5) == 0x06 ? 2
                       : (first >> 4) == 0x0E ? 3
                       : (first >> 3) == 0x1E ? 4
                                              : 0;
        if (count == 0 || count > len - i)
            return false;
        uint32_t code = count == 1 ? first : first & (0x7FU >> count);
        for (size_t j = 1; j < count; j++) {
            if ((bytes[i + j] >> 6) != 2)
                return false;
            code = code << 6 | (bytes[i + j] & 0x3FU);
        }
        if (code < least[count] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
            return false;
        i += count;
    }
    return true;
}

static void check_numbers(struct str text)
{
    char printed[64];
    uint64_t whole = 0;
    uint64_t whole_again = 1;
    if (str_to_u64(text, &whole)) {
        int len = snprintf(printed, sizeof(printed), "%llu", (unsigned long long)whole);
        ASSERT(str_to_u64((struct str){printed, (size_t)len}, &whole_again));
        ASSERT(whole == whole_again);
    }
    int64_t number = 0;
    int64_t number_again = 1;
    if (str_to_i64(text, &number)) {
        int len = snprintf(printed, sizeof(printed), "%lld", (long long)number);
        ASSERT(str_to_i64((struct str){printed, (size_t)len}, &number_again));
        ASSERT(number == number_again);
    }
    double real = 0;
    double real_again = 1;
    if (str_to_double(text, &real)) {
        ASSERT(isfinite(real));
        int len = snprintf(printed, sizeof(printed), "%.17g", real);
        ASSERT(str_to_double((struct str){printed, (size_t)len}, &real_again));
        ASSERT(real == real_again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    ASSERT(str_is_utf8(text) == is_utf8_by_code_points(data, size));
    check_numbers(text);
    struct str trimmed = str_trim(text);
    ASSERT(trimmed.len <= size);
    return 0;
}
