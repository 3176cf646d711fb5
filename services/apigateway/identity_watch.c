#include "apigateway/identity_watch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "api/client.h"
#include "apigateway/feedback_sweep.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

enum {
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 1000,
    REPORT_SECONDS = 10,
    REPORT_DEADLINE_SECONDS = 5,
    REPORT_KEYS_MAX = 1000, // in one message
    REPORT_MEMORY_MAX = 16 << 20,
};

struct identity_watch {
    struct gateway *gateway;
    void (*changed)(struct gateway *gateway);
    struct loop *loop;
    struct timer retry;
    struct timer report;
    struct task start;
    struct task stop;
    struct channel_call *call; // NULL: not open
    struct rng rng;
    uint64_t backoff_ms;
    bool has_snapshot;
    atomic_bool is_connected;
    bool has_stopped;
    pthread_mutex_t lock; // of is_gone, for who waits in identity_watch_stop
    pthread_cond_t gone;
    bool is_gone;
};

struct metadata identity_proof(const struct gateway *gateway)
{
    return (struct metadata){STR("vectron-identity"),
                             str_from_cstr(gateway->secrets.identity_token)};
}

static void apply_key(struct directory *directory, const Vectron__Auth__V1__KeyRecord *record,
                      struct str *names)
{
    for (size_t i = 0; i < record->n_collections; i++)
        names[i] = str_from_cstr(record->collections[i]);
    struct directory_key key = {
        .key_id = str_from_cstr(record->key_id),
        .user_id = str_from_cstr(record->user_id),
        .name = str_from_cstr(record->name),
        .role = str_from_cstr(record->role),
        .collections = names,
        .collection_count = (uint32_t)record->n_collections,
        .expires_at = record->expires_at,
        // Without a hash nothing can match: the key opens nothing.
        .is_deleted = record->is_deleted || record->key_hash.len != API_KEY_HASH_SIZE,
    };
    if (record->key_hash.len == API_KEY_HASH_SIZE)
        memcpy(key.hash, record->key_hash.data, API_KEY_HASH_SIZE);
    directory_put_key(directory, &key);
}

void identity_apply(struct directory *directory, const Vectron__Auth__V1__IdentityChanges *changes)
{
    for (size_t i = 0; i < changes->n_users; i++) {
        const Vectron__Auth__V1__UserRecord *record = changes->users[i];
        directory_put_user(directory, &(struct directory_user){
                                          .user_id = str_from_cstr(record->user_id),
                                          .plan = (enum plan)record->plan,
                                          .is_admin = strcmp(record->role, "admin") == 0,
                                          .token_generation = record->token_generation,
                                          .is_deleted = record->is_deleted,
                                      });
    }
    for (size_t i = 0; i < changes->n_keys; i++) {
        const Vectron__Auth__V1__KeyRecord *record = changes->keys[i];
        struct str *names = mem_alloc(sizeof(*names) * (record->n_collections + 1));
        apply_key(directory, record, names);
        mem_free(names);
    }
}

// --- The watch

static void retry_later(struct identity_watch *watch)
{
    uint64_t delay_ms = watch->backoff_ms / 2 + rng_below(&watch->rng, watch->backoff_ms / 2 + 1);
    watch->backoff_ms =
        watch->backoff_ms * 2 < BACKOFF_MS_MAX ? watch->backoff_ms * 2 : BACKOFF_MS_MAX;
    timer_start(&watch->retry, delay_ms * NS_PER_MS);
}

static bool tells_of_deletion(const Vectron__Auth__V1__IdentityChanges *changes)
{
    for (size_t i = 0; i < changes->n_users; i++) {
        if (changes->users[i]->is_deleted)
            return true;
    }
    return false;
}

static void watched(enum status status, struct str text, const ProtobufCMessage *message,
                    void *context)
{
    struct identity_watch *watch = context;
    struct gateway *gateway = watch->gateway;
    if (message == NULL) {
        watch->call = NULL;
        if (atomic_exchange(&watch->is_connected, false) || status == STATUS_FORBIDDEN)
            log_warn("identity watch ended", LOG_CSTR("status", status_name(status)),
                     LOG_STR("reason", text));
        retry_later(watch);
        return;
    }
    const Vectron__Auth__V1__IdentityChanges *changes =
        (const Vectron__Auth__V1__IdentityChanges *)(const void *)message;
    if (changes->is_snapshot)
        directory_clear(gateway->directory);
    identity_apply(gateway->directory, changes);
    if (changes->is_snapshot || tells_of_deletion(changes))
        feedback_sweep_wake(gateway->feedback_sweep);
    watch->backoff_ms = BACKOFF_MS_MIN;
    if (!changes->is_snapshot)
        return;
    if (!atomic_exchange(&watch->is_connected, true))
        log_info("identity watch opened", LOG_U64("users", changes->n_users),
                 LOG_U64("keys", changes->n_keys));
    if (!watch->has_snapshot)
        watch->changed(gateway);
    watch->has_snapshot = true;
}

