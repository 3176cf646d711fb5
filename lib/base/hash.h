#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// 64-bit hashes of bytes. hash64 is part of what is stored (the shard of a point is chosen by it):
// its results never change. Not for secrets.

uint64_t hash64(struct span bytes, uint64_t seed);
