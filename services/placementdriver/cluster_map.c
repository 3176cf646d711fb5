#include "base/assert.h"
#include "base/mem.h"
#include "placementdriver/driver.h"

// The cluster map as others see it: the whole of it, made new from the state whenever somebody is
// told. A watcher is told from its own loop; changes that come while its last message has not gone
// out yet become one message, so a slow watcher costs no memory.
//
// The version is how often a placement driver began to lead, then how many changes there were
// since: it grows over restarts although who is healthy is not written down.

enum { WATCH_QUEUED_MAX = 1 << 20, MAP_MEMORY_MAX = 1 << 30 };

struct map_watcher {
    struct task task; // first
    struct map_watcher *next;
    struct map_watcher *previous;
    struct driver *driver;
    struct rpc *rpc;
    bool is_posted;        // under the lock
    bool is_over;          // its loop
    uint64_t sent_version; // its loop
};

static uint64_t version_of(const struct driver *driver)
{
    return driver->state.lead_count << 32 | driver->map_change_count;
}

static void post(struct map_watcher *watcher)
{
    if (!watcher->is_posted)
        loop_post(call_loop(rpc_call(watcher->rpc)), &watcher->task);
    watcher->is_posted = true;
}

void map_has_changed(struct driver *driver)
{
    driver->map_change_count++;
    for (struct map_watcher *it = driver->watchers; it != NULL; it = it->next)
        post(it);
}

void map_end_watches(struct driver *driver)
{
    pthread_mutex_lock(&driver->lock);
    driver->is_draining = true;
    for (struct map_watcher *it = driver->watchers; it != NULL; it = it->next)
        post(it);
    pthread_mutex_unlock(&driver->lock);
}

// --- The message

uint64_t driver_shard_leader(const struct driver *driver, const struct shard *shard)
{
    const struct shard_presence *presence = presence_shard(&driver->presence, shard->id);
    if (presence != NULL && state_worker(&driver->state, presence->leader_id) != NULL)
        return presence->leader_id;
    // One that is alone needs nobody's vote.
    return shard->replica_count == 1 ? shard->replica_ids[0] : 0;
}

static void fill_shard(const struct driver *driver, const struct shard *shard, struct arena *arena,
                       PD(MapShard) * out)
{
    vectron__placementdriver__v1__map_shard__init(out);
    out->shard_id = shard->id;
    out->range_start = shard->range_start;
    out->range_end = shard->range_end;
    out->epoch = shard->epoch;
    out->leader_id = driver_shard_leader(driver, shard);
    out->wanted_leader_id = schedule_wanted_leader(driver, shard->id);
    if (out->leader_id == 0) // nobody was elected yet: then the first, so that leads are spread
        out->wanted_leader_id = shard->replica_ids[0];
    out->n_replicas = shard->replica_count;
    out->replicas = arena_alloc(arena, shard->replica_count * sizeof(*out->replicas));
    out->learners = arena_alloc(arena, shard->replica_count * sizeof(*out->learners));
    for (uint32_t i = 0; i < shard->replica_count; i++) {
        out->replicas[i] = shard->replica_ids[i];
        if (shard->roles[i] == REPLICA_LEARNER)
            out->learners[out->n_learners++] = shard->replica_ids[i];
    }
}

static void fill_collection(const struct driver *driver, const struct collection *collection,
                            struct arena *arena, PD(MapCollection) * out)
{
    vectron__placementdriver__v1__map_collection__init(out);
    PD(MapShard) *shards = arena_alloc(arena, collection->shard_count * sizeof(*shards));
    out->name = arena_cstr(arena, collection->name);
    out->dimension = (int32_t)collection->dimension;
    out->distance = arena_cstr(arena, str_from_cstr(distance_text(collection->distance)));
    out->created_at = (int64_t)collection->created_at;
    out->n_shards = collection->shard_count;
    out->shards = arena_alloc(arena, collection->shard_count * sizeof(*out->shards));
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        fill_shard(driver, &collection->shards[i], arena, &shards[i]);
        out->shards[i] = &shards[i];
    }
}

static void fill_worker(const struct driver *driver, const struct worker *worker,
                        struct arena *arena, PD(MapWorker) * out)
{
    vectron__placementdriver__v1__map_worker__init(out);
    out->worker_id = worker->id;
    out->grpc_address = arena_cstr(arena, worker->profile.grpc_address);
    out->state = (PD(WorkerState))worker->state;
    out->healthy = presence_is_healthy(&driver->presence, worker->id);
}

