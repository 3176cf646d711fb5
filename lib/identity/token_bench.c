#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "identity/directory.h"
#include "net/signature_testing.h"

// What one request pays for its SDK token, in processor time: the first time that a gateway sees
// the token (signature, claims, the sealed key opened and compared), and every further time. One
// thread; for two on the same token see directory_bench.c.

enum { FIRST_ROUNDS = 20000, AGAIN_ROUNDS = 2000000 };

static double cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

struct world {
    struct signature_key *keys[1];
    struct token_authority *authority;
    struct directory *directory;
    struct directory_user user;
    struct directory_key key;
    char raw[API_KEY_SIZE + 1];
    struct str authorization;
};

static bool set_up(struct world *world, const char *pem, struct arena *arena)
{
    struct str sealed = {0};
    struct str jwt = {0};
    if (pem != NULL && signature_key_read(str_from_cstr(pem), NULL, &world->keys[0]) != STATUS_OK)
        return false;
    api_key_generate(world->raw);
    struct str raw = str_from_cstr(world->raw);
    world->user = (struct directory_user){.user_id = STR("u1"), .plan = PLAN_FREE};
    world->key = (struct directory_key){
        .key_id = api_key_id(raw), .user_id = world->user.user_id, .role = STR("owner")};
    api_key_hash(raw, world->key.hash);
    struct token token = {.kind = TOKEN_SDK,
                          .user_id = world->user.user_id,
                          .plan = PLAN_FREE,
                          .role = world->key.role,
                          .key_id = world->key.key_id,
                          .key_name = STR("bench"),
                          .expires_at = clock_unix_seconds() + 3600};
    if (token_authority_create(
            &(struct token_authority_options){.secret = STR("0123456789abcdef0123456789abcdef"),
                                              .keys = world->keys,
                                              .key_count = pem != NULL},
            NULL, &world->authority) != STATUS_OK ||
        api_key_seal(world->authority, raw, world->user.user_id, arena, &sealed) != STATUS_OK)
        return false;
    token.sealed_key = sealed;
    if (token_sign(world->authority, &token, arena, NULL, &jwt) != STATUS_OK)
        return false;
    world->authorization = arena_format(arena, "Bearer %.*s", STR_ARG(jwt));
    world->directory = directory_create(world->authority);
    directory_put_user(world->directory, &world->user);
    directory_put_key(world->directory, &world->key);
    return true;
}

static void tear_down(struct world *world)
{
    directory_destroy(world->directory);
    token_authority_destroy(world->authority);
    signature_key_destroy(world->keys[0]);
}

// A new version of the user makes the directory forget what it found out about his tokens; what
// that costs is measured apart and taken off.
static double measure(struct world *world, struct arena *arena, int rounds, bool forgets,
                      bool checks)
{
    struct caller caller;
    double start = cpu_ns();
    for (int i = 0; i < rounds; i++) {
        arena_reset(arena);
        if (forgets)
            directory_put_user(world->directory, &world->user);
        if (checks && directory_check(world->directory, world->authorization, arena, NULL,
                                      &caller) != STATUS_OK)
            return -1;
    }
    return (cpu_ns() - start) / rounds;
}

static bool run(const char *name, const char *pem)
{
    struct world world = {0};
    struct arena *kept = arena_create(1 << 20);
    struct arena *arena = arena_create(1 << 20);
    bool is_fine = set_up(&world, pem, kept);
    if (is_fine) {
        double both = measure(&world, arena, FIRST_ROUNDS, true, true);
        double forgetting = measure(&world, arena, FIRST_ROUNDS, true, false);
        double again = measure(&world, arena, AGAIN_ROUNDS, false, true);
        is_fine = both >= 0 && again >= 0;
        printf("%-6s first %8.2f us   again %6.3f us\n", name, (both - forgetting) / 1e3,
               again / 1e3);
    }
    tear_down(&world);
    arena_destroy(arena);
    arena_destroy(kept);
    return is_fine;
}

int main(void)
{
    bool is_fine = run("HS256", NULL);
    is_fine = run("ES256", TEST_KEY_ES256_PRIVATE) && is_fine;
    is_fine = run("EdDSA", TEST_KEY_EDDSA_PRIVATE) && is_fine;
    return is_fine ? 0 : 1;
}
