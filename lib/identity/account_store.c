#include "identity/account_store.h"

#include "base/assert.h"

void account_store_destroy(struct account_store *store)
{
    if (store != NULL)
        store->ops->destroy(store);
}

enum status account_store_get(struct account_store *store, struct str key, struct arena *arena,
                              struct error *error, struct account_entry *out_entry)
{
    return store->ops->get(store, key, arena, error, out_entry);
}

enum status account_store_list(struct account_store *store, const struct account_list *list,
                               struct arena *arena, struct error *error,
                               struct account_page *out_page)
{
    ASSERT(list->limit >= 1 && list->limit <= ACCOUNT_LIST_MAX);
    return store->ops->list(store, list, arena, error, out_page);
}

enum status account_store_put(struct account_store *store, const struct account_entry *entries,
                              uint32_t count, struct error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i].key.len == 0 || entries[i].key.len > ACCOUNT_KEY_SIZE_MAX)
            return error_set(error, STATUS_INVALID, "a key of %zu bytes; 1 to %d are allowed",
                             entries[i].key.len, ACCOUNT_KEY_SIZE_MAX);
        if (entries[i].value.len > ACCOUNT_VALUE_SIZE_MAX)
            return error_set(error, STATUS_INVALID, "a value of %zu bytes; the limit is %d",
                             entries[i].value.len, ACCOUNT_VALUE_SIZE_MAX);
    }
    return store->ops->put(store, entries, count, error);
}
