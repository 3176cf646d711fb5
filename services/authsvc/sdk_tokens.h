#pragma once

#include "authsvc/work.h"

// SDK tokens: what a program gets. The API key is inside, sealed.

enum status sdk_tokens_create(struct work *work);

// A token for a key, as long as it lives. INVALID: what the key says makes the token too large.
enum status sdk_token_make(struct work *work, const user_record *user, const key_record *key,
                           char **out_jwt);
