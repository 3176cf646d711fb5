#include "authsvc/pd_store.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "api/client.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"

enum { CALL_SECONDS_MAX = 5, TRY_SECONDS_MAX = 2, RETRY_MS = 50 };

struct pd_store {
    struct account_store base; // first
    struct cluster_client *client;
    atomic_bool is_interrupted;
};

static const struct account_store_ops ops;

static struct pd_store *self(struct account_store *store)
{
    return (struct pd_store *)store;
}

// --- Calls

static enum status try_once(struct pd_store *store, const struct pd_question *question,
                            uint64_t end_ns, struct arena *arena, struct error *error,
                            const ProtobufCMessage **out_answer)
{
    struct channel *channel = cluster_client_pd(store->client);
    uint64_t latest = clock_monotonic_ns() + TRY_SECONDS_MAX * NS_PER_SECOND;
    uint32_t metadata_count = 0;
    const struct metadata *metadata = cluster_client_metadata(store->client, &metadata_count);
    enum status status = client_call_wait(
        &(struct client_request){
            .channel = channel,
            .service = question->service,
            .method = question->method,
            .message = question->message,
            .deadline_ns = end_ns < latest ? end_ns : latest,
            .metadata = metadata,
            .metadata_count = metadata_count,
        },
        arena, error, out_answer);
    if (status == STATUS_UNAVAILABLE || status == STATUS_TIMEOUT)
        cluster_client_pd_failed(store->client, channel);
    return status;
}

// What the placement driver says of us is not what we say to our own callers.
static enum status translate(enum status status, struct error *error)
{
    switch (status) {
    case STATUS_OK:
    case STATUS_NOT_FOUND:
    case STATUS_ABORTED:
    case STATUS_EXHAUSTED:
    case STATUS_UNAVAILABLE:
    case STATUS_TIMEOUT:
        break;
    case STATUS_FORBIDDEN:
    case STATUS_UNAUTHENTICATED:
        status = STATUS_UNAVAILABLE;
        break;
    default:
        status = STATUS_BUG;
        break;
    }
    return status == STATUS_OK ? status : error_prefix(error, status, "placement driver");
}

enum status pd_store_ask(struct account_store *store, const struct pd_question *question,
                         struct arena *arena, struct error *error,
                         const ProtobufCMessage **out_answer)
{
    struct pd_store *pd_store = self(store);
    ASSERT(store->ops == &ops);
    uint64_t end_ns = clock_monotonic_ns() + CALL_SECONDS_MAX * NS_PER_SECOND;
    for (;;) {
        enum status status = try_once(pd_store, question, end_ns, arena, error, out_answer);
        bool is_over = (status != STATUS_UNAVAILABLE && status != STATUS_TIMEOUT) ||
                       !question->may_repeat || atomic_load(&pd_store->is_interrupted) ||
                       clock_monotonic_ns() >= end_ns;
        if (is_over)
            return translate(status, error);
        struct timespec pause = {.tv_nsec = (long)(RETRY_MS * NS_PER_MS)};
        (void)nanosleep(&pause, NULL); // cut short is fine
    }
}

// --- The store

static enum status ask(struct account_store *store, const char *method,
                       const ProtobufCMessage *message, struct arena *arena, struct error *error,
                       const ProtobufCMessage **out_answer)
{
    return pd_store_ask(store,
                        &(struct pd_question){
                            .service = &vectron__placementdriver__v1__state_service__descriptor,
                            .method = method,
                            .message = message,
                            .may_repeat = strcmp(method, "PutState") != 0,
                        },
                        arena, error, out_answer);
}

static ProtobufCBinaryData to_bytes(struct str str)
{
    // The message is only read.
    union {
        const char *text;
        uint8_t *bytes;
    } cast = {.text = str.data};
    return (ProtobufCBinaryData){.len = str.len, .data = cast.bytes};
}

