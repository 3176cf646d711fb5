#include "base/heap.h"

#include "base/rng.h"
#include "testing/test.h"

enum { NODE_COUNT = 300 };

static void check_heap(const struct heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        REQUIRE(heap->nodes[i]->index == i);
        REQUIRE(i == 0 || heap->nodes[(i - 1) / 2]->key <= heap->nodes[i]->key);
    }
}

TEST(comes_out_sorted)
{
    struct heap heap;
    struct heap_node nodes[NODE_COUNT];
    struct rng rng;
    heap_init(&heap);
    rng_init(&rng, 3);
    CHECK(heap_first(&heap) == NULL);
    for (size_t i = 0; i < NODE_COUNT; i++) {
        heap_node_init(&nodes[i]);
        heap_push(&heap, &nodes[i], rng_below(&rng, 100));
    }
    uint64_t last = 0;
    for (size_t i = 0; i < NODE_COUNT; i++) {
        struct heap_node *node = heap_first(&heap);
        REQUIRE(node != NULL && node->key >= last);
        last = node->key;
        heap_remove(&heap, node);
        CHECK(!heap_node_is_in(node));
    }
    CHECK(heap_first(&heap) == NULL);
    heap_deinit(&heap);
}

TEST(nodes_go_from_anywhere)
{
    struct heap heap;
    struct heap_node nodes[NODE_COUNT];
    struct rng rng;
    heap_init(&heap);
    rng_init(&rng, 4);
    for (size_t i = 0; i < NODE_COUNT; i++)
        heap_node_init(&nodes[i]);
    for (int step = 0; step < 20000; step++) {
        struct heap_node *node = &nodes[rng_below(&rng, NODE_COUNT)];
        if (heap_node_is_in(node))
            heap_remove(&heap, node);
        else
            heap_push(&heap, node, rng_below(&rng, 50));
        if (step % 16 == 0)
            check_heap(&heap);
    }
    heap_remove(&heap, &nodes[0]);
    heap_remove(&heap, &nodes[0]); // in no heap: nothing happens
    heap_deinit(&heap);
    for (size_t i = 0; i < NODE_COUNT; i++)
        CHECK(!heap_node_is_in(&nodes[i]));
}

TEST_MAIN()
