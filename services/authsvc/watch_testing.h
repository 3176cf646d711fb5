#pragma once

#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "authsvc/auth_testing.h"

// For the tests of the auth service: a watch on it, as a gateway has it, with what was said last of
// each key and user.

enum { WATCH_SEEN_MAX = 4096 };

struct watch_seen {
    char id[64];
    char role[16];
    uint64_t generation;
    int plan;
    bool is_deleted;
};

struct watch {
    struct task begin; // first
    struct task end;
    struct auth_test *test;
    struct channel_call *call;
    pthread_mutex_t lock; // of the rest
    pthread_cond_t changed;
    struct watch_seen seen[WATCH_SEEN_MAX];
    uint32_t seen_count;
    uint32_t message_count;
    uint32_t snapshot_count;
    bool has_ended;
    bool is_closed; // nothing comes any more
    enum status status;
};

static inline struct watch_seen *watch_find(struct watch *watch, const char *id)
{
    for (uint32_t i = 0; i < watch->seen_count; i++) {
        if (strcmp(watch->seen[i].id, id) == 0)
            return &watch->seen[i];
    }
    return NULL;
}

static inline struct watch_seen *watch_see(struct watch *watch, const char *id)
{
    struct watch_seen *seen = watch_find(watch, id);
    if (seen != NULL)
        return seen;
    CHECK(watch->seen_count < WATCH_SEEN_MAX);
    seen = &watch->seen[watch->seen_count % WATCH_SEEN_MAX];
    watch->seen_count++;
    (void)snprintf(seen->id, sizeof(seen->id), "%s", id);
    return seen;
}

static inline bool watch_has_plan(struct watch *watch, const char *user_id, int plan)
{
    const struct watch_seen *seen = watch_find(watch, user_id);
    return seen != NULL && seen->plan == plan;
}

static inline bool watch_has_generation(struct watch *watch, const char *user_id,
                                        uint64_t generation)
{
    const struct watch_seen *seen = watch_find(watch, user_id);
    return seen != NULL && seen->generation == generation;
}

static inline void watch_received(enum status status, struct str text,
                                  const ProtobufCMessage *message, void *context)
{
    (void)text;
    struct watch *watch = context;
    const Vectron__Auth__V1__IdentityChanges *changes = AUTH_AS(IdentityChanges, message);
    pthread_mutex_lock(&watch->lock);
    if (message == NULL) {
        watch->has_ended = true;
        watch->status = status;
    } else {
        watch->message_count++;
        if (changes->is_snapshot) {
            watch->snapshot_count++;
            watch->seen_count = 0;
        }
        for (size_t i = 0; i < changes->n_keys; i++) {
            struct watch_seen *seen = watch_see(watch, changes->keys[i]->key_id);
            seen->is_deleted = changes->keys[i]->is_deleted;
            (void)snprintf(seen->role, sizeof(seen->role), "%s", changes->keys[i]->role);
            CHECK(seen->is_deleted || changes->keys[i]->key_hash.len == API_KEY_HASH_SIZE);
        }
        for (size_t i = 0; i < changes->n_users; i++) {
            struct watch_seen *seen = watch_see(watch, changes->users[i]->user_id);
            seen->is_deleted = changes->users[i]->is_deleted;
            seen->plan = (int)changes->users[i]->plan;
            seen->generation = changes->users[i]->token_generation;
            (void)snprintf(seen->role, sizeof(seen->role), "%s", changes->users[i]->role);
        }
    }
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

static inline void watch_begin(struct task *task)
{
    struct watch *watch = (struct watch *)(void *)task;
    Vectron__Auth__V1__WatchIdentityRequest message =
        VECTRON__AUTH__V1__WATCH_IDENTITY_REQUEST__INIT;
    struct metadata proof = {STR("vectron-identity"),
                             str_from_cstr(watch->test->authsvc->secrets.identity_token)};
    watch->call = client_call(&(struct client_request){
        .channel = watch->test->channel,
        .service = &vectron__auth__v1__identity_service__descriptor,
        .method = "WatchIdentity",
        .message = &message.base,
        .deadline_ns = UINT64_MAX,
        .is_stream = true,
        .metadata = &proof,
        .metadata_count = 1,
        .context = watch,
        .done = watch_received,
    });
}

static inline void watch_cancel(struct task *task)
{
    struct watch *watch = (struct watch *)(void *)((char *)task - offsetof(struct watch, end));
    pthread_mutex_lock(&watch->lock);
    bool has_ended = watch->has_ended;
    pthread_mutex_unlock(&watch->lock);
    if (!has_ended)
        channel_call_cancel(watch->call);
    pthread_mutex_lock(&watch->lock);
    watch->is_closed = true;
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

// Until the condition holds, with the lock held; false after ten seconds.
#define WAIT_UNTIL(watch, condition)                                  \
    do {                                                              \
        uint64_t end_ns_ = clock_monotonic_ns() + 10 * NS_PER_SECOND; \
        pthread_mutex_lock(&(watch)->lock);                           \
        while (!(condition) && clock_monotonic_ns() < end_ns_)        \
            watch_wait_a_little(watch);                               \
        CHECK(condition);                                             \
        pthread_mutex_unlock(&(watch)->lock);                         \
    } while (0)

static inline void watch_wait_a_little(struct watch *watch)
{
    uint64_t until_ns = clock_monotonic_ns() + 20 * NS_PER_MS;
    struct timespec until = {(time_t)(until_ns / NS_PER_SECOND), (long)(until_ns % NS_PER_SECOND)};
    (void)pthread_cond_timedwait(&watch->changed, &watch->lock, &until); // either way, look again
}

static inline struct watch *watch_open(struct auth_test *test)
{
    struct watch *watch = mem_alloc(sizeof(*watch));
    pthread_condattr_t attributes;
    watch->test = test;
    watch->begin.run = watch_begin;
    watch->end.run = watch_cancel;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    loop_post(net_loop(test->net, 0), &watch->begin);
    WAIT_UNTIL(watch, watch->snapshot_count == 1);
    return watch;
}

static inline void watch_close(struct watch *watch)
{
    loop_post(net_loop(watch->test->net, 0), &watch->end);
    WAIT_UNTIL(watch, watch->is_closed);
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->lock);
    mem_free(watch);
}

static inline bool watch_is_deleted(struct watch *watch, const char *id)
{
    const struct watch_seen *seen = watch_find(watch, id);
    return seen != NULL && seen->is_deleted;
}
