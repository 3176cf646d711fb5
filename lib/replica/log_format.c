#include "replica/log_format.h"

#include <string.h>

#include "base/crc32c.h"
#include "replica/replica.h"

#define LOG_MAGIC      "VECTRLOG"
#define SNAPSHOT_MAGIC "VECTSNAP"
enum { MAGIC_SIZE = 8, SNAPSHOT_VERSION = 1 };
#define RECORD_MAGIC 0x43455256U // "VREC"

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

// --- The log's header

void log_header_encode(const struct log_header *header, uint8_t out[static LOG_HEADER_SIZE])
{
    memcpy(out, LOG_MAGIC, MAGIC_SIZE);
    put_u32(out + 8, LOG_VERSION);
    put_u64(out + 16, header->first_index);
    put_u64(out + 24, header->salt);
    put_u32(out + 12, crc32c(0, out + 16, LOG_HEADER_SIZE - 16));
}

enum status log_header_decode(struct span bytes, struct error *error, struct log_header *out_header)
{
    if (bytes.len < LOG_HEADER_SIZE)
        return error_set(error, STATUS_CORRUPT, "only %zu bytes, shorter than its header",
                         bytes.len);
    if (memcmp(bytes.data, LOG_MAGIC, MAGIC_SIZE) != 0)
        return error_set(error, STATUS_CORRUPT, "not a log file");
    uint32_t version = get_u32(bytes.data + 8);
    if (version != LOG_VERSION)
        return error_set(error, STATUS_CORRUPT, "log version %u, this program knows %d", version,
                         LOG_VERSION);
    if (get_u32(bytes.data + 12) != crc32c(0, bytes.data + 16, LOG_HEADER_SIZE - 16))
        return error_set(error, STATUS_CORRUPT, "checksum of the header");
    struct log_header header = {get_u64(bytes.data + 16), get_u64(bytes.data + 24)};
    if (header.first_index == 0)
        return error_set(error, STATUS_CORRUPT, "first index 0");
    *out_header = header;
    return STATUS_OK;
}

// --- Records

static uint32_t record_crc(const struct log_header *header, const uint8_t *record, size_t length)
{
    uint8_t salt[8];
    put_u64(salt, header->salt);
    uint32_t crc = crc32c(0, salt, sizeof(salt));
    return crc32c(crc, record + 8, LOG_RECORD_HEADER_SIZE - 8 + length);
}

void log_record_encode(const struct log_header *header, uint64_t index, uint64_t synced,
                       struct span command, struct buf *out)
{
    size_t size = LOG_RECORD_HEADER_SIZE + command.len;
    uint8_t *record = buf_reserve(out, size);
    if (record == NULL)
        return; // the buffer remembers that it overflowed
    put_u32(record, RECORD_MAGIC);
    put_u32(record + 8, (uint32_t)command.len);
    put_u32(record + 12, 0);
    put_u64(record + 16, index);
    put_u64(record + 24, synced);
    if (command.len > 0)
        memcpy(record + LOG_RECORD_HEADER_SIZE, command.data, command.len);
    put_u32(record + 4, record_crc(header, record, command.len));
    buf_commit(out, size);
}

// Whether a whole record with a right checksum is at the offset. Its index must lie in the range:
// that is looked at before the checksum, which costs time.
static bool record_is_at(const struct log_reader *reader, size_t offset, uint64_t index_min,
                         uint64_t index_max)
{
    const uint8_t *record = reader->bytes.data + offset;
    size_t left = reader->bytes.len - offset;
    if (left < LOG_RECORD_HEADER_SIZE || get_u32(record) != RECORD_MAGIC ||
        get_u32(record + 12) != 0)
        return false;
    uint64_t index = get_u64(record + 16);
    size_t length = get_u32(record + 8);
    if (index < index_min || index > index_max || length > REPLICA_COMMAND_SIZE_MAX ||
        length > left - LOG_RECORD_HEADER_SIZE || get_u64(record + 24) > offset)
        return false;
    return get_u32(record + 4) == record_crc(&reader->header, record, length);
}

// What is at reader->offset is no record. Look for a later one that says it had been synced.
static enum log_read judge_rest(const struct log_reader *reader)
{
    uint8_t magic[4];
    put_u32(magic, RECORD_MAGIC);
    size_t offset = reader->offset + 1;
    while (offset < reader->bytes.len) {
        const uint8_t *start = reader->bytes.data + offset;
        const uint8_t *found = memmem(start, reader->bytes.len - offset, magic, sizeof(magic));
        if (found == NULL)
            break;
        offset += (size_t)(found - start);
        uint64_t index_max = reader->next_index + (offset - reader->offset);
        if (reader->bytes.len - offset >= LOG_RECORD_HEADER_SIZE &&
            get_u64(found + 24) > reader->offset &&
            record_is_at(reader, offset, reader->next_index, index_max))
            return LOG_READ_CORRUPT;
        offset++;
    }
    return LOG_READ_TORN;
}

enum status log_reader_init(struct log_reader *reader, struct span bytes, struct error *error)
{
    struct log_header header;
    TRY(log_header_decode(bytes, error, &header));
    *reader = (struct log_reader){header, bytes, LOG_HEADER_SIZE, header.first_index};
    return STATUS_OK;
}

enum log_read log_reader_next(struct log_reader *reader, struct span *out_command)
{
    if (reader->offset == reader->bytes.len)
        return LOG_READ_END;
    if (!record_is_at(reader, reader->offset, reader->next_index, reader->next_index))
        return judge_rest(reader);
    const uint8_t *record = reader->bytes.data + reader->offset;
    size_t length = get_u32(record + 8);
    *out_command = (struct span){record + LOG_RECORD_HEADER_SIZE, length};
    reader->offset += LOG_RECORD_HEADER_SIZE + length;
    reader->next_index++;
    return LOG_READ_RECORD;
}

// --- Snapshots

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
