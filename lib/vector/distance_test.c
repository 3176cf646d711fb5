#include "vector/distance.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "base/rng.h"
#include "testing/test.h"
#include "vector/kernel.h"

// As NumPy computes it from float64 copies.
static long double reference(enum distance distance, const float *a, const float *b,
                             uint32_t dimension)
{
    long double dot = 0;
    long double squares = 0;
    long double norm_a = 0;
    long double norm_b = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        long double difference = (long double)a[i] - (long double)b[i];
        dot += (long double)a[i] * (long double)b[i];
        squares += difference * difference;
        norm_a += (long double)a[i] * (long double)a[i];
        norm_b += (long double)b[i] * (long double)b[i];
    }
    if (distance == DISTANCE_DOT)
        return -dot;
    return distance == DISTANCE_EUCLIDEAN ? sqrtl(squares) : 1 - dot / sqrtl(norm_a * norm_b);
}

TEST(names)
{
    enum distance distance = DISTANCE_DOT;
    CHECK(distance_from_str(STR(""), &distance) && distance == DISTANCE_COSINE);
    CHECK(distance_from_str(STR("euclidean"), &distance) && distance == DISTANCE_EUCLIDEAN);
    CHECK(distance_from_str(STR("dot"), &distance) && distance == DISTANCE_DOT);
    CHECK(distance_from_str(STR("cosine"), &distance) && distance == DISTANCE_COSINE);
    CHECK(!distance_from_str(STR("Cosine"), &distance));
    CHECK(!distance_from_str(STR("l2"), &distance));
    CHECK_CSTR(distance_name(DISTANCE_EUCLIDEAN), "euclidean");
}

static void check_against_reference(const float *a, const float *b, uint32_t dimension)
{
    for (int i = DISTANCE_COSINE; i <= DISTANCE_DOT; i++) {
        enum distance distance = (enum distance)i;
        float score = distance_score(distance, a, b, dimension);
        long double truth = reference(distance, a, b, dimension);
        long double terms = distance == DISTANCE_DOT ? 1e-9L : 0;
        if (!CHECK(fabsl((long double)score - truth) <= fabsl(truth) * 1e-6L + terms + 1e-15L))
            printf("    %s, dimension %u: %.9g, should be %.9Lg\n", distance_name(distance),
                   dimension, (double)score, truth);
    }
}

TEST(scores_agree_with_a_wider_reference)
{
    float a[300];
    float b[300];
    struct rng rng;
    rng_init(&rng, 11);
    for (uint32_t dimension = 1; dimension <= 300; dimension++) {
        for (uint32_t k = 0; k < dimension; k++) {
            a[k] = (float)(rng_unit(&rng) * 2 - 1);
            b[k] = (float)(rng_unit(&rng) * 2 - 1);
        }
        check_against_reference(a, b, dimension);
        for (uint32_t k = 0; k < dimension; k++)
            b[k] = a[k] * (1 + 1e-4F * (float)rng_unit(&rng));
        check_against_reference(a, b, dimension);
    }
}

TEST(equal_vectors_are_at_zero)
{
    float a[129];
    struct rng rng;
    rng_init(&rng, 5);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t dimension = 1 + (uint32_t)rng_below(&rng, 129);
        int exponent = (int)rng_below(&rng, 270) - 148;
        for (uint32_t k = 0; k < dimension; k++)
            a[k] = ldexpf((float)(rng_unit(&rng) * 2 - 1), exponent);
        a[0] = ldexpf(1, exponent);
        CHECK(distance_score(DISTANCE_COSINE, a, a, dimension) == 0);
        CHECK(distance_score(DISTANCE_EUCLIDEAN, a, a, dimension) == 0);
    }
}

TEST(cosine_stays_in_its_range)
{
    float a[64];
    float b[64];
    struct rng rng;
    rng_init(&rng, 6);
    for (uint32_t i = 0; i < 2000; i++) {
        float scale = ldexpf((float)rng_unit(&rng) + 0.5F, (int)rng_below(&rng, 40) - 20);
        for (uint32_t k = 0; k < 64; k++) {
            a[k] = (float)(rng_unit(&rng) * 2 - 1);
            b[k] = a[k] * scale;
        }
        float near = distance_score(DISTANCE_COSINE, a, b, 64);
        CHECK(near >= 0 && near < 1e-6F);
        for (uint32_t k = 0; k < 64; k++)
            b[k] = -b[k];
        float far = distance_score(DISTANCE_COSINE, a, b, 64);
        CHECK(far <= 2 && far > 2 - 1e-6F);
    }
}

