#include <string.h>

#include "api/auth.pb-c.h"
#include "api/rpc_internal.h"
#include "api/vectron.pb-c.h"

// Which verb and path stand for which method: the HTTP bindings of the public services.

#define VECTRON &vectron__v1__vectron_service__descriptor
#define AUTH    &vectron__auth__v1__auth_service__descriptor

const struct route_binding route_bindings[] = {
    {VECTRON, "CreateCollection", "POST", "/v1/collections"},
    {VECTRON, "ListCollections", "GET", "/v1/collections"},
    {VECTRON, "DeleteCollection", "DELETE", "/v1/collections/{name}"},
    {VECTRON, "GetCollectionStatus", "GET", "/v1/collections/{name}/status"},
    {VECTRON, "Upsert", "POST", "/v1/collections/{collection}/points"},
    {VECTRON, "Get", "GET", "/v1/collections/{collection}/points/{id}"},
    {VECTRON, "Delete", "DELETE", "/v1/collections/{collection}/points/{id}"},
    {VECTRON, "Search", "POST", "/v1/collections/{collection}/points/search"},
    {VECTRON, "SubmitFeedback", "POST", "/v1/feedback"},
    {VECTRON, "UpdateUserProfile", "PUT", "/v1/user/profile"},
    {AUTH, "RegisterUser", "POST", "/v1/users/register"},
    {AUTH, "Login", "POST", "/v1/users/login"},
    {AUTH, "GetUserProfile", "GET", "/v1/user/profile"},
    {AUTH, "UpdateUserProfile", "PUT", "/v1/user/profile"},
    {AUTH, "DeleteUser", "POST", "/v1/user/delete"},
    {AUTH, "ChangePassword", "POST", "/v1/user/password"},
    {AUTH, "RefreshToken", "POST", "/v1/auth/refresh"},
    {AUTH, "CreateAPIKey", "POST", "/v1/keys"},
    {AUTH, "ListAPIKeys", "GET", "/v1/keys"},
    {AUTH, "DeleteAPIKey", "DELETE", "/v1/keys/{key_prefix}"},
    {AUTH, "CreateSDKJWT", "POST", "/v1/sdk-jwt"},
    {AUTH, "ListAuditEvents", "GET", "/v1/admin/audit"},
};
const uint32_t route_binding_count = sizeof(route_bindings) / sizeof(route_bindings[0]);

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool route_unescape(struct str text, bool has_plus, struct arena *arena, struct str *out_text)
{
    char *out = arena_try_alloc(arena, text.len + 1);
    size_t size = 0;
    if (out == NULL)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c == '+' && has_plus)
            c = ' ';
        if (c == '%') {
            int high = text.len - i > 2 ? hex_digit(text.data[i + 1]) : -1;
            int low = text.len - i > 2 ? hex_digit(text.data[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0')
            return false;
        out[size++] = c;
    }
    *out_text = (struct str){out, size};
    return true;
}

bool route_match(const char *pattern, struct str path,
                 struct route_variable variables[static ROUTE_VARIABLES_MAX],
                 uint32_t *out_variable_count, uint32_t *out_literal_count)
{
    struct str rest_of_pattern = str_from_cstr(pattern);
    struct str rest = path;
    uint32_t variable_count = 0;
    uint32_t literal_count = 0;
    bool has_more = true;
    while (has_more) {
        has_more = memchr(rest_of_pattern.data, '/', rest_of_pattern.len) != NULL;
        if (has_more != (rest.len > 0 && memchr(rest.data, '/', rest.len) != NULL))
            return false;
        struct str wanted = str_cut(&rest_of_pattern, '/');
        struct str segment = str_cut(&rest, '/');
        if (wanted.len == 0 || wanted.data[0] != '{') {
            if (!str_equal(wanted, segment))
                return false;
            literal_count++;
            continue;
        }
        if (segment.len == 0 || variable_count == ROUTE_VARIABLES_MAX)
            return false;
        struct str name = {wanted.data + 1, wanted.len - 2};
        variables[variable_count++] = (struct route_variable){name, segment};
    }
    *out_variable_count = variable_count;
    *out_literal_count = literal_count;
    return true;
}
