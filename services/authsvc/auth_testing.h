#pragma once

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/client.h"
#include "authsvc/auth.h"
#include "authsvc/authsvc.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "server/process.h"
#include "testing/test.h"

// For the tests of the auth service: the whole service in this process, over the real router, and
// calls to it as a client, as the gateway or over plain HTTP. Accounts lie in a temporary folder.

#define AUTH_SECRET   "0123456789abcdef0123456789abcdef"
#define AUTH_PASSWORD "Correct-horse-7"

#define AUTH_AS(type, message) ((const Vectron__Auth__V1__##type *)(const void *)(message))

enum { AUTH_SETTINGS_MAX = 8, AUTH_DEADLINE_SECONDS = 30 };

struct auth_setting {
    const char *name;
    const char *value;
};

struct auth_test {
    struct net *net;
    struct config *config;
    struct authsvc *authsvc;
    struct channel *channel;
    struct token_authority *authority;
    char folder[512];
};

static inline enum status auth_configure(struct auth_test *test,
                                         const struct auth_setting *settings, struct error *error)
{
    static char program[] = "authsvc";
    char *const arguments[] = {program, NULL};
    char folder[640];
    TRY(config_create(authsvc_service.settings, authsvc_service.setting_count, 1, arguments, error,
                      &test->config));
    (void)snprintf(folder, sizeof(folder), "%s/accounts", test->folder);
    const struct auth_setting defaults[] = {
        {"grpc-port", "inproc:auth"},
        {"http-port", "inproc:auth-http"},
        {"jwt-secret", AUTH_SECRET},
        {"data-dir", folder},
    };
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
        TRY(config_set(test->config, defaults[i].name, str_from_cstr(defaults[i].value), error));
    for (size_t i = 0; settings != NULL && settings[i].name != NULL; i++)
        TRY(config_set(test->config, settings[i].name, str_from_cstr(settings[i].value), error));
    return STATUS_OK;
}

// settings end with an empty one; NULL: none. What the service says of them.
static inline enum status auth_try_start(struct auth_test *test,
                                         const struct auth_setting *settings, struct error *error)
{
    void *service = NULL;
    TRY(auth_configure(test, settings, error));
    ready_set_prefix(NULL); // no ready line here
    TRY(authsvc_service.start(test->net, test->config, error, &service));
    test->authsvc = service;
    return channel_create(
        test->net, &(struct channel_options){.address = str_from_cstr(test->authsvc->grpc_address)},
        error, &test->channel);
}

static inline void auth_open(struct auth_test *test)
{
    struct error error = {0};
    *test = (struct auth_test){0};
    (void)snprintf(test->folder, sizeof(test->folder), "%s", test_temporary_folder());
    CHECK_OK(net_create(&(struct net_options){.loop_count = 2}, &error, &test->net));
    CHECK_OK(token_authority_create(&(struct token_authority_options){.secret = STR(AUTH_SECRET)},
                                    &error, &test->authority));
}

static inline void auth_stop(struct auth_test *test)
{
    channel_destroy(test->channel);
    if (test->authsvc != NULL) {
        authsvc_service.drain(test->authsvc, NS_PER_SECOND);
        authsvc_service.stop(test->authsvc);
    }
    config_destroy(test->config);
    test->channel = NULL;
    test->authsvc = NULL;
    test->config = NULL;
}

static inline void auth_close(struct auth_test *test)
{
    auth_stop(test);
    net_destroy(test->net);
    token_authority_destroy(test->authority);
}

static inline void auth_start(struct auth_test *test, const struct auth_setting *settings)
{
    struct error error = {0};
    if (!CHECK_OK(auth_try_start(test, settings, &error)))
        (void)fprintf(stderr, "authsvc: %s\n", error.text);
}

// --- Calls. An answer is written in any case, NULL when there is none.

struct auth_call {
    struct auth_test *test;
    struct arena *arena;  // answers lie there
    const char *token;    // NULL: none
    const char *address;  // of the client; NULL: a new one each time
    const char *identity; // NULL: the right proof of a gateway
    const char *internal; // NULL: no proof of the cluster secret
    struct error error;
};

