#include "net/grpc_frame.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

enum {
    KEPT_MAX = 65536,      // of a buffer, between messages
    INFLATE_CHUNK = 65536, // the room that decompression gets at a time
    COMPRESS_MIN = 1024,   // smaller messages are sent as they are
    GZIP_WINDOW_BITS = 31, // 15, and 16 for the gzip format
};

void grpc_reader_init(struct grpc_reader *reader, bool has_gzip, const struct grpc_budget *budget)
{
    *reader = (struct grpc_reader){.budget = *budget, .has_gzip = has_gzip};
    buf_init(&reader->gathered, SIZE_MAX);
    buf_init(&reader->plain, SIZE_MAX);
}

static void give_back(struct grpc_reader *reader)
{
    if (reader->charged > 0)
        reader->budget.give(reader->budget.context, reader->charged);
    reader->charged = 0;
}

void grpc_reader_deinit(struct grpc_reader *reader)
{
    give_back(reader);
    buf_deinit(&reader->gathered);
    buf_deinit(&reader->plain);
}

static bool take(struct grpc_reader *reader, size_t size)
{
    if (!reader->budget.take(reader->budget.context, size))
        return false;
    reader->charged += size;
    return true;
}

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_EXHAUSTED,
                     "the memory for messages is used up, try again later");
}

static void forget(struct buf *buf)
{
    if (buf->capacity > KEPT_MAX)
        buf_deinit(buf);
    else
        buf_clear(buf);
}

bool grpc_reader_is_inside(const struct grpc_reader *reader)
{
    return reader->prefix_size > 0;
}

