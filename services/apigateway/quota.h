#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "identity/token.h"

// How many points and bytes a user may keep, by plan. What he keeps is measured on the workers
// every few seconds (quota_measured); what went through this gateway since is added. So a user may
// pass his limit by what other gateways take in the meantime, and an overwritten point counts twice
// until it is measured. Any thread.

struct quota;

struct quota_amount {
    uint64_t points;
    uint64_t bytes; // on disk, of one replica
};

struct quota_options {
    struct quota_amount free_max; // 0: no limit
    struct quota_amount paid_max;
};

enum { QUOTA_RETRY_SECONDS = 20 }; // after which a deletion has been measured for sure

struct quota *quota_create(const struct quota_options *options);
void quota_destroy(struct quota *quota); // quota may be NULL

struct quota_amount quota_max(const struct quota *quota, enum plan plan);

// Add what a request brings. False: it would pass the limit, nothing was added; *out_used is what
// is used now.
bool quota_take(struct quota *quota, struct str user_id, enum plan plan,
                const struct quota_amount *amount, struct quota_amount *out_used);

// A new measurement, user by user, then the end; one thread at a time. is_complete: every worker
// has answered; if not, nobody's amount gets smaller.
void quota_measured(struct quota *quota, struct str user_id, const struct quota_amount *amount);
void quota_measure_end(struct quota *quota, bool is_complete);
