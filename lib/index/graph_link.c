#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "index/graph_internal.h"

// Which links a point has. A link is occluded when the row holds a nearer point that the target is
// nearer to than to the row's own: a search finds its way over that one. Such links only fill
// places, and are the first to be given up; without them clustered data falls apart.
//
// Distances of a row's links are not kept but computed again when they are needed: the codes must
// be fetched anyway to compare them with the newcomer.

enum {
    COMPARED_AT_ONCE = 4,
    UPPER_BUILD_WIDTH = 64,
    BUILD_BREADTH = 2,
};

void graph_distances(const struct graph *graph, uint32_t slot, const uint32_t *rows, uint32_t count,
                     int32_t *out)
{
    const struct graph_codes *codes = graph_codes_of(graph);
    kernel_get()->code_l2(graph_code(graph, slot),
                          &(struct kernel_codes){codes->first, codes->size}, rows, count, out);
}

static void prefetch_codes(const struct graph *graph, const uint32_t *slots, uint32_t count)
{
    uint32_t size = graph_codes_of(graph)->size;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *code = graph_code(graph, slots[i]);
        for (uint32_t k = 0; k < size; k += BEAM_ALIGNMENT)
            __builtin_prefetch(code + k);
    }
}

// Whether one of the first count that were selected is nearer to the candidate than distance. One
// with the same code occludes it too: else points that are all alike would link only to each other.
static bool is_occluded(const struct graph *graph, const struct graph_selection *selection,
                        uint32_t count, const struct graph_candidate *candidate)
{
    int32_t distances[COMPARED_AT_ONCE];
    for (uint32_t i = 0; i < count; i += COMPARED_AT_ONCE) {
        uint32_t size = count - i < COMPARED_AT_ONCE ? count - i : COMPARED_AT_ONCE;
        graph_distances(graph, candidate->slot, selection->slots + i, size, distances);
        for (uint32_t k = 0; k < size; k++) {
            if (distances[k] < candidate->distance || distances[k] == 0)
                return true;
        }
    }
    return false;
}

bool graph_holds(const struct graph_selection *selection, uint32_t slot)
{
    for (uint32_t i = 0; i < selection->count; i++) {
        if (selection->slots[i] == slot)
            return true;
    }
    return false;
}

static void add(struct graph_selection *selection, const struct graph_candidate *candidate,
                bool is_filling)
{
    uint32_t place = selection->count++;
    selection->slots[place] = candidate->slot;
    selection->distances[place] = candidate->distance;
    selection->is_occluded[place] = is_filling;
}

void graph_select(const struct graph *graph, const struct graph_candidate *candidates,
                  uint32_t count, uint32_t selected, uint32_t filled,
                  struct graph_selection *selection)
{
    const struct graph_candidate *occluded[BEAM_LINKS_MAX];
    uint32_t occluded_count = 0;
    for (uint32_t i = 0; i < count && selection->count < selected; i++) {
        const struct graph_candidate *candidate = &candidates[i];
        if (i + 1 < count)
            prefetch_codes(graph, &candidates[i + 1].slot, 1);
        if (graph_bit(graph->removed, candidate->slot))
            continue;
        if (!is_occluded(graph, selection, selection->count, candidate))
            add(selection, candidate, false);
        else if (occluded_count < BEAM_LINKS_MAX)
            occluded[occluded_count++] = candidate;
    }
    for (uint32_t i = 0; i < occluded_count && selection->count < filled; i++)
        add(selection, occluded[i], true);
}

// --- Rows

uint32_t graph_read_row(const struct graph *graph, uint32_t level, uint32_t slot,
                        uint32_t *out_links)
{
    struct beam_layer layer = graph_layer_of(graph, level);
    const _Atomic uint32_t *row = beam_row(&layer, slot);
    uint32_t count = 0;
    while (count < layer.degree) {
        uint32_t link = atomic_load_explicit(&row[count], memory_order_relaxed);
        if (link == LINK_NONE)
            break;
        out_links[count++] = link;
    }
    return count;
}

static void count_in(struct graph *graph, uint32_t level, uint32_t link, int32_t change)
{
    if (level > 0 || link == LINK_NONE)
        return;
    uint16_t *count = &graph->in_counts[link & LINK_SLOT];
    ASSERT(change > 0 || *count > 0);
    // A count that reaches the end stays there; only small ones matter.
    if (*count < UINT16_MAX)
        *count = (uint16_t)(*count + change);
}

