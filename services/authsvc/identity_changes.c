#include "authsvc/identity_changes.h"

#include <stdatomic.h>
#include <string.h>

#include "authsvc/records.h"
#include "base/mem.h"

enum { PAGE_SIZE = 500 };

struct identity_message {
    atomic_uint reference_count;
    struct arena *arena; // of the changes and all that hangs on them
    Vectron__Auth__V1__IdentityChanges changes;
};

static struct identity_message *create(void)
{
    struct identity_message *message = mem_alloc(sizeof(*message));
    atomic_init(&message->reference_count, 1);
    message->arena = arena_create(ACCOUNTS_ARENA_SIZE);
    vectron__auth__v1__identity_changes__init(&message->changes);
    return message;
}

struct identity_message *identity_message_ref(struct identity_message *message)
{
    atomic_fetch_add_explicit(&message->reference_count, 1, memory_order_relaxed);
    return message;
}

void identity_message_unref(struct identity_message *message)
{
    if (atomic_fetch_sub_explicit(&message->reference_count, 1, memory_order_acq_rel) != 1)
        return;
    arena_destroy(message->arena);
    mem_free(message);
}

const ProtobufCMessage *identity_message_of(const struct identity_message *message)
{
    return &message->changes.base;
}

// --- Changes

static bool has_user(const Vectron__Auth__V1__IdentityChanges *changes, const char *user_id)
{
    for (size_t i = 0; i < changes->n_users; i++) {
        if (strcmp(changes->users[i]->user_id, user_id) == 0)
            return true;
    }
    return false;
}

static bool has_key(const Vectron__Auth__V1__IdentityChanges *changes, const char *key_id)
{
    for (size_t i = 0; i < changes->n_keys; i++) {
        if (strcmp(changes->keys[i]->key_id, key_id) == 0)
            return true;
    }
    return false;
}

static enum status add_user(struct accounts *accounts, const char *user_id, struct error *error,
                            struct identity_message *message)
{
    Vectron__Auth__V1__UserRecord *record = arena_alloc(message->arena, sizeof(*record));
    user_record *user = NULL;
    uint64_t version = 0;
    if (has_user(&message->changes, user_id))
        return STATUS_OK;
    vectron__auth__v1__user_record__init(record);
    enum status status =
        accounts_get_user(accounts, str_from_cstr(user_id), message->arena, error, &user, &version);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK)
        record_to_identity_user(user, record);
    record->user_id = arena_cstr(message->arena, str_from_cstr(user_id));
    record->is_deleted = status == STATUS_NOT_FOUND;
    message->changes.users[message->changes.n_users++] = record;
    return STATUS_OK;
}

static enum status add_key(struct accounts *accounts, const char *user_id, const char *key_id,
                           struct error *error, struct identity_message *message)
{
    Vectron__Auth__V1__KeyRecord *record = arena_alloc(message->arena, sizeof(*record));
    struct found_key key = {0};
    if (has_key(&message->changes, key_id))
        return STATUS_OK;
    vectron__auth__v1__key_record__init(record);
    enum status status = accounts_get_key(accounts, str_from_cstr(user_id), str_from_cstr(key_id),
                                          message->arena, error, &key);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK)
        record_to_identity_key(key.record, record);
    record->key_id = arena_cstr(message->arena, str_from_cstr(key_id));
    record->is_deleted = status == STATUS_NOT_FOUND;
    message->changes.keys[message->changes.n_keys++] = record;
    return STATUS_OK;
}

static enum status add_change(struct accounts *accounts,
                              const Vectron__Auth__V1__StoredChange *change, struct error *error,
                              struct identity_message *message)
{
    TRY(add_user(accounts, change->user_id, error, message));
    for (size_t i = 0; i < change->n_key_ids; i++)
        TRY(add_key(accounts, change->user_id, change->key_ids[i], error, message));
    return STATUS_OK;
}

