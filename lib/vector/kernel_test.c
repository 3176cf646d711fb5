#include "vector/kernel.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "testing/test.h"

enum { ROWS = 11, DIMENSION_MAX = 2100 };

enum values { VALUES_USUAL, VALUES_TINY, VALUES_HUGE, VALUES_MIXED, VALUES_INTEGERS, VALUES_COUNT };

static float value_of(struct rng *rng, enum values values)
{
    float unit = (float)(rng_unit(rng) * 2 - 1);
    switch (values) {
    case VALUES_TINY:
        return ldexpf(unit, -140);
    case VALUES_HUGE:
        return unit * FLT_MAX;
    case VALUES_MIXED:
        return ldexpf(unit, (int)rng_below(rng, 250) - 140);
    case VALUES_INTEGERS:
        return (float)rng_below(rng, 7) - 3;
    default:
        return unit;
    }
}

// The true sum and the sum of its terms' absolute values.
static void reference(bool is_dot, const float *a, const float *b, uint32_t dimension,
                      long double out[static 2])
{
    out[0] = out[1] = 0;
    for (uint32_t k = 0; k < dimension; k++) {
        long double difference = (long double)a[k] - (long double)b[k];
        long double term = is_dot ? (long double)a[k] * (long double)b[k] : difference * difference;
        out[0] += term;
        out[1] += fabsl(term);
    }
}

static void check_sum(float sum, const long double truth[static 2], uint32_t dimension)
{
    if (truth[1] > (long double)FLT_MAX * 0.99L)
        return; // may overflow
    long double allowed =
        truth[1] * (long double)kernel_error_bound(dimension) + (long double)dimension * 0x1p-149L;
    if (!CHECK(fabsl((long double)sum - truth[0]) <= allowed))
        printf("    dimension %u: %.9g, should be %.9Lg\n", dimension, (double)sum, truth[0]);
}

static bool are_same(float a, float b)
{
    uint32_t bits_a;
    uint32_t bits_b;
    memcpy(&bits_a, &a, sizeof(a));
    memcpy(&bits_b, &b, sizeof(b));
    return bits_a == bits_b || (isnan(a) && isnan(b));
}

static void check_rows(const struct kernel *kernel, const float *query,
                       const struct kernel_rows *rows)
{
    float dots[ROWS + 1];
    float squares[ROWS + 1];
    dots[rows->count] = squares[rows->count] = 42;
    kernel->dot(query, rows, dots);
    kernel->l2_squared(query, rows, squares);
    CHECK(dots[rows->count] == 42 && squares[rows->count] == 42);
    for (uint32_t i = 0; i < rows->count; i++) {
        const float *row = rows->first + rows->stride * i;
        long double truth[2];
        reference(true, query, row, rows->dimension, truth);
        check_sum(dots[i], truth, rows->dimension);
        reference(false, query, row, rows->dimension, truth);
        check_sum(squares[i], truth, rows->dimension);
        // Alone or among others: the same bits.
        struct kernel_rows one = {row, rows->stride, 1, rows->dimension};
        float alone;
        kernel->dot(query, &one, &alone);
        CHECK(are_same(alone, dots[i]));
        kernel->l2_squared(query, &one, &alone);
        CHECK(are_same(alone, squares[i]));
    }
}

static void check_double(const struct kernel *kernel, const float *a, const float *b,
                         uint32_t dimension)
{
    const struct kernel *scalar = kernel_at(0);
    double dot = kernel->dot_double(a, b, dimension);
    double square = kernel->l2_squared_double(a, b, dimension);
    double scalar_dot = scalar->dot_double(a, b, dimension);
    double scalar_square = scalar->l2_squared_double(a, b, dimension);
    CHECK(dot == scalar_dot);
    CHECK(square == scalar_square);
    long double truth[2];
    reference(true, a, b, dimension, truth);
    CHECK(fabsl((long double)dot - truth[0]) <= truth[1] * 1e-12L);
    reference(false, a, b, dimension, truth);
    CHECK(fabsl((long double)square - truth[0]) <= truth[1] * 1e-12L);
}

// The block ends where the last row does: reading behind it is found by the address sanitizer.
static void check_kernel(const struct kernel *kernel, struct rng *rng, uint32_t dimension,
                         enum values values)
{
    uint32_t shift = (uint32_t)rng_below(rng, 4);
    size_t stride = dimension + rng_below(rng, 3);
    size_t size = shift + stride * (ROWS - 1) + dimension;
    float *block = mem_alloc(size * sizeof(float));
    float *query = mem_alloc((dimension + shift) * sizeof(float));
    for (size_t i = 0; i < size; i++)
        block[i] = value_of(rng, values);
    for (size_t i = 0; i < dimension + shift; i++)
        query[i] = value_of(rng, values);
    for (uint32_t count = 0; count <= ROWS; count += count < 2 ? 1 : 3) {
        struct kernel_rows rows = {block + shift, stride, count, dimension};
        check_rows(kernel, query + shift, &rows);
    }
    check_double(kernel, query + shift, block + shift, dimension);
    check_double(kernel, block + shift, block + shift, dimension);
    mem_free(query);
    mem_free(block);
}

