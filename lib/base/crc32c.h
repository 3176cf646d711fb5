#pragma once

#include <stddef.h>
#include <stdint.h>

// CRC-32C (Castagnoli, RFC 3720 appendix B.4), as every file of ours carries it. Uses the
// processor's instruction where there is one. Start with 0; pass the last result to go on.

uint32_t crc32c(uint32_t crc, const void *data, size_t size);
// The same without the instruction, to hold the two against each other.
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);
