#include "base/heap.h"

#include "base/assert.h"
#include "base/mem.h"

void heap_init(struct heap *heap)
{
    *heap = (struct heap){0};
}

void heap_deinit(struct heap *heap)
{
    for (size_t i = 0; i < heap->count; i++)
        heap->nodes[i]->index = HEAP_NONE;
    mem_free(heap->nodes);
    *heap = (struct heap){0};
}

void heap_node_init(struct heap_node *node)
{
    node->key = 0;
    node->index = HEAP_NONE;
}

bool heap_node_is_in(const struct heap_node *node)
{
    return node->index != HEAP_NONE;
}

static void place(struct heap *heap, struct heap_node *node, size_t index)
{
    heap->nodes[index] = node;
    node->index = index;
}

static void sift_up(struct heap *heap, struct heap_node *node, size_t index)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (heap->nodes[parent]->key <= node->key)
            break;
        place(heap, heap->nodes[parent], index);
        index = parent;
    }
    place(heap, node, index);
}

static void sift_down(struct heap *heap, struct heap_node *node, size_t index)
{
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->nodes[child + 1]->key < heap->nodes[child]->key)
            child++;
        if (node->key <= heap->nodes[child]->key)
            break;
        place(heap, heap->nodes[child], index);
        index = child;
    }
    place(heap, node, index);
}

void heap_push(struct heap *heap, struct heap_node *node, uint64_t key)
{
    ASSERT(!heap_node_is_in(node));
    if (heap->count == heap->capacity) {
        heap->capacity = heap->capacity == 0 ? 16 : heap->capacity * 2;
        heap->nodes = mem_resize(heap->nodes, heap->capacity * sizeof(heap->nodes[0]));
    }
    node->key = key;
    heap->count++;
    sift_up(heap, node, heap->count - 1);
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
    if (!heap_node_is_in(node))
        return;
    size_t index = node->index;
    ASSERT(index < heap->count && heap->nodes[index] == node);
    struct heap_node *last = heap->nodes[--heap->count];
    node->index = HEAP_NONE;
    if (last == node)
        return;
    if (index > 0 && last->key < heap->nodes[(index - 1) / 2]->key)
        sift_up(heap, last, index);
    else
        sift_down(heap, last, index);
}

struct heap_node *heap_first(const struct heap *heap)
{
    return heap->count == 0 ? NULL : heap->nodes[0];
}