TEST(extreme_vectors_have_finite_scores)
{
    const float huge[] = {FLT_MAX, -FLT_MAX, FLT_MAX, FLT_MAX};
    const float other[] = {-FLT_MAX, FLT_MAX, -FLT_MAX, FLT_MAX};
    const float tiny[] = {FLT_TRUE_MIN, 0, 0, FLT_TRUE_MIN};
    const float tiny_turned[] = {0, FLT_TRUE_MIN, 0, FLT_TRUE_MIN};
    const float big[] = {1e30F, 0, 0, 0};
    const float big_turned[] = {0, 1e30F, 0, 0};
    CHECK(distance_score(DISTANCE_EUCLIDEAN, huge, other, 4) == FLT_MAX);
    CHECK(distance_score(DISTANCE_DOT, huge, huge, 4) == -FLT_MAX);
    CHECK(distance_score(DISTANCE_DOT, huge, other, 4) == FLT_MAX);
    CHECK(distance_score(DISTANCE_COSINE, huge, other, 4) == 1.5F);
    // In float32 every square of these is 0, or infinite.
    CHECK(fabsf(distance_score(DISTANCE_COSINE, tiny, tiny_turned, 4) - 0.5F) < 1e-6F);
    CHECK(distance_score(DISTANCE_EUCLIDEAN, tiny, tiny_turned, 4) == FLT_TRUE_MIN);
    CHECK(fabsf(distance_score(DISTANCE_EUCLIDEAN, big, big_turned, 4) / 1.41421356e30F - 1) <
          1e-6F);
    CHECK(distance_score(DISTANCE_COSINE, tiny, huge, 4) == 1 - 0.70710678118F);
    CHECK(distance_score(DISTANCE_COSINE, big, big_turned, 4) == 1);
    float zero = distance_score(DISTANCE_DOT, big, big_turned, 4);
    CHECK(zero == 0 && !signbit(zero));
    CHECK(distance_norm_squared(tiny, 4) > 0);
}

TEST(scores_are_the_same_with_every_kernel)
{
    float a[777];
    float b[777];
    struct rng rng;
    rng_init(&rng, 8);
    for (uint32_t k = 0; k < 777; k++) {
        a[k] = ldexpf((float)rng_unit(&rng) - 0.5F, (int)rng_below(&rng, 20));
        b[k] = ldexpf((float)rng_unit(&rng) - 0.5F, (int)rng_below(&rng, 20));
    }
    float first[3] = {0};
    for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
        REQUIRE_OK(kernel_choose(str_from_cstr(kernel_at(i)->name), NULL));
        for (int k = DISTANCE_COSINE; k <= DISTANCE_DOT; k++) {
            float score = distance_score((enum distance)k, a, b, 777);
            if (i == 0)
                first[k] = score;
            CHECK(score == first[k]);
        }
    }
    CHECK_OK(kernel_choose(STR(""), NULL));
}

TEST(vectors_are_checked)
{
    struct error error;
    const float good[] = {1, 2, 3};
    const float zero[] = {0, -0.0F, 0};
    const float tiny[] = {0, FLT_TRUE_MIN, 0};
    const float infinite[] = {1, -INFINITY, 3};
    const float nothing[] = {1, 2, NAN};
    CHECK_OK(distance_check_vector(DISTANCE_COSINE, 3, good, 3, &error));
    CHECK_OK(distance_check_vector(DISTANCE_COSINE, 3, tiny, 3, &error));
    CHECK_OK(distance_check_vector(DISTANCE_DOT, 3, zero, 3, &error));
    CHECK_STATUS(distance_check_vector(DISTANCE_COSINE, 3, zero, 3, &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("zero"));
    CHECK_STATUS(distance_check_vector(DISTANCE_DOT, 4, good, 3, &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text),
                   STR("3 values; the dimension of the collection is 4"));
    CHECK_STATUS(distance_check_vector(DISTANCE_DOT, 3, infinite, 3, &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("-inf at position 1"));
    CHECK_STATUS(distance_check_vector(DISTANCE_DOT, 3, nothing, 3, &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("nan at position 2"));
}

TEST_MAIN()
