#include <sodium.h>
#include <string.h>

#include "base/rng.h"
#include "identity/token.h"
#include "identity/token_internal.h"

// vtk_ + 8 of base62 + _ + 43 of base64url (32 random bytes). A sealed key is the base64url of a
// random nonce and the key under XChaCha20-Poly1305, with key id and user id as associated data, so
// that a sealed key moved to another key's or user's token does not open.

enum {
    PREFIX_SIZE = 4,
    NAME_SIZE = 8,
    SECRET_SIZE = 32,
    SECRET_TEXT_SIZE = 43,
    NONCE_SIZE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    SEALED_SIZE = NONCE_SIZE + API_KEY_SIZE + crypto_aead_xchacha20poly1305_ietf_ABYTES,
    SEALED_TEXT_SIZE =
        sodium_base64_ENCODED_LEN(SEALED_SIZE, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
};

_Static_assert(PREFIX_SIZE + NAME_SIZE == API_KEY_ID_SIZE, "the id is the beginning of the key");
_Static_assert(API_KEY_ID_SIZE + 1 + SECRET_TEXT_SIZE == API_KEY_SIZE, "the key's parts");
_Static_assert(API_KEY_HASH_SIZE == crypto_hash_sha256_BYTES, "a key is kept as its SHA-256");

static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static bool is_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// One of 62 letters, each equally likely.
static char random_letter(void)
{
    enum { LETTERS = sizeof(alphabet) - 1, USABLE = 256 - 256 % LETTERS };
    uint8_t byte;
    do {
        rng_secure(&byte, 1);
    } while (byte >= USABLE);
    return alphabet[byte % LETTERS];
}

void api_key_generate(char out_key[static API_KEY_SIZE + 1])
{
    uint8_t secret[SECRET_SIZE];
    memcpy(out_key, "vtk_", PREFIX_SIZE);
    for (size_t i = 0; i < NAME_SIZE; i++)
        out_key[PREFIX_SIZE + i] = random_letter();
    out_key[API_KEY_ID_SIZE] = '_';
    rng_secure(secret, sizeof(secret));
    sodium_bin2base64(out_key + API_KEY_ID_SIZE + 1, SECRET_TEXT_SIZE + 1, secret, sizeof(secret),
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(secret, sizeof(secret));
}

bool api_key_id_is_valid(struct str key_id)
{
    if (key_id.len != API_KEY_ID_SIZE || memcmp(key_id.data, "vtk_", PREFIX_SIZE) != 0)
        return false;
    for (size_t i = PREFIX_SIZE; i < API_KEY_ID_SIZE; i++) {
        if (!is_alphanumeric(key_id.data[i]))
            return false;
    }
    return true;
}

struct str api_key_id(struct str key)
{
    struct str none = {0};
    if (key.len != API_KEY_SIZE || key.data[API_KEY_ID_SIZE] != '_')
        return none;
    for (size_t i = API_KEY_ID_SIZE + 1; i < API_KEY_SIZE; i++) {
        char c = key.data[i];
        if (!is_alphanumeric(c) && c != '-' && c != '_')
            return none;
    }
    struct str key_id = {key.data, API_KEY_ID_SIZE};
    return api_key_id_is_valid(key_id) ? key_id : none;
}

void api_key_hash(struct str key, uint8_t out_hash[static API_KEY_HASH_SIZE])
{
    crypto_hash_sha256(out_hash, (const uint8_t *)key.data, key.len);
}

static struct str binding_of(struct str key_id, struct str user_id, struct arena *arena)
{
    return arena_format(arena, "%.*s\n%.*s", STR_ARG(key_id), STR_ARG(user_id));
}

enum status api_key_seal(const struct token_authority *authority, struct str key,
                         struct str user_id, struct arena *arena, struct str *out_sealed)
{
    struct str key_id = api_key_id(key);
    if (key_id.len == 0)
        return STATUS_INVALID;
    struct str binding = binding_of(key_id, user_id, arena);
    uint8_t sealed[SEALED_SIZE];
    rng_secure(sealed, NONCE_SIZE);
    crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + NONCE_SIZE, NULL, (const uint8_t *)key.data,
                                               key.len, (const uint8_t *)binding.data, binding.len,
                                               NULL, sealed,
                                               token_authority_seal_key(authority, 0));
    char *text = arena_alloc(arena, SEALED_TEXT_SIZE);
    sodium_bin2base64(text, SEALED_TEXT_SIZE, sealed, sizeof(sealed),
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    *out_sealed = str_from_cstr(text);
    return STATUS_OK;
}

// The index of the secret under which it was sealed comes with it.
static enum status open_key(const struct token_authority *authority, struct str sealed,
                            struct str binding, uint8_t out_key[static API_KEY_SIZE],
                            uint32_t *out_index)
{
    uint8_t bytes[SEALED_SIZE];
    size_t size = 0;
    if (sodium_base642bin(bytes, sizeof(bytes), sealed.data, sealed.len, NULL, &size, NULL,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
        size != sizeof(bytes))
        return STATUS_UNAUTHENTICATED;
    for (uint32_t i = 0; i < token_authority_seal_key_count(authority); i++) {
        if (crypto_aead_xchacha20poly1305_ietf_decrypt(
                out_key, NULL, NULL, bytes + NONCE_SIZE, sizeof(bytes) - NONCE_SIZE,
                (const uint8_t *)binding.data, binding.len, bytes,
                token_authority_seal_key(authority, i)) == 0) {
            *out_index = i;
            return STATUS_OK;
        }
    }
    return STATUS_UNAUTHENTICATED;
}

enum status api_key_open(const struct token_authority *authority, struct str sealed,
                         struct str key_id, struct str user_id, struct arena *arena,
                         struct str *out_key)
{
    uint8_t *key = arena_alloc(arena, API_KEY_SIZE + 1);
    uint32_t index = 0;
    TRY(open_key(authority, sealed, binding_of(key_id, user_id, arena), key, &index));
    *out_key = (struct str){(const char *)key, API_KEY_SIZE};
    return STATUS_OK;
}

enum status api_key_seal_again(const struct token_authority *authority, struct str sealed,
                               struct str key_id, struct str user_id, struct arena *arena,
                               struct str *out_sealed)
{
    uint8_t key[API_KEY_SIZE];
    uint32_t index = 0;
    TRY(open_key(authority, sealed, binding_of(key_id, user_id, arena), key, &index));
    enum status status = STATUS_OK;
    if (index == 0)
        *out_sealed = sealed;
    else
        status = api_key_seal(authority, (struct str){(const char *)key, sizeof(key)}, user_id,
                              arena, out_sealed);
    sodium_memzero(key, sizeof(key));
    return status;
}
