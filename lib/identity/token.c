#include "identity/token.h"

#include <errno.h>
#include <jwt.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "identity/token_internal.h"

// A token is checked in this order: its shape, its signature, and only then its contents, because
// no parser shall see bytes that nobody vouched for. libjwt builds and parses the claims; it is
// given header and payload each as the payload of a token without a signature, since the signature
// is known to be good by then, and since it knows no EdDSA.

enum { JTI_SIZE = 16, ID_SIZE_MAX = 128, COLLECTIONS_MAX = 4096 };

static const char *const aud_names[] = {[TOKEN_LOGIN] = "console", [TOKEN_SDK] = "api"};
static const char *const typ_names[] = {[TOKEN_LOGIN] = "login", [TOKEN_SDK] = "sdk"};

enum plan plan_from_str(struct str name)
{
    if (str_equal_cstr(name, "FREE"))
        return PLAN_FREE;
    return str_equal_cstr(name, "PAID") ? PLAN_PAID : PLAN_UNSPECIFIED;
}

const char *plan_name(enum plan plan)
{
    return plan == PLAN_PAID ? "PAID" : "FREE";
}

// --- Signing

static bool add_text(jwt_t *jwt, struct arena *arena, const char *name, struct str value)
{
    return jwt_add_grant(jwt, name, arena_cstr(arena, value)) == 0;
}

// The names are of an alphabet that needs no escapes (is_plain_name).
static bool is_plain_name(struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = (uint8_t)name.data[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            return false;
    }
    return name.len > 0 && name.len <= ID_SIZE_MAX;
}

static bool add_collections(jwt_t *jwt, const struct token *token)
{
    struct buf json;
    buf_init(&json, TOKEN_SIZE_MAX);
    buf_append_cstr(&json, "{\"collections\":[");
    bool is_fine = true;
    for (uint32_t i = 0; i < token->collection_count; i++) {
        is_fine = is_fine && is_plain_name(token->collections[i]);
        buf_append_cstr(&json, i > 0 ? ",\"" : "\"");
        buf_append_str(&json, token->collections[i]);
        buf_append_byte(&json, '"');
    }
    buf_append_cstr(&json, "]}");
    buf_append_byte(&json, 0);
    is_fine = is_fine && !buf_has_overflowed(&json) &&
              jwt_add_grants_json(jwt, (const char *)json.data) == 0;
    buf_deinit(&json);
    return is_fine;
}

static struct str new_jti(struct arena *arena)
{
    uint8_t random[JTI_SIZE];
    rng_secure(random, sizeof(random));
    const size_t size = 2 * sizeof(random);
    char *hex = arena_alloc(arena, size + 1);
    sodium_bin2hex(hex, size + 1, random, sizeof(random));
    return (struct str){hex, size};
}

static bool add_claims(jwt_t *jwt, const struct token *token, struct arena *arena)
{
    struct str jti = token->jti.len > 0 ? token->jti : new_jti(arena);
    int64_t issued_at = token->issued_at != 0 ? token->issued_at : clock_unix_seconds();
    bool is_fine = jwt_add_grant(jwt, "typ", typ_names[token->kind]) == 0 &&
                   jwt_add_grant(jwt, "iss", "vectron") == 0 &&
                   jwt_add_grant(jwt, "aud", aud_names[token->kind]) == 0 &&
                   add_text(jwt, arena, "sub", token->user_id) &&
                   jwt_add_grant(jwt, "plan", plan_name(token->plan)) == 0 &&
                   add_text(jwt, arena, "role", token->role) && add_text(jwt, arena, "jti", jti) &&
                   jwt_add_grant_int(jwt, "iat", issued_at) == 0 &&
                   jwt_add_grant_int(jwt, "exp", token->expires_at) == 0;
    if (token->kind == TOKEN_LOGIN)
        return is_fine && jwt_add_grant_int(jwt, "gen", (long)token->generation) == 0;
    return is_fine && add_text(jwt, arena, "api_key", token->sealed_key) &&
           add_text(jwt, arena, "key_id", token->key_id) &&
           add_text(jwt, arena, "key_name", token->key_name) && add_collections(jwt, token);
}

