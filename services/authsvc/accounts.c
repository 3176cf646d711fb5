#include "authsvc/accounts.h"

#include <string.h>
#include <time.h>

#include "api/message.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/rng.h"

enum { PAGE_SIZE = 200 };

struct accounts {
    struct account_store *store;
    void (*committed)(void *context);
    void *context;
};

struct accounts *accounts_create(struct account_store *store, void (*committed)(void *context),
                                 void *context)
{
    struct accounts *accounts = mem_alloc(sizeof(*accounts));
    *accounts = (struct accounts){store, committed, context};
    return accounts;
}

void accounts_destroy(struct accounts *accounts)
{
    mem_free(accounts);
}

// --- Records

static struct str key_of(struct arena *arena, char kind, struct str name)
{
    return arena_format(arena, "%c/%.*s", kind, STR_ARG(name));
}

static struct str key_of_key(struct arena *arena, struct str user_id, struct str key_id)
{
    return arena_format(arena, "k/%.*s/%.*s", STR_ARG(user_id), STR_ARG(key_id));
}

static enum status decode(const ProtobufCMessageDescriptor *descriptor, struct str value,
                          struct arena *arena, struct error *error, ProtobufCMessage **out_message)
{
    enum status status = message_decode(descriptor, str_span(value), arena, error, out_message);
    // What we wrote ourselves and cannot read is no fault of whoever asks.
    return status == STATUS_INVALID ? STATUS_CORRUPT : status;
}

struct record {
    ProtobufCMessage *message;
    uint64_t version;
};

static enum status get_record(struct accounts *accounts, struct str key,
                              const ProtobufCMessageDescriptor *descriptor, struct arena *arena,
                              struct error *error, struct record *out_record)
{
    struct account_entry entry;
    TRY(account_store_get(accounts->store, key, arena, error, &entry));
    TRY(decode(descriptor, entry.value, arena, error, &out_record->message));
    out_record->version = entry.version;
    return STATUS_OK;
}

enum status accounts_get_user(struct accounts *accounts, struct str user_id, struct arena *arena,
                              struct error *error, user_record **out_user, uint64_t *out_version)
{
    struct record record;
    TRY(get_record(accounts, key_of(arena, 'u', user_id),
                   &vectron__auth__v1__stored_user__descriptor, arena, error, &record));
    *out_user = (user_record *)record.message;
    *out_version = record.version;
    return STATUS_OK;
}

static enum status get_text(struct accounts *accounts, struct str key, struct arena *arena,
                            struct error *error, struct str *out_text, uint64_t *out_version)
{
    struct account_entry entry;
    TRY(account_store_get(accounts->store, key, arena, error, &entry));
    *out_text = entry.value;
    *out_version = entry.version;
    return STATUS_OK;
}

enum status accounts_find_user_id(struct accounts *accounts, struct str email, struct arena *arena,
                                  struct error *error, struct str *out_user_id,
                                  uint64_t *out_version)
{
    return get_text(accounts, key_of(arena, 'e', email), arena, error, out_user_id, out_version);
}

enum status accounts_find_key_owner(struct accounts *accounts, struct str key_id,
                                    struct arena *arena, struct error *error,
                                    struct str *out_user_id, uint64_t *out_version)
{
    return get_text(accounts, key_of(arena, 'i', key_id), arena, error, out_user_id, out_version);
}

enum status accounts_get_key(struct accounts *accounts, struct str user_id, struct str key_id,
                             struct arena *arena, struct error *error, struct found_key *out_key)
{
    struct record record;
    TRY(get_record(accounts, key_of_key(arena, user_id, key_id),
                   &vectron__auth__v1__stored_key__descriptor, arena, error, &record));
    *out_key = (struct found_key){(key_record *)record.message, record.version};
    return STATUS_OK;
}

