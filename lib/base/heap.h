#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A binary heap of things that lie elsewhere and know their own place in it (struct heap_node is
// embedded), smallest key first. Used for timers. One thread.

struct heap_node {
    uint64_t key;
    size_t index; // HEAP_NONE while it is in no heap
};

#define HEAP_NONE SIZE_MAX

struct heap {
    struct heap_node **nodes;
    size_t count;
    size_t capacity;
};

void heap_init(struct heap *heap);
void heap_deinit(struct heap *heap);
void heap_node_init(struct heap_node *node);
bool heap_node_is_in(const struct heap_node *node);
void heap_push(struct heap *heap, struct heap_node *node, uint64_t key);
void heap_remove(struct heap *heap, struct heap_node *node); // fine when it is in no heap
struct heap_node *heap_first(const struct heap *heap);       // NULL: empty
