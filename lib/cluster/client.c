#include "api/client.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cluster/cluster.h"
#include "net/address.h"
#include "net/channel.h"

// The client of the placement driver. The watch lives on the first loop; the newest map is under a
// mutex, and every loop keeps a reference to the one it saw last, so that a request takes no lock
// while the map does not change. Refreshes of one loop that are asked for while none is on its way
// share a call; those that come while one is on its way wait for the next, because the answer that
// is coming may be older than they are.

enum { PD_ADDRESSES_MAX = 16, BACKOFF_MS_MIN = 50, BACKOFF_MS_MAX = 1000 };

struct refresh {
    struct refresh *next;
    uint64_t deadline_ns;
    void (*done)(enum status status, struct cluster_map *map, void *context);
    void *context;
};

// What the client keeps on one loop; touched by its thread only.
struct client_loop {
    struct cluster_client *client;
    struct loop *loop;
    struct cluster_map *map; // a reference; NULL: none yet
    uint64_t map_serial;
    struct refresh *asked; // for the next call
    struct refresh *on_its_way;
    struct channel_call *call; // NULL: none
    struct channel *channel;   // of the call
    uint32_t attempt_count;
    bool is_task_queued;
    bool is_closed;
    struct task task; // starts the call at the end of the turn
    struct task close_task;
};

struct cluster_client {
    struct cluster_client_options options;
    char internal_token[256];
    struct metadata metadata;
    uint32_t metadata_count;
    struct channel *pd[PD_ADDRESSES_MAX];
    uint32_t pd_count;
    atomic_uint pd_index; // the one that is used

    pthread_mutex_t mutex; // guards map and channels
    struct cluster_map *map;
    struct map *channels;        // by address
    _Atomic uint64_t map_serial; // grows with each new map

    // The watch, on the first loop.
    struct channel_call *watch;
    struct channel *watch_channel;
    struct timer retry_timer;
    struct task start_task;
    struct rng rng;
    uint64_t backoff_ms;
    uint64_t told_serial; // of the map that changed() was called with
    atomic_bool is_connected;

    sem_t closed;
    uint32_t loop_count;
    struct client_loop loops[];
};

// --- Channels

struct channel *cluster_client_pd(struct cluster_client *client)
{
    return client->pd[atomic_load_explicit(&client->pd_index, memory_order_relaxed)];
}

void cluster_client_pd_failed(struct cluster_client *client, const struct channel *channel)
{
    uint32_t index = atomic_load(&client->pd_index);
    if (client->pd[index] != channel)
        return;
    // Somebody else may have moved on meanwhile; then that stands.
    (void)atomic_compare_exchange_strong(&client->pd_index, &index, (index + 1) % client->pd_count);
}

static enum status open_channel(const struct cluster_client *client, struct str address,
                                struct error *error, struct channel **out_channel)
{
    return channel_create(client->options.net,
                          &(struct channel_options){
                              .address = address,
                              .tls = client->options.tls,
                              .message_size_max = 256 << 20,
                          },
                          error, out_channel);
}

// Under the mutex.
static struct channel *find_channel(struct cluster_client *client, struct str address)
{
    struct channel *channel = map_get(client->channels, address);
    if (channel == NULL && open_channel(client, address, NULL, &channel) == STATUS_OK)
        (void)map_put(client->channels, address, channel);
    return channel;
}

struct channel *cluster_client_channel(struct cluster_client *client, struct str address)
{
    pthread_mutex_lock(&client->mutex);
    struct channel *channel = find_channel(client, address);
    pthread_mutex_unlock(&client->mutex);
    return channel;
}

const struct metadata *cluster_client_metadata(const struct cluster_client *client,
                                               uint32_t *out_count)
{
    *out_count = client->metadata_count;
    return &client->metadata;
}

// --- The map

static bool is_newer(const struct cluster_map *map, const struct cluster_map *than)
{
    return than == NULL || !str_equal(map->incarnation, than->incarnation) ||
           map->version > than->version;
}

// Takes the caller's reference over.
static void put_map(struct cluster_client *client, struct cluster_map *map)
{
    pthread_mutex_lock(&client->mutex);
    bool is_taken = is_newer(map, client->map);
    if (is_taken) {
        for (uint32_t i = 0; i < map->worker_count; i++)
            map->workers[i].channel = find_channel(client, map->workers[i].address);
        struct cluster_map *old = client->map;
        client->map = map;
        map = old;
        (void)atomic_fetch_add(&client->map_serial, 1);
    }
    pthread_mutex_unlock(&client->mutex);
    cluster_map_unref(map);
}

