#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/auth.pb-c.h"
#include "base/arena.h"
#include "base/error.h"
#include "identity/account_store.h"

// Users and API keys as records in an account store. Any thread that may wait (never a loop). What
// is read lives in the arena that was given.
//
//     u/<user id>            StoredUser
//     e/<e-mail>             the user's id
//     k/<user id>/<key id>   StoredKey
//     i/<key id>             the id of the user whose key it is
//     t/<user id>            StoredKeyUses
//     d/<user id>            StoredDeparture: a deleted user whose collections may still be there
//     s                      StoredChanges: what changed last, for those who watch
//
// Changes go through a batch: read, put the new records with the versions that were read, commit;
// ABORTED means that somebody was faster, so read again. What is made for a user also puts the
// user's own record, so that it loses against the user's deletion, and counted things against each
// other.

enum {
    ACCOUNTS_TRIES_MAX = 40,       // of a change that keeps losing races
    ACCOUNTS_CHANGES_KEPT = 128,   // in the record "s"
    ACCOUNTS_BATCH_MAX = 512,      // entries
    ACCOUNTS_ARENA_SIZE = 64 << 20 // what one request may read
};

typedef Vectron__Auth__V1__StoredUser user_record;
typedef Vectron__Auth__V1__StoredKey key_record;
typedef Vectron__Auth__V1__StoredKeyUses uses_record;
typedef Vectron__Auth__V1__StoredDeparture departure_record;
typedef Vectron__Auth__V1__StoredChanges changes_record;

struct accounts;

// store is borrowed. committed is called after each change that went through, on the thread that
// made it.
struct accounts *accounts_create(struct account_store *store, void (*committed)(void *context),
                                 void *context);
void accounts_destroy(struct accounts *accounts); // accounts may be NULL

struct found_key {
    key_record *record;
    uint64_t version;
};

// --- Reading. NOT_FOUND, and what account_store_get and account_store_list say.

enum status accounts_get_user(struct accounts *accounts, struct str user_id, struct arena *arena,
                              struct error *error, user_record **out_user, uint64_t *out_version);
enum status accounts_find_user_id(struct accounts *accounts, struct str email, struct arena *arena,
                                  struct error *error, struct str *out_user_id,
                                  uint64_t *out_version);
enum status accounts_get_key(struct accounts *accounts, struct str user_id, struct str key_id,
                             struct arena *arena, struct error *error, struct found_key *out_key);
enum status accounts_find_key_owner(struct accounts *accounts, struct str key_id,
                                    struct arena *arena, struct error *error,
                                    struct str *out_user_id, uint64_t *out_version);

struct key_list {
    key_record **keys;
    uint64_t *versions;
    uint32_t count;
};

enum status accounts_list_keys(struct accounts *accounts, struct str user_id, struct arena *arena,
                               struct error *error, struct key_list *out_list);

// A user without a record of uses: an empty one with version 0.
enum status accounts_get_uses(struct accounts *accounts, struct str user_id, struct arena *arena,
                              struct error *error, uses_record **out_uses, uint64_t *out_version);
// Before the first change: an empty one with version 0.
enum status accounts_get_changes(struct accounts *accounts, struct arena *arena,
                                 struct error *error, changes_record **out_changes,
                                 uint64_t *out_version);

// Every user, then every key, in pages: start with an empty position; it is empty again after the
// last page. The position lives in the arena.
struct user_page {
    user_record **users;
    uint32_t count;
    struct str position;
};
struct key_page {
    key_record **keys;
    uint32_t count;
    struct str position;
};

enum status accounts_scan_users(struct accounts *accounts, struct str position, uint32_t limit,
                                struct arena *arena, struct error *error,
                                struct user_page *out_page);
enum status accounts_scan_keys(struct accounts *accounts, struct str position, uint32_t limit,
                               struct arena *arena, struct error *error, struct key_page *out_page);

struct departure_list {
    departure_record **departures;
    uint64_t *versions;
    uint32_t count;
};

// The first of them, not more than limit.
enum status accounts_list_departures(struct accounts *accounts, uint32_t limit, struct arena *arena,
                                     struct error *error, struct departure_list *out_list);

// --- Changing

struct batch {
    struct arena *arena;
    struct account_entry *entries;
    uint32_t count;
    struct str user_id;    // whom it is about
    struct str key_ids[4]; // what to tell those who watch; not more than fits
    uint32_t key_id_count;
    bool is_unannounced; // nobody who watches needs to know
};

void batch_init(struct batch *batch, struct arena *arena, struct str user_id);
void batch_put_user(struct batch *batch, const user_record *user, uint64_t version);
void batch_put_email(struct batch *batch, const user_record *user);
void batch_put_key(struct batch *batch, const key_record *key);
// Of a key that is there, with the version that was read.
void batch_replace_key(struct batch *batch, const key_record *key, uint64_t version);
void batch_put_uses(struct batch *batch, const uses_record *uses, uint64_t version);
void batch_remove_user(struct batch *batch, uint64_t version);
void batch_remove_email(struct batch *batch, struct str email, uint64_t version);
void batch_remove_key(struct batch *batch, struct str key_id, uint64_t version,
                      uint64_t owner_version);
void batch_remove_uses(struct batch *batch, uint64_t version);
void batch_put_departure(struct batch *batch, const departure_record *departure);
void batch_remove_departure(struct batch *batch, uint64_t version);
bool batch_has_room(const struct batch *batch, uint32_t entry_count);

// ABORTED: somebody changed one of the records; read again.
enum status accounts_commit(struct accounts *accounts, struct batch *batch, struct error *error);
// Wait a little before the next try, longer each time.
void accounts_back_off(uint32_t try_index);
