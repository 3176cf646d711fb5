#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// The files of the log, read by themselves for people: nothing is opened, locked or changed, so a
// copy of a running process' file will do. Any thread.

// Whether the bytes begin as a segment of the log does.
bool log_segment_is(struct span bytes);
// Check a segment and append what it holds as lines; each record one, when has_records. CORRUPT:
// what had been synced is damaged; the lines up to there are appended. A torn tail is told, not an
// error.
enum status log_segment_inspect(struct span bytes, bool has_records, struct buf *out,
                                struct error *error);
