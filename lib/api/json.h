#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// Messages to and from JSON, driven by their descriptors, as proto3's JSON mapping has it with the
// contract's choices: lowerCamelCase out, lowerCamelCase or snake_case in, unset fields written,
// 64-bit integers as strings, enums by name, floats with the shortest text that reads back to the
// same float, an unknown field is an error that names it, as is a name that comes twice. A message
// with both `payload` (a map) and `document` (a Struct) has one name in JSON, `payload`: it shows
// and takes the whole object. Memory is bounded as in message.h. Any thread.

// Merge a JSON object into message, whose fields are as the descriptor's init left them. INVALID:
// the error names the field. EXHAUSTED: more memory than is reasonable for the text. Everything new
// lies in the arena.
enum status json_decode_message(struct str json, struct arena *arena, struct error *error,
                                ProtobufCMessage *message);
// The same for the body of a request; no text at all is an empty object. A Struct in it holds its
// text and no fields, which keeps every digit and takes a fraction of the memory: read it with
// json_from_struct, and do not send it on as a message.
enum status json_decode_body(struct str json, struct arena *arena, struct error *error,
                             ProtobufCMessage *message);
// Set one field from text, as a path variable or query parameter gives it. INVALID: unknown, not
// made for it, or the text does not fit.
enum status json_set_field(ProtobufCMessage *message, struct str field_name, struct str text,
                           struct arena *arena, struct error *error);
void json_encode_message(const ProtobufCMessage *message, struct buf *out);

// --- Payloads: a JSON object as compact UTF-8 text, a google.protobuf.Struct, or a string map

// Check and compact. INVALID: not an object, a name twice, deeper or larger than the limits; field
// names the thing in the error ("points[3].payload"). EXHAUSTED: the arena is full.
enum status json_compact_payload(struct str json, const char *field, struct arena *arena,
                                 struct error *error, struct str *out_json);
// message is a google.protobuf.Struct. Statuses as above.
enum status json_from_struct(const ProtobufCMessage *message, const char *field,
                             struct arena *arena, struct error *error, struct str *out_json);
// The struct has its fields and remembers the text, so that JSON shows every digit again.
enum status json_to_struct(struct str json, struct arena *arena, struct error *error,
                           ProtobufCMessage **out_message);
// One member of a JSON object: its key, and its value as a string (values that are no strings come
// as their JSON text). Calls each in order. INVALID: not an object; some calls may have been made.
enum status json_for_each_member(struct str json, struct arena *arena,
                                 void (*each)(struct str key, struct str value, void *context),
                                 void *context);

// Append a field's name as JSON has it: lowerCamelCase of the declared snake_case, without quotes.
void json_append_field_name(struct buf *out, const char *declared);
// Append a JSON string with quotes and escapes; a number with its shortest text (`1`, not `1.0`).
void json_append_string(struct buf *out, struct str text);
void json_append_float(struct buf *out, float value);
void json_append_double(struct buf *out, double value);
