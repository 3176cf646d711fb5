#include "authsvc/identity_feed.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "authsvc/admin.h"
#include "authsvc/identity_changes.h"
#include "authsvc/seals.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    POLL_MS = 400,
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 2000,
    QUEUED_SIZE_HIGH = 256 << 10, // of a stream: then it waits until its reader has caught up
    PENDING_MAX = 1000,           // messages that a watcher may be behind, its first ones excepted
};

enum progress {
    PROGRESS_WAITING,    // for the next snapshot
    PROGRESS_BEING_TOLD, // the snapshot that is being read
    PROGRESS_CURRENT,    // it gets changes
};

struct pending {
    struct pending *next;
    struct identity_message *message;
};

struct watcher {
    struct task task; // first
    struct watcher *next;
    struct watcher *previous;
    struct identity_feed *feed;
    struct rpc *rpc;
    // Under the feed's lock.
    struct pending *first;
    struct pending *last;
    uint32_t pending_count;
    enum progress progress;
    bool is_too_slow;
    bool is_posted;
    // On the loop.
    bool is_over;
};

struct identity_feed {
    struct authsvc *authsvc;
    pthread_t thread;
    pthread_mutex_t lock; // of the rest
    pthread_cond_t wake;
    struct watcher *watchers;
    bool has_news;
    bool is_draining;
    bool is_stopping;
    // The thread's own.
    uint64_t sequence; // of the last change that watchers know
    bool is_prepared;
    bool was_told; // the routers
    bool is_ready; // as they were told last
    // The owner's.
    bool has_thread;
};

// --- Watchers, on their loops

static void unlink_watcher(struct watcher *watcher)
{
    struct identity_feed *feed = watcher->feed;
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        feed->watchers = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
    while (watcher->first != NULL) {
        struct pending *pending = watcher->first;
        watcher->first = pending->next;
        identity_message_unref(pending->message);
        mem_free(pending);
    }
    watcher->pending_count = 0;
}

static void release(struct watcher *watcher)
{
    struct authsvc *authsvc = watcher->feed->authsvc;
    rpc_unref(watcher->rpc); // the watcher lives in its memory
    authsvc_end(authsvc);
}

// The stream is over; nobody finds the watcher any more.
static void end(struct watcher *watcher)
{
    struct identity_feed *feed = watcher->feed;
    pthread_mutex_lock(&feed->lock);
    unlink_watcher(watcher);
    bool is_posted = watcher->is_posted;
    pthread_mutex_unlock(&feed->lock);
    watcher->is_over = true;
    if (!is_posted) // else its task is still to come
        release(watcher);
}

static void cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    end(context);
}

static struct identity_message *pop(struct watcher *watcher, bool *out_is_draining,
                                    bool *out_is_too_slow)
{
    struct identity_feed *feed = watcher->feed;
    struct identity_message *message = NULL;
    pthread_mutex_lock(&feed->lock);
    struct pending *pending = watcher->first;
    if (pending != NULL) {
        message = pending->message;
        watcher->first = pending->next;
        watcher->pending_count--;
        mem_free(pending);
    }
    *out_is_draining = feed->is_draining;
    *out_is_too_slow = watcher->is_too_slow;
    pthread_mutex_unlock(&feed->lock);
    return message;
}

static void deliver(struct watcher *watcher)
{
    bool is_draining = false;
    bool is_too_slow = false;
    while (rpc_queued_size(watcher->rpc) < QUEUED_SIZE_HIGH) {
        struct identity_message *message = pop(watcher, &is_draining, &is_too_slow);
        if (message == NULL)
            break;
        rpc_send(watcher->rpc, identity_message_of(message));
        identity_message_unref(message);
        if (rpc_is_done(watcher->rpc)) // it could not be sent, and that has ended it
            break;
    }
    if (!rpc_is_done(watcher->rpc) && is_draining)
        rpc_fail(watcher->rpc, STATUS_UNAVAILABLE, "this auth service is ending: watch again");
    else if (!rpc_is_done(watcher->rpc) && is_too_slow)
        rpc_fail(watcher->rpc, STATUS_ABORTED, "%d changes behind: watch again", PENDING_MAX);
    if (rpc_is_done(watcher->rpc))
        end(watcher);
}

static void run_watcher(struct task *task)
{
    struct watcher *watcher = (struct watcher *)(void *)task;
    pthread_mutex_lock(&watcher->feed->lock);
    watcher->is_posted = false;
    pthread_mutex_unlock(&watcher->feed->lock);
    if (watcher->is_over)
        release(watcher);
    else
        deliver(watcher);
}

static void writable(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct watcher *watcher = context;
    if (!watcher->is_over)
        deliver(watcher);
}

