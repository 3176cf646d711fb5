#include "vector/kernel_internal.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>

// Hot path: AVX2 with FMA. Four rows at a time with two partial sums each keep eight
// multiply-adds in flight, as many as their latency asks for. Every row is summed in the same order
// whether it is one of four or alone, so equal rows have equal sums.

#define AVX2   __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline, target("avx2,fma")))

enum { ROWS = 4, WIDTH = 8 };

INLINE __m256 add_terms(bool is_dot, __m256 sum, __m256 query, __m256 row)
{
    if (is_dot)
        return _mm256_fmadd_ps(query, row, sum);
    __m256 difference = _mm256_sub_ps(query, row);
    return _mm256_fmadd_ps(difference, difference, sum);
}

INLINE float add_lanes(__m256 sum)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE __m256i tail_mask(uint32_t count)
{
    const __m256i places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), places);
}

// Rows row to row + count - 1; count is a constant for the compiler.
INLINE void sum_rows(bool is_dot, uint32_t count, const float *query, const float *first,
                     const struct kernel_rows *rows, float *out)
{
    __m256 even[ROWS];
    __m256 odd[ROWS];
    for (uint32_t i = 0; i < count; i++)
        even[i] = odd[i] = _mm256_setzero_ps();
    uint32_t k = 0;
    for (; k + 2 * WIDTH <= rows->dimension; k += 2 * WIDTH) {
        __m256 query_even = _mm256_loadu_ps(query + k);
        __m256 query_odd = _mm256_loadu_ps(query + k + WIDTH);
        for (uint32_t i = 0; i < count; i++) {
            const float *row = first + rows->stride * i + k;
            even[i] = add_terms(is_dot, even[i], query_even, _mm256_loadu_ps(row));
            odd[i] = add_terms(is_dot, odd[i], query_odd, _mm256_loadu_ps(row + WIDTH));
        }
    }
    if (k + WIDTH <= rows->dimension) {
        __m256 part = _mm256_loadu_ps(query + k);
        for (uint32_t i = 0; i < count; i++)
            even[i] =
                add_terms(is_dot, even[i], part, _mm256_loadu_ps(first + rows->stride * i + k));
        k += WIDTH;
    }
    if (k < rows->dimension) {
        __m256i mask = tail_mask(rows->dimension - k);
        __m256 part = _mm256_maskload_ps(query + k, mask);
        for (uint32_t i = 0; i < count; i++)
            odd[i] = add_terms(is_dot, odd[i], part,
                               _mm256_maskload_ps(first + rows->stride * i + k, mask));
    }
    for (uint32_t i = 0; i < count; i++)
        out[i] = add_lanes(_mm256_add_ps(even[i], odd[i]));
}

INLINE void sum_all(bool is_dot, const float *query, const struct kernel_rows *rows, float *out)
{
    uint32_t i = 0;
    for (; i + ROWS <= rows->count; i += ROWS)
        sum_rows(is_dot, ROWS, query, rows->first + rows->stride * i, rows, out + i);
    for (; i < rows->count; i++)
        sum_rows(is_dot, 1, query, rows->first + rows->stride * i, rows, out + i);
}

AVX2 static void dot(const float *query, const struct kernel_rows *rows, float *out)
{
    sum_all(true, query, rows, out);
}

AVX2 static void l2_squared(const float *query, const struct kernel_rows *rows, float *out)
{
    sum_all(false, query, rows, out);
}

enum { DOUBLE_PARTS = KERNEL_DOUBLE_LANES / 4 };

AVX2 static double dot_double(const float *a, const float *b, uint32_t dimension)
{
    __m256d sums[DOUBLE_PARTS];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        sums[i] = _mm256_setzero_pd();
    uint32_t k = 0;
    for (; k + KERNEL_DOUBLE_LANES <= dimension; k += KERNEL_DOUBLE_LANES) {
        for (uint32_t i = 0; i < DOUBLE_PARTS; i++) {
            __m256d left = _mm256_cvtps_pd(_mm_loadu_ps(a + k + 4 * i));
            __m256d right = _mm256_cvtps_pd(_mm_loadu_ps(b + k + 4 * i));
            // The product of two floats is exact, so this rounds once, as a sum does.
            sums[i] = _mm256_fmadd_pd(left, right, sums[i]);
        }
    }
    double lanes[KERNEL_DOUBLE_LANES];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        _mm256_storeu_pd(lanes + 4 * i, sums[i]);
    return kernel_finish_dot(lanes, a + k, b + k, dimension - k);
}

// Without FMA: a fused square would round differently from the scalar kernel's.
__attribute__((target("avx2"))) static double l2_squared_double(const float *a, const float *b,
                                                                uint32_t dimension)
{
    __m256d sums[DOUBLE_PARTS];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        sums[i] = _mm256_setzero_pd();
    uint32_t k = 0;
    for (; k + KERNEL_DOUBLE_LANES <= dimension; k += KERNEL_DOUBLE_LANES) {
        for (uint32_t i = 0; i < DOUBLE_PARTS; i++) {
            __m256d left = _mm256_cvtps_pd(_mm_loadu_ps(a + k + 4 * i));
            __m256d right = _mm256_cvtps_pd(_mm_loadu_ps(b + k + 4 * i));
            __m256d difference = _mm256_sub_pd(left, right);
            sums[i] = _mm256_add_pd(sums[i], _mm256_mul_pd(difference, difference));
        }
    }
    double lanes[KERNEL_DOUBLE_LANES];
    for (uint32_t i = 0; i < DOUBLE_PARTS; i++)
        _mm256_storeu_pd(lanes + 4 * i, sums[i]);
    return kernel_finish_l2(lanes, a + k, b + k, dimension - k);
}

// Differences of codes are at most 127, so two squares fit 16 bits: maddubs does not saturate.
AVX2 static int32_t code_l2_of(const uint8_t *query, const uint8_t *code, size_t size)
{
    __m256i even = _mm256_setzero_si256();
    __m256i odd = _mm256_setzero_si256();
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t k = 0; k < size; k += 64) {
        __m256i first = _mm256_sub_epi8(_mm256_load_si256((const void *)(query + k)),
                                        _mm256_load_si256((const void *)(code + k)));
        __m256i second = _mm256_sub_epi8(_mm256_load_si256((const void *)(query + k + 32)),
                                         _mm256_load_si256((const void *)(code + k + 32)));
        first = _mm256_abs_epi8(first);
        second = _mm256_abs_epi8(second);
        even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_maddubs_epi16(first, first), ones));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_maddubs_epi16(second, second), ones));
    }
    even = _mm256_add_epi32(even, odd);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

AVX2 static void code_l2(const uint8_t *query, const struct kernel_codes *codes,
                         const uint32_t *rows, uint32_t count, int32_t *out)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = code_l2_of(query, codes->first + codes->size * rows[i], codes->size);
}

const struct kernel kernel_avx2 = {"avx2", dot, l2_squared, dot_double, l2_squared_double, code_l2};

#endif
