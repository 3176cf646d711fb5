#include "api/message.h"

#include <stdio.h>
#include <string.h>

#include "api/bump_internal.h"
#include "api/field_internal.h"
#include "api/wire_internal.h"
#include "base/assert.h"

// A message is read twice, level by level: first its fields are counted, so that the arrays of the
// repeated ones are made in their final size; then they are stored. The parts that are messages
// themselves wait on a stack, so the depth is bounded by it and not by the thread's.

enum {
    DEPTH_MAX = 128,     // a payload of one level too many still gets the answer that is about it
    FIELDS_MAX = 64,     // of one of our messages
    PATH_SIZE_MAX = 200, // of a field's path in an error
};

struct frame {
    ProtobufCMessage *message;
    struct wire wire;
    const ProtobufCFieldDescriptor *field; // of the parent: where this message is
    size_t index;                          // of it, when the field is repeated
};

struct decoder {
    struct bump bump;
    struct error *error;
    size_t depth;
    struct frame frames[DEPTH_MAX];
};

// --- Errors

static size_t append_step(char *path, size_t len, const ProtobufCFieldDescriptor *field,
                          size_t index)
{
    int written = 0;
    size_t room = PATH_SIZE_MAX - len;
    const char *dot = len > 0 ? "." : "";
    if (field_is_repeated(field))
        written = snprintf(path + len, room, "%s%s[%zu]", dot, field->name, index);
    else
        written = snprintf(path + len, room, "%s%s", dot, field->name);
    if (written < 0)
        return len;
    return (size_t)written < room ? len + (size_t)written : PATH_SIZE_MAX - 1;
}

// The error names where it is: the messages that are open, then the field, which may be NULL.
static enum status fail_at(struct decoder *decoder, enum status status,
                           const ProtobufCFieldDescriptor *field, const char *problem)
{
    char path[PATH_SIZE_MAX] = "";
    size_t len = 0;
    for (size_t i = 1; i < decoder->depth; i++)
        len = append_step(path, len, decoder->frames[i].field, decoder->frames[i].index);
    if (field != NULL && field_is_repeated(field) && field->type != PROTOBUF_C_TYPE_MESSAGE) {
        (void)snprintf(path + len, PATH_SIZE_MAX - len, "%s%s", len > 0 ? "." : "", field->name);
        len = strlen(path);
    } else if (field != NULL) {
        const ProtobufCMessage *message = decoder->frames[decoder->depth - 1].message;
        size_t index = field_is_repeated(field) ? *field_count(message, field) : 0;
        len = append_step(path, len, field, index);
    }
    if (len == 0)
        return error_set(decoder->error, status, "%s", problem);
    return error_set(decoder->error, status, "%s: %s", path, problem);
}

static enum status fail(struct decoder *decoder, const ProtobufCFieldDescriptor *field,
                        const char *problem)
{
    return fail_at(decoder, STATUS_INVALID, field, problem);
}

static enum status fail_exhausted(struct decoder *decoder, const ProtobufCFieldDescriptor *field)
{
    return fail_at(decoder, STATUS_EXHAUSTED, field,
                   "the message takes too much memory for its size");
}

// --- What a field looks like on the wire

static enum wire_type wire_type_of(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_FIXED32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_FIXED64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

static bool is_packed(const ProtobufCFieldDescriptor *field, enum wire_type type)
{
    return type == WIRE_BYTES && field_is_repeated(field) && wire_type_of(field) != WIRE_BYTES;
}

// The field that these bytes are for; NULL: unknown, to be skipped.
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessage *message,
                                                  const struct wire_field *read)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(message->descriptor, read->number);
    if (field == NULL || (wire_type_of(field) != read->type && !is_packed(field, read->type)))
        return NULL;
    return field;
}