void identity_feed_watch(struct rpc *rpc, void *context)
{
    struct authsvc *authsvc = context;
    struct identity_feed *feed = authsvc->feed;
    struct watcher *watcher = arena_alloc(rpc_arena(rpc), sizeof(*watcher));
    *watcher = (struct watcher){
        .task = {.run = run_watcher}, .feed = feed, .rpc = rpc, .progress = PROGRESS_WAITING};
    pthread_mutex_lock(&feed->lock);
    bool is_draining = feed->is_draining;
    if (!is_draining) {
        rpc_ref(rpc);
        authsvc_begin(authsvc);
        watcher->next = feed->watchers;
        if (watcher->next != NULL)
            watcher->next->previous = watcher;
        feed->watchers = watcher;
        feed->has_news = true;
        pthread_cond_signal(&feed->wake);
    }
    pthread_mutex_unlock(&feed->lock);
    if (is_draining) {
        rpc_fail(rpc, STATUS_UNAVAILABLE, "this auth service is ending");
        return;
    }
    // On this thread, like the watcher's task: neither comes before this returns.
    rpc_on_cancel(rpc, cancelled, watcher);
    rpc_on_writable(rpc, writable, watcher);
}

// --- From the feed's thread to the watchers

// Under the lock.
static void post(struct watcher *watcher)
{
    if (!watcher->is_posted)
        loop_post(call_loop(rpc_call(watcher->rpc)), &watcher->task);
    watcher->is_posted = true;
}

static void push(struct watcher *watcher, struct identity_message *message)
{
    struct pending *pending = mem_alloc(sizeof(*pending));
    pending->message = identity_message_ref(message);
    if (watcher->first == NULL)
        watcher->first = pending;
    else
        watcher->last->next = pending;
    watcher->last = pending;
    watcher->pending_count++;
    post(watcher);
}

static void push_to(struct identity_feed *feed, struct identity_message *message,
                    enum progress progress)
{
    pthread_mutex_lock(&feed->lock);
    for (struct watcher *it = feed->watchers; it != NULL; it = it->next) {
        if (it->progress != progress || it->is_too_slow)
            continue;
        it->is_too_slow = progress == PROGRESS_CURRENT && it->pending_count >= PENDING_MAX;
        if (it->is_too_slow)
            post(it);
        else
            push(it, message);
    }
    pthread_mutex_unlock(&feed->lock);
}

static void push_page(struct identity_message *message, void *context)
{
    push_to(context, message, PROGRESS_BEING_TOLD);
}

// Whether there are any that have made the progress from.
static bool move(struct identity_feed *feed, enum progress from, enum progress to)
{
    bool has_any = false;
    pthread_mutex_lock(&feed->lock);
    for (struct watcher *it = feed->watchers; it != NULL; it = it->next) {
        if (it->progress != from)
            continue;
        it->progress = to;
        has_any = true;
    }
    pthread_mutex_unlock(&feed->lock);
    return has_any;
}

// --- The feed's thread

static enum status tell_changes(struct identity_feed *feed, const changes_record *changes,
                                struct error *error)
{
    struct identity_message *message = NULL;
    uint64_t missed = changes->sequence - feed->sequence; // wraps when the store began anew
    if (missed == 0)
        return STATUS_OK;
    if (missed > changes->n_changes) {
        // More than the record holds: only everything will do.
        (void)move(feed, PROGRESS_CURRENT, PROGRESS_WAITING);
        return STATUS_OK;
    }
    TRY(identity_read_changes(feed->authsvc->accounts, changes, (size_t)missed, error, &message));
    push_to(feed, message, PROGRESS_CURRENT);
    identity_message_unref(message);
    return STATUS_OK;
}

// The sequence is read first: what changes meanwhile is told again, which does no harm.
static enum status tell(struct identity_feed *feed, struct error *error)
{
    struct accounts *accounts = feed->authsvc->accounts;
    struct arena *arena = arena_create(ACCOUNTS_ARENA_SIZE);
    changes_record *changes = NULL;
    uint64_t version = 0;
    enum status status = accounts_get_changes(accounts, arena, error, &changes, &version);
    if (status == STATUS_OK)
        status = tell_changes(feed, changes, error);
    if (status == STATUS_OK)
        feed->sequence = changes->sequence;
    arena_destroy(arena);
    TRY(status);
    if (!move(feed, PROGRESS_WAITING, PROGRESS_BEING_TOLD))
        return STATUS_OK;
    status = identity_read_snapshot(accounts, error, push_page, feed);
    // The next snapshot begins anew, whatever was told of this one.
    (void)move(feed, PROGRESS_BEING_TOLD,
               status == STATUS_OK ? PROGRESS_CURRENT : PROGRESS_WAITING);
    return status;
}

