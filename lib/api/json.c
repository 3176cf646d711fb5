#include "api/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/field_internal.h"
#include "api/google/protobuf/struct.pb-c.h"
#include "api/json_number_internal.h"
#include "api/json_reader_internal.h"
#include "api/json_struct_internal.h"
#include "base/assert.h"
#include "base/limits.h"
#include "net/grpc_text.h"

// The recursion is bounded by the schema, whose messages do not contain themselves, but for
// google.protobuf.Struct, where the reader bounds it.

enum { FIELDS_MAX = 64 }; // of one of our messages

struct decoder {
    struct json_reader reader;
    struct bump bump;
    struct buf scratch; // for payloads
    struct arena *arena;
    bool keeps_text; // a Struct gets its text and no fields
};

static enum status decode_object(struct decoder *decoder, ProtobufCMessage *message);

static enum status fail(struct decoder *decoder, const char *problem)
{
    (void)json_fail(&decoder->reader, STATUS_INVALID, problem);
    return STATUS_INVALID;
}

static enum status fail_syntax(struct decoder *decoder, const char *expected)
{
    (void)json_fail_syntax(&decoder->reader, expected);
    return STATUS_INVALID;
}

static enum status fail_exhausted(struct decoder *decoder)
{
    (void)json_fail(&decoder->reader, STATUS_EXHAUSTED, "the request takes too much memory");
    return STATUS_EXHAUSTED;
}

// --- Scalars from text. Each returns what is wrong, or NULL.

static const char *set_float(struct str text, void *place)
{
    float value = 0;
    if (str_equal(text, STR("NaN")))
        value = NAN;
    else if (str_equal(text, STR("Infinity")))
        value = INFINITY;
    else if (str_equal(text, STR("-Infinity")))
        value = -INFINITY;
    else if (text.len == 0 || json_number_size(text) != text.len)
        return "is not a number";
    else if (!json_number_to_float(text, &value))
        return "is out of range for a 32-bit float";
    memcpy(place, &value, sizeof(value));
    return NULL;
}

static const char *set_double(struct str text, void *place)
{
    double value = 0;
    if (str_equal(text, STR("NaN")))
        value = (double)NAN;
    else if (str_equal(text, STR("Infinity")))
        value = (double)INFINITY;
    else if (str_equal(text, STR("-Infinity")))
        value = -(double)INFINITY;
    else if (text.len == 0 || json_number_size(text) != text.len)
        return "is not a number";
    else if (!json_number_to_double(text, &value))
        return "is out of range for a 64-bit float";
    memcpy(place, &value, sizeof(value));
    return NULL;
}

static const char *set_signed(const ProtobufCFieldDescriptor *field, struct str text, void *place)
{
    int64_t value = 0;
    bool is_number = json_number_to_i64(text, &value);
    if (field_element_size(field) == 8) {
        if (!is_number)
            return "is not a whole number of 64 bits";
        memcpy(place, &value, sizeof(value));
        return NULL;
    }
    if (!is_number || value < INT32_MIN || value > INT32_MAX)
        return "is not a whole number from -2147483648 to 2147483647";
    int32_t narrow = (int32_t)value;
    memcpy(place, &narrow, sizeof(narrow));
    return NULL;
}

static const char *set_unsigned(const ProtobufCFieldDescriptor *field, struct str text, void *place)
{
    uint64_t value = 0;
    bool is_number = json_number_to_u64(text, &value);
    if (field_element_size(field) == 8) {
        if (!is_number)
            return "is not a whole number from 0 to 18446744073709551615";
        memcpy(place, &value, sizeof(value));
        return NULL;
    }
    if (!is_number || value > UINT32_MAX)
        return "is not a whole number from 0 to 4294967295";
    uint32_t narrow = (uint32_t)value;
    memcpy(place, &narrow, sizeof(narrow));
    return NULL;
}

static const char *set_enum(const ProtobufCFieldDescriptor *field, struct str text, void *place)
{
    const ProtobufCEnumDescriptor *descriptor = field->descriptor;
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        if (str_equal_cstr(text, descriptor->values[i].name)) {
            memcpy(place, &descriptor->values[i].value, sizeof(int));
            return NULL;
        }
    }
    return set_signed(field, text, place) == NULL ? NULL : "is none of the names that it may be";
}

static const char *set_number(const ProtobufCFieldDescriptor *field, struct str text, void *place)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_FLOAT:
        return set_float(text, place);
    case PROTOBUF_C_TYPE_DOUBLE:
        return set_double(text, place);
    case PROTOBUF_C_TYPE_ENUM:
        return set_enum(field, text, place);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return set_signed(field, text, place);
    default:
        return set_unsigned(field, text, place);
    }
}

