#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/status.h"
#include "base/str.h"

// Messages inside the bytes of a gRPC stream: a flag, a length of 4 bytes, the message. A message
// that lies whole in the bytes that came is a view of them; else it gathers in a buffer that grows
// with what came, never with the length that was claimed. One thread.

enum { GRPC_PREFIX_SIZE = 5 };

// Where the memory for messages is accounted for. take returns false when the budget is used up.
struct grpc_budget {
    bool (*take)(void *context, size_t size);
    void (*give)(void *context, size_t size);
    void *context;
};

// Zeroed is empty: grpc_reader_deinit is fine on it.
struct grpc_reader {
    struct grpc_budget budget;
    bool has_gzip; // the stream's grpc-encoding; without it a compressed message is an error
    uint8_t prefix_size;
    uint8_t prefix[GRPC_PREFIX_SIZE];
    uint32_t message_size; // of the one that is being read
    size_t charged;        // to the budget, for both buffers
    struct buf gathered;
    struct buf plain; // decompressed
};

void grpc_reader_init(struct grpc_reader *reader, bool has_gzip, const struct grpc_budget *budget);
void grpc_reader_deinit(struct grpc_reader *reader);

// Take bytes from the front of *bytes, to the end of one message at most. *out_message has data
// when one is complete; it is valid until the next call or until bytes goes. Call it until *bytes
// is empty. EXHAUSTED: over message_size_max (the sentence has both sizes) or over the budget;
// INVALID: malformed. After an error the stream is of no use.
enum status grpc_reader_next(struct grpc_reader *reader, size_t message_size_max,
                             struct span *bytes, struct error *error, struct span *out_message,
                             bool *out_is_complete);
// Some bytes of a message came and others are missing.
bool grpc_reader_is_inside(const struct grpc_reader *reader);

// Append a message with its prefix, compressed when asked and when that makes it smaller. False:
// out is full.
bool grpc_frame_append(struct buf *out, struct span message, bool has_gzip);
