#pragma once

#include <stdint.h>

#include "base/str.h"

// HMAC-SHA256 (RFC 2104). Any thread.

enum { HMAC_SHA256_SIZE = 32 };

void hmac_sha256(struct span key, struct span data, uint8_t out[static HMAC_SHA256_SIZE]);
// The same as 64 lower-case hexadecimal digits and a NUL.
void hmac_sha256_hex(struct span key, struct span data, char out[static 65]);
