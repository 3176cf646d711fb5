#include "vector/distance.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "vector/kernel.h"

static const char *const names[] = {
    [DISTANCE_COSINE] = "cosine",
    [DISTANCE_EUCLIDEAN] = "euclidean",
    [DISTANCE_DOT] = "dot",
};

bool distance_from_str(struct str text, enum distance *out_distance)
{
    if (text.len == 0) {
        *out_distance = DISTANCE_COSINE;
        return true;
    }
    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (str_equal_cstr(text, names[i])) {
            *out_distance = (enum distance)i;
            return true;
        }
    }
    return false;
}

const char *distance_name(enum distance distance)
{
    ASSERT((size_t)distance < sizeof(names) / sizeof(names[0]));
    return names[distance];
}

double distance_norm_squared(const float *vector, uint32_t dimension)
{
    return kernel_get()->dot_double(vector, vector, dimension);
}

void distance_query_init(struct distance_query *query, enum distance distance, const float *vector,
                         uint32_t dimension)
{
    *query = (struct distance_query){
        .distance = distance,
        .dimension = dimension,
        .vector = vector,
        .norm_squared = distance_norm_squared(vector, dimension),
    };
}

static float to_score(double score)
{
    if (score > (double)FLT_MAX)
        return FLT_MAX;
    if (score < -(double)FLT_MAX)
        return -FLT_MAX;
    return (float)score;
}

// The norms of equal vectors are the same number n as their inner product, and sqrt(n * n) is n
// exactly; so equal vectors are at 0 and not near it. Squares of norms lie between 1e-90 and 1e82:
// their product neither overflows nor vanishes.
static double cosine(const struct distance_query *query, const float *row)
{
    const struct kernel *kernel = kernel_get();
    double norms = query->norm_squared * kernel->dot_double(row, row, query->dimension);
    if (norms <= 0)
        return 1; // without direction; such vectors are refused before they come here
    double distance = 1 - kernel->dot_double(query->vector, row, query->dimension) / sqrt(norms);
    return fmin(fmax(distance, 0), 2);
}

float distance_query_score(const struct distance_query *query, const float *row)
{
    const struct kernel *kernel = kernel_get();
    switch (query->distance) {
    case DISTANCE_COSINE:
        return (float)cosine(query, row);
    case DISTANCE_EUCLIDEAN:
        return to_score(sqrt(kernel->l2_squared_double(query->vector, row, query->dimension)));
    case DISTANCE_DOT:
        // Not minus the product: that would make -0 of 0.
        return to_score(0 - kernel->dot_double(query->vector, row, query->dimension));
    }
    ASSERT(false);
    return 0;
}

float distance_score(enum distance distance, const float *a, const float *b, uint32_t dimension)
{
    struct distance_query query;
    distance_query_init(&query, distance, a, dimension);
    return distance_query_score(&query, b);
}

// Exponent bits all set: infinity or NaN. Without branches, so that the compiler can use wide
// registers.
static bool is_finite(const float *vector, size_t count)
{
    const uint32_t exponent = 0x7f800000;
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &vector[i], sizeof(bits));
        found |= (bits & exponent) == exponent;
    }
    return found == 0;
}

static bool is_zero(const float *vector, size_t count)
{
    const uint32_t without_sign = 0x7fffffff;
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &vector[i], sizeof(bits));
        found |= bits & without_sign;
    }
    return found == 0;
}

enum status distance_check_vector(enum distance distance, uint32_t dimension, const float *vector,
                                  size_t count, struct error *error)
{
    if (count != dimension)
        return error_set(error, STATUS_INVALID,
                         "vector has %zu values; the dimension of the collection is %u", count,
                         dimension);
    if (!is_finite(vector, count)) {
        size_t i = 0;
        while (isfinite(vector[i]))
            i++;
        return error_set(error, STATUS_INVALID,
                         "vector holds %f at position %zu; it must be finite", (double)vector[i],
                         i);
    }
    if (distance == DISTANCE_COSINE && is_zero(vector, count))
        return error_set(error, STATUS_INVALID,
                         "vector is zero: it has no direction, which cosine needs");
    return STATUS_OK;
}
