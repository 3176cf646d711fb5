#include <stdint.h>
#include <string.h>

#include "api/field_internal.h"
#include "api/google/protobuf/struct.pb-c.h"
#include "base/assert.h"
#include "base/map.h"

// Up to so many entries are compared each with each; a hash map costs more.
enum { SMALL_MAP_MAX = 12 };

// The structs are protobuf-c's: members lie at the offsets that the descriptor tells.
static void *at_offset(const ProtobufCMessage *message, unsigned offset)
{
    union {
        const ProtobufCMessage *in;
        uint8_t *out;
    } pointer = {.in = message};
    return pointer.out + offset;
}

void *field_place(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return at_offset(message, field->offset);
}

size_t *field_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return at_offset(message, field->quantifier_offset);
}

uint32_t *field_case(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return at_offset(message, field->quantifier_offset);
}

bool field_is_repeated(const ProtobufCFieldDescriptor *field)
{
    return field->label == PROTOBUF_C_LABEL_REPEATED;
}

bool field_is_oneof(const ProtobufCFieldDescriptor *field)
{
    return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

size_t field_element_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

const ProtobufCMessageDescriptor *field_message(const ProtobufCFieldDescriptor *field)
{
    ASSERT(field->type == PROTOBUF_C_TYPE_MESSAGE);
    return field->descriptor;
}

bool field_is_map(const ProtobufCFieldDescriptor *field)
{
    if (!field_is_repeated(field) || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    const ProtobufCMessageDescriptor *entry = field_message(field);
    return entry->n_fields == 2 && entry->fields[0].type == PROTOBUF_C_TYPE_STRING &&
           strcmp(entry->fields[0].name, "key") == 0 &&
           strcmp(entry->fields[1].name, "value") == 0 &&
           str_ends_with(str_from_cstr(entry->name), STR("Entry"));
}

static struct str key_of(const ProtobufCMessage *entry)
{
    const char *const *key = field_place(entry, &entry->descriptor->fields[0]);
    return str_from_cstr(*key);
}

static bool is_repeated_later(ProtobufCMessage *const *entries, size_t count, size_t index)
{
    struct str key = key_of(entries[index]);
    for (size_t i = index + 1; i < count; i++) {
        if (str_equal(key_of(entries[i]), key))
            return true;
    }
    return false;
}

void field_keep_last_of_key(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    size_t *count = field_count(message, field);
    ProtobufCMessage **entries = *(ProtobufCMessage ***)field_place(message, field);
    size_t kept = 0;
    if (*count <= SMALL_MAP_MAX) {
        for (size_t i = 0; i < *count; i++) {
            if (!is_repeated_later(entries, *count, i))
                entries[kept++] = entries[i];
        }
        *count = kept;
        return;
    }
    struct map *last = map_create();
    for (size_t i = 0; i < *count; i++)
        (void)map_put(last, key_of(entries[i]), entries[i]); // what it replaces is not needed
    for (size_t i = 0; i < *count; i++) {
        if (map_get(last, key_of(entries[i])) == entries[i])
            entries[kept++] = entries[i];
    }
    *count = kept;
    map_destroy(last);
}

bool field_has_duplicate_key(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    size_t count = *field_count(message, field);
    ProtobufCMessage **entries = *(ProtobufCMessage ***)field_place(message, field);
    bool is_duplicate = false;
    if (count <= SMALL_MAP_MAX) {
        for (size_t i = 0; i < count && !is_duplicate; i++)
            is_duplicate = is_repeated_later(entries, count, i);
        return is_duplicate;
    }
    struct map *seen = map_create();
    for (size_t i = 0; i < count && !is_duplicate; i++)
        is_duplicate = map_put(seen, key_of(entries[i]), entries[i]) != NULL;
    map_destroy(seen);
    return is_duplicate;
}

// --- Names in JSON

static bool is_json_name(const char *declared, struct str name)
{
    size_t at = 0;
    bool is_upper = false;
    for (const char *c = declared; *c != '\0'; c++) {
        if (*c == '_') {
            is_upper = true;
            continue;
        }
        char wanted = is_upper && *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
        if (at == name.len || name.data[at++] != wanted)
            return false;
        is_upper = false;
    }
    return at == name.len;
}

const ProtobufCFieldDescriptor *field_document(const ProtobufCMessageDescriptor *descriptor)
{
    const ProtobufCFieldDescriptor *document =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, "document");
    if (document == NULL || document->type != PROTOBUF_C_TYPE_MESSAGE ||
        document->descriptor != &google__protobuf__struct__descriptor)
        return NULL;
    const ProtobufCFieldDescriptor *payload =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, "payload");
    return payload != NULL && field_is_map(payload) ? document : NULL;
}

const ProtobufCFieldDescriptor *field_by_json_name(const ProtobufCMessageDescriptor *descriptor,
                                                   struct str name)
{
    if (str_equal(name, STR("payload")) || str_equal(name, STR("document"))) {
        const ProtobufCFieldDescriptor *document = field_document(descriptor);
        if (document != NULL)
            return name.data[0] == 'p' ? document : NULL;
    }
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if (is_json_name(field->name, name) || str_equal_cstr(name, field->name))
            return field;
    }
    return NULL;
}
