#include "identity/directory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "testing/test.h"

#define NOW 1700000000

static _Atomic uint64_t fake_ms = NOW * 1000ULL;

static uint64_t fake_unix_ms(void)
{
    return fake_ms;
}

static uint64_t fake_monotonic_ns(void)
{
    return fake_ms * 1000000;
}

static const struct clock_source fake_clock = {fake_monotonic_ns, fake_unix_ms};

struct world {
    struct arena *arena;
    struct token_authority *authority;
    struct directory *directory;
    struct directory_key key;
    struct str sdk; // "Bearer …"
};

static struct str sign(struct world *world, const struct token *token)
{
    struct str jwt = {0};
    CHECK(token_sign(world->authority, token, world->arena, NULL, &jwt) == STATUS_OK);
    return arena_format(world->arena, "Bearer %.*s", STR_ARG(jwt));
}

static struct str sign_login(struct world *world, const char *user_id, uint64_t generation)
{
    return sign(world, &(struct token){.kind = TOKEN_LOGIN,
                                       .user_id = str_from_cstr(user_id),
                                       .plan = PLAN_FREE,
                                       .role = STR("user"),
                                       .generation = generation,
                                       .expires_at = NOW + 1000});
}

// A new key of user u1 and its token.
static struct str make_key(struct world *world, struct directory_key *out_key)
{
    struct str *collections = arena_alloc(world->arena, 2 * sizeof(*collections));
    collections[0] = STR("books");
    collections[1] = STR("films");
    char raw[API_KEY_SIZE + 1];
    api_key_generate(raw);
    struct str key = str_from_cstr(raw);
    struct str sealed = {0};
    CHECK(api_key_seal(world->authority, key, STR("u1"), world->arena, &sealed) == STATUS_OK);
    *out_key = (struct directory_key){.key_id = arena_str(world->arena, api_key_id(key)),
                                      .user_id = STR("u1"),
                                      .name = STR("name"),
                                      .role = STR("writer"),
                                      .collections = collections,
                                      .collection_count = 2,
                                      .expires_at = NOW + 500};
    api_key_hash(key, out_key->hash);
    return sign(world, &(struct token){.kind = TOKEN_SDK,
                                       .user_id = STR("u1"),
                                       .plan = PLAN_FREE,
                                       .role = STR("owner"),
                                       .key_id = out_key->key_id,
                                       .key_name = STR("name"),
                                       .sealed_key = sealed,
                                       .expires_at = NOW + 1000});
}

static struct directory_user user_1(void)
{
    return (struct directory_user){.user_id = STR("u1"), .plan = PLAN_PAID, .token_generation = 4};
}

static struct world set_up(void)
{
    clock_set_source(&fake_clock);
    fake_ms = NOW * 1000ULL;
    struct world world = {.arena = arena_create(16 << 20)};
    CHECK(token_authority_create(
              &(struct token_authority_options){.secret = STR("0123456789abcdef0123456789abcdef")},
              NULL, &world.authority) == STATUS_OK);
    world.directory = directory_create(world.authority);
    world.sdk = make_key(&world, &world.key);
    struct directory_user user = user_1();
    directory_put_user(world.directory, &user);
    directory_put_key(world.directory, &world.key);
    return world;
}

static void tear_down(struct world *world)
{
    directory_destroy(world->directory);
    token_authority_destroy(world->authority);
    arena_destroy(world->arena);
    clock_set_source(NULL);
}

static enum status check(struct world *world, struct str authorization, struct caller *out_caller)
{
    return directory_check(world->directory, authorization, world->arena, NULL, out_caller);
}

static bool fails_with(struct world *world, struct str authorization, const char *text)
{
    struct error error = {0};
    struct caller caller;
    return directory_check(world->directory, authorization, world->arena, &error, &caller) ==
               STATUS_UNAUTHENTICATED &&
           strcmp(error.text, text) == 0;
}

