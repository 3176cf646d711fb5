#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "index/graph_internal.h"

// What must hold of a graph, and what is done about points that cannot be reached.

enum { REPAIR_LINKS = 2 };

struct check {
    const struct graph *graph;
    struct error *error;
    uint16_t *in_counts;
    uint64_t *reached;
    uint32_t *queue;
    uint32_t slot_count;
};

static void start_check(struct check *check, const struct graph *graph, struct error *error)
{
    uint32_t slots = atomic_load(&graph->slot_count);
    *check = (struct check){
        .graph = graph,
        .error = error,
        .in_counts = mem_alloc((slots + 1) * sizeof(uint16_t)),
        .reached = mem_alloc(((size_t)slots / 64 + 1) * sizeof(uint64_t)),
        .queue = mem_alloc((slots + 1) * sizeof(uint32_t)),
        .slot_count = slots,
    };
}

static void end_check(struct check *check)
{
    mem_free(check->in_counts);
    mem_free(check->reached);
    mem_free(check->queue);
}

static enum status check_target(const struct check *check, uint32_t level, uint32_t slot,
                                uint32_t target)
{
    const struct graph *graph = check->graph;
    if (target >= check->slot_count || !graph_bit(graph->linked, target))
        return error_set(check->error, STATUS_CORRUPT,
                         "layer %u: slot %u leads to %u, which is free", level, slot, target);
    if (target == slot)
        return error_set(check->error, STATUS_CORRUPT, "layer %u: slot %u leads to itself", level,
                         slot);
    if (graph_level_of(target) < level)
        return error_set(check->error, STATUS_CORRUPT,
                         "layer %u: slot %u leads to %u, which is not in it", level, slot, target);
    return STATUS_OK;
}

static enum status check_row(struct check *check, uint32_t level, uint32_t slot)
{
    struct beam_layer layer = graph_layer_of(check->graph, level);
    const _Atomic uint32_t *row = beam_row(&layer, slot);
    uint32_t links[BEAM_LINKS_MAX];
    uint32_t count = graph_read_row(check->graph, level, slot, links);
    for (uint32_t i = count; i < layer.degree; i++) {
        if (atomic_load(&row[i]) != LINK_NONE)
            return error_set(check->error, STATUS_CORRUPT,
                             "layer %u: the row of slot %u has a hole", level, slot);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t target = links[i] & LINK_SLOT;
        TRY(check_target(check, level, slot, target));
        for (uint32_t k = 0; k < i; k++) {
            if ((links[k] & LINK_SLOT) == target)
                return error_set(check->error, STATUS_CORRUPT,
                                 "layer %u: slot %u leads to %u twice", level, slot, target);
        }
        if (level == 0 && check->in_counts[target] < UINT16_MAX)
            check->in_counts[target]++;
    }
    return STATUS_OK;
}

static enum status check_rows(struct check *check)
{
    const struct graph *graph = check->graph;
    for (uint32_t slot = 0; slot < check->slot_count; slot++) {
        if (!graph_bit(graph->linked, slot))
            continue;
        uint32_t level = graph_level_of(slot);
        for (uint32_t i = 0; i <= level; i++)
            TRY(check_row(check, i, slot));
    }
    for (uint32_t slot = 0; slot < check->slot_count; slot++) {
        if (graph->in_counts[slot] != UINT16_MAX &&
            graph->in_counts[slot] != check->in_counts[slot])
            return error_set(check->error, STATUS_CORRUPT,
                             "%u links lead to slot %u; %u were counted", check->in_counts[slot],
                             slot, graph->in_counts[slot]);
    }
    return STATUS_OK;
}

