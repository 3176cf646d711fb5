#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// The placement driver's state as it stands in a snapshot, read for people. Any thread.

// Append what it holds, a line each. CORRUPT: it is none, or breaks an invariant.
enum status placementdriver_inspect(struct span encoded, struct buf *out, struct error *error);