static const char *count_packed(const ProtobufCFieldDescriptor *field, struct span bytes,
                                size_t *out_count)
{
    enum wire_type type = wire_type_of(field);
    if (type != WIRE_VARINT) {
        size_t size = type == WIRE_FIXED32 ? 4 : 8;
        *out_count = bytes.len / size;
        return bytes.len % size == 0 ? NULL : "its length is no whole count of numbers";
    }
    size_t count = 0;
    for (size_t i = 0; i < bytes.len; i++)
        count += (bytes.data[i] & 0x80) == 0;
    *out_count = count;
    return bytes.len > 0 && bytes.data[bytes.len - 1] >= 0x80 ? "a number is cut off" : NULL;
}

// --- Counting

static enum status grow_array(struct decoder *decoder, ProtobufCMessage *message,
                              const ProtobufCFieldDescriptor *field, size_t count_added)
{
    size_t size = field_element_size(field);
    size_t count = *field_count(message, field);
    void **array = field_place(message, field);
    // Every element took a byte at least, so none of these can overflow.
    uint8_t *grown = bump_alloc(&decoder->bump, (count + count_added) * size, size < 8 ? size : 8);
    if (grown == NULL)
        return fail_exhausted(decoder, field);
    if (count > 0)
        memcpy(grown, *array, count * size);
    *array = grown;
    return STATUS_OK;
}

static bool has_repeated(const ProtobufCMessageDescriptor *descriptor)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (field_is_repeated(&descriptor->fields[i]))
            return true;
    }
    return false;
}

static enum status count_fields(struct decoder *decoder, const struct frame *frame, size_t *counts)
{
    struct wire wire = frame->wire;
    while (wire.at != wire.end) {
        struct wire_field read = {0};
        const char *problem = wire_read_field(&wire, &read);
        // The second reading meets the same problem and knows the field.
        if (problem != NULL)
            return STATUS_OK;
        if (read.type == WIRE_GROUP && wire_skip_group(&wire, read.number) != NULL)
            return STATUS_OK;
        const ProtobufCFieldDescriptor *field = find_field(frame->message, &read);
        if (field == NULL || !field_is_repeated(field))
            continue;
        size_t count = 1;
        if (is_packed(field, read.type)) {
            problem = count_packed(field, read.bytes, &count);
            if (problem != NULL)
                return fail(decoder, field, problem);
        }
        counts[field - frame->message->descriptor->fields] += count;
    }
    return STATUS_OK;
}

// Make the arrays of the frame's message; their counts stay what they were, room is behind them.
static enum status make_arrays(struct decoder *decoder, struct frame *frame)
{
    const ProtobufCMessageDescriptor *descriptor = frame->message->descriptor;
    if (frame->wire.at == frame->wire.end || !has_repeated(descriptor))
        return STATUS_OK;
    ASSERT(descriptor->n_fields <= FIELDS_MAX);
    size_t counts[FIELDS_MAX];
    memset(counts, 0, descriptor->n_fields * sizeof(counts[0]));
    TRY(count_fields(decoder, frame, counts));
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (counts[i] > 0)
            TRY(grow_array(decoder, frame->message, &descriptor->fields[i], counts[i]));
    }
    return STATUS_OK;
}

// --- Storing

static uint64_t unzigzag(uint64_t value)
{
    return (value >> 1) ^ (0 - (value & 1));
}

static void store_number(const ProtobufCFieldDescriptor *field, uint64_t value, void *place)
{
    uint32_t low = (uint32_t)value;
    switch (field->type) {
    case PROTOBUF_C_TYPE_SINT32:
        low = (uint32_t)unzigzag(low);
        break;
    case PROTOBUF_C_TYPE_SINT64:
        value = unzigzag(value);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        low = value != 0;
        break;
    default:
        break;
    }
    if (field_element_size(field) == 8)
        memcpy(place, &value, sizeof(value));
    else
        memcpy(place, &low, sizeof(low));
}

// Room was made in make_arrays.
static void *next_element(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    size_t *count = field_count(message, field);
    uint8_t *array = *(uint8_t **)field_place(message, field);
    return array + (*count)++ * field_element_size(field);
}

