#include "store/record.h"

#include <string.h>

#include "base/crc32c.h"
#include "base/limits.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "floats are stored as they lie in memory");
_Static_assert(sizeof(float) == 4, "IEEE 754 binary32");

enum {
    MAGIC = 0x31545056, // "VPT1"
    DIMENSION_AT = 4,
    SEQUENCE_AT = 8,
    PAYLOAD_SIZE_AT = 16,
};

void record_encode(const struct record_input *input, struct record_frame *out_frame)
{
    uint32_t magic = MAGIC;
    uint32_t payload_size = (uint32_t)input->payload.len;
    memcpy(out_frame->header, &magic, sizeof(magic));
    memcpy(out_frame->header + DIMENSION_AT, &input->dimension, sizeof(input->dimension));
    memcpy(out_frame->header + SEQUENCE_AT, &input->sequence, sizeof(input->sequence));
    memcpy(out_frame->header + PAYLOAD_SIZE_AT, &payload_size, sizeof(payload_size));
    uint32_t crc = crc32c(0, input->id.data, input->id.len);
    crc = crc32c(crc, out_frame->header, RECORD_HEADER_SIZE);
    crc = crc32c(crc, input->vector, input->dimension * sizeof(float));
    crc = crc32c(crc, input->payload.data, input->payload.len);
    memcpy(out_frame->checksum, &crc, sizeof(crc));
}

enum status record_decode(struct str id, struct span bytes, struct error *error,
                          struct record *out_record)
{
    const size_t size_min = RECORD_HEADER_SIZE + RECORD_CHECKSUM_SIZE;
    uint32_t magic;
    uint32_t dimension;
    uint32_t payload_size;
    uint32_t crc;
    if (bytes.len < size_min)
        return error_set(error, STATUS_CORRUPT, "record of %zu bytes is too short", bytes.len);
    memcpy(&magic, bytes.data, sizeof(magic));
    if (magic != MAGIC)
        return error_set(error, STATUS_CORRUPT, "record does not start with its magic number");
    memcpy(&crc, bytes.data + bytes.len - RECORD_CHECKSUM_SIZE, sizeof(crc));
    uint32_t real = crc32c(crc32c(0, id.data, id.len), bytes.data, bytes.len - sizeof(crc));
    if (real != crc)
        return error_set(error, STATUS_CORRUPT, "record's checksum is %08x and should be %08x",
                         real, crc);
    memcpy(&dimension, bytes.data + DIMENSION_AT, sizeof(dimension));
    memcpy(&payload_size, bytes.data + PAYLOAD_SIZE_AT, sizeof(payload_size));
    if (dimension == 0 || dimension > LIMIT_DIMENSION_MAX ||
        bytes.len - size_min != dimension * sizeof(float) + (size_t)payload_size)
        return error_set(error, STATUS_CORRUPT,
                         "record of %zu bytes says dimension %u and a payload of %u bytes",
                         bytes.len, dimension, payload_size);
    memcpy(&out_record->sequence, bytes.data + SEQUENCE_AT, sizeof(out_record->sequence));
    out_record->vector = bytes.data + RECORD_HEADER_SIZE;
    out_record->dimension = dimension;
    out_record->payload =
        (struct str){(const char *)out_record->vector + dimension * sizeof(float), payload_size};
    return STATUS_OK;
}
