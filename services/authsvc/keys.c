#include "authsvc/keys.h"

#include <stdlib.h>
#include <string.h>

#include "authsvc/key_request.h"
#include "authsvc/records.h"
#include "authsvc/sdk_tokens.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    KEYS_MAX_FREE = 20,
    KEYS_MAX_PAID = 1000,
    EXPIRED_KEPT_MAX = 100, // more of them go when a key is made, the oldest first
    EXPIRED_REMOVED_MAX = 50,
};

enum status keys_find(struct work *work, const char *key_id, struct found_key *out_key)
{
    struct str id = str_from_cstr(key_id);
    enum status status = STATUS_NOT_FOUND;
    if (api_key_id_is_valid(id))
        status = accounts_get_key(work->authsvc->accounts, work->token->user_id, id, work->arena,
                                  &work->error, out_key);
    if (status == STATUS_NOT_FOUND)
        return error_set(&work->error, status, "API key \"%.32s\" not found", key_id);
    return status;
}

enum status keys_remove(struct work *work, struct batch *batch, const struct found_key *key)
{
    struct str key_id = str_from_cstr(key->record->key_id);
    struct str owner = {0};
    uint64_t owner_version = 0;
    enum status status = accounts_find_key_owner(work->authsvc->accounts, key_id, work->arena,
                                                 &work->error, &owner, &owner_version);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    batch_remove_key(batch, key_id, key->version, owner_version);
    return STATUS_OK;
}

// --- CreateAPIKey

static int compare_expiry(const void *a, const void *b)
{
    const key_record *const *x = a;
    const key_record *const *y = b;
    return ((*x)->expires_at > (*y)->expires_at) - ((*x)->expires_at < (*y)->expires_at);
}

// Expired keys do not count, but they must not pile up either.
static enum status remove_old_keys(struct work *work, struct batch *batch, key_record **expired,
                                   uint32_t expired_count)
{
    uint32_t surplus = expired_count > EXPIRED_KEPT_MAX ? expired_count - EXPIRED_KEPT_MAX : 0;
    if (surplus == 0)
        return STATUS_OK;
    qsort(expired, expired_count, sizeof(key_record *), compare_expiry);
    for (uint32_t i = 0; i < surplus && i < EXPIRED_REMOVED_MAX; i++) {
        struct found_key key = {0};
        enum status status = keys_find(work, expired[i]->key_id, &key);
        if (status == STATUS_OK)
            status = keys_remove(work, batch, &key);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND)
            return status;
    }
    return STATUS_OK;
}

static enum status put_new_key(struct work *work, void *context)
{
    const key_record *key = context;
    struct accounts *accounts = work->authsvc->accounts;
    struct key_list list = {0};
    struct batch batch;
    uint32_t expired_count = 0;
    TRY(work_load_user(work));
    struct str user_id = str_from_cstr(work->user->user_id);
    TRY(accounts_list_keys(accounts, user_id, work->arena, &work->error, &list));
    key_record **expired =
        arena_alloc(work->arena, sizeof(key_record *) * ((size_t)list.count + 1));
    for (uint32_t i = 0; i < list.count; i++) {
        if (key_has_expired(list.keys[i], key->created_at))
            expired[expired_count++] = list.keys[i];
    }
    uint32_t limit = record_plan(work->user) == PLAN_PAID ? KEYS_MAX_PAID : KEYS_MAX_FREE;
    if (list.count - expired_count >= limit)
        return error_set(&work->error, STATUS_EXHAUSTED,
                         "the plan %s has room for %u API keys: come back when one is deleted or "
                         "has expired",
                         plan_name(record_plan(work->user)), limit);
    batch_init(&batch, work->arena, user_id);
    // His own record too, so that this loses against his end and against another key of his.
    batch_put_user(&batch, work->user, work->user_version);
    batch_put_key(&batch, key);
    TRY(remove_old_keys(work, &batch, expired, expired_count));
    return accounts_commit(accounts, &batch, &work->error);
}