static enum status store_packed(struct decoder *decoder, const ProtobufCMessage *message,
                                const ProtobufCFieldDescriptor *field, struct span bytes)
{
    enum wire_type type = wire_type_of(field);
    struct wire wire = {bytes.data, bytes.data + bytes.len};
    if (bytes.len == 0)
        return STATUS_OK;
    if (type == WIRE_FIXED32 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
        size_t *count = field_count(message, field);
        memcpy(*(uint8_t **)field_place(message, field) + *count * 4, bytes.data, bytes.len);
        *count += bytes.len / 4;
        return STATUS_OK;
    }
    while (wire.at != wire.end) {
        uint64_t value = 0;
        const char *problem = NULL;
        if (type == WIRE_VARINT) {
            problem = wire_read_varint(&wire, &value);
        } else {
            value = type == WIRE_FIXED32 ? wire_load_u32(wire.at) : wire_load_u64(wire.at);
            wire.at += type == WIRE_FIXED32 ? 4 : 8;
        }
        if (problem != NULL)
            return fail(decoder, field, problem);
        store_number(field, value, next_element(message, field));
    }
    return STATUS_OK;
}

static enum status store_string(struct decoder *decoder, const ProtobufCFieldDescriptor *field,
                                struct span bytes, void *place)
{
    if (bytes.len > 0 && memchr(bytes.data, 0, bytes.len) != NULL)
        return fail(decoder, field, "holds a NUL character");
    if (!str_is_utf8(span_str(bytes)))
        return fail(decoder, field, "is not valid UTF-8");
    char *copy = bump_alloc(&decoder->bump, bytes.len + 1, 1);
    if (copy == NULL)
        return fail_exhausted(decoder, field);
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    memcpy(place, &copy, sizeof(copy));
    return STATUS_OK;
}

static enum status store_bytes(struct decoder *decoder, const ProtobufCFieldDescriptor *field,
                               struct span bytes, void *place)
{
    ProtobufCBinaryData data = {.len = bytes.len};
    if (bytes.len > 0) {
        data.data = bump_alloc(&decoder->bump, bytes.len, 1);
        if (data.data == NULL)
            return fail_exhausted(decoder, field);
        memcpy(data.data, bytes.data, bytes.len);
    }
    memcpy(place, &data, sizeof(data));
    return STATUS_OK;
}

static enum status push_frame(struct decoder *decoder, ProtobufCMessage *message,
                              const ProtobufCFieldDescriptor *field, size_t index,
                              struct span bytes)
{
    if (decoder->depth == DEPTH_MAX)
        return fail(decoder, field, "messages are nested more than 128 deep");
    struct frame *frame = &decoder->frames[decoder->depth++];
    frame->message = message;
    // An empty message may come without an address.
    frame->wire.at = bytes.data;
    frame->wire.end = bytes.len > 0 ? bytes.data + bytes.len : bytes.data;
    frame->field = field;
    frame->index = index;
    return make_arrays(decoder, frame);
}

static ProtobufCMessage *new_message(struct decoder *decoder,
                                     const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = bump_alloc(&decoder->bump, descriptor->sizeof_message, 8);
    if (message != NULL)
        protobuf_c_message_init(descriptor, message);
    return message;
}

// A message that is there already, in a field that holds one, is added to.
static enum status store_message(struct decoder *decoder, const ProtobufCMessage *parent,
                                 const ProtobufCFieldDescriptor *field, struct span bytes)
{
    size_t index = 0;
    ProtobufCMessage *message = NULL;
    ProtobufCMessage **place = field_place(parent, field);
    if (!field_is_repeated(field) &&
        (!field_is_oneof(field) || *field_case(parent, field) == field->id))
        message = *place;
    if (message == NULL)
        message = new_message(decoder, field_message(field));
    if (message == NULL)
        return fail_exhausted(decoder, field);
    if (field_is_repeated(field)) {
        index = *field_count(parent, field);
        place = next_element(parent, field);
    }
    if (field_is_oneof(field))
        *field_case(parent, field) = field->id;
    *place = message;
    return push_frame(decoder, message, field, index, bytes);
}