enum status token_sign(const struct token_authority *authority, const struct token *token,
                       struct arena *arena, struct error *error, struct str *out_jwt)
{
    jwt_t *claims = NULL;
    char *json = NULL;
    struct str jwt = {0};
    enum status status = STATUS_OK;
    if (jwt_new(&claims) != 0)
        return error_set(error, STATUS_BUG, "a token cannot be made");
    if (add_claims(claims, token, arena))
        json = jwt_get_grants_json(claims, NULL);
    if (json == NULL)
        status = error_set(error, STATUS_INVALID, "a name that a token cannot hold");
    else
        status = token_authority_sign(authority, str_from_cstr(json), arena, error, &jwt);
    if (status == STATUS_OK && jwt.len > TOKEN_SIZE_MAX)
        status = error_set(error, STATUS_INVALID, "the token would have %zu bytes, the limit is %d",
                           jwt.len, TOKEN_SIZE_MAX);
    if (status == STATUS_OK)
        *out_jwt = jwt;
    mem_free(json); // libjwt hands out memory of the C library
    jwt_free(claims);
    return status;
}

// --- Checking

static bool is_base64url(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        bool is_fine = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_';
        if (!is_fine)
            return false;
    }
    return text.len > 0;
}

// An object of JSON in base64url; NULL: it is none. The caller frees.
static jwt_t *parse_object(struct str part, struct arena *arena)
{
    static const char unsigned_header[] = "eyJhbGciOiJub25lIn0"; // {"alg":"none"}
    jwt_t *object = NULL;
    if (!is_base64url(part))
        return NULL;
    struct str text = arena_format(arena, "%s.%.*s.", unsigned_header, STR_ARG(part));
    return jwt_decode(&object, text.data, NULL, 0) == 0 ? object : NULL;
}

static bool get_text(jwt_t *jwt, const char *name, struct arena *arena, struct str *out_text)
{
    const char *value = jwt_get_grant(jwt, name);
    if (value == NULL)
        return false;
    *out_text = arena_str(arena, str_from_cstr(value));
    return true;
}

static bool get_number(jwt_t *jwt, const char *name, int64_t *out_number)
{
    errno = 0;
    long value = jwt_get_grant_int(jwt, name);
    if (errno != 0)
        return false;
    *out_number = value;
    return true;
}

static bool has_text(jwt_t *jwt, const char *name, const char *expected)
{
    const char *value = jwt_get_grant(jwt, name);
    return value != NULL && strcmp(value, expected) == 0;
}

// An array of names without escapes, as compact JSON: ["a","b"].
static bool parse_names(struct str json, struct arena *arena, const struct str **out_names,
                        uint32_t *out_count)
{
    if (json.len < 2 || json.data[0] != '[' || json.data[json.len - 1] != ']')
        return false;
    struct str rest = {json.data + 1, json.len - 2};
    uint32_t count = 0;
    struct str *names = arena_try_alloc(arena, sizeof(*names) * (rest.len / 3 + 1));
    if (names == NULL)
        return false;
    while (rest.len > 0) {
        struct str item = str_cut(&rest, ',');
        if (item.len < 3 || item.data[0] != '"' || item.data[item.len - 1] != '"')
            return false;
        struct str name = {item.data + 1, item.len - 2};
        if (!is_plain_name(name) || count >= COLLECTIONS_MAX)
            return false;
        names[count++] = arena_str(arena, name);
    }
    *out_names = names;
    *out_count = count;
    return true;
}

static bool get_collections(jwt_t *jwt, struct arena *arena, struct token *token)
{
    char *json = jwt_get_grants_json(jwt, "collections");
    bool is_fine = json != NULL && parse_names(str_from_cstr(json), arena, &token->collections,
                                               &token->collection_count);
    mem_free(json);
    return is_fine;
}

static bool lacks(jwt_t *jwt, const char *name)
{
    char *json = jwt_get_grants_json(jwt, name);
    bool is_missing = json == NULL;
    mem_free(json);
    return is_missing;
}

