#include "replica/wal_format.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

// Two ways of reading what nobody vouches for: the bytes as a segment, and a segment made of the
// bytes in which one byte is changed. Reading ends, stays inside the bytes, and hands out only what
// was written.

enum { RECORDS_MAX = 8, CONTROL_SIZE = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void read_as_it_is(struct span bytes)
{
    struct error error;
    struct wal_reader reader;
    struct wal_record record;
    if (wal_reader_init(&reader, bytes, &error) != STATUS_OK) {
        if (bytes.len < WAL_HEADER_SIZE)
            return;
        // Past the header's checksum, which chance does not find.
        reader = (struct wal_reader){{1, 0x3131313131313131}, bytes, WAL_HEADER_SIZE};
    }
    size_t before = reader.offset;
    while (wal_reader_next(&reader, &record) == WAL_READ_RECORD) {
        require(reader.offset > before && reader.offset <= bytes.len);
        require(record.data.data >= bytes.data &&
                record.data.data + record.data.len <= bytes.data + bytes.len);
        before = reader.offset;
    }

    record = (struct wal_record){.kind = WAL_SNAPSHOT, .index = bytes.len, .data = bytes};
    struct wal_snapshot snapshot;
    if (wal_snapshot_decode(&record, &snapshot)) {
        require(snapshot.configuration.len == bytes.len - WAL_SNAPSHOT_SIZE);
        require(snapshot.first_index <= record.index + 1 && snapshot.last_index >= record.index);
    }
}

static void read_damaged(const uint8_t *data, size_t size)
{
    struct wal_header header = {1, 77};
    struct span parts[RECORDS_MAX];
    size_t count = data[0] % RECORDS_MAX + 1;
    size_t part = (size - CONTROL_SIZE) / count;
    struct buf bytes;
    buf_init(&bytes, SIZE_MAX);
    uint8_t encoded[WAL_HEADER_SIZE];
    wal_header_encode(&header, encoded);
    buf_append(&bytes, encoded, sizeof(encoded));
    size_t last = 0;
    for (size_t i = 0; i < count; i++) {
        parts[i] = (struct span){data + CONTROL_SIZE + i * part, part};
        struct wal_record record = {.kind = WAL_ENTRY,
                                    .group_id = 5,
                                    .index = i + 1,
                                    .synced = (uint32_t)bytes.len,
                                    .data = parts[i]};
        last = bytes.len;
        wal_record_encode(&header, &record, NULL, &bytes);
    }

    uint32_t place;
    memcpy(&place, data + 1, sizeof(place));
    uint8_t mask = data[5];
    size_t offset = WAL_HEADER_SIZE + place % (bytes.len - WAL_HEADER_SIZE);
    bytes.data[offset] ^= mask;

    struct error error;
    struct wal_reader reader;
    struct wal_record record;
    require(wal_reader_init(&reader, buf_span(&bytes), &error) == STATUS_OK);
    size_t read_count = 0;
    enum wal_read result;
    while ((result = wal_reader_next(&reader, &record)) == WAL_READ_RECORD) {
        require(read_count < count && record.data.len == parts[read_count].len);
        require(part == 0 || memcmp(record.data.data, parts[read_count].data, part) == 0);
        read_count++;
    }
    // Damage is seen, and is a tail only where nothing comes behind it.
    require(mask == 0 ? read_count == count && result == WAL_READ_CLEAN : read_count < count);
    require(mask == 0 || offset >= last || result == WAL_READ_CORRUPT);
    buf_deinit(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_as_it_is((struct span){data, size});
    if (size >= CONTROL_SIZE)
        read_damaged(data, size);
    return 0;
}
