#pragma once

#include <protobuf-c/protobuf-c.h>

#include "api/bump_internal.h"
#include "api/json_reader_internal.h"
#include "base/buf.h"

// google.protobuf.Struct, Value and ListValue. A Struct may remember the JSON text that it was made
// from. protobuf-c packs n_unknown_fields of a message's unknown fields; with none of them the
// pointer is free, and that is where the text is. Any thread.

// Empty text: it remembers none.
struct str struct_text(const ProtobufCMessage *message);

// The next value must be an object: check it as a payload, compact it into scratch (which is
// cleared first) and copy it into the bump.
enum status json_read_payload(struct json_reader *reader, struct buf *scratch,
                              struct str *out_json);
// A Struct that only remembers the text, which must live as long.
ProtobufCMessage *struct_of_text(struct bump *bump, struct str json);
// With fields. json is compact.
enum status struct_build(struct str json, struct arena *arena, struct error *error,
                         ProtobufCMessage **out_message);
// message is a Value; its fields are set from the next value.
enum status json_read_value(struct json_reader *reader, ProtobufCMessage *message);
enum status json_read_list(struct json_reader *reader, ProtobufCMessage *message);

// Struct, Value or ListValue. NULL: done; else what is wrong with it, as the end of a sentence.
const char *json_write_wellknown(struct buf *out, const ProtobufCMessage *message,
                                 size_t depth_max);
bool is_wellknown(const ProtobufCMessageDescriptor *descriptor);
