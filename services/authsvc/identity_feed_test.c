#include "authsvc/identity_feed.h"

#include "authsvc/watch_testing.h"

// What gateways watch and ask, through the whole service.

struct fixture {
    struct auth_test test;
    struct auth_call call;
};

static void start(struct fixture *fixture)
{
    auth_open(&fixture->test);
    auth_start(&fixture->test, NULL);
    fixture->call = auth_call_of(&fixture->test);
}

static void stop(struct fixture *fixture)
{
    arena_destroy(fixture->call.arena);
    auth_close(&fixture->test);
}

TEST(a_watch_begins_with_everything)
{
    struct fixture f;
    start(&f);
    struct watch *empty = watch_open(&f.test);
    CHECK_EQ_U64(empty->seen_count, 0);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__GetUserProfileResponse *profile = NULL;
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_profile(&f.call, &profile));
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k", .role = "reader"}, &made));
    struct watch *watch = watch_open(&f.test);
    WAIT_UNTIL(watch, watch_find(watch, made->key_info->key_prefix) != NULL);
    const struct watch_seen *user = watch_find(watch, profile->user->id);
    CHECK(user != NULL && strcmp(user->role, "user") == 0 && user->plan == 1);
    const struct watch_seen *key = watch_find(watch, made->key_info->key_prefix);
    CHECK(key != NULL && strcmp(key->role, "reader") == 0 && !key->is_deleted);
    // The first watch heard of it as it happened.
    WAIT_UNTIL(empty, watch_find(empty, made->key_info->key_prefix) != NULL);
    CHECK_EQ_U64(empty->snapshot_count, 1);
    watch_close(watch);
    watch_close(empty);
    stop(&f);
}

TEST(changes_are_told_at_once)
{
    struct fixture f;
    start(&f);
    struct watch *watch = watch_open(&f.test);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__GetUserProfileResponse *profile = NULL;
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_profile(&f.call, &profile));
    const char *user_id = profile->user->id;
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    const char *key_id = made->key_info->key_prefix;
    WAIT_UNTIL(watch, watch_find(watch, key_id) != NULL && watch_find(watch, user_id) != NULL);
    CHECK_OK(auth_set_plan(&f.call, 2));
    WAIT_UNTIL(watch, watch_has_plan(watch, user_id, 2));
    uint64_t begin_ns = clock_monotonic_ns();
    CHECK_OK(auth_delete_key(&f.call, key_id));
    WAIT_UNTIL(watch, watch_is_deleted(watch, key_id));
    CHECK(clock_monotonic_ns() - begin_ns < NS_PER_SECOND);
    CHECK_OK(auth_change_password(&f.call, AUTH_PASSWORD, "Better-horse-8"));
    WAIT_UNTIL(watch, watch_has_generation(watch, user_id, 1));
    CHECK_OK(auth_login(&f.call, "a@b.c", "Better-horse-8"));
    CHECK_OK(auth_delete_user(&f.call, "Better-horse-8"));
    WAIT_UNTIL(watch, watch_is_deleted(watch, user_id));
    CHECK_EQ_U64(watch->snapshot_count, 1);
    watch_close(watch);
    stop(&f);
}

// More changes at once than the store's record of them holds, and a snapshot of several pages.
TEST(many_changes_and_many_users)
{
    struct fixture f;
    enum { KEYS = 700 };
    start(&f);
    struct watch *watch = watch_open(&f.test);
    auth_user(&f.call, "a@b.c");
    CHECK_OK(auth_set_plan(&f.call, 2));
    for (int i = 0; i < KEYS; i++)
        CHECK_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, NULL));
    WAIT_UNTIL(watch, watch->seen_count == KEYS + 1);
    struct watch *late = watch_open(&f.test);
    WAIT_UNTIL(late, late->seen_count == KEYS + 1);
    CHECK(late->message_count >= 3);
    CHECK_EQ_U64(late->snapshot_count, 1);
    watch_close(late);
    watch_close(watch);
    stop(&f);
}

TEST(draining_ends_watches)
{
    struct fixture f;
    start(&f);
    struct watch *watch = watch_open(&f.test);
    uint64_t begin_ns = clock_monotonic_ns();
    authsvc_service.drain(f.test.authsvc, 20 * NS_PER_SECOND);
    CHECK(clock_monotonic_ns() - begin_ns < 5 * NS_PER_SECOND);
    WAIT_UNTIL(watch, watch->has_ended);
    CHECK_STATUS(watch->status, STATUS_UNAVAILABLE);
    watch_close(watch);
    stop(&f);
}

TEST(stopping_ends_watches_too)
{
    struct fixture f;
    start(&f);
    struct watch *watch = watch_open(&f.test);
    authsvc_service.stop(f.test.authsvc);
    f.test.authsvc = NULL;
    WAIT_UNTIL(watch, watch->has_ended);
    watch_close(watch);
    stop(&f);
}

// --- The other calls

