#pragma once

#include <stdint.h>

#include "identity/token.h"

// What the authority does for tokens and API keys. Any thread.

enum { API_KEY_SEAL_KEY_SIZE = 32 };

// The keys under which API keys are sealed, the current one first: as long as the authority.
uint32_t token_authority_seal_key_count(const struct token_authority *authority);
const uint8_t *token_authority_seal_key(const struct token_authority *authority, uint32_t index);

// The compact JWT of this JSON object under the current key, in the arena. BUG: there is no key
// that signs.
enum status token_authority_sign(const struct token_authority *authority, struct str payload,
                                 struct arena *arena, struct error *error, struct str *out_jwt);
// The id of the key whose signature it is; NULL: nobody's. The parts are those of jwt, in
// base64url, of any alphabet still.
const char *token_authority_check(const struct token_authority *authority, struct str jwt,
                                  struct str *out_header, struct str *out_payload);
