#include "net/grpc_frame.h"

#include <string.h>

#include "base/assert.h"

// Any bytes in any pieces: the reader neither reads beyond them nor holds more than its budget, and
// what it accepts comes out of grpc_frame_append again.

enum { BUDGET = 200000, MESSAGE_MAX = 50000 };

static size_t used;

static bool take(void *context, size_t size)
{
    (void)context;
    if (size > BUDGET - used)
        return false;
    used += size;
    return true;
}

static void give(void *context, size_t size)
{
    (void)context;
    ASSERT(size <= used);
    used -= size;
}

static void check_round_trip(struct span message)
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    ASSERT(grpc_frame_append(&out, message, true));
    struct grpc_reader reader;
    grpc_reader_init(&reader, true, &(struct grpc_budget){take, give, NULL});
    struct span bytes = buf_span(&out);
    struct span again = {0};
    bool is_complete = false;
    enum status status = grpc_reader_next(&reader, MESSAGE_MAX, &bytes, NULL, &again, &is_complete);
    if (status == STATUS_OK) {
        ASSERT(is_complete && bytes.len == 0 && again.len == message.len);
        ASSERT(message.len == 0 || memcmp(again.data, message.data, message.len) == 0);
    }
    grpc_reader_deinit(&reader);
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct grpc_reader reader;
    grpc_reader_init(&reader, (data[0] & 1) != 0, &(struct grpc_budget){take, give, NULL});
    size_t piece = (size_t)data[1] + 1;
    enum status status = STATUS_OK;
    for (size_t at = 2; at < size && status == STATUS_OK; at += piece) {
        struct span bytes = {data + at, size - at < piece ? size - at : piece};
        while (bytes.len > 0 && status == STATUS_OK) {
            struct span message = {0};
            struct error error;
            bool is_complete = false;
            status = grpc_reader_next(&reader, MESSAGE_MAX, &bytes, &error, &message, &is_complete);
            ASSERT(!is_complete || message.len <= MESSAGE_MAX);
            if (is_complete)
                check_round_trip(message);
        }
    }
    grpc_reader_deinit(&reader);
    ASSERT(used == 0);
    return 0;
}