// --- Single values

static enum status decode_bool(struct decoder *decoder, void *place)
{
    bool value = false;
    enum json_kind kind = json_peek(&decoder->reader);
    if (kind != JSON_TRUE && kind != JSON_FALSE)
        return kind == JSON_BAD ? fail_syntax(decoder, "a value")
                                : fail(decoder, "is neither true nor false");
    TRY(json_read_bool(&decoder->reader, &value));
    protobuf_c_boolean stored = value;
    memcpy(place, &stored, sizeof(stored));
    return STATUS_OK;
}

static enum status decode_string(struct decoder *decoder, void *place)
{
    char *string = NULL;
    enum json_kind kind = json_peek(&decoder->reader);
    if (kind != JSON_STRING)
        return kind == JSON_BAD ? fail_syntax(decoder, "a value")
                                : fail(decoder, "is not a string");
    TRY(json_read_cstr(&decoder->reader, &string));
    memcpy(place, &string, sizeof(string));
    return STATUS_OK;
}

static enum status decode_bytes(struct decoder *decoder, void *place)
{
    ProtobufCBinaryData data = {0};
    char *text = NULL;
    TRY(decode_string(decoder, &text));
    for (char *c = text; *c != '\0'; c++) // the alphabet for addresses is allowed too
        *c = *c == '-' ? '+' : *c == '_' ? '/' : *c;
    struct str base64 = str_from_cstr(text);
    data.data = bump_alloc(&decoder->bump, base64.len + 1, 1);
    if (data.data == NULL)
        return fail_exhausted(decoder);
    if (!grpc_base64_decode(base64, data.data, &data.len))
        return fail(decoder, "is not base64");
    memcpy(place, &data, sizeof(data));
    return STATUS_OK;
}

static enum status decode_number(struct decoder *decoder, const ProtobufCFieldDescriptor *field,
                                 void *place)
{
    struct str text;
    enum json_kind kind = json_peek(&decoder->reader);
    if (kind == JSON_NUMBER)
        TRY(json_read_number(&decoder->reader, &text));
    else if (kind == JSON_STRING)
        TRY(json_read_string(&decoder->reader, &text));
    else if (kind == JSON_BAD)
        return fail_syntax(decoder, "a value");
    else
        return fail(decoder, "is not a number");
    const char *problem = set_number(field, text, place);
    return problem == NULL ? STATUS_OK : fail(decoder, problem);
}

// The reader stands before an object: into a Struct with fields, or one that only has the text.
static enum status decode_struct(struct decoder *decoder, ProtobufCMessage **out_message)
{
    struct str json;
    TRY(json_read_payload(&decoder->reader, &decoder->scratch, &json));
    if (decoder->keeps_text) {
        ProtobufCMessage *message = struct_of_text(&decoder->bump, json);
        if (message == NULL)
            return fail_exhausted(decoder);
        *out_message = message;
        return STATUS_OK;
    }
    return struct_build(json, decoder->arena, decoder->reader.error, out_message);
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_message(struct decoder *decoder, const ProtobufCFieldDescriptor *field,
                                  void *place)
{
    ProtobufCMessage *message = NULL;
    const ProtobufCMessageDescriptor *descriptor = field_message(field);
    if (descriptor == &google__protobuf__struct__descriptor) {
        TRY(decode_struct(decoder, &message));
        memcpy(place, &message, sizeof(ProtobufCMessage *));
        return STATUS_OK;
    }
    message = bump_alloc(&decoder->bump, descriptor->sizeof_message, 8);
    if (message == NULL)
        return fail_exhausted(decoder);
    protobuf_c_message_init(descriptor, message);
    memcpy(place, &message, sizeof(ProtobufCMessage *));
    if (descriptor == &google__protobuf__value__descriptor)
        return json_read_value(&decoder->reader, message);
    if (descriptor == &google__protobuf__list_value__descriptor)
        return json_read_list(&decoder->reader, message);
    return decode_object(decoder, message);
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_single(struct decoder *decoder, const ProtobufCFieldDescriptor *field,
                                 void *place)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL:
        return decode_bool(decoder, place);
    case PROTOBUF_C_TYPE_STRING:
        return decode_string(decoder, place);
    case PROTOBUF_C_TYPE_BYTES:
        return decode_bytes(decoder, place);
    case PROTOBUF_C_TYPE_MESSAGE:
        return decode_message(decoder, field, place);
    default:
        return decode_number(decoder, field, place);
    }
}

// --- Lists and maps

// An array that grows; its field gets it at the end.
struct list {
    uint8_t *items;
    size_t item_size;
    size_t count;
    size_t capacity;
};

