#include "authsvc/seals.h"

#include "authsvc/auth_testing.h"

// A secret is changed under accounts that are there: nobody is logged out, no key is lost.

#define NEW_SECRET "a new secret of 32 characters, at least"

struct fixture {
    struct auth_test test;
    struct auth_call call;
};

static void restart(struct fixture *f, const struct auth_setting *settings)
{
    auth_stop(&f->test);
    auth_start(&f->test, settings);
}

static void use_secret(struct fixture *f, const char *secret)
{
    token_authority_destroy(f->test.authority);
    CHECK_OK(
        token_authority_create(&(struct token_authority_options){.secret = str_from_cstr(secret)},
                               NULL, &f->test.authority));
}

// What a gateway with the new secret alone makes of the token.
static bool opens(struct fixture *f, const char *jwt)
{
    struct token token = {0};
    struct str key = {0};
    return token_verify(f->test.authority, str_from_cstr(jwt), f->call.arena, &f->call.error,
                        &token) == STATUS_OK &&
           api_key_open(f->test.authority, token.sealed_key, token.key_id, token.user_id,
                        f->call.arena, &key) == STATUS_OK;
}

TEST(the_secret_is_changed)
{
    struct fixture f = {0};
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    const struct auth_setting both[] = {
        {"jwt-secret", NEW_SECRET}, {"jwt-previous-secret", AUTH_SECRET}, {NULL, NULL}};
    const struct auth_setting alone[] = {{"jwt-secret", NEW_SECRET}, {NULL, NULL}};
    auth_open(&f.test);
    auth_start(&f.test, NULL);
    f.call = auth_call_of(&f.test);
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    char old_proof[65];
    memcpy(old_proof, f.test.authsvc->secrets.identity_token, sizeof(old_proof));
    use_secret(&f, NEW_SECRET);
    CHECK(!opens(&f, made->sdk_jwt));

    // The login token from before is good still, and so is the proof of a gateway from before.
    restart(&f, both);
    f.call.identity = old_proof;
    CHECK_OK(auth_profile(&f.call, NULL));
    REQUIRE_OK(auth_create_token(&f.call, made->key_info->key_prefix, &again));
    CHECK(opens(&f, again->sdk_jwt));

    // With the old secret gone, a token can be made for the key all the same.
    restart(&f, alone);
    f.call.identity = NULL;
    CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    REQUIRE_OK(auth_login(&f.call, "a@b.c", AUTH_PASSWORD));
    REQUIRE_OK(auth_create_token(&f.call, made->key_info->key_prefix, &again));
    CHECK(opens(&f, again->sdk_jwt));
    arena_destroy(f.call.arena);
    auth_close(&f.test);
}

TEST_MAIN()