static struct account_entry to_entry(const Vectron__Placementdriver__V1__StateEntry *entry)
{
    return (struct account_entry){
        .key = {(const char *)entry->key.data, entry->key.len},
        .value = {(const char *)entry->value.data, entry->value.len},
        .version = entry->version,
    };
}

static enum status pd_get(struct account_store *store, struct str key, struct arena *arena,
                          struct error *error, struct account_entry *out_entry)
{
    Vectron__Placementdriver__V1__GetStateRequest request =
        VECTRON__PLACEMENTDRIVER__V1__GET_STATE_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.key = to_bytes(key);
    TRY(ask(store, "GetState", &request.base, arena, error, &answer));
    const Vectron__Placementdriver__V1__StateEntry *entry =
        ((const Vectron__Placementdriver__V1__GetStateResponse *)(const void *)answer)->entry;
    if (entry == NULL || entry->version == 0)
        return error_set(error, STATUS_NOT_FOUND, "no such entry");
    *out_entry = to_entry(entry);
    out_entry->key = arena_str(arena, key);
    return STATUS_OK;
}

static enum status pd_list(struct account_store *store, const struct account_list *list,
                           struct arena *arena, struct error *error, struct account_page *out_page)
{
    Vectron__Placementdriver__V1__ListStateRequest request =
        VECTRON__PLACEMENTDRIVER__V1__LIST_STATE_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.prefix = to_bytes(list->prefix);
    request.after = to_bytes(list->after);
    request.limit = list->limit;
    TRY(ask(store, "ListState", &request.base, arena, error, &message));
    const Vectron__Placementdriver__V1__ListStateResponse *answer = (const void *)message;
    struct account_entry *entries =
        arena_try_alloc(arena, sizeof(*entries) * (answer->n_entries + 1));
    if (entries == NULL)
        return error_set(error, STATUS_EXHAUSTED, "a page of %zu entries is too large",
                         answer->n_entries);
    for (size_t i = 0; i < answer->n_entries; i++)
        entries[i] = to_entry(answer->entries[i]);
    *out_page = (struct account_page){entries, (uint32_t)answer->n_entries, answer->has_more};
    return STATUS_OK;
}

static enum status pd_put(struct account_store *store, const struct account_entry *entries,
                          uint32_t count, struct error *error)
{
    Vectron__Placementdriver__V1__PutStateRequest request =
        VECTRON__PLACEMENTDRIVER__V1__PUT_STATE_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    struct arena *arena = arena_create(SIZE_MAX);
    Vectron__Placementdriver__V1__StateEntry *changes =
        arena_alloc(arena, sizeof(*changes) * ((size_t)count + 1));
    request.entries = arena_alloc(arena, sizeof(*request.entries) * ((size_t)count + 1));
    request.n_entries = count;
    for (uint32_t i = 0; i < count; i++) {
        vectron__placementdriver__v1__state_entry__init(&changes[i]);
        changes[i].key = to_bytes(entries[i].key);
        changes[i].value = to_bytes(entries[i].value);
        changes[i].version = entries[i].version;
        changes[i].is_removed = entries[i].is_removed;
        request.entries[i] = &changes[i];
    }
    enum status status = ask(store, "PutState", &request.base, arena, error, &answer);
    arena_destroy(arena);
    return status;
}

static void pd_destroy(struct account_store *store)
{
    mem_free(self(store));
}

static const struct account_store_ops ops = {
    .get = pd_get,
    .list = pd_list,
    .put = pd_put,
    .destroy = pd_destroy,
};

struct account_store *pd_store_create(struct cluster_client *client)
{
    struct pd_store *store = mem_alloc(sizeof(*store));
    store->base.ops = &ops;
    store->client = client;
    return &store->base;
}

void pd_store_interrupt(struct account_store *store)
{
    ASSERT(store->ops == &ops);
    atomic_store(&self(store)->is_interrupted, true);
}
