#include "vector/kernel.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "vector/kernel_internal.h"

// Which kernels there are and which one is used.

enum { KERNELS_MAX = 3, LIST_SIZE = 64 };

static const char *const names[] = {"scalar", "avx2", "avx512", "neon"};
enum { NAME_COUNT = sizeof(names) / sizeof(names[0]) };

static _Atomic(const struct kernel *) chosen;

static uint32_t list_kernels(const struct kernel *list[static KERNELS_MAX])
{
    uint32_t count = 0;
    list[count++] = &kernel_scalar;
#if defined(__x86_64__)
    bool has_fma = __builtin_cpu_supports("fma") != 0;
    if (has_fma && __builtin_cpu_supports("avx2") != 0)
        list[count++] = &kernel_avx2;
    if (has_fma && __builtin_cpu_supports("avx512f") != 0 &&
        __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vnni") != 0)
        list[count++] = &kernel_avx512;
#elif defined(__aarch64__)
    list[count++] = &kernel_neon;
#endif
    return count;
}

const struct kernel *kernel_at(uint32_t index)
{
    const struct kernel *list[KERNELS_MAX];
    return index < list_kernels(list) ? list[index] : NULL;
}

const struct kernel *kernel_get(void)
{
    const struct kernel *kernel = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (kernel != NULL)
        return kernel;
    const struct kernel *list[KERNELS_MAX];
    kernel = list[list_kernels(list) - 1];
    const struct kernel *expected = NULL;
    if (!atomic_compare_exchange_strong(&chosen, &expected, kernel))
        return expected;
    return kernel;
}

static bool is_name(struct str name)
{
    for (uint32_t i = 0; i < NAME_COUNT; i++) {
        if (str_equal_cstr(name, names[i]))
            return true;
    }
    return false;
}

enum status kernel_choose(struct str name, struct error *error)
{
    const struct kernel *list[KERNELS_MAX];
    uint32_t count = list_kernels(list);
    if (name.len == 0) {
        atomic_store(&chosen, list[count - 1]);
        return STATUS_OK;
    }
    char can[LIST_SIZE] = "";
    for (uint32_t i = 0; i < count; i++) {
        if (str_equal_cstr(name, list[i]->name)) {
            atomic_store(&chosen, list[i]);
            return STATUS_OK;
        }
        size_t used = strlen(can);
        (void)snprintf(can + used, sizeof(can) - used, "%s%s", i > 0 ? ", " : "", list[i]->name);
    }
    if (is_name(name))
        return error_set(error, STATUS_INVALID,
                         "this processor cannot run the instruction set %.*s; it can run %s",
                         STR_ARG(name), can);
    return error_set(error, STATUS_INVALID,
                     "unknown instruction set \"%.*s\"; there are scalar, avx2, avx512 and neon",
                     STR_ARG(name));
}

float kernel_error_bound(uint32_t dimension)
{
    // Each of the partial sums has so many terms, and each step is off by half a unit in the last
    // place at most (2^-24); the rest are the differences, squares and the sum of the lanes. Half
    // as much again makes up for what is of second order.
    uint32_t steps = dimension / KERNEL_LANES_MIN + 24;
    return (float)steps * 0x1p-24F * 1.5F;
}
