#include "store/record.h"

#include <float.h>
#include <string.h>

#include "base/buf.h"
#include "testing/test.h"

static void encode(const struct record_input *input, struct buf *out)
{
    struct record_frame frame;
    record_encode(input, &frame);
    buf_append(out, frame.header, sizeof(frame.header));
    buf_append(out, input->vector, input->dimension * sizeof(float));
    buf_append_str(out, input->payload);
    buf_append(out, frame.checksum, sizeof(frame.checksum));
}

static const float vector[] = {1.5F, -0.0F, FLT_TRUE_MIN, FLT_MAX, -FLT_TRUE_MIN};
static const struct record_input input = {
    .id = {"a point", 7},
    .sequence = 0x123456789abc,
    .vector = vector,
    .dimension = 5,
    .payload = {"{\"a\":1}", 7},
};

TEST(what_was_encoded_is_decoded_bit_for_bit)
{
    struct buf bytes;
    struct record record;
    struct error error;
    buf_init(&bytes, 1 << 20);
    encode(&input, &bytes);
    REQUIRE_OK(record_decode(input.id, buf_span(&bytes), &error, &record));
    CHECK_EQ_U64(record.sequence, input.sequence);
    CHECK_EQ_U64(record.dimension, 5);
    CHECK_STR(((struct str){(const char *)record.vector, sizeof(vector)}),
              ((struct str){(const char *)vector, sizeof(vector)}));
    CHECK_STR(record.payload, input.payload);
    CHECK_EQ_U64(bytes.len, RECORD_HEADER_SIZE + 20 + 7 + RECORD_CHECKSUM_SIZE);
    // Read again by every later version.
    CHECK(memcmp(bytes.data, "VPT1\5\0\0\0\xbc\x9a\x78\x56\x34\x12\0\0\7\0\0\0", 20) == 0);
    buf_deinit(&bytes);
}

TEST(every_flipped_bit_and_every_cut_is_found)
{
    struct buf bytes;
    struct record record;
    struct error error;
    buf_init(&bytes, 1 << 20);
    encode(&input, &bytes);
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_STATUS(record_decode(input.id, buf_span(&bytes), &error, &record), STATUS_CORRUPT);
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t size = 0; size < bytes.len; size++)
        CHECK_STATUS(record_decode(input.id, (struct span){bytes.data, size}, &error, &record),
                     STATUS_CORRUPT);
    CHECK_STATUS(record_decode(STR("another"), buf_span(&bytes), &error, &record), STATUS_CORRUPT);
    CHECK_OK(record_decode(input.id, buf_span(&bytes), &error, &record));
    buf_deinit(&bytes);
}

TEST_MAIN()
