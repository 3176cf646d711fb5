#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

// What is wrong in the cluster, as the last surveys have found it, and what was and is over. In
// memory, bounded; gone with the process. Any thread; one lock, never held over anything slow.

enum alert_level { ALERT_WARNING, ALERT_CRITICAL };

struct alert_condition {
    struct str key; // which: "worker/3"
    enum alert_level level;
    struct str message;
};

struct alerts;

struct alerts *alerts_create(void);
void alerts_destroy(struct alerts *alerts); // alerts may be NULL

// Everything that holds now. What is new raises an alert, what has gone resolves its alert. One
// that a person has resolved stays so until its condition has been gone.
void alerts_update(struct alerts *alerts, const struct alert_condition *conditions, uint32_t count,
                   int64_t now);
// False: there is no such alert.
bool alerts_resolve(struct alerts *alerts, uint64_t id, int64_t now);
uint32_t alerts_active_count(struct alerts *alerts);

// A JSON array, the newest first. Empty status ("active", "resolved") or level ("warning",
// "critical"): all.
void alerts_print(struct alerts *alerts, struct str status, struct str level, struct buf *out);
