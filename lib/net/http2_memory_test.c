#include "net/http2_memory.h"

#include <stdint.h>
#include <string.h>

#include "base/rng.h"
#include "testing/test.h"

enum { PIECES = 64, STEPS = 200000 };

// Pieces of all sizes, taken, resized and given back in any order: each keeps what was written.
TEST(pieces_keep_what_is_in_them)
{
    struct http2_memory *memory = http2_memory_create();
    const nghttp2_mem *functions = http2_memory_functions(memory);
    static uint8_t *pieces[PIECES];
    static size_t sizes[PIECES];
    struct rng rng;
    rng_init(&rng, 7);
    for (int step = 0; step < STEPS; step++) {
        size_t i = rng_below(&rng, PIECES);
        size_t size = rng_below(&rng, 8) == 0 ? rng_below(&rng, 20000) : rng_below(&rng, 300);
        for (size_t k = 0; k < sizes[i]; k += 7)
            CHECK(pieces[i][k] == (uint8_t)i);
        if (pieces[i] == NULL && size % 2 == 0) {
            pieces[i] = functions->calloc(1, size, functions->mem_user_data);
            for (size_t k = 0; k < size; k++)
                CHECK(pieces[i][k] == 0);
        } else if (pieces[i] == NULL) {
            pieces[i] = functions->malloc(size, functions->mem_user_data);
        } else if (size % 3 == 0) {
            pieces[i] = functions->realloc(pieces[i], size, functions->mem_user_data);
            for (size_t k = 0; k < size && k < sizes[i]; k += 7)
                CHECK(pieces[i][k] == (uint8_t)i);
        } else {
            functions->free(pieces[i], functions->mem_user_data);
            pieces[i] = NULL;
            size = 0;
        }
        sizes[i] = size;
        if (pieces[i] != NULL)
            memset(pieces[i], (int)i, size);
    }
    for (size_t i = 0; i < PIECES; i++)
        functions->free(pieces[i], functions->mem_user_data);
    http2_memory_destroy(memory);
}

TEST(what_cannot_be)
{
    struct http2_memory *memory = http2_memory_create();
    const nghttp2_mem *functions = http2_memory_functions(memory);
    CHECK(functions->malloc(SIZE_MAX, functions->mem_user_data) == NULL);
    CHECK(functions->calloc(SIZE_MAX / 2, 3, functions->mem_user_data) == NULL);
    functions->free(NULL, functions->mem_user_data);
    http2_memory_destroy(memory);
}

TEST_MAIN()
