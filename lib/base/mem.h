#pragma once

#include <stddef.h>

// Heap memory. Small objects come from mem_alloc, which stops the process when the machine has no
// memory left, so that no caller has a path for it. Blocks whose size a user decides come from
// mem_try_alloc, which may return NULL. Both are zeroed; what a resize adds is not. Any thread.

void *mem_alloc(size_t size) __attribute__((returns_nonnull, malloc));
void *mem_try_alloc(size_t size) __attribute__((malloc));
void *mem_resize(void *memory, size_t size) __attribute__((returns_nonnull));
void *mem_try_resize(void *memory, size_t size); // NULL: memory is still there, unchanged
void mem_free(void *memory);
