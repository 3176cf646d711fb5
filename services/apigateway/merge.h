#pragma once

#include <stddef.h>

#include "api/worker.pb-c.h"
#include "base/arena.h"

// Several lists of hits, each sorted by score, then id, into one. Any thread.

struct hit_list {
    Vectron__Worker__V1__ShardHit *const *hits;
    size_t count;
};

// The best count_max of all, in order, in the arena; *out_count says how many there are. NULL: the
// arena's maximum. Equal scores go by id, bytewise.
Vectron__Worker__V1__ShardHit **merge_hits(struct hit_list *lists, size_t list_count,
                                           size_t count_max, struct arena *arena,
                                           size_t *out_count);
