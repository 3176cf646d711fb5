#include "placementdriver/state.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "placementdriver/state_internal.h"

struct str text_copy(struct str text)
{
    if (text.len == 0)
        return (struct str){0};
    char *copy = mem_alloc(text.len);
    memcpy(copy, text.data, text.len);
    return (struct str){copy, text.len};
}

void text_free(struct str text)
{
    // The cast takes back what text_copy gave away as const.
    union {
        const char *text;
        char *memory;
    } owned = {text.data};
    mem_free(owned.memory);
}

static const char *const distance_texts[DISTANCE_COUNT] = {"cosine", "euclidean", "dot"};

const char *distance_text(enum distance distance)
{
    ASSERT(distance < DISTANCE_COUNT);
    return distance_texts[distance];
}

bool distance_parse(struct str text, enum distance *out_distance)
{
    if (text.len == 0) {
        *out_distance = DISTANCE_COSINE;
        return true;
    }
    for (int i = 0; i < DISTANCE_COUNT; i++) {
        if (str_equal_cstr(text, distance_texts[i])) {
            *out_distance = (enum distance)i;
            return true;
        }
    }
    return false;
}

struct str collection_short_name(struct str name)
{
    struct str rest = name;
    (void)str_cut(&rest, '/');
    return str_contains(name, STR("/")) ? rest : name;
}

// --- Workers

void state_init(struct state *state)
{
    *state = (struct state){.next_worker_id = 1, .next_shard_id = 1};
    table_init(&state->collections);
    table_init(&state->entries);
}

static void free_profile(const struct worker_profile *profile)
{
    text_free(profile->identity);
    text_free(profile->grpc_address);
    text_free(profile->raft_address);
    text_free(profile->rack);
    text_free(profile->zone);
    text_free(profile->region);
    text_free(profile->capabilities);
}

void state_set_profile(struct worker *worker, const struct worker_profile *profile)
{
    struct worker_profile old = worker->profile;
    worker->profile = *profile;
    worker->profile.identity = text_copy(profile->identity);
    worker->profile.grpc_address = text_copy(profile->grpc_address);
    worker->profile.raft_address = text_copy(profile->raft_address);
    worker->profile.rack = text_copy(profile->rack);
    worker->profile.zone = text_copy(profile->zone);
    worker->profile.region = text_copy(profile->region);
    worker->profile.capabilities = text_copy(profile->capabilities);
    free_profile(&old);
}

bool worker_profile_equal(const struct worker_profile *a, const struct worker_profile *b)
{
    return str_equal(a->identity, b->identity) && str_equal(a->grpc_address, b->grpc_address) &&
           str_equal(a->raft_address, b->raft_address) && str_equal(a->rack, b->rack) &&
           str_equal(a->zone, b->zone) && str_equal(a->region, b->region) &&
           str_equal(a->capabilities, b->capabilities) && a->cpu_cores == b->cpu_cores &&
           a->memory_bytes == b->memory_bytes && a->disk_bytes == b->disk_bytes;
}

bool worker_is_search_only(const struct worker *worker)
{
    struct str rest = worker->profile.capabilities;
    while (rest.len > 0) {
        if (str_equal(str_cut(&rest, ','), STR("search-only")))
            return true;
    }
    return false;
}

