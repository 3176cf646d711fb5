#include "identity/token.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "testing/test.h"

#define SECRET "0123456789abcdef0123456789abcdef"
#define NOW    1700000000

static uint64_t fake_ms = NOW * 1000ULL;

static uint64_t fake_unix_ms(void)
{
    return fake_ms;
}

static uint64_t fake_monotonic_ns(void)
{
    return fake_ms * 1000000;
}

static const struct clock_source fake_clock = {fake_monotonic_ns, fake_unix_ms};

struct setup {
    struct arena *arena;
    struct token_authority *authority;
};

static struct setup set_up(void)
{
    struct setup setup = {.arena = arena_create(1 << 20)};
    clock_set_source(&fake_clock);
    fake_ms = NOW * 1000ULL;
    CHECK(token_authority_create(&(struct token_authority_options){.secret = STR(SECRET)}, NULL,
                                 &setup.authority) == STATUS_OK);
    return setup;
}

static void tear_down(struct setup *setup)
{
    token_authority_destroy(setup->authority);
    arena_destroy(setup->arena);
    clock_set_source(NULL);
}

static struct str base64url(struct arena *arena, const void *data, size_t size)
{
    size_t text_size = sodium_base64_encoded_len(size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *text = arena_alloc(arena, text_size);
    sodium_bin2base64(text, text_size, data, size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return str_from_cstr(text);
}

// A token as somebody else who knows the secret would make it.
static struct str forge(struct arena *arena, const char *header, const char *payload,
                        const char *secret)
{
    struct str a = base64url(arena, header, strlen(header));
    struct str b = base64url(arena, payload, strlen(payload));
    struct str text = arena_format(arena, "%.*s.%.*s", STR_ARG(a), STR_ARG(b));
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)secret, strlen(secret));
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)text.data, text.len);
    crypto_auth_hmacsha256_final(&state, mac);
    struct str c = base64url(arena, mac, sizeof(mac));
    return arena_format(arena, "%.*s.%.*s", STR_ARG(text), STR_ARG(c));
}

#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define LOGIN                                                                   \
    "\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":\"u1\"," \
    "\"plan\":\"FREE\",\"role\":\"user\",\"jti\":\"j\""
#define TIMES "\"iat\":1700000000,\"exp\":1700000100"
#define SDK                                                                                   \
    "\"typ\":\"sdk\",\"iss\":\"vectron\",\"aud\":\"api\",\"sub\":\"u1\",\"jti\":\"j\","       \
    "\"plan\":\"PAID\",\"role\":\"reader\",\"api_key\":\"AAAA\",\"key_id\":\"vtk_abcdefgh\"," \
    "\"key_name\":\"k\""

static bool is_accepted(struct setup *setup, struct str jwt)
{
    struct token token;
    struct error error = {0};
    enum status status = token_verify(setup->authority, jwt, setup->arena, &error, &token);
    CHECK(status == STATUS_OK || status == STATUS_UNAUTHENTICATED);
    CHECK(status == STATUS_OK || strcmp(error.text, "invalid or expired token") == 0);
    return status == STATUS_OK;
}

static bool accepts(struct setup *setup, const char *header, const char *payload)
{
    return is_accepted(setup, forge(setup->arena, header, payload, SECRET));
}

TEST(login_token_comes_back)
{
    struct setup setup = set_up();
    struct token token = {.kind = TOKEN_LOGIN,
                          .user_id = STR("user-1"),
                          .plan = PLAN_PAID,
                          .role = STR("admin"),
                          .expires_at = NOW + 86400,
                          .generation = 7};
    struct str jwt;
    struct token back;
    CHECK(token_sign(setup.authority, &token, setup.arena, NULL, &jwt) == STATUS_OK);
    CHECK(token_verify(setup.authority, jwt, setup.arena, NULL, &back) == STATUS_OK);
    CHECK(back.kind == TOKEN_LOGIN && back.plan == PLAN_PAID && back.generation == 7);
    CHECK(str_equal_cstr(back.user_id, "user-1") && str_equal_cstr(back.role, "admin"));
    CHECK(back.issued_at == NOW && back.expires_at == NOW + 86400 && back.jti.len == 32);
    tear_down(&setup);
}

