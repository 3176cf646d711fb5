#include <sodium.h>
#include <string.h>

#include "base/clock.h"
#include "identity/token.h"
#include "net/signature_testing.h"
#include "testing/test.h"

// Tokens under key pairs and under two secrets; what a token says is in token_test.c.

#define OLD_SECRET "0123456789abcdef0123456789abcdef"
#define NEW_SECRET "another secret of 32 characters!!"

enum { KEYS_MAX = 3 };

// An authority with keys of its own.
struct side {
    struct token_authority *authority;
    struct signature_key *keys[KEYS_MAX];
    uint32_t count;
};

static void add_key(struct side *side, const char *pem)
{
    struct error error = {0};
    if (pem != NULL)
        CHECK_OK(signature_key_read(str_from_cstr(pem), &error, &side->keys[side->count++]));
}

static struct side open_side(const char *first, const char *second, const char *third)
{
    struct side side = {0};
    struct error error = {0};
    add_key(&side, first);
    add_key(&side, second);
    add_key(&side, third);
    CHECK_OK(token_authority_create(&(struct token_authority_options){.secret = STR(OLD_SECRET),
                                                                      .keys = side.keys,
                                                                      .key_count = side.count},
                                    &error, &side.authority));
    return side;
}

static void close_side(struct side *side)
{
    token_authority_destroy(side->authority);
    for (uint32_t i = 0; i < side->count; i++)
        signature_key_destroy(side->keys[i]);
}

static struct token_authority *open_secrets(const char *secret, const char *previous)
{
    struct token_authority *authority = NULL;
    CHECK_OK(token_authority_create(
        &(struct token_authority_options){.secret = str_from_cstr(secret),
                                          .previous_secret = str_from_cstr(previous)},
        NULL, &authority));
    return authority;
}

static enum status sign(const struct token_authority *authority, struct arena *arena,
                        struct str *out_jwt)
{
    struct token token = {.kind = TOKEN_LOGIN,
                          .user_id = STR("user-1"),
                          .plan = PLAN_FREE,
                          .role = STR("user"),
                          .expires_at = clock_unix_seconds() + 100};
    struct error error = {0};
    return token_sign(authority, &token, arena, &error, out_jwt);
}

static bool accepts(const struct token_authority *authority, struct arena *arena, struct str jwt)
{
    struct token token;
    struct error error = {0};
    enum status status = token_verify(authority, jwt, arena, &error, &token);
    CHECK(status == STATUS_OK || status == STATUS_UNAUTHENTICATED);
    return status == STATUS_OK;
}

static struct str base64url(struct arena *arena, struct str bytes)
{
    enum { VARIANT = sodium_base64_VARIANT_URLSAFE_NO_PADDING };
    size_t size = sodium_base64_encoded_len(bytes.len, VARIANT);
    char *text = arena_alloc(arena, size);
    sodium_bin2base64(text, size, (const uint8_t *)bytes.data, bytes.len, VARIANT);
    return str_from_cstr(text);
}

static struct str from_base64url(struct arena *arena, struct str text)
{
    char *bytes = arena_alloc(arena, text.len + 1);
    size_t size = 0;
    CHECK(sodium_base642bin((uint8_t *)bytes, text.len, text.data, text.len, NULL, &size, NULL,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0);
    return (struct str){bytes, size};
}

// The token's header, as JSON.
static struct str header_of(struct arena *arena, struct str jwt)
{
    return from_base64url(arena, str_cut(&jwt, '.'));
}

static struct str payload_of(struct arena *arena, struct str jwt)
{
    (void)str_cut(&jwt, '.');
    return from_base64url(arena, str_cut(&jwt, '.'));
}

// The value of "kid", which stands behind "alg" in what we make.
static struct str key_id_of(struct arena *arena, struct str jwt)
{
    struct str rest = header_of(arena, jwt);
    for (int i = 0; i < 7; i++)
        (void)str_cut(&rest, '"');
    return str_cut(&rest, '"');
}

// A token of this header and payload with the signature of a key.
static struct str forge(struct arena *arena, const struct signature_key *key, struct str header,
                        struct str payload)
{
    uint8_t signature[SIGNATURE_SIZE];
    struct str a = base64url(arena, header);
    struct str b = base64url(arena, payload);
    struct str text = arena_format(arena, "%.*s.%.*s", STR_ARG(a), STR_ARG(b));
    CHECK_OK(signature_sign(key, str_span(text), NULL, signature));
    struct str c = base64url(arena, (struct str){(const char *)signature, sizeof(signature)});
    return arena_format(arena, "%.*s.%.*s", STR_ARG(text), STR_ARG(c));
}

static struct str forge_hmac(struct arena *arena, struct str secret, struct str header,
                             struct str payload)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    struct str a = base64url(arena, header);
    struct str b = base64url(arena, payload);
    struct str text = arena_format(arena, "%.*s.%.*s", STR_ARG(a), STR_ARG(b));
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)secret.data, secret.len);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)text.data, text.len);
    crypto_auth_hmacsha256_final(&state, mac);
    struct str c = base64url(arena, (struct str){(const char *)mac, sizeof(mac)});
    return arena_format(arena, "%.*s.%.*s", STR_ARG(text), STR_ARG(c));
}