static void set_link(struct graph *graph, uint32_t level, _Atomic uint32_t *place, uint32_t link)
{
    uint32_t before = atomic_load_explicit(place, memory_order_relaxed);
    if (before == link)
        return;
    count_in(graph, level, before, -1);
    count_in(graph, level, link, 1);
    // Release: who follows the link finds the target's code and row.
    atomic_store_explicit(place, link, memory_order_release);
}

void graph_write_row(struct graph *graph, uint32_t level, uint32_t slot,
                     const struct graph_selection *selection)
{
    struct beam_layer layer = graph_layer_of(graph, level);
    _Atomic uint32_t *row = beam_row(&layer, slot);
    ASSERT(selection->count <= layer.degree);
    for (uint32_t i = 0; i < layer.degree; i++) {
        uint32_t link = LINK_NONE;
        if (i < selection->count)
            link = selection->slots[i] | (selection->is_occluded[i] ? LINK_OCCLUDED : 0);
        set_link(graph, level, &row[i], link);
    }
}

// --- Links back

struct back_row {
    uint32_t links[BEAM_LINKS_MAX];
    uint32_t slots[BEAM_LINKS_MAX];
    int32_t own[BEAM_LINKS_MAX]; // distances from the row's point
    int32_t new[BEAM_LINKS_MAX]; // and from the newcomer
    uint32_t count;
};

static bool is_occluding(const struct back_row *row, uint32_t i, int32_t distance)
{
    return (row->links[i] & LINK_OCCLUDED) == 0 && row->own[i] <= distance &&
           (row->new[i] < distance || row->new[i] == 0);
}

struct give_up {
    bool only_occluded;
    uint32_t in_links_min; // what its target must keep more than
};

// Of equally far ones the one that most others lead to: of points that are all alike, else, the
// newest would always take the place of the last.
static bool is_rather_given_up(const struct graph *graph, const struct back_row *row, uint32_t i,
                               uint32_t other)
{
    if (other == BEAM_LINKS_MAX || row->own[i] != row->own[other])
        return other == BEAM_LINKS_MAX || row->own[i] > row->own[other];
    return graph->in_counts[row->slots[i]] > graph->in_counts[row->slots[other]];
}

// The farthest that can be given up; BEAM_LINKS_MAX: none.
static uint32_t farthest(const struct graph *graph, uint32_t level, const struct back_row *row,
                         struct give_up rule)
{
    uint32_t found = BEAM_LINKS_MAX;
    for (uint32_t i = 0; i < row->count; i++) {
        if (rule.only_occluded && (row->links[i] & LINK_OCCLUDED) == 0)
            continue;
        if (!is_rather_given_up(graph, row, i, found))
            continue;
        if (level > 0 || graph->in_counts[row->slots[i]] > rule.in_links_min)
            found = i;
    }
    return found;
}

// The place that the newcomer gets in a full row.
static uint32_t place_for(const struct graph *graph, uint32_t level, const struct back_row *row,
                          int32_t distance, bool is_new_occluded)
{
    uint32_t place = farthest(graph, level, row, (struct give_up){true, GRAPH_IN_LINKS_MIN});
    if (place < BEAM_LINKS_MAX && (!is_new_occluded || row->own[place] > distance))
        return place;
    if (is_new_occluded)
        return BEAM_LINKS_MAX;
    place = farthest(graph, level, row, (struct give_up){false, GRAPH_IN_LINKS_MIN});
    return place < BEAM_LINKS_MAX && row->own[place] > distance ? place : BEAM_LINKS_MAX;
}