TEST(an_sdk_token_is_who_the_directory_says)
{
    struct world world = set_up();
    struct caller caller;
    // The second time it is remembered.
    for (int i = 0; i < 3; i++) {
        memset(&caller, 0, sizeof(caller));
        CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
        CHECK(caller.kind == TOKEN_SDK && caller.plan == PLAN_PAID && !caller.is_admin);
        CHECK(str_equal_cstr(caller.user_id, "u1") && str_equal(caller.key_id, world.key.key_id));
        CHECK(str_equal_cstr(caller.role, "writer") && caller.expires_at == NOW + 500);
        CHECK(caller.collection_count == 2 && caller_may_touch(&caller, STR("films")));
        CHECK(!caller_may_touch(&caller, STR("film")) && !caller_may_touch(&caller, STR("")));
    }
    tear_down(&world);
}

TEST(scheme_and_missing)
{
    struct world world = set_up();
    struct caller caller;
    struct str jwt = {world.sdk.data + 7, world.sdk.len - 7};
    CHECK(check(&world, arena_format(world.arena, "bEARER   %.*s ", STR_ARG(jwt)), &caller) ==
          STATUS_OK);
    CHECK(fails_with(&world, STR(""), "missing authorization"));
    CHECK(fails_with(&world, STR("  "), "missing authorization"));
    CHECK(fails_with(&world, jwt, "invalid or expired token"));
    CHECK(fails_with(&world, STR("Bearer"), "invalid or expired token"));
    CHECK(fails_with(&world, STR("Bearer abc"), "invalid or expired token"));
    CHECK(fails_with(&world, STR("Basic YTpi"), "invalid or expired token"));
    CHECK(fails_with(&world, arena_format(world.arena, "%.*sx", STR_ARG(world.sdk)),
                     "invalid or expired token"));
    tear_down(&world);
}

TEST(deletion_shows_at_once)
{
    struct world world = set_up();
    struct caller caller;
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    world.key.is_deleted = true;
    directory_put_key(world.directory, &world.key);
    CHECK(fails_with(&world, world.sdk, "API key revoked"));
    // A late message about the key does not bring it back.
    world.key.is_deleted = false;
    directory_put_key(world.directory, &world.key);
    CHECK(fails_with(&world, world.sdk, "API key revoked"));

    struct directory_key key;
    struct str token = make_key(&world, &key);
    directory_put_key(world.directory, &key);
    CHECK(check(&world, token, &caller) == STATUS_OK);
    struct directory_user user = user_1();
    user.is_deleted = true;
    struct str login = sign_login(&world, "u1", 4);
    CHECK(check(&world, login, &caller) == STATUS_OK);
    directory_put_user(world.directory, &user);
    CHECK(fails_with(&world, token, "API key revoked"));
    CHECK(fails_with(&world, login, "invalid or expired token"));
    tear_down(&world);
}

TEST(changes_show_at_once)
{
    struct world world = set_up();
    struct caller caller;
    struct str login = sign_login(&world, "u1", 4);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK && caller.plan == PLAN_PAID);
    CHECK(check(&world, login, &caller) == STATUS_OK && caller.kind == TOKEN_LOGIN);
    CHECK(str_equal_cstr(caller.role, "user") && caller.key_id.len == 0);
    struct directory_user user = user_1();
    user.plan = PLAN_FREE;
    user.is_admin = true;
    directory_put_user(world.directory, &user);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK && caller.plan == PLAN_FREE);
    CHECK(check(&world, login, &caller) == STATUS_OK && caller.is_admin);
    world.key.role = STR("reader");
    directory_put_key(world.directory, &world.key);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    CHECK(str_equal_cstr(caller.role, "reader"));
    // A changed password.
    user.token_generation = 5;
    directory_put_user(world.directory, &user);
    CHECK(fails_with(&world, login, "invalid or expired token"));
    CHECK(check(&world, sign_login(&world, "u1", 5), &caller) == STATUS_OK);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    tear_down(&world);
}

