#include "vector/kernel_internal.h"

// Plain C. The other kernels are tested against this one.

static void dot(const float *query, const struct kernel_rows *rows, float *out)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        const float *row = rows->first + rows->stride * i;
        float lanes[KERNEL_LANES_MIN] = {0};
        uint32_t k = 0;
        for (; k + KERNEL_LANES_MIN <= rows->dimension; k += KERNEL_LANES_MIN) {
            for (uint32_t lane = 0; lane < KERNEL_LANES_MIN; lane++)
                lanes[lane] += query[k + lane] * row[k + lane];
        }
        for (uint32_t lane = 0; k < rows->dimension; k++, lane++)
            lanes[lane] += query[k] * row[k];
        out[i] = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
                 ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    }
}

static void l2_squared(const float *query, const struct kernel_rows *rows, float *out)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        const float *row = rows->first + rows->stride * i;
        float lanes[KERNEL_LANES_MIN] = {0};
        uint32_t k = 0;
        for (; k + KERNEL_LANES_MIN <= rows->dimension; k += KERNEL_LANES_MIN) {
            for (uint32_t lane = 0; lane < KERNEL_LANES_MIN; lane++) {
                float difference = query[k + lane] - row[k + lane];
                lanes[lane] += difference * difference;
            }
        }
        for (uint32_t lane = 0; k < rows->dimension; k++, lane++) {
            float difference = query[k] - row[k];
            lanes[lane] += difference * difference;
        }
        out[i] = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
                 ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    }
}

static double add_lanes(double lanes[static KERNEL_DOUBLE_LANES])
{
    for (uint32_t width = KERNEL_DOUBLE_LANES / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

double kernel_finish_dot(double lanes[static KERNEL_DOUBLE_LANES], const float *a, const float *b,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        lanes[i] += (double)a[i] * (double)b[i];
    return add_lanes(lanes);
}

double kernel_finish_l2(double lanes[static KERNEL_DOUBLE_LANES], const float *a, const float *b,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        double difference = (double)a[i] - (double)b[i];
        double square = difference * difference;
        lanes[i] += square;
    }
    return add_lanes(lanes);
}

static double dot_double(const float *a, const float *b, uint32_t dimension)
{
    double lanes[KERNEL_DOUBLE_LANES] = {0};
    uint32_t k = 0;
    for (; k + KERNEL_DOUBLE_LANES <= dimension; k += KERNEL_DOUBLE_LANES) {
        for (uint32_t i = 0; i < KERNEL_DOUBLE_LANES; i++)
            lanes[i] += (double)a[k + i] * (double)b[k + i];
    }
    return kernel_finish_dot(lanes, a + k, b + k, dimension - k);
}

static double l2_squared_double(const float *a, const float *b, uint32_t dimension)
{
    double lanes[KERNEL_DOUBLE_LANES] = {0};
    uint32_t k = 0;
    for (; k + KERNEL_DOUBLE_LANES <= dimension; k += KERNEL_DOUBLE_LANES) {
        for (uint32_t i = 0; i < KERNEL_DOUBLE_LANES; i++) {
            double difference = (double)a[k + i] - (double)b[k + i];
            double square = difference * difference;
            lanes[i] += square;
        }
    }
    return kernel_finish_l2(lanes, a + k, b + k, dimension - k);
}

static void code_l2(const uint8_t *query, const struct kernel_codes *codes, const uint32_t *rows,
                    uint32_t count, int32_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *code = codes->first + codes->size * rows[i];
        int32_t sum = 0;
        for (size_t k = 0; k < codes->size; k++) {
            int32_t difference = query[k] - code[k];
            sum += difference * difference;
        }
        out[i] = sum;
    }
}

const struct kernel kernel_scalar = {"scalar",          dot,    l2_squared, dot_double,
                                     l2_squared_double, code_l2};
