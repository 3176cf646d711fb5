#include "identity/remembered.h"

#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

// A set-associative table of pointers to immutable entries, with hazard pointers (Michael, 2004).
// A reader publishes the entry that it is about to read in a place of its own and looks again
// whether the table still has it; a writer takes an entry out of the table and frees it only when
// no place shows it. Entries that are still being read wait in a list, which is looked through at
// the next change, so at most PLACE_COUNT of them ever wait. Places belong to nobody: a reader
// takes the first free one, starting where its thread found one before.
//
// Beside each pointer lies the hash of its token, which spares the reader the places for entries
// that are not his. It may belong to the pointer before or after: then the token is not found, or
// compared in vain.

enum { SET_COUNT = 1024, WAY_COUNT = 4, SLOT_COUNT = SET_COUNT * WAY_COUNT, PLACE_COUNT = 64 };

struct entry {
    struct entry *next_waiting;
    uint64_t hash;
    struct str jwt;
    struct caller caller;
    atomic_int_fast64_t last_used_at;   // for choosing what goes
    atomic_int_fast64_t unreported_use; // 0: reported
};

// Each place on cache lines of its own, the neighbour that processors fetch along included.
struct place {
    _Atomic(struct entry *) entry;
    char padding[120];
};

struct remembered {
    uint64_t seed;
    _Atomic uint64_t hashes[SLOT_COUNT];
    _Atomic(struct entry *) slots[SLOT_COUNT];
    struct entry *waiting; // out of the table, perhaps still being read
    char padding[128];
    struct place places[PLACE_COUNT];
};

struct remembered *remembered_create(void)
{
    struct remembered *remembered = mem_alloc(sizeof(*remembered));
    rng_secure(&remembered->seed, sizeof(remembered->seed));
    return remembered;
}

void remembered_destroy(struct remembered *remembered)
{
    for (size_t i = 0; i < SLOT_COUNT; i++)
        mem_free(atomic_load(&remembered->slots[i]));
    while (remembered->waiting != NULL) {
        struct entry *entry = remembered->waiting;
        remembered->waiting = entry->next_waiting;
        mem_free(entry);
    }
    mem_free(remembered);
}

uint64_t remembered_hash(const struct remembered *remembered, struct str jwt)
{
    return hash64(str_span(jwt), remembered->seed);
}

// --- Reading

static uint32_t thread_place(void)
{
    static atomic_uint thread_count;
    static _Thread_local uint32_t place = UINT32_MAX;
    if (place == UINT32_MAX)
        place = atomic_fetch_add_explicit(&thread_count, 1, memory_order_relaxed) % PLACE_COUNT;
    return place;
}

// The place now shows the entry that the slot has, so that the entry stays until the place is
// empty again. NULL: the slot is empty, and no place is held.
static struct place *protect(struct remembered *remembered, _Atomic(struct entry *) *slot)
{
    uint32_t start = thread_place();
    struct place *place = NULL;
    struct entry *entry = atomic_load(slot);
    // Places are held for less than a microsecond; more readers than places wait for one.
    for (uint32_t i = 0; entry != NULL && place == NULL; i++) {
        struct place *candidate = &remembered->places[(start + i) % PLACE_COUNT];
        struct entry *expected = NULL;
        if (atomic_compare_exchange_strong(&candidate->entry, &expected, entry))
            place = candidate;
    }
    while (place != NULL) {
        struct entry *now = atomic_load(slot);
        if (now == entry)
            return place;
        entry = now;
        atomic_store(&place->entry, entry);
        if (entry == NULL)
            return NULL;
    }
    return NULL;
}

static void unprotect(struct place *place)
{
    atomic_store_explicit(&place->entry, NULL, memory_order_release);
}

static size_t caller_size(const struct caller *caller)
{
    size_t size = sizeof(struct str) * caller->collection_count + caller->user_id.len +
                  caller->key_id.len + caller->role.len;
    for (uint32_t i = 0; i < caller->collection_count; i++)
        size += caller->collections[i].len;
    return size;
}

static struct str copy_str(char **cursor, struct str str)
{
    char *copy = *cursor;
    if (str.len > 0)
        memcpy(copy, str.data, str.len);
    *cursor += str.len;
    return (struct str){copy, str.len};
}

// memory has caller_size bytes; returns what is behind them.
static char *fill_caller(const struct caller *caller, void *memory, struct caller *out_caller)
{
    struct str *collections = memory;
    char *cursor = (char *)(collections + caller->collection_count);
    *out_caller = *caller;
    out_caller->user_id = copy_str(&cursor, caller->user_id);
    out_caller->key_id = copy_str(&cursor, caller->key_id);
    out_caller->role = copy_str(&cursor, caller->role);
    out_caller->collections = collections;
    for (uint32_t i = 0; i < caller->collection_count; i++)
        collections[i] = copy_str(&cursor, caller->collections[i]);
    return cursor;
}

enum status caller_copy(const struct caller *caller, struct arena *arena, struct error *error,
                        struct caller *out_caller)
{
    void *memory = arena_try_alloc(arena, caller_size(caller));
    if (memory == NULL)
        return error_set(error, STATUS_EXHAUSTED, "no room for the caller's rights");
    (void)fill_caller(caller, memory, out_caller);
    return STATUS_OK;
}

// Written at most once a second, so that requests with one token do not fight for its line.
static void touch(struct entry *entry, int64_t now)
{
    if (atomic_load_explicit(&entry->last_used_at, memory_order_relaxed) == now)
        return;
    atomic_store_explicit(&entry->last_used_at, now, memory_order_relaxed);
    if (entry->caller.key_id.len > 0)
        atomic_store_explicit(&entry->unreported_use, now, memory_order_relaxed);
}