static const struct {
    const char *name;
    const char *key;
    const char *public_key;
    const char *other_key;
    const char *other_public_key;
} kinds[] = {
    {"ES256", TEST_KEY_ES256_PRIVATE, TEST_KEY_ES256_PUBLIC, TEST_KEY_ES256_OTHER_PRIVATE,
     TEST_KEY_ES256_OTHER_PUBLIC},
    {"EdDSA", TEST_KEY_EDDSA_PRIVATE, TEST_KEY_EDDSA_PUBLIC, TEST_KEY_EDDSA_OTHER_PRIVATE,
     TEST_KEY_EDDSA_OTHER_PUBLIC},
};
enum { KIND_COUNT = sizeof(kinds) / sizeof(kinds[0]) };

TEST(a_public_key_checks_what_the_private_one_signed)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        struct arena *arena = arena_create(1 << 20);
        struct side issuer = open_side(kinds[i].key, NULL, NULL);
        struct side reader = open_side(kinds[i].public_key, NULL, NULL);
        struct side stranger = open_side(kinds[i].other_public_key, NULL, NULL);
        struct str jwt = {0};
        CHECK_OK(sign(issuer.authority, arena, &jwt));
        CHECK_CSTR(token_authority_algorithm(reader.authority), kinds[i].name);
        CHECK_CONTAINS(header_of(arena, jwt),
                       arena_format(arena, "{\"alg\":\"%s\",\"kid\":\"", kinds[i].name));
        CHECK(accepts(issuer.authority, arena, jwt) && accepts(reader.authority, arena, jwt));
        CHECK(!accepts(stranger.authority, arena, jwt));
        CHECK_STATUS(sign(reader.authority, arena, &jwt), STATUS_BUG);
        close_side(&issuer);
        close_side(&reader);
        close_side(&stranger);
        arena_destroy(arena);
    }
}

TEST(every_changed_character_is_refused)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        struct arena *arena = arena_create(8 << 20);
        struct side side = open_side(kinds[i].key, NULL, NULL);
        struct str jwt = {0};
        CHECK_OK(sign(side.authority, arena, &jwt));
        for (size_t at = 0; at < jwt.len; at++) {
            char *changed = arena_cstr(arena, jwt);
            changed[at] = changed[at] == 'A' ? 'B' : 'A';
            CHECK(!accepts(side.authority, arena, (struct str){changed, jwt.len}));
        }
        CHECK(!accepts(side.authority, arena, (struct str){jwt.data, jwt.len - 1}));
        CHECK(!accepts(side.authority, arena, (struct str){jwt.data, jwt.len - 86}));
        CHECK(!accepts(side.authority, arena, (struct str){jwt.data, jwt.len - 87}));
        close_side(&side);
        arena_destroy(arena);
    }
}

// The old key is taken away from those who check only when its tokens are gone.
TEST(a_key_is_changed_without_a_gap)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        struct arena *arena = arena_create(1 << 20);
        struct side before = open_side(kinds[i].key, NULL, NULL);
        struct side during =
            open_side(kinds[i].other_key, kinds[i].public_key, kinds[i].other_public_key);
        struct side reader = open_side(kinds[i].public_key, kinds[i].other_public_key, NULL);
        struct side after = open_side(kinds[i].other_public_key, NULL, NULL);
        struct str old_jwt = {0};
        struct str new_jwt = {0};
        CHECK_OK(sign(before.authority, arena, &old_jwt));
        CHECK_OK(sign(during.authority, arena, &new_jwt));
        CHECK(!str_equal(key_id_of(arena, old_jwt), key_id_of(arena, new_jwt)));
        CHECK(accepts(during.authority, arena, old_jwt));
        CHECK(accepts(during.authority, arena, new_jwt));
        CHECK(accepts(reader.authority, arena, old_jwt));
        CHECK(accepts(reader.authority, arena, new_jwt));
        CHECK(!accepts(before.authority, arena, new_jwt));
        CHECK(!accepts(after.authority, arena, old_jwt));
        CHECK(accepts(after.authority, arena, new_jwt));
        close_side(&before);
        close_side(&during);
        close_side(&reader);
        close_side(&after);
        arena_destroy(arena);
    }
}