static inline struct auth_call auth_call_of(struct auth_test *test)
{
    return (struct auth_call){.test = test, .arena = arena_create(256 << 20)};
}

static inline enum status auth_ask_service(struct auth_call *call,
                                           const ProtobufCServiceDescriptor *service,
                                           const char *method, const ProtobufCMessage *message,
                                           const ProtobufCMessage **out_answer)
{
    static unsigned address_count;
    struct metadata metadata[4];
    uint32_t count = 0;
    struct str address = call->address != NULL
                             ? str_from_cstr(call->address)
                             : arena_format(call->arena, "client-%u", address_count++);
    const char *identity =
        call->identity != NULL ? call->identity : call->test->authsvc->secrets.identity_token;
    metadata[count++] = (struct metadata){STR("vectron-client-address"), address};
    metadata[count++] = (struct metadata){STR("vectron-identity"), str_from_cstr(identity)};
    if (call->token != NULL)
        metadata[count++] = (struct metadata){STR("authorization"),
                                              arena_format(call->arena, "Bearer %s", call->token)};
    if (call->internal != NULL)
        metadata[count++] =
            (struct metadata){STR("vectron-internal"), str_from_cstr(call->internal)};
    call->error.text[0] = '\0';
    return client_call_wait(
        &(struct client_request){
            .channel = call->test->channel,
            .service = service,
            .method = method,
            .message = message,
            .deadline_ns = clock_monotonic_ns() + AUTH_DEADLINE_SECONDS * NS_PER_SECOND,
            .metadata = metadata,
            .metadata_count = count,
        },
        call->arena, &call->error, out_answer);
}

static inline enum status auth_ask(struct auth_call *call, const char *method,
                                   const ProtobufCMessage *message,
                                   const ProtobufCMessage **out_answer)
{
    return auth_ask_service(call, &vectron__auth__v1__auth_service__descriptor, method, message,
                            out_answer);
}

static inline char *auth_text(struct auth_call *call, const char *text)
{
    return arena_cstr(call->arena, str_from_cstr(text));
}

static inline enum status auth_register(struct auth_call *call, const char *email,
                                        const char *password)
{
    Vectron__Auth__V1__RegisterUserRequest request = VECTRON__AUTH__V1__REGISTER_USER_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.email = auth_text(call, email);
    request.password = auth_text(call, password);
    return auth_ask(call, "RegisterUser", &request.base, &answer);
}

// The login token becomes the call's.
static inline enum status auth_login(struct auth_call *call, const char *email,
                                     const char *password)
{
    Vectron__Auth__V1__LoginRequest request = VECTRON__AUTH__V1__LOGIN_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.email = auth_text(call, email);
    request.password = auth_text(call, password);
    TRY(auth_ask(call, "Login", &request.base, &answer));
    call->token = AUTH_AS(LoginResponse, answer)->jwt_token;
    return STATUS_OK;
}

// A new user, logged in.
static inline void auth_user(struct auth_call *call, const char *email)
{
    CHECK_OK(auth_register(call, email, AUTH_PASSWORD));
    CHECK_OK(auth_login(call, email, AUTH_PASSWORD));
}

static inline enum status
auth_profile(struct auth_call *call, const Vectron__Auth__V1__GetUserProfileResponse **out_response)
{
    Vectron__Auth__V1__GetUserProfileRequest request =
        VECTRON__AUTH__V1__GET_USER_PROFILE_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    enum status status = auth_ask(call, "GetUserProfile", &request.base, &answer);
    if (out_response != NULL)
        *out_response = AUTH_AS(GetUserProfileResponse, answer);
    return status;
}

static inline enum status auth_set_plan(struct auth_call *call, int plan)
{
    Vectron__Auth__V1__UpdateUserProfileRequest request =
        VECTRON__AUTH__V1__UPDATE_USER_PROFILE_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.plan = (Vectron__Auth__V1__Plan)plan;
    TRY(auth_ask(call, "UpdateUserProfile", &request.base, &answer));
    call->token = AUTH_AS(UpdateUserProfileResponse, answer)->jwt_token;
    CHECK(AUTH_AS(UpdateUserProfileResponse, answer)->user->plan == (Vectron__Auth__V1__Plan)plan);
    return STATUS_OK;
}

