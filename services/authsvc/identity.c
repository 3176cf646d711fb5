#include "authsvc/identity.h"

#include <stdlib.h>
#include <string.h>

#include "authsvc/records.h"
#include "base/clock.h"

enum {
    USES_KEPT_MAX = 1500,     // of a user; the record has room for about 2,000
    USE_STEP_SECONDS = 30,    // what is newer by less is not worth a write
    REPORTED_USES_MAX = 10000 // in one request
};

// --- LookupIdentity. What does not exist comes back as deleted.

static enum status add_user(struct work *work, char *user_id,
                            Vectron__Auth__V1__IdentityChanges *changes)
{
    Vectron__Auth__V1__UserRecord *record =
        work_message(work, &vectron__auth__v1__user_record__descriptor);
    user_record *user = NULL;
    uint64_t version = 0;
    enum status status = accounts_get_user(work->authsvc->accounts, str_from_cstr(user_id),
                                           work->arena, &work->error, &user, &version);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK)
        record_to_identity_user(user, record);
    record->user_id = user_id;
    record->is_deleted = status == STATUS_NOT_FOUND;
    changes->users[changes->n_users++] = record;
    return STATUS_OK;
}

static enum status add_key(struct work *work, char *key_id,
                           Vectron__Auth__V1__IdentityChanges *changes)
{
    struct accounts *accounts = work->authsvc->accounts;
    Vectron__Auth__V1__KeyRecord *record =
        work_message(work, &vectron__auth__v1__key_record__descriptor);
    struct str id = str_from_cstr(key_id);
    struct str owner = {0};
    struct found_key key = {0};
    uint64_t version = 0;
    enum status status = STATUS_NOT_FOUND;
    if (api_key_id_is_valid(id))
        status = accounts_find_key_owner(accounts, id, work->arena, &work->error, &owner, &version);
    if (status == STATUS_OK)
        status = accounts_get_key(accounts, owner, id, work->arena, &work->error, &key);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    if (status == STATUS_OK)
        record_to_identity_key(key.record, record);
    record->key_id = key_id;
    record->is_deleted = status == STATUS_NOT_FOUND;
    changes->keys[changes->n_keys++] = record;
    return STATUS_OK;
}

enum status identity_lookup(struct work *work)
{
    const Vectron__Auth__V1__LookupIdentityRequest *request = (const void *)work->request;
    Vectron__Auth__V1__IdentityChanges *changes =
        work_message(work, &vectron__auth__v1__identity_changes__descriptor);
    changes->users = arena_alloc(work->arena, sizeof(*changes->users));
    changes->keys = arena_alloc(work->arena, sizeof(*changes->keys));
    if (request->user_id[0] != '\0')
        TRY(add_user(work, request->user_id, changes));
    if (request->key_id[0] != '\0')
        TRY(add_key(work, request->key_id, changes));
    work->response = &changes->base;
    return STATUS_OK;
}

// --- ReportKeyUse

struct use {
    struct str user_id;
    struct str key_id;
    int64_t last_used_at;
};

static int compare_user(const void *a, const void *b)
{
    return str_compare(((const struct use *)a)->user_id, ((const struct use *)b)->user_id);
}

static int compare_newest_first(const void *a, const void *b)
{
    const Vectron__Auth__V1__KeyUse *const *x = a;
    const Vectron__Auth__V1__KeyUse *const *y = b;
    return ((*x)->last_used_at < (*y)->last_used_at) - ((*x)->last_used_at > (*y)->last_used_at);
}

static Vectron__Auth__V1__KeyUse *find_use(const uses_record *uses, struct str key_id)
{
    for (size_t i = 0; i < uses->n_uses; i++) {
        if (str_equal_cstr(key_id, uses->uses[i]->key_id))
            return uses->uses[i];
    }
    return NULL;
}

// The uses of one user, next to each other.
struct use_run {
    const struct use *uses;
    size_t count;
};

