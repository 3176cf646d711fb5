#include "identity/directory.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "identity/remembered.h"

// Two halves. What is known of keys and users lies in maps under a lock: it is touched when
// something changes and when a token is seen for the first time. Tokens that were found good lie in
// a table of their own (remembered.h) that is read without a lock. Whoever changes a key or user
// removes its tokens from the table before he lets go of the lock, and tokens get into the table
// only under the lock, so no token outlives what made it good.

struct directory {
    const struct token_authority *authority;
    struct remembered *remembered;
    pthread_mutex_t lock; // of all below, and of changes to remembered
    struct map *keys;     // key id → struct directory_key, one allocation each
    struct map *users;    // user id → struct directory_user
    struct map *uses;     // key id → struct use, since the last directory_take_uses
};

struct use {
    int64_t last_used_at;
};

struct directory *directory_create(const struct token_authority *authority)
{
    struct directory *directory = mem_alloc(sizeof(*directory));
    directory->authority = authority;
    directory->remembered = remembered_create();
    pthread_mutex_init(&directory->lock, NULL);
    directory->keys = map_create();
    directory->users = map_create();
    directory->uses = map_create();
    return directory;
}

static void destroy_map(struct map *map)
{
    size_t position = 0;
    struct str name;
    void *value;
    while (map_next(map, &position, &name, &value))
        mem_free(value);
    map_destroy(map);
}

void directory_destroy(struct directory *directory)
{
    if (directory == NULL)
        return;
    remembered_destroy(directory->remembered);
    destroy_map(directory->keys);
    destroy_map(directory->users);
    destroy_map(directory->uses);
    pthread_mutex_destroy(&directory->lock);
    mem_free(directory);
}

// --- Changes

static void note_use(struct str key_id, int64_t last_used_at, void *context)
{
    struct directory *directory = context;
    struct use *use = map_get(directory->uses, key_id);
    if (use == NULL) {
        use = mem_alloc(sizeof(*use));
        (void)map_put(directory->uses, key_id, use); // nothing was there
    }
    if (use->last_used_at < last_used_at)
        use->last_used_at = last_used_at;
}

static struct str copy_str(char **cursor, struct str str)
{
    char *copy = *cursor;
    if (str.len > 0)
        memcpy(copy, str.data, str.len);
    *cursor += str.len;
    return (struct str){copy, str.len};
}

static struct directory_key *copy_key(const struct directory_key *key)
{
    size_t size = sizeof(*key) + sizeof(struct str) * key->collection_count + key->key_id.len +
                  key->user_id.len + key->name.len + key->role.len;
    for (uint32_t i = 0; i < key->collection_count; i++)
        size += key->collections[i].len;
    struct directory_key *copy = mem_alloc(size);
    struct str *collections = (struct str *)(copy + 1);
    char *cursor = (char *)(collections + key->collection_count);
    *copy = *key;
    copy->key_id = copy_str(&cursor, key->key_id);
    copy->user_id = copy_str(&cursor, key->user_id);
    copy->name = copy_str(&cursor, key->name);
    copy->role = copy_str(&cursor, key->role);
    copy->collections = collections;
    for (uint32_t i = 0; i < key->collection_count; i++)
        collections[i] = copy_str(&cursor, key->collections[i]);
    return copy;
}

void directory_put_key(struct directory *directory, const struct directory_key *key)
{
    pthread_mutex_lock(&directory->lock);
    const struct directory_key *known = map_get(directory->keys, key->key_id);
    if (known == NULL || !known->is_deleted) {
        mem_free(map_put(directory->keys, key->key_id, copy_key(key)));
        remembered_forget_key(directory->remembered, key->key_id, note_use, directory);
    }
    pthread_mutex_unlock(&directory->lock);
}

static struct directory_user *copy_user(const struct directory_user *user)
{
    struct directory_user *copy = mem_alloc(sizeof(*copy) + user->user_id.len);
    char *cursor = (char *)(copy + 1);
    *copy = *user;
    copy->user_id = copy_str(&cursor, user->user_id);
    return copy;
}

