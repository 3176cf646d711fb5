#pragma once

#include "api/auth.pb-c.h"
#include "authsvc/accounts.h"

// What somebody asks of a new API key, checked. Pure.

enum {
    KEY_SECONDS_DEFAULT = 90 * 86400,
    KEY_SECONDS_MAX = 3650 * 86400,
    KEY_COLLECTIONS_MAX = 256,
};

// Name, role, collections and times of a record; the rest of it is empty. Strings are borrowed from
// the request. INVALID: the error names field, value and limit.
enum status key_request_check(const Vectron__Auth__V1__CreateAPIKeyRequest *request, int64_t now,
                              struct arena *arena, struct error *error, key_record *out_key);
