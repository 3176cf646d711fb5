#include <math.h>
#include <string.h>

#include "api/google/protobuf/struct.pb-c.h"
#include "api/json.h"
#include "api/json_number_internal.h"
#include "api/json_struct_internal.h"
#include "base/limits.h"

// Recursion here is bounded: by LIMIT_PAYLOAD_DEPTH_MAX, by JSON_DEPTH_MAX of the reader, or by the
// depth of message_decode.

enum { TREE_FACTOR = 40 }; // "1," becomes 56 bytes at most, arrays that grew included

_Static_assert(LIMIT_PAYLOAD_DEPTH_MAX == 32, "a sentence below says so");

struct text_annex {
    struct str text;
};

static const Google__Protobuf__Struct *as_struct(const ProtobufCMessage *message)
{
    return (const Google__Protobuf__Struct *)(const void *)message;
}

bool is_wellknown(const ProtobufCMessageDescriptor *descriptor)
{
    return descriptor == &google__protobuf__struct__descriptor ||
           descriptor == &google__protobuf__value__descriptor ||
           descriptor == &google__protobuf__list_value__descriptor;
}

// --- The text that a Struct remembers

struct str struct_text(const ProtobufCMessage *message)
{
    if (message->n_unknown_fields > 0 || message->unknown_fields == NULL)
        return STR("");
    return ((const struct text_annex *)(const void *)message->unknown_fields)->text;
}

static bool set_text(struct bump *bump, ProtobufCMessage *message, struct str json)
{
    struct text_annex *annex = bump_alloc(bump, sizeof(*annex), 8);
    if (annex == NULL)
        return false;
    annex->text = json;
    message->unknown_fields = (ProtobufCMessageUnknownField *)(void *)annex;
    return true;
}

ProtobufCMessage *struct_of_text(struct bump *bump, struct str json)
{
    Google__Protobuf__Struct *made = bump_alloc(bump, sizeof(*made), 8);
    if (made == NULL)
        return NULL;
    google__protobuf__struct__init(made);
    return set_text(bump, &made->base, json) ? &made->base : NULL;
}

// --- JSON into a tree

static enum status fail_exhausted(struct json_reader *reader)
{
    return json_fail(reader, STATUS_EXHAUSTED, "the request takes too much memory");
}

// An array of pointers that doubles.
struct growing {
    void **items;
    size_t count;
    size_t capacity;
};

static bool push(struct bump *bump, struct growing *growing, void *item)
{
    if (growing->count == growing->capacity) {
        size_t capacity = growing->capacity == 0 ? 4 : growing->capacity * 2;
        void **items = bump_alloc(bump, capacity * sizeof(*items), 8);
        if (items == NULL)
            return false;
        if (growing->count > 0)
            memcpy(items, growing->items, growing->count * sizeof(*items));
        growing->items = items;
        growing->capacity = capacity;
    }
    growing->items[growing->count++] = item;
    return true;
}

// NOLINTNEXTLINE(misc-no-recursion): the reader bounds the depth
static enum status read_struct(struct json_reader *reader, Google__Protobuf__Struct *out)
{
    struct growing growing = {0};
    TRY(json_enter_object(reader));
    for (;;) {
        bool has_member = false;
        struct str key;
        TRY(json_next_member(reader, &has_member, &key));
        if (!has_member)
            break;
        Google__Protobuf__Struct__FieldsEntry *entry = bump_alloc(reader->bump, sizeof(*entry), 8);
        Google__Protobuf__Value *value = bump_alloc(reader->bump, sizeof(*value), 8);
        char *name = bump_alloc(reader->bump, key.len + 1, 1);
        if (entry == NULL || value == NULL || name == NULL || !push(reader->bump, &growing, entry))
            return fail_exhausted(reader);
        google__protobuf__struct__fields_entry__init(entry);
        google__protobuf__value__init(value);
        if (key.len > 0)
            memcpy(name, key.data, key.len);
        entry->key = name;
        entry->value = value;
        TRY(json_read_value(reader, &value->base));
    }
    out->n_fields = growing.count;
    out->fields = (Google__Protobuf__Struct__FieldsEntry **)(void *)growing.items;
    return STATUS_OK;
}

// NOLINTNEXTLINE(misc-no-recursion): the reader bounds the depth
enum status json_read_list(struct json_reader *reader, ProtobufCMessage *message)
{
    Google__Protobuf__ListValue *out = (Google__Protobuf__ListValue *)(void *)message;
    struct growing growing = {0};
    TRY(json_enter_array(reader));
    for (;;) {
        bool has_element = false;
        TRY(json_next_element(reader, &has_element));
        if (!has_element)
            break;
        Google__Protobuf__Value *value = bump_alloc(reader->bump, sizeof(*value), 8);
        if (value == NULL || !push(reader->bump, &growing, value))
            return fail_exhausted(reader);
        google__protobuf__value__init(value);
        TRY(json_read_value(reader, &value->base));
    }
    out->n_values = growing.count;
    out->values = (Google__Protobuf__Value **)(void *)growing.items;
    return STATUS_OK;
}

