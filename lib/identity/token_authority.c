#include <sodium.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "identity/token.h"
#include "identity/token_internal.h"

// What signs and seals. Under HS256 the secrets do both; under ES256 and EdDSA key pairs sign and
// the secrets seal. Whichever it is, no other algorithm can be computed here at all, so a header
// that asks for another one is refused by the signature before anybody has parsed it.
//
// Every key has an id (kid). A secret's is a part of an HMAC under it, a key pair's is its
// thumbprint (RFC 7638). Of several key pairs the header's kid chooses one: it is looked for as
// bytes, because nothing is parsed before the signature is known to be good, and afterwards the
// parsed header must say the same.

enum {
    SECRET_ID_BYTES = 12,
    KEY_ID_SIZE = 43, // the longer of the two
    SECRETS_MAX = 2,
    HEADER_TEXT_MAX = 1024, // base64url; ours has 140 at most
    BASE64URL = sodium_base64_VARIANT_URLSAFE_NO_PADDING,
};

struct shared_secret {
    crypto_auth_hmacsha256_state state; // ready for the text
    uint8_t seal_key[API_KEY_SEAL_KEY_SIZE];
    char id[KEY_ID_SIZE + 1];
};

struct key_pair {
    const struct signature_key *key; // borrowed
    char id[KEY_ID_SIZE + 1];
};

struct token_authority {
    struct shared_secret secrets[SECRETS_MAX];
    uint32_t secret_count;
    struct key_pair pairs[TOKEN_KEYS_MAX]; // none: HS256
    uint32_t pair_count;
    enum signature_algorithm algorithm; // of the pairs
};

_Static_assert(API_KEY_SEAL_KEY_SIZE == crypto_aead_xchacha20poly1305_ietf_KEYBYTES,
               "the key of a seal");
_Static_assert(crypto_auth_hmacsha256_BYTES == API_KEY_SEAL_KEY_SIZE, "and it is one HMAC");

// --- Life

static void hmac(const struct shared_secret *secret, struct str text,
                 uint8_t out_mac[static crypto_auth_hmacsha256_BYTES])
{
    crypto_auth_hmacsha256_state state = secret->state;
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)text.data, text.len);
    crypto_auth_hmacsha256_final(&state, out_mac);
    sodium_memzero(&state, sizeof(state));
}

static enum status add_secret(struct token_authority *authority, struct str text,
                              struct error *error)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    struct shared_secret *secret = &authority->secrets[authority->secret_count++];
    if (text.len < TOKEN_SECRET_SIZE_MIN)
        return error_set(error, STATUS_INVALID, "the secret has %zu characters, %d are the least",
                         text.len, TOKEN_SECRET_SIZE_MIN);
    crypto_auth_hmacsha256_init(&secret->state, (const uint8_t *)text.data, text.len);
    hmac(secret, STR("vectron: seal of API keys, 1"), secret->seal_key);
    hmac(secret, STR("vectron: id of the secret, 1"), mac);
    sodium_bin2base64(secret->id, sizeof(secret->id), mac, SECRET_ID_BYTES, BASE64URL);
    return STATUS_OK;
}

static struct str encode(struct arena *arena, struct span bytes)
{
    size_t size = sodium_base64_encoded_len(bytes.len, BASE64URL);
    char *text = arena_alloc(arena, size);
    sodium_bin2base64(text, size, bytes.data, bytes.len, BASE64URL);
    return str_from_cstr(text);
}

// The members that RFC 7638 wants, in its order.
static struct str describe(const struct signature_key *key, struct arena *arena)
{
    struct span bytes = signature_key_public(key);
    if (signature_key_algorithm(key) == SIGNATURE_EDDSA)
        return arena_format(arena, "\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"%.*s\"",
                            STR_ARG(encode(arena, bytes)));
    struct str x = encode(arena, (struct span){bytes.data, bytes.len / 2});
    struct str y = encode(arena, (struct span){bytes.data + bytes.len / 2, bytes.len / 2});
    return arena_format(arena, "\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%.*s\",\"y\":\"%.*s\"",
                        STR_ARG(x), STR_ARG(y));
}

static void add_pair(struct token_authority *authority, const struct signature_key *key)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    struct arena *arena = arena_create(16 << 10);
    struct str text = describe(key, arena);
    struct str json = arena_format(arena, "{%.*s}", STR_ARG(text));
    struct key_pair *pair = &authority->pairs[authority->pair_count];
    pair->key = key;
    crypto_hash_sha256(digest, (const uint8_t *)json.data, json.len);
    sodium_bin2base64(pair->id, sizeof(pair->id), digest, sizeof(digest), BASE64URL);
    arena_destroy(arena);
    // A key may be named twice: as the one that signs, and among those that are accepted.
    for (uint32_t i = 0; i < authority->pair_count; i++) {
        if (strcmp(authority->pairs[i].id, pair->id) == 0)
            return;
    }
    authority->pair_count++;
}

static enum status fill(struct token_authority *authority,
                        const struct token_authority_options *options, struct error *error)
{
    TRY(add_secret(authority, options->secret, error));
    if (options->previous_secret.len > 0)
        TRY(add_secret(authority, options->previous_secret, error));
    if (options->key_count > TOKEN_KEYS_MAX)
        return error_set(error, STATUS_INVALID, "%u keys, %d are the most", options->key_count,
                         TOKEN_KEYS_MAX);
    for (uint32_t i = 0; i < options->key_count; i++) {
        authority->algorithm = signature_key_algorithm(options->keys[0]);
        if (signature_key_algorithm(options->keys[i]) != authority->algorithm)
            return error_set(error, STATUS_INVALID, "the keys are of two algorithms");
        add_pair(authority, options->keys[i]);
    }
    return STATUS_OK;
}

