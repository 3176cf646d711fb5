#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

// What near means. A score is a distance, smaller is nearer: 1 - cos (cosine), the L2 norm of the
// difference (euclidean), minus the inner product (dot). Scores are computed in double from the
// stored floats and rounded once, so they are the same on every machine; finite vectors always have
// finite scores, at most FLT_MAX either way. Any thread.

enum distance { DISTANCE_COSINE, DISTANCE_EUCLIDEAN, DISTANCE_DOT };

// Empty means cosine. False: it is none.
bool distance_from_str(struct str text, enum distance *out_distance);
const char *distance_name(enum distance distance);

// A query that is compared to many rows. The vector is borrowed.
struct distance_query {
    enum distance distance;
    uint32_t dimension;
    const float *vector;
    double norm_squared;
};

void distance_query_init(struct distance_query *query, enum distance distance, const float *vector,
                         uint32_t dimension);
float distance_query_score(const struct distance_query *query, const float *row);
// One pair.
float distance_score(enum distance distance, const float *a, const float *b, uint32_t dimension);

// Never overflows, and is 0 only for a vector of zeros.
double distance_norm_squared(const float *vector, uint32_t dimension);

// Whether a vector may be stored or asked for. INVALID: not of this dimension, a value that is NaN
// or infinite, or zeros only under cosine; the error says which.
enum status distance_check_vector(enum distance distance, uint32_t dimension, const float *vector,
                                  size_t count, struct error *error);
