#include "vector/quantizer.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

// Arithmetic is split into statements with one operation each where the result is kept: compilers
// may fuse a product and a sum within an expression, which would round differently on some
// machines.

enum {
    CODE_MAX = 63,
    CODE_ZERO = 64,
    CLIP_SAMPLE_MAX = 512, // vectors on which scales are tried
};

struct quantizer {
    enum distance distance;
    uint32_t dimension;
    uint32_t code_dimension; // dimension, and one more for dot
    uint32_t code_size;
    float norm_max; // dot
    float scale_inverse;
    float means[];
};

// What a value is taken as: the largest of the sample is cut to this part of itself, because few
// values are large and all others gain precision.
static const double clips[] = {1, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.15};
enum { CLIP_COUNT = sizeof(clips) / sizeof(clips[0]) };

uint32_t quantizer_code_size_for(enum distance distance, uint32_t dimension)
{
    uint32_t values = dimension + (distance == DISTANCE_DOT ? 1 : 0);
    return (values + QUANTIZER_ALIGNMENT - 1) / QUANTIZER_ALIGNMENT * QUANTIZER_ALIGNMENT;
}

// --- What is encoded: the vector times a factor, and the value behind it

struct transformed {
    const float *vector;
    double factor;
    double last;
};

static struct transformed transform(const struct quantizer *quantizer, const float *vector)
{
    struct transformed out = {.vector = vector, .factor = 1};
    if (quantizer->distance == DISTANCE_EUCLIDEAN)
        return out;
    double norm_squared = distance_norm_squared(vector, quantizer->dimension);
    if (quantizer->distance == DISTANCE_COSINE) {
        if (norm_squared > 0)
            out.factor = 1 / sqrt(norm_squared);
        return out;
    }
    double norm_max = (double)quantizer->norm_max;
    double norm_max_squared = norm_max * norm_max;
    double rest = norm_max_squared - norm_squared;
    out.last = rest > 0 ? sqrt(rest) : 0;
    return out;
}

static struct transformed transform_query(const struct quantizer *quantizer, const float *vector)
{
    struct transformed out = transform(quantizer, vector);
    if (quantizer->distance != DISTANCE_DOT)
        return out;
    double norm = sqrt(distance_norm_squared(vector, quantizer->dimension));
    out.factor = norm > 0 ? (double)quantizer->norm_max / norm : 1;
    out.last = 0;
    return out;
}

static double value_at(const struct quantizer *quantizer, const struct transformed *from,
                       uint32_t position)
{
    if (position == quantizer->dimension)
        return from->last;
    return (double)from->vector[position] * from->factor;
}

// --- Learning

static float largest_norm(const struct quantizer *quantizer, const struct quantizer_sample *sample)
{
    double largest = 0;
    for (uint32_t i = 0; i < sample->count; i++)
        largest = fmax(largest, distance_norm_squared(sample->vectors[i], quantizer->dimension));
    double norm = sqrt(largest);
    return norm >= (double)FLT_MAX ? FLT_MAX : (float)norm;
}

static void learn_means(struct quantizer *quantizer, const struct quantizer_sample *sample)
{
    double *sums = mem_alloc(quantizer->code_dimension * sizeof(*sums));
    for (uint32_t i = 0; i < sample->count; i++) {
        struct transformed from = transform(quantizer, sample->vectors[i]);
        for (uint32_t k = 0; k < quantizer->code_dimension; k++) {
            double value = value_at(quantizer, &from, k);
            sums[k] += value;
        }
    }
    for (uint32_t k = 0; k < quantizer->code_dimension; k++) {
        double mean = sums[k] / sample->count;
        // A query for dot has 0 in the last place; the mean there must not push it out of range.
        quantizer->means[k] = k == quantizer->dimension ? (float)(mean / 2) : (float)mean;
    }
    mem_free(sums);
}

// The sum of squared errors when values are cut at limit. Large values count: what is cut off is
// an error too.
static double error_of(const struct quantizer *quantizer, const double *values, size_t count,
                       double limit)
{
    double scale = limit / CODE_MAX;
    double sum = 0;
    (void)quantizer;
    for (size_t i = 0; i < count; i++) {
        double kept = fmin(fabs(values[i]), limit);
        double code = floor(kept / scale + 0.5);
        double rounded = code * scale;
        double difference = fabs(values[i]) - rounded;
        double square = difference * difference;
        sum += square;
    }
    return sum;
}

static void learn_scale(struct quantizer *quantizer, const struct quantizer_sample *sample)
{
    uint32_t used = sample->count < CLIP_SAMPLE_MAX ? sample->count : CLIP_SAMPLE_MAX;
    size_t count = (size_t)used * quantizer->code_dimension;
    double *values = mem_alloc(count * sizeof(*values));
    double largest = 0;
    for (uint32_t i = 0; i < used; i++) {
        uint32_t picked = (uint32_t)((uint64_t)i * sample->count / used);
        struct transformed from = transform(quantizer, sample->vectors[picked]);
        for (uint32_t k = 0; k < quantizer->code_dimension; k++) {
            double value = value_at(quantizer, &from, k) - (double)quantizer->means[k];
            values[(size_t)i * quantizer->code_dimension + k] = value;
            largest = fmax(largest, fabs(value));
        }
    }
    double best_limit = largest;
    double best_error = INFINITY;
    for (uint32_t i = 0; i < CLIP_COUNT && largest > 0; i++) {
        double error = error_of(quantizer, values, count, largest * clips[i]);
        if (error < best_error) {
            best_error = error;
            best_limit = largest * clips[i];
        }
    }
    mem_free(values);
    double inverse = best_limit > 0 ? CODE_MAX / best_limit : 1;
    quantizer->scale_inverse = inverse >= (double)FLT_MAX ? FLT_MAX : (float)inverse;
}

