#pragma once

#include "index/index.h"
#include "index/top.h"

// The exact search: compares every point of a view, or every one that the graph does not hold yet,
// and puts the best into top, which may hold some. Any thread. CANCELLED, TIMEOUT.

enum status flat_search(const struct index_view *view, const struct index_search *search,
                        bool only_unlinked, struct top *top, struct index_stats *stats);
