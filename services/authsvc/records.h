#pragma once

#include "api/auth.pb-c.h"
#include "authsvc/accounts.h"
#include "identity/token.h"

// Records as the messages that go out. What the messages point to is the records'.

// The enums of the wire and of lib/identity have the same numbers.
enum plan record_plan(const user_record *user);
bool record_is_admin(const user_record *user);

void record_to_profile(const user_record *user, Vectron__Auth__V1__UserProfile *out_profile);
// uses may be NULL: when it was last used stays 0.
void record_to_key_info(const key_record *key, const uses_record *uses,
                        Vectron__Auth__V1__APIKey *out_info);
void record_to_identity_key(const key_record *key, Vectron__Auth__V1__KeyRecord *out_record);
void record_to_identity_user(const user_record *user, Vectron__Auth__V1__UserRecord *out_record);

// Expired by now (Unix seconds), without leeway.
bool key_has_expired(const key_record *key, int64_t now);