struct quantizer *quantizer_create(enum distance distance, uint32_t dimension,
                                   const struct quantizer_sample *sample)
{
    ASSERT(sample->count > 0 && sample->count <= QUANTIZER_SAMPLE_MAX);
    uint32_t code_dimension = dimension + (distance == DISTANCE_DOT ? 1 : 0);
    struct quantizer *quantizer =
        mem_alloc(sizeof(*quantizer) + code_dimension * sizeof(quantizer->means[0]));
    quantizer->distance = distance;
    quantizer->dimension = dimension;
    quantizer->code_dimension = code_dimension;
    quantizer->code_size = quantizer_code_size_for(distance, dimension);
    if (distance == DISTANCE_DOT)
        quantizer->norm_max = largest_norm(quantizer, sample);
    learn_means(quantizer, sample);
    learn_scale(quantizer, sample);
    return quantizer;
}

// --- Keeping: the largest norm, the scale, the means

enum { FLOATS_BEFORE_MEANS = 2 };

uint32_t quantizer_float_count(const struct quantizer *quantizer)
{
    return FLOATS_BEFORE_MEANS + quantizer->code_dimension;
}

void quantizer_save(const struct quantizer *quantizer, float *out_floats)
{
    out_floats[0] = quantizer->norm_max;
    out_floats[1] = quantizer->scale_inverse;
    memcpy(out_floats + FLOATS_BEFORE_MEANS, quantizer->means,
           quantizer->code_dimension * sizeof(float));
}

struct quantizer *quantizer_restore(enum distance distance, uint32_t dimension, const float *floats,
                                    uint32_t count)
{
    uint32_t code_dimension = dimension + (distance == DISTANCE_DOT ? 1 : 0);
    if (count != FLOATS_BEFORE_MEANS + code_dimension)
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (!isfinite(floats[i]))
            return NULL;
    }
    if (floats[0] < 0 || floats[1] <= 0)
        return NULL;
    struct quantizer *quantizer =
        mem_alloc(sizeof(*quantizer) + code_dimension * sizeof(quantizer->means[0]));
    quantizer->distance = distance;
    quantizer->dimension = dimension;
    quantizer->code_dimension = code_dimension;
    quantizer->code_size = quantizer_code_size_for(distance, dimension);
    quantizer->norm_max = floats[0];
    quantizer->scale_inverse = floats[1];
    memcpy(quantizer->means, floats + FLOATS_BEFORE_MEANS, code_dimension * sizeof(float));
    return quantizer;
}

void quantizer_destroy(struct quantizer *quantizer)
{
    mem_free(quantizer);
}

// --- Encoding

uint32_t quantizer_code_size(const struct quantizer *quantizer)
{
    return quantizer->code_size;
}

uint32_t quantizer_noise(const struct quantizer *quantizer)
{
    // Rounding is off by 1/12 in the mean square, on both sides.
    return quantizer->code_dimension / 6;
}

static uint32_t encode(const struct quantizer *quantizer, const struct transformed *from,
                       uint8_t *out_code)
{
    float factor = (float)from->factor;
    float inverse = quantizer->scale_inverse;
    uint32_t clamped = 0;
    for (uint32_t k = 0; k < quantizer->code_dimension; k++) {
        float value = k < quantizer->dimension ? from->vector[k] * factor : (float)from->last;
        float centred = value - quantizer->means[k];
        float scaled = centred * inverse;
        // Not <=: NaN, which infinity times zero gives, is clamped too.
        bool fits = scaled > -(CODE_MAX + 0.5F) && scaled < CODE_MAX + 0.5F;
        clamped += !fits;
        float kept = fits ? scaled : scaled > 0 ? (float)CODE_MAX : (float)-CODE_MAX;
        float shifted = kept + (CODE_ZERO + 0.5F);
        out_code[k] = (uint8_t)(int32_t)shifted;
    }
    memset(out_code + quantizer->code_dimension, CODE_ZERO,
           quantizer->code_size - quantizer->code_dimension);
    return clamped;
}

uint32_t quantizer_encode(const struct quantizer *quantizer, const float *vector, uint8_t *out_code)
{
    struct transformed from = transform(quantizer, vector);
    return encode(quantizer, &from, out_code);
}

uint32_t quantizer_encode_query(const struct quantizer *quantizer, const float *vector,
                                uint8_t *out_code)
{
    struct transformed from = transform_query(quantizer, vector);
    return encode(quantizer, &from, out_code);
}
