#pragma once

#include "index/index_internal.h"
#include "index/top.h"
#include "vector/kernel.h"

// The exact comparison of a query with points. A float32 sum decides whether a point can be among
// the best; what passes is scored in double (flat.c says why that is exact). Any thread.

struct flat_scan {
    const struct index_view *view;
    const struct index_search *search;
    const struct kernel *kernel;
    struct distance_query query;
    struct top *top;
    struct index_stats stats;
    bool only_unlinked;
    float relative; // how far a sum can be off, as a part of the sum of its terms
    float absolute; // and what underflow can take away
    // A row is looked at again unless its sum (made comparable with its norm) is beyond this.
    float limit;
    float query_norm;
    uint64_t floats_unchecked;
};

// Points are compared one by one, and put into top when they belong there; it may hold some. The
// vector and top must outlive the scan.
void flat_scan_init(struct flat_scan *scan, const struct index_view *view,
                    const struct index_search *search, struct top *top);
void flat_scan_slot(struct flat_scan *scan, const struct index_chunk *chunk, uint32_t slot);

// Compares every point of a view, or every one that the graph does not hold yet. CANCELLED,
// TIMEOUT.
enum status flat_search(const struct index_view *view, const struct index_search *search,
                        bool only_unlinked, struct top *top, struct index_stats *stats);
