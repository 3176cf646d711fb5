#include <stddef.h>

#include "base/mem.h"
#include "worker/worker_internal.h"

// Requests for shards that are not here yet. The gateway may have a newer map than this worker: a
// collection that was created a moment ago must not fail. So the newest map is asked for, and
// the request looks again every few milliseconds until the shards are there, the map says that they
// are not this worker's, or the time is over.

enum {
    SHARDS_MAX = 1024,  // in a request
    WAITING_MAX = 1024, // requests
    WAIT_MS = 2000,
    LOOK_MS = 4,
};

struct waiting {
    struct worker *worker;
    struct rpc *rpc;
    struct timer timer;
    Vectron__Worker__V1__ShardRef *const *refs; // the request's
    uint32_t count;
    worker_shards_fn go_on;
    uint64_t end_ns;
    bool is_over;       // the request went on or failed
    bool is_refreshing; // the callback will come
    bool is_refused;    // the newest map does not give these shards to this worker
};

void worker_release_shards(struct hosted **shards, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        hosted_unref(shards[i]);
}

// All of them at the right epochs, or none is held and *out_missing is the first that is not here.
static bool find_all(struct worker *worker, Vectron__Worker__V1__ShardRef *const *refs,
                     uint32_t count, struct hosted **shards, uint32_t *out_missing)
{
    for (uint32_t i = 0; i < count; i++) {
        struct hosted *hosted = hosting_find(worker->hosting, refs[i]->shard_id);
        bool is_right = hosted != NULL && atomic_load(&hosted->epoch) == refs[i]->epoch;
        if (is_right) {
            shards[i] = hosted;
            continue;
        }
        if (hosted != NULL)
            hosted_unref(hosted);
        worker_release_shards(shards, i);
        *out_missing = i;
        return false;
    }
    return true;
}

static void fail_missing(struct rpc *rpc, const Vectron__Worker__V1__ShardRef *ref)
{
    rpc_fail(rpc, STATUS_UNAVAILABLE, "shard %u is not here at epoch %llu", ref->shard_id,
             (unsigned long long)ref->epoch);
}

static void release(struct waiting *waiting)
{
    if (!waiting->is_over || waiting->is_refreshing)
        return;
    struct worker *worker = waiting->worker;
    (void)atomic_fetch_sub(&worker->waiting_count, 1);
    rpc_unref(waiting->rpc);
    mem_free(waiting);
    worker_end(worker);
}

static void look(struct waiting *waiting)
{
    struct rpc *rpc = waiting->rpc;
    struct hosted *shards[SHARDS_MAX];
    uint32_t missing = 0;
    if (waiting->is_over)
        return;
    if (rpc_is_done(rpc)) {
        waiting->is_over = true;
    } else if (find_all(waiting->worker, waiting->refs, waiting->count, shards, &missing)) {
        waiting->is_over = true;
        waiting->go_on(rpc, waiting->worker, shards, waiting->count);
    } else if (waiting->is_refused || loop_now_ns(waiting->timer.loop) >= waiting->end_ns) {
        waiting->is_over = true;
        fail_missing(rpc, waiting->refs[missing]);
    }
    if (waiting->is_over)
        timer_stop(&waiting->timer);
    else
        timer_start(&waiting->timer, LOOK_MS * NS_PER_MS);
}

static void look_again(struct timer *timer)
{
    struct waiting *waiting = (void *)((char *)timer - offsetof(struct waiting, timer));
    look(waiting);
    release(waiting);
}

static bool is_given_to(const struct cluster_map *map, uint64_t worker_id,
                        const Vectron__Worker__V1__ShardRef *ref)
{
    for (uint32_t i = 0; i < map->collection_count; i++) {
        const struct cluster_collection *collection = &map->collections[i];
        for (uint32_t k = 0; k < collection->shard_count; k++) {
            if (collection->shards[k].shard_id == ref->shard_id)
                return collection->shards[k].leader_id == worker_id &&
                       collection->shards[k].epoch == ref->epoch;
        }
    }
    return false;
}

static void refreshed(enum status status, struct cluster_map *map, void *context)
{
    struct waiting *waiting = context;
    uint64_t worker_id = atomic_load(&waiting->worker->worker_id);
    waiting->is_refreshing = false;
    if (status == STATUS_OK && map != NULL && !waiting->is_over && worker_id != 0) {
        bool is_ours = true;
        for (uint32_t i = 0; i < waiting->count && is_ours; i++)
            is_ours = is_given_to(map, worker_id, waiting->refs[i]);
        waiting->is_refused = !is_ours;
        if (is_ours)
            hosting_offer(waiting->worker->hosting, map);
    }
    look(waiting);
    release(waiting);
}

static void start_waiting(struct rpc *rpc, struct worker *worker,
                          Vectron__Worker__V1__ShardRef *const *refs, uint32_t count,
                          worker_shards_fn go_on)
{
    struct loop *loop = call_loop(rpc_call(rpc));
    struct waiting *waiting = mem_alloc(sizeof(*waiting));
    *waiting = (struct waiting){
        .worker = worker,
        .rpc = rpc,
        .refs = refs,
        .count = count,
        .go_on = go_on,
        .end_ns = loop_now_ns(loop) + WAIT_MS * NS_PER_MS,
        .is_refreshing = true,
    };
    worker_begin(worker);
    rpc_ref(rpc);
    timer_init(&waiting->timer, loop, look_again);
    timer_start(&waiting->timer, LOOK_MS * NS_PER_MS);
    cluster_client_refresh(worker->client, waiting->end_ns, refreshed, waiting);
}

static bool are_whole(Vectron__Worker__V1__ShardRef *const *refs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (refs[i] == NULL)
            return false;
    }
    return count > 0;
}

void worker_with_shards(struct rpc *rpc, struct worker *worker,
                        Vectron__Worker__V1__ShardRef *const *refs, size_t count,
                        worker_shards_fn go_on)
{
    struct hosted *shards[SHARDS_MAX];
    uint32_t missing = 0;
    if (!are_whole(refs, count) || count > SHARDS_MAX) {
        rpc_fail(rpc, STATUS_INVALID, "the request names %zu shards; 1 to %d are possible", count,
                 SHARDS_MAX);
        return;
    }
    if (find_all(worker, refs, (uint32_t)count, shards, &missing)) {
        go_on(rpc, worker, shards, (uint32_t)count);
        return;
    }
    if (atomic_fetch_add(&worker->waiting_count, 1) < WAITING_MAX) {
        start_waiting(rpc, worker, refs, (uint32_t)count, go_on);
        return;
    }
    (void)atomic_fetch_sub(&worker->waiting_count, 1);
    fail_missing(rpc, refs[missing]);
}
