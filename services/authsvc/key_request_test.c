#include "authsvc/key_request.h"

#include <string.h>

#include "testing/test.h"

static struct arena *arena;
static struct error error;

static enum status check(const Vectron__Auth__V1__CreateAPIKeyRequest *request, key_record *out_key)
{
    return key_request_check(request, 1000, arena, &error, out_key);
}

static Vectron__Auth__V1__CreateAPIKeyRequest request_of(const char *name, const char *role,
                                                         int64_t seconds)
{
    Vectron__Auth__V1__CreateAPIKeyRequest request = VECTRON__AUTH__V1__CREATE_APIKEY_REQUEST__INIT;
    request.name = arena_cstr(arena, str_from_cstr(name));
    request.role = arena_cstr(arena, str_from_cstr(role));
    request.expires_in_seconds = seconds;
    return request;
}

TEST(what_is_left_out_has_a_default)
{
    arena = arena_create(1 << 20);
    key_record key;
    Vectron__Auth__V1__CreateAPIKeyRequest request = request_of("", "", 0);
    REQUIRE_OK(check(&request, &key));
    CHECK_CSTR(key.role, "owner");
    CHECK_EQ_I64(key.created_at, 1000);
    CHECK_EQ_I64(key.expires_at, 1000 + 90 * 86400);
    CHECK_EQ_U64(key.n_collections, 0);
    arena_destroy(arena);
}

TEST(names_roles_and_times)
{
    arena = arena_create(1 << 20);
    key_record key;
    char name[130];
    memset(name, 'n', sizeof(name));
    name[128] = '\0';
    Vectron__Auth__V1__CreateAPIKeyRequest request = request_of(name, "reader", 1);
    CHECK_OK(check(&request, &key));
    CHECK_EQ_I64(key.expires_at, 1001);
    name[128] = 'n';
    name[129] = '\0';
    request = request_of(name, "", 0);
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    CHECK_CSTR(error.text, "name: 129 bytes, the limit is 128");
    request = request_of("a\nb", "", 0);
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    CHECK_CSTR(error.text, "name: a control character at byte 1");
    request = request_of("k", "king", 0);
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    CHECK_CSTR(error.text, "role: \"king\" is none; it must be reader, writer or owner");
    request = request_of("k", "writer", KEY_SECONDS_MAX);
    CHECK_OK(check(&request, &key));
    const int64_t wrong[] = {-1, KEY_SECONDS_MAX + 1LL, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        request = request_of("k", "", wrong[i]);
        CHECK_STATUS(check(&request, &key), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(error.text), STR("expires_in_seconds"));
    }
    arena_destroy(arena);
}

TEST(collections)
{
    arena = arena_create(1 << 20);
    key_record key;
    char *names[KEY_COLLECTIONS_MAX + 1];
    Vectron__Auth__V1__CreateAPIKeyRequest request = request_of("k", "", 0);
    for (int i = 0; i <= KEY_COLLECTIONS_MAX; i++)
        names[i] = arena_cstr(arena, arena_format(arena, "c%d", i % 200));
    request.collections = names;
    request.n_collections = KEY_COLLECTIONS_MAX;
    CHECK_OK(check(&request, &key));
    CHECK_EQ_U64(key.n_collections, 200); // each once
    request.n_collections++;
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    CHECK_CSTR(error.text, "collections: 257 names, the limit is 256");
    request.n_collections = 2;
    names[1] = arena_cstr(arena, STR("a/b"));
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("collections[1]: \"a/b\""));
    names[1] = arena_cstr(arena, STR(""));
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    names[1] = arena_alloc(arena, 130);
    memset(names[1], 'c', 129);
    CHECK_STATUS(check(&request, &key), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("129 characters; 1 to 128"));
    names[1][128] = '\0';
    CHECK_OK(check(&request, &key));
    arena_destroy(arena);
}

TEST_MAIN()