// The first worker whose id is not below.
static uint32_t find_place(const struct state *state, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = state->worker_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (state->workers[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct worker *state_worker(const struct state *state, uint64_t id)
{
    uint32_t place = find_place(state, id);
    bool is_there = place < state->worker_count && state->workers[place]->id == id;
    return is_there ? state->workers[place] : NULL;
}

struct worker *state_find_worker(const struct state *state, const struct worker_profile *profile)
{
    for (uint32_t i = 0; i < state->worker_count && profile->identity.len > 0; i++) {
        if (str_equal(state->workers[i]->profile.identity, profile->identity))
            return state->workers[i];
    }
    // By address only where one of the two says nothing better of itself.
    for (uint32_t i = 0; i < state->worker_count; i++) {
        const struct worker_profile *other = &state->workers[i]->profile;
        if ((profile->identity.len == 0 || other->identity.len == 0) &&
            str_equal(other->grpc_address, profile->grpc_address))
            return state->workers[i];
    }
    return NULL;
}

struct worker *state_add_worker(struct state *state, uint64_t id,
                                const struct worker_profile *profile)
{
    ASSERT(state->worker_count == 0 || state->workers[state->worker_count - 1]->id < id);
    if (state->worker_count == state->worker_capacity) {
        state->worker_capacity = state->worker_capacity == 0 ? 8 : state->worker_capacity * 2;
        state->workers =
            mem_resize(state->workers, state->worker_capacity * sizeof(struct worker *));
    }
    struct worker *worker = mem_alloc(sizeof(*worker));
    worker->id = id;
    state_set_profile(worker, profile);
    state->workers[state->worker_count++] = worker;
    return worker;
}

static void free_worker(struct worker *worker)
{
    free_profile(&worker->profile);
    mem_free(worker);
}

void state_remove_worker(struct state *state, uint64_t id)
{
    uint32_t place = find_place(state, id);
    ASSERT(place < state->worker_count && state->workers[place]->id == id);
    free_worker(state->workers[place]);
    state->worker_count--;
    memmove(state->workers + place, state->workers + place + 1,
            (state->worker_count - place) * sizeof(struct worker *));
}

// --- Collections

struct collection *state_collection(const struct state *state, struct str name)
{
    return table_get(&state->collections, name);
}

struct shard *collection_shard(const struct collection *collection, uint32_t shard_id)
{
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        if (collection->shards[i].id == shard_id)
            return &collection->shards[i];
    }
    return NULL;
}

bool shard_has_replica(const struct shard *shard, uint64_t worker_id)
{
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        if (shard->replica_ids[i] == worker_id)
            return true;
    }
    return false;
}

uint32_t shard_voter_count(const struct shard *shard)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < shard->replica_count; i++)
        count += shard->roles[i] == REPLICA_VOTER;
    return count;
}

void state_count_replicas(struct state *state, const struct shard *shard, bool is_new)
{
    const uint32_t one = is_new ? 1 : UINT32_MAX;
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        struct worker *worker = state_worker(state, shard->replica_ids[i]);
        if (worker == NULL)
            continue; // only in a broken snapshot, which state_check refuses
        worker->shard_count += one;
        worker->first_count += i == 0 ? one : 0;
    }
}

static void count_collection(struct state *state, const struct collection *collection, bool is_new)
{
    for (uint32_t i = 0; i < collection->shard_count; i++)
        state_count_replicas(state, &collection->shards[i], is_new);
    state->shard_count += is_new ? collection->shard_count : 0 - collection->shard_count;
}

struct collection *state_add_collection(struct state *state, struct str name, struct shard *shards,
                                        uint32_t shard_count)
{
    struct collection *collection = mem_alloc(sizeof(*collection));
    collection->name = text_copy(name);
    collection->shards = shards;
    collection->shard_count = shard_count;
    table_put(&state->collections, collection->name, collection);
    count_collection(state, collection, true);
    return collection;
}

static void free_collection(struct collection *collection)
{
    text_free(collection->name);
    mem_free(collection->shards);
    mem_free(collection);
}

void state_remove_collection(struct state *state, struct collection *collection)
{
    count_collection(state, collection, false);
    table_remove(&state->collections, collection->name);
    free_collection(collection);
}

// --- Entries

struct entry *state_entry(const struct state *state, struct str key)
{
    return table_get(&state->entries, key);
}

void state_put_entry(struct state *state, struct str key, struct str value, uint64_t version)
{
    struct entry *entry = state_entry(state, key);
    if (entry == NULL) {
        entry = mem_alloc(sizeof(*entry));
        entry->key = text_copy(key);
        table_put(&state->entries, entry->key, entry);
        state->entries_size += key.len;
    }
    state->entries_size += value.len - entry->value.len;
    text_free(entry->value);
    entry->value = text_copy(value);
    entry->version = version;
}

static void free_entry(struct entry *entry)
{
    text_free(entry->key);
    text_free(entry->value);
    mem_free(entry);
}

void state_remove_entry(struct state *state, struct str key)
{
    struct entry *entry = table_remove(&state->entries, key);
    if (entry == NULL)
        return;
    state->entries_size -= entry->key.len + entry->value.len;
    free_entry(entry);
}

void state_deinit(struct state *state)
{
    for (uint32_t i = 0; i < state->worker_count; i++)
        free_worker(state->workers[i]);
    mem_free(state->workers);
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL)
        free_collection(collection);
    cursor = table_seek(&state->entries, STR(""));
    struct entry *entry;
    while ((entry = table_next(&cursor)) != NULL)
        free_entry(entry);
    table_deinit(&state->collections);
    table_deinit(&state->entries);
    text_free(state->incarnation);
    state_init(state);
}