enum status accounts_get_uses(struct accounts *accounts, struct str user_id, struct arena *arena,
                              struct error *error, uses_record **out_uses, uint64_t *out_version)
{
    struct record record = {0};
    enum status status =
        get_record(accounts, key_of(arena, 't', user_id),
                   &vectron__auth__v1__stored_key_uses__descriptor, arena, error, &record);
    if (status == STATUS_NOT_FOUND) {
        uses_record *empty = arena_alloc(arena, sizeof(*empty));
        vectron__auth__v1__stored_key_uses__init(empty);
        *out_uses = empty;
        *out_version = 0;
        return STATUS_OK;
    }
    TRY(status);
    *out_uses = (uses_record *)record.message;
    *out_version = record.version;
    return STATUS_OK;
}

enum status accounts_get_changes(struct accounts *accounts, struct arena *arena,
                                 struct error *error, changes_record **out_changes,
                                 uint64_t *out_version)
{
    struct record record = {0};
    enum status status = get_record(
        accounts, STR("s"), &vectron__auth__v1__stored_changes__descriptor, arena, error, &record);
    if (status == STATUS_NOT_FOUND) {
        changes_record *empty = arena_alloc(arena, sizeof(*empty));
        vectron__auth__v1__stored_changes__init(empty);
        *out_changes = empty;
        *out_version = 0;
        return STATUS_OK;
    }
    TRY(status);
    *out_changes = (changes_record *)record.message;
    *out_version = record.version;
    return STATUS_OK;
}

// --- Lists

struct scan {
    struct str prefix;
    const ProtobufCMessageDescriptor *descriptor;
    uint32_t limit;
};

struct scan_page {
    ProtobufCMessage **messages;
    uint64_t *versions;
    uint32_t count;
};

static enum status scan(struct accounts *accounts, const struct scan *scan, struct str *position,
                        struct arena *arena, struct error *error, struct scan_page *out_page)
{
    struct account_page page;
    struct account_list list = {.prefix = scan->prefix, .after = *position, .limit = scan->limit};
    TRY(account_store_list(accounts->store, &list, arena, error, &page));
    struct scan_page decoded = {
        .messages = arena_alloc(arena, sizeof(void *) * ((size_t)page.count + 1)),
        .versions = arena_alloc(arena, sizeof(uint64_t) * ((size_t)page.count + 1)),
        .count = page.count,
    };
    for (uint32_t i = 0; i < page.count; i++) {
        TRY(decode(scan->descriptor, page.entries[i].value, arena, error, &decoded.messages[i]));
        decoded.versions[i] = page.entries[i].version;
    }
    bool has_more = page.has_more && page.count > 0;
    *position = has_more ? page.entries[page.count - 1].key : (struct str){0};
    *out_page = decoded;
    return STATUS_OK;
}

enum status accounts_list_keys(struct accounts *accounts, struct str user_id, struct arena *arena,
                               struct error *error, struct key_list *out_list)
{
    struct scan_page pages[64];
    struct str position = {0};
    uint32_t page_count = 0;
    uint32_t count = 0;
    struct scan keys = {.prefix = key_of_key(arena, user_id, STR("")),
                        .descriptor = &vectron__auth__v1__stored_key__descriptor,
                        .limit = PAGE_SIZE};
    do {
        TRY(scan(accounts, &keys, &position, arena, error, &pages[page_count]));
        count += pages[page_count++].count;
    } while (position.len > 0 && page_count < sizeof(pages) / sizeof(pages[0]));

    struct key_list list = {
        .keys = arena_alloc(arena, sizeof(*list.keys) * ((size_t)count + 1)),
        .versions = arena_alloc(arena, sizeof(*list.versions) * ((size_t)count + 1)),
    };
    for (uint32_t i = 0; i < page_count; i++) {
        for (uint32_t j = 0; j < pages[i].count; j++) {
            list.versions[list.count] = pages[i].versions[j];
            list.keys[list.count++] = (key_record *)pages[i].messages[j];
        }
    }
    *out_list = list;
    return STATUS_OK;
}

