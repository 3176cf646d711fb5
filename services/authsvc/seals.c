#include "authsvc/seals.h"

#include <string.h>

#include "base/log.h"

enum { PAGE_KEYS = 100 };

static enum status put(struct authsvc *authsvc, struct found_key *found, struct str sealed,
                       struct arena *arena, struct error *error)
{
    struct batch batch;
    batch_init(&batch, arena, str_from_cstr(found->record->user_id));
    batch.is_unannounced = true; // gateways know the key by its hash
    found->record->sealed_key = arena_cstr(arena, sealed);
    batch_replace_key(&batch, found->record, found->version);
    enum status status = accounts_commit(authsvc->accounts, &batch, error);
    // Another auth service did it, or the key is being deleted.
    return status == STATUS_ABORTED ? STATUS_OK : status;
}

static enum status renew(struct authsvc *authsvc, const key_record *key, struct arena *arena,
                         struct error *error, uint64_t *count)
{
    struct str key_id = str_from_cstr(key->key_id);
    struct str user_id = str_from_cstr(key->user_id);
    struct str before = str_from_cstr(key->sealed_key);
    struct str sealed = {0};
    struct found_key found = {0};
    if (api_key_seal_again(authsvc->authority, before, key_id, user_id, arena, &sealed) !=
            STATUS_OK ||
        str_equal(sealed, before))
        return STATUS_OK;
    enum status status = accounts_get_key(authsvc->accounts, user_id, key_id, arena, error, &found);
    if (status == STATUS_NOT_FOUND)
        return STATUS_OK;
    if (status == STATUS_OK)
        status = put(authsvc, &found, sealed, arena, error);
    *count += status == STATUS_OK;
    return status;
}

static enum status renew_page(struct authsvc *authsvc, struct arena *arena, struct error *error,
                              struct str *position, uint64_t *count)
{
    struct key_page page = {0};
    TRY(accounts_scan_keys(authsvc->accounts, *position, PAGE_KEYS, arena, error, &page));
    for (uint32_t i = 0; i < page.count; i++)
        TRY(renew(authsvc, page.keys[i], arena, error, count));
    *position = page.position;
    return STATUS_OK;
}

enum status seals_renew(struct authsvc *authsvc, struct error *error)
{
    char kept[ACCOUNT_KEY_SIZE_MAX];
    struct str position = {kept, 0};
    enum status status = STATUS_OK;
    uint64_t count = 0;
    if (authsvc->secrets.previous_jwt[0] == '\0')
        return STATUS_OK;
    do {
        struct arena *arena = arena_create(ACCOUNTS_ARENA_SIZE);
        status = renew_page(authsvc, arena, error, &position, &count);
        if (status == STATUS_OK && position.len > 0) {
            memcpy(kept, position.data, position.len);
            position.data = kept;
        }
        arena_destroy(arena);
    } while (status == STATUS_OK && position.len > 0);
    if (status == STATUS_OK && count > 0)
        log_info("API keys sealed under the new secret", LOG_U64("keys", count));
    return status;
}