static struct client_loop *current_loop(struct cluster_client *client)
{
    const struct loop *loop = loop_current();
    return loop != NULL ? &client->loops[loop_index(loop)] : NULL;
}

static void look_for_newer(struct client_loop *here)
{
    struct cluster_client *client = here->client;
    struct cluster_map *old = here->map;
    pthread_mutex_lock(&client->mutex);
    here->map = client->map;
    here->map_serial = atomic_load(&client->map_serial);
    if (here->map != NULL)
        cluster_map_ref(here->map);
    pthread_mutex_unlock(&client->mutex);
    cluster_map_unref(old);
}

struct cluster_map *cluster_client_map(struct cluster_client *client)
{
    struct client_loop *here = current_loop(client);
    struct cluster_map *map = NULL;
    if (here != NULL) {
        if (here->map_serial != atomic_load_explicit(&client->map_serial, memory_order_acquire))
            look_for_newer(here);
        map = here->map;
        if (map != NULL)
            cluster_map_ref(map);
        return map;
    }
    pthread_mutex_lock(&client->mutex);
    map = client->map;
    if (map != NULL)
        cluster_map_ref(map);
    pthread_mutex_unlock(&client->mutex);
    return map;
}

bool cluster_client_is_connected(const struct cluster_client *client)
{
    return atomic_load_explicit(&client->is_connected, memory_order_acquire);
}

// --- The watch

static void tell_changed(struct cluster_client *client)
{
    struct client_loop *here = &client->loops[0];
    if (here->map_serial != atomic_load_explicit(&client->map_serial, memory_order_acquire))
        look_for_newer(here);
    if (client->told_serial == here->map_serial || here->map == NULL)
        return;
    client->told_serial = here->map_serial;
    if (client->options.changed != NULL)
        client->options.changed(here->map, client->options.context);
}

static void retry_later(struct cluster_client *client)
{
    uint64_t half_ms = client->backoff_ms / 2;
    uint64_t pause_ms = half_ms + rng_below(&client->rng, half_ms + 1);
    client->backoff_ms *= 2;
    if (client->backoff_ms > BACKOFF_MS_MAX)
        client->backoff_ms = BACKOFF_MS_MAX;
    timer_start(&client->retry_timer, pause_ms * NS_PER_MS);
}

static void watched(enum status status, struct str text, const ProtobufCMessage *message,
                    void *context)
{
    (void)status;
    (void)text; // that the watch is down shows in cluster_client_is_connected
    struct cluster_client *client = context;
    struct cluster_map *map = NULL;
    if (message == NULL) {
        client->watch = NULL;
        atomic_store(&client->is_connected, false);
        cluster_client_pd_failed(client, client->watch_channel);
        retry_later(client);
        return;
    }
    if (cluster_map_create((const void *)message, NULL, &map) != STATUS_OK) {
        // What this placement driver says cannot be used; the old map stands.
        channel_call_cancel(client->watch);
        client->watch = NULL;
        atomic_store(&client->is_connected, false);
        retry_later(client);
        return;
    }
    put_map(client, map);
    client->backoff_ms = BACKOFF_MS_MIN;
    atomic_store(&client->is_connected, true);
    tell_changed(client);
}

static void open_watch(struct timer *timer)
{
    struct cluster_client *client =
        (struct cluster_client *)(void *)((char *)timer -
                                          offsetof(struct cluster_client, retry_timer));
    Vectron__Placementdriver__V1__WatchMapRequest request =
        VECTRON__PLACEMENTDRIVER__V1__WATCH_MAP_REQUEST__INIT;
    client->watch_channel = cluster_client_pd(client);
    client->watch = client_call(&(struct client_request){
        .channel = client->watch_channel,
        .service = &vectron__placementdriver__v1__cluster_service__descriptor,
        .method = "WatchMap",
        .message = &request.base,
        .deadline_ns = UINT64_MAX,
        .is_stream = true,
        .metadata = &client->metadata,
        .metadata_count = client->metadata_count,
        .context = client,
        .done = watched,
    });
}