// The raw key lives here for a moment and nowhere else, except sealed.
static enum status make_secret(struct work *work, key_record *key)
{
    char raw_key[API_KEY_SIZE + 1];
    struct str sealed = {0};
    api_key_generate(raw_key);
    struct str text = str_from_cstr(raw_key);
    key->key_id = arena_cstr(work->arena, api_key_id(text));
    key->key_hash.len = API_KEY_HASH_SIZE;
    key->key_hash.data = arena_alloc(work->arena, API_KEY_HASH_SIZE);
    api_key_hash(text, key->key_hash.data);
    enum status status = api_key_seal(work->authsvc->authority, text, str_from_cstr(key->user_id),
                                      work->arena, &sealed);
    explicit_bzero(raw_key, sizeof(raw_key));
    if (status != STATUS_OK)
        return error_set(&work->error, STATUS_BUG, "an API key cannot be sealed");
    key->sealed_key = arena_cstr(work->arena, sealed);
    return STATUS_OK;
}

enum status keys_create(struct work *work)
{
    const Vectron__Auth__V1__CreateAPIKeyRequest *request = (const void *)work->request;
    key_record key;
    TRY(key_request_check(request, clock_unix_seconds(), work->arena, &work->error, &key));
    TRY(work_load_user(work));
    key.user_id = work->user->user_id;
    TRY(make_secret(work, &key));
    Vectron__Auth__V1__CreateAPIKeyResponse *response =
        work_message(work, &vectron__auth__v1__create_apikey_response__descriptor);
    Vectron__Auth__V1__APIKey *info = work_message(work, &vectron__auth__v1__apikey__descriptor);
    // Before it is stored: names that a token has no room for are the caller's fault.
    if (sdk_token_make(work, work->user, &key, &response->sdk_jwt) != STATUS_OK)
        return error_prefix(&work->error, STATUS_INVALID, "name and collections");
    TRY(work_repeat(work, put_new_key, &key));
    work->audit_target = str_from_cstr(key.key_id);
    log_info("API key made", LOG_CSTR("key", key.key_id), LOG_CSTR("user", key.user_id),
             LOG_STR("address", work->address));
    record_to_key_info(&key, NULL, info);
    response->key_info = info;
    work->response = &response->base;
    return STATUS_OK;
}

// --- ListAPIKeys

static int compare_age(const void *a, const void *b)
{
    const Vectron__Auth__V1__APIKey *const *x = a;
    const Vectron__Auth__V1__APIKey *const *y = b;
    int by_time = ((*x)->created_at > (*y)->created_at) - ((*x)->created_at < (*y)->created_at);
    return by_time != 0 ? by_time : strcmp((*x)->key_prefix, (*y)->key_prefix);
}

enum status keys_list(struct work *work)
{
    struct accounts *accounts = work->authsvc->accounts;
    struct key_list list = {0};
    uses_record *uses = NULL;
    uint64_t version = 0;
    TRY(work_load_user(work));
    struct str user_id = str_from_cstr(work->user->user_id);
    TRY(accounts_list_keys(accounts, user_id, work->arena, &work->error, &list));
    TRY(accounts_get_uses(accounts, user_id, work->arena, &work->error, &uses, &version));
    Vectron__Auth__V1__ListAPIKeysResponse *response =
        work_message(work, &vectron__auth__v1__list_apikeys_response__descriptor);
    response->keys = arena_alloc(work->arena, sizeof(*response->keys) * ((size_t)list.count + 1));
    response->n_keys = list.count;
    for (uint32_t i = 0; i < list.count; i++) {
        response->keys[i] = work_message(work, &vectron__auth__v1__apikey__descriptor);
        record_to_key_info(list.keys[i], uses, response->keys[i]);
    }
    // The oldest first.
    qsort(response->keys, response->n_keys, sizeof(response->keys[0]), compare_age);
    work->response = &response->base;
    return STATUS_OK;
}

// --- DeleteAPIKey

