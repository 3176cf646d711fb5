#include "authsvc/authsvc.h"

#include <sys/stat.h>

#include "authsvc/auth_testing.h"

// Settings, start, restart and end of the service.

TEST(wrong_settings)
{
    const struct {
        struct auth_setting setting;
        const char *words;
    } wrong[] = {
        {{"jwt-secret", "short"}, "JWT_SECRET has 5 characters, 32"},
        {{"grpc-port", "nonsense"}, "grpc-port"},
        {{"http-port", "127.0.0.1:x"}, "http-port"},
        {{"inproc-addr", "127.0.0.1:1"}, "inproc-addr"},
        {{"trusted-proxies", "10.0.0.0/99"}, "TRUSTED_PROXIES"},
        {{"plan-changes", "nobody"}, "plan-changes"},
        {{"admin-email", "root"}, "VECTRON_ADMIN_EMAIL"},
        {{"admin-password", AUTH_PASSWORD}, "VECTRON_ADMIN_EMAIL"},
        {{"admin-password-file", "/nonexistent/file"}, "VECTRON_ADMIN_EMAIL"},
        {{"grpc-tls-cert-file", "/nonexistent/file"}, "grpc-tls-key-file"},
        {{"pd-addrs", "nonsense"}, "pd-addrs"},
        {{"data-dir", "/dev/null/x"}, "/dev/null/x"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct auth_test test;
        struct error error = {0};
        const struct auth_setting settings[] = {wrong[i].setting, {NULL, NULL}};
        auth_open(&test);
        CHECK(auth_try_start(&test, settings, &error) != STATUS_OK);
        CHECK_CONTAINS(str_from_cstr(error.text), str_from_cstr(wrong[i].words));
        auth_close(&test);
    }
}

TEST(wrong_passwords_of_the_admin)
{
    const struct auth_setting settings[][3] = {
        {{"admin-email", "root@b.c"}, {"admin-password", "weak"}, {NULL, NULL}},
        {{"admin-email", "root@b.c"}, {"admin-password-file", "/nonexistent"}, {NULL, NULL}},
    };
    for (int i = 0; i < 2; i++) {
        struct auth_test test;
        struct error error = {0};
        auth_open(&test);
        CHECK(auth_try_start(&test, settings[i], &error) != STATUS_OK);
        CHECK(!str_contains(str_from_cstr(error.text), STR("weak")));
        auth_close(&test);
    }
}

TEST(users_and_keys_are_there_after_a_restart)
{
    struct auth_test test;
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    auth_open(&test);
    auth_start(&test, NULL);
    struct auth_call call = auth_call_of(&test);
    auth_user(&call, "a@b.c");
    REQUIRE_OK(auth_create_key(&call, &(struct auth_key){.name = "kept"}, &made));
    CHECK_OK(auth_set_plan(&call, 2));
    auth_stop(&test);
    auth_start(&test, NULL);
    CHECK_OK(auth_profile(&call, NULL)); // tokens live on
    CHECK_OK(auth_login(&call, "a@b.c", AUTH_PASSWORD));
    REQUIRE_OK(auth_list_keys(&call, &list));
    REQUIRE(list->n_keys == 1);
    CHECK_CSTR(list->keys[0]->name, "kept");
    CHECK_OK(auth_create_token(&call, made->key_info->key_prefix, &again));
    arena_destroy(call.arena);
    auth_close(&test);
}

TEST(another_secret_makes_keys_useless_and_says_so)
{
    struct auth_test test;
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    auth_open(&test);
    auth_start(&test, NULL);
    struct auth_call call = auth_call_of(&test);
    auth_user(&call, "a@b.c");
    REQUIRE_OK(auth_create_key(&call, &(struct auth_key){.name = "k"}, &made));
    auth_stop(&test);
    auth_start(&test, (struct auth_setting[]){{"jwt-secret", "fedcba9876543210fedcba9876543210"},
                                              {NULL, NULL}});
    CHECK_STATUS(auth_profile(&call, NULL), STATUS_UNAUTHENTICATED);
    CHECK_OK(auth_login(&call, "a@b.c", AUTH_PASSWORD));
    CHECK_STATUS(auth_create_token(&call, made->key_info->key_prefix, &again), STATUS_PRECONDITION);
    CHECK_CONTAINS(str_from_cstr(call.error.text), STR("another secret"));
    arena_destroy(call.arena);
    auth_close(&test);
}

static bool is_admin(struct auth_call *call)
{
    struct token token = {0};
    CHECK_OK(token_verify(call->test->authority, str_from_cstr(call->token), call->arena,
                          &call->error, &token));
    return str_equal_cstr(token.role, "admin");
}

TEST(the_admin_of_the_settings)
{
    struct auth_test test;
    const struct auth_setting settings[] = {
        {"admin-email", " Root@B.C "}, {"admin-password", "Operators-horse-1"}, {NULL, NULL}};
    auth_open(&test);
    auth_start(&test, settings);
    struct auth_call call = auth_call_of(&test);
    CHECK_OK(auth_login(&call, "root@b.c", "Operators-horse-1"));
    CHECK(is_admin(&call));
    // A password that the admin chose himself stays.
    CHECK_OK(auth_change_password(&call, "Operators-horse-1", "Own-horse-2"));
    auth_stop(&test);
    auth_start(&test, settings);
    CHECK_OK(auth_login(&call, "root@b.c", "Own-horse-2"));
    CHECK(is_admin(&call));
    arena_destroy(call.arena);
    auth_close(&test);
}

TEST(who_was_faster_than_the_operator_is_no_admin)
{
    struct auth_test test;
    auth_open(&test);
    auth_start(&test, NULL);
    struct auth_call call = auth_call_of(&test);
    auth_user(&call, "root@b.c");
    CHECK(!is_admin(&call));
    auth_stop(&test);
    auth_start(&test, (struct auth_setting[]){{"admin-email", "root@b.c"},
                                              {"admin-password", "Operators-horse-1"},
                                              {NULL, NULL}});
    CHECK_STATUS(auth_profile(&call, NULL), STATUS_UNAUTHENTICATED);
    CHECK_STATUS(auth_login(&call, "root@b.c", AUTH_PASSWORD), STATUS_UNAUTHENTICATED);
    CHECK_OK(auth_login(&call, "root@b.c", "Operators-horse-1"));
    CHECK(is_admin(&call));
    arena_destroy(call.arena);
    auth_close(&test);
}

TEST(an_admin_without_a_password)
{
    struct auth_test test;
    const struct auth_setting settings[] = {{"admin-email", "root@b.c"}, {NULL, NULL}};
    auth_open(&test);
    auth_start(&test, settings); // there is no such account
    struct auth_call call = auth_call_of(&test);
    auth_user(&call, "root@b.c");
    CHECK(!is_admin(&call));
    auth_stop(&test);
    auth_start(&test, settings);
    CHECK_OK(auth_login(&call, "root@b.c", AUTH_PASSWORD));
    CHECK(is_admin(&call));
    arena_destroy(call.arena);
    auth_close(&test);
}

TEST(the_address_in_the_process)
{
    struct auth_test test;
    struct error error = {0};
    auth_open(&test);
    auth_start(&test, (struct auth_setting[]){{"inproc-addr", "inproc:second"}, {NULL, NULL}});
    struct auth_call call = auth_call_of(&test);
    auth_user(&call, "a@b.c");
    channel_destroy(test.channel);
    REQUIRE_OK(channel_create(test.net, &(struct channel_options){.address = STR("inproc:second")},
                              &error, &test.channel));
    CHECK_OK(auth_profile(&call, NULL));
    arena_destroy(call.arena);
    auth_close(&test);
}

TEST(the_files_are_private)
{
    struct auth_test test;
    struct stat info;
    char path[600];
    auth_open(&test);
    auth_start(&test, NULL);
    (void)snprintf(path, sizeof(path), "%s/accounts/auth.db", test.folder);
    REQUIRE(stat(path, &info) == 0);
    CHECK_EQ_U64(info.st_mode & 0777, 0600);
    auth_close(&test);
}

TEST_MAIN()