static void start_watch(struct task *task)
{
    struct cluster_client *client =
        (struct cluster_client *)(void *)((char *)task -
                                          offsetof(struct cluster_client, start_task));
    if (!client->loops[0].is_closed)
        open_watch(&client->retry_timer);
}

// --- Refreshes

static void start_refresh(struct client_loop *here);

// Ends those that are on their way. The callbacks may ask for more.
static void end_refreshes(struct client_loop *here, enum status status, struct cluster_map *map)
{
    struct refresh *refresh = here->on_its_way;
    here->on_its_way = NULL;
    while (refresh != NULL) {
        struct refresh *next = refresh->next;
        refresh->done(status, map, refresh->context);
        mem_free(refresh);
        refresh = next;
    }
}

static void queue_task(struct client_loop *here)
{
    if (here->is_task_queued)
        return;
    here->is_task_queued = true;
    loop_defer(here->loop, &here->task);
}

// Those whose time is not over go into the next call.
static void keep_patient(struct client_loop *here)
{
    uint64_t now_ns = loop_now_ns(here->loop);
    struct refresh **link = &here->on_its_way;
    while (*link != NULL) {
        struct refresh *refresh = *link;
        if (refresh->deadline_ns <= now_ns) {
            link = &refresh->next;
            continue;
        }
        *link = refresh->next;
        refresh->next = here->asked;
        here->asked = refresh;
    }
}

static void refreshed(enum status status, struct str text, const ProtobufCMessage *message,
                      void *context)
{
    (void)text;
    struct client_loop *here = context;
    struct cluster_client *client = here->client;
    struct cluster_map *map = NULL;
    ASSERT(client != NULL);
    here->call = NULL;
    if (status == STATUS_OK)
        status = cluster_map_create((const void *)message, NULL, &map);
    if (status == STATUS_OK) {
        here->attempt_count = 0;
        put_map(client, map);
        map = cluster_client_map(client);
    } else if (status == STATUS_TIMEOUT) {
        keep_patient(here);
    } else {
        cluster_client_pd_failed(client, here->channel);
        here->attempt_count++;
        if (here->attempt_count < client->pd_count) {
            start_refresh(here);
            return;
        }
        here->attempt_count = 0;
    }
    end_refreshes(here, status, map);
    cluster_map_unref(map);
    if (here->asked != NULL)
        queue_task(here);
}

// One call for all that are on their way, until the first of their deadlines.
static void start_refresh(struct client_loop *here)
{
    struct cluster_client *client = here->client;
    Vectron__Placementdriver__V1__GetMapRequest request =
        VECTRON__PLACEMENTDRIVER__V1__GET_MAP_REQUEST__INIT;
    uint64_t deadline_ns = UINT64_MAX;
    for (const struct refresh *it = here->on_its_way; it != NULL; it = it->next)
        deadline_ns = it->deadline_ns < deadline_ns ? it->deadline_ns : deadline_ns;
    here->channel = cluster_client_pd(client);
    here->call = client_call(&(struct client_request){
        .channel = here->channel,
        .service = &vectron__placementdriver__v1__cluster_service__descriptor,
        .method = "GetMap",
        .message = &request.base,
        .deadline_ns = deadline_ns,
        .metadata = &client->metadata,
        .metadata_count = client->metadata_count,
        .context = here,
        .done = refreshed,
    });
}

static void run_refreshes(struct task *task)
{
    struct client_loop *here =
        (struct client_loop *)(void *)((char *)task - offsetof(struct client_loop, task));
    here->is_task_queued = false;
    if (here->call != NULL || here->on_its_way != NULL)
        return;
    here->on_its_way = here->asked;
    here->asked = NULL;
    if (here->is_closed)
        end_refreshes(here, STATUS_CANCELLED, NULL);
    else if (here->on_its_way != NULL)
        start_refresh(here);
}

void cluster_client_refresh(struct cluster_client *client, uint64_t deadline_ns,
                            void (*done)(enum status status, struct cluster_map *map,
                                         void *context),
                            void *context)
{
    struct client_loop *here = current_loop(client);
    ASSERT(here != NULL);
    struct refresh *refresh = mem_alloc(sizeof(*refresh));
    *refresh = (struct refresh){here->asked, deadline_ns, done, context};
    here->asked = refresh;
    if (here->call == NULL)
        queue_task(here);
}

// --- Life

