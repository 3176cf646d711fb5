#include "base/hash.h"

#include <string.h>

// XXH64, from its public specification (xxHash fast digest algorithm, version 0.1.1). Chosen
// because it is fixed for ever, passes the usual tests of quality, and exists in every language, so
// that a client can compute a point's shard too.

#define PRIME_1 0x9E3779B185EBCA87U
#define PRIME_2 0xC2B2AE3D27D4EB4FU
#define PRIME_3 0x165667B19E3779F9U
#define PRIME_4 0x85EBCA77C2B2AE63U
#define PRIME_5 0x27D4EB2F165667C5U

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return (value << bits) | (value >> (64 - bits));
}

static uint64_t read_u64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static uint32_t read_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap32(value);
#endif
    return value;
}

static uint64_t mix_round(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * PRIME_2, 31) * PRIME_1;
}

static uint64_t merge_lane(uint64_t hash, uint64_t lane)
{
    return (hash ^ mix_round(0, lane)) * PRIME_1 + PRIME_4;
}

uint64_t hash64(struct span bytes, uint64_t seed)
{
    const uint8_t *at = bytes.data;
    size_t left = bytes.len;
    uint64_t hash = seed + PRIME_5;

    if (left >= 32) {
        uint64_t lanes[4] = {seed + PRIME_1 + PRIME_2, seed + PRIME_2, seed, seed - PRIME_1};
        for (; left >= 32; left -= 32, at += 32) {
            for (unsigned i = 0; i < 4; i++)
                lanes[i] = mix_round(lanes[i], read_u64(at + 8 * i));
        }
        hash =
            rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
        for (unsigned i = 0; i < 4; i++)
            hash = merge_lane(hash, lanes[i]);
    }

    hash += (uint64_t)bytes.len;
    for (; left >= 8; left -= 8, at += 8)
        hash = rotate(hash ^ mix_round(0, read_u64(at)), 27) * PRIME_1 + PRIME_4;
    if (left >= 4) {
        hash = rotate(hash ^ ((uint64_t)read_u32(at) * PRIME_1), 23) * PRIME_2 + PRIME_3;
        left -= 4;
        at += 4;
    }
    for (; left > 0; left--, at++)
        hash = rotate(hash ^ (*at * PRIME_5), 11) * PRIME_1;

    hash ^= hash >> 33;
    hash *= PRIME_2;
    hash ^= hash >> 29;
    hash *= PRIME_3;
    return hash ^ (hash >> 32);
}