enum status token_authority_create(const struct token_authority_options *options,
                                   struct error *error, struct token_authority **out_authority)
{
    if (sodium_init() < 0)
        return error_set(error, STATUS_BUG, "libsodium cannot start");
    struct token_authority *authority = mem_alloc(sizeof(*authority));
    enum status status = fill(authority, options, error);
    if (status != STATUS_OK) {
        token_authority_destroy(authority);
        return status;
    }
    *out_authority = authority;
    return STATUS_OK;
}

void token_authority_destroy(struct token_authority *authority)
{
    if (authority == NULL)
        return;
    sodium_memzero(authority, sizeof(*authority));
    mem_free(authority);
}

uint32_t token_authority_seal_key_count(const struct token_authority *authority)
{
    return authority->secret_count;
}

const uint8_t *token_authority_seal_key(const struct token_authority *authority, uint32_t index)
{
    return authority->secrets[index].seal_key;
}

const char *token_authority_algorithm(const struct token_authority *authority)
{
    return authority->pair_count == 0 ? "HS256" : signature_algorithm_name(authority->algorithm);
}

struct str token_authority_print_keys(const struct token_authority *authority, struct arena *arena)
{
    struct str text = STR("{\"keys\":[");
    for (uint32_t i = 0; i < authority->pair_count; i++) {
        const struct key_pair *pair = &authority->pairs[i];
        struct str members = describe(pair->key, arena);
        text = arena_format(arena, "%.*s%s{%.*s,\"alg\":\"%s\",\"kid\":\"%s\",\"use\":\"sig\"}",
                            STR_ARG(text), i > 0 ? "," : "", STR_ARG(members),
                            token_authority_algorithm(authority), pair->id);
    }
    return arena_format(arena, "%.*s]}", STR_ARG(text));
}

// --- Signing

enum status token_authority_sign(const struct token_authority *authority, struct str payload,
                                 struct arena *arena, struct error *error, struct str *out_jwt)
{
    uint8_t signature[SIGNATURE_SIZE];
    size_t size = crypto_auth_hmacsha256_BYTES;
    const char *id = authority->pair_count == 0 ? authority->secrets[0].id : authority->pairs[0].id;
    struct str header = arena_format(arena, "{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}",
                                     token_authority_algorithm(authority), id);
    struct str first = encode(arena, str_span(header));
    struct str second = encode(arena, str_span(payload));
    struct str text = arena_format(arena, "%.*s.%.*s", STR_ARG(first), STR_ARG(second));
    if (authority->pair_count == 0) {
        hmac(&authority->secrets[0], text, signature);
    } else {
        size = SIGNATURE_SIZE;
        TRY(signature_sign(authority->pairs[0].key, str_span(text), error, signature));
    }
    struct str third = encode(arena, (struct span){signature, size});
    *out_jwt = arena_format(arena, "%.*s.%.*s", STR_ARG(text), STR_ARG(third));
    return STATUS_OK;
}

// --- Checking

static const char *check_secrets(const struct token_authority *authority, struct str text,
                                 struct span signature)
{
    uint8_t expected[crypto_auth_hmacsha256_BYTES];
    if (signature.len != sizeof(expected))
        return NULL;
    for (uint32_t i = 0; i < authority->secret_count; i++) {
        hmac(&authority->secrets[i], text, expected);
        if (sodium_memcmp(signature.data, expected, sizeof(expected)) == 0)
            return authority->secrets[i].id;
    }
    return NULL;
}

// One key is tried, so that a token of a stranger costs one check however many keys there are.
static const char *check_pairs(const struct token_authority *authority, struct str header,
                               struct str text, struct span signature)
{
    char plain[HEADER_TEXT_MAX];
    size_t size = 0;
    if (sodium_base642bin((uint8_t *)plain, sizeof(plain), header.data, header.len, NULL, &size,
                          NULL, BASE64URL) != 0)
        return NULL;
    for (uint32_t i = 0; i < authority->pair_count; i++) {
        const struct key_pair *pair = &authority->pairs[i];
        if (str_contains((struct str){plain, size}, str_from_cstr(pair->id)))
            return signature_verify(pair->key, str_span(text), signature) ? pair->id : NULL;
    }
    return NULL;
}

const char *token_authority_check(const struct token_authority *authority, struct str jwt,
                                  struct str *out_header, struct str *out_payload)
{
    uint8_t bytes[SIGNATURE_SIZE];
    struct span signature = {bytes, 0};
    struct str rest = jwt;
    struct str header = str_cut(&rest, '.');
    struct str payload = str_cut(&rest, '.');
    if (header.len == 0 || header.len > HEADER_TEXT_MAX || payload.len == 0 ||
        sodium_base642bin(bytes, sizeof(bytes), rest.data, rest.len, NULL, &signature.len, NULL,
                          BASE64URL) != 0)
        return NULL;
    struct str text = {jwt.data, header.len + 1 + payload.len};
    const char *id = authority->pair_count == 0 ? check_secrets(authority, text, signature)
                                                : check_pairs(authority, header, text, signature);
    *out_header = header;
    *out_payload = payload;
    return id;
}