enum status identity_read_changes(struct accounts *accounts, const changes_record *changes,
                                  size_t change_count, struct error *error,
                                  struct identity_message **out_message)
{
    struct identity_message *message = create();
    enum status status = STATUS_OK;
    size_t first = changes->n_changes - change_count;
    size_t key_count = 0;
    for (size_t i = first; i < changes->n_changes; i++)
        key_count += changes->changes[i]->n_key_ids;
    message->changes.users = arena_alloc(message->arena, sizeof(void *) * (change_count + 1));
    message->changes.keys = arena_alloc(message->arena, sizeof(void *) * (key_count + 1));
    for (size_t i = first; i < changes->n_changes && status == STATUS_OK; i++)
        status = add_change(accounts, changes->changes[i], error, message);
    if (status != STATUS_OK) {
        identity_message_unref(message);
        return status;
    }
    *out_message = message;
    return STATUS_OK;
}

// --- The snapshot

// Where the next page begins; pages have memory of their own.
struct place {
    char bytes[ACCOUNT_KEY_SIZE_MAX];
    size_t size;
};

static void keep_place(struct place *place, struct str position)
{
    place->size = position.len < sizeof(place->bytes) ? position.len : sizeof(place->bytes);
    if (place->size > 0)
        memcpy(place->bytes, position.data, place->size);
}

static enum status read_users(struct accounts *accounts, struct place *place, struct error *error,
                              struct identity_message *message)
{
    struct arena *arena = message->arena;
    struct str position = {place->bytes, place->size};
    struct user_page page = {0};
    TRY(accounts_scan_users(accounts, position, PAGE_SIZE, arena, error, &page));
    Vectron__Auth__V1__UserRecord *records =
        arena_alloc(arena, sizeof(*records) * ((size_t)page.count + 1));
    message->changes.users = arena_alloc(arena, sizeof(void *) * ((size_t)page.count + 1));
    message->changes.n_users = page.count;
    for (uint32_t i = 0; i < page.count; i++) {
        record_to_identity_user(page.users[i], &records[i]);
        message->changes.users[i] = &records[i];
    }
    keep_place(place, page.position);
    return STATUS_OK;
}

static enum status read_keys(struct accounts *accounts, struct place *place, struct error *error,
                             struct identity_message *message)
{
    struct arena *arena = message->arena;
    struct str position = {place->bytes, place->size};
    struct key_page page = {0};
    TRY(accounts_scan_keys(accounts, position, PAGE_SIZE, arena, error, &page));
    Vectron__Auth__V1__KeyRecord *records =
        arena_alloc(arena, sizeof(*records) * ((size_t)page.count + 1));
    message->changes.keys = arena_alloc(arena, sizeof(void *) * ((size_t)page.count + 1));
    message->changes.n_keys = page.count;
    for (uint32_t i = 0; i < page.count; i++) {
        record_to_identity_key(page.keys[i], &records[i]);
        message->changes.keys[i] = &records[i];
    }
    keep_place(place, page.position);
    return STATUS_OK;
}

typedef enum status (*read_page_fn)(struct accounts *accounts, struct place *place,
                                    struct error *error, struct identity_message *message);

enum status identity_read_snapshot(struct accounts *accounts, struct error *error,
                                   void (*each)(struct identity_message *message, void *context),
                                   void *context)
{
    static const read_page_fn read_page[] = {read_users, read_keys};
    bool is_first = true;
    for (size_t i = 0; i < sizeof(read_page) / sizeof(read_page[0]); i++) {
        struct place place = {.size = 0};
        do {
            struct identity_message *message = create();
            enum status status = read_page[i](accounts, &place, error, message);
            message->changes.is_snapshot = is_first;
            is_first = false;
            if (status == STATUS_OK)
                each(message, context);
            identity_message_unref(message);
            TRY(status);
        } while (place.size > 0);
    }
    return STATUS_OK;
}
