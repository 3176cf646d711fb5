#include "index/top.h"

// Hot path.

static bool is_worse(const struct top *top, struct index_hit a, struct index_hit b)
{
    if (a.score != b.score)
        return a.score > b.score;
    return str_compare(index_view_id(top->view, a.slot), index_view_id(top->view, b.slot)) > 0;
}

// Put hit where the hole at place is, or where it belongs below it, in a heap of count.
static void sift_down(struct top *top, uint32_t place, uint32_t count, struct index_hit hit)
{
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= count)
            break;
        if (child + 1 < count && is_worse(top, top->hits[child + 1], top->hits[child]))
            child++;
        if (!is_worse(top, top->hits[child], hit))
            break;
        top->hits[place] = top->hits[child];
        place = child;
    }
    top->hits[place] = hit;
}

void top_push(struct top *top, struct index_hit hit)
{
    if (top_is_full(top)) {
        if (is_worse(top, top->hits[0], hit))
            sift_down(top, 0, top->count, hit);
        return;
    }
    uint32_t place = top->count++;
    while (place > 0) {
        uint32_t parent = (place - 1) / 2;
        if (!is_worse(top, hit, top->hits[parent]))
            break;
        top->hits[place] = top->hits[parent];
        place = parent;
    }
    top->hits[place] = hit;
}

void top_sort(struct top *top)
{
    for (uint32_t count = top->count; count > 1; count--) {
        struct index_hit last = top->hits[count - 1];
        top->hits[count - 1] = top->hits[0];
        sift_down(top, 0, count - 1, last);
    }
}