static void close_loop(struct task *task)
{
    struct client_loop *here =
        (struct client_loop *)(void *)((char *)task - offsetof(struct client_loop, close_task));
    struct cluster_client *client = here->client;
    here->is_closed = true;
    if (here == &client->loops[0]) {
        timer_stop(&client->retry_timer);
        if (client->watch != NULL)
            channel_call_cancel(client->watch);
        client->watch = NULL;
    }
    if (here->call != NULL)
        channel_call_cancel(here->call);
    here->call = NULL;
    end_refreshes(here, STATUS_CANCELLED, NULL);
    here->on_its_way = here->asked;
    here->asked = NULL;
    end_refreshes(here, STATUS_CANCELLED, NULL);
    cluster_map_unref(here->map);
    here->map = NULL;
    if (here->is_task_queued) // it must run before the client goes
        loop_post(here->loop, &here->close_task);
    else
        (void)sem_post(&client->closed);
}

static enum status add_pd_addresses(struct cluster_client *client, struct error *error)
{
    struct str rest = client->options.pd_addresses;
    while (rest.len > 0) {
        struct str address = str_trim(str_cut(&rest, ','));
        if (address.len == 0)
            continue;
        if (client->pd_count == PD_ADDRESSES_MAX)
            return error_set(error, STATUS_INVALID, "more than %d addresses", PD_ADDRESSES_MAX);
        TRY(open_channel(client, address, error, &client->pd[client->pd_count]));
        client->pd_count++;
    }
    return client->pd_count > 0 ? STATUS_OK : error_set(error, STATUS_INVALID, "no address");
}

static void client_free(struct cluster_client *client)
{
    size_t position = 0;
    struct str name;
    void *channel;
    for (uint32_t i = 0; i < client->pd_count; i++)
        channel_destroy(client->pd[i]);
    while (map_next(client->channels, &position, &name, &channel))
        channel_destroy(channel);
    cluster_map_unref(client->map);
    map_destroy(client->channels);
    (void)sem_destroy(&client->closed);
    (void)pthread_mutex_destroy(&client->mutex);
    mem_free(client);
}

static void client_loop_init(struct client_loop *here, struct cluster_client *client,
                             struct loop *loop)
{
    here->client = client;
    here->loop = loop;
    here->task.run = run_refreshes;
    here->close_task.run = close_loop;
}

enum status cluster_client_create(const struct cluster_client_options *options, struct error *error,
                                  struct cluster_client **out_client)
{
    uint64_t seed = 0;
    uint32_t loop_count = net_loop_count(options->net);
    struct cluster_client *client =
        mem_alloc(sizeof(*client) + loop_count * sizeof(struct client_loop));
    client->options = *options;
    client->loop_count = loop_count;
    client->channels = map_create();
    client->backoff_ms = BACKOFF_MS_MIN;
    (void)pthread_mutex_init(&client->mutex, NULL); // a default one cannot fail
    (void)sem_init(&client->closed, 0, 0);
    rng_secure(&seed, sizeof(seed));
    rng_init(&client->rng, seed);
    ASSERT(options->internal_token.len < sizeof(client->internal_token));
    (void)snprintf(client->internal_token, sizeof(client->internal_token), "%.*s",
                   STR_ARG(options->internal_token));
    client->metadata =
        (struct metadata){STR("vectron-internal"), str_from_cstr(client->internal_token)};
    client->metadata_count = options->internal_token.len > 0 ? 1 : 0;
    for (uint32_t i = 0; i < loop_count; i++)
        client_loop_init(&client->loops[i], client, net_loop(options->net, i));
    enum status status = add_pd_addresses(client, error);
    if (status != STATUS_OK) {
        client_free(client);
        return status;
    }
    timer_init(&client->retry_timer, client->loops[0].loop, open_watch);
    client->start_task.run = start_watch;
    if (!options->has_no_watch)
        loop_post(client->loops[0].loop, &client->start_task);
    *out_client = client;
    return STATUS_OK;
}

void cluster_client_destroy(struct cluster_client *client)
{
    if (client == NULL)
        return;
    ASSERT(loop_current() == NULL);
    for (uint32_t i = 0; i < client->loop_count; i++)
        loop_post(client->loops[i].loop, &client->loops[i].close_task);
    for (uint32_t i = 0; i < client->loop_count; i++) {
        while (sem_wait(&client->closed) != 0)
            continue; // interrupted
    }
    client_free(client);
}
