#pragma once

#include <stdint.h>

#include "identity/token.h"

// The key under which API keys are sealed: 32 bytes, as long as the authority.
const uint8_t *token_authority_seal_key(const struct token_authority *authority);
