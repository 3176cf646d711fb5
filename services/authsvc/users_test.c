#include "authsvc/users.h"

#include <pthread.h>

#include "authsvc/auth_testing.h"

// Accounts, through the whole service.

struct fixture {
    struct auth_test test;
    struct auth_call call;
};

static void start(struct fixture *fixture, const struct auth_setting *settings)
{
    auth_open(&fixture->test);
    auth_start(&fixture->test, settings);
    fixture->call = auth_call_of(&fixture->test);
}

static void stop(struct fixture *fixture)
{
    arena_destroy(fixture->call.arena);
    auth_close(&fixture->test);
}

TEST(register_login_profile)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__GetUserProfileResponse *profile = NULL;
    CHECK_OK(auth_register(&f.call, "  Person@Example.COM ", AUTH_PASSWORD));
    CHECK_STATUS(auth_register(&f.call, "person@example.com", AUTH_PASSWORD), STATUS_EXISTS);
    CHECK_CSTR(f.call.error.text, "an account for person@example.com already exists");
    CHECK_OK(auth_login(&f.call, "PERSON@example.com", AUTH_PASSWORD));
    REQUIRE_OK(auth_profile(&f.call, &profile));
    CHECK_CSTR(profile->user->email, "person@example.com");
    CHECK_EQ_U64(strlen(profile->user->id), 36);
    CHECK(profile->user->plan == VECTRON__AUTH__V1__PLAN__FREE);
    CHECK(profile->user->subscription_status == VECTRON__AUTH__V1__SUBSCRIPTION_STATUS__ACTIVE);
    CHECK(profile->user->created_at > clock_unix_seconds() - 60);
    stop(&f);
}

TEST(what_registration_refuses)
{
    struct fixture f;
    start(&f, NULL);
    const struct {
        const char *email;
        const char *password;
        const char *words;
    } wrong[] = {
        {"", AUTH_PASSWORD, "email: empty"},
        {"nobody", AUTH_PASSWORD, "email: "},
        {"a b@example.com", AUTH_PASSWORD, "email: "},
        {"a@b@c", AUTH_PASSWORD, "email: "},
        {"a@b.c", "", "password: 0 characters; it must have 8 to 128"},
        {"a@b.c", "Sh0rt", "password: 5 characters"},
        {"a@b.c", "lower1234", "password: 2 of the 4 classes"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_STATUS(auth_register(&f.call, wrong[i].email, wrong[i].password), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(f.call.error.text), str_from_cstr(wrong[i].words));
    }
    stop(&f);
}

TEST(a_wrong_login_says_nothing)
{
    struct fixture f;
    start(&f, NULL);
    CHECK_OK(auth_register(&f.call, "a@b.c", AUTH_PASSWORD));
    const char *const wrong[][2] = {{"a@b.c", "Wrong-horse-7"},
                                    {"x@b.c", AUTH_PASSWORD},
                                    {"a@b.c", "correct-horse-7"},
                                    {"no address", AUTH_PASSWORD},
                                    {"a@b.c", AUTH_PASSWORD " "}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_STATUS(auth_login(&f.call, wrong[i][0], wrong[i][1]), STATUS_UNAUTHENTICATED);
        CHECK_CSTR(f.call.error.text, "invalid email or password");
    }
    CHECK_STATUS(auth_login(&f.call, "", AUTH_PASSWORD), STATUS_INVALID);
    CHECK_STATUS(auth_login(&f.call, "a@b.c", ""), STATUS_INVALID);
    CHECK(f.call.token == NULL);
    stop(&f);
}

// The answers for a wrong password and for an unknown user take the same time: both hash.
TEST(an_unknown_user_takes_as_long)
{
    struct fixture f;
    enum { ROUNDS = 7 };
    uint64_t best[2] = {UINT64_MAX, UINT64_MAX};
    start(&f, NULL);
    CHECK_OK(auth_register(&f.call, "a@b.c", AUTH_PASSWORD));
    for (int i = 0; i < 2 * ROUNDS; i++) {
        uint64_t begin = clock_monotonic_ns();
        CHECK_STATUS(auth_login(&f.call, i % 2 == 0 ? "a@b.c" : "x@b.c", "Wrong-horse-7"),
                     STATUS_UNAUTHENTICATED);
        uint64_t took = clock_monotonic_ns() - begin;
        if (took < best[i % 2])
            best[i % 2] = took;
    }
    CHECK(best[1] * 2 > best[0] && best[0] * 2 > best[1]);
    stop(&f);
}

TEST(the_login_token_and_its_renewal)
{
    struct fixture f;
    start(&f, NULL);
    struct token token = {0};
    const Vectron__Auth__V1__GetUserProfileResponse *profile = NULL;
    const ProtobufCMessage *answer = NULL;
    Vectron__Auth__V1__RefreshTokenRequest request = VECTRON__AUTH__V1__REFRESH_TOKEN_REQUEST__INIT;
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_profile(&f.call, &profile));
    REQUIRE_OK(token_verify(f.test.authority, str_from_cstr(f.call.token), f.call.arena,
                            &f.call.error, &token));
    CHECK(token.kind == TOKEN_LOGIN && token.plan == PLAN_FREE);
    CHECK_STR(token.user_id, str_from_cstr(profile->user->id));
    CHECK_STR(token.role, STR("user"));
    CHECK_EQ_I64(token.expires_at - token.issued_at, 24 * 3600);
    REQUIRE_OK(auth_ask(&f.call, "RefreshToken", &request.base, &answer));
    const Vectron__Auth__V1__RefreshTokenResponse *fresh = AUTH_AS(RefreshTokenResponse, answer);
    CHECK(strcmp(fresh->jwt_token, f.call.token) != 0);
    CHECK(fresh->expires_at >= token.expires_at);
    f.call.token = fresh->jwt_token;
    CHECK_OK(auth_profile(&f.call, NULL));
    stop(&f);
}