// The text with the id in place of the @.
static struct str fill_in(struct arena *arena, const char *text, struct str id)
{
    struct str rest = str_from_cstr(text);
    struct str first = str_cut(&rest, '@');
    return arena_format(arena, "%.*s%.*s%.*s", STR_ARG(first), STR_ARG(id), STR_ARG(rest));
}

TEST(a_header_that_lies_is_refused)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        struct arena *arena = arena_create(1 << 20);
        struct side side = open_side(kinds[i].key, kinds[i].other_key, NULL);
        const char *name = kinds[i].name;
        struct str jwt = {0};
        CHECK_OK(sign(side.authority, arena, &jwt));
        struct str payload = payload_of(arena, jwt);
        struct str id = key_id_of(arena, jwt);
        const struct signature_key *key = side.keys[0];
        struct str good = arena_format(arena, "{\"typ\":\"JWT\",\"kid\":\"%.*s\",\"alg\":\"%s\"}",
                                       STR_ARG(id), name);
        CHECK(accepts(side.authority, arena, forge(arena, key, good, payload)));
        // The other key's signature under this key's id.
        CHECK(!accepts(side.authority, arena, forge(arena, side.keys[1], good, payload)));
        const char *const headers[] = {
            "{\"kid\":\"@\",\"alg\":\"none\"}",
            "{\"kid\":\"@\",\"alg\":\"HS256\"}",
            "{\"kid\":\"@\",\"alg\":\"RS256\"}",
            "{\"kid\":\"@\",\"alg\":\"es256\"}",
            "{\"kid\":\"@\"}",
            "{\"kid\":[\"@\"],\"alg\":\"ES256\"}",
            "{\"kid\":[\"@\"],\"alg\":\"EdDSA\"}",
            "{\"x\":\"@\",\"kid\":\"\",\"alg\":\"EdDSA\"}",
            "{\"x\":\"@\",\"alg\":\"ES256\"}",
            "{\"x\":\"@\",\"alg\":\"EdDSA\"}",
            "{\"kid\":\"@\",\"alg\":\"EdDSA\",\"crit\":[\"b64\"]}",
            "{\"kid\":\"@\",\"alg\":\"ES256\",\"crit\":[\"b64\"]}",
            "[\"@\"]",
            "@",
        };
        for (size_t j = 0; j < sizeof(headers) / sizeof(headers[0]); j++) {
            struct str header = fill_in(arena, headers[j], id);
            CHECK(!accepts(side.authority, arena, forge(arena, key, header, payload)));
        }
        struct str no_id = arena_format(arena, "{\"alg\":\"%s\"}", name);
        CHECK(!accepts(side.authority, arena, forge(arena, key, no_id, payload)));
        close_side(&side);
        arena_destroy(arena);
    }
}

// The classic: everybody has the public key, so it must not do as the secret of an HMAC; and under
// a key pair not even the true secret signs.
TEST(hs256_is_refused_under_a_key_pair)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        struct arena *arena = arena_create(1 << 20);
        struct side side = open_side(kinds[i].key, NULL, NULL);
        struct token_authority *secret = open_secrets(OLD_SECRET, "");
        struct str jwt = {0};
        CHECK_OK(sign(side.authority, arena, &jwt));
        struct str payload = payload_of(arena, jwt);
        struct str id = key_id_of(arena, jwt);
        struct str header =
            arena_format(arena, "{\"alg\":\"HS256\",\"kid\":\"%.*s\"}", STR_ARG(id));
        struct span point = signature_key_public(side.keys[0]);
        const struct str secrets[] = {str_from_cstr(kinds[i].public_key),
                                      {(const char *)point.data, point.len},
                                      STR(OLD_SECRET)};
        for (size_t j = 0; j < sizeof(secrets) / sizeof(secrets[0]); j++)
            CHECK(!accepts(side.authority, arena, forge_hmac(arena, secrets[j], header, payload)));
        // And the other way about: a secret's authority takes no key pair's token.
        CHECK(!accepts(secret, arena, jwt));
        CHECK_OK(sign(secret, arena, &jwt));
        CHECK(!accepts(side.authority, arena, jwt));
        token_authority_destroy(secret);
        close_side(&side);
        arena_destroy(arena);
    }
}

TEST(two_algorithms_do_not_mix)
{
    struct side es = {0};
    struct token_authority *authority = NULL;
    struct error error = {0};
    add_key(&es, TEST_KEY_ES256_PRIVATE);
    add_key(&es, TEST_KEY_EDDSA_PUBLIC);
    CHECK_STATUS(token_authority_create(&(struct token_authority_options){.secret = STR(OLD_SECRET),
                                                                          .keys = es.keys,
                                                                          .key_count = es.count},
                                        &error, &authority),
                 STATUS_INVALID);
    close_side(&es);
}

