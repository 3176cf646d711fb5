#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

// Protobuf's wire format, piece by piece, from bytes that nobody vouches for. Any thread.

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_GROUP = 3,
    WIRE_GROUP_END = 4,
    WIRE_FIXED32 = 5,
};

// What is left to read.
struct wire {
    const uint8_t *at;
    const uint8_t *end;
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;    // varint and fixed
    struct span bytes; // WIRE_BYTES
};

// Each returns NULL when it worked, else what is wrong, as the end of a sentence.
const char *wire_read_varint(struct wire *wire, uint64_t *out_value);
// The next field as a whole; of a group only that it is there: skip it with wire_skip_group. An end
// of a group is an error.
const char *wire_read_field(struct wire *wire, struct wire_field *out_field);
const char *wire_skip_group(struct wire *wire, uint32_t number);

uint64_t wire_load_u64(const uint8_t *bytes); // little-endian, unaligned
uint32_t wire_load_u32(const uint8_t *bytes);
