#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// Messages to and from the wire format, for bytes that nobody vouches for. Any thread.

// Decode into the arena. Before protobuf-c sees the bytes they are walked once: nesting at most 100
// deep, strings valid UTF-8 without NUL, lengths inside their parents. Packed fields are read
// packed, unpacked or split. INVALID: malformed, the error names the field. EXHAUSTED: the decoded
// form would pass the arena's maximum.
enum status message_decode(const ProtobufCMessageDescriptor *descriptor, struct span bytes,
                           struct arena *arena, struct error *error,
                           ProtobufCMessage **out_message);

// Append the encoded message. EXHAUSTED: over the buffer's maximum.
enum status message_encode(const ProtobufCMessage *message, struct buf *out);
