#include "store/record.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"

// The first byte is the size of an id that follows, the rest is the record. Once as it comes, once
// with its checksum put right, so that what stands behind the checksum is reached.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(struct str id, struct span bytes)
{
    struct record record;
    struct error error;
    if (record_decode(id, bytes, &error, &record) != STATUS_OK)
        return;
    ASSERT(record.vector >= bytes.data);
    ASSERT((const uint8_t *)record.payload.data + record.payload.len + RECORD_CHECKSUM_SIZE ==
           bytes.data + bytes.len);
    float *vector = mem_alloc(record.dimension * sizeof(float));
    memcpy(vector, record.vector, record.dimension * sizeof(float));
    struct record_input input = {id, record.sequence, vector, record.dimension, record.payload};
    struct record_frame frame;
    record_encode(&input, &frame);
    ASSERT(memcmp(frame.header, bytes.data, sizeof(frame.header)) == 0);
    ASSERT(memcmp(frame.checksum, bytes.data + bytes.len - sizeof(frame.checksum),
                  sizeof(frame.checksum)) == 0);
    mem_free(vector);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size - 1 < data[0])
        return 0;
    struct str id = {(const char *)data + 1, data[0]};
    struct span bytes = {data + 1 + data[0], size - 1 - data[0]};
    decode(id, bytes);
    if (bytes.len < RECORD_CHECKSUM_SIZE)
        return 0;
    uint8_t *copy = mem_alloc(bytes.len);
    memcpy(copy, bytes.data, bytes.len);
    size_t before = bytes.len - RECORD_CHECKSUM_SIZE;
    uint32_t crc = crc32c(crc32c(0, id.data, id.len), copy, before);
    memcpy(copy + before, &crc, sizeof(crc));
    decode(id, (struct span){copy, bytes.len});
    mem_free(copy);
    return 0;
}
