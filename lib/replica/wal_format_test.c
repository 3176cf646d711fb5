#include "replica/wal_format.h"

#include <stdio.h>
#include <string.h>

#include "testing/test.h"

enum { SEGMENT_SIZE = 2048 };

static const struct wal_header header = {12, 0x1122334455667788};

// Records of three batches: the second and third know how much was synced.
static void make_segment(struct buf *bytes)
{
    buf_init(bytes, SIZE_MAX);
    uint8_t encoded[WAL_HEADER_SIZE];
    wal_header_encode(&header, encoded);
    buf_append(bytes, encoded, sizeof(encoded));
    struct wal_snapshot snapshot = {3, 5, 9, str_span(STR("members"))};
    struct wal_record record = {.kind = WAL_SNAPSHOT, .group_id = 1, .index = 6, .term = 2};
    record.synced = (uint32_t)bytes->len;
    wal_record_encode(&header, &record, &snapshot, bytes);
    record = (struct wal_record){.kind = WAL_VOTE, .group_id = 1, .index = 3, .term = 4};
    record.synced = (uint32_t)bytes->len;
    wal_record_encode(&header, &record, NULL, bytes);
    record = (struct wal_record){.kind = WAL_ENTRY,
                                 .entry_kind = 200,
                                 .group_id = UINT64_MAX,
                                 .index = 10,
                                 .term = 4,
                                 .synced = (uint32_t)bytes->len,
                                 .data = str_span(STR("what was proposed"))};
    wal_record_encode(&header, &record, NULL, bytes);
}

static void pad(struct buf *bytes)
{
    static const uint8_t zeros[SEGMENT_SIZE];
    buf_append(bytes, zeros, SEGMENT_SIZE - bytes->len);
}

static enum wal_read read_all(struct span bytes, uint32_t *out_count)
{
    struct wal_reader reader;
    struct error error;
    *out_count = 0;
    if (!CHECK_OK(wal_reader_init(&reader, bytes, &error)))
        return WAL_READ_CORRUPT;
    struct wal_record record;
    enum wal_read result;
    while ((result = wal_reader_next(&reader, &record)) == WAL_READ_RECORD)
        (*out_count)++;
    return result;
}

TEST(records_come_back)
{
    struct buf bytes;
    make_segment(&bytes);
    pad(&bytes);
    struct wal_reader reader;
    struct error error;
    REQUIRE_OK(wal_reader_init(&reader, buf_span(&bytes), &error));
    CHECK(reader.header.number == header.number && reader.header.salt == header.salt);
    struct wal_record record;
    struct wal_snapshot snapshot;
    REQUIRE(wal_reader_next(&reader, &record) == WAL_READ_RECORD);
    CHECK(record.kind == WAL_SNAPSHOT && record.group_id == 1 && record.index == 6);
    REQUIRE(wal_snapshot_decode(&record, &snapshot));
    CHECK(snapshot.configuration_index == 3 && snapshot.first_index == 5);
    CHECK_EQ_U64(snapshot.last_index, 9);
    CHECK_STR(span_str(snapshot.configuration), STR("members"));
    REQUIRE(wal_reader_next(&reader, &record) == WAL_READ_RECORD);
    CHECK(record.kind == WAL_VOTE && record.index == 3 && record.term == 4);
    REQUIRE(wal_reader_next(&reader, &record) == WAL_READ_RECORD);
    CHECK(record.kind == WAL_ENTRY && record.entry_kind == 200 && record.group_id == UINT64_MAX);
    CHECK_STR(span_str(record.data), STR("what was proposed"));
    CHECK(wal_reader_next(&reader, &record) == WAL_READ_CLEAN);
    buf_deinit(&bytes);
}

// The bytes of version 1 stay what they are.
TEST(the_bytes_are_these)
{
    uint8_t encoded[WAL_HEADER_SIZE];
    wal_header_encode(&(struct wal_header){2, 0x0102030405060708}, encoded);
    static const uint8_t wanted[16] = {2, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1};
    CHECK(memcmp(encoded, "VECTRWAL\x01\0\0\0", 12) == 0);
    CHECK(memcmp(encoded + 16, wanted, 16) == 0);
    struct buf bytes;
    make_segment(&bytes);
    const uint8_t *vote = bytes.data + WAL_HEADER_SIZE + WAL_RECORD_SIZE + WAL_SNAPSHOT_SIZE + 7;
    static const uint8_t wanted_vote[] = {0x88, 0x77, 0x66, 0x55};
    static const uint8_t wanted_rest[] = {0, 0, 0, 0, 3,   0, 0, 0, 1, 0, 0, 0, 0, 0,
                                          0, 0, 3, 0, 0,   0, 0, 0, 0, 0, 4, 0, 0, 0,
                                          0, 0, 0, 0, 111, 0, 0, 0, 0, 0, 0, 0};
    CHECK(memcmp(vote, wanted_vote, 4) == 0);
    CHECK(memcmp(vote + 8, wanted_rest, 40) == 0);
    buf_deinit(&bytes);
}

