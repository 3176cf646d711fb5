#include "identity/directory.h"

#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"

// What a request pays for its token once it is remembered, with one thread and with two on the same
// token.

enum { ROUNDS = 3000000 };

struct bench {
    struct directory *directory;
    struct str authorization;
};

static void *run(void *context)
{
    struct bench *bench = context;
    struct arena *arena = arena_create(1 << 20);
    struct caller caller;
    for (int i = 0; i < ROUNDS; i++) {
        arena_reset(arena);
        if (directory_check(bench->directory, bench->authorization, arena, NULL, &caller) !=
            STATUS_OK)
            break;
    }
    arena_destroy(arena);
    return NULL;
}

int main(void)
{
    struct arena *arena = arena_create(1 << 20);
    struct token_authority *authority = NULL;
    struct str sealed = {0};
    struct str jwt = {0};
    char raw[API_KEY_SIZE + 1];
    api_key_generate(raw);
    struct str key = str_from_cstr(raw);
    struct directory_user user = {.user_id = STR("u1"), .plan = PLAN_FREE};
    struct directory_key record = {
        .key_id = api_key_id(key), .user_id = user.user_id, .role = STR("owner")};
    api_key_hash(key, record.hash);
    if (token_authority_create(
            &(struct token_authority_options){.secret = STR("0123456789abcdef0123456789abcdef")},
            NULL, &authority) != STATUS_OK ||
        api_key_seal(authority, key, user.user_id, arena, &sealed) != STATUS_OK ||
        token_sign(authority,
                   &(struct token){.kind = TOKEN_SDK,
                                   .user_id = user.user_id,
                                   .plan = PLAN_FREE,
                                   .role = record.role,
                                   .key_id = record.key_id,
                                   .key_name = STR("bench"),
                                   .sealed_key = sealed,
                                   .expires_at = clock_unix_seconds() + 3600},
                   arena, NULL, &jwt) != STATUS_OK)
        return 1;
    struct bench bench = {.directory = directory_create(authority),
                          .authorization = arena_format(arena, "Bearer %.*s", STR_ARG(jwt))};
    directory_put_user(bench.directory, &user);
    directory_put_key(bench.directory, &record);
    uint64_t start = clock_monotonic_ns();
    run(&bench);
    printf("1 thread:  %.0f ns a check\n", (double)(clock_monotonic_ns() - start) / ROUNDS);
    pthread_t other;
    start = clock_monotonic_ns();
    bool has_other = pthread_create(&other, NULL, run, &bench) == 0;
    run(&bench);
    if (has_other)
        pthread_join(other, NULL);
    printf("2 threads: %.0f ns a check of each\n", (double)(clock_monotonic_ns() - start) / ROUNDS);
    directory_destroy(bench.directory);
    token_authority_destroy(authority);
    arena_destroy(arena);
    return 0;
}
