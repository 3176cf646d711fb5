#include "replica/log_format.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

// Two ways of reading what nobody vouches for: the bytes as a log and as a snapshot, and a log made
// of the bytes in which one byte is changed. Reading ends, stays inside the bytes, and hands out
// only what was written.

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
    struct log_reader reader;
    struct span command;
    if (log_reader_init(&reader, bytes, &error) != STATUS_OK) {
        if (bytes.len < LOG_HEADER_SIZE)
            return;
        // Past the header's checksum, which chance does not find.
        reader = (struct log_reader){{1, 0}, bytes, LOG_HEADER_SIZE, 1};
    }
    size_t before = reader.offset;
    while (log_reader_next(&reader, &command) == LOG_READ_RECORD) {
        require(reader.offset > before && reader.offset <= bytes.len);
        require(command.data >= bytes.data && command.data + command.len <= bytes.data + bytes.len);
        before = reader.offset;
    }

    uint64_t index;
    struct span state;
    if (snapshot_decode(bytes, &error, &index, &state) == STATUS_OK)
        require(state.len == bytes.len - SNAPSHOT_HEADER_SIZE);
}

static void read_damaged(const uint8_t *data, size_t size)
{
    struct log_header header = {1, 77};
    struct span commands[RECORDS_MAX];
    size_t count = data[0] % RECORDS_MAX + 1;
    size_t part = (size - CONTROL_SIZE) / count;
    struct buf log;
    buf_init(&log, SIZE_MAX);
    uint8_t encoded[LOG_HEADER_SIZE];
    log_header_encode(&header, encoded);
    buf_append(&log, encoded, sizeof(encoded));
    for (size_t i = 0; i < count; i++) {
        commands[i] = (struct span){data + CONTROL_SIZE + i * part, part};
        log_record_encode(&header, i + 1, buf_span(&log).len, commands[i], &log);
    }

    uint32_t place;
    memcpy(&place, data + 1, sizeof(place));
    uint8_t mask = data[5];
    log.data[LOG_HEADER_SIZE + place % (log.len - LOG_HEADER_SIZE)] ^= mask;

    struct error error;
    struct log_reader reader;
    struct span command;
    require(log_reader_init(&reader, buf_span(&log), &error) == STATUS_OK);
    size_t read_count = 0;
    enum log_read result;
    while ((result = log_reader_next(&reader, &command)) == LOG_READ_RECORD) {
        require(read_count < count && command.len == commands[read_count].len);
        require(part == 0 || memcmp(command.data, commands[read_count].data, command.len) == 0);
        read_count++;
    }
    // Damage is seen, and is a tail only where nothing comes behind it.
    require((result == LOG_READ_END) == (mask == 0));
    require(mask != 0 || read_count == count);
    require(result != LOG_READ_TORN || read_count + 1 == count);
    buf_deinit(&log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_as_it_is((struct span){data, size});
    if (size >= CONTROL_SIZE)
        read_damaged(data, size);
    return 0;
}
