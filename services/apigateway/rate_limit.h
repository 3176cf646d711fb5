#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

// How often each user may call: so many per second, with a burst of one second's worth. Many
// threads, no lock. The table has a fixed size: when more users call at once than it has room for,
// those that were seen longest ago start anew.

struct rate_limit;

// per_second > 0. burst: how many at once after a rest; at least 1.
struct rate_limit *rate_limit_create(double per_second, double burst);
void rate_limit_destroy(struct rate_limit *limit); // limit may be NULL

// Hot path. False: too soon; *out_wait_ns says how much.
bool rate_limit_take(struct rate_limit *limit, struct str user_id, uint64_t now_ns,
                     uint64_t *out_wait_ns);
