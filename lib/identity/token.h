#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "net/signature.h"

// The two kinds of JWT (RFC 7519) and nothing else: login tokens for people in a front end, SDK
// tokens, with the API key sealed inside, for programs. HS256 under the secret, or ES256 or EdDSA
// under a key pair: one of them, pinned when the authority is made; iss, aud, typ, exp and iat are
// checked, 5 s of leeway. Any thread.

enum token_kind { TOKEN_LOGIN, TOKEN_SDK };

enum plan { PLAN_UNSPECIFIED, PLAN_FREE, PLAN_PAID };

// What a token says. The strings live in the arena that token_verify was given.
struct token {
    enum token_kind kind;
    struct str user_id; // sub
    enum plan plan;
    struct str role;   // login: user, admin; sdk: reader, writer, owner
    struct str key_id; // sdk
    struct str key_name;
    struct str sealed_key;         // sdk: claim api_key, base64url; opened with api_key_open
    const struct str *collections; // sdk: what the key is bound to
    uint32_t collection_count;     // 0: every collection of the user
    struct str jti;
    int64_t issued_at;   // Unix seconds
    int64_t expires_at;  // Unix seconds
    uint64_t generation; // login: claim gen, the user's token generation; 0 without the claim
};

// A token lives this much longer than it says, for clocks that differ; one issued further in the
// future than this is refused.
enum {
    TOKEN_LEEWAY_SECONDS = 5,
    TOKEN_SIZE_MAX = 8192,
    TOKEN_SECRET_SIZE_MIN = 32,
    TOKEN_KEYS_MAX = 9, // the one that signs, and eight that are still or already accepted
};

struct token_authority; // the secrets and keys, and what is derived from them

struct token_authority_options {
    struct str secret;          // signs (HS256) and seals API keys
    struct str previous_secret; // accepted, and opens seals, as well; empty: none
    // Key pairs of one algorithm; the first one signs, when it is a private one. None: HS256.
    // Borrowed as long as the authority.
    struct signature_key *const *keys;
    uint32_t key_count;
};

// INVALID: a secret is too short, keys of two algorithms, too many keys.
enum status token_authority_create(const struct token_authority_options *options,
                                   struct error *error, struct token_authority **out_authority);
void token_authority_destroy(struct token_authority *authority);

const char *token_authority_algorithm(const struct token_authority *authority); // "HS256"
// The public keys as a JWK set (RFC 7517), in the arena: what /.well-known/jwks.json says.
struct str token_authority_print_keys(const struct token_authority *authority, struct arena *arena);

// The compact JWT, in the arena. jti, issued_at are filled in when zero. INVALID: a string that is
// no UTF-8, or a token that would pass TOKEN_SIZE_MAX. BUG: no key that signs.
enum status token_sign(const struct token_authority *authority, const struct token *token,
                       struct arena *arena, struct error *error, struct str *out_jwt);
// UNAUTHENTICATED, always with the sentence "invalid or expired token".
enum status token_verify(const struct token_authority *authority, struct str jwt,
                         struct arena *arena, struct error *error, struct token *out_token);

// PLAN_UNSPECIFIED: neither FREE nor PAID.
enum plan plan_from_str(struct str name);
const char *plan_name(enum plan plan); // "FREE", "PAID"

// --- API keys: vtk_ + 8 characters (with these the key id) + _ + 43 characters. The raw key leaves
// the server only sealed (XChaCha20-Poly1305, key derived from the secret, bound to key id and
// user).

enum { API_KEY_SIZE = 56, API_KEY_ID_SIZE = 12, API_KEY_HASH_SIZE = 32 };

void api_key_generate(char out_key[static API_KEY_SIZE + 1]);
struct str api_key_id(struct str key); // its first 12 characters; empty: not a key
bool api_key_id_is_valid(struct str key_id);
void api_key_hash(struct str key, uint8_t out_hash[static API_KEY_HASH_SIZE]);
enum status api_key_seal(const struct token_authority *authority, struct str key,
                         struct str user_id, struct arena *arena, struct str *out_sealed);
// What was sealed under another secret that is accepted as well, sealed under the current one; what
// is sealed under it already comes back as it is. UNAUTHENTICATED: as api_key_open.
enum status api_key_seal_again(const struct token_authority *authority, struct str sealed,
                               struct str key_id, struct str user_id, struct arena *arena,
                               struct str *out_sealed);
// UNAUTHENTICATED: not sealed by us, or for another key or user.
enum status api_key_open(const struct token_authority *authority, struct str sealed,
                         struct str key_id, struct str user_id, struct arena *arena,
                         struct str *out_key);
