#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

// The bytes of a snapshot file, little-endian: a header, then the machine's state. Pure; any
// thread.
//
//     0 magic "VECTSNAP"  8 version u32  12 crc u32 of 16..  16 index u64  24 length u64  32 zero

enum { SNAPSHOT_HEADER_SIZE = 40 };

void snapshot_header_encode(uint64_t index, struct span state,
                            uint8_t out[static SNAPSHOT_HEADER_SIZE]);
// CORRUPT. out_state is borrowed from bytes.
enum status snapshot_decode(struct span bytes, struct error *error, uint64_t *out_index,
                            struct span *out_state);
