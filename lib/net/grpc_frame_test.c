#include "net/grpc_frame.h"

#include <string.h>

#include "base/mem.h"
#include "testing/test.h"

struct budget {
    size_t used;
    size_t max;
};

static bool take(void *context, size_t size)
{
    struct budget *budget = context;
    if (size > budget->max - budget->used)
        return false;
    budget->used += size;
    return true;
}

static void give(void *context, size_t size)
{
    struct budget *budget = context;
    budget->used -= size;
}

// Feed bytes in pieces; count the messages and their sizes.
static enum status read_all(struct grpc_reader *reader, struct span bytes, size_t piece,
                            unsigned *out_count, size_t *out_size)
{
    *out_count = 0;
    *out_size = 0;
    for (size_t at = 0; at < bytes.len; at += piece) {
        struct span next = {bytes.data + at, bytes.len - at < piece ? bytes.len - at : piece};
        while (next.len > 0) {
            struct span message = {0};
            bool is_complete = false;
            TRY(grpc_reader_next(reader, 100000, &next, NULL, &message, &is_complete));
            *out_count += is_complete ? 1 : 0;
            *out_size += message.len;
        }
    }
    return STATUS_OK;
}

TEST(messages_in_pieces_of_any_size)
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    static uint8_t bytes[3000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i);
    for (size_t size = 0; size < 3000; size += 250) {
        CHECK(grpc_frame_append(&out, (struct span){bytes, size}, false));
        memset(bytes, 0, 100); // so that some become smaller
        CHECK(grpc_frame_append(&out, (struct span){bytes, size}, true));
    }
    for (size_t piece = 1; piece < 5000; piece = piece * 2 + 1) {
        struct budget budget = {.max = SIZE_MAX};
        struct grpc_reader reader;
        grpc_reader_init(&reader, true, &(struct grpc_budget){take, give, &budget});
        unsigned count = 0;
        size_t size = 0;
        CHECK_OK(read_all(&reader, buf_span(&out), piece, &count, &size));
        CHECK_EQ_U64(count, 24);
        CHECK_EQ_U64(size, 33000);
        CHECK(!grpc_reader_is_inside(&reader));
        grpc_reader_deinit(&reader);
        CHECK_EQ_U64(budget.used, 0);
    }
    buf_deinit(&out);
}

TEST(a_message_that_lies_whole_is_not_copied)
{
    struct budget budget = {.max = 0};
    struct grpc_reader reader;
    grpc_reader_init(&reader, false, &(struct grpc_budget){take, give, &budget});
    static const uint8_t frame[] = {0, 0, 0, 0, 3, 'a', 'b', 'c', 0};
    struct span bytes = {frame, sizeof(frame)};
    struct span message = {0};
    bool is_complete = false;
    CHECK_OK(grpc_reader_next(&reader, 3, &bytes, NULL, &message, &is_complete));
    CHECK(is_complete && message.data == frame + 5 && message.len == 3 && bytes.len == 1);
    CHECK_OK(grpc_reader_next(&reader, 3, &bytes, NULL, &message, &is_complete));
    CHECK(!is_complete && bytes.len == 0 && grpc_reader_is_inside(&reader));
    grpc_reader_deinit(&reader);
}

static enum status status_of(const uint8_t *frame, size_t size, bool has_gzip, size_t budget_max,
                             struct error *error)
{
    struct budget budget = {.max = budget_max};
    struct grpc_reader reader;
    grpc_reader_init(&reader, has_gzip, &(struct grpc_budget){take, give, &budget});
    struct span bytes = {frame, size};
    struct span message = {0};
    bool is_complete = false;
    enum status status = grpc_reader_next(&reader, 1000, &bytes, error, &message, &is_complete);
    CHECK(budget.used <= 65536);
    grpc_reader_deinit(&reader);
    CHECK_EQ_U64(budget.used, 0);
    return status;
}

TEST(what_is_refused)
{
    struct error error = {0};
    CHECK_STATUS(status_of((uint8_t[]){0, 0, 0, 3, 0xe9}, 5, false, 0, &error), STATUS_EXHAUSTED);
    CHECK_CSTR(error.text, "message of 1001 bytes is over the limit of 1000 bytes");
    CHECK_STATUS(status_of((uint8_t[]){0, 0xff, 0xff, 0xff, 0xff}, 5, false, 0, &error),
                 STATUS_EXHAUSTED);
    CHECK_STATUS(status_of((uint8_t[]){2, 0, 0, 0, 1, 'a'}, 6, false, 0, &error), STATUS_INVALID);
    CHECK_STATUS(status_of((uint8_t[]){1, 0, 0, 0, 1, 'a'}, 6, false, 0, &error), STATUS_INVALID);
    CHECK_STATUS(status_of((uint8_t[]){1, 0, 0, 0, 1, 'a'}, 6, true, SIZE_MAX, &error),
                 STATUS_INVALID);
    CHECK_STATUS(status_of((uint8_t[]){1, 0, 0, 0, 0}, 5, true, SIZE_MAX, &error), STATUS_INVALID);
    CHECK_STATUS(status_of((uint8_t[]){0, 0, 0, 0, 9, 'a'}, 6, false, 0, &error), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("memory"));
}

TEST(a_gzip_bomb_stops_at_the_limit)
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    uint8_t *zeros = mem_alloc(200000);
    CHECK(grpc_frame_append(&out, (struct span){zeros, 200000}, true));
    CHECK(out.data[0] == 1 && out.len < 1000);
    struct error error = {0};
    CHECK_STATUS(status_of(out.data, out.len, true, SIZE_MAX, &error), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("1000 bytes"));
    CHECK_STATUS(status_of(out.data, out.len - 20, true, SIZE_MAX, &error), STATUS_OK); // waits
    mem_free(zeros);
    buf_deinit(&out);
}

TEST_MAIN()