static enum status step(struct identity_feed *feed, struct error *error)
{
    struct authsvc *authsvc = feed->authsvc;
    if (!feed->is_prepared) {
        TRY(admin_ensure(authsvc->admin, authsvc->accounts, error));
        TRY(seals_renew(authsvc, error));
        TRY(tell(feed, error)); // the store answers, whether there is an admin to make or not
        feed->is_prepared = true;
        authsvc_set_prepared(authsvc);
        return STATUS_OK;
    }
    return tell(feed, error);
}

static void set_ready(struct identity_feed *feed, enum status status, const struct error *error)
{
    struct authsvc *authsvc = feed->authsvc;
    bool is_ready = status == STATUS_OK;
    if (feed->was_told && feed->is_ready == is_ready)
        return;
    struct str reason = is_ready ? STR("") : STR("the store of the accounts does not answer");
    rpc_router_set_ready(authsvc->grpc_router, is_ready, reason);
    rpc_router_set_ready(authsvc->http_router, is_ready, reason);
    if (is_ready)
        log_info("accounts are reached");
    else
        log_warn("accounts are not reached", LOG_CSTR("status", status_name(status)),
                 LOG_CSTR("reason", error->text));
    feed->was_told = true;
    feed->is_ready = is_ready;
}

// Under the lock. Until something is to be done, or delay_ms have passed (0: for ever).
static void wait_for_news(struct identity_feed *feed, uint64_t delay_ms)
{
    uint64_t end_ns = clock_monotonic_ns() + delay_ms * NS_PER_MS;
    struct timespec end = {
        .tv_sec = (time_t)(end_ns / NS_PER_SECOND),
        .tv_nsec = (long)(end_ns % NS_PER_SECOND),
    };
    int result = 0;
    while (!feed->has_news && !feed->is_stopping && result == 0)
        result = delay_ms == 0 ? pthread_cond_wait(&feed->wake, &feed->lock)
                               : pthread_cond_timedwait(&feed->wake, &feed->lock, &end);
    feed->has_news = false;
}

static void *run_feed(void *argument)
{
    struct identity_feed *feed = argument;
    uint64_t backoff_ms = BACKOFF_MS_MIN;
    pthread_mutex_lock(&feed->lock);
    while (!feed->is_stopping) {
        pthread_mutex_unlock(&feed->lock);
        struct error error = {0};
        enum status status = step(feed, &error);
        set_ready(feed, status, &error);
        bool is_ready = status == STATUS_OK;
        uint64_t delay_ms = is_ready ? (feed->authsvc->is_shared ? POLL_MS : 0) : backoff_ms;
        backoff_ms = is_ready                          ? BACKOFF_MS_MIN
                     : backoff_ms * 2 < BACKOFF_MS_MAX ? backoff_ms * 2
                                                       : BACKOFF_MS_MAX;
        pthread_mutex_lock(&feed->lock);
        wait_for_news(feed, delay_ms);
    }
    pthread_mutex_unlock(&feed->lock);
    return NULL;
}

// --- Life

struct identity_feed *identity_feed_create(struct authsvc *authsvc)
{
    struct identity_feed *feed = mem_alloc(sizeof(*feed));
    pthread_condattr_t attributes;
    feed->authsvc = authsvc;
    pthread_mutex_init(&feed->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&feed->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return feed;
}

enum status identity_feed_start(struct identity_feed *feed, struct error *error)
{
    int number = pthread_create(&feed->thread, NULL, run_feed, feed);
    if (number != 0)
        return error_set(error, STATUS_IO, "start a thread: %s", error_system_text(number));
    (void)pthread_setname_np(feed->thread, "identity"); // only for people
    feed->has_thread = true;
    return STATUS_OK;
}

void identity_feed_wake(struct identity_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->has_news = true;
    pthread_cond_signal(&feed->wake);
    pthread_mutex_unlock(&feed->lock);
}

void identity_feed_drain(struct identity_feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->is_draining = true;
    for (struct watcher *it = feed->watchers; it != NULL; it = it->next)
        post(it);
    pthread_mutex_unlock(&feed->lock);
}

void identity_feed_stop(struct identity_feed *feed)
{
    if (!feed->has_thread)
        return;
    pthread_mutex_lock(&feed->lock);
    feed->is_stopping = true;
    pthread_cond_signal(&feed->wake);
    pthread_mutex_unlock(&feed->lock);
    (void)pthread_join(feed->thread, NULL);
    feed->has_thread = false;
}

void identity_feed_destroy(struct identity_feed *feed)
{
    if (feed == NULL)
        return;
    pthread_cond_destroy(&feed->wake);
    pthread_mutex_destroy(&feed->lock);
    mem_free(feed);
}
