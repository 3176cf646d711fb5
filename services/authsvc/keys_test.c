#include "authsvc/keys.h"

#include <pthread.h>

#include "authsvc/auth_testing.h"

// API keys and the SDK tokens made from them, through the whole service.

struct fixture {
    struct auth_test test;
    struct auth_call call;
};

static void start(struct fixture *fixture, const struct auth_setting *settings)
{
    auth_open(&fixture->test);
    auth_start(&fixture->test, settings);
    fixture->call = auth_call_of(&fixture->test);
    auth_user(&fixture->call, "a@b.c");
}

static void stop(struct fixture *fixture)
{
    arena_destroy(fixture->call.arena);
    auth_close(&fixture->test);
}

static struct token verify(struct fixture *f, const char *jwt)
{
    struct token token = {0};
    CHECK_OK(
        token_verify(f->test.authority, str_from_cstr(jwt), f->call.arena, &f->call.error, &token));
    return token;
}

// What a gateway does with a token: the key inside is the one whose hash it has.
static struct str open_key(struct fixture *f, const char *jwt)
{
    struct token token = verify(f, jwt);
    struct str key = {0};
    CHECK_OK(api_key_open(f->test.authority, token.sealed_key, token.key_id, token.user_id,
                          f->call.arena, &key));
    return key;
}

TEST(a_key_and_its_token)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__GetUserProfileResponse *profile = NULL;
    REQUIRE_OK(auth_profile(&f.call, &profile));
    REQUIRE_OK(auth_create_key(
        &f.call,
        &(struct auth_key){
            .name = "my key", .role = "writer", .collection = "only", .seconds = 3600},
        &made));
    const Vectron__Auth__V1__APIKey *info = made->key_info;
    CHECK(api_key_id_is_valid(str_from_cstr(info->key_prefix)));
    CHECK_CSTR(info->user_id, profile->user->id);
    CHECK_CSTR(info->name, "my key");
    CHECK_CSTR(info->role, "writer");
    CHECK(info->n_collections == 1 && strcmp(info->collections[0], "only") == 0);
    CHECK_EQ_I64(info->expires_at - info->created_at, 3600);
    CHECK_EQ_I64(info->last_used_at, 0);
    struct token token = verify(&f, made->sdk_jwt);
    CHECK(token.kind == TOKEN_SDK && token.plan == PLAN_FREE);
    CHECK_STR(token.user_id, str_from_cstr(profile->user->id));
    CHECK_STR(token.key_id, str_from_cstr(info->key_prefix));
    CHECK_STR(token.key_name, STR("my key"));
    CHECK_STR(token.role, STR("writer"));
    CHECK(token.collection_count == 1 && str_equal_cstr(token.collections[0], "only"));
    CHECK_EQ_I64(token.expires_at, info->expires_at);
    CHECK(str_starts_with(open_key(&f, made->sdk_jwt), token.key_id));
    stop(&f);
}

TEST(no_answer_holds_the_raw_key)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    uint8_t bytes[4096];
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    struct str raw_key = open_key(&f, made->sdk_jwt);
    size_t size = protobuf_c_message_get_packed_size(&made->base);
    REQUIRE(size < sizeof(bytes));
    (void)protobuf_c_message_pack(&made->base, bytes);
    CHECK(!str_contains((struct str){(const char *)bytes, size}, raw_key));
    CHECK(!str_contains((struct str){(const char *)bytes, size},
                        arena_format(f.call.arena, "%s_", made->key_info->key_prefix)));
    stop(&f);
}

TEST(what_is_refused_of_a_new_key)
{
    struct fixture f;
    start(&f, NULL);
    char name[130];
    memset(name, 'n', sizeof(name));
    name[129] = '\0';
    const struct {
        struct auth_key key;
        const char *word;
    } wrong[] = {
        {{.name = name}, "name"},
        {{.name = "k", .role = "admin"}, "role"},
        {{.name = "k", .seconds = -1}, "expires_in_seconds"},
        {{.name = "k", .seconds = INT64_MAX}, "expires_in_seconds"},
        {{.name = "k", .collection = "a/b"}, "collections[0]"},
        {{.name = "k", .collection = ""}, "collections[0]"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_STATUS(auth_create_key(&f.call, &wrong[i].key, NULL), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(f.call.error.text), str_from_cstr(wrong[i].word));
    }
    // More names than a token has room for.
    Vectron__Auth__V1__CreateAPIKeyRequest request = VECTRON__AUTH__V1__CREATE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    char *names[100];
    for (int i = 0; i < 100; i++)
        names[i] = arena_cstr(f.call.arena, arena_format(f.call.arena, "%0128d", i));
    request.collections = names;
    request.n_collections = 100;
    CHECK_STATUS(auth_ask(&f.call, "CreateAPIKey", &request.base, &answer), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("collections"));
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, 0);
    stop(&f);
}