// Whether anything is worth writing.
static bool merge(struct work *work, const struct use_run *run, uses_record *uses)
{
    Vectron__Auth__V1__KeyUse **merged =
        arena_alloc(work->arena, sizeof(*merged) * (uses->n_uses + run->count + 1));
    bool has_news = false;
    if (uses->n_uses > 0)
        memcpy(merged, uses->uses, sizeof(*merged) * uses->n_uses);
    uses->uses = merged;
    for (size_t i = 0; i < run->count; i++) {
        const struct use *use = &run->uses[i];
        Vectron__Auth__V1__KeyUse *known = find_use(uses, use->key_id);
        if (known == NULL) {
            known = work_message(work, &vectron__auth__v1__key_use__descriptor);
            known->key_id = arena_cstr(work->arena, use->key_id);
            uses->uses[uses->n_uses++] = known;
        }
        if (use->last_used_at - known->last_used_at < USE_STEP_SECONDS)
            continue;
        known->last_used_at = use->last_used_at;
        has_news = true;
    }
    if (has_news && uses->n_uses > USES_KEPT_MAX) {
        qsort(uses->uses, uses->n_uses, sizeof(uses->uses[0]), compare_newest_first);
        uses->n_uses = USES_KEPT_MAX;
    }
    return has_news;
}

static enum status put_uses(struct work *work, void *context)
{
    const struct use_run *run = context;
    struct accounts *accounts = work->authsvc->accounts;
    uses_record *uses = NULL;
    uint64_t version = 0;
    struct batch batch;
    TRY(accounts_get_uses(accounts, run->uses[0].user_id, work->arena, &work->error, &uses,
                          &version));
    if (!merge(work, run, uses))
        return STATUS_OK;
    batch_init(&batch, work->arena, run->uses[0].user_id);
    batch.is_unannounced = true;
    batch_put_uses(&batch, uses, version);
    return accounts_commit(accounts, &batch, &work->error);
}

// Those of keys that exist, with their users.
static enum status find_users(struct work *work,
                              const Vectron__Auth__V1__ReportKeyUseRequest *request,
                              struct use *uses, size_t *out_count)
{
    int64_t now = clock_unix_seconds();
    size_t count = 0;
    for (size_t i = 0; i < request->n_uses; i++) {
        const Vectron__Auth__V1__KeyUse *said = request->uses[i];
        struct use use = {
            .key_id = str_from_cstr(said->key_id),
            .last_used_at = said->last_used_at < now ? said->last_used_at : now,
        };
        uint64_t version = 0;
        if (!api_key_id_is_valid(use.key_id) || use.last_used_at <= 0)
            continue;
        enum status status = accounts_find_key_owner(
            work->authsvc->accounts, use.key_id, work->arena, &work->error, &use.user_id, &version);
        if (status == STATUS_NOT_FOUND)
            continue;
        TRY(status);
        uses[count++] = use;
    }
    *out_count = count;
    return STATUS_OK;
}

enum status identity_report_use(struct work *work)
{
    const Vectron__Auth__V1__ReportKeyUseRequest *request = (const void *)work->request;
    size_t count = 0;
    if (request->n_uses > REPORTED_USES_MAX)
        return error_set(&work->error, STATUS_INVALID, "uses: %zu, the limit is %d",
                         request->n_uses, REPORTED_USES_MAX);
    struct use *uses = arena_alloc(work->arena, sizeof(*uses) * (request->n_uses + 1));
    TRY(find_users(work, request, uses, &count));
    if (count > 0)
        qsort(uses, count, sizeof(uses[0]), compare_user);
    for (size_t i = 0; i < count;) {
        struct use_run run = {&uses[i], 1};
        while (i + run.count < count && str_equal(uses[i + run.count].user_id, uses[i].user_id))
            run.count++;
        TRY(work_repeat(work, put_uses, &run));
        i += run.count;
    }
    work->response = work_message(work, &vectron__auth__v1__report_key_use_response__descriptor);
    return STATUS_OK;
}