enum status accounts_scan_users(struct accounts *accounts, struct str position, uint32_t limit,
                                struct arena *arena, struct error *error,
                                struct user_page *out_page)
{
    struct scan_page page;
    struct scan users = {STR("u/"), &vectron__auth__v1__stored_user__descriptor, limit};
    TRY(scan(accounts, &users, &position, arena, error, &page));
    *out_page = (struct user_page){(user_record **)(void *)page.messages, page.count, position};
    return STATUS_OK;
}

enum status accounts_scan_keys(struct accounts *accounts, struct str position, uint32_t limit,
                               struct arena *arena, struct error *error, struct key_page *out_page)
{
    struct scan_page page;
    struct scan keys = {STR("k/"), &vectron__auth__v1__stored_key__descriptor, limit};
    TRY(scan(accounts, &keys, &position, arena, error, &page));
    *out_page = (struct key_page){(key_record **)(void *)page.messages, page.count, position};
    return STATUS_OK;
}

enum status accounts_list_departures(struct accounts *accounts, uint32_t limit, struct arena *arena,
                                     struct error *error, struct departure_list *out_list)
{
    struct scan_page page;
    struct str position = {0};
    struct scan departures = {STR("d/"), &vectron__auth__v1__stored_departure__descriptor, limit};
    TRY(scan(accounts, &departures, &position, arena, error, &page));
    *out_list = (struct departure_list){(departure_record **)(void *)page.messages, page.versions,
                                        page.count};
    return STATUS_OK;
}

// --- Batches

void batch_init(struct batch *batch, struct arena *arena, struct str user_id)
{
    *batch = (struct batch){
        .arena = arena,
        // One more, for the record of changes.
        .entries = arena_alloc(arena, sizeof(*batch->entries) * (ACCOUNTS_BATCH_MAX + 1)),
        .user_id = user_id,
    };
}

bool batch_has_room(const struct batch *batch, uint32_t entry_count)
{
    return batch->count + entry_count <= ACCOUNTS_BATCH_MAX;
}

static void add(struct batch *batch, struct str key, struct str value, uint64_t version)
{
    ASSERT(batch_has_room(batch, 1));
    batch->entries[batch->count++] =
        (struct account_entry){.key = key, .value = value, .version = version};
}

static void add_removal(struct batch *batch, struct str key, uint64_t version)
{
    ASSERT(batch_has_room(batch, 1));
    batch->entries[batch->count++] =
        (struct account_entry){.key = key, .version = version, .is_removed = true};
}

static struct str encode(struct arena *arena, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = arena_alloc(arena, size + 1);
    size_t packed_size = protobuf_c_message_pack(message, bytes);
    ASSERT(packed_size == size);
    return (struct str){(const char *)bytes, size};
}

static void announce_key(struct batch *batch, struct str key_id)
{
    if (batch->key_id_count < sizeof(batch->key_ids) / sizeof(batch->key_ids[0]))
        batch->key_ids[batch->key_id_count++] = key_id;
}

void batch_put_user(struct batch *batch, const user_record *user, uint64_t version)
{
    add(batch, key_of(batch->arena, 'u', batch->user_id), encode(batch->arena, &user->base),
        version);
}

void batch_put_email(struct batch *batch, const user_record *user)
{
    add(batch, key_of(batch->arena, 'e', str_from_cstr(user->email)), batch->user_id, 0);
}

void batch_put_key(struct batch *batch, const key_record *key)
{
    struct str key_id = str_from_cstr(key->key_id);
    add(batch, key_of_key(batch->arena, batch->user_id, key_id), encode(batch->arena, &key->base),
        0);
    add(batch, key_of(batch->arena, 'i', key_id), batch->user_id, 0);
    announce_key(batch, key_id);
}

void batch_replace_key(struct batch *batch, const key_record *key, uint64_t version)
{
    struct str key_id = str_from_cstr(key->key_id);
    add(batch, key_of_key(batch->arena, batch->user_id, key_id), encode(batch->arena, &key->base),
        version);
    announce_key(batch, key_id);
}

