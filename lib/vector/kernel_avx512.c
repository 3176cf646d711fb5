#include "vector/kernel_internal.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>

#include "vector/code_avx512.h"

// Hot path: AVX-512F. As the AVX2 kernel with registers twice as wide and the tail under a mask.

#define AVX512 __attribute__((target("avx512f")))
#define INLINE static inline __attribute__((always_inline, target("avx512f")))

enum { ROWS = 4, WIDTH = 16 };

INLINE __m512 add_terms(bool is_dot, __m512 sum, __m512 query, __m512 row)
{
    if (is_dot)
        return _mm512_fmadd_ps(query, row, sum);
    __m512 difference = _mm512_sub_ps(query, row);
    return _mm512_fmadd_ps(difference, difference, sum);
}

// Rows row to row + count - 1; count is a constant for the compiler.
INLINE void sum_rows(bool is_dot, uint32_t count, const float *query, const float *first,
                     const struct kernel_rows *rows, float *out)
{
    __m512 even[ROWS];
    __m512 odd[ROWS];
    for (uint32_t i = 0; i < count; i++)
        even[i] = odd[i] = _mm512_setzero_ps();
    uint32_t k = 0;
    for (; k + 2 * WIDTH <= rows->dimension; k += 2 * WIDTH) {
        __m512 query_even = _mm512_loadu_ps(query + k);
        __m512 query_odd = _mm512_loadu_ps(query + k + WIDTH);
        for (uint32_t i = 0; i < count; i++) {
            const float *row = first + rows->stride * i + k;
            even[i] = add_terms(is_dot, even[i], query_even, _mm512_loadu_ps(row));
            odd[i] = add_terms(is_dot, odd[i], query_odd, _mm512_loadu_ps(row + WIDTH));
        }
    }
    if (k + WIDTH <= rows->dimension) {
        __m512 part = _mm512_loadu_ps(query + k);
        for (uint32_t i = 0; i < count; i++)
            even[i] =
                add_terms(is_dot, even[i], part, _mm512_loadu_ps(first + rows->stride * i + k));
        k += WIDTH;
    }
    if (k < rows->dimension) {
        __mmask16 mask = (__mmask16)((1U << (rows->dimension - k)) - 1);
        __m512 part = _mm512_maskz_loadu_ps(mask, query + k);
        for (uint32_t i = 0; i < count; i++)
            odd[i] = add_terms(is_dot, odd[i], part,
                               _mm512_maskz_loadu_ps(mask, first + rows->stride * i + k));
    }
    for (uint32_t i = 0; i < count; i++)
        out[i] = _mm512_reduce_add_ps(_mm512_add_ps(even[i], odd[i]));
}

INLINE void sum_all(bool is_dot, const float *query, const struct kernel_rows *rows, float *out)
{
    uint32_t i = 0;
    for (; i + ROWS <= rows->count; i += ROWS)
        sum_rows(is_dot, ROWS, query, rows->first + rows->stride * i, rows, out + i);
    for (; i < rows->count; i++)
        sum_rows(is_dot, 1, query, rows->first + rows->stride * i, rows, out + i);
}

AVX512 static void dot(const float *query, const struct kernel_rows *rows, float *out)
{
    sum_all(true, query, rows, out);
}

AVX512 static void l2_squared(const float *query, const struct kernel_rows *rows, float *out)
{
    sum_all(false, query, rows, out);
}

enum { DOUBLE_PARTS = KERNEL_DOUBLE_LANES / 8 };

AVX512 static double dot_double(const float *a, const float *b, uint32_t dimension)
{
    __m512d sums[DOUBLE_PARTS];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        sums[i] = _mm512_setzero_pd();
    uint32_t k = 0;
    for (; k + KERNEL_DOUBLE_LANES <= dimension; k += KERNEL_DOUBLE_LANES) {
        for (uint32_t i = 0; i < DOUBLE_PARTS; i++) {
            __m512d left = _mm512_cvtps_pd(_mm256_loadu_ps(a + k + 8 * i));
            __m512d right = _mm512_cvtps_pd(_mm256_loadu_ps(b + k + 8 * i));
            // The product of two floats is exact, so this rounds once, as a sum does.
            sums[i] = _mm512_fmadd_pd(left, right, sums[i]);
        }
    }
    double lanes[KERNEL_DOUBLE_LANES];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        _mm512_storeu_pd(lanes + 8 * i, sums[i]);
    return kernel_finish_dot(lanes, a + k, b + k, dimension - k);
}

// The square and the sum are two statements and stay two operations (ISO C lets compilers fuse only
// within an expression): a fused one would round differently from the scalar kernel's.
AVX512 static double l2_squared_double(const float *a, const float *b, uint32_t dimension)
{
    __m512d sums[DOUBLE_PARTS];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        sums[i] = _mm512_setzero_pd();
    uint32_t k = 0;
    for (; k + KERNEL_DOUBLE_LANES <= dimension; k += KERNEL_DOUBLE_LANES) {
        for (uint32_t i = 0; i < DOUBLE_PARTS; i++) {
            __m512d left = _mm512_cvtps_pd(_mm256_loadu_ps(a + k + 8 * i));
            __m512d right = _mm512_cvtps_pd(_mm256_loadu_ps(b + k + 8 * i));
            __m512d difference = _mm512_sub_pd(left, right);
            __m512d square = _mm512_mul_pd(difference, difference);
            sums[i] = _mm512_add_pd(sums[i], square);
        }
    }
    double lanes[KERNEL_DOUBLE_LANES];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        _mm512_storeu_pd(lanes + 8 * i, sums[i]);
    return kernel_finish_l2(lanes, a + k, b + k, dimension - k);
}

// --- Codes

__attribute__((target(CODE_AVX512_TARGET))) static void code_l2(const uint8_t *query,
                                                                const struct kernel_codes *codes,
                                                                const uint32_t *rows,
                                                                uint32_t count, int32_t *out)
{
    uint32_t i = 0;
    for (; i + CODE_AVX512_ROWS <= count; i += CODE_AVX512_ROWS)
        _mm_storeu_si128((__m128i *)(void *)(out + i),
                         code_avx512_l2(codes->size, query, codes->first, rows + i));
    if (i == count)
        return;
    uint32_t last_rows[CODE_AVX512_ROWS];
    int32_t last[CODE_AVX512_ROWS];
    for (uint32_t k = 0; k < CODE_AVX512_ROWS; k++)
        last_rows[k] = rows[i + k < count ? i + k : i];
    _mm_storeu_si128((__m128i *)(void *)last,
                     code_avx512_l2(codes->size, query, codes->first, last_rows));
    for (uint32_t k = 0; i + k < count; k++)
        out[i + k] = last[k];
}

const struct kernel kernel_avx512 = {"avx512",          dot,    l2_squared, dot_double,
                                     l2_squared_double, code_l2};

#endif