// The thumbprint of RFC 8037, A.3, and no private part anywhere.
TEST(the_keys_are_published)
{
    struct arena *arena = arena_create(1 << 20);
    struct side side = open_side(TEST_KEY_RFC8037_PRIVATE, NULL, NULL);
    CHECK_STR(token_authority_print_keys(side.authority, arena),
              STR("{\"keys\":[{\"crv\":\"Ed25519\",\"kty\":\"OKP\","
                  "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\",\"alg\":\"EdDSA\","
                  "\"kid\":\"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k\",\"use\":\"sig\"}]}"));
    close_side(&side);
    side = open_side(TEST_KEY_RFC7515_PUBLIC, TEST_KEY_RFC7515_PUBLIC, NULL);
    struct str keys = token_authority_print_keys(side.authority, arena);
    CHECK_CONTAINS(keys, STR("\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
                             "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""));
    CHECK(!str_contains(keys, STR("},{"))); // one key, however often it is named
    close_side(&side);
    side = open_side(NULL, NULL, NULL);
    CHECK_STR(token_authority_print_keys(side.authority, arena), STR("{\"keys\":[]}"));
    close_side(&side);
    arena_destroy(arena);
}

TEST(a_secret_is_changed_without_a_gap)
{
    struct arena *arena = arena_create(1 << 20);
    struct token_authority *before = open_secrets(OLD_SECRET, "");
    struct token_authority *during = open_secrets(NEW_SECRET, OLD_SECRET);
    struct token_authority *after = open_secrets(NEW_SECRET, "");
    struct str old_jwt = {0};
    struct str new_jwt = {0};
    CHECK_OK(sign(before, arena, &old_jwt));
    CHECK_OK(sign(during, arena, &new_jwt));
    CHECK(accepts(during, arena, old_jwt) && accepts(during, arena, new_jwt));
    CHECK(!accepts(before, arena, new_jwt) && !accepts(after, arena, old_jwt));
    CHECK(accepts(after, arena, new_jwt));
    // The id of the wrong secret under a good signature; none at all, as before there were ids.
    struct str header = arena_format(arena, "{\"alg\":\"HS256\",\"kid\":\"%.*s\"}",
                                     STR_ARG(key_id_of(arena, old_jwt)));
    struct str payload = payload_of(arena, new_jwt);
    CHECK(!accepts(during, arena, forge_hmac(arena, STR(NEW_SECRET), header, payload)));
    CHECK(accepts(during, arena,
                  forge_hmac(arena, STR(OLD_SECRET), STR("{\"alg\":\"HS256\"}"), payload)));
    token_authority_destroy(before);
    token_authority_destroy(during);
    token_authority_destroy(after);
    arena_destroy(arena);
}

TEST(a_short_previous_secret_is_refused)
{
    struct token_authority *authority = NULL;
    struct error error = {0};
    CHECK_STATUS(
        token_authority_create(&(struct token_authority_options){.secret = STR(OLD_SECRET),
                                                                 .previous_secret = STR("short")},
                               &error, &authority),
        STATUS_INVALID);
}

TEST(seals_outlive_the_secret)
{
    struct arena *arena = arena_create(1 << 20);
    struct token_authority *before = open_secrets(OLD_SECRET, "");
    struct token_authority *during = open_secrets(NEW_SECRET, OLD_SECRET);
    struct token_authority *after = open_secrets(NEW_SECRET, "");
    char text[API_KEY_SIZE + 1];
    struct str sealed = {0};
    struct str again = {0};
    struct str same = {0};
    struct str opened = {0};
    api_key_generate(text);
    struct str key = str_from_cstr(text);
    struct str id = api_key_id(key);
    CHECK_OK(api_key_seal(before, key, STR("u"), arena, &sealed));
    CHECK_OK(api_key_open(during, sealed, id, STR("u"), arena, &opened));
    CHECK_STR(opened, key);
    CHECK_STATUS(api_key_open(after, sealed, id, STR("u"), arena, &opened), STATUS_UNAUTHENTICATED);
    CHECK_STATUS(api_key_seal_again(during, sealed, id, STR("other"), arena, &again),
                 STATUS_UNAUTHENTICATED);
    CHECK_OK(api_key_seal_again(during, sealed, id, STR("u"), arena, &again));
    CHECK_OK(api_key_open(after, again, id, STR("u"), arena, &opened));
    CHECK_STR(opened, key);
    CHECK_OK(api_key_seal_again(during, again, id, STR("u"), arena, &same));
    CHECK_STR(same, again);
    token_authority_destroy(before);
    token_authority_destroy(during);
    token_authority_destroy(after);
    arena_destroy(arena);
}

TEST_MAIN()
