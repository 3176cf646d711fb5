#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/json_number_internal.h"
#include "base/assert.h"

// The text is read as a number, compared with strtof and strtod; the bytes as a float are written
// and read back.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_read(struct str text)
{
    char copy[64];
    float narrow = 0;
    double wide = 0;
    int64_t whole = 0;
    uint64_t large = 0;
    bool is_number = text.len > 0 && json_number_size(text) == text.len;
    bool is_float = json_number_to_float(text, &narrow);
    bool is_double = json_number_to_double(text, &wide);
    if (json_number_to_i64(text, &whole) || json_number_to_u64(text, &large))
        ASSERT(is_number);
    if (!is_number) {
        ASSERT(!is_float && !is_double);
        return;
    }
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    float narrow_wanted = strtof(copy, NULL);
    double wide_wanted = strtod(copy, NULL);
    ASSERT(is_float == (isfinite(narrow_wanted) != 0));
    ASSERT(is_double == (isfinite(wide_wanted) != 0));
    ASSERT(!is_float || (narrow == narrow_wanted && signbit(narrow) == signbit(narrow_wanted)));
    ASSERT(!is_double || (wide == wide_wanted && signbit(wide) == signbit(wide_wanted)));
}

static void check_write(float value)
{
    struct buf out;
    float back = 0;
    buf_init(&out, 64);
    json_append_float(&out, value);
    ASSERT(!buf_has_overflowed(&out));
    if (isfinite(value)) {
        ASSERT(json_number_to_float(buf_str(&out), &back));
        ASSERT(back == value && signbit(back) == signbit(value));
    }
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 64)
        check_read((struct str){(const char *)data, size});
    float value;
    if (size >= sizeof(value)) {
        memcpy(&value, data, sizeof(value));
        check_write(value);
    }
    return 0;
}
