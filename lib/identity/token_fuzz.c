#include "identity/token.h"

#include <sodium.h>
#include <string.h>

// Two ways in: the bytes as a token (what anybody can send), and the bytes as header and payload,
// parted by the first NUL, under a good signature, so that the parsing behind the signature is
// reached too.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct str sign(struct arena *arena, struct str header, struct str payload,
                       const char *secret)
{
    enum { VARIANT = sodium_base64_VARIANT_URLSAFE_NO_PADDING };
    char *a = arena_alloc(arena, sodium_base64_encoded_len(header.len, VARIANT));
    char *b = arena_alloc(arena, sodium_base64_encoded_len(payload.len, VARIANT));
    char c[64];
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    sodium_bin2base64(a, sodium_base64_encoded_len(header.len, VARIANT),
                      (const uint8_t *)header.data, header.len, VARIANT);
    sodium_bin2base64(b, sodium_base64_encoded_len(payload.len, VARIANT),
                      (const uint8_t *)payload.data, payload.len, VARIANT);
    struct str text = arena_format(arena, "%s.%s", a, b);
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)secret, strlen(secret));
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)text.data, text.len);
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_bin2base64(c, sizeof(c), mac, sizeof(mac), VARIANT);
    return arena_format(arena, "%.*s.%s", STR_ARG(text), c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char secret[] = "0123456789abcdef0123456789abcdef";
    static struct token_authority *authority;
    if (authority == NULL &&
        token_authority_create(str_from_cstr(secret), NULL, &authority) != STATUS_OK)
        return 0;
    struct arena *arena = arena_create(1 << 20);
    struct token token;
    struct error error;
    struct str rest = {(const char *)data, size};
    (void)token_verify(authority, rest, arena, &error, &token); // either way is fine
    struct str header = str_cut(&rest, '\0');
    (void)token_verify(authority, sign(arena, header, rest, secret), arena, &error, &token);
    arena_destroy(arena);
    return 0;
}
