#include "authsvc/records.h"

#include <string.h>

_Static_assert((int)PLAN_FREE == (int)VECTRON__AUTH__V1__PLAN__FREE &&
                   (int)PLAN_PAID == (int)VECTRON__AUTH__V1__PLAN__PAID,
               "the numbers of the plans");

enum plan record_plan(const user_record *user)
{
    return (enum plan)user->plan;
}

bool record_is_admin(const user_record *user)
{
    return strcmp(user->role, "admin") == 0;
}

void record_to_profile(const user_record *user, Vectron__Auth__V1__UserProfile *out_profile)
{
    vectron__auth__v1__user_profile__init(out_profile);
    out_profile->id = user->user_id;
    out_profile->email = user->email;
    out_profile->created_at = user->created_at;
    out_profile->plan = user->plan;
    out_profile->subscription_status = user->subscription_status;
}

static int64_t last_used_at(const uses_record *uses, const char *key_id)
{
    for (size_t i = 0; uses != NULL && i < uses->n_uses; i++) {
        if (strcmp(uses->uses[i]->key_id, key_id) == 0)
            return uses->uses[i]->last_used_at;
    }
    return 0;
}

void record_to_key_info(const key_record *key, const uses_record *uses,
                        Vectron__Auth__V1__APIKey *out_info)
{
    vectron__auth__v1__apikey__init(out_info);
    out_info->key_prefix = key->key_id;
    out_info->user_id = key->user_id;
    out_info->created_at = key->created_at;
    out_info->name = key->name;
    out_info->role = key->role;
    out_info->n_collections = key->n_collections;
    out_info->collections = key->collections;
    out_info->expires_at = key->expires_at;
    out_info->last_used_at = last_used_at(uses, key->key_id);
}

void record_to_identity_key(const key_record *key, Vectron__Auth__V1__KeyRecord *out_record)
{
    vectron__auth__v1__key_record__init(out_record);
    out_record->key_id = key->key_id;
    out_record->user_id = key->user_id;
    out_record->name = key->name;
    out_record->role = key->role;
    out_record->n_collections = key->n_collections;
    out_record->collections = key->collections;
    out_record->created_at = key->created_at;
    out_record->expires_at = key->expires_at;
    out_record->key_hash = key->key_hash;
}

void record_to_identity_user(const user_record *user, Vectron__Auth__V1__UserRecord *out_record)
{
    vectron__auth__v1__user_record__init(out_record);
    out_record->user_id = user->user_id;
    out_record->plan = user->plan;
    out_record->role = user->role;
    out_record->token_generation = user->token_generation;
}

bool key_has_expired(const key_record *key, int64_t now)
{
    return key->expires_at != 0 && key->expires_at <= now;
}
