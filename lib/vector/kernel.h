#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

// Sums over float32 vectors, once for each instruction set: scalar, AVX2 with FMA, AVX-512F, NEON.
// The processor is asked once, at the first use; kernel_choose forces one.
//
// There are two kinds. The float32 sums run over many rows that lie behind each other and are as
// fast as memory delivers; they overflow, lose tiny values, and differ in their last bits between
// instruction sets, so they only decide what is looked at again (kernel_error_bound says how wrong
// they can be). The double sums are what scores are made of: neither can any float32 make them
// overflow, and they give the same bits on every machine, because they always add in the same
// order.
//
// Codes (quantizer.h) are compared in whole numbers, so every kernel finds the same. Any thread.

struct kernel_rows {
    const float *first;
    size_t stride; // floats from one row to the next, at least dimension; any alignment will do
    uint32_t count;
    uint32_t dimension;
};

struct kernel_codes {
    const uint8_t *first; // aligned to 64 bytes
    size_t size;          // bytes of a code, a multiple of 64; each byte is at most 127
};

struct kernel {
    const char *name; // "scalar", "avx2", "avx512", "neon"
    // out[i] = sum over k of query[k] * row_i[k]
    void (*dot)(const float *query, const struct kernel_rows *rows, float *out);
    // out[i] = sum over k of (query[k] - row_i[k])²
    void (*l2_squared)(const float *query, const struct kernel_rows *rows, float *out);
    double (*dot_double)(const float *a, const float *b, uint32_t dimension);
    double (*l2_squared_double)(const float *a, const float *b, uint32_t dimension);
    // out[i] = sum over k of (query[k] - code_rows[i][k])²; query is a code, aligned like one.
    void (*code_l2)(const uint8_t *query, const struct kernel_codes *codes, const uint32_t *rows,
                    uint32_t count, int32_t *out);
};

// The one that this process uses.
const struct kernel *kernel_get(void);
// By name; empty: the best that the processor has. INVALID: no such kernel, or the processor cannot
// run it; the error says which there are. At start, before other threads use any.
enum status kernel_choose(struct str name, struct error *error);

// All that this processor can run, the slowest (scalar) first; NULL behind the last.
const struct kernel *kernel_at(uint32_t index);

// How far a float32 sum can be from the true one, as a part of the sum of the absolute values of
// its terms, as long as nothing overflows or underflows.
float kernel_error_bound(uint32_t dimension);