static void open_watch(struct timer *timer)
{
    struct identity_watch *watch =
        (struct identity_watch *)(void *)((char *)timer - offsetof(struct identity_watch, retry));
    Vectron__Auth__V1__WatchIdentityRequest message =
        VECTRON__AUTH__V1__WATCH_IDENTITY_REQUEST__INIT;
    struct metadata proof = identity_proof(watch->gateway);
    if (watch->has_stopped)
        return;
    watch->call = client_call(&(struct client_request){
        .channel = watch->gateway->auth,
        .service = &vectron__auth__v1__identity_service__descriptor,
        .method = "WatchIdentity",
        .message = &message.base,
        .deadline_ns = UINT64_MAX,
        .is_stream = true,
        .metadata = &proof,
        .metadata_count = 1,
        .context = watch,
        .done = watched,
    });
}

// --- The report of uses

struct report {
    struct gateway *gateway;
    struct arena *arena;
    Vectron__Auth__V1__KeyUse *uses[REPORT_KEYS_MAX];
    size_t count;
};

static void reported(enum status status, struct str text, const ProtobufCMessage *message,
                     void *context)
{
    (void)message;
    (void)context;
    // What is lost is only when a key was last used; its next use reports again.
    if (status != STATUS_OK)
        log_debug("key use not reported", LOG_CSTR("status", status_name(status)),
                  LOG_STR("reason", text));
}

static void send_report(struct report *report)
{
    Vectron__Auth__V1__ReportKeyUseRequest message =
        VECTRON__AUTH__V1__REPORT_KEY_USE_REQUEST__INIT;
    struct metadata proof = identity_proof(report->gateway);
    message.n_uses = report->count;
    message.uses = report->uses;
    (void)client_call(&(struct client_request){
        .channel = report->gateway->auth,
        .service = &vectron__auth__v1__identity_service__descriptor,
        .method = "ReportKeyUse",
        .message = &message.base,
        .deadline_ns = clock_monotonic_ns() + REPORT_DEADLINE_SECONDS * NS_PER_SECOND,
        .metadata = &proof,
        .metadata_count = 1,
        .done = reported,
    });
    report->count = 0;
    arena_reset(report->arena);
}

static void add_use(struct str key_id, int64_t last_used_at, void *context)
{
    struct report *report = context;
    Vectron__Auth__V1__KeyUse *use = arena_alloc(report->arena, sizeof(*use));
    vectron__auth__v1__key_use__init(use);
    use->key_id = arena_cstr(report->arena, key_id);
    use->last_used_at = last_used_at;
    report->uses[report->count++] = use;
    if (report->count == REPORT_KEYS_MAX)
        send_report(report);
}

static void report_uses(struct timer *timer)
{
    struct identity_watch *watch =
        (struct identity_watch *)(void *)((char *)timer - offsetof(struct identity_watch, report));
    struct report report = {.gateway = watch->gateway, .arena = arena_create(REPORT_MEMORY_MAX)};
    directory_take_uses(watch->gateway->directory, add_use, &report);
    if (report.count > 0)
        send_report(&report);
    arena_destroy(report.arena);
    timer_start(&watch->report, REPORT_SECONDS * NS_PER_SECOND);
}

// --- Life

static void start_on_loop(struct task *task)
{
    struct identity_watch *watch =
        (struct identity_watch *)(void *)((char *)task - offsetof(struct identity_watch, start));
    timer_init(&watch->retry, watch->loop, open_watch);
    timer_init(&watch->report, watch->loop, report_uses);
    timer_start(&watch->report, REPORT_SECONDS * NS_PER_SECOND);
    open_watch(&watch->retry);
}

static void stop_on_loop(struct task *task)
{
    struct identity_watch *watch =
        (struct identity_watch *)(void *)((char *)task - offsetof(struct identity_watch, stop));
    watch->has_stopped = true;
    timer_stop(&watch->retry);
    timer_stop(&watch->report);
    if (watch->call != NULL)
        channel_call_cancel(watch->call);
    pthread_mutex_lock(&watch->lock);
    watch->is_gone = true;
    pthread_cond_signal(&watch->gone);
    pthread_mutex_unlock(&watch->lock);
}

struct identity_watch *identity_watch_start(struct gateway *gateway,
                                            void (*changed)(struct gateway *gateway))
{
    struct identity_watch *watch = mem_alloc(sizeof(*watch));
    uint64_t seed;
    rng_secure(&seed, sizeof(seed));
    rng_init(&watch->rng, seed);
    watch->gateway = gateway;
    watch->changed = changed;
    watch->loop = net_loop(gateway->net, 0);
    watch->backoff_ms = BACKOFF_MS_MIN;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->gone, NULL);
    watch->start.run = start_on_loop;
    watch->stop.run = stop_on_loop;
    loop_post(watch->loop, &watch->start);
    return watch;
}

void identity_watch_stop(struct identity_watch *watch)
{
    if (watch == NULL)
        return;
    loop_post(watch->loop, &watch->stop);
    pthread_mutex_lock(&watch->lock);
    while (!watch->is_gone)
        pthread_cond_wait(&watch->gone, &watch->lock);
    pthread_mutex_unlock(&watch->lock);
    pthread_cond_destroy(&watch->gone);
    pthread_mutex_destroy(&watch->lock);
    mem_free(watch);
}

bool identity_watch_is_connected(const struct identity_watch *watch)
{
    return atomic_load(&watch->is_connected);
}
