#include "vector/kernel_internal.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <stdbool.h>

// Hot path: NEON, which every 64-bit ARM has. As the AVX2 kernel with registers half as wide.

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 4, WIDTH = 4 };

INLINE float32x4_t add_terms(bool is_dot, float32x4_t sum, float32x4_t query, float32x4_t row)
{
    if (is_dot)
        return vfmaq_f32(sum, query, row);
    float32x4_t difference = vsubq_f32(query, row);
    return vfmaq_f32(sum, difference, difference);
}

INLINE float32x4_t load_tail(const float *values, uint32_t count)
{
    float padded[WIDTH] = {0};
    for (uint32_t i = 0; i < count; i++)
        padded[i] = values[i];
    return vld1q_f32(padded);
}

// Rows row to row + count - 1; count is a constant for the compiler.
INLINE void sum_rows(bool is_dot, uint32_t count, const float *query, const float *first,
                     const struct kernel_rows *rows, float *out)
{
    float32x4_t even[ROWS];
    float32x4_t odd[ROWS];
    for (uint32_t i = 0; i < count; i++)
        even[i] = odd[i] = vdupq_n_f32(0);
    uint32_t k = 0;
    for (; k + 2 * WIDTH <= rows->dimension; k += 2 * WIDTH) {
        float32x4_t query_even = vld1q_f32(query + k);
        float32x4_t query_odd = vld1q_f32(query + k + WIDTH);
        for (uint32_t i = 0; i < count; i++) {
            const float *row = first + rows->stride * i + k;
            even[i] = add_terms(is_dot, even[i], query_even, vld1q_f32(row));
            odd[i] = add_terms(is_dot, odd[i], query_odd, vld1q_f32(row + WIDTH));
        }
    }
    for (; k < rows->dimension; k += WIDTH) {
        uint32_t left = rows->dimension - k;
        uint32_t size = left < WIDTH ? left : WIDTH;
        float32x4_t part = load_tail(query + k, size);
        for (uint32_t i = 0; i < count; i++)
            even[i] =
                add_terms(is_dot, even[i], part, load_tail(first + rows->stride * i + k, size));
    }
    for (uint32_t i = 0; i < count; i++)
        out[i] = vaddvq_f32(vaddq_f32(even[i], odd[i]));
}

INLINE void sum_all(bool is_dot, const float *query, const struct kernel_rows *rows, float *out)
{
    uint32_t i = 0;
    for (; i + ROWS <= rows->count; i += ROWS)
        sum_rows(is_dot, ROWS, query, rows->first + rows->stride * i, rows, out + i);
    for (; i < rows->count; i++)
        sum_rows(is_dot, 1, query, rows->first + rows->stride * i, rows, out + i);
}

static void dot(const float *query, const struct kernel_rows *rows, float *out)
{
    sum_all(true, query, rows, out);
}

static void l2_squared(const float *query, const struct kernel_rows *rows, float *out)
{
    sum_all(false, query, rows, out);
}

// The double sums are the scalar ones: two lanes a register win little, and the order is fixed.
static double dot_double(const float *a, const float *b, uint32_t dimension)
{
    return kernel_scalar.dot_double(a, b, dimension);
}

static double l2_squared_double(const float *a, const float *b, uint32_t dimension)
{
    return kernel_scalar.l2_squared_double(a, b, dimension);
}

static int32_t code_l2_of(const uint8_t *query, const uint8_t *code, size_t size)
{
    uint32x4_t sum = vdupq_n_u32(0);
    for (size_t k = 0; k < size; k += 16) {
        uint8x16_t difference = vabdq_u8(vld1q_u8(query + k), vld1q_u8(code + k));
        uint16x8_t low = vmull_u8(vget_low_u8(difference), vget_low_u8(difference));
        uint16x8_t high = vmull_u8(vget_high_u8(difference), vget_high_u8(difference));
        sum = vpadalq_u16(sum, low);
        sum = vpadalq_u16(sum, high);
    }
    return (int32_t)vaddvq_u32(sum);
}

static void code_l2(const uint8_t *query, const struct kernel_codes *codes, const uint32_t *rows,
                    uint32_t count, int32_t *out)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = code_l2_of(query, codes->first + codes->size * rows[i], codes->size);
}

const struct kernel kernel_neon = {"neon", dot, l2_squared, dot_double, l2_squared_double, code_l2};

#endif
