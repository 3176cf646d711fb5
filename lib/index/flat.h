#pragma once

#include "index/index.h"

// The exact search: compares every point of a view. See index.h. Any thread.

enum status flat_search(const struct index_view *view, const struct index_search *search,
                        struct index_hit *hits, uint32_t *out_hit_count,
                        struct index_stats *out_stats);
