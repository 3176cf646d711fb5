#include "apigateway/merge.h"

#include <string.h>

// Hot path. The lists are as many as the workers that answered: few, so the next hit is found by
// looking at all heads; with one list there is nothing to compare.

static bool is_before(const Vectron__Worker__V1__ShardHit *a,
                      const Vectron__Worker__V1__ShardHit *b)
{
    if (a->score < b->score || a->score > b->score)
        return a->score < b->score;
    return strcmp(a->id, b->id) < 0;
}

static struct hit_list *best_list(struct hit_list *lists, size_t list_count)
{
    struct hit_list *best = NULL;
    for (size_t i = 0; i < list_count; i++) {
        if (lists[i].count > 0 && (best == NULL || is_before(lists[i].hits[0], best->hits[0])))
            best = &lists[i];
    }
    return best;
}

Vectron__Worker__V1__ShardHit **merge_hits(struct hit_list *lists, size_t list_count,
                                           size_t count_max, struct arena *arena, size_t *out_count)
{
    size_t total = 0;
    for (size_t i = 0; i < list_count; i++)
        total += lists[i].count;
    size_t count = total < count_max ? total : count_max;
    Vectron__Worker__V1__ShardHit **merged =
        arena_try_alloc(arena, (count + 1) * sizeof(merged[0]));
    if (merged == NULL)
        return NULL;
    size_t merged_count = 0;
    struct hit_list *list = NULL;
    while (merged_count < count && (list = best_list(lists, list_count)) != NULL) {
        merged[merged_count++] = list->hits[0];
        list->hits++;
        list->count--;
    }
    *out_count = merged_count;
    return merged;
}