static enum status store_field(struct decoder *decoder, const ProtobufCMessage *message,
                               const ProtobufCFieldDescriptor *field, const struct wire_field *read)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return store_message(decoder, message, field, read->bytes);
    if (is_packed(field, read->type))
        return store_packed(decoder, message, field, read->bytes);
    // A string that is refused has no place in the array yet.
    enum status status = STATUS_OK;
    union {
        uint64_t number;
        char *string;
        ProtobufCBinaryData data;
    } value = {0};
    if (field->type == PROTOBUF_C_TYPE_STRING)
        status = store_string(decoder, field, read->bytes, &value);
    else if (field->type == PROTOBUF_C_TYPE_BYTES)
        status = store_bytes(decoder, field, read->bytes, &value);
    else
        store_number(field, read->value, &value);
    if (status != STATUS_OK)
        return status;
    void *place =
        field_is_repeated(field) ? next_element(message, field) : field_place(message, field);
    memcpy(place, &value, field_element_size(field));
    if (field_is_oneof(field))
        *field_case(message, field) = field->id;
    return STATUS_OK;
}

static void end_message(const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field_is_repeated(field) && *field_count(message, field) > 1 && field_is_map(field))
            field_keep_last_of_key(message, field);
    }
}

// The field whose tag is at the wire's beginning, for an error: NULL when there is none.
static const ProtobufCFieldDescriptor *peek_field(const ProtobufCMessage *message, struct wire wire)
{
    uint64_t tag = 0;
    if (wire_read_varint(&wire, &tag) != NULL || tag > UINT32_MAX)
        return NULL;
    return protobuf_c_message_descriptor_get_field(message->descriptor, (unsigned)(tag >> 3));
}

// One field, or the end of the innermost message.
static enum status step(struct decoder *decoder)
{
    struct frame *frame = &decoder->frames[decoder->depth - 1];
    if (frame->wire.at == frame->wire.end) {
        end_message(frame->message);
        decoder->depth--;
        return STATUS_OK;
    }
    struct wire start = frame->wire;
    struct wire_field read = {0};
    const char *problem = wire_read_field(&frame->wire, &read);
    if (problem == NULL && read.type == WIRE_GROUP)
        problem = wire_skip_group(&frame->wire, read.number);
    if (problem != NULL)
        return fail(decoder, peek_field(frame->message, start), problem);
    const ProtobufCFieldDescriptor *field = find_field(frame->message, &read);
    return field == NULL ? STATUS_OK : store_field(decoder, frame->message, field, &read);
}

enum status message_decode(const ProtobufCMessageDescriptor *descriptor, struct span bytes,
                           struct arena *arena, struct error *error, ProtobufCMessage **out_message)
{
    struct decoder decoder; // the frames are not worth clearing
    bump_init(&decoder.bump, arena, bytes.len, BUMP_FACTOR);
    decoder.error = error;
    decoder.depth = 0;
    ProtobufCMessage *message = new_message(&decoder, descriptor);
    if (message == NULL)
        return fail_exhausted(&decoder, NULL);
    TRY(push_frame(&decoder, message, NULL, 0, bytes));
    while (decoder.depth > 0)
        TRY(step(&decoder));
    *out_message = message;
    return STATUS_OK;
}

enum status message_encode(const ProtobufCMessage *message, struct buf *out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size == 0)
        return STATUS_OK;
    uint8_t *place = buf_reserve(out, size);
    if (place == NULL)
        return STATUS_EXHAUSTED;
    size_t written = protobuf_c_message_pack(message, place);
    ASSERT(written == size);
    buf_commit(out, written);
    return STATUS_OK;
}
