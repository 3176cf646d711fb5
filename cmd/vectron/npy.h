#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

// NumPy's .npy files (NEP 1, versions 1 to 3) that hold one matrix of little-endian float32 or
// float64, row by row. The file is mapped, so a large one costs no memory. One thread.

struct npy {
    void *map;
    size_t map_size;
    const uint8_t *values;
    uint32_t value_size; // 4 or 8
    uint64_t row_count;
    uint32_t column_count;
};

// INVALID: not such a file, the error says in what way. IO: cannot be read.
enum status npy_open(const char *path, struct error *error, struct npy *out_npy);
void npy_close(struct npy *npy);
void npy_row(const struct npy *npy, uint64_t row, float *out_values);

// The header alone: what lies at the start of the bytes. Separate, so that it can be fuzzed.
enum status npy_decode_header(struct span bytes, struct error *error, struct npy *out_npy);
