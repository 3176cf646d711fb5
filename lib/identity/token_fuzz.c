#include "identity/token.h"

#include <sodium.h>
#include <string.h>

#include "net/signature_testing.h"

// Two ways in: the bytes as a token (what anybody can send), and the bytes as header and payload,
// parted by the first NUL, under a good signature, so that the parsing behind the signature is
// reached too. Both under a secret and under a key pair.

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

#define SECRET "0123456789abcdef0123456789abcdef"

static struct signature_key *pair;
static struct token_authority *secret_authority;
static struct token_authority *pair_authority;

static bool set_up(void)
{
    struct token_authority_options options = {.secret = STR(SECRET)};
    if (pair_authority != NULL)
        return true;
    if (signature_key_read(STR(TEST_KEY_EDDSA_PRIVATE), NULL, &pair) != STATUS_OK ||
        token_authority_create(&options, NULL, &secret_authority) != STATUS_OK)
        return false;
    options.keys = &pair;
    options.key_count = 1;
    return token_authority_create(&options, NULL, &pair_authority) == STATUS_OK;
}

static struct str sign_by_pair(struct arena *arena, struct str header, struct str payload)
{
    uint8_t signature[SIGNATURE_SIZE];
    char third[2 * SIGNATURE_SIZE];
    struct str rest = sign(arena, header, payload, SECRET);
    struct str a = str_cut(&rest, '.');
    struct str b = str_cut(&rest, '.');
    struct str text = arena_format(arena, "%.*s.%.*s", STR_ARG(a), STR_ARG(b));
    if (signature_sign(pair, str_span(text), NULL, signature) != STATUS_OK)
        return text;
    sodium_bin2base64(third, sizeof(third), signature, sizeof(signature),
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return arena_format(arena, "%.*s.%s", STR_ARG(text), third);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!set_up())
        return 0;
    struct arena *arena = arena_create(1 << 20);
    struct token token;
    struct error error;
    struct str rest = {(const char *)data, size};
    // Either way is fine.
    (void)token_verify(secret_authority, rest, arena, &error, &token);
    (void)token_verify(pair_authority, rest, arena, &error, &token);
    struct str header = str_cut(&rest, '\0');
    (void)token_verify(secret_authority, sign(arena, header, rest, SECRET), arena, &error, &token);
    (void)token_verify(pair_authority, sign_by_pair(arena, header, rest), arena, &error, &token);
    arena_destroy(arena);
    return 0;
}
