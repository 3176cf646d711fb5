#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vector/distance.h"

// Codes: vectors as bytes, for searches that compare many. All three distances become one, the
// squared Euclidean distance between codes, which is a whole number and so the same on every
// machine:
//
//   euclidean  the vector as it is
//   cosine     scaled to length 1, where the squared distance is twice the cosine distance
//   dot        one more value, sqrt(norm_max² - norm²), makes all points equally long, so the
//              nearest is the one with the largest product; a query has 0 there and is scaled to
//              norm_max. (Bachrach et al., "Speeding up the Xbox recommender system", 2014)
//
// Each value, less the mean of its position, is divided by one scale for all positions, rounded and
// clamped to -63 … 63, and stored with 64 added. Seven bits, because differences of such codes fit
// a signed byte: every instruction set can square and add them without saturating.
//
// Mean and scale are learned from a sample; the same sample in the same order gives the same bits.
// A quantizer does not change. Any thread.

struct quantizer;

enum {
    QUANTIZER_ALIGNMENT = 64, // of codes, and what their size is a multiple of
    QUANTIZER_SAMPLE_MAX = 4096,
};

struct quantizer_sample {
    const float *const *vectors;
    uint32_t count; // 1 to QUANTIZER_SAMPLE_MAX
};

struct quantizer *quantizer_create(enum distance distance, uint32_t dimension,
                                   const struct quantizer_sample *sample);
void quantizer_destroy(struct quantizer *quantizer); // quantizer may be NULL

// Bytes of a code.
uint32_t quantizer_code_size(const struct quantizer *quantizer);
// The code of a stored vector, or of a query; out_code is aligned. Returns how many values had to
// be clamped: many say that the sample was not like the data.
uint32_t quantizer_encode(const struct quantizer *quantizer, const float *vector,
                          uint8_t *out_code);
uint32_t quantizer_encode_query(const struct quantizer *quantizer, const float *vector,
                                uint8_t *out_code);
// How far from its true value a squared distance of codes is on average, in units of codes.
uint32_t quantizer_noise(const struct quantizer *quantizer);
// As numbers, to keep it: so many, the same bits again. NULL: they are none that save gave.
uint32_t quantizer_float_count(const struct quantizer *quantizer);
void quantizer_save(const struct quantizer *quantizer, float *out_floats);
struct quantizer *quantizer_restore(enum distance distance, uint32_t dimension, const float *floats,
                                    uint32_t count);
// The code size that a quantizer of this kind will have.
uint32_t quantizer_code_size_for(enum distance distance, uint32_t dimension);
