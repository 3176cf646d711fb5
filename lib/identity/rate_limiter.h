#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

// How often one address may call what costs us most or helps to guess, and one user what is written
// into the audit log, per minute. A minute begins with an address' (or user's) first call and all
// of its allowance comes back when it is over. The table has a fixed size: when very many addresses
// call at once the one whose minute ends first is forgotten. Any thread.

enum limited_call {
    LIMITED_LOGIN,
    LIMITED_REGISTER,
    LIMITED_CREATE_KEY,
    LIMITED_CREATE_TOKEN,
    LIMITED_AUDITED, // per user
    LIMITED_CALL_COUNT
};

struct rate_limiter;

// per_minute 0: no limit for that call.
struct rate_limiter *rate_limiter_create(const uint32_t per_minute[static LIMITED_CALL_COUNT]);
void rate_limiter_destroy(struct rate_limiter *limiter); // limiter may be NULL

// Count a call. False: over the limit; *out_wait_seconds (1 to 60) says when to come back.
bool rate_limiter_take(struct rate_limiter *limiter, enum limited_call call, struct str address,
                       uint32_t *out_wait_seconds);
uint32_t rate_limiter_per_minute(const struct rate_limiter *limiter, enum limited_call call);
