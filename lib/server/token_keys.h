#pragma once

#include "base/config.h"
#include "base/error.h"
#include "net/signature.h"

// The algorithm of the tokens and, when it is ES256 or EdDSA, the key files, read once at start.
// Constant afterwards.

enum { TOKEN_KEY_FILES_MAX = 9 };

struct token_keys {
    struct signature_key *keys[TOKEN_KEY_FILES_MAX]; // that of jwt-key-file comes first
    uint32_t count;                                  // 0: HS256
};

// Rows for a service's table of settings.
// clang-format off
#define TOKEN_KEY_SETTINGS                                                                  \
    {"jwt-algorithm", "VECTRON_JWT_ALGORITHM", SETTING_STR, false, "HS256",                 \
     "how tokens are signed: HS256, ES256 or EdDSA; no other is accepted"},                 \
    {"jwt-key-file", "VECTRON_JWT_KEY_FILE", SETTING_STR, false, "",                        \
     "PEM: the private key that signs tokens; the gateway needs no more than public keys"}, \
    {"jwt-accepted-keys", "VECTRON_JWT_ACCEPTED_KEYS", SETTING_STR, false, "",              \
     "a comma list of PEM files: public keys whose tokens are accepted as well"}
// clang-format on

// must_sign: it is an error when there is no private key to sign with. INVALID: an algorithm that
// we do not have, keys without an algorithm that needs them, none with one, or of another one, too
// many. IO: a file cannot be read.
enum status token_keys_load(const struct config *config, bool must_sign, struct error *error,
                            struct token_keys *out_keys);
void token_keys_unload(struct token_keys *keys);