void directory_put_user(struct directory *directory, const struct directory_user *user)
{
    pthread_mutex_lock(&directory->lock);
    const struct directory_user *known = map_get(directory->users, user->user_id);
    if (known == NULL || !known->is_deleted) {
        mem_free(map_put(directory->users, user->user_id, copy_user(user)));
        remembered_forget_user(directory->remembered, user->user_id, note_use, directory);
    }
    pthread_mutex_unlock(&directory->lock);
}

bool directory_has_user(struct directory *directory, struct str user_id)
{
    pthread_mutex_lock(&directory->lock);
    const struct directory_user *user = map_get(directory->users, user_id);
    bool is_there = user != NULL && !user->is_deleted;
    pthread_mutex_unlock(&directory->lock);
    return is_there;
}

void directory_clear(struct directory *directory)
{
    pthread_mutex_lock(&directory->lock);
    remembered_forget_all(directory->remembered, note_use, directory);
    destroy_map(directory->keys);
    destroy_map(directory->users);
    directory->keys = map_create();
    directory->users = map_create();
    pthread_mutex_unlock(&directory->lock);
}

void directory_take_uses(struct directory *directory,
                         void (*each)(struct str key_id, int64_t last_used_at, void *context),
                         void *context)
{
    pthread_mutex_lock(&directory->lock);
    remembered_take_uses(directory->remembered, note_use, directory);
    struct map *uses = directory->uses;
    directory->uses = map_create();
    pthread_mutex_unlock(&directory->lock);

    size_t position = 0;
    struct str key_id;
    void *use;
    while (map_next(uses, &position, &key_id, &use))
        each(key_id, ((struct use *)use)->last_used_at, context);
    destroy_map(uses);
}

// --- The check of a token that is not remembered

static enum status fail_unusable(struct error *error)
{
    return error_set(error, STATUS_UNAUTHENTICATED, "invalid or expired token");
}

static enum status fail_unknown(const struct token *token, struct error *error,
                                struct caller *out_caller)
{
    *out_caller =
        (struct caller){.kind = token->kind, .user_id = token->user_id, .key_id = token->key_id};
    return error_set(error, STATUS_UNAVAILABLE, "the token's account is not known here yet");
}

// The sealed key is the one of which the auth service keeps the hash.
static bool holds_key(struct directory *directory, const struct token *token, struct arena *arena,
                      uint8_t out_hash[static API_KEY_HASH_SIZE])
{
    struct str raw_key;
    if (api_key_open(directory->authority, token->sealed_key, token->key_id, token->user_id, arena,
                     &raw_key) != STATUS_OK)
        return false;
    api_key_hash(raw_key, out_hash);
    return true;
}

static void fill_sdk(const struct directory_key *key, const struct token *token,
                     struct caller *caller)
{
    caller->key_id = key->key_id;
    caller->role = key->role;
    caller->collections = key->collections;
    caller->collection_count = key->collection_count;
    if (key->expires_at != 0 && key->expires_at < token->expires_at)
        caller->expires_at = key->expires_at;
}

static enum status check_known(struct directory *directory, const struct token *token,
                               const uint8_t *hash, struct error *error, struct caller *out_caller)
{
    const struct directory_user *user = map_get(directory->users, token->user_id);
    const struct directory_key *key = NULL;
    if (token->kind == TOKEN_SDK) {
        key = map_get(directory->keys, token->key_id);
        if ((key != NULL && key->is_deleted) || (user != NULL && user->is_deleted))
            return error_set(error, STATUS_UNAUTHENTICATED, "API key revoked");
        if (key == NULL || user == NULL)
            return fail_unknown(token, error, out_caller);
        if (!str_equal(key->user_id, token->user_id) ||
            sodium_memcmp(key->hash, hash, API_KEY_HASH_SIZE) != 0)
            return fail_unusable(error);
    } else {
        if (user == NULL)
            return fail_unknown(token, error, out_caller);
        if (user->is_deleted || user->token_generation != token->generation)
            return fail_unusable(error);
    }
    struct caller caller = {
        .kind = token->kind,
        .user_id = user->user_id,
        .plan = user->plan,
        .is_admin = user->is_admin,
        .role = user->is_admin ? STR("admin") : STR("user"),
        .expires_at = token->expires_at,
    };
    if (key != NULL)
        fill_sdk(key, token, &caller);
    *out_caller = caller;
    return STATUS_OK;
}

