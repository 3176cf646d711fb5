#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/str.h"

// The small texts of gRPC over HTTP/2: timeouts, status messages, binary metadata. Any thread.

enum { GRPC_TIMEOUT_SIZE = 16 };

// grpc-timeout: at most 8 digits and one of H M S m u n. UINT64_MAX: longer than can be counted.
bool grpc_timeout_parse(struct str text, uint64_t *out_ns);
// The coarsest unit that loses less than a thousandth, never longer than asked for but at least 1n.
struct str grpc_timeout_format(uint64_t timeout_ns, char out[static GRPC_TIMEOUT_SIZE]);

// grpc-message: everything but printable ASCII, the percent sign, and a space at either end, as
// %XX. Decoding leaves what is no valid %XX as it is. Without anything to change the text itself
// comes back.
struct str grpc_percent_encode(struct arena *arena, struct str text);
struct str grpc_percent_decode(struct arena *arena, struct str text);

// -bin metadata: base64 with or without padding; written without.
bool grpc_base64_decode(struct str text, uint8_t *out, size_t *out_size); // out: text.len bytes
struct str grpc_base64_encode(struct arena *arena, struct span bytes);
