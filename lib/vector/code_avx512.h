#pragma once

#if defined(__x86_64__)

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

// Hot path: the comparison of codes with AVX-512 VNNI, to be inlined where the size of a code is
// known: by the kernel and by the search that compares thousands of codes one after the other. Four
// at a time, so that there is always a load under way.

#define CODE_AVX512_TARGET "avx512f,avx512bw,avx512vl,avx512vnni"
#define CODE_AVX512        static inline __attribute__((always_inline, target(CODE_AVX512_TARGET)))

enum { CODE_AVX512_ROWS = 4, CODE_AVX512_WIDTH = 64 };

// The sums of the lanes of four registers.
CODE_AVX512 __m128i code_avx512_sum(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64(abcd, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

CODE_AVX512 __m512i code_avx512_add(__m512i sum, __m512i query, const uint8_t *code)
{
    __m512i difference =
        _mm512_abs_epi8(_mm512_sub_epi8(query, _mm512_load_si512((const void *)code)));
    return _mm512_dpbusd_epi32(sum, difference, difference);
}

// Four codes of size bytes, which is a constant for the compiler where that pays.
CODE_AVX512 __m128i code_avx512_l2(size_t size, const uint8_t *query, const uint8_t *first,
                                   const uint32_t rows[static CODE_AVX512_ROWS])
{
    const uint8_t *a = first + size * rows[0];
    const uint8_t *b = first + size * rows[1];
    const uint8_t *c = first + size * rows[2];
    const uint8_t *d = first + size * rows[3];
    __m512i sum_a = _mm512_setzero_si512();
    __m512i sum_b = sum_a;
    __m512i sum_c = sum_a;
    __m512i sum_d = sum_a;
#pragma GCC unroll 8
    for (size_t k = 0; k < size; k += CODE_AVX512_WIDTH) {
        __m512i part = _mm512_load_si512((const void *)(query + k));
        sum_a = code_avx512_add(sum_a, part, a + k);
        sum_b = code_avx512_add(sum_b, part, b + k);
        sum_c = code_avx512_add(sum_c, part, c + k);
        sum_d = code_avx512_add(sum_d, part, d + k);
    }
    return code_avx512_sum(sum_a, sum_b, sum_c, sum_d);
}

#endif