enum status remembered_get(struct remembered *remembered, struct str jwt, uint64_t hash,
                           struct arena *arena, struct error *error, struct caller *out_caller)
{
    size_t first = hash % SET_COUNT * WAY_COUNT;
    for (size_t i = first; i < first + WAY_COUNT; i++) {
        if (atomic_load_explicit(&remembered->hashes[i], memory_order_relaxed) != hash)
            continue;
        struct place *place = protect(remembered, &remembered->slots[i]);
        if (place == NULL)
            continue;
        struct entry *entry = atomic_load_explicit(&place->entry, memory_order_relaxed);
        enum status status = STATUS_NOT_FOUND;
        if (entry->hash == hash && str_equal(entry->jwt, jwt)) {
            status = caller_copy(&entry->caller, arena, error, out_caller);
            touch(entry, clock_unix_seconds());
        }
        unprotect(place);
        if (status != STATUS_NOT_FOUND)
            return status;
    }
    return STATUS_NOT_FOUND;
}

// --- Changing

static bool is_being_read(struct remembered *remembered, const struct entry *entry)
{
    for (size_t i = 0; i < PLACE_COUNT; i++) {
        if (atomic_load(&remembered->places[i].entry) == entry)
            return true;
    }
    return false;
}

static void free_waiting(struct remembered *remembered)
{
    struct entry **link = &remembered->waiting;
    while (*link != NULL) {
        struct entry *entry = *link;
        if (is_being_read(remembered, entry)) {
            link = &entry->next_waiting;
        } else {
            *link = entry->next_waiting;
            mem_free(entry);
        }
    }
}

static void report_use(struct entry *entry, remembered_use_fn used, void *context)
{
    int64_t use = atomic_exchange_explicit(&entry->unreported_use, 0, memory_order_relaxed);
    if (use != 0)
        used(entry->caller.key_id, use, context);
}

// A use that is noted while the entry is on its way out is lost; the next request reports one.
static void replace(struct remembered *remembered, size_t slot, struct entry *entry,
                    remembered_use_fn used, void *context)
{
    struct entry *old = atomic_exchange(&remembered->slots[slot], entry);
    atomic_store_explicit(&remembered->hashes[slot], entry != NULL ? entry->hash : 0,
                          memory_order_relaxed);
    if (old == NULL)
        return;
    report_use(old, used, context);
    old->next_waiting = remembered->waiting;
    remembered->waiting = old;
}

static struct entry *new_entry(struct str jwt, uint64_t hash, const struct caller *caller)
{
    struct entry *entry = mem_alloc(sizeof(*entry) + caller_size(caller) + jwt.len);
    char *cursor = fill_caller(caller, entry + 1, &entry->caller);
    entry->hash = hash;
    entry->jwt = copy_str(&cursor, jwt);
    atomic_store_explicit(&entry->last_used_at, clock_unix_seconds(), memory_order_relaxed);
    return entry;
}

// Where the token lies already, else an empty slot, else the one that was used longest ago.
static size_t choose_slot(struct remembered *remembered, struct str jwt, uint64_t hash)
{
    size_t first = hash % SET_COUNT * WAY_COUNT;
    size_t chosen = first;
    int64_t chosen_used_at = INT64_MAX;
    for (size_t i = first; i < first + WAY_COUNT; i++) {
        struct entry *entry = atomic_load(&remembered->slots[i]);
        if (entry != NULL && entry->hash == hash && str_equal(entry->jwt, jwt))
            return i;
        int64_t used_at = entry == NULL
                              ? INT64_MIN
                              : atomic_load_explicit(&entry->last_used_at, memory_order_relaxed);
        if (used_at < chosen_used_at) {
            chosen = i;
            chosen_used_at = used_at;
        }
    }
    return chosen;
}

void remembered_put(struct remembered *remembered, struct str jwt, uint64_t hash,
                    const struct caller *caller, remembered_use_fn used, void *context)
{
    size_t slot = choose_slot(remembered, jwt, hash);
    replace(remembered, slot, new_entry(jwt, hash, caller), used, context);
    free_waiting(remembered);
}

void remembered_forget_key(struct remembered *remembered, struct str key_id, remembered_use_fn used,
                           void *context)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        struct entry *entry = atomic_load_explicit(&remembered->slots[i], memory_order_relaxed);
        if (entry != NULL && str_equal(entry->caller.key_id, key_id))
            replace(remembered, i, NULL, used, context);
    }
    free_waiting(remembered);
}

void remembered_forget_user(struct remembered *remembered, struct str user_id,
                            remembered_use_fn used, void *context)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        struct entry *entry = atomic_load_explicit(&remembered->slots[i], memory_order_relaxed);
        if (entry != NULL && str_equal(entry->caller.user_id, user_id))
            replace(remembered, i, NULL, used, context);
    }
    free_waiting(remembered);
}

void remembered_forget_all(struct remembered *remembered, remembered_use_fn used, void *context)
{
    for (size_t i = 0; i < SLOT_COUNT; i++)
        replace(remembered, i, NULL, used, context);
    free_waiting(remembered);
}

void remembered_take_uses(struct remembered *remembered, remembered_use_fn used, void *context)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        struct entry *entry = atomic_load_explicit(&remembered->slots[i], memory_order_relaxed);
        if (entry != NULL)
            report_use(entry, used, context);
    }
}
