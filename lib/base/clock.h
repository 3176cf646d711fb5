#pragma once

#include <stdint.h>

// Time, behind a seam: a test may put its own clock in place. Any thread.

uint64_t clock_monotonic_ns(void); // never goes back; for durations and deadlines
uint64_t clock_unix_ms(void);      // wall clock, may jump
int64_t clock_unix_seconds(void);

// For tests: both clocks come from here until NULL is set.
struct clock_source {
    uint64_t (*monotonic_ns)(void);
    uint64_t (*unix_ms)(void);
};
void clock_set_source(const struct clock_source *clock_source);
