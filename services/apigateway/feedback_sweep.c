#include "apigateway/feedback_sweep.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "apigateway/feedback.h"
#include "apigateway/identity_watch.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    INTERVAL_SECONDS = 600, // for feedback that came in while its user was being deleted
    RETRY_SECONDS = 5,
    LOOKUP_SECONDS = 2,
    PAGE_MEMORY_MAX = 4 << 20,
    USER_ID_SIZE_MAX = 256,
};

struct feedback_sweep {
    struct gateway *gateway;
    pthread_t thread;
    pthread_mutex_t lock; // of the rest
    pthread_cond_t wake;
    bool has_news;
    bool is_stopping;
};

static bool is_stopping(struct feedback_sweep *sweep)
{
    pthread_mutex_lock(&sweep->lock);
    bool stops = sweep->is_stopping;
    pthread_mutex_unlock(&sweep->lock);
    return stops;
}

static enum status ask(struct gateway *gateway, struct str user_id, struct arena *arena,
                       struct error *error, bool *out_is_deleted)
{
    const ProtobufCMessage *answer = NULL;
    struct metadata proof = identity_proof(gateway);
    Vectron__Auth__V1__LookupIdentityRequest request =
        VECTRON__AUTH__V1__LOOKUP_IDENTITY_REQUEST__INIT;
    request.user_id = arena_cstr(arena, user_id);
    TRY(client_call_wait(
        &(struct client_request){
            .channel = gateway->auth,
            .service = &vectron__auth__v1__identity_service__descriptor,
            .method = "LookupIdentity",
            .message = &request.base,
            .deadline_ns = clock_monotonic_ns() + LOOKUP_SECONDS * NS_PER_SECOND,
            .metadata = &proof,
            .metadata_count = 1,
        },
        arena, error, &answer));
    const Vectron__Auth__V1__IdentityChanges *changes = (const void *)answer;
    *out_is_deleted = changes->n_users == 1 && changes->users[0]->is_deleted;
    return STATUS_OK;
}

static enum status sweep_user(struct gateway *gateway, struct str user_id, struct arena *arena,
                              struct error *error)
{
    bool is_deleted = false;
    if (directory_has_user(gateway->directory, user_id))
        return STATUS_OK;
    TRY(ask(gateway, user_id, arena, error, &is_deleted));
    if (!is_deleted)
        return STATUS_OK;
    TRY(feedback_forget_user(gateway->feedback, user_id, error));
    log_info("feedback of a deleted user removed", LOG_STR("user", user_id));
    return STATUS_OK;
}

static enum status sweep_page(struct feedback_sweep *sweep, struct str after, struct arena *arena,
                              struct error *error, struct str *out_last)
{
    struct gateway *gateway = sweep->gateway;
    struct feedback_users users;
    TRY(feedback_list_users(gateway->feedback, after, arena, error, &users));
    for (uint32_t i = 0; i < users.count && !is_stopping(sweep); i++)
        TRY(sweep_user(gateway, users.ids[i], arena, error));
    if (users.count == FEEDBACK_PAGE_USERS)
        *out_last = users.ids[users.count - 1];
    return STATUS_OK;
}

static enum status sweep_all(struct feedback_sweep *sweep, struct error *error)
{
    char kept[USER_ID_SIZE_MAX];
    struct str after = {kept, 0};
    enum status status = STATUS_OK;
    do {
        struct arena *arena = arena_create(PAGE_MEMORY_MAX);
        struct str last = {0};
        status = sweep_page(sweep, after, arena, error, &last);
        after.len = status == STATUS_OK && last.len <= sizeof(kept) ? last.len : 0;
        if (after.len > 0)
            memcpy(kept, last.data, after.len);
        arena_destroy(arena);
    } while (after.len > 0 && !is_stopping(sweep));
    return status;
}

// Under the lock.
static void wait_for_news(struct feedback_sweep *sweep, uint64_t seconds)
{
    uint64_t end_ns = clock_monotonic_ns() + seconds * NS_PER_SECOND;
    struct timespec end = {
        .tv_sec = (time_t)(end_ns / NS_PER_SECOND),
        .tv_nsec = (long)(end_ns % NS_PER_SECOND),
    };
    int result = 0;
    while (!sweep->has_news && !sweep->is_stopping && result == 0)
        result = pthread_cond_timedwait(&sweep->wake, &sweep->lock, &end);
    sweep->has_news = false;
}

static void *run(void *argument)
{
    struct feedback_sweep *sweep = argument;
    uint64_t seconds = INTERVAL_SECONDS;
    pthread_mutex_lock(&sweep->lock);
    for (;;) {
        struct error error = {0};
        wait_for_news(sweep, seconds);
        if (sweep->is_stopping)
            break;
        pthread_mutex_unlock(&sweep->lock);
        enum status status = sweep_all(sweep, &error);
        if (status != STATUS_OK)
            log_debug("feedback of deleted users not removed yet",
                      LOG_CSTR("status", status_name(status)), LOG_CSTR("reason", error.text));
        seconds = status == STATUS_OK ? INTERVAL_SECONDS : RETRY_SECONDS;
        pthread_mutex_lock(&sweep->lock);
    }
    pthread_mutex_unlock(&sweep->lock);
    return NULL;
}

enum status feedback_sweep_start(struct gateway *gateway, struct error *error,
                                 struct feedback_sweep **out_sweep)
{
    struct feedback_sweep *sweep = mem_alloc(sizeof(*sweep));
    pthread_condattr_t attributes;
    sweep->gateway = gateway;
    pthread_mutex_init(&sweep->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&sweep->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&sweep->thread, NULL, run, sweep) != 0) {
        pthread_cond_destroy(&sweep->wake);
        pthread_mutex_destroy(&sweep->lock);
        mem_free(sweep);
        return error_set(error, STATUS_UNAVAILABLE, "no thread for the feedback");
    }
    *out_sweep = sweep;
    return STATUS_OK;
}

void feedback_sweep_stop(struct feedback_sweep *sweep)
{
    if (sweep == NULL)
        return;
    pthread_mutex_lock(&sweep->lock);
    sweep->is_stopping = true;
    pthread_cond_signal(&sweep->wake);
    pthread_mutex_unlock(&sweep->lock);
    (void)pthread_join(sweep->thread, NULL); // fails only for what is no thread
    pthread_cond_destroy(&sweep->wake);
    pthread_mutex_destroy(&sweep->lock);
    mem_free(sweep);
}

void feedback_sweep_wake(struct feedback_sweep *sweep)
{
    pthread_mutex_lock(&sweep->lock);
    sweep->has_news = true;
    pthread_cond_signal(&sweep->wake);
    pthread_mutex_unlock(&sweep->lock);
}
