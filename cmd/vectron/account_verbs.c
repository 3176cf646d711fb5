// Verbs of a person's account: they need a login token.
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "api/auth.pb-c.h"
#include "vectron/password.h"
#include "vectron/verb.h"

enum { TIME_SIZE = 24 };

static const struct setting login_settings[] = {PASSWORD_SETTING};

static enum status run_login(struct session *session)
{
    Vectron__Auth__V1__LoginRequest request = VECTRON__AUTH__V1__LOGIN_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    struct str password = {0};
    TRY(password_read(session, &password));
    request.email = session_word_cstr(session, 0);
    request.password = arena_cstr(session->arena, password);
    TRY(session_call_account(session, "Login", &request.base, &message));
    const Vectron__Auth__V1__LoginResponse *response = (const void *)message;
    TRY(session_save(session, "login-token", str_from_cstr(response->jwt_token)));
    if (session->is_json)
        session_print_json(message);
    else
        printf("logged in as %s; the token is kept for the next day\n", response->user->email);
    return STATUS_OK;
}

static const struct setting create_settings[] = {
    {"role", NULL, SETTING_STR, false, "owner", "reader, writer or owner"},
    {"collections", NULL, SETTING_STR, false, "", "comma list; the key sees only these"},
    {"expires-in-days", NULL, SETTING_U64, false, "90", "life of the key"},
    {"save", NULL, SETTING_BOOL, false, "false", "keep the token for the data verbs"},
};

static enum status run_keys_create(struct session *session)
{
    enum { COLLECTIONS_MAX = 256, SECONDS_PER_DAY = 86400 };
    Vectron__Auth__V1__CreateAPIKeyRequest request = VECTRON__AUTH__V1__CREATE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    char *collections[COLLECTIONS_MAX];
    struct str list = config_str(session->config, "collections");
    request.collections = collections;
    while (list.len > 0 && request.n_collections < COLLECTIONS_MAX)
        collections[request.n_collections++] =
            arena_cstr(session->arena, str_trim(str_cut(&list, ',')));
    if (list.len > 0)
        return error_set(&session->error, STATUS_INVALID, "--collections: at most %d names",
                         COLLECTIONS_MAX);
    request.name = session_word_cstr(session, 0);
    request.role = arena_cstr(session->arena, config_str(session->config, "role"));
    request.expires_in_seconds =
        (int64_t)(config_u64(session->config, "expires-in-days") * SECONDS_PER_DAY);
    TRY(session_call_account(session, "CreateAPIKey", &request.base, &message));
    const Vectron__Auth__V1__CreateAPIKeyResponse *response = (const void *)message;
    if (config_bool(session->config, "save"))
        TRY(session_save(session, "sdk-token", str_from_cstr(response->sdk_jwt)));
    if (session->is_json)
        session_print_json(message);
    else
        printf("%s\n", response->sdk_jwt);
    return STATUS_OK;
}

static void format_time(int64_t seconds, char out[static TIME_SIZE])
{
    time_t at = (time_t)seconds;
    struct tm parts;
    if (seconds == 0 || gmtime_r(&at, &parts) == NULL)
        (void)snprintf(out, TIME_SIZE, "never");
    else
        (void)strftime(out, TIME_SIZE, "%Y-%m-%d %H:%M", &parts);
}

static enum status run_keys_list(struct session *session)
{
    Vectron__Auth__V1__ListAPIKeysRequest request = VECTRON__AUTH__V1__LIST_APIKEYS_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    TRY(session_call_account(session, "ListAPIKeys", &request.base, &message));
    const Vectron__Auth__V1__ListAPIKeysResponse *response = (const void *)message;
    if (session->is_json) {
        session_print_json(message);
        return STATUS_OK;
    }
    printf("%-14s %-7s %-17s %-17s %-17s %s\n", "KEY", "ROLE", "CREATED", "LAST USED", "EXPIRES",
           "NAME");
    for (size_t i = 0; i < response->n_keys; i++) {
        const Vectron__Auth__V1__APIKey *key = response->keys[i];
        char created[TIME_SIZE];
        char used[TIME_SIZE];
        char expires[TIME_SIZE];
        format_time(key->created_at, created);
        format_time(key->last_used_at, used);
        format_time(key->expires_at, expires);
        printf("%-14s %-7s %-17s %-17s %-17s %s\n", key->key_prefix, key->role, created, used,
               expires, key->name);
    }
    return STATUS_OK;
}

static enum status run_keys_delete(struct session *session)
{
    Vectron__Auth__V1__DeleteAPIKeyRequest request = VECTRON__AUTH__V1__DELETE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.key_prefix = session_word_cstr(session, 0);
    TRY(session_call_account(session, "DeleteAPIKey", &request.base, &message));
    if (session->is_json)
        session_print_json(message);
    else
        printf("deleted %s\n", request.key_prefix);
    return STATUS_OK;
}

#define SETTINGS(list) list, sizeof(list) / sizeof((list)[0])

const struct verb account_verbs[] = {
    {"login", "EMAIL", "log in and keep the login token", SETTINGS(login_settings), 1, 1,
     run_login},
    {"keys create", "NAME", "make an API key, print its SDK token", SETTINGS(create_settings), 1, 1,
     run_keys_create},
    {"keys list", "", "the keys of the account", NULL, 0, 0, 0, run_keys_list},
    {"keys delete", "KEY", "delete a key; its tokens stop working", NULL, 0, 1, 1, run_keys_delete},
};
const uint32_t account_verb_count = sizeof(account_verbs) / sizeof(account_verbs[0]);
