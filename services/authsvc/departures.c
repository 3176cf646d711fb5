#include "authsvc/departures.h"

#include <pthread.h>
#include <time.h>

#include "api/placementdriver.pb-c.h"
#include "authsvc/accounts.h"
#include "authsvc/pd_store.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    IDLE_SECONDS = 60,    // then somebody else may have left a record
    RETRY_SECONDS = 5,    // while there are records
    KEPT_SECONDS = 60,    // a record, after the deletion
    DEPARTURES_MAX = 100, // in one go
};

struct departures {
    struct authsvc *authsvc;
    pthread_t thread;
    pthread_mutex_t lock; // of the rest
    pthread_cond_t wake;
    bool has_news;
    bool is_stopping;
};

struct sweep {
    struct departures *departures;
    struct arena *arena;
    struct error *error;
    char **collections; // of everybody
    size_t collection_count;
};

static enum status ask(struct sweep *sweep, const char *method, const ProtobufCMessage *message,
                       const ProtobufCMessage **out_answer)
{
    return pd_store_ask(sweep->departures->authsvc->store,
                        &(struct pd_question){
                            .service = &vectron__placementdriver__v1__placement_service__descriptor,
                            .method = method,
                            .message = message,
                            .may_repeat = true,
                        },
                        sweep->arena, sweep->error, out_answer);
}

static enum status list_collections(struct sweep *sweep)
{
    Vectron__Placementdriver__V1__ListCollectionsRequest request =
        VECTRON__PLACEMENTDRIVER__V1__LIST_COLLECTIONS_REQUEST__INIT;
    const ProtobufCMessage *answer = NULL;
    TRY(ask(sweep, "ListCollections", &request.base, &answer));
    const Vectron__Placementdriver__V1__ListCollectionsResponse *list = (const void *)answer;
    sweep->collections = list->collections;
    sweep->collection_count = list->n_collections;
    return STATUS_OK;
}

// How many there were. What has gone meanwhile is as good.
static enum status remove_collections(struct sweep *sweep, const char *user_id, uint32_t *out_count)
{
    struct str prefix = arena_format(sweep->arena, "%s/", user_id);
    uint32_t count = 0;
    for (size_t i = 0; i < sweep->collection_count; i++) {
        Vectron__Placementdriver__V1__DeleteCollectionRequest request =
            VECTRON__PLACEMENTDRIVER__V1__DELETE_COLLECTION_REQUEST__INIT;
        const ProtobufCMessage *answer = NULL;
        if (!str_starts_with(str_from_cstr(sweep->collections[i]), prefix))
            continue;
        request.name = sweep->collections[i];
        enum status status = ask(sweep, "DeleteCollection", &request.base, &answer);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND)
            return status;
        count++;
    }
    if (count > 0)
        log_info("collections of a deleted user removed", LOG_CSTR("user", user_id),
                 LOG_U64("collections", count));
    *out_count = count;
    return STATUS_OK;
}

static enum status forget(struct sweep *sweep, const departure_record *departure, uint64_t version)
{
    struct batch batch;
    batch_init(&batch, sweep->arena, str_from_cstr(departure->user_id));
    batch.is_unannounced = true;
    batch_remove_departure(&batch, version);
    enum status status =
        accounts_commit(sweep->departures->authsvc->accounts, &batch, sweep->error);
    return status == STATUS_ABORTED ? STATUS_OK : status; // somebody else did it
}

static enum status sweep_all(struct sweep *sweep, bool *out_has_some)
{
    struct departure_list list = {0};
    *out_has_some = false;
    TRY(accounts_list_departures(sweep->departures->authsvc->accounts, DEPARTURES_MAX, sweep->arena,
                                 sweep->error, &list));
    if (list.count == 0)
        return STATUS_OK;
    *out_has_some = true;
    TRY(list_collections(sweep));
    for (uint32_t i = 0; i < list.count; i++) {
        const departure_record *departure = list.departures[i];
        uint32_t count = 0;
        TRY(remove_collections(sweep, departure->user_id, &count));
        if (count == 0 && clock_unix_seconds() >= departure->left_at + KEPT_SECONDS)
            TRY(forget(sweep, departure, list.versions[i]));
    }
    return STATUS_OK;
}

// Under the lock.
static void wait_for_news(struct departures *departures, uint64_t seconds)
{
    uint64_t end_ns = clock_monotonic_ns() + seconds * NS_PER_SECOND;
    struct timespec end = {
        .tv_sec = (time_t)(end_ns / NS_PER_SECOND),
        .tv_nsec = (long)(end_ns % NS_PER_SECOND),
    };
    int result = 0;
    while (!departures->has_news && !departures->is_stopping && result == 0)
        result = pthread_cond_timedwait(&departures->wake, &departures->lock, &end);
    departures->has_news = false;
}

static void *run(void *argument)
{
    struct departures *departures = argument;
    pthread_mutex_lock(&departures->lock);
    while (!departures->is_stopping) {
        pthread_mutex_unlock(&departures->lock);
        struct error error = {0};
        bool has_some = false;
        struct sweep sweep = {departures, arena_create(ACCOUNTS_ARENA_SIZE), &error, NULL, 0};
        enum status status = sweep_all(&sweep, &has_some);
        arena_destroy(sweep.arena);
        if (status != STATUS_OK)
            log_debug("collections of deleted users not removed yet",
                      LOG_CSTR("status", status_name(status)), LOG_CSTR("reason", error.text));
        bool is_done = status == STATUS_OK && !has_some;
        pthread_mutex_lock(&departures->lock);
        wait_for_news(departures, is_done ? IDLE_SECONDS : RETRY_SECONDS);
    }
    pthread_mutex_unlock(&departures->lock);
    return NULL;
}

// --- Life

static void destroy(struct departures *departures)
{
    pthread_cond_destroy(&departures->wake);
    pthread_mutex_destroy(&departures->lock);
    mem_free(departures);
}

enum status departures_start(struct authsvc *authsvc, struct error *error,
                             struct departures **out_departures)
{
    struct departures *departures = mem_alloc(sizeof(*departures));
    pthread_condattr_t attributes;
    departures->authsvc = authsvc;
    pthread_mutex_init(&departures->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&departures->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    int number = pthread_create(&departures->thread, NULL, run, departures);
    if (number != 0) {
        destroy(departures);
        return error_set(error, STATUS_IO, "start a thread: %s", error_system_text(number));
    }
    (void)pthread_setname_np(departures->thread, "departures"); // only for people
    *out_departures = departures;
    return STATUS_OK;
}

void departures_wake(struct departures *departures)
{
    if (departures == NULL)
        return;
    pthread_mutex_lock(&departures->lock);
    departures->has_news = true;
    pthread_cond_signal(&departures->wake);
    pthread_mutex_unlock(&departures->lock);
}

void departures_stop(struct departures *departures)
{
    if (departures == NULL)
        return;
    pthread_mutex_lock(&departures->lock);
    departures->is_stopping = true;
    pthread_cond_signal(&departures->wake);
    pthread_mutex_unlock(&departures->lock);
    (void)pthread_join(departures->thread, NULL);
    destroy(departures);
}