static void *list_next(struct decoder *decoder, struct list *list)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 4 : list->capacity * 2;
        size_t alignment = list->item_size < 8 ? list->item_size : 8;
        uint8_t *items = bump_alloc(&decoder->bump, capacity * list->item_size, alignment);
        if (items == NULL)
            return NULL;
        if (list->count > 0)
            memcpy(items, list->items, list->count * list->item_size);
        list->items = items;
        list->capacity = capacity;
    }
    return list->items + list->count++ * list->item_size;
}

// Numbers are many: count the commas up to the end of the list, so that it is made in its size. A
// string with a bracket in it makes the guess wrong, which costs nothing but growing.
static enum status list_guess(struct decoder *decoder, struct list *list)
{
    const char *at = decoder->reader.at;
    const char *end = memchr(at, ']', (size_t)(decoder->reader.end - at));
    size_t count = 1;
    while (end != NULL && (at = memchr(at, ',', (size_t)(end - at))) != NULL) {
        count++;
        at++;
    }
    list->items = bump_alloc(&decoder->bump, count * list->item_size, list->item_size);
    list->capacity = count;
    return list->items == NULL ? fail_exhausted(decoder) : STATUS_OK;
}

static void list_store(const struct list *list, ProtobufCMessage *message,
                       const ProtobufCFieldDescriptor *field)
{
    void **place = field_place(message, field);
    *place = list->items;
    *field_count(message, field) = list->count;
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_list(struct decoder *decoder, ProtobufCMessage *message,
                               const ProtobufCFieldDescriptor *field)
{
    struct list list = {.item_size = field_element_size(field)};
    enum json_kind kind = json_peek(&decoder->reader);
    if (kind != JSON_ARRAY)
        return kind == JSON_BAD ? fail_syntax(decoder, "a value") : fail(decoder, "is not a list");
    TRY(json_enter_array(&decoder->reader));
    if (list.item_size <= 8 && field->type != PROTOBUF_C_TYPE_STRING &&
        field->type != PROTOBUF_C_TYPE_MESSAGE)
        TRY(list_guess(decoder, &list));
    for (;;) {
        bool has_element = false;
        TRY(json_next_element(&decoder->reader, &has_element));
        if (!has_element)
            break;
        void *place = list_next(decoder, &list);
        if (place == NULL)
            return fail_exhausted(decoder);
        TRY(decode_single(decoder, field, place));
    }
    list_store(&list, message, field);
    return STATUS_OK;
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_entry(struct decoder *decoder, const ProtobufCMessageDescriptor *kind,
                                struct str key, ProtobufCMessage **place)
{
    ProtobufCMessage *entry = bump_alloc(&decoder->bump, kind->sizeof_message, 8);
    char *name = bump_alloc(&decoder->bump, key.len + 1, 1);
    if (entry == NULL || name == NULL)
        return fail_exhausted(decoder);
    protobuf_c_message_init(kind, entry);
    if (key.len > 0)
        memcpy(name, key.data, key.len);
    memcpy(field_place(entry, &kind->fields[0]), &name, sizeof(name));
    *place = entry;
    return decode_single(decoder, &kind->fields[1], field_place(entry, &kind->fields[1]));
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_map(struct decoder *decoder, ProtobufCMessage *message,
                              const ProtobufCFieldDescriptor *field)
{
    struct list list = {.item_size = field_element_size(field)};
    enum json_kind kind = json_peek(&decoder->reader);
    if (kind != JSON_OBJECT)
        return kind == JSON_BAD ? fail_syntax(decoder, "a value")
                                : fail(decoder, "is not an object");
    TRY(json_enter_object(&decoder->reader));
    for (;;) {
        bool has_member = false;
        struct str key;
        TRY(json_next_member(&decoder->reader, &has_member, &key));
        if (!has_member)
            break;
        void *place = list_next(decoder, &list);
        if (place == NULL)
            return fail_exhausted(decoder);
        TRY(decode_entry(decoder, field_message(field), key, place));
    }
    list_store(&list, message, field);
    if (field_has_duplicate_key(message, field))
        return fail(decoder, "has a name that comes twice");
    return STATUS_OK;
}

// --- Messages

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_field(struct decoder *decoder, ProtobufCMessage *message,
                                const ProtobufCFieldDescriptor *field)
{
    bool is_value = field->type == PROTOBUF_C_TYPE_MESSAGE &&
                    field->descriptor == &google__protobuf__value__descriptor;
    if (json_peek(&decoder->reader) == JSON_NULL && (!is_value || field_is_repeated(field)))
        return json_read_null(&decoder->reader);
    if (field_is_map(field))
        return decode_map(decoder, message, field);
    if (field_is_repeated(field))
        return decode_list(decoder, message, field);
    TRY(decode_single(decoder, field, field_place(message, field)));
    if (field_is_oneof(field))
        *field_case(message, field) = field->id;
    return STATUS_OK;
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by the schema
static enum status decode_object(struct decoder *decoder, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    uint64_t seen = 0;
    ASSERT(descriptor->n_fields <= FIELDS_MAX);
    enum json_kind kind = json_peek(&decoder->reader);
    if (kind != JSON_OBJECT)
        return kind == JSON_BAD ? fail_syntax(decoder, "a JSON object")
                                : fail(decoder, "is not a JSON object");
    TRY(json_enter_object(&decoder->reader));
    for (;;) {
        bool has_member = false;
        struct str key;
        TRY(json_next_member(&decoder->reader, &has_member, &key));
        if (!has_member)
            return STATUS_OK;
        const ProtobufCFieldDescriptor *field = field_by_json_name(descriptor, key);
        if (field == NULL)
            return fail(decoder, "there is no such field");
        uint64_t bit = 1ULL << (field - descriptor->fields);
        if ((seen & bit) != 0)
            return fail(decoder, "comes twice");
        seen |= bit;
        TRY(decode_field(decoder, message, field));
    }
}

static enum status decode_struct_root(struct decoder *decoder, ProtobufCMessage *message)
{
    ProtobufCMessage *made = NULL;
    TRY(decode_struct(decoder, &made));
    ASSERT(made != NULL);
    memcpy(message, made, sizeof(Google__Protobuf__Struct));
    return STATUS_OK;
}

static enum status decode(struct str json, bool keeps_text, struct arena *arena,
                          struct error *error, ProtobufCMessage *message)
{
    struct decoder decoder; // the reader is not worth clearing
    enum status status = STATUS_OK;
    bump_init(&decoder.bump, arena, json.len, BUMP_FACTOR);
    json_reader_init(&decoder.reader, json, &decoder.bump, error);
    buf_init(&decoder.scratch, LIMIT_PAYLOAD_SIZE_MAX);
    decoder.arena = arena;
    decoder.keeps_text = keeps_text;
    if (message->descriptor == &google__protobuf__struct__descriptor)
        status = decode_struct_root(&decoder, message);
    else
        status = decode_object(&decoder, message);
    if (status == STATUS_OK)
        status = json_reader_end(&decoder.reader);
    buf_deinit(&decoder.scratch);
    return status;
}

enum status json_decode_message(struct str json, struct arena *arena, struct error *error,
                                ProtobufCMessage *message)
{
    return decode(json, false, arena, error, message);
}

enum status json_decode_body(struct str json, struct arena *arena, struct error *error,
                             ProtobufCMessage *message)
{
    if (str_trim(json).len == 0)
        return STATUS_OK;
    return decode(json, true, arena, error, message);
}

// --- One field from text

static const char *set_bool(struct str text, void *place)
{
    bool is_true = str_equal(text, STR("true"));
    if (!is_true && !str_equal(text, STR("false")))
        return "is neither true nor false";
    protobuf_c_boolean value = is_true;
    memcpy(place, &value, sizeof(value));
    return NULL;
}

static const char *set_string(struct str text, struct arena *arena, void *place)
{
    if (text.len > 0 && memchr(text.data, 0, text.len) != NULL)
        return "holds a NUL character";
    if (!str_is_utf8(text))
        return "is not valid UTF-8";
    char *copy = arena_cstr(arena, text);
    memcpy(place, &copy, sizeof(copy));
    return NULL;
}

enum status json_set_field(ProtobufCMessage *message, struct str field_name, struct str text,
                           struct arena *arena, struct error *error)
{
    const ProtobufCFieldDescriptor *field = field_by_json_name(message->descriptor, field_name);
    const char *problem = NULL;
    void *place = NULL;
    if (field == NULL)
        return error_set(error, STATUS_INVALID, "%.*s: there is no such field",
                         STR_ARG(field_name));
    place = field_place(message, field);
    if (field_is_repeated(field) || field->type == PROTOBUF_C_TYPE_MESSAGE ||
        field->type == PROTOBUF_C_TYPE_BYTES)
        problem = "cannot be given in the address";
    else if (field->type == PROTOBUF_C_TYPE_STRING)
        problem = set_string(text, arena, place);
    else if (field->type == PROTOBUF_C_TYPE_BOOL)
        problem = set_bool(text, place);
    else
        problem = set_number(field, text, place);
    if (problem != NULL)
        return error_set(error, STATUS_INVALID, "%s: %s", field->name, problem);
    if (field_is_oneof(field))
        *field_case(message, field) = field->id;
    return STATUS_OK;
}
