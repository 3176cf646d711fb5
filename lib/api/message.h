#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// Messages to and from the wire format, for bytes that nobody vouches for. The structs and their
// descriptors are protobuf-c's; the decoder is ours, since protobuf-c's spends 40 bytes and more on
// each unpacked number and each unknown field. Any thread.

// Decode into the arena. Nesting is at most 128 deep, strings are valid UTF-8 without NUL, lengths
// stay inside their parents. Repeated numbers are read packed, unpacked or split; a message that
// comes twice is merged; of several entries of a map with one key the last counts; unknown fields,
// and fields with another wire type than theirs, are skipped and not kept. INVALID: malformed, the
// error names the field. EXHAUSTED: the decoded form would take more than 16 times the bytes and
// 1 MiB, or pass the arena's maximum.
enum status message_decode(const ProtobufCMessageDescriptor *descriptor, struct span bytes,
                           struct arena *arena, struct error *error,
                           ProtobufCMessage **out_message);

// Append the encoded message. EXHAUSTED: over the buffer's maximum.
enum status message_encode(const ProtobufCMessage *message, struct buf *out);