TEST(expiry_is_checked_each_time)
{
    struct world world = set_up();
    struct caller caller;
    struct str login = sign_login(&world, "u1", 4);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    CHECK(check(&world, login, &caller) == STATUS_OK);
    fake_ms = (NOW + 504) * 1000ULL;
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    fake_ms = (NOW + 505) * 1000ULL;
    CHECK(fails_with(&world, world.sdk, "invalid or expired token"));
    CHECK(check(&world, login, &caller) == STATUS_OK);
    fake_ms = (NOW + 1005) * 1000ULL;
    CHECK(fails_with(&world, login, "invalid or expired token"));
    tear_down(&world);
}

TEST(unknown_is_unavailable_until_told)
{
    struct world world = set_up();
    struct caller caller = {0};
    struct directory_key key;
    struct str token = make_key(&world, &key);
    CHECK(check(&world, token, &caller) == STATUS_UNAVAILABLE);
    CHECK(str_equal(caller.key_id, key.key_id) && str_equal_cstr(caller.user_id, "u1"));
    directory_put_key(world.directory, &key);
    CHECK(check(&world, token, &caller) == STATUS_OK);
    struct str login = sign_login(&world, "u2", 0);
    CHECK(check(&world, login, &caller) == STATUS_UNAVAILABLE);
    CHECK(str_equal_cstr(caller.user_id, "u2") && caller.key_id.len == 0);
    directory_clear(world.directory);
    CHECK(check(&world, token, &caller) == STATUS_UNAVAILABLE);
    // An unknown one comes back from the auth service as deleted.
    struct directory_user nobody = {.user_id = STR("u2"), .is_deleted = true};
    directory_put_user(world.directory, &nobody);
    CHECK(fails_with(&world, login, "invalid or expired token"));
    tear_down(&world);
}

TEST(a_key_under_a_foreign_token_is_refused)
{
    struct world world = set_up();
    struct caller caller;
    struct directory_key other;
    (void)make_key(&world, &other);
    // The hash that the auth service has is another.
    struct directory_key key = world.key;
    memcpy(key.hash, other.hash, sizeof(key.hash));
    directory_put_key(world.directory, &key);
    CHECK(fails_with(&world, world.sdk, "invalid or expired token"));
    // The key belongs to somebody else.
    key = world.key;
    key.user_id = STR("u2");
    directory_put_key(world.directory, &key);
    CHECK(fails_with(&world, world.sdk, "invalid or expired token"));
    // Not a sealed key at all.
    struct str token = sign(&world, &(struct token){.kind = TOKEN_SDK,
                                                    .user_id = STR("u1"),
                                                    .plan = PLAN_FREE,
                                                    .role = STR("owner"),
                                                    .key_id = world.key.key_id,
                                                    .key_name = STR("name"),
                                                    .sealed_key = STR("c2VhbGVk"),
                                                    .expires_at = NOW + 1000});
    CHECK(fails_with(&world, token, "invalid or expired token"));
    directory_put_key(world.directory, &world.key);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    tear_down(&world);
}

static struct str used_key;
static int64_t used_at;
static int use_count;

static void note_use(struct str key_id, int64_t last_used_at, void *context)
{
    struct world *world = context;
    used_key = arena_str(world->arena, key_id);
    used_at = last_used_at;
    use_count++;
}

TEST(uses_are_taken_once)
{
    struct world world = set_up();
    struct caller caller;
    use_count = 0;
    directory_take_uses(world.directory, note_use, &world);
    CHECK(use_count == 0);
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    fake_ms += 3000;
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    CHECK(check(&world, sign_login(&world, "u1", 4), &caller) == STATUS_OK);
    directory_take_uses(world.directory, note_use, &world);
    CHECK(use_count == 1 && used_at == NOW + 3 && str_equal(used_key, world.key.key_id));
    directory_take_uses(world.directory, note_use, &world);
    CHECK(use_count == 1);
    // Forgetting the token does not forget its use.
    fake_ms += 3000;
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    directory_put_key(world.directory, &world.key);
    directory_take_uses(world.directory, note_use, &world);
    CHECK(use_count == 2 && used_at == NOW + 6);
    tear_down(&world);
}

