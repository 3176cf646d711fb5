#include "base/mem.h"

#include <stdint.h>
#include <string.h>

#include "testing/test.h"

TEST(memory_is_zeroed)
{
    unsigned char *memory = mem_alloc(100);
    for (int i = 0; i < 100; i++)
        CHECK(memory[i] == 0);
    memset(memory, 7, 100);
    memory = mem_resize(memory, 200);
    CHECK(memory[99] == 7);
    mem_free(memory);
}

TEST(nothing_can_be_allocated_and_freed)
{
    void *memory = mem_alloc(0);
    CHECK(memory != NULL);
    memory = mem_resize(memory, 0);
    CHECK(memory != NULL);
    mem_free(memory);
    mem_free(NULL);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
TEST(too_much_is_refused)
{
    volatile size_t size = PTRDIFF_MAX; // hidden from the compiler, which warns
    CHECK(mem_try_alloc(size) == NULL);
    void *memory = mem_alloc(10);
    CHECK(mem_try_resize(memory, size) == NULL);
    mem_free(memory);
}
#endif

TEST_MAIN()
