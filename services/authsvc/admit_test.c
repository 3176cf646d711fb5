#include "authsvc/admit.h"

#include "authsvc/auth_testing.h"

// Who may call what: kinds of token, forged ones, the calls between services, limits per address.

struct fixture {
    struct auth_test test;
    struct auth_call call;
    const char *login;
    const char *sdk;
    char text[16384]; // the last answer over HTTP
};

static void start(struct fixture *fixture, const struct auth_setting *settings)
{
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    auth_open(&fixture->test);
    auth_start(&fixture->test, settings);
    fixture->call = auth_call_of(&fixture->test);
    auth_user(&fixture->call, "a@b.c");
    fixture->login = fixture->call.token;
    if (CHECK_OK(auth_create_key(&fixture->call, &(struct auth_key){.name = "k"}, &made)))
        fixture->sdk = made->sdk_jwt;
}

static void stop(struct fixture *fixture)
{
    arena_destroy(fixture->call.arena);
    auth_close(&fixture->test);
}

static const char *const account_methods[] = {
    "GetUserProfile", "UpdateUserProfile", "DeleteUser",   "ChangePassword", "RefreshToken",
    "CreateAPIKey",   "ListAPIKeys",       "DeleteAPIKey", "CreateSDKJWT",
};
enum { ACCOUNT_METHODS = sizeof(account_methods) / sizeof(account_methods[0]) };

// A call with an empty request.
static enum status ask_empty(struct auth_call *call, const ProtobufCServiceDescriptor *service,
                             const char *method)
{
    const ProtobufCMethodDescriptor *descriptor =
        protobuf_c_service_descriptor_get_method_by_name(service, method);
    const ProtobufCMessage *answer = NULL;
    ProtobufCMessage *request = arena_alloc(call->arena, descriptor->input->sizeof_message);
    protobuf_c_message_init(descriptor->input, request);
    return auth_ask_service(call, service, method, request, &answer);
}

static void check_refused(struct fixture *f, const char *token, enum status status,
                          const char *words)
{
    f->call.token = token;
    for (int i = 0; i < ACCOUNT_METHODS; i++) {
        CHECK_STATUS(
            ask_empty(&f->call, &vectron__auth__v1__auth_service__descriptor, account_methods[i]),
            status);
        CHECK_CONTAINS(str_from_cstr(f->call.error.text), str_from_cstr(words));
    }
}

TEST(nothing_without_the_right_token)
{
    struct fixture f;
    start(&f, NULL);
    check_refused(&f, NULL, STATUS_UNAUTHENTICATED, "missing authorization");
    check_refused(&f, "", STATUS_UNAUTHENTICATED, "invalid or expired token");
    check_refused(&f, "garbage", STATUS_UNAUTHENTICATED, "invalid or expired token");
    check_refused(&f, "e30.e30.e30", STATUS_UNAUTHENTICATED, "invalid or expired token");
    check_refused(&f, f.sdk, STATUS_FORBIDDEN, "login token");
    // None of it has changed or counted anything.
    f.call.token = f.login;
    CHECK_OK(auth_profile(&f.call, NULL));
    stop(&f);
}

TEST(forged_and_expired_tokens)
{
    struct fixture f;
    start(&f, NULL);
    struct token_authority *stranger = NULL;
    struct token token = {0};
    struct str jwt = {0};
    int64_t now = clock_unix_seconds();
    REQUIRE_OK(token_authority_create(
        &(struct token_authority_options){.secret = STR("another secret of 32 characters!")},
        &f.call.error, &stranger));
    REQUIRE_OK(token_verify(f.test.authority, str_from_cstr(f.login), f.call.arena, &f.call.error,
                            &token));
    token.jti = (struct str){0};
    REQUIRE_OK(token_sign(stranger, &token, f.call.arena, &f.call.error, &jwt));
    check_refused(&f, arena_cstr(f.call.arena, jwt), STATUS_UNAUTHENTICATED, "invalid or expired");
    struct token changed = token;
    changed.issued_at = now - 100;
    changed.expires_at = now - TOKEN_LEEWAY_SECONDS - 1;
    REQUIRE_OK(token_sign(f.test.authority, &changed, f.call.arena, &f.call.error, &jwt));
    check_refused(&f, arena_cstr(f.call.arena, jwt), STATUS_UNAUTHENTICATED, "invalid or expired");
    changed = token;
    changed.issued_at = now + 60;
    REQUIRE_OK(token_sign(f.test.authority, &changed, f.call.arena, &f.call.error, &jwt));
    check_refused(&f, arena_cstr(f.call.arena, jwt), STATUS_UNAUTHENTICATED, "invalid or expired");
    // Well made, but for somebody who is not there, and of a generation that is not.
    changed = token;
    changed.user_id = STR("00000000-0000-4000-8000-000000000000");
    REQUIRE_OK(token_sign(f.test.authority, &changed, f.call.arena, &f.call.error, &jwt));
    f.call.token = arena_cstr(f.call.arena, jwt);
    CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    changed = token;
    changed.generation = 1;
    REQUIRE_OK(token_sign(f.test.authority, &changed, f.call.arena, &f.call.error, &jwt));
    f.call.token = arena_cstr(f.call.arena, jwt);
    CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    token_authority_destroy(stranger);
    stop(&f);
}