static enum status read_scalar(struct json_reader *reader, enum json_kind kind,
                               Google__Protobuf__Value *out)
{
    struct str text;
    bool flag = false;
    switch (kind) {
    case JSON_STRING:
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        return json_read_cstr(reader, &out->string_value);
    case JSON_NUMBER:
        TRY(json_read_number(reader, &text));
        if (!json_number_to_double(text, &out->number_value))
            return json_fail(reader, STATUS_INVALID, "is out of range");
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        return STATUS_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        TRY(json_read_bool(reader, &flag));
        out->bool_value = flag;
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
        return STATUS_OK;
    case JSON_NULL:
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
        return json_read_null(reader);
    default:
        return json_fail_syntax(reader, "a value");
    }
}

// NOLINTNEXTLINE(misc-no-recursion): the reader bounds the depth
enum status json_read_value(struct json_reader *reader, ProtobufCMessage *message)
{
    Google__Protobuf__Value *out = (Google__Protobuf__Value *)(void *)message;
    enum json_kind kind = json_peek(reader);
    if (kind == JSON_OBJECT) {
        Google__Protobuf__Struct *made = bump_alloc(reader->bump, sizeof(*made), 8);
        if (made == NULL)
            return fail_exhausted(reader);
        google__protobuf__struct__init(made);
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
        out->struct_value = made;
        return read_struct(reader, made);
    }
    if (kind == JSON_ARRAY) {
        Google__Protobuf__ListValue *made = bump_alloc(reader->bump, sizeof(*made), 8);
        if (made == NULL)
            return fail_exhausted(reader);
        google__protobuf__list_value__init(made);
        out->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
        out->list_value = made;
        return json_read_list(reader, &made->base);
    }
    return read_scalar(reader, kind, out);
}

enum status struct_build(struct str json, struct arena *arena, struct error *error,
                         ProtobufCMessage **out_message)
{
    struct bump bump;
    struct json_reader reader;
    bump_init(&bump, arena, json.len, TREE_FACTOR);
    json_reader_init(&reader, json, &bump, error);
    Google__Protobuf__Struct *made = bump_alloc(&bump, sizeof(*made), 8);
    if (made == NULL)
        return fail_exhausted(&reader);
    google__protobuf__struct__init(made);
    TRY(read_struct(&reader, made));
    if (!set_text(&bump, &made->base, json))
        return fail_exhausted(&reader);
    *out_message = &made->base;
    return STATUS_OK;
}

// --- A tree into JSON

// NOLINTNEXTLINE(misc-no-recursion): depth_max goes down
static const char *write_value(struct buf *out, const Google__Protobuf__Value *value,
                               size_t depth_max)
{
    switch (value == NULL ? GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET : value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        if (!isfinite(value->number_value))
            return "holds a number that is not finite";
        json_append_double(out, value->number_value);
        return NULL;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        json_append_string(out, str_from_cstr(value->string_value));
        return NULL;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        buf_append_cstr(out, value->bool_value != 0 ? "true" : "false");
        return NULL;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return json_write_wellknown(out, &value->struct_value->base, depth_max);
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        return json_write_wellknown(out, &value->list_value->base, depth_max);
    default:
        buf_append_cstr(out, "null");
        return NULL;
    }
}

// NOLINTNEXTLINE(misc-no-recursion): depth_max goes down
static const char *write_struct(struct buf *out, const Google__Protobuf__Struct *message,
                                size_t depth_max)
{
    buf_append_byte(out, '{');
    for (size_t i = 0; i < message->n_fields && !buf_has_overflowed(out); i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        json_append_string(out, str_from_cstr(message->fields[i]->key));
        buf_append_byte(out, ':');
        const char *problem = write_value(out, message->fields[i]->value, depth_max);
        if (problem != NULL)
            return problem;
    }
    buf_append_byte(out, '}');
    return NULL;
}

// NOLINTNEXTLINE(misc-no-recursion): depth_max goes down
static const char *write_list(struct buf *out, const Google__Protobuf__ListValue *message,
                              size_t depth_max)
{
    buf_append_byte(out, '[');
    for (size_t i = 0; i < message->n_values && !buf_has_overflowed(out); i++) {
        if (i > 0)
            buf_append_byte(out, ',');
        const char *problem = write_value(out, message->values[i], depth_max);
        if (problem != NULL)
            return problem;
    }
    buf_append_byte(out, ']');
    return NULL;
}

// NOLINTNEXTLINE(misc-no-recursion): depth_max goes down
const char *json_write_wellknown(struct buf *out, const ProtobufCMessage *message, size_t depth_max)
{
    struct str text = struct_text(message);
    if (text.len > 0) {
        buf_append_str(out, text);
        return NULL;
    }
    if (message->descriptor == &google__protobuf__value__descriptor)
        return write_value(out, (const Google__Protobuf__Value *)(const void *)message, depth_max);
    if (depth_max == 0)
        return "is nested deeper than 32";
    if (message->descriptor == &google__protobuf__struct__descriptor)
        return write_struct(out, as_struct(message), depth_max - 1);
    return write_list(out, (const Google__Protobuf__ListValue *)(const void *)message,
                      depth_max - 1);
}
