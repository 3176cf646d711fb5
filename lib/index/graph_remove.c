#include <stdlib.h>

#include "base/assert.h"
#include "base/mem.h"
#include "index/graph_internal.h"

// Taking removed points out. All rows are read once, which is as fast as memory delivers, for many
// removed points together: so no list of who leads to whom needs to be kept, and none can be wrong.
// A row that loses a link gets as many new ones, chosen from what the removed points led to.
//
// (After the deletion of Singh et al., "FreshDiskANN", 2021; here rows are topped up instead of
// chosen anew.)

enum { REPLACEMENTS_MAX = BEAM_LINKS_MAX * BEAM_LINKS_MAX };

uint32_t graph_removed_count(const struct graph *graph)
{
    return graph->removed_count;
}

bool graph_is_sweeping(const struct graph *graph)
{
    return graph->sweep.is_running;
}

const uint32_t *graph_released(const struct graph *graph, uint32_t *out_count)
{
    *out_count = graph->sweep.is_running ? 0 : graph->sweep.count;
    return graph->sweep.slots;
}

static bool is_alive(const struct graph *graph, uint32_t slot)
{
    return graph_bit(graph->linked, slot) && !graph_bit(graph->removed, slot);
}

static uint32_t row_count_of(const struct graph *graph, uint32_t level)
{
    uint32_t slots = atomic_load_explicit(&graph->slot_count, memory_order_relaxed);
    return slots == 0 ? 0 : ((slots - 1) >> (level * GRAPH_LEVEL_SHIFT)) + 1;
}

// A living point in the highest layer that has one.
uint64_t graph_find_entry(const struct graph *graph)
{
    for (uint32_t level = GRAPH_LEVELS_MAX; level-- > 0;) {
        uint32_t rows = row_count_of(graph, level);
        for (uint32_t row = 0; row < rows; row++) {
            uint32_t slot = graph_slot_of_row(level, row);
            if (slot < graph->capacity && is_alive(graph, slot))
                return (uint64_t)level << 32 | slot;
        }
    }
    return GRAPH_NO_ENTRY;
}

void graph_sweep_begin(struct graph *graph)
{
    struct graph_sweep *sweep = &graph->sweep;
    ASSERT(!sweep->is_running);
    mem_free(sweep->slots);
    *sweep = (struct graph_sweep){
        .is_running = true, .slots = graph->removed_slots, .count = graph->removed_count};
    for (uint32_t i = 0; i < sweep->count; i++)
        graph_set_bit(graph->swept, sweep->slots[i], true);
    graph->removed_slots = NULL;
    graph->removed_count = 0;
    graph->removed_capacity = 0;
    uint64_t entry = atomic_load_explicit(&graph->entry, memory_order_relaxed);
    if (entry != GRAPH_NO_ENTRY && graph_bit(graph->removed, (uint32_t)entry))
        atomic_store_explicit(&graph->entry, graph_find_entry(graph), memory_order_release);
}

// --- One row

static int compare_candidates(const void *a, const void *b)
{
    const struct graph_candidate *left = a;
    const struct graph_candidate *right = b;
    if (left->distance != right->distance)
        return left->distance < right->distance ? -1 : 1;
    return left->slot < right->slot ? -1 : left->slot > right->slot;
}

struct loss {
    uint32_t level;
    uint32_t slot;
    uint32_t lost[BEAM_LINKS_MAX];
    uint32_t lost_count;
    struct graph_selection kept;
};

static struct loss find_loss(const struct graph *graph, uint32_t level, uint32_t slot)
{
    struct loss loss = {.level = level, .slot = slot};
    uint32_t links[BEAM_LINKS_MAX];
    uint32_t count = graph_read_row(graph, level, slot, links);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t target = links[i] & LINK_SLOT;
        if (graph_bit(graph->removed, target)) {
            loss.lost[loss.lost_count++] = target;
            continue;
        }
        loss.kept.slots[loss.kept.count] = target;
        loss.kept.is_occluded[loss.kept.count++] = (links[i] & LINK_OCCLUDED) != 0;
    }
    return loss;
}

// What the removed links of a row lead to, ordered, without doubles and what the row has.
static uint32_t find_replacements(const struct graph *graph, const struct loss *loss,
                                  struct graph_candidate *out)
{
    uint32_t found[REPLACEMENTS_MAX];
    int32_t distances[REPLACEMENTS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < loss->lost_count; i++) {
        uint32_t links[BEAM_LINKS_MAX];
        uint32_t link_count = graph_read_row(graph, loss->level, loss->lost[i], links);
        for (uint32_t k = 0; k < link_count; k++) {
            uint32_t target = links[k] & LINK_SLOT;
            if (target != loss->slot && is_alive(graph, target) &&
                !graph_holds(&loss->kept, target))
                found[count++] = target;
        }
    }
    graph_distances(graph, loss->slot, found, count, distances);
    for (uint32_t i = 0; i < count; i++)
        out[i] = (struct graph_candidate){distances[i], found[i]};
    qsort(out, count, sizeof(out[0]), compare_candidates);
    uint32_t kept_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (kept_count == 0 || out[kept_count - 1].slot != out[i].slot)
            out[kept_count++] = out[i];
    }
    return kept_count;
}