TEST(plans)
{
    struct fixture f;
    start(&f, NULL);
    struct token token = {0};
    auth_user(&f.call, "a@b.c");
    CHECK_OK(auth_set_plan(&f.call, 2));
    REQUIRE_OK(token_verify(f.test.authority, str_from_cstr(f.call.token), f.call.arena,
                            &f.call.error, &token));
    CHECK(token.plan == PLAN_PAID);
    CHECK_OK(auth_set_plan(&f.call, 1));
    CHECK_STATUS(auth_set_plan(&f.call, 0), STATUS_INVALID);
    CHECK_CSTR(f.call.error.text, "plan: 0 is no plan; it must be 1 (FREE) or 2 (PAID)");
    CHECK_STATUS(auth_set_plan(&f.call, 3), STATUS_INVALID);
    CHECK_STATUS(auth_set_plan(&f.call, -1), STATUS_INVALID);
    stop(&f);
}

TEST(plans_that_only_admins_change)
{
    struct fixture f;
    start(&f, (struct auth_setting[]){{"plan-changes", "admin"},
                                      {"admin-email", "root@b.c"},
                                      {"admin-password", AUTH_PASSWORD},
                                      {NULL, NULL}});
    auth_user(&f.call, "a@b.c");
    CHECK_STATUS(auth_set_plan(&f.call, 2), STATUS_FORBIDDEN);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("admin"));
    CHECK_OK(auth_login(&f.call, "root@b.c", AUTH_PASSWORD));
    CHECK_OK(auth_set_plan(&f.call, 2));
    stop(&f);
}

TEST(a_new_password_ends_earlier_logins)
{
    struct fixture f;
    start(&f, NULL);
    auth_user(&f.call, "a@b.c");
    const char *earlier = f.call.token;
    CHECK_STATUS(auth_change_password(&f.call, "Wrong-horse-7", "Better-horse-8"),
                 STATUS_FORBIDDEN);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("old_password"));
    CHECK_STATUS(auth_change_password(&f.call, AUTH_PASSWORD, "short"), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("new_password"));
    CHECK_OK(auth_profile(&f.call, NULL));
    CHECK_OK(auth_login(&f.call, "a@b.c", AUTH_PASSWORD));
    CHECK_OK(auth_change_password(&f.call, AUTH_PASSWORD, "Better-horse-8"));
    CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    CHECK_CSTR(f.call.error.text, "invalid or expired token");
    f.call.token = earlier;
    CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    CHECK_STATUS(auth_login(&f.call, "a@b.c", AUTH_PASSWORD), STATUS_UNAUTHENTICATED);
    CHECK_OK(auth_login(&f.call, "a@b.c", "Better-horse-8"));
    CHECK_OK(auth_profile(&f.call, NULL));
    stop(&f);
}

TEST(a_deleted_user_is_gone)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    auth_user(&f.call, "a@b.c");
    CHECK_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    CHECK_STATUS(auth_delete_user(&f.call, "Wrong-horse-7"), STATUS_FORBIDDEN);
    CHECK_OK(auth_profile(&f.call, NULL));
    CHECK_OK(auth_delete_user(&f.call, AUTH_PASSWORD));
    CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    CHECK_STATUS(auth_list_keys(&f.call, &list), STATUS_UNAUTHENTICATED);
    CHECK_STATUS(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, NULL),
                 STATUS_UNAUTHENTICATED);
    CHECK_STATUS(auth_login(&f.call, "a@b.c", AUTH_PASSWORD), STATUS_UNAUTHENTICATED);
    // The address is free again, and whoever takes it has none of the old keys.
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, 0);
    stop(&f);
}

TEST(a_user_with_very_many_keys_can_go)
{
    struct fixture f;
    enum { KEYS = 600 }; // more than one batch of the store holds
    start(&f, NULL);
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    auth_user(&f.call, "a@b.c");
    CHECK_OK(auth_set_plan(&f.call, 2));
    for (int i = 0; i < KEYS; i++)
        CHECK_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, NULL));
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, KEYS);
    CHECK_OK(auth_delete_user(&f.call, AUTH_PASSWORD));
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, 0);
    stop(&f);
}

struct racer {
    struct auth_call call;
    enum status status;
};

static void *register_same(void *argument)
{
    struct racer *racer = argument;
    racer->status = auth_register(&racer->call, "same@b.c", AUTH_PASSWORD);
    return NULL;
}

TEST(one_of_many_registrations_wins)
{
    struct fixture f;
    enum { RACERS = 6 };
    struct racer racers[RACERS];
    pthread_t threads[RACERS];
    char addresses[RACERS][16];
    start(&f, NULL);
    for (int i = 0; i < RACERS; i++) {
        (void)snprintf(addresses[i], sizeof(addresses[i]), "racer-%d", i);
        racers[i].call = auth_call_of(&f.test);
        racers[i].call.address = addresses[i];
        REQUIRE(pthread_create(&threads[i], NULL, register_same, &racers[i]) == 0);
    }
    int won = 0;
    int lost = 0;
    for (int i = 0; i < RACERS; i++) {
        pthread_join(threads[i], NULL);
        won += racers[i].status == STATUS_OK;
        lost += racers[i].status == STATUS_EXISTS;
        arena_destroy(racers[i].call.arena);
    }
    CHECK_EQ_I64(won, 1);
    CHECK_EQ_I64(lost, RACERS - 1);
    CHECK_OK(auth_login(&f.call, "same@b.c", AUTH_PASSWORD));
    stop(&f);
}

TEST_MAIN()