TEST(more_tokens_than_it_remembers)
{
    struct world world = set_up();
    struct caller caller;
    struct arena *arena = arena_create(1 << 20);
    for (uint64_t i = 0; i < 6000; i++) {
        // Each has a jti of its own.
        arena_reset(arena);
        struct token token = {.kind = TOKEN_LOGIN,
                              .user_id = STR("u1"),
                              .plan = PLAN_FREE,
                              .role = STR("user"),
                              .generation = 4,
                              .expires_at = NOW + 1000};
        struct str jwt = {0};
        CHECK(token_sign(world.authority, &token, arena, NULL, &jwt) == STATUS_OK);
        struct str authorization = arena_format(arena, "Bearer %.*s", STR_ARG(jwt));
        CHECK(directory_check(world.directory, authorization, arena, NULL, &caller) == STATUS_OK);
        CHECK(directory_check(world.directory, authorization, arena, NULL, &caller) == STATUS_OK);
    }
    CHECK(check(&world, world.sdk, &caller) == STATUS_OK);
    arena_destroy(arena);
    tear_down(&world);
}

TEST(roles)
{
    CHECK(role_includes(STR("owner"), STR("reader")) && role_includes(STR("owner"), STR("owner")));
    CHECK(role_includes(STR("writer"), STR("writer")));
    CHECK(!role_includes(STR("writer"), STR("owner")) &&
          !role_includes(STR("reader"), STR("writer")));
    CHECK(!role_includes(STR(""), STR("reader")) && !role_includes(STR("admin"), STR("reader")));
}

// --- Many threads: readers check while a writer changes, deletes and clears.

struct storm {
    struct world *world;
    struct str tokens[8];
    struct directory_key keys[8];
    atomic_bool is_over;
    atomic_int deleted_count; // keys below this index are deleted for good
};

static void *read_storm(void *context)
{
    struct storm *storm = context;
    struct arena *arena = arena_create(1 << 20);
    for (uint32_t i = 0; !atomic_load(&storm->is_over); i++) {
        arena_reset(arena);
        struct caller caller = {0};
        int which = (int)(i % 8);
        int deleted_before = atomic_load(&storm->deleted_count);
        enum status status =
            directory_check(storm->world->directory, storm->tokens[which], arena, NULL, &caller);
        CHECK(status == STATUS_OK || status == STATUS_UNAUTHENTICATED);
        CHECK(which >= deleted_before || status == STATUS_UNAUTHENTICATED);
        if (status == STATUS_OK) {
            CHECK(str_equal(caller.key_id, storm->keys[which].key_id));
            CHECK(caller.collection_count == 2 && caller_may_touch(&caller, STR("books")));
        }
    }
    arena_destroy(arena);
    return NULL;
}

TEST(readers_and_a_writer)
{
    struct world world = set_up();
    static struct storm storm;
    pthread_t readers[3];
    storm.world = &world;
    for (int i = 0; i < 8; i++) {
        storm.tokens[i] = make_key(&world, &storm.keys[i]);
        directory_put_key(world.directory, &storm.keys[i]);
    }
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&readers[i], NULL, read_storm, &storm) == 0);
    struct directory_user user = user_1();
    for (int i = 0; i < 4000; i++) {
        if (i % 400 == 399 && i < 2000) {
            int which = i / 400;
            storm.keys[which].is_deleted = true;
            directory_put_key(world.directory, &storm.keys[which]);
            atomic_store(&storm.deleted_count, which + 1);
        } else if (i % 3 == 0) {
            directory_put_key(world.directory, &storm.keys[5 + i % 3]);
        } else {
            user.plan = i % 2 == 0 ? PLAN_FREE : PLAN_PAID;
            directory_put_user(world.directory, &user);
        }
        directory_take_uses(world.directory, note_use, &world);
    }
    atomic_store(&storm.is_over, true);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(readers[i], NULL) == 0);
    tear_down(&world);
}

TEST_MAIN()