static const Vectron__Auth__V1__IdentityChanges *look_up(struct auth_call *call, const char *key_id,
                                                         const char *user_id)
{
    Vectron__Auth__V1__LookupIdentityRequest request =
        VECTRON__AUTH__V1__LOOKUP_IDENTITY_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.key_id = auth_text(call, key_id);
    request.user_id = auth_text(call, user_id);
    return CHECK_OK(auth_ask_service(call, &vectron__auth__v1__identity_service__descriptor,
                                     "LookupIdentity", &request.base, &answer))
               ? AUTH_AS(IdentityChanges, answer)
               : NULL;
}

TEST(looking_up)
{
    struct fixture f;
    start(&f);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    auth_user(&f.call, "a@b.c");
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "k"}, &made));
    const Vectron__Auth__V1__APIKey *info = made->key_info;
    const Vectron__Auth__V1__IdentityChanges *found =
        look_up(&f.call, info->key_prefix, info->user_id);
    REQUIRE(found != NULL && found->n_keys == 1 && found->n_users == 1);
    CHECK(!found->is_snapshot && !found->keys[0]->is_deleted && !found->users[0]->is_deleted);
    CHECK_CSTR(found->keys[0]->user_id, info->user_id);
    CHECK_EQ_U64(found->keys[0]->key_hash.len, API_KEY_HASH_SIZE);
    // What is not there is said to be deleted, so that it is not asked for again.
    found = look_up(&f.call, "vtk_00000000", "nobody");
    REQUIRE(found != NULL && found->n_keys == 1 && found->n_users == 1);
    CHECK(found->keys[0]->is_deleted && found->users[0]->is_deleted);
    CHECK_CSTR(found->keys[0]->key_id, "vtk_00000000");
    CHECK_CSTR(found->users[0]->user_id, "nobody");
    found = look_up(&f.call, "", info->user_id);
    CHECK(found != NULL && found->n_keys == 0 && found->n_users == 1);
    found = look_up(&f.call, "nonsense", "");
    CHECK(found != NULL && found->n_keys == 1 && found->keys[0]->is_deleted);
    stop(&f);
}

static enum status report(struct auth_call *call, char *const *key_ids, size_t count,
                          int64_t last_used_at)
{
    Vectron__Auth__V1__ReportKeyUseRequest request =
        VECTRON__AUTH__V1__REPORT_KEY_USE_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    request.uses = arena_alloc(call->arena, sizeof(*request.uses) * (count + 1));
    for (size_t i = 0; i < count; i++) {
        Vectron__Auth__V1__KeyUse *use = arena_alloc(call->arena, sizeof(*use));
        vectron__auth__v1__key_use__init(use);
        use->key_id = key_ids[i];
        use->last_used_at = last_used_at;
        request.uses[request.n_uses++] = use;
    }
    return auth_ask_service(call, &vectron__auth__v1__identity_service__descriptor, "ReportKeyUse",
                            &request.base, &answer);
}

TEST(when_keys_were_last_used)
{
    struct fixture f;
    start(&f);
    const Vectron__Auth__V1__CreateAPIKeyResponse *made = NULL;
    const Vectron__Auth__V1__ListAPIKeysResponse *list = NULL;
    struct auth_call other = auth_call_of(&f.test);
    static char unknown[] = "vtk_00000000";
    static char nonsense[] = "x";
    char *key_ids[4] = {NULL, unknown, NULL, nonsense};
    int64_t now = clock_unix_seconds();
    auth_user(&f.call, "a@b.c");
    auth_user(&other, "other@b.c");
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "used"}, &made));
    key_ids[0] = made->key_info->key_prefix;
    REQUIRE_OK(auth_create_key(&other, &(struct auth_key){.name = "used too"}, &made));
    key_ids[2] = made->key_info->key_prefix;
    REQUIRE_OK(auth_create_key(&f.call, &(struct auth_key){.name = "never used"}, &made));
    CHECK_OK(report(&f.call, key_ids, 4, now - 100));
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    REQUIRE(list->n_keys == 2);
    for (size_t i = 0; i < 2; i++)
        CHECK_EQ_I64(list->keys[i]->last_used_at,
                     strcmp(list->keys[i]->name, "used") == 0 ? now - 100 : 0);
    REQUIRE_OK(auth_list_keys(&other, &list));
    CHECK(list->n_keys == 1 && list->keys[0]->last_used_at == now - 100);
    // Newer ones count, older ones and the future do not.
    CHECK_OK(report(&f.call, key_ids, 1, now - 1000));
    REQUIRE_OK(auth_list_keys(&f.call, &list));
    CHECK(list->keys[0]->last_used_at == now - 100 || list->keys[1]->last_used_at == now - 100);
    CHECK_OK(report(&f.call, key_ids, 3, now + 100000));
    REQUIRE_OK(auth_list_keys(&other, &list));
    CHECK(list->keys[0]->last_used_at >= now && list->keys[0]->last_used_at < now + 100);
    CHECK_OK(report(&f.call, key_ids, 4, -5));
    CHECK_OK(report(&f.call, key_ids, 0, 0));
    arena_destroy(other.arena);
    stop(&f);
}

TEST_MAIN()