TEST(list_and_delete)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made[3];
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    struct auth_call other = auth_call_of(&f.test);
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    for (int i = 0; i < 3; i++)
        REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made[i]));
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, 3);
    // Another user sees, deletes and uses none of them.
    auth_user(&other, "other@b.c");
    REQUIRE_OK(auth_list_keys(&other, &list));
    CHECK_EQ_U64(list->n_keys, 0);
    const char *key_id = made[1]->key_info->key_prefix;
    CHECK_STATUS(auth_delete_key(&other, key_id), STATUS_NOT_FOUND);
    CHECK_STATUS(auth_create_token(&other, key_id, &again), STATUS_NOT_FOUND);
    CHECK_CONTAINS(str_from_cstr(other.error.text), STR("not found"));
    CHECK_OK(auth_delete_key(&f.call, key_id));
    CHECK_STATUS(auth_delete_key(&f.call, key_id), STATUS_NOT_FOUND);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), str_from_cstr(key_id));
    CHECK_STATUS(auth_create_token(&f.call, key_id, &again), STATUS_NOT_FOUND);
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    REQUIRE(list->n_keys == 2);
    for (size_t i = 0; i < 2; i++)
        CHECK(strcmp(list->keys[i]->key_prefix, key_id) != 0);
    CHECK_STATUS(auth_delete_key(&f.call, ""), STATUS_INVALID);
    CHECK_STATUS(auth_delete_key(&f.call, "nonsense"), STATUS_NOT_FOUND);
    CHECK_STATUS(auth_create_token(&f.call, "", &again), STATUS_INVALID);
    arena_destroy(other.arena);
    stop(&f);
}

TEST(another_token_for_a_key)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k", .role = "reader"}, &made));
    CHECK_OK(auth_set_plan(&f.call, 2));
    REQUIRE_OK(auth_create_token(&f.call, made->key_info->key_prefix, &again));
    CHECK(strcmp(again->sdk_jwt, made->sdk_jwt) != 0);
    struct token token = verify(&f, again->sdk_jwt);
    CHECK(token.plan == PLAN_PAID);
    CHECK_STR(token.role, STR("reader"));
    CHECK_EQ_I64(token.expires_at, made->key_info->expires_at);
    CHECK_STR(open_key(&f, again->sdk_jwt), open_key(&f, made->sdk_jwt));
    stop(&f);
}

TEST(the_limit_of_a_plan)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const struct auth_key key = {.name = "k"};
    for (int i = 0; i < 20; i++)
        REQUIRE_OK(auth_create_key(&f.call, &key, &made));
    CHECK_STATUS(auth_create_key(&f.call, &key, NULL), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("20 API keys"));
    CHECK_OK(auth_delete_key(&f.call, made->key_info->key_prefix));
    CHECK_OK(auth_create_key(&f.call, &key, NULL));
    CHECK_STATUS(auth_create_key(&f.call, &key, NULL), STATUS_EXHAUSTED);
    CHECK_OK(auth_set_plan(&f.call, 2));
    CHECK_OK(auth_create_key(&f.call, &key, NULL));
    stop(&f);
}

struct maker {
    struct auth_call call;
    char address[16];
    uint32_t made;
};

static void *make_keys(void *argument)
{
    struct maker *maker = argument;
    for (int i = 0; i < 10; i++)
        maker->made +=
            auth_create_key(&maker->call, &(struct auth_key){.name = "k"}, NULL) == STATUS_OK;
    return NULL;
}