void graph_note_low(struct graph *graph, uint32_t slot)
{
    if (graph->low_count == graph->low_capacity) {
        graph->low_capacity = graph->low_capacity == 0 ? 64 : graph->low_capacity * 2;
        graph->low_slots =
            mem_resize(graph->low_slots, graph->low_capacity * sizeof(graph->low_slots[0]));
    }
    graph->low_slots[graph->low_count++] = slot;
}

static void repair_row(struct graph *graph, uint32_t level, uint32_t slot)
{
    struct loss loss = find_loss(graph, level, slot);
    if (loss.lost_count == 0)
        return;
    struct graph_candidate candidates[REPLACEMENTS_MAX];
    uint32_t candidate_count = find_replacements(graph, &loss, candidates);
    struct graph_selection selection = loss.kept;
    uint32_t kept = selection.count;
    // As many as there were, of which half may be occluded.
    uint32_t wanted = kept + loss.lost_count;
    if (wanted < GRAPH_SELECTED)
        wanted = GRAPH_SELECTED;
    graph_select(graph, candidates, candidate_count, wanted, GRAPH_SELECTED, &selection);
    graph_write_row(graph, level, slot, &selection);
    for (uint32_t i = kept; i < selection.count; i++)
        (void)graph_link_back(graph, level, selection.slots[i],
                              (struct graph_candidate){selection.distances[i], slot},
                              GRAPH_NOT_FORCED);
    if (level == 0 && selection.count < GRAPH_IN_LINKS_MIN)
        graph_note_low(graph, slot);
}

// --- The end of a sweep

void graph_raise_low(struct graph *graph)
{
    for (uint32_t i = 0; i < graph->low_count; i++) {
        uint32_t slot = graph->low_slots[i];
        uint64_t entry = atomic_load_explicit(&graph->entry, memory_order_relaxed);
        if (!is_alive(graph, slot) || entry == GRAPH_NO_ENTRY || (uint32_t)entry == slot)
            continue;
        uint32_t links[BEAM_LINKS_MAX];
        if (graph->in_counts[slot] >= GRAPH_IN_LINKS_MIN &&
            graph_read_row(graph, 0, slot, links) >= GRAPH_IN_LINKS_MIN)
            continue;
        (void)graph_connect(graph, 0, slot, (uint32_t)entry);
    }
    graph->low_count = 0;
}

// Nobody leads to the removed points any more; now they do not lead to anybody.
static void release(struct graph *graph)
{
    const struct graph_selection none = {0};
    // They may lead to each other: first all rows, then all slots.
    for (uint32_t i = 0; i < graph->sweep.count; i++) {
        uint32_t slot = graph->sweep.slots[i];
        uint32_t links[BEAM_LINKS_MAX];
        uint32_t count = graph_read_row(graph, 0, slot, links);
        uint32_t level = graph_level_of(slot);
        for (uint32_t k = 0; k <= level; k++)
            graph_write_row(graph, k, slot, &none);
        for (uint32_t k = 0; k < count; k++) {
            if (graph->in_counts[links[k] & LINK_SLOT] < GRAPH_IN_LINKS_MIN)
                graph_note_low(graph, links[k] & LINK_SLOT);
        }
    }
    for (uint32_t i = 0; i < graph->sweep.count; i++) {
        uint32_t slot = graph->sweep.slots[i];
        ASSERT(graph->in_counts[slot] == 0 || graph->in_counts[slot] == UINT16_MAX);
        graph->in_counts[slot] = 0;
        graph_set_bit(graph->linked, slot, false);
        graph_set_bit(graph->removed, slot, false);
        graph_set_bit(graph->swept, slot, false);
    }
}

bool graph_sweep_step(struct graph *graph, uint32_t row_count)
{
    struct graph_sweep *sweep = &graph->sweep;
    ASSERT(sweep->is_running);
    while (sweep->level < GRAPH_LEVELS_MAX && row_count > 0) {
        if (sweep->row >= row_count_of(graph, sweep->level)) {
            sweep->level++;
            sweep->row = 0;
            continue;
        }
        uint32_t slot = graph_slot_of_row(sweep->level, sweep->row++);
        row_count--;
        // Those that were removed meanwhile, too: they stay as a way to others.
        if (slot < graph->capacity && graph_bit(graph->linked, slot) &&
            !graph_bit(graph->swept, slot))
            repair_row(graph, sweep->level, slot);
    }
    if (sweep->level < GRAPH_LEVELS_MAX)
        return true;
    release(graph);
    graph_raise_low(graph);
    sweep->is_running = false;
    return false;
}