// Mark what can be reached in the lowest layer from where a search gets there: from the entry, and
// from what the upper layers lead to.
static void reach(struct check *check)
{
    const struct graph *graph = check->graph;
    uint64_t entry = atomic_load(&graph->entry);
    if (entry == GRAPH_NO_ENTRY)
        return;
    uint32_t count = 0;
    check->queue[count++] = (uint32_t)entry;
    graph_set_bit(check->reached, (uint32_t)entry, true);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t links[BEAM_LINKS_MAX];
        uint32_t link_count = graph_read_row(graph, 0, check->queue[i], links);
        for (uint32_t k = 0; k < link_count; k++) {
            uint32_t target = links[k] & LINK_SLOT;
            if (graph_bit(check->reached, target))
                continue;
            graph_set_bit(check->reached, target, true);
            check->queue[count++] = target;
        }
    }
}

static bool is_lost(const struct check *check, uint32_t slot)
{
    return graph_bit(check->graph->linked, slot) && !graph_bit(check->graph->removed, slot) &&
           !graph_bit(check->reached, slot);
}

enum status graph_check(const struct graph *graph, struct error *error)
{
    struct check check;
    start_check(&check, graph, error);
    enum status status = check_rows(&check);
    if (status == STATUS_OK) {
        reach(&check);
        for (uint32_t slot = 0; slot < check.slot_count && status == STATUS_OK; slot++) {
            if (is_lost(&check, slot))
                status =
                    error_set(error, STATUS_CORRUPT, "slot %u cannot be reached; %u lead to it",
                              slot, graph->in_counts[slot]);
        }
    }
    end_check(&check);
    return status;
}

// From the nearest that the search found, which can be reached.
static void force_links(struct graph *graph, uint32_t slot, uint32_t in_links_min)
{
    const struct beam *beam = &graph->beam;
    uint32_t made = 0;
    for (uint32_t i = 0; i < beam->count && made < REPAIR_LINKS; i++) {
        if (beam->slots[i] == slot || graph_bit(graph->removed, beam->slots[i]))
            continue;
        const struct graph_candidate candidate = {beam->distances[i], slot};
        made += graph_link_back(graph, 0, beam->slots[i], candidate, in_links_min);
    }
    if (made == 0 && in_links_min > 1 && beam->count > 0)
        (void)graph_link_back(graph, 0, beam->slots[0],
                              (struct graph_candidate){beam->distances[0], slot}, 1);
}

uint32_t graph_repair(struct graph *graph)
{
    struct check check;
    start_check(&check, graph, NULL);
    reach(&check);
    uint32_t lost = 0;
    uint64_t entry = atomic_load(&graph->entry);
    for (uint32_t slot = 0; slot < check.slot_count; slot++) {
        if (!is_lost(&check, slot))
            continue;
        lost++;
        // It may have links, but only to others that are lost; what the search finds is not.
        (void)graph_connect(graph, 0, slot, (uint32_t)entry);
        force_links(graph, slot, GRAPH_IN_LINKS_MIN);
    }
    end_check(&check);
    return lost;
}

uint64_t graph_hash(const struct graph *graph)
{
    uint32_t links_hash = 0;
    uint32_t codes_hash = 0;
    uint32_t slots = atomic_load(&graph->slot_count);
    uint64_t entry = atomic_load(&graph->entry);
    links_hash = crc32c(links_hash, &entry, sizeof(entry));
    for (uint32_t slot = 0; slot < slots; slot++) {
        if (!graph_bit(graph->linked, slot))
            continue;
        codes_hash = crc32c(codes_hash, &slot, sizeof(slot));
        codes_hash = crc32c(codes_hash, graph_code(graph, slot), graph_codes_of(graph)->size);
        uint32_t level = graph_level_of(slot);
        for (uint32_t i = 0; i <= level; i++) {
            uint32_t links[BEAM_LINKS_MAX];
            uint32_t count = graph_read_row(graph, i, slot, links);
            links_hash = crc32c(links_hash, &count, sizeof(count));
            links_hash = crc32c(links_hash, links, count * sizeof(links[0]));
        }
    }
    return (uint64_t)links_hash << 32 | codes_hash;
}
