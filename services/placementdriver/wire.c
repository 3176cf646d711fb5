#include "placementdriver/wire.h"

static const uint8_t *take(struct wire_reader *reader, size_t size)
{
    if (reader->has_failed || reader->rest.len < size) {
        reader->has_failed = true;
        return NULL;
    }
    const uint8_t *bytes = reader->rest.data;
    reader->rest.data += size;
    reader->rest.len -= size;
    return bytes;
}

uint8_t wire_read_byte(struct wire_reader *reader)
{
    const uint8_t *bytes = take(reader, 1);
    return bytes == NULL ? 0 : *bytes;
}

uint32_t wire_read_u32(struct wire_reader *reader)
{
    const uint8_t *bytes = take(reader, 4);
    if (bytes == NULL)
        return 0;
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

uint64_t wire_read_u64(struct wire_reader *reader)
{
    uint64_t low = wire_read_u32(reader);
    return low | (uint64_t)wire_read_u32(reader) << 32;
}

struct str wire_read_text(struct wire_reader *reader)
{
    uint32_t size = wire_read_u32(reader);
    const uint8_t *bytes = take(reader, size);
    return bytes == NULL ? (struct str){0} : span_str((struct span){bytes, size});
}

uint32_t wire_read_count(struct wire_reader *reader, size_t item_size)
{
    uint32_t count = wire_read_u32(reader);
    if (reader->has_failed || count > reader->rest.len / item_size) {
        reader->has_failed = true;
        return 0;
    }
    return count;
}

void wire_append_text(struct buf *out, struct str text)
{
    buf_append_u32(out, (uint32_t)text.len);
    buf_append_str(out, text);
}

void worker_profile_encode(const struct worker_profile *profile, struct buf *out)
{
    wire_append_text(out, profile->identity);
    wire_append_text(out, profile->grpc_address);
    wire_append_text(out, profile->raft_address);
    wire_append_text(out, profile->rack);
    wire_append_text(out, profile->zone);
    wire_append_text(out, profile->region);
    wire_append_text(out, profile->capabilities);
    buf_append_u64(out, profile->cpu_cores);
    buf_append_u64(out, profile->memory_bytes);
    buf_append_u64(out, profile->disk_bytes);
}

struct worker_profile worker_profile_decode(struct wire_reader *reader)
{
    // In the order of the bytes: initialisers have no order of their own.
    struct worker_profile profile = {0};
    profile.identity = wire_read_text(reader);
    profile.grpc_address = wire_read_text(reader);
    profile.raft_address = wire_read_text(reader);
    profile.rack = wire_read_text(reader);
    profile.zone = wire_read_text(reader);
    profile.region = wire_read_text(reader);
    profile.capabilities = wire_read_text(reader);
    profile.cpu_cores = wire_read_u64(reader);
    profile.memory_bytes = wire_read_u64(reader);
    profile.disk_bytes = wire_read_u64(reader);
    return profile;
}
