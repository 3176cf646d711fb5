#include "vector/quantizer.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "testing/test.h"
#include "vector/kernel.h"

enum { POINTS = 400, DIMENSION_MAX = 130, SAMPLE = 200 };

static float vectors[POINTS][DIMENSION_MAX];
static const float *sample_rows[SAMPLE];
static _Alignas(QUANTIZER_ALIGNMENT) uint8_t codes[POINTS][DIMENSION_MAX + 62];
static _Alignas(QUANTIZER_ALIGNMENT) uint8_t query_code[DIMENSION_MAX + 62];

static void fill(uint64_t seed, uint32_t dimension, float scale, float shift)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (uint32_t i = 0; i < POINTS; i++) {
        for (uint32_t k = 0; k < dimension; k++) {
            // The sum of some, so that few are large.
            double sum = rng_unit(&rng) + rng_unit(&rng) + rng_unit(&rng) + rng_unit(&rng) - 2;
            vectors[i][k] = (float)sum * scale + shift;
        }
    }
    for (uint32_t i = 0; i < SAMPLE; i++)
        sample_rows[i] = vectors[i];
}

static struct quantizer *learn(enum distance distance, uint32_t dimension)
{
    return quantizer_create(distance, dimension,
                            &(struct quantizer_sample){.vectors = sample_rows, .count = SAMPLE});
}

static int32_t code_distance(const struct quantizer *quantizer, const uint8_t *a, const uint8_t *b)
{
    uint32_t row = 0;
    int32_t out = 0;
    kernel_get()->code_l2(a, &(struct kernel_codes){b, quantizer_code_size(quantizer)}, &row, 1,
                          &out);
    return out;
}

// Of all pairs of points, how many are in the order of their scores by their codes too; pairs whose
// scores differ by less than a part do not count.
static double agreement(enum distance distance, uint32_t dimension, float part)
{
    struct quantizer *quantizer = learn(distance, dimension);
    uint32_t size = quantizer_code_size(quantizer);
    uint8_t *all = mem_alloc((size_t)size * POINTS + QUANTIZER_ALIGNMENT);
    uint8_t *first = all + (QUANTIZER_ALIGNMENT - (uintptr_t)all % QUANTIZER_ALIGNMENT);
    for (uint32_t i = 0; i < POINTS; i++)
        (void)quantizer_encode(quantizer, vectors[i], first + (size_t)size * i);
    uint64_t pairs = 0;
    uint64_t agreeing = 0;
    for (uint32_t q = 0; q < 20; q++) {
        (void)quantizer_encode_query(quantizer, vectors[POINTS - 1 - q], query_code);
        float last_score = 0;
        int32_t last = 0;
        for (uint32_t i = 0; i < POINTS - 20; i++) {
            float score = distance_score(distance, vectors[POINTS - 1 - q], vectors[i], dimension);
            int32_t coded = code_distance(quantizer, query_code, first + (size_t)size * i);
            if (i > 0 && fabsf(score - last_score) > part * fabsf(score)) {
                pairs++;
                agreeing += (score < last_score) == (coded < last);
            }
            last_score = score;
            last = coded;
        }
    }
    mem_free(all);
    quantizer_destroy(quantizer);
    printf("%s, dimension %u: %llu of %llu pairs\n", distance_name(distance), dimension,
           (unsigned long long)agreeing, (unsigned long long)pairs);
    return (double)agreeing / (double)pairs;
}

TEST(codes_keep_the_order_of_distances)
{
    static const uint32_t dimensions[] = {8, 63, 100, 130};
    for (uint32_t i = 0; i < sizeof(dimensions) / sizeof(dimensions[0]); i++) {
        fill(3 + i, dimensions[i], 1, 0);
        for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++)
            CHECK(agreement((enum distance)distance, dimensions[i], 0.03F) > 0.97);
        // Far from zero the mean is taken off.
        fill(30 + i, dimensions[i], 1, 50);
        CHECK(agreement(DISTANCE_EUCLIDEAN, dimensions[i], 0.03F) > 0.97);
    }
}

TEST(a_code_does_not_depend_on_the_instruction_set)
{
    static uint8_t wanted[POINTS][DIMENSION_MAX + 62];
    for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++) {
        fill(17, 100, 3, 1);
        for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
            REQUIRE_OK(kernel_choose(str_from_cstr(kernel_at(i)->name), NULL));
            struct quantizer *quantizer = learn((enum distance)distance, 100);
            for (uint32_t k = 0; k < POINTS; k++)
                (void)quantizer_encode(quantizer, vectors[k], codes[k]);
            if (i == 0)
                memcpy(wanted, codes, sizeof(codes));
            CHECK(memcmp(wanted, codes, sizeof(codes)) == 0);
            quantizer_destroy(quantizer);
        }
        REQUIRE_OK(kernel_choose(STR(""), NULL));
    }
}

TEST(extreme_values_are_clamped)
{
    fill(5, 16, 1, 0);
    struct quantizer *quantizer = learn(DISTANCE_EUCLIDEAN, 16);
    float vector[16] = {0};
    CHECK_EQ_U64(quantizer_encode(quantizer, vector, query_code), 0);
    for (uint32_t i = 0; i < 16; i++)
        vector[i] = i % 2 == 0 ? FLT_MAX : -FLT_MAX;
    CHECK_EQ_U64(quantizer_encode(quantizer, vector, query_code), 16);
    for (uint32_t i = 0; i < 16; i++)
        CHECK_EQ_U64(query_code[i], i % 2 == 0 ? 127 : 1);
    for (uint32_t i = 16; i < 64; i++)
        CHECK_EQ_U64(query_code[i], 64);
    quantizer_destroy(quantizer);
}

TEST(a_sample_of_equal_or_huge_vectors_serves)
{
    for (int kind = 0; kind < 2; kind++) {
        for (uint32_t i = 0; i < POINTS; i++) {
            for (uint32_t k = 0; k < 16; k++)
                vectors[i][k] = kind == 0 ? 2 : FLT_MAX;
        }
        for (uint32_t i = 0; i < SAMPLE; i++)
            sample_rows[i] = vectors[i];
        for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++) {
            struct quantizer *quantizer = learn((enum distance)distance, 16);
            (void)quantizer_encode(quantizer, vectors[0], codes[0]);
            for (uint32_t k = 0; k < quantizer_code_size(quantizer); k++)
                CHECK(codes[0][k] >= 1 && codes[0][k] <= 127);
            quantizer_destroy(quantizer);
        }
    }
}

TEST_MAIN()