TEST(every_kernel_agrees_with_the_truth)
{
    struct rng rng;
    rng_init(&rng, 7);
    for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
        printf("kernel %s\n", kernel_at(i)->name);
        for (uint32_t dimension = 1; dimension <= 70; dimension++) {
            for (int values = 0; values < VALUES_COUNT; values++)
                check_kernel(kernel_at(i), &rng, dimension, (enum values)values);
        }
        static const uint32_t dimensions[] = {96, 100, 127, 128, 129, 768, 1536, DIMENSION_MAX};
        for (uint32_t k = 0; k < sizeof(dimensions) / sizeof(dimensions[0]); k++)
            check_kernel(kernel_at(i), &rng, dimensions[k], VALUES_USUAL);
    }
}

TEST(small_integers_are_exact)
{
    float a[67];
    float b[67];
    struct rng rng;
    rng_init(&rng, 3);
    for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
        long double truth[2];
        for (uint32_t k = 0; k < 67; k++) {
            a[k] = value_of(&rng, VALUES_INTEGERS);
            b[k] = value_of(&rng, VALUES_INTEGERS);
        }
        struct kernel_rows rows = {b, 67, 1, 67};
        float sum;
        kernel_at(i)->dot(a, &rows, &sum);
        reference(true, a, b, 67, truth);
        CHECK((long double)sum == truth[0]);
        kernel_at(i)->l2_squared(a, &rows, &sum);
        reference(false, a, b, 67, truth);
        CHECK((long double)sum == truth[0]);
    }
}

// Codes of all sizes, at random places, and the largest differences there are.
static void check_codes(const struct kernel *kernel, struct rng *rng, uint32_t size,
                        bool is_extreme)
{
    enum { CODES = 9, MOST = 127 };
    uint8_t *memory = mem_alloc((size_t)size * (CODES + 1) + 64);
    uint8_t *codes = memory + (64 - (uintptr_t)memory % 64);
    for (uint32_t i = 0; i < size * (CODES + 1); i++)
        codes[i] =
            is_extreme ? (uint8_t)(rng_below(rng, 2) * MOST) : (uint8_t)rng_below(rng, MOST + 1);
    const uint8_t *query = codes + (size_t)size * CODES;
    for (uint32_t count = 0; count <= CODES; count++) {
        uint32_t rows[CODES];
        int32_t wanted[CODES];
        int32_t found[CODES + 1];
        for (uint32_t i = 0; i < count; i++) {
            rows[i] = (uint32_t)rng_below(rng, CODES);
            wanted[i] = 0;
            for (uint32_t k = 0; k < size; k++) {
                int32_t difference = query[k] - codes[(size_t)size * rows[i] + k];
                wanted[i] += difference * difference;
            }
        }
        found[count] = 42;
        kernel->code_l2(query, &(struct kernel_codes){codes, size}, rows, count, found);
        CHECK(found[count] == 42);
        for (uint32_t i = 0; i < count; i++)
            CHECK_EQ_I64(found[i], wanted[i]);
    }
    mem_free(memory);
}

TEST(every_kernel_compares_codes_alike)
{
    struct rng rng;
    rng_init(&rng, 11);
    for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
        for (uint32_t size = 64; size <= 1024; size += 64) {
            check_codes(kernel_at(i), &rng, size, false);
            check_codes(kernel_at(i), &rng, size, true);
        }
        // The largest dimension: the sum still fits.
        check_codes(kernel_at(i), &rng, 65536, true);
    }
}

TEST(a_kernel_can_be_chosen)
{
    struct error error;
    CHECK_CSTR(kernel_at(0)->name, "scalar");
    REQUIRE_OK(kernel_choose(STR("scalar"), &error));
    CHECK(kernel_get() == kernel_at(0));
    CHECK_STATUS(kernel_choose(STR("mmx"), &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("unknown instruction set \"mmx\""));
#if defined(__x86_64__)
    CHECK_STATUS(kernel_choose(STR("neon"), &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("cannot run the instruction set neon"));
    CHECK_CONTAINS(str_from_cstr(error.text), STR("it can run scalar"));
#endif
    CHECK(kernel_get() == kernel_at(0));
    REQUIRE_OK(kernel_choose(STR(""), &error));
    uint32_t count = 0;
    while (kernel_at(count) != NULL)
        count++;
    CHECK(kernel_get() == kernel_at(count - 1));
}

TEST_MAIN()