static enum status remove_found_key(struct work *work, void *context)
{
    const char *key_id = context;
    struct found_key key = {0};
    struct batch batch;
    TRY(work_load_user(work));
    TRY(keys_find(work, key_id, &key));
    batch_init(&batch, work->arena, work->token->user_id);
    TRY(keys_remove(work, &batch, &key));
    return accounts_commit(work->authsvc->accounts, &batch, &work->error);
}

enum status keys_delete(struct work *work)
{
    const Vectron__Auth__V1__DeleteAPIKeyRequest *request = (const void *)work->request;
    if (request->key_prefix[0] == '\0')
        return error_set(&work->error, STATUS_INVALID, "key_prefix: empty");
    // What is no key's name may be anything, a secret that was pasted there for example.
    if (api_key_id_is_valid(str_from_cstr(request->key_prefix)))
        work->audit_target = str_from_cstr(request->key_prefix);
    TRY(work_repeat(work, remove_found_key, request->key_prefix));
    log_info("API key deleted", LOG_CSTR("key", request->key_prefix),
             LOG_STR("user", work->token->user_id), LOG_STR("address", work->address));
    Vectron__Auth__V1__DeleteAPIKeyResponse *response =
        work_message(work, &vectron__auth__v1__delete_apikey_response__descriptor);
    response->success = true;
    work->response = &response->base;
    return STATUS_OK;
}

// --- For other services

// NOT_FOUND: no such key, or no such user any more.
static enum status find_any(struct work *work, struct str key_id, key_record **out_key,
                            user_record **out_user)
{
    struct accounts *accounts = work->authsvc->accounts;
    struct str user_id = {0};
    struct found_key key = {0};
    uint64_t version = 0;
    if (!api_key_id_is_valid(key_id))
        return STATUS_NOT_FOUND;
    TRY(accounts_find_key_owner(accounts, key_id, work->arena, &work->error, &user_id, &version));
    TRY(accounts_get_key(accounts, user_id, key_id, work->arena, &work->error, &key));
    *out_key = key.record;
    return accounts_get_user(accounts, user_id, work->arena, &work->error, out_user, &version);
}

static bool is_hash_of(const key_record *key, struct str raw_key)
{
    uint8_t hash[API_KEY_HASH_SIZE];
    uint8_t difference = 0;
    api_key_hash(raw_key, hash);
    if (key->key_hash.len != sizeof(hash))
        return false;
    for (size_t i = 0; i < sizeof(hash); i++)
        difference |= (uint8_t)(hash[i] ^ key->key_hash.data[i]);
    return difference == 0;
}

enum status keys_validate(struct work *work)
{
    const Vectron__Auth__V1__ValidateAPIKeyRequest *request = (const void *)work->request;
    Vectron__Auth__V1__ValidateAPIKeyResponse *response =
        work_message(work, &vectron__auth__v1__validate_apikey_response__descriptor);
    struct str raw_key = str_from_cstr(request->full_key);
    key_record *key = NULL;
    user_record *user = NULL;
    enum status status = find_any(work, api_key_id(raw_key), &key, &user);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK && is_hash_of(key, raw_key) &&
        !key_has_expired(key, clock_unix_seconds())) {
        response->valid = true;
        response->user_id = user->user_id;
        response->plan = arena_cstr(work->arena, str_from_cstr(plan_name(record_plan(user))));
        response->api_key_id = key->key_id;
    }
    work->response = &response->base;
    return STATUS_OK;
}

enum status keys_get_details(struct work *work)
{
    const Vectron__Auth__V1__GetAuthDetailsForSDKRequest *request = (const void *)work->request;
    Vectron__Auth__V1__GetAuthDetailsForSDKResponse *response =
        work_message(work, &vectron__auth__v1__get_auth_details_for_sdkresponse__descriptor);
    key_record *key = NULL;
    user_record *user = NULL;
    enum status status = find_any(work, str_from_cstr(request->api_key_id), &key, &user);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK && !key_has_expired(key, clock_unix_seconds())) {
        response->success = true;
        response->user_id = user->user_id;
        response->plan = user->plan;
    }
    work->response = &response->base;
    return STATUS_OK;
}
