#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "placementdriver/state.h"

// Reading what buf_append_… wrote: little-endian numbers and texts with a length in front. A reader
// that comes to the end remembers it and gives zeros from then on, so that one look at has_failed
// suffices. One thread.

struct wire_reader {
    struct span rest;
    bool has_failed;
};

uint8_t wire_read_byte(struct wire_reader *reader);
uint32_t wire_read_u32(struct wire_reader *reader);
uint64_t wire_read_u64(struct wire_reader *reader);
struct str wire_read_text(struct wire_reader *reader); // borrowed
// How many things of at least item_size bytes follow; 0 and failed when there is no room for them.
uint32_t wire_read_count(struct wire_reader *reader, size_t item_size);

void wire_append_text(struct buf *out, struct str text);

// A profile, as it stands in commands and in snapshots. Texts are borrowed.
void worker_profile_encode(const struct worker_profile *profile, struct buf *out);
struct worker_profile worker_profile_decode(struct wire_reader *reader);
