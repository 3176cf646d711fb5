#pragma once

#include "index/index.h"

// The best hits so far: at most top_k, ordered by score and then by id, the worst on top of a
// binary heap. The memory is the caller's. One thread.

struct top {
    const struct index_view *view; // for the ids
    struct index_hit *hits;
    uint32_t count;
    uint32_t top_k;
};

static inline bool top_is_full(const struct top *top)
{
    return top->count == top->top_k;
}

// The score that a new hit must not be above; only when full.
static inline float top_worst_score(const struct top *top)
{
    return top->hits[0].score;
}

void top_push(struct top *top,
              struct index_hit hit); // dropped when it is worse than all of a full top
void top_sort(struct top *top);      // best first; nothing is pushed afterwards