static bool has_expired(int64_t expires_at)
{
    return clock_unix_seconds() - TOKEN_LEEWAY_SECONDS >= expires_at;
}

static enum status check_new(struct directory *directory, struct str jwt, uint64_t jwt_hash,
                             struct arena *arena, struct error *error, struct caller *out_caller)
{
    struct token token = {0};
    uint8_t hash[API_KEY_HASH_SIZE] = {0};
    TRY(token_verify(directory->authority, jwt, arena, error, &token));
    if (token.kind == TOKEN_SDK && !holds_key(directory, &token, arena, hash))
        return fail_unusable(error);

    struct caller caller = {0};
    pthread_mutex_lock(&directory->lock);
    enum status status = check_known(directory, &token, hash, error, &caller);
    if (status == STATUS_OK && has_expired(caller.expires_at))
        status = fail_unusable(error);
    if (status == STATUS_OK) {
        if (caller.kind == TOKEN_SDK)
            note_use(caller.key_id, clock_unix_seconds(), directory);
        // The strings of caller belong to the maps: copied before the lock goes.
        remembered_put(directory->remembered, jwt, jwt_hash, &caller, note_use, directory);
        status = caller_copy(&caller, arena, error, out_caller);
    } else if (status == STATUS_UNAVAILABLE) {
        *out_caller = caller; // its strings are the token's, which live in the arena
    }
    pthread_mutex_unlock(&directory->lock);
    return status;
}

// --- Questions

static struct str cut_bearer(struct str authorization)
{
    struct str rest = str_trim(authorization);
    struct str scheme = str_cut(&rest, ' ');
    if (!str_equal_ignoring_case(scheme, STR("bearer")))
        return (struct str){0};
    return str_trim(rest);
}

// Hot path: no lock and no allocation but the arena's when the token is remembered.
enum status directory_check(struct directory *directory, struct str authorization,
                            struct arena *arena, struct error *error, struct caller *out_caller)
{
    if (str_trim(authorization).len == 0)
        return error_set(error, STATUS_UNAUTHENTICATED, "missing authorization");
    struct str jwt = cut_bearer(authorization);
    if (jwt.len == 0 || jwt.len > TOKEN_SIZE_MAX)
        return fail_unusable(error);
    uint64_t jwt_hash = remembered_hash(directory->remembered, jwt);
    struct caller caller;
    enum status status =
        remembered_get(directory->remembered, jwt, jwt_hash, arena, error, &caller);
    if (status == STATUS_NOT_FOUND)
        return check_new(directory, jwt, jwt_hash, arena, error, out_caller);
    if (status == STATUS_OK && has_expired(caller.expires_at))
        return fail_unusable(error);
    if (status == STATUS_OK)
        *out_caller = caller;
    return status;
}

static int role_rank(struct str role)
{
    if (str_equal_cstr(role, "reader"))
        return 1;
    if (str_equal_cstr(role, "writer"))
        return 2;
    return str_equal_cstr(role, "owner") ? 3 : 0;
}

bool role_includes(struct str role, struct str needed)
{
    return role_rank(role) > 0 && role_rank(role) >= role_rank(needed);
}

bool caller_may_touch(const struct caller *caller, struct str collection)
{
    for (uint32_t i = 0; i < caller->collection_count; i++) {
        if (str_equal(caller->collections[i], collection))
            return true;
    }
    return caller->collection_count == 0;
}