// RFC 7515 4.1.11: extensions that we do not know must make us refuse. A secret may be meant
// without being named, a key pair must be named.
static bool has_fine_header(const struct token_authority *authority, jwt_t *header,
                            const char *key_id)
{
    const char *algorithm = token_authority_algorithm(authority);
    const char *type = jwt_get_grant(header, "typ");
    bool may_lack_id = strcmp(algorithm, "HS256") == 0;
    return has_text(header, "alg", algorithm) && lacks(header, "crit") &&
           (lacks(header, "typ") || (type != NULL && strcasecmp(type, "JWT") == 0)) &&
           (has_text(header, "kid", key_id) || (may_lack_id && lacks(header, "kid")));
}

static bool get_times(jwt_t *jwt, struct token *token)
{
    int64_t now = clock_unix_seconds();
    int64_t not_before = 0;
    if (!get_number(jwt, "iat", &token->issued_at) || !get_number(jwt, "exp", &token->expires_at))
        return false;
    (void)get_number(jwt, "nbf", &not_before); // we never set it; who does is taken at his word
    return token->issued_at > 0 && token->issued_at - TOKEN_LEEWAY_SECONDS <= now &&
           not_before - TOKEN_LEEWAY_SECONDS <= now &&
           token->expires_at > now - TOKEN_LEEWAY_SECONDS;
}

static bool get_login(jwt_t *jwt, struct token *token)
{
    int64_t generation = 0;
    (void)get_number(jwt, "gen", &generation); // absent: the first generation
    token->kind = TOKEN_LOGIN;
    token->generation = (uint64_t)generation;
    return generation >= 0 && has_text(jwt, "aud", aud_names[TOKEN_LOGIN]) &&
           (str_equal_cstr(token->role, "user") || str_equal_cstr(token->role, "admin"));
}

static bool get_sdk(jwt_t *jwt, struct arena *arena, struct token *token)
{
    token->kind = TOKEN_SDK;
    return has_text(jwt, "aud", aud_names[TOKEN_SDK]) &&
           (str_equal_cstr(token->role, "reader") || str_equal_cstr(token->role, "writer") ||
            str_equal_cstr(token->role, "owner")) &&
           get_text(jwt, "api_key", arena, &token->sealed_key) && token->sealed_key.len > 0 &&
           get_text(jwt, "key_id", arena, &token->key_id) && api_key_id_is_valid(token->key_id) &&
           get_text(jwt, "key_name", arena, &token->key_name) && get_collections(jwt, arena, token);
}

static bool get_claims(jwt_t *jwt, struct arena *arena, struct token *token)
{
    struct str plan = {0};
    if (!get_times(jwt, token) || !has_text(jwt, "iss", "vectron") ||
        !get_text(jwt, "sub", arena, &token->user_id) || !is_plain_name(token->user_id) ||
        !get_text(jwt, "plan", arena, &plan) || !get_text(jwt, "role", arena, &token->role) ||
        !get_text(jwt, "jti", arena, &token->jti))
        return false;
    token->plan = plan_from_str(plan);
    if (token->plan == PLAN_UNSPECIFIED)
        return false;
    if (has_text(jwt, "typ", typ_names[TOKEN_LOGIN]))
        return get_login(jwt, token);
    return has_text(jwt, "typ", typ_names[TOKEN_SDK]) && get_sdk(jwt, arena, token);
}

static bool verify(const struct token_authority *authority, struct str jwt, struct arena *arena,
                   struct token *token)
{
    struct str first = {0};
    struct str second = {0};
    const char *key_id =
        jwt.len <= TOKEN_SIZE_MAX ? token_authority_check(authority, jwt, &first, &second) : NULL;
    if (key_id == NULL)
        return false;
    jwt_t *header = parse_object(first, arena);
    jwt_t *claims = parse_object(second, arena);
    bool is_fine = header != NULL && claims != NULL && has_fine_header(authority, header, key_id) &&
                   get_claims(claims, arena, token);
    jwt_free(header); // NULL is fine
    jwt_free(claims);
    return is_fine;
}

enum status token_verify(const struct token_authority *authority, struct str jwt,
                         struct arena *arena, struct error *error, struct token *out_token)
{
    struct token token = {0};
    if (!verify(authority, jwt, arena, &token))
        return error_set(error, STATUS_UNAUTHENTICATED, "invalid or expired token");
    *out_token = token;
    return STATUS_OK;
}
