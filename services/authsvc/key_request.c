#include "authsvc/key_request.h"

#include <inttypes.h>
#include <string.h>

#include "base/limits.h"

static enum status check_name(const char *name, struct error *error)
{
    size_t size = strlen(name);
    if (size > LIMIT_KEY_NAME_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "name: %zu bytes, the limit is %d", size,
                         LIMIT_KEY_NAME_SIZE_MAX);
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)name[i];
        if (c < 0x20 || c == 0x7f)
            return error_set(error, STATUS_INVALID, "name: a control character at byte %zu", i);
    }
    return STATUS_OK;
}

static enum status check_role(const char *role, struct error *error, char **out_role)
{
    static char roles[][8] = {"owner", "writer", "reader"};
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        // Without one it is the first.
        if (role[0] == '\0' || strcmp(role, roles[i]) == 0) {
            *out_role = roles[i];
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_INVALID,
                     "role: \"%.32s\" is none; it must be reader, writer or owner", role);
}

static bool is_name_character(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

static enum status check_collection(const char *name, size_t index, struct error *error)
{
    size_t size = strlen(name);
    if (size == 0 || size > LIMIT_COLLECTION_NAME_SIZE_MAX)
        return error_set(error, STATUS_INVALID,
                         "collections[%zu]: %zu characters; 1 to %d are "
                         "allowed",
                         index, size, LIMIT_COLLECTION_NAME_SIZE_MAX);
    for (size_t i = 0; i < size; i++) {
        if (!is_name_character(name[i]))
            return error_set(error, STATUS_INVALID,
                             "collections[%zu]: \"%s\" has a character that is none of A-Z a-z 0-9 "
                             "_ . -",
                             index, name);
    }
    return STATUS_OK;
}

static bool has_collection(const key_record *key, const char *name)
{
    for (size_t i = 0; i < key->n_collections; i++) {
        if (strcmp(key->collections[i], name) == 0)
            return true;
    }
    return false;
}

enum status key_request_check(const Vectron__Auth__V1__CreateAPIKeyRequest *request, int64_t now,
                              struct arena *arena, struct error *error, key_record *out_key)
{
    key_record key;
    int64_t seconds =
        request->expires_in_seconds != 0 ? request->expires_in_seconds : KEY_SECONDS_DEFAULT;
    vectron__auth__v1__stored_key__init(&key);
    TRY(check_name(request->name, error));
    TRY(check_role(request->role, error, &key.role));
    if (seconds < 1 || seconds > KEY_SECONDS_MAX)
        return error_set(error, STATUS_INVALID,
                         "expires_in_seconds: %" PRId64 "; it must be 1 to %d, or 0 for %d",
                         seconds, KEY_SECONDS_MAX, KEY_SECONDS_DEFAULT);
    if (request->n_collections > KEY_COLLECTIONS_MAX)
        return error_set(error, STATUS_INVALID, "collections: %zu names, the limit is %d",
                         request->n_collections, KEY_COLLECTIONS_MAX);
    key.name = request->name;
    key.created_at = now;
    key.expires_at = now + seconds;
    key.collections = arena_alloc(arena, sizeof(char *) * (request->n_collections + 1));
    for (size_t i = 0; i < request->n_collections; i++) {
        TRY(check_collection(request->collections[i], i, error));
        if (!has_collection(&key, request->collections[i]))
            key.collections[key.n_collections++] = request->collections[i];
    }
    *out_key = key;
    return STATUS_OK;
}
