#pragma once

#include "base/error.h"
#include "base/str.h"

// A point as its bytes on disk, little-endian:
//
//   magic "VPT1" · dimension u32 · sequence u64 · payload size u32 · vector float32 × dimension ·
//   payload · CRC-32C u32
//
// The checksum is over the point's id, which is in the key, and everything before it: a record
// under another point's key is found out too. The sequence is that of the batch that wrote it. Any
// thread.

enum { RECORD_HEADER_SIZE = 20, RECORD_CHECKSUM_SIZE = 4 };

// Encoding writes the fixed parts; vector and payload go between them as they are.
struct record_frame {
    uint8_t header[RECORD_HEADER_SIZE];
    uint8_t checksum[RECORD_CHECKSUM_SIZE];
};

struct record_input {
    struct str id;
    uint64_t sequence;
    const float *vector;
    uint32_t dimension;
    struct str payload;
};

void record_encode(const struct record_input *input, struct record_frame *out_frame);

// A view of the record's bytes. The vector has any alignment.
struct record {
    uint64_t sequence;
    const uint8_t *vector;
    uint32_t dimension;
    struct str payload;
};

// CORRUPT: not what record_encode made for this id; the error says where.
enum status record_decode(struct str id, struct span bytes, struct error *error,
                          struct record *out_record);