void batch_put_uses(struct batch *batch, const uses_record *uses, uint64_t version)
{
    add(batch, key_of(batch->arena, 't', batch->user_id), encode(batch->arena, &uses->base),
        version);
}

void batch_remove_user(struct batch *batch, uint64_t version)
{
    add_removal(batch, key_of(batch->arena, 'u', batch->user_id), version);
}

void batch_remove_email(struct batch *batch, struct str email, uint64_t version)
{
    add_removal(batch, key_of(batch->arena, 'e', email), version);
}

void batch_remove_key(struct batch *batch, struct str key_id, uint64_t version,
                      uint64_t owner_version)
{
    add_removal(batch, key_of_key(batch->arena, batch->user_id, key_id), version);
    if (owner_version != 0)
        add_removal(batch, key_of(batch->arena, 'i', key_id), owner_version);
    announce_key(batch, key_id);
}

void batch_remove_uses(struct batch *batch, uint64_t version)
{
    add_removal(batch, key_of(batch->arena, 't', batch->user_id), version);
}

void batch_put_departure(struct batch *batch, const departure_record *departure)
{
    add(batch, key_of(batch->arena, 'd', batch->user_id), encode(batch->arena, &departure->base),
        0);
}

void batch_remove_departure(struct batch *batch, uint64_t version)
{
    add_removal(batch, key_of(batch->arena, 'd', batch->user_id), version);
}

// --- Committing

static Vectron__Auth__V1__StoredChange *describe(struct batch *batch)
{
    Vectron__Auth__V1__StoredChange *change = arena_alloc(batch->arena, sizeof(*change));
    vectron__auth__v1__stored_change__init(change);
    change->user_id = arena_cstr(batch->arena, batch->user_id);
    change->key_ids = arena_alloc(batch->arena, sizeof(char *) * (batch->key_id_count + 1));
    change->n_key_ids = batch->key_id_count;
    for (uint32_t i = 0; i < batch->key_id_count; i++)
        change->key_ids[i] = arena_cstr(batch->arena, batch->key_ids[i]);
    return change;
}

// The record of changes with this one at its end, and without the oldest when it is full.
static void append_change(struct batch *batch, changes_record *changes, uint64_t version)
{
    size_t kept =
        changes->n_changes < ACCOUNTS_CHANGES_KEPT ? changes->n_changes : ACCOUNTS_CHANGES_KEPT - 1;
    size_t dropped = changes->n_changes - kept;
    Vectron__Auth__V1__StoredChange **list =
        arena_alloc(batch->arena, sizeof(Vectron__Auth__V1__StoredChange *) * (kept + 1));
    for (size_t i = 0; i < kept; i++)
        list[i] = changes->changes[dropped + i];
    list[kept] = describe(batch);
    changes_record next = VECTRON__AUTH__V1__STORED_CHANGES__INIT;
    next.sequence = changes->sequence + 1;
    next.changes = list;
    next.n_changes = kept + 1;
    batch->entries[batch->count++] = (struct account_entry){
        .key = STR("s"), .value = encode(batch->arena, &next.base), .version = version};
}

enum status accounts_commit(struct accounts *accounts, struct batch *batch, struct error *error)
{
    if (!batch->is_unannounced) {
        changes_record *changes = NULL;
        uint64_t version = 0;
        TRY(accounts_get_changes(accounts, batch->arena, error, &changes, &version));
        append_change(batch, changes, version);
    }
    TRY(account_store_put(accounts->store, batch->entries, batch->count, error));
    if (!batch->is_unannounced)
        accounts->committed(accounts->context);
    return STATUS_OK;
}

void accounts_back_off(uint32_t try_index)
{
    uint32_t random;
    rng_secure(&random, sizeof(random));
    uint32_t microseconds_max = 200U << (try_index < 6 ? try_index : 6); // 12.8 ms at most
    struct timespec pause = {.tv_nsec = (long)(random % microseconds_max) * 1000};
    (void)nanosleep(&pause, NULL); // cut short is fine
}
