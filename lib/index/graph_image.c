#include <string.h>

#include "base/assert.h"
#include "index/graph_internal.h"

// A graph as bytes, slot by slot, and from them again. Nothing in the bytes is trusted but their
// size: a row keeps only links that may be there.

const struct quantizer *graph_quantizer(const struct graph *graph)
{
    return graph_codes_of(graph)->quantizer;
}

bool graph_is_upper(uint32_t slot)
{
    return graph_level_of(slot) > 0;
}

bool graph_is_linked(const struct graph *graph, uint32_t slot)
{
    return slot < graph->capacity && graph_bit(graph->linked, slot) &&
           !graph_bit(graph->removed, slot);
}

size_t graph_encoded_size(uint32_t code_size, uint32_t slot)
{
    return code_size +
           (GRAPH_DEGREE + (size_t)graph_level_of(slot) * GRAPH_UPPER_DEGREE) * sizeof(uint32_t);
}

void graph_encode_slot(const struct graph *graph, uint32_t slot, struct buf *out)
{
    buf_append(out, graph_code(graph, slot), graph_codes_of(graph)->size);
    uint32_t top = graph_level_of(slot);
    for (uint32_t level = 0; level <= top; level++) {
        uint32_t links[BEAM_LINKS_MAX];
        uint32_t count = graph_read_row(graph, level, slot, links);
        for (uint32_t i = count; i < graph_degree(level); i++)
            links[i] = LINK_NONE;
        buf_append(out, links, graph_degree(level) * sizeof(links[0]));
    }
}

void graph_restore_slot(struct graph *graph, uint32_t slot, const uint8_t *encoded)
{
    const struct graph_codes *codes = graph_codes_of(graph);
    uint8_t *code = codes->first + (size_t)codes->size * slot;
    // A byte above 127 would make sums of the kernels overflow.
    for (uint32_t i = 0; i < codes->size; i++)
        code[i] = encoded[i] & 127;
    encoded += codes->size;
    uint32_t top = graph_level_of(slot);
    for (uint32_t level = 0; level <= top; level++) {
        struct beam_layer layer = graph_layer_of(graph, level);
        _Atomic uint32_t *row = beam_row(&layer, slot);
        for (uint32_t i = 0; i < layer.degree; i++) {
            uint32_t link;
            memcpy(&link, encoded, sizeof(link));
            encoded += sizeof(link);
            atomic_store_explicit(&row[i], link, memory_order_relaxed);
        }
    }
    graph_set_bit(graph->linked, slot, true);
}

static bool may_link(const struct graph *graph, uint32_t level, uint32_t slot, uint32_t target,
                     const struct graph_selection *selection)
{
    return target != slot && graph_is_linked(graph, target) && graph_level_of(target) >= level &&
           !graph_holds(selection, target);
}

static void filter_row(struct graph *graph, uint32_t level, uint32_t slot)
{
    struct beam_layer layer = graph_layer_of(graph, level);
    _Atomic uint32_t *row = beam_row(&layer, slot);
    struct graph_selection selection = {0};
    for (uint32_t i = 0; i < layer.degree; i++) {
        uint32_t link = atomic_load_explicit(&row[i], memory_order_relaxed);
        atomic_store_explicit(&row[i], LINK_NONE, memory_order_relaxed);
        uint32_t target = link & LINK_SLOT;
        if (link == LINK_NONE || !may_link(graph, level, slot, target, &selection))
            continue;
        selection.slots[selection.count] = target;
        selection.is_occluded[selection.count++] = (link & LINK_OCCLUDED) != 0;
    }
    graph_write_row(graph, level, slot, &selection);
}

void graph_restore_end(struct graph *graph)
{
    uint32_t slots = atomic_load(&graph->slot_count);
    uint32_t points = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        if (!graph_is_linked(graph, slot))
            continue;
        points++;
        uint32_t top = graph_level_of(slot);
        for (uint32_t level = 0; level <= top; level++)
            filter_row(graph, level, slot);
    }
    atomic_store(&graph->point_count, points);
    atomic_store(&graph->entry, graph_find_entry(graph));
    for (uint32_t slot = 0; slot < slots; slot++) {
        uint32_t links[BEAM_LINKS_MAX];
        if (graph_is_linked(graph, slot) &&
            (graph->in_counts[slot] < GRAPH_IN_LINKS_MIN ||
             graph_read_row(graph, 0, slot, links) < GRAPH_IN_LINKS_MIN))
            graph_note_low(graph, slot);
    }
    graph_raise_low(graph);
}