TEST(sdk_token_comes_back)
{
    struct setup setup = set_up();
    const struct str collections[] = {STR("books"), STR("a.b-c_D")};
    struct token token = {.kind = TOKEN_SDK,
                          .user_id = STR("user-1"),
                          .plan = PLAN_FREE,
                          .role = STR("writer"),
                          .key_id = STR("vtk_abcdefgh"),
                          .key_name = STR("my \"key\" \\ \xc3\xa9"),
                          .sealed_key = STR("c2VhbGVk"),
                          .collections = collections,
                          .collection_count = 2,
                          .expires_at = NOW + 100};
    struct str jwt;
    struct token back;
    CHECK(token_sign(setup.authority, &token, setup.arena, NULL, &jwt) == STATUS_OK);
    CHECK(token_verify(setup.authority, jwt, setup.arena, NULL, &back) == STATUS_OK);
    CHECK(back.kind == TOKEN_SDK && back.collection_count == 2);
    CHECK(str_equal(back.collections[0], collections[0]));
    CHECK(str_equal(back.collections[1], collections[1]));
    CHECK(str_equal(back.key_name, token.key_name) && str_equal(back.key_id, token.key_id));
    CHECK(str_equal(back.sealed_key, token.sealed_key));
    token.collection_count = 0;
    CHECK(token_sign(setup.authority, &token, setup.arena, NULL, &jwt) == STATUS_OK);
    CHECK(token_verify(setup.authority, jwt, setup.arena, NULL, &back) == STATUS_OK);
    CHECK(back.collection_count == 0);
    token.key_name = STR("\xff");
    CHECK(token_sign(setup.authority, &token, setup.arena, NULL, &jwt) == STATUS_INVALID);
    tear_down(&setup);
}

TEST(sign_refuses_what_would_be_too_large)
{
    struct setup setup = set_up();
    struct str collections[400];
    for (size_t i = 0; i < 400; i++)
        collections[i] = arena_format(setup.arena, "collection-with-a-long-name-%zu", i);
    struct token token = {.kind = TOKEN_SDK,
                          .user_id = STR("u"),
                          .plan = PLAN_FREE,
                          .role = STR("writer"),
                          .key_id = STR("vtk_abcdefgh"),
                          .key_name = STR("k"),
                          .sealed_key = STR("c2VhbGVk"),
                          .collections = collections,
                          .collection_count = 400,
                          .expires_at = NOW + 100};
    struct str jwt;
    CHECK(token_sign(setup.authority, &token, setup.arena, NULL, &jwt) == STATUS_INVALID);
    tear_down(&setup);
}

TEST(verify_accepts_the_forged_good_one)
{
    struct setup setup = set_up();
    CHECK(accepts(&setup, HEADER, "{" LOGIN "," TIMES "}"));
    CHECK(accepts(&setup, "{\"alg\":\"HS256\"}", "{" LOGIN "," TIMES "}"));
    CHECK(accepts(&setup, HEADER, "{" SDK "," TIMES ",\"collections\":[]}"));
    CHECK(accepts(&setup, HEADER, "{" SDK "," TIMES ",\"collections\":[\"a\", \"b\"]}"));
    tear_down(&setup);
}

TEST(verify_refuses_other_algorithms)
{
    struct setup setup = set_up();
    const char *payload = "{" LOGIN "," TIMES "}";
    static const char *const algorithms[] = {"none",  "None",  "NONE",  "HS384",  "HS512", "RS256",
                                             "ES256", "hs256", "EdDSA", "HS256 ", ""};
    for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
        struct str header = arena_format(setup.arena, "{\"alg\":\"%s\"}", algorithms[i]);
        CHECK(!accepts(&setup, header.data, payload));
    }
    CHECK(!accepts(&setup, "{}", payload));
    CHECK(!accepts(&setup, "{\"typ\":\"JWT\"}", payload));
    CHECK(!accepts(&setup, "{\"alg\":[\"HS256\"]}", payload));
    CHECK(!accepts(&setup, "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", payload));
    CHECK(!accepts(&setup, "{\"alg\":\"HS256\",\"typ\":\"JWE\"}", payload));

    // No signature at all, and the empty one.
    struct str a = base64url(setup.arena, "{\"alg\":\"none\"}", 14);
    struct str b = base64url(setup.arena, payload, strlen(payload));
    CHECK(!is_accepted(&setup, arena_format(setup.arena, "%.*s.%.*s.", STR_ARG(a), STR_ARG(b))));
    CHECK(!is_accepted(&setup, arena_format(setup.arena, "%.*s.%.*s", STR_ARG(a), STR_ARG(b))));
    tear_down(&setup);
}

TEST(verify_refuses_a_changed_token)
{
    struct setup setup = set_up();
    struct str jwt = forge(setup.arena, HEADER, "{" LOGIN "," TIMES "}", SECRET);
    CHECK(is_accepted(&setup, jwt));
    for (size_t i = 0; i < jwt.len; i++) {
        char *changed = arena_cstr(setup.arena, jwt);
        changed[i] = changed[i] == 'A' ? 'B' : 'A';
        // The last character of a signature carries bits that nobody reads; they must be zero.
        CHECK(!is_accepted(&setup, (struct str){changed, jwt.len}));
        CHECK(!is_accepted(&setup, (struct str){jwt.data, i}));
    }
    CHECK(!is_accepted(&setup, arena_format(setup.arena, "%.*s=", STR_ARG(jwt))));
    CHECK(!is_accepted(&setup, arena_format(setup.arena, "%.*s.", STR_ARG(jwt))));
    CHECK(!is_accepted(&setup, arena_format(setup.arena, " %.*s", STR_ARG(jwt))));
    CHECK(!is_accepted(&setup, forge(setup.arena, HEADER, "{" LOGIN "," TIMES "}",
                                     "another secret of 32 characters!!")));
    tear_down(&setup);
}