TEST(any_flipped_bit_is_seen_and_judged)
{
    struct buf bytes;
    make_segment(&bytes);
    size_t used = bytes.len;
    size_t last = used - WAL_RECORD_SIZE - strlen("what was proposed");
    pad(&bytes);
    for (size_t bit = (size_t)WAL_HEADER_SIZE * 8; bit < used * 8; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        uint32_t count;
        enum wal_read result = read_all(buf_span(&bytes), &count);
        // Damage before the last record is told by that one. The last one may be a torn tail; when
        // not even its tag is left it may be nothing.
        if (bit / 8 < last)
            CHECK(result == WAL_READ_CORRUPT);
        else
            CHECK(result == (bit / 8 < last + 4 ? WAL_READ_CLEAN : WAL_READ_TORN) && count == 2);
        bytes.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    buf_deinit(&bytes);
}

TEST(any_cut_is_seen)
{
    struct buf bytes;
    make_segment(&bytes);
    uint32_t whole = 0;
    for (size_t size = WAL_HEADER_SIZE; size <= bytes.len; size++) {
        uint32_t count;
        enum wal_read result = read_all((struct span){bytes.data, size}, &count);
        CHECK(result == WAL_READ_CLEAN || result == WAL_READ_TORN);
        CHECK(count >= whole && count <= 3);
        whole = count;
    }
    CHECK_EQ_U64(whole, 3);
    buf_deinit(&bytes);
}

TEST(a_header_is_checked)
{
    struct buf bytes;
    make_segment(&bytes);
    struct wal_reader reader;
    struct error error;
    for (size_t bit = 0; bit < (size_t)WAL_HEADER_SIZE * 8; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        CHECK_STATUS(wal_reader_init(&reader, buf_span(&bytes), &error), STATUS_CORRUPT);
        bytes.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    CHECK_STATUS(wal_reader_init(&reader, (struct span){bytes.data, 31}, &error), STATUS_CORRUPT);
    uint8_t encoded[WAL_HEADER_SIZE];
    wal_header_encode(&(struct wal_header){1, 0xff00000000}, encoded);
    CHECK_STATUS(wal_reader_init(&reader, (struct span){encoded, sizeof(encoded)}, &error),
                 STATUS_CORRUPT);
    buf_deinit(&bytes);
}

TEST(records_of_another_segment_are_none)
{
    // A file that is used again: its old records lie behind the new header.
    struct buf bytes;
    make_segment(&bytes);
    pad(&bytes);
    wal_header_encode(&(struct wal_header){13, 0x99aabbccddeeff00}, bytes.data);
    uint32_t count;
    CHECK(read_all(buf_span(&bytes), &count) == WAL_READ_CLEAN && count == 0);
    // Also when the tag is the same by chance.
    wal_header_encode(&(struct wal_header){13, 0xffffffff55667788}, bytes.data);
    CHECK(read_all(buf_span(&bytes), &count) == WAL_READ_TORN && count == 0);
    buf_deinit(&bytes);
}

TEST(a_snapshot_that_leaves_a_gap_is_none)
{
    struct buf bytes;
    buf_init(&bytes, SIZE_MAX);
    struct wal_record record = {.kind = WAL_SNAPSHOT, .group_id = 1, .index = 6, .term = 2};
    static const struct wal_snapshot wrong[] = {
        {.first_index = 8, .last_index = 9},
        {.first_index = 5, .last_index = 5},
        {.first_index = 0, .last_index = 9},
    };
    struct wal_snapshot snapshot;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        buf_clear(&bytes);
        wal_record_encode(&header, &record, &wrong[i], &bytes);
        struct wal_record decoded;
        REQUIRE(wal_record_decode(&header, buf_span(&bytes), 0, &decoded));
        CHECK(!wal_snapshot_decode(&decoded, &snapshot));
    }
    record.data = str_span(STR("short"));
    CHECK(!wal_snapshot_decode(&record, &snapshot));
    buf_deinit(&bytes);
}

TEST_MAIN()