TEST(the_limit_holds_against_many_at_once)
{
    struct fixture f;
    enum { THREADS = 4 };
    struct maker makers[THREADS];
    pthread_t threads[THREADS];
    uint32_t made = 0;
    start(&f, NULL);
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    for (int i = 0; i < THREADS; i++) {
        makers[i] = (struct maker){.call = auth_call_of(&f.test)};
        (void)snprintf(makers[i].address, sizeof(makers[i].address), "many-%d", i);
        makers[i].call.token = f.call.token;
        makers[i].call.address = makers[i].address;
        REQUIRE(pthread_create(&threads[i], NULL, make_keys, &makers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        made += makers[i].made;
        arena_destroy(makers[i].call.arena);
    }
    CHECK_EQ_U64(made, 20);
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, 20);
    stop(&f);
}

TEST(an_expired_key)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    enum status status = STATUS_OK;
    uint64_t end_ns = clock_monotonic_ns() + 10 * NS_PER_SECOND;
    CHECK_STATUS(auth_create_key(&f.call, &(struct auth_key){.name = "k", .seconds = 1}, &made),
                 STATUS_OK);
    for (int i = 0; i < 19; i++)
        CHECK_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, NULL));
    while (status == STATUS_OK && clock_monotonic_ns() < end_ns)
        status = auth_create_token(&f.call, made->key_info->key_prefix, &again);
    CHECK_STATUS(status, STATUS_PRECONDITION);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("has expired"));
    // It does not count any more.
    CHECK_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, NULL));
    CHECK_OK(auth_delete_key(&f.call, made->key_info->key_prefix));
    stop(&f);
}

// Expired keys do not count, so there could be any number of them: the oldest go.
TEST(expired_keys_do_not_pile_up)
{
    struct fixture f;
    enum { KEYS = 130, KEPT = 100 };
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    CHECK_OK(auth_set_plan(&f.call, 2));
    for (int i = 0; i < KEYS; i++)
        REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k", .seconds = 1}, &made));
    int64_t all_expired = made->key_info->expires_at;
    while (clock_unix_seconds() < all_expired)
        CHECK_OK(auth_profile(&f.call, NULL));
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    size_t before = list->n_keys; // those that expired while the others were made may have gone
    CHECK(before > KEPT);
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "fresh"}, &made));
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK_EQ_U64(list->n_keys, KEPT + 1);
    bool is_there = false;
    for (size_t i = 0; i < list->n_keys; i++)
        is_there |= strcmp(list->keys[i]->key_prefix, made->key_info->key_prefix) == 0;
    CHECK(is_there);
    stop(&f);
}

static const Vectron__Auth__V1__ValidateAPIKeyResponse *validate(struct auth_call *call,
                                                                 struct str raw_key)
{
    Vectron__Auth__V1__ValidateAPIKeyRequest request =
        VECTRON__AUTH__V1__VALIDATE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.full_key = arena_cstr(call->arena, raw_key);
    return CHECK_OK(auth_ask(call, "ValidateAPIKey", &request.base, &answer))
               ? AUTH_AS(ValidateAPIKeyResponse, answer)
               : NULL;
}

TEST(what_other_services_ask_about_a_key)
{
    struct fixture f;
    start(&f, (struct auth_setting[]){{"cluster-secret", "between us"}, {NULL, NULL}});
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const ProtobufCMessage *answer = NULL;
    Vectron__Auth__V1__GetAuthDetailsForSDKRequest request =
        VECTRON__AUTH__V1__GET_AUTH_DETAILS_FOR_SDKREQUEST__INIT;
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    f.call.internal = f.test.authsvc->secrets.internal_token;
    struct str raw_key = open_key(&f, made->sdk_jwt);
    const Vectron__Auth__V1__ValidateAPIKeyResponse *said = validate(&f.call, raw_key);
    REQUIRE(said != NULL && said->valid);
    CHECK_CSTR(said->user_id, made->key_info->user_id);
    CHECK_CSTR(said->plan, "FREE");
    CHECK_CSTR(said->api_key_id, made->key_info->key_prefix);
    char *wrong = arena_cstr(f.call.arena, raw_key);
    wrong[30] = wrong[30] == 'a' ? 'b' : 'a';
    said = validate(&f.call, str_from_cstr(wrong));
    REQUIRE(said != NULL);
    CHECK(!said->valid && said->user_id[0] == '\0');
    said = validate(&f.call, STR("nonsense"));
    CHECK(said != NULL && !said->valid);

    request.api_key_id = made->key_info->key_prefix;
    REQUIRE_OK(auth_ask(&f.call, "GetAuthDetailsForSDK", &request.base, &answer));
    CHECK(AUTH_AS(GetAuthDetailsForSDKResponse, answer)->success);
    CHECK_CSTR(AUTH_AS(GetAuthDetailsForSDKResponse, answer)->user_id, made->key_info->user_id);
    CHECK_OK(auth_delete_key(&f.call, made->key_info->key_prefix));
    REQUIRE_OK(auth_ask(&f.call, "GetAuthDetailsForSDK", &request.base, &answer));
    CHECK(!AUTH_AS(GetAuthDetailsForSDKResponse, answer)->success);
    said = validate(&f.call, raw_key);
    CHECK(said != NULL && !said->valid);
    stop(&f);
}

TEST_MAIN()