// Under the lock; everything lies in the arena.
static void fill_map(const struct driver *driver, struct arena *arena, PD(ClusterMap) * out)
{
    const struct state *state = &driver->state;
    size_t collection_count = state->collections.count;
    PD(MapCollection) *collections = arena_alloc(arena, collection_count * sizeof(*collections));
    PD(MapWorker) *workers = arena_alloc(arena, state->worker_count * sizeof(*workers));
    out->version = version_of(driver);
    out->incarnation = arena_cstr(arena, state->incarnation);
    out->collections = arena_alloc(arena, collection_count * sizeof(*out->collections));
    out->workers = arena_alloc(arena, state->worker_count * sizeof(*out->workers));
    struct table_cursor cursor = table_seek(&state->collections, STR(""));
    const struct collection *collection;
    while ((collection = table_next(&cursor)) != NULL) {
        fill_collection(driver, collection, arena, &collections[out->n_collections]);
        out->collections[out->n_collections] = &collections[out->n_collections];
        out->n_collections++;
    }
    for (uint32_t i = 0; i < state->worker_count; i++) {
        fill_worker(driver, state->workers[i], arena, &workers[i]);
        out->workers[out->n_workers++] = &workers[i];
    }
}

static void get_map(struct driver *driver, struct rpc *rpc)
{
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    struct arena *arena = arena_create(MAP_MEMORY_MAX);
    pthread_mutex_lock(&driver->lock);
    fill_map(driver, arena, &map);
    pthread_mutex_unlock(&driver->lock);
    rpc_reply(rpc, &map.base);
    arena_destroy(arena);
}

void map_read(struct rpc *rpc, void *context)
{
    driver_read(context, rpc, get_map);
}

// --- The watch

static void unlink_watcher(struct map_watcher *watcher)
{
    struct driver *driver = watcher->driver;
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        driver->watchers = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
}

// Its last function: nothing of it is used afterwards.
static void watcher_end(struct map_watcher *watcher)
{
    struct driver *driver = watcher->driver;
    pthread_mutex_lock(&driver->lock);
    unlink_watcher(watcher);
    bool is_posted = watcher->is_posted;
    pthread_mutex_unlock(&driver->lock);
    watcher->is_over = true;
    if (!is_posted) // else its task is still to come
        rpc_unref(watcher->rpc);
}

// What is newer than what was sent, unless that has not gone out yet.
static void tell(struct map_watcher *watcher)
{
    struct driver *driver = watcher->driver;
    PD(ClusterMap) map = PD_INIT(CLUSTER_MAP);
    if (rpc_queued_size(watcher->rpc) > WATCH_QUEUED_MAX)
        return;
    struct arena *arena = arena_create(MAP_MEMORY_MAX);
    pthread_mutex_lock(&driver->lock);
    bool is_newer = version_of(driver) > watcher->sent_version;
    if (is_newer)
        fill_map(driver, arena, &map);
    pthread_mutex_unlock(&driver->lock);
    if (is_newer) {
        watcher->sent_version = map.version;
        rpc_send(watcher->rpc, &map.base);
    }
    arena_destroy(arena);
}

static void watcher_run(struct task *task)
{
    struct map_watcher *watcher = (struct map_watcher *)(void *)task;
    struct driver *driver = watcher->driver;
    pthread_mutex_lock(&driver->lock);
    watcher->is_posted = false;
    bool is_over = driver->is_draining || !atomic_load(&driver->leads);
    pthread_mutex_unlock(&driver->lock);
    if (watcher->is_over) {
        rpc_unref(watcher->rpc);
    } else if (is_over) {
        rpc_fail(watcher->rpc, STATUS_UNAVAILABLE,
                 "this placement driver is stopping or does not lead any more");
        watcher_end(watcher);
    } else {
        tell(watcher);
    }
}

static void watcher_cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    watcher_end(context);
}

static void watcher_writable(struct rpc *rpc, void *context)
{
    struct map_watcher *watcher = context;
    if (!watcher->is_over && !rpc_is_done(rpc))
        tell(watcher);
}

void map_watch(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    struct map_watcher *watcher = arena_alloc(rpc_arena(rpc), sizeof(*watcher));
    *watcher = (struct map_watcher){.task = {.run = watcher_run}, .driver = driver, .rpc = rpc};
    rpc_ref(rpc);
    rpc_on_cancel(rpc, watcher_cancelled, watcher);
    rpc_on_writable(rpc, watcher_writable, watcher);
    pthread_mutex_lock(&driver->lock);
    watcher->next = driver->watchers;
    if (watcher->next != NULL)
        watcher->next->previous = watcher;
    driver->watchers = watcher;
    post(watcher); // the first message, or the end when we are draining
    pthread_mutex_unlock(&driver->lock);
}
