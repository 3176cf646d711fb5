#pragma once

#include <stdbool.h>
#include <stdint.h>

// A progress line on stderr for work that takes long: drawn on a terminal only, at most ten times a
// second. One thread.

struct progress {
    const char *what;
    uint64_t total;
    uint64_t drawn_ns;
    uint64_t started_ns;
    bool is_on;
};

void progress_start(struct progress *progress, const char *what, uint64_t total, bool is_quiet);
void progress_show(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress); // wipes the line
