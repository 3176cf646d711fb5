#include <string.h>

#include "placementdriver/driver.h"

// The values of the auth service: read, listed, and changed by compare-and-set.

enum { LIST_LIMIT_MAX = 1000, LIST_SIZE_MAX = 2 << 20, KEY_SIZE_MAX = 1024 };

static ProtobufCBinaryData copy_bytes(struct arena *arena, struct str bytes)
{
    uint8_t *copy = arena_alloc(arena, bytes.len + 1);
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    return (ProtobufCBinaryData){bytes.len, copy};
}

static struct str bytes_str(const ProtobufCBinaryData *bytes)
{
    return (struct str){(const char *)bytes->data, bytes->len};
}

static void fill_entry(const struct entry *entry, struct arena *arena, PD(StateEntry) * out)
{
    vectron__placementdriver__v1__state_entry__init(out);
    out->key = copy_bytes(arena, entry->key);
    out->value = copy_bytes(arena, entry->value);
    out->version = entry->version;
}

// --- Get

static void get_entry(struct driver *driver, struct rpc *rpc)
{
    const PD(GetStateRequest) *request = (const void *)rpc_request(rpc);
    PD(GetStateResponse) response = PD_INIT(GET_STATE_RESPONSE);
    PD(StateEntry) found = PD_INIT(STATE_ENTRY);
    pthread_mutex_lock(&driver->lock);
    const struct entry *entry = state_entry(&driver->state, bytes_str(&request->key));
    if (entry != NULL)
        fill_entry(entry, rpc_arena(rpc), &found);
    else
        found.key = request->key; // version 0: there is none
    pthread_mutex_unlock(&driver->lock);
    response.entry = &found;
    rpc_reply(rpc, &response.base);
}

void entry_get(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, get_entry);
}

// --- Put

static void put_done(struct rpc *rpc, enum status status, uint64_t value, const struct error *error,
                     void *context)
{
    (void)value;
    (void)context;
    PD(PutStateResponse) response = PD_INIT(PUT_STATE_RESPONSE);
    if (status != STATUS_OK)
        driver_fail(rpc, status, error);
    else
        rpc_reply(rpc, &response.base);
}

static enum status read_changes(const PD(PutStateRequest) * request, struct arena *arena,
                                struct error *error, struct command *command)
{
    struct entry_change *changes = arena_alloc(arena, (request->n_entries + 1) * sizeof(*changes));
    for (size_t i = 0; i < request->n_entries; i++) {
        const PD(StateEntry) *entry = request->entries[i];
        if (entry->key.len == 0 || entry->key.len > KEY_SIZE_MAX)
            return error_set(error, STATUS_INVALID,
                             "entries[%zu].key has %zu bytes; it must have 1 to %d", i,
                             entry->key.len, KEY_SIZE_MAX);
        changes[i] = (struct entry_change){
            .key = bytes_str(&entry->key),
            .value = bytes_str(&entry->value),
            .expected_version = entry->version,
            .is_removal = entry->is_removed,
        };
    }
    command->changes = changes;
    command->change_count = (uint32_t)request->n_entries;
    return STATUS_OK;
}

void entry_put(struct rpc *rpc, void *context)
{
    struct command command = {.kind = COMMAND_PUT_ENTRIES};
    struct error error;
    enum status status =
        read_changes((const void *)rpc_request(rpc), rpc_arena(rpc), &error, &command);
    if (status != STATUS_OK)
        rpc_fail_error(rpc, status, &error);
    else
        driver_propose(context, rpc, &command, put_done, context);
}

// --- List

// Entries under the prefix and behind `after`, in the order of their keys.
static void fill_list(const struct state *state, const PD(ListStateRequest) * request,
                      struct arena *arena, PD(ListStateResponse) * out)
{
    struct str prefix = bytes_str(&request->prefix);
    struct str after = bytes_str(&request->after);
    size_t limit =
        request->limit > 0 && request->limit < LIST_LIMIT_MAX ? request->limit : LIST_LIMIT_MAX;
    size_t size = 0;
    PD(StateEntry) *entries = arena_alloc(arena, limit * sizeof(*entries));
    out->entries = arena_alloc(arena, limit * sizeof(*out->entries));
    struct table_cursor cursor =
        table_seek(&state->entries, str_compare(after, prefix) > 0 ? after : prefix);
    const struct entry *entry;
    while ((entry = table_next(&cursor)) != NULL && str_starts_with(entry->key, prefix)) {
        if (after.len > 0 && str_compare(entry->key, after) <= 0)
            continue;
        if (out->n_entries == limit || size >= LIST_SIZE_MAX) {
            out->has_more = true;
            return;
        }
        fill_entry(entry, arena, &entries[out->n_entries]);
        out->entries[out->n_entries] = &entries[out->n_entries];
        out->n_entries++;
        size += entry->key.len + entry->value.len;
    }
}

static void list_entries(struct driver *driver, struct rpc *rpc)
{
    PD(ListStateResponse) response = PD_INIT(LIST_STATE_RESPONSE);
    pthread_mutex_lock(&driver->lock);
    fill_list(&driver->state, (const void *)rpc_request(rpc), rpc_arena(rpc), &response);
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &response.base);
}

void entry_list(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, list_entries);
}