TEST(verify_checks_the_times)
{
    struct setup setup = set_up();
    // Expires at NOW + 100, with 5 s of leeway.
    struct str jwt = forge(setup.arena, HEADER, "{" LOGIN "," TIMES "}", SECRET);
    fake_ms = (NOW + 104) * 1000ULL;
    CHECK(is_accepted(&setup, jwt));
    fake_ms = (NOW + 105) * 1000ULL;
    CHECK(!is_accepted(&setup, jwt));
    // Issued at most 5 s ahead.
    fake_ms = (NOW - 5) * 1000ULL;
    CHECK(is_accepted(&setup, jwt));
    fake_ms = (NOW - 6) * 1000ULL;
    CHECK(!is_accepted(&setup, jwt));
    fake_ms = NOW * 1000ULL;
    CHECK(!accepts(&setup, HEADER, "{" LOGIN ",\"iat\":1700000000}"));
    CHECK(!accepts(&setup, HEADER, "{" LOGIN ",\"exp\":1700000100}"));
    CHECK(!accepts(&setup, HEADER, "{" LOGIN ",\"iat\":\"1700000000\",\"exp\":1700000100}"));
    CHECK(!accepts(&setup, HEADER, "{" LOGIN ",\"iat\":1700000000,\"exp\":1.7e9}"));
    CHECK(!accepts(&setup, HEADER, "{" LOGIN ",\"iat\":-9223372036854775808,\"exp\":1700000100}"));
    CHECK(!accepts(&setup, HEADER, "{" LOGIN ",\"iat\":0,\"exp\":1700000100}"));
    CHECK(!accepts(&setup, HEADER, "{" LOGIN "," TIMES ",\"nbf\":1700000010}"));
    tear_down(&setup);
}

