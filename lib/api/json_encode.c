#include <inttypes.h>
#include <string.h>

#include "api/field_internal.h"
#include "api/json.h"
#include "api/json_struct_internal.h"
#include "base/limits.h"

// The recursion is bounded by the schema, whose messages do not contain themselves, but for
// google.protobuf.Struct, whose depth is checked.

static void encode_object(struct buf *out, const ProtobufCMessage *message);

static void append_bytes(struct buf *out, const ProtobufCBinaryData *data)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf_append_byte(out, '"');
    for (size_t i = 0; i < data->len; i += 3) {
        size_t left = data->len - i;
        uint32_t group = (uint32_t)data->data[i] << 16;
        group |= left > 1 ? (uint32_t)data->data[i + 1] << 8 : 0;
        group |= left > 2 ? data->data[i + 2] : 0;
        char text[4] = {letters[group >> 18], letters[group >> 12 & 63], letters[group >> 6 & 63],
                        letters[group & 63]};
        if (left < 3)
            text[3] = '=';
        if (left < 2)
            text[2] = '=';
        buf_append(out, text, sizeof(text));
    }
    buf_append_byte(out, '"');
}

static void append_enum(struct buf *out, const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);
    if (found != NULL)
        json_append_string(out, str_from_cstr(found->name));
    else
        buf_append_format(out, "%d", value);
}

static uint64_t load_u64(const void *place)
{
    uint64_t value;
    memcpy(&value, place, sizeof(value));
    return value;
}

static uint32_t load_u32(const void *place)
{
    uint32_t value;
    memcpy(&value, place, sizeof(value));
    return value;
}

static void encode_number(struct buf *out, const ProtobufCFieldDescriptor *field, const void *place)
{
    float single;
    double wide;
    switch (field->type) {
    case PROTOBUF_C_TYPE_FLOAT:
        memcpy(&single, place, sizeof(single));
        json_append_float(out, single);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        memcpy(&wide, place, sizeof(wide));
        json_append_double(out, wide);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        buf_append_format(out, "\"%" PRId64 "\"", (int64_t)load_u64(place));
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        buf_append_format(out, "\"%" PRIu64 "\"", load_u64(place));
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        buf_append_format(out, "%" PRIu32, load_u32(place));
        break;
    case PROTOBUF_C_TYPE_BOOL:
        buf_append_cstr(out, load_u32(place) != 0 ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        append_enum(out, field->descriptor, (int)load_u32(place));
        break;
    default:
        buf_append_format(out, "%" PRId32, (int32_t)load_u32(place));
        break;
    }
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static void encode_single(struct buf *out, const ProtobufCFieldDescriptor *field, const void *place)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        json_append_string(out, str_from_cstr(*(const char *const *)place));
    else if (field->type == PROTOBUF_C_TYPE_BYTES)
        append_bytes(out, place);
    else if (field->type != PROTOBUF_C_TYPE_MESSAGE)
        encode_number(out, field, place);
    else if (*(const ProtobufCMessage *const *)place == NULL)
        buf_append_cstr(out, "null");
    else
        encode_object(out, *(const ProtobufCMessage *const *)place);
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static void encode_repeated(struct buf *out, const ProtobufCMessage *message,
                            const ProtobufCFieldDescriptor *field)
{
    size_t count = *field_count(message, field);
    size_t size = field_element_size(field);
    const uint8_t *items = *(const uint8_t *const *)field_place(message, field);
    bool is_map = field_is_map(field);
    buf_append_byte(out, is_map ? '{' : '[');
    for (size_t i = 0; i < count && !buf_has_overflowed(out); i++) {
        const void *place = items + i * size;
        if (i > 0)
            buf_append_byte(out, ',');
        if (is_map) {
            const ProtobufCMessage *entry = *(const ProtobufCMessage *const *)place;
            const ProtobufCFieldDescriptor *fields = entry->descriptor->fields;
            encode_single(out, &fields[0], field_place(entry, &fields[0]));
            buf_append_byte(out, ':');
            encode_single(out, &fields[1], field_place(entry, &fields[1]));
        } else {
            encode_single(out, field, place);
        }
    }
    buf_append_byte(out, is_map ? '}' : ']');
}

// The field that is shown in this one's place; NULL: none is.
static const ProtobufCFieldDescriptor *shown_field(const ProtobufCMessage *message,
                                                   const ProtobufCFieldDescriptor *field,
                                                   const ProtobufCFieldDescriptor *document)
{
    if (field_is_oneof(field) && *field_case(message, field) != field->id)
        return NULL;
    if (document == NULL || field == NULL)
        return field;
    if (field == document)
        return NULL;
    bool has_document = *(ProtobufCMessage *const *)field_place(message, document) != NULL;
    return has_document && strcmp(field->name, "payload") == 0 ? document : field;
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static void encode_fields(struct buf *out, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const ProtobufCFieldDescriptor *document = field_document(descriptor);
    bool is_first = true;
    buf_append_byte(out, '{');
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        const ProtobufCFieldDescriptor *shown = shown_field(message, field, document);
        if (shown == NULL || field == NULL)
            continue;
        if (!is_first)
            buf_append_byte(out, ',');
        is_first = false;
        buf_append_byte(out, '"');
        json_append_field_name(out, field->name);
        buf_append_cstr(out, "\":");
        if (field_is_repeated(shown))
            encode_repeated(out, message, shown);
        else
            encode_single(out, shown, field_place(message, shown));
    }
    buf_append_byte(out, '}');
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static void encode_object(struct buf *out, const ProtobufCMessage *message)
{
    if (!is_wellknown(message->descriptor)) {
        encode_fields(out, message);
        return;
    }
    // What cannot be shown as JSON is shown as nothing; half of it would break the whole answer.
    size_t len = out->len;
    if (json_write_wellknown(out, message, LIMIT_PAYLOAD_DEPTH_MAX) != NULL) {
        out->len = len;
        buf_append_cstr(out, "null");
    }
}

void json_encode_message(const ProtobufCMessage *message, struct buf *out)
{
    encode_object(out, message);
}