// {"alg":"none"} and {"alg":"HS512"} in front of a token's own claims.
TEST(other_algorithms)
{
    struct fixture f;
    start(&f, NULL);
    const char *const headers[] = {"eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzUxMiJ9"};
    struct str rest = str_from_cstr(f.login);
    (void)str_cut(&rest, '.');
    struct str claims = str_cut(&rest, '.');
    for (int i = 0; i < 2; i++) {
        struct str with =
            arena_format(f.call.arena, "%s.%.*s.%.*s", headers[i], STR_ARG(claims), STR_ARG(rest));
        struct str without = arena_format(f.call.arena, "%s.%.*s.", headers[i], STR_ARG(claims));
        f.call.token = arena_cstr(f.call.arena, with);
        CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
        f.call.token = arena_cstr(f.call.arena, without);
        CHECK_STATUS(auth_profile(&f.call, NULL), STATUS_UNAUTHENTICATED);
    }
    stop(&f);
}

TEST(calls_between_services)
{
    struct fixture f;
    static const char *const internal[] = {"ValidateAPIKey", "GetAuthDetailsForSDK"};
    static const char *const identity[] = {"WatchIdentity", "LookupIdentity", "ReportKeyUse"};
    start(&f, NULL);
    // Without a cluster secret nobody can prove that he knows it.
    const char *const proofs[] = {NULL, "", "x", f.test.authsvc->secrets.identity_token};
    for (int i = 0; i < 4; i++) {
        f.call.internal = proofs[i];
        for (int j = 0; j < 2; j++)
            CHECK_STATUS(
                ask_empty(&f.call, &vectron__auth__v1__auth_service__descriptor, internal[j]),
                STATUS_FORBIDDEN);
    }
    f.call.internal = NULL;
    for (int i = 0; i < 3; i++) {
        f.call.identity = "";
        CHECK_STATUS(
            ask_empty(&f.call, &vectron__auth__v1__identity_service__descriptor, identity[i]),
            STATUS_FORBIDDEN);
        CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("only for the other services"));
        f.call.identity = "0000000000000000000000000000000000000000000000000000000000000000";
        CHECK_STATUS(
            ask_empty(&f.call, &vectron__auth__v1__identity_service__descriptor, identity[i]),
            STATUS_FORBIDDEN);
    }
    stop(&f);
}

TEST(limits_per_address)
{
    struct fixture f;
    start(&f, NULL);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__CreateSDKJWTResponse *again = NULL;
    f.call.address = "one";
    for (int i = 0; i < 5; i++)
        CHECK_STATUS(auth_login(&f.call, "x@b.c", "y"), STATUS_UNAUTHENTICATED);
    CHECK_STATUS(auth_login(&f.call, "x@b.c", "y"), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("Login: the limit of 5 calls"));
    for (int i = 0; i < 3; i++)
        CHECK_STATUS(auth_register(&f.call, "", ""), STATUS_INVALID);
    CHECK_STATUS(auth_register(&f.call, "", ""), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("limit of 3"));
    for (int i = 0; i < 10; i++)
        CHECK_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    CHECK_STATUS(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, NULL), STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(f.call.error.text), STR("limit of 10"));
    for (int i = 0; i < 10; i++)
        CHECK_OK(auth_create_token(&f.call, made->key_info->key_prefix, &again));
    CHECK_STATUS(auth_create_token(&f.call, made->key_info->key_prefix, &again), STATUS_EXHAUSTED);
    // What has no limit goes on, and so does everybody else.
    CHECK_OK(auth_profile(&f.call, NULL));
    f.call.address = "another";
    CHECK_OK(auth_login(&f.call, "a@b.c", AUTH_PASSWORD));
    // Who cannot prove that he is a gateway speaks for his own address only.
    f.call.identity = "";
    f.call.address = "a third";
    for (int i = 0; i < 5; i++)
        CHECK_STATUS(auth_login(&f.call, "x@b.c", "y"), STATUS_UNAUTHENTICATED);
    f.call.address = "a fourth";
    CHECK_STATUS(auth_login(&f.call, "x@b.c", "y"), STATUS_EXHAUSTED);
    stop(&f);
}