static inline enum status auth_change_password(struct auth_call *call, const char *from,
                                               const char *to)
{
    Vectron__Auth__V1__ChangePasswordRequest request =
        VECTRON__AUTH__V1__CHANGE_PASSWORD_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.old_password = auth_text(call, from);
    request.new_password = auth_text(call, to);
    TRY(auth_ask(call, "ChangePassword", &request.base, &answer));
    CHECK(AUTH_AS(ChangePasswordResponse, answer)->success);
    return STATUS_OK;
}

static inline enum status auth_delete_user(struct auth_call *call, const char *password)
{
    Vectron__Auth__V1__DeleteUserRequest request = VECTRON__AUTH__V1__DELETE_USER_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.password = auth_text(call, password);
    TRY(auth_ask(call, "DeleteUser", &request.base, &answer));
    CHECK(AUTH_AS(DeleteUserResponse, answer)->success);
    return STATUS_OK;
}

struct auth_key {
    const char *name;
    const char *role;
    const char *collection; // NULL: not bound
    int64_t seconds;
};

static inline enum status auth_create_key(struct auth_call *call, const struct auth_key *key,
                                          const Vectron__Auth__V1__CreateAPIKeyResponse **out_made)
{
    Vectron__Auth__V1__CreateAPIKeyRequest request = VECTRON__AUTH__V1__CREATE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    char *collections[1];
    request.name = auth_text(call, key->name != NULL ? key->name : "");
    request.role = auth_text(call, key->role != NULL ? key->role : "");
    request.expires_in_seconds = key->seconds;
    if (key->collection != NULL) {
        collections[0] = auth_text(call, key->collection);
        request.collections = collections;
        request.n_collections = 1;
    }
    enum status status = auth_ask(call, "CreateAPIKey", &request.base, &answer);
    if (out_made != NULL)
        *out_made = AUTH_AS(CreateAPIKeyResponse, answer);
    return status;
}

static inline enum status auth_list_keys(struct auth_call *call,
                                         const Vectron__Auth__V1__ListAPIKeysResponse **out_list)
{
    Vectron__Auth__V1__ListAPIKeysRequest request = VECTRON__AUTH__V1__LIST_APIKEYS_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    enum status status = auth_ask(call, "ListAPIKeys", &request.base, &answer);
    *out_list = AUTH_AS(ListAPIKeysResponse, answer);
    return status;
}

static inline enum status auth_delete_key(struct auth_call *call, const char *key_id)
{
    Vectron__Auth__V1__DeleteAPIKeyRequest request = VECTRON__AUTH__V1__DELETE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.key_prefix = auth_text(call, key_id);
    TRY(auth_ask(call, "DeleteAPIKey", &request.base, &answer));
    CHECK(AUTH_AS(DeleteAPIKeyResponse, answer)->success);
    return STATUS_OK;
}

static inline enum status
auth_create_token(struct auth_call *call, const char *key_id,
                  const Vectron__Auth__V1__CreateSDKJWTResponse **out_response)
{
    Vectron__Auth__V1__CreateSDKJWTRequest request = VECTRON__AUTH__V1__CREATE_SDKJWTREQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.api_key_id = auth_text(call, key_id);
    enum status status = auth_ask(call, "CreateSDKJWT", &request.base, &answer);
    *out_response = AUTH_AS(CreateSDKJWTResponse, answer);
    return status;
}

// --- Plain HTTP: a request, and all that comes back until the server closes.

static inline bool auth_exchange(const struct auth_test *test, struct str request, char *out,
                                 size_t size)
{
    const char *colon = strrchr(test->authsvc->http_address, ':');
    uint64_t port = 0;
    size_t len = 0;
    if (colon == NULL || !str_to_u64(str_from_cstr(colon + 1), &port))
        return false;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_fine = fd >= 0 &&
                   connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                   send(fd, request.data, request.len, MSG_NOSIGNAL) == (ssize_t)request.len;
    while (is_fine && len < size - 1) {
        ssize_t got = read(fd, out + len, size - 1 - len);
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    out[len] = '\0';
    if (fd >= 0)
        (void)close(fd);
    return is_fine;
}
