#include "replica/log_format.h"

#include <string.h>

#include "testing/test.h"

static const struct log_header sample_header = {5, 0x1234};

static void log_begin(struct buf *log)
{
    uint8_t header[LOG_HEADER_SIZE];
    buf_init(log, SIZE_MAX);
    log_header_encode(&sample_header, header);
    buf_append(log, header, sizeof(header));
}

// Read everything; returns how it ended.
static enum log_read read_all(const struct buf *log, uint32_t *out_count)
{
    struct log_reader reader;
    struct error error;
    struct span command;
    *out_count = 0;
    CHECK_OK(log_reader_init(&reader, buf_span(log), &error));
    enum log_read result;
    while ((result = log_reader_next(&reader, &command)) == LOG_READ_RECORD)
        (*out_count)++;
    return result;
}

TEST(records_come_back_in_order)
{
    struct buf log;
    log_begin(&log);
    log_record_encode(&sample_header, 5, log.len, str_span(STR("one")), &log);
    log_record_encode(&sample_header, 6, log.len, str_span(STR("")), &log);
    struct log_reader reader;
    struct error error;
    struct span command;
    REQUIRE_OK(log_reader_init(&reader, buf_span(&log), &error));
    CHECK_EQ_U64(reader.next_index, 5);
    CHECK(log_reader_next(&reader, &command) == LOG_READ_RECORD);
    CHECK_STR(span_str(command), STR("one"));
    CHECK(log_reader_next(&reader, &command) == LOG_READ_RECORD);
    CHECK_EQ_U64(command.len, 0);
    CHECK(log_reader_next(&reader, &command) == LOG_READ_END);
    CHECK_EQ_U64(reader.next_index, 7);
    buf_deinit(&log);
}

TEST(any_cut_leaves_a_tail_that_may_go)
{
    struct buf log;
    log_begin(&log);
    size_t ends[3];
    for (uint64_t i = 0; i < 3; i++) {
        log_record_encode(&sample_header, 5 + i, log.len, str_span(STR("command")), &log);
        ends[i] = log.len;
    }
    size_t size = log.len;
    for (size_t cut = LOG_HEADER_SIZE; cut <= size; cut++) {
        log.len = cut;
        uint32_t count;
        enum log_read result = read_all(&log, &count);
        bool is_whole = cut == LOG_HEADER_SIZE || cut == ends[0] || cut == ends[1] || cut == size;
        CHECK(result == (is_whole ? LOG_READ_END : LOG_READ_TORN));
        CHECK_EQ_U64(count, (cut >= ends[0]) + (cut >= ends[1]) + (cut >= ends[2]));
    }
    buf_deinit(&log);
}

TEST(any_flipped_bit_is_seen_and_judged)
{
    struct buf log;
    log_begin(&log);
    // Two batches: the first of one record, the second of two that were written together.
    log_record_encode(&sample_header, 5, LOG_HEADER_SIZE, str_span(STR("first")), &log);
    size_t synced = log.len;
    log_record_encode(&sample_header, 6, synced, str_span(STR("second")), &log);
    log_record_encode(&sample_header, 7, synced, str_span(STR("third")), &log);
    for (size_t i = LOG_HEADER_SIZE; i < log.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            uint32_t count;
            log.data[i] ^= (uint8_t)(1 << bit);
            enum log_read result = read_all(&log, &count);
            // The first batch was acknowledged, the second may have been torn in any place.
            CHECK(result == (i < synced ? LOG_READ_CORRUPT : LOG_READ_TORN));
            log.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buf_deinit(&log);
}

TEST(a_command_that_looks_like_a_record_is_none)
{
    struct buf log;
    struct buf forged;
    struct log_header guess = {5, 0};
    buf_init(&forged, SIZE_MAX);
    log_record_encode(&guess, 6, LOG_HEADER_SIZE + 1, str_span(STR("forged")), &forged);
    log_begin(&log);
    log_record_encode(&sample_header, 5, log.len, buf_span(&forged), &log);
    log.data[LOG_HEADER_SIZE + 4] ^= 1; // the outer record is torn
    uint32_t count;
    CHECK(read_all(&log, &count) == LOG_READ_TORN);
    buf_deinit(&forged);
    buf_deinit(&log);
}

TEST(broken_headers_are_refused)
{
    struct buf log;
    struct error error;
    struct log_reader reader;
    log_begin(&log);
    for (size_t i = 0; i < LOG_HEADER_SIZE; i++) {
        log.data[i] ^= 0x10;
        CHECK_STATUS(log_reader_init(&reader, buf_span(&log), &error), STATUS_CORRUPT);
        log.data[i] ^= 0x10;
    }
    log.len--;
    CHECK_STATUS(log_reader_init(&reader, buf_span(&log), &error), STATUS_CORRUPT);
    buf_deinit(&log);
}

TEST(snapshot_survives_nothing_but_itself)
{
    uint8_t file[SNAPSHOT_HEADER_SIZE + 5];
    struct span state = str_span(STR("state"));
    snapshot_header_encode(99, state, file);
    memcpy(file + SNAPSHOT_HEADER_SIZE, state.data, state.len);
    struct span bytes = {file, sizeof(file)};
    struct error error;
    uint64_t index = 0;
    struct span out;
    REQUIRE_OK(snapshot_decode(bytes, &error, &index, &out));
    CHECK_EQ_U64(index, 99);
    CHECK_STR(span_str(out), STR("state"));
    for (size_t i = 0; i < sizeof(file); i++) {
        file[i] ^= 1;
        CHECK_STATUS(snapshot_decode(bytes, &error, &index, &out), STATUS_CORRUPT);
        file[i] ^= 1;
    }
    bytes.len--;
    CHECK_STATUS(snapshot_decode(bytes, &error, &index, &out), STATUS_CORRUPT);
}

TEST_MAIN()