// --- The HTTP face

static int exchange(struct fixture *f, const char *verb, const char *path, const char *header,
                    const char *body)
{
    struct str request = arena_format(
        f->call.arena,
        "%s %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%scontent-length: %zu\r\n\r\n%s", verb,
        path, header, strlen(body), body);
    uint64_t code = 0;
    if (!CHECK(auth_exchange(&f->test, request, f->text, sizeof(f->text))) || strlen(f->text) < 12)
        return 0;
    return str_to_u64((struct str){f->text + 9, 3}, &code) ? (int)code : 0;
}

TEST(http)
{
    struct fixture f;
    start(&f, (struct auth_setting[]){{"http-port", "127.0.0.1:0"},
                                      {"trusted-proxies", "127.0.0.0/8"},
                                      {"cors-allowed-origins", "https://console.example"},
                                      {NULL, NULL}});
    struct str bearer = arena_format(f.call.arena, "authorization: Bearer %s\r\n", f.login);
    const char *login = arena_cstr(f.call.arena, bearer);
    CHECK_EQ_I64(exchange(&f, "GET", "/v1/user/profile", login, ""), 200);
    CHECK_CONTAINS(str_from_cstr(f.text), STR("\"email\":\"a@b.c\""));
    CHECK_EQ_I64(exchange(&f, "GET", "/v1/user/profile", "", ""), 401);
    CHECK_CONTAINS(str_from_cstr(f.text), STR("www-authenticate: Bearer"));
    CHECK_CONTAINS(str_from_cstr(f.text), STR("\"code\":16,\"message\":\"missing authorization\""));
    CHECK_EQ_I64(exchange(&f, "POST", "/v1/keys", login, "{\"name\":\"k\",\"role\":\"reader\"}"),
                 200);
    CHECK_CONTAINS(str_from_cstr(f.text), STR("\"lastUsedAt\":\"0\""));
    CHECK_CONTAINS(str_from_cstr(f.text), STR("\"sdkJwt\":\"ey"));
    CHECK_EQ_I64(exchange(&f, "POST", "/v1/keys", login, "{\"nome\":\"k\"}"), 400);
    CHECK_CONTAINS(str_from_cstr(f.text), STR("nome"));
    CHECK_EQ_I64(exchange(&f, "DELETE", "/v1/keys/vtk_00000000", login, ""), 404);
    CHECK_EQ_I64(exchange(&f, "PUT", "/v1/user/profile", login, "{\"plan\":\"PAID\"}"), 200);
    CHECK_CONTAINS(str_from_cstr(f.text), STR("\"jwtToken\":\"ey"));
    CHECK_EQ_I64(exchange(&f, "POST", "/v1/users/register", "",
                          "{\"email\":\"a@b.c\",\"password\":\"" AUTH_PASSWORD "\"}"),
                 409);
    CHECK_EQ_I64(exchange(&f, "GET", "/v1/users/login", "", ""), 405);
    CHECK_EQ_I64(exchange(&f, "GET", "/readyz", "", ""), 200);
    CHECK_EQ_I64(exchange(&f, "GET", "/openapi.json", "", ""), 200);
    CHECK_EQ_I64(exchange(&f, "OPTIONS", "/v1/keys", "origin: https://console.example\r\n", ""),
                 204);
    CHECK_CONTAINS(str_from_cstr(f.text),
                   STR("access-control-allow-origin: https://console.example"));
    stop(&f);
}

TEST(http_limits_count_with_those_of_grpc)
{
    struct fixture f;
    start(&f, (struct auth_setting[]){
                  {"http-port", "127.0.0.1:0"}, {"trusted-proxies", "127.0.0.0/8"}, {NULL, NULL}});
    const char *body = "{\"email\":\"x@b.c\",\"password\":\"y\"}";
    const char *header = "x-forwarded-for: 203.0.113.7, 10.1.1.1\r\n";
    f.call.address = "10.1.1.1";
    for (int i = 0; i < 3; i++)
        CHECK_EQ_I64(exchange(&f, "POST", "/v1/users/login", header, body), 401);
    for (int i = 0; i < 2; i++)
        CHECK_STATUS(auth_login(&f.call, "x@b.c", "y"), STATUS_UNAUTHENTICATED);
    CHECK_EQ_I64(exchange(&f, "POST", "/v1/users/login", header, body), 429);
    CHECK_CONTAINS(str_from_cstr(f.text), STR("retry-after: "));
    CHECK_CONTAINS(str_from_cstr(f.text), STR("\"code\":8"));
    header = "x-forwarded-for: 10.1.1.2\r\n";
    CHECK_EQ_I64(exchange(&f, "POST", "/v1/users/login", header, body), 401);
    stop(&f);
}

TEST_MAIN()
