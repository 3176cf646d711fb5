#include "vectron/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/loop.h"

enum { BAR_WIDTH = 30 };

void progress_start(struct progress *progress, const char *what, uint64_t total, bool is_quiet)
{
    *progress = (struct progress){
        .what = what,
        .total = total,
        .started_ns = clock_monotonic_ns(),
        .is_on = !is_quiet && isatty(STDERR_FILENO) == 1,
    };
}

void progress_show(struct progress *progress, uint64_t done)
{
    uint64_t now = clock_monotonic_ns();
    if (!progress->is_on ||
        (now - progress->drawn_ns < NS_PER_SECOND / 10 && done < progress->total))
        return;
    progress->drawn_ns = now;
    double seconds = (double)(now - progress->started_ns) / (double)NS_PER_SECOND;
    int filled = progress->total == 0 ? 0 : (int)(BAR_WIDTH * done / progress->total);
    fprintf(stderr, "\r%s [%.*s%*s] %" PRIu64 "/%" PRIu64 " %.0f/s ", progress->what, filled,
            "##############################", BAR_WIDTH - filled, "", done, progress->total,
            seconds > 0 ? (double)done / seconds : 0);
}

void progress_end(struct progress *progress)
{
    if (progress->is_on)
        fputs("\r\033[K", stderr);
}
