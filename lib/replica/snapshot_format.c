#include "replica/snapshot_format.h"

#include <string.h>

#include "base/crc32c.h"

#define SNAPSHOT_MAGIC "VECTSNAP"
enum { MAGIC_SIZE = 8, SNAPSHOT_VERSION = 2 };

static void put_u32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

static void put_u64(uint8_t *bytes, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static uint64_t get_u64(const uint8_t *bytes)
{
    return (uint64_t)get_u32(bytes) | (uint64_t)get_u32(bytes + 4) << 32;
}

void snapshot_header_encode(uint64_t index, struct span state,
                            uint8_t out[static SNAPSHOT_HEADER_SIZE])
{
    memcpy(out, SNAPSHOT_MAGIC, MAGIC_SIZE);
    put_u32(out + 8, SNAPSHOT_VERSION);
    put_u64(out + 16, index);
    put_u64(out + 24, state.len);
    put_u64(out + 32, 0);
    uint32_t crc = crc32c(0, out + 16, SNAPSHOT_HEADER_SIZE - 16);
    put_u32(out + 12, crc32c(crc, state.data, state.len));
}

enum status snapshot_decode(struct span bytes, struct error *error, uint64_t *out_index,
                            struct span *out_state)
{
    if (bytes.len < SNAPSHOT_HEADER_SIZE)
        return error_set(error, STATUS_CORRUPT, "only %zu bytes, shorter than its header",
                         bytes.len);
    if (memcmp(bytes.data, SNAPSHOT_MAGIC, MAGIC_SIZE) != 0)
        return error_set(error, STATUS_CORRUPT, "not a snapshot file");
    uint32_t version = get_u32(bytes.data + 8);
    if (version != SNAPSHOT_VERSION)
        return error_set(error, STATUS_CORRUPT, "snapshot version %u, this program knows %d",
                         version, SNAPSHOT_VERSION);
    uint64_t length = get_u64(bytes.data + 24);
    if (length != bytes.len - SNAPSHOT_HEADER_SIZE)
        return error_set(error, STATUS_CORRUPT, "%zu bytes of state, %llu wanted",
                         bytes.len - SNAPSHOT_HEADER_SIZE, (unsigned long long)length);
    if (get_u32(bytes.data + 12) != crc32c(0, bytes.data + 16, bytes.len - 16))
        return error_set(error, STATUS_CORRUPT, "checksum");
    *out_index = get_u64(bytes.data + 16);
    *out_state = (struct span){bytes.data + SNAPSHOT_HEADER_SIZE, (size_t)length};
    return STATUS_OK;
}