bool graph_link_back(struct graph *graph, uint32_t level, uint32_t from,
                     struct graph_candidate slot, uint32_t in_links_min)
{
    struct beam_layer layer = graph_layer_of(graph, level);
    _Atomic uint32_t *places = beam_row(&layer, from);
    struct back_row row;
    row.count = graph_read_row(graph, level, from, row.links);
    for (uint32_t i = 0; i < row.count; i++) {
        row.slots[i] = row.links[i] & LINK_SLOT;
        if (row.slots[i] == slot.slot)
            return true;
    }
    prefetch_codes(graph, row.slots, row.count);
    graph_distances(graph, slot.slot, row.slots, row.count, row.new);
    graph_distances(graph, from, row.slots, row.count, row.own);
    bool is_new_occluded = false;
    for (uint32_t i = 0; i < row.count && !is_new_occluded; i++)
        is_new_occluded = is_occluding(&row, i, slot.distance);
    for (uint32_t i = 0; i < row.count && !is_new_occluded; i++) {
        if (row.own[i] > slot.distance && row.new[i] < row.own[i])
            row.links[i] |= LINK_OCCLUDED;
    }
    uint32_t place = row.count;
    if (row.count == layer.degree)
        place = place_for(graph, level, &row, slot.distance, is_new_occluded);
    if (place == BEAM_LINKS_MAX && in_links_min < GRAPH_NOT_FORCED)
        place = farthest(graph, level, &row, (struct give_up){false, in_links_min});
    for (uint32_t i = 0; i < row.count; i++) {
        if (i != place)
            atomic_store_explicit(&places[i], row.links[i], memory_order_relaxed);
    }
    if (place == BEAM_LINKS_MAX)
        return false;
    set_link(graph, level, &places[place], slot.slot | (is_new_occluded ? LINK_OCCLUDED : 0));
    return true;
}

// --- A point's own links

// What the row holds stays: others may lead there only from here.
static void take_row(const struct graph *graph, uint32_t level, uint32_t slot,
                     struct graph_selection *selection)
{
    uint32_t links[BEAM_LINKS_MAX];
    selection->count = graph_read_row(graph, level, slot, links);
    for (uint32_t i = 0; i < selection->count; i++) {
        selection->slots[i] = links[i] & LINK_SLOT;
        selection->is_occluded[i] = (links[i] & LINK_OCCLUDED) != 0;
    }
    graph_distances(graph, slot, selection->slots, selection->count, selection->distances);
}

static uint32_t take_candidates(struct graph *graph, uint32_t self,
                                const struct graph_selection *selection)
{
    const struct beam *beam = &graph->beam;
    if (graph->candidate_capacity < beam->count) {
        graph->candidate_capacity = beam->count;
        mem_free(graph->candidates);
        graph->candidates = mem_alloc(beam->count * sizeof(graph->candidates[0]));
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < beam->count; i++) {
        if (beam->slots[i] != self && !graph_holds(selection, beam->slots[i]))
            graph->candidates[count++] =
                (struct graph_candidate){beam->distances[i], beam->slots[i]};
    }
    return count;
}

static void link_all_back(struct graph *graph, uint32_t level, uint32_t slot,
                          const struct graph_selection *selection)
{
    struct beam_layer layer = graph_layer_of(graph, level);
    for (uint32_t i = 0; i < selection->count; i++)
        beam_prefetch_row(&layer, selection->slots[i]);
    // What is worth it first; then, while too few lead here, what others can do without; then, so
    // that somebody does, what they can hardly do without.
    static const uint32_t mins[] = {GRAPH_NOT_FORCED, GRAPH_IN_LINKS_MIN, 1};
    static const uint32_t enough[] = {UINT16_MAX, GRAPH_IN_LINKS_MIN, 1};
    for (uint32_t turn = 0; turn < (level == 0 ? 3U : 1U); turn++) {
        for (uint32_t i = 0; i < selection->count; i++) {
            if (graph->in_counts[slot] >= enough[turn])
                return;
            (void)graph_link_back(graph, level, selection->slots[i],
                                  (struct graph_candidate){selection->distances[i], slot},
                                  mins[turn]);
        }
    }
}

uint32_t graph_connect(struct graph *graph, uint32_t level, uint32_t slot, uint32_t entry)
{
    const struct graph_codes *codes = graph_codes_of(graph);
    uint32_t width = graph->options.build_width;
    if (level > 0 && width > UPPER_BUILD_WIDTH)
        width = UPPER_BUILD_WIDTH;
    const struct beam_search search = {
        .codes = {codes->first, codes->size},
        .layer = graph_layer_of(graph, level),
        .slot_count = atomic_load_explicit(&graph->slot_count, memory_order_relaxed),
        .entry = entry,
        .width = width,
        .breadth = BUILD_BREADTH,
    };
    memcpy(graph->beam.query, graph_code(graph, slot), codes->size);
    beam_run(&graph->beam, &search);
    struct graph_selection selection;
    take_row(graph, level, slot, &selection);
    uint32_t count = take_candidates(graph, slot, &selection);
    graph_select(graph, graph->candidates, count, GRAPH_SELECTED, GRAPH_SELECTED, &selection);
    graph_write_row(graph, level, slot, &selection);
    link_all_back(graph, level, slot, &selection);
    return count > 0 ? graph->candidates[0].slot : entry;
}
