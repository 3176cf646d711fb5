#include "authsvc/sdk_tokens.h"

#include "authsvc/keys.h"
#include "authsvc/records.h"
#include "base/clock.h"
#include "base/log.h"

enum status sdk_token_make(struct work *work, const user_record *user, const key_record *key,
                           char **out_jwt)
{
    struct str *collections =
        arena_alloc(work->arena, sizeof(*collections) * (key->n_collections + 1));
    struct str jwt = {0};
    for (size_t i = 0; i < key->n_collections; i++)
        collections[i] = str_from_cstr(key->collections[i]);
    TRY(token_sign(work->authsvc->authority,
                   &(struct token){
                       .kind = TOKEN_SDK,
                       .user_id = str_from_cstr(user->user_id),
                       .plan = record_plan(user),
                       .role = str_from_cstr(key->role),
                       .key_id = str_from_cstr(key->key_id),
                       .key_name = str_from_cstr(key->name),
                       .sealed_key = str_from_cstr(key->sealed_key),
                       .collections = collections,
                       .collection_count = (uint32_t)key->n_collections,
                       .issued_at = clock_unix_seconds(),
                       .expires_at = key->expires_at,
                   },
                   work->arena, &work->error, &jwt));
    *out_jwt = arena_cstr(work->arena, jwt);
    return STATUS_OK;
}

enum status sdk_tokens_create(struct work *work)
{
    const Vectron__Auth__V1__CreateSDKJWTRequest *request = (const void *)work->request;
    struct str sealed = {0};
    struct found_key found = {0};
    if (request->api_key_id[0] == '\0')
        return error_set(&work->error, STATUS_INVALID, "api_key_id: empty");
    TRY(work_load_user(work));
    if (api_key_id_is_valid(str_from_cstr(request->api_key_id)))
        work->audit_target = str_from_cstr(request->api_key_id);
    TRY(keys_find(work, request->api_key_id, &found));
    key_record *key = found.record;
    if (key_has_expired(key, clock_unix_seconds()))
        return error_set(&work->error, STATUS_PRECONDITION,
                         "API key %s has expired: make a new one", key->key_id);
    // Another secret than the one under which it was sealed: its tokens would open nothing.
    if (api_key_seal_again(work->authsvc->authority, str_from_cstr(key->sealed_key),
                           str_from_cstr(key->key_id), str_from_cstr(key->user_id), work->arena,
                           &sealed) != STATUS_OK)
        return error_set(&work->error, STATUS_PRECONDITION,
                         "API key %s was made under another secret: make a new one", key->key_id);
    key->sealed_key = arena_cstr(work->arena, sealed);
    Vectron__Auth__V1__CreateSDKJWTResponse *response =
        work_message(work, &vectron__auth__v1__create_sdkjwtresponse__descriptor);
    TRY(sdk_token_make(work, work->user, key, &response->sdk_jwt));
    log_info("SDK token made", LOG_CSTR("key", key->key_id), LOG_CSTR("user", key->user_id));
    work->response = &response->base;
    return STATUS_OK;
}