TEST(verify_refuses_wrong_claims)
{
    static const char *const payloads[] = {
        "",
        "{",
        "[]",
        "null",
        "{}",
        "{\"a\":}",
        "\xff\xfe",
        // iss
        "{\"typ\":\"login\",\"iss\":\"other\",\"aud\":\"console\",\"sub\":\"u\",\"plan\":\"FREE\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        // aud: that of the other kind, an array, none
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":\"api\",\"sub\":\"u\",\"plan\":\"FREE\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":[\"console\"],\"sub\":\"u\","
        "\"plan\":\"FREE\",\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"sub\":\"u\",\"plan\":\"FREE\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        // typ
        "{\"typ\":\"refresh\",\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":\"u\","
        "\"plan\":\"FREE\",\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        "{\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":\"u\",\"plan\":\"FREE\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        // sub
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":\"\",\"plan\":\"FREE\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":5,\"plan\":\"FREE\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        // plan
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":\"u\",\"plan\":"
        "\"free\","
        "\"role\":\"user\",\"jti\":\"j\"," TIMES "}",
        // role
        "{\"typ\":\"login\",\"iss\":\"vectron\",\"aud\":\"console\",\"sub\":\"u\",\"plan\":"
        "\"FREE\","
        "\"role\":\"owner\",\"jti\":\"j\"," TIMES "}",
        // gen
        "{" LOGIN ",\"gen\":-1," TIMES "}",
        // sdk without its parts
        "{" SDK "," TIMES "}",
        "{" SDK "," TIMES ",\"collections\":\"a\"}",
        "{" SDK "," TIMES ",\"collections\":[1]}",
        "{" SDK "," TIMES ",\"collections\":[\"\"]}",
        "{" SDK "," TIMES ",\"collections\":[[\"a\"]]}",
        "{" SDK "," TIMES ",\"collections\":{\"a\":\"b\"}}",
        "{\"typ\":\"sdk\",\"iss\":\"vectron\",\"aud\":\"api\",\"sub\":\"u\",\"jti\":\"j\","
        "\"plan\":\"PAID\",\"role\":\"reader\",\"api_key\":\"AAAA\",\"key_id\":\"other\","
        "\"key_name\":\"k\",\"collections\":[]," TIMES "}",
        "{\"typ\":\"sdk\",\"iss\":\"vectron\",\"aud\":\"api\",\"sub\":\"u\",\"jti\":\"j\","
        "\"plan\":\"PAID\",\"role\":\"admin\",\"api_key\":\"AAAA\",\"key_id\":\"vtk_abcdefgh\","
        "\"key_name\":\"k\",\"collections\":[]," TIMES "}",
    };
    struct setup setup = set_up();
    for (size_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++)
        CHECK(!accepts(&setup, HEADER, payloads[i]));
    tear_down(&setup);
}

TEST(verify_refuses_garbage_and_size)
{
    struct setup setup = set_up();
    static const char *const texts[] = {
        "",    ".",     "..",      "...",      "a",
        "a.b", "a.b.c", "a.b.c.d", "Bearer x", "eyJhbGciOiJIUzI1NiJ9.e30.\n"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        CHECK(!is_accepted(&setup, str_from_cstr(texts[i])));
    char *padding = arena_alloc(setup.arena, TOKEN_SIZE_MAX + 1);
    memset(padding, 'x', TOKEN_SIZE_MAX);
    struct str payload =
        arena_format(setup.arena, "{" LOGIN "," TIMES ",\"padding\":\"%s\"}", padding);
    CHECK(!accepts(&setup, HEADER, payload.data));
    tear_down(&setup);
}

TEST(a_short_secret_is_refused)
{
    struct token_authority *authority;
    struct error error;
    CHECK(token_authority_create(
              &(struct token_authority_options){.secret = STR("0123456789abcdef0123456789abcde")},
              &error, &authority) == STATUS_INVALID);
    CHECK(strstr(error.text, "abcde") == NULL);
}

TEST(api_keys_have_their_shape)
{
    char key[API_KEY_SIZE + 1];
    char other[API_KEY_SIZE + 1];
    api_key_generate(key);
    api_key_generate(other);
    CHECK(strlen(key) == API_KEY_SIZE && strcmp(key, other) != 0);
    CHECK(strncmp(key, "vtk_", 4) == 0 && key[12] == '_');
    struct str key_id = api_key_id(str_from_cstr(key));
    CHECK(key_id.len == API_KEY_ID_SIZE && api_key_id_is_valid(key_id));
    CHECK(api_key_id((struct str){key, API_KEY_SIZE - 1}).len == 0);
    key[5] = '_';
    CHECK(api_key_id(str_from_cstr(key)).len == 0);
    other[20] = ' ';
    CHECK(api_key_id(str_from_cstr(other)).len == 0);
    CHECK(!api_key_id_is_valid(STR("")) && !api_key_id_is_valid(STR("vtk_abc/efgh")));
}

TEST(a_sealed_key_opens_for_its_owner_only)
{
    struct setup setup = set_up();
    char text[API_KEY_SIZE + 1];
    api_key_generate(text);
    struct str key = str_from_cstr(text);
    struct str key_id = api_key_id(key);
    struct str sealed;
    struct str again;
    struct str opened = {0};
    CHECK(api_key_seal(setup.authority, key, STR("u1"), setup.arena, &sealed) == STATUS_OK);
    CHECK(api_key_seal(setup.authority, key, STR("u1"), setup.arena, &again) == STATUS_OK);
    CHECK(!str_equal(sealed, again) && !str_contains(sealed, key));
    CHECK(api_key_open(setup.authority, sealed, key_id, STR("u1"), setup.arena, &opened) ==
          STATUS_OK);
    CHECK(str_equal(opened, key));
    CHECK(api_key_open(setup.authority, sealed, key_id, STR("u2"), setup.arena, &opened) ==
          STATUS_UNAUTHENTICATED);
    CHECK(api_key_open(setup.authority, sealed, STR("vtk_abcdefgh"), STR("u1"), setup.arena,
                       &opened) == STATUS_UNAUTHENTICATED);
    CHECK(api_key_open(setup.authority, STR("AAAA"), key_id, STR("u1"), setup.arena, &opened) ==
          STATUS_UNAUTHENTICATED);
    CHECK(api_key_open(setup.authority, STR(""), key_id, STR("u1"), setup.arena, &opened) ==
          STATUS_UNAUTHENTICATED);
    char *changed = arena_cstr(setup.arena, sealed);
    changed[50] = changed[50] == 'A' ? 'B' : 'A';
    CHECK(api_key_open(setup.authority, str_from_cstr(changed), key_id, STR("u1"), setup.arena,
                       &opened) == STATUS_UNAUTHENTICATED);
    CHECK(api_key_seal(setup.authority, STR("vtk_x"), STR("u1"), setup.arena, &sealed) ==
          STATUS_INVALID);

    struct token_authority *other;
    CHECK(token_authority_create(
              &(struct token_authority_options){.secret = STR("another secret of 32 characters!!")},
              NULL, &other) == STATUS_OK);
    CHECK(api_key_open(other, sealed, key_id, STR("u1"), setup.arena, &opened) ==
          STATUS_UNAUTHENTICATED);
    token_authority_destroy(other);
    tear_down(&setup);
}

TEST_MAIN()
