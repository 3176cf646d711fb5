#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "identity/token.h"

// What a gateway knows of users and keys, kept current by the auth service's watch, and the check
// of a token against it: signature, kind, sealed key against the key's hash, deletion, expiry. A
// token that was checked is remembered, so that the next request with it costs a look-up. Many
// threads.

struct directory;

struct directory_key {
    struct str key_id;
    struct str user_id;
    struct str name;
    struct str role; // reader, writer, owner
    const struct str *collections;
    uint32_t collection_count;
    int64_t expires_at; // Unix seconds, 0: never
    uint8_t hash[API_KEY_HASH_SIZE];
    bool is_deleted;
};

struct directory_user {
    struct str user_id;
    enum plan plan;
    bool is_admin;
    uint64_t token_generation;
    bool is_deleted;
};

struct directory *directory_create(const struct token_authority *authority);
void directory_destroy(struct directory *directory); // directory may be NULL

// Copies. A new version of something known replaces it at once, remembered tokens included.
void directory_put_key(struct directory *directory, const struct directory_key *key);
void directory_put_user(struct directory *directory, const struct directory_user *user);
// There is such a user, and he is not deleted, as far as is known here.
bool directory_has_user(struct directory *directory, struct str user_id);
void directory_clear(struct directory *directory); // before a new snapshot

// Who is calling, as the directory has it now (not as the token had it when it was made). Strings
// live in the arena.
struct caller {
    enum token_kind kind;
    struct str user_id;
    enum plan plan;
    bool is_admin;
    struct str key_id; // sdk only, as are the next three
    struct str role;
    const struct str *collections;
    uint32_t collection_count;
    int64_t expires_at;
};

// Hot path.
// UNAUTHENTICATED "missing authorization" (empty), "invalid or expired token", "API key revoked".
// UNAVAILABLE: the token is sound but its key or user is not known here yet; *out_caller holds
// key_id and user_id, to be looked up (LookupIdentity), put, and tried again.
// authorization is the header's value, "Bearer …" in any case.
enum status directory_check(struct directory *directory, struct str authorization,
                            struct arena *arena, struct error *error, struct caller *out_caller);

// Role order: reader < writer < owner.
bool role_includes(struct str role, struct str needed);
// The key may touch this collection (it is bound to none, or to this one).
bool caller_may_touch(const struct caller *caller, struct str collection);
// Keys used since the last call, for ReportKeyUse: calls each and forgets them.
void directory_take_uses(struct directory *directory,
                         void (*each)(struct str key_id, int64_t last_used_at, void *context),
                         void *context);
