#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

// Fields of protobuf-c's generated structs, by their descriptors. Any thread.

// The place of a field in its message, and of its count (repeated) or case (oneof).
void *field_place(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);
size_t *field_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);
uint32_t *field_case(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

bool field_is_repeated(const ProtobufCFieldDescriptor *field);
bool field_is_oneof(const ProtobufCFieldDescriptor *field);
size_t field_element_size(const ProtobufCFieldDescriptor *field);
const ProtobufCMessageDescriptor *field_message(const ProtobufCFieldDescriptor *field);
// Whether the field is a map<string, …>: repeated entries, messages with a key and a value.
bool field_is_map(const ProtobufCFieldDescriptor *field);

// Of several entries with one key the last counts: close the gaps that the others leave.
void field_keep_last_of_key(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);
// Whether two entries have the same key.
bool field_has_duplicate_key(const ProtobufCMessage *message,
                             const ProtobufCFieldDescriptor *field);

// A field by its name in JSON (lowerCamelCase) or as it is declared (snake_case); NULL: none. Of a
// message with a map `payload` and a Struct `document` the name `payload` finds the Struct, and
// `document` nothing.
const ProtobufCFieldDescriptor *field_by_json_name(const ProtobufCMessageDescriptor *descriptor,
                                                   struct str name);
// The Struct that goes by the name `payload`; NULL: the message is not of this kind.
const ProtobufCFieldDescriptor *field_document(const ProtobufCMessageDescriptor *descriptor);
