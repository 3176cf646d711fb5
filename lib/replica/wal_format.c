#include "replica/wal_format.h"

#include <string.h>

#include "base/crc32c.h"

#define WAL_MAGIC "VECTRWAL"
enum { MAGIC_SIZE = 8 };

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

// --- The segment's header

void wal_header_encode(const struct wal_header *header, uint8_t out[static WAL_HEADER_SIZE])
{
    memcpy(out, WAL_MAGIC, MAGIC_SIZE);
    put_u32(out + 8, WAL_VERSION);
    put_u64(out + 16, header->number);
    put_u64(out + 24, header->salt);
    put_u32(out + 12, crc32c(0, out + 16, WAL_HEADER_SIZE - 16));
}

enum status wal_header_decode(struct span bytes, struct error *error, struct wal_header *out_header)
{
    if (bytes.len < WAL_HEADER_SIZE)
        return error_set(error, STATUS_CORRUPT, "only %zu bytes, shorter than its header",
                         bytes.len);
    if (memcmp(bytes.data, WAL_MAGIC, MAGIC_SIZE) != 0)
        return error_set(error, STATUS_CORRUPT, "byte 0: not a log segment");
    uint32_t version = get_u32(bytes.data + 8);
    if (version != WAL_VERSION)
        return error_set(error, STATUS_CORRUPT, "log version %u, this program knows %d", version,
                         WAL_VERSION);
    if (get_u32(bytes.data + 12) != crc32c(0, bytes.data + 16, WAL_HEADER_SIZE - 16))
        return error_set(error, STATUS_CORRUPT, "byte 0: checksum of the header");
    struct wal_header header = {get_u64(bytes.data + 16), get_u64(bytes.data + 24)};
    if ((uint32_t)header.salt == 0)
        return error_set(error, STATUS_CORRUPT, "byte 24: no salt");
    *out_header = header;
    return STATUS_OK;
}

// --- Records

static uint32_t record_crc(const struct wal_header *header, const uint8_t *record, size_t length)
{
    uint8_t salt[8];
    put_u64(salt, header->salt);
    uint32_t crc = crc32c(0, salt, sizeof(salt));
    return crc32c(crc, record + 8, WAL_RECORD_SIZE - 8 + length);
}

void wal_record_encode(const struct wal_header *header, const struct wal_record *record,
                       const struct wal_snapshot *snapshot, struct buf *out)
{
    size_t head_size = snapshot == NULL ? 0 : WAL_SNAPSHOT_SIZE;
    struct span data = snapshot == NULL ? record->data : snapshot->configuration;
    size_t size = WAL_RECORD_SIZE + head_size + data.len;
    uint8_t *bytes = buf_reserve(out, size);
    if (bytes == NULL)
        return; // the buffer remembers that it overflowed
    put_u32(bytes, (uint32_t)header->salt);
    put_u32(bytes + 8, (uint32_t)(head_size + data.len));
    bytes[12] = (uint8_t)record->kind;
    bytes[13] = record->entry_kind;
    bytes[14] = 0;
    bytes[15] = 0;
    put_u64(bytes + 16, record->group_id);
    put_u64(bytes + 24, record->index);
    put_u64(bytes + 32, record->term);
    put_u32(bytes + 40, record->synced);
    put_u32(bytes + 44, 0);
    if (snapshot != NULL) {
        put_u64(bytes + WAL_RECORD_SIZE, snapshot->configuration_index);
        put_u64(bytes + WAL_RECORD_SIZE + 8, snapshot->first_index);
        put_u64(bytes + WAL_RECORD_SIZE + 16, snapshot->last_index);
    }
    if (data.len > 0)
        memcpy(bytes + WAL_RECORD_SIZE + head_size, data.data, data.len);
    put_u32(bytes + 4, record_crc(header, bytes, head_size + data.len));
    buf_commit(out, size);
}

bool wal_record_decode(const struct wal_header *header, struct span bytes, size_t offset,
                       struct wal_record *out_record)
{
    if (offset > bytes.len || bytes.len - offset < WAL_RECORD_SIZE)
        return false;
    const uint8_t *record = bytes.data + offset;
    size_t length = get_u32(record + 8);
    uint8_t kind = record[12];
    if (get_u32(record) != (uint32_t)header->salt || kind < WAL_ENTRY || kind > WAL_END ||
        length > bytes.len - offset - WAL_RECORD_SIZE ||
        get_u32(record + 4) != record_crc(header, record, length))
        return false;
    *out_record = (struct wal_record){
        .kind = (enum wal_kind)kind,
        .entry_kind = record[13],
        .group_id = get_u64(record + 16),
        .index = get_u64(record + 24),
        .term = get_u64(record + 32),
        .synced = get_u32(record + 40),
        .data = {record + WAL_RECORD_SIZE, length},
    };
    return true;
}

bool wal_snapshot_decode(const struct wal_record *record, struct wal_snapshot *out_snapshot)
{
    if (record->data.len < WAL_SNAPSHOT_SIZE)
        return false;
    const uint8_t *bytes = record->data.data;
    struct wal_snapshot snapshot = {
        .configuration_index = get_u64(bytes),
        .first_index = get_u64(bytes + 8),
        .last_index = get_u64(bytes + 16),
        .configuration = {bytes + WAL_SNAPSHOT_SIZE, record->data.len - WAL_SNAPSHOT_SIZE},
    };
    // Nothing is missing between the snapshot and the entries.
    if (snapshot.first_index == 0 || record->index == UINT64_MAX ||
        snapshot.first_index > record->index + 1 || snapshot.last_index < record->index)
        return false;
    *out_snapshot = snapshot;
    return true;
}

// --- Reading a segment

enum status wal_reader_init(struct wal_reader *reader, struct span bytes, struct error *error)
{
    struct wal_header header;
    TRY(wal_header_decode(bytes, error, &header));
    *reader = (struct wal_reader){header, bytes, WAL_HEADER_SIZE};
    return STATUS_OK;
}

// Where a record may begin, at or behind the offset; the end of the bytes if nowhere.
static size_t find_tag(const struct wal_reader *reader, size_t offset)
{
    uint8_t tag[4];
    put_u32(tag, (uint32_t)reader->header.salt);
    const uint8_t *start = reader->bytes.data + offset;
    const uint8_t *found = memmem(start, reader->bytes.len - offset, tag, sizeof(tag));
    return found == NULL ? reader->bytes.len : (size_t)(found - reader->bytes.data);
}

bool wal_reader_find(const struct wal_reader *reader, size_t synced_min)
{
    size_t offset = find_tag(reader, reader->offset);
    while (offset < reader->bytes.len) {
        struct wal_record record;
        // The cheap question first: a checksum of stray bytes may be over a megabyte.
        if (reader->bytes.len - offset >= WAL_RECORD_SIZE &&
            get_u32(reader->bytes.data + offset + 40) >= synced_min &&
            wal_record_decode(&reader->header, reader->bytes, offset, &record))
            return true;
        offset = find_tag(reader, offset + 1);
    }
    return false;
}

enum wal_read wal_reader_next(struct wal_reader *reader, struct wal_record *out_record)
{
    struct wal_record record;
    if (wal_record_decode(&reader->header, reader->bytes, reader->offset, &record) &&
        record.synced <= reader->offset) {
        reader->offset += WAL_RECORD_SIZE + record.data.len;
        *out_record = record;
        return WAL_READ_RECORD;
    }
    if (find_tag(reader, reader->offset) == reader->bytes.len)
        return WAL_READ_CLEAN;
    return wal_reader_find(reader, reader->offset + 1) ? WAL_READ_CORRUPT : WAL_READ_TORN;
}
