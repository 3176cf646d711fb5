#include "vectron/npy.h"

#include <stdio.h>
#include <string.h>

#include "testing/test.h"

static struct span npy_bytes(char *out, size_t size, const char *header, const void *values,
                             size_t values_size)
{
    static const uint8_t magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    struct str text = str_from_cstr(header);
    memset(out, 0, size);
    memcpy(out, magic, sizeof(magic));
    out[8] = (char)text.len;
    memcpy(out + 10, text.data, text.len);
    memcpy(out + 10 + text.len, values, values_size);
    return (struct span){(const uint8_t *)out, 10 + text.len + values_size};
}

TEST(float32_rows_come_back_bit_for_bit)
{
    char bytes[256];
    const float values[] = {1.5F, -0.0F, 3e-40F, 4, 5, 6};
    float row[3];
    struct npy npy;
    struct error error;
    CHECK(
        npy_decode_header(npy_bytes(bytes, sizeof(bytes),
                                    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n",
                                    values, sizeof(values)),
                          &error, &npy) == STATUS_OK);
    CHECK(npy.row_count == 2 && npy.column_count == 3);
    npy_row(&npy, 0, row);
    uint32_t bits[3];
    uint32_t wanted[3];
    memcpy(bits, row, sizeof(bits));
    memcpy(wanted, values, sizeof(wanted));
    CHECK(memcmp(bits, wanted, sizeof(bits)) == 0);
}

TEST(float64_becomes_float32)
{
    char bytes[256];
    const double values[] = {0.1, 2};
    float row[2];
    struct npy npy;
    struct error error;
    CHECK(
        npy_decode_header(npy_bytes(bytes, sizeof(bytes),
                                    "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }\n",
                                    values, sizeof(values)),
                          &error, &npy) == STATUS_OK);
    npy_row(&npy, 0, row);
    CHECK(row[0] == 0.1F && row[1] == 2);
}

TEST(what_it_cannot_read_is_refused_with_a_reason)
{
    static const struct {
        const char *header;
        const char *reason;
    } cases[] = {
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1), }", "float32"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", "row by row"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 1), }", "shorter"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 70000), }", "65535"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 1), }", "shape"},
    };
    char bytes[256];
    const float value = 1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct npy npy;
        struct error error = {0};
        CHECK(npy_decode_header(
                  npy_bytes(bytes, sizeof(bytes), cases[i].header, &value, sizeof(value)), &error,
                  &npy) == STATUS_INVALID);
        CHECK(strstr(error.text, cases[i].reason) != NULL);
    }
}

TEST_MAIN()