static enum status check_prefix(struct grpc_reader *reader, size_t message_size_max,
                                struct error *error)
{
    const uint8_t *prefix = reader->prefix;
    reader->message_size = (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 |
                           (uint32_t)prefix[3] << 8 | prefix[4];
    if (prefix[0] > 1)
        return error_set(error, STATUS_INVALID, "a message begins with flag %u, 0 or 1 is allowed",
                         prefix[0]);
    if (prefix[0] == 1 && !reader->has_gzip)
        return error_set(error, STATUS_INVALID,
                         "a message is compressed, but grpc-encoding names no compression");
    if (reader->message_size > message_size_max)
        return error_set(error, STATUS_EXHAUSTED,
                         "message of %u bytes is over the limit of %zu bytes", reader->message_size,
                         message_size_max);
    return STATUS_OK;
}

static enum status inflate_all(struct grpc_reader *reader, z_stream *stream,
                               size_t message_size_max, struct error *error)
{
    int result = Z_OK;
    while (result != Z_STREAM_END) {
        if (!take(reader, INFLATE_CHUNK))
            return no_memory(error);
        uint8_t *room = buf_reserve(&reader->plain, INFLATE_CHUNK);
        if (room == NULL)
            return no_memory(error);
        stream->next_out = room;
        stream->avail_out = INFLATE_CHUNK;
        result = inflate(stream, Z_NO_FLUSH);
        buf_commit(&reader->plain, INFLATE_CHUNK - stream->avail_out);
        if (reader->plain.len > message_size_max)
            return error_set(error, STATUS_EXHAUSTED,
                             "message of more than %zu bytes when decompressed (%zu so far) is "
                             "over the limit of %zu bytes",
                             message_size_max, reader->plain.len, message_size_max);
        bool is_stuck = result == Z_BUF_ERROR || (result == Z_OK && stream->avail_out > 0);
        if (is_stuck || (result != Z_OK && result != Z_STREAM_END))
            return error_set(error, STATUS_INVALID, "a message is no valid gzip");
    }
    return stream->avail_in == 0
               ? STATUS_OK
               : error_set(error, STATUS_INVALID, "a message has bytes after its gzip");
}

static enum status decompress(struct grpc_reader *reader, struct span message,
                              size_t message_size_max, struct error *error,
                              struct span *out_message)
{
    z_stream stream = {.avail_in = (uInt)message.len};
    union {
        const uint8_t *constant;
        Bytef *bytes; // zlib reads only
    } in = {.constant = message.data};
    stream.next_in = in.bytes;
    if (inflateInit2(&stream, GZIP_WINDOW_BITS) != Z_OK)
        return no_memory(error);
    enum status status = inflate_all(reader, &stream, message_size_max, error);
    inflateEnd(&stream);
    if (status == STATUS_OK)
        *out_message = buf_span(&reader->plain);
    return status;
}

// Move bytes to the message's buffer.
static enum status gather(struct grpc_reader *reader, struct span *bytes, struct error *error)
{
    size_t missing = reader->message_size - reader->gathered.len;
    size_t size = bytes->len < missing ? bytes->len : missing;
    if (!take(reader, size))
        return no_memory(error);
    buf_append(&reader->gathered, bytes->data, size);
    if (buf_has_overflowed(&reader->gathered))
        return no_memory(error);
    *bytes = (struct span){bytes->data + size, bytes->len - size};
    return STATUS_OK;
}

// False: there are not enough bytes.
static bool read_prefix(struct grpc_reader *reader, struct span *bytes)
{
    size_t missing = (size_t)(GRPC_PREFIX_SIZE - reader->prefix_size);
    size_t size = bytes->len < missing ? bytes->len : missing;
    if (size > 0)
        memcpy(reader->prefix + reader->prefix_size, bytes->data, size);
    reader->prefix_size = (uint8_t)(reader->prefix_size + size);
    *bytes = (struct span){bytes->data + size, bytes->len - size};
    return size == missing;
}

enum status grpc_reader_next(struct grpc_reader *reader, size_t message_size_max,
                             struct span *bytes, struct error *error, struct span *out_message,
                             bool *out_is_complete)
{
    *out_is_complete = false;
    if (reader->prefix_size < GRPC_PREFIX_SIZE) {
        give_back(reader); // of the message before
        forget(&reader->gathered);
        forget(&reader->plain);
        if (!read_prefix(reader, bytes))
            return STATUS_OK;
        TRY(check_prefix(reader, message_size_max, error));
    }
    struct span message = {bytes->data, reader->message_size};
    if (reader->gathered.len == 0 && bytes->len >= reader->message_size) {
        *bytes = (struct span){bytes->data + message.len, bytes->len - message.len};
    } else {
        TRY(gather(reader, bytes, error));
        if (reader->gathered.len < reader->message_size)
            return STATUS_OK;
        message = buf_span(&reader->gathered);
    }
    reader->prefix_size = 0;
    if (reader->prefix[0] == 1)
        TRY(decompress(reader, message, message_size_max, error, &message));
    *out_message = message;
    *out_is_complete = true;
    return STATUS_OK;
}

static bool append_prefix(struct buf *out, uint8_t flag, size_t size)
{
    uint8_t prefix[GRPC_PREFIX_SIZE] = {flag, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
                                        (uint8_t)(size >> 8), (uint8_t)size};
    buf_append(out, prefix, sizeof(prefix));
    return !buf_has_overflowed(out);
}

// False: nothing was appended; it would not have become smaller.
static bool append_compressed(struct buf *out, struct span message)
{
    z_stream stream = {.avail_in = (uInt)message.len};
    union {
        const uint8_t *constant;
        Bytef *bytes; // zlib reads only
    } in = {.constant = message.data};
    stream.next_in = in.bytes;
    uint8_t *room = buf_reserve(out, GRPC_PREFIX_SIZE + message.len);
    enum { MEMORY_LEVEL = 8 };
    if (room == NULL || deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW_BITS,
                                     MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    stream.next_out = room + GRPC_PREFIX_SIZE;
    stream.avail_out = (uInt)message.len;
    int result = deflate(&stream, Z_FINISH);
    size_t size = message.len - stream.avail_out;
    deflateEnd(&stream);
    if (result != Z_STREAM_END)
        return false;
    (void)append_prefix(out, 1, size); // into what was reserved
    buf_commit(out, size);
    return true;
}

bool grpc_frame_append(struct buf *out, struct span message, bool has_gzip)
{
    if (message.len > UINT32_MAX)
        return false;
    if (has_gzip && message.len >= COMPRESS_MIN && append_compressed(out, message))
        return true;
    if (!append_prefix(out, 0, message.len))
        return false;
    buf_append(out, message.data, message.len);
    return !buf_has_overflowed(out);
}
