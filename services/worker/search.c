#include <stddef.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/limits.h"
#include "worker/worker_internal.h"

// Search of several shards of one collection. A short one runs on the loop, others on the pool,
// where they end early when the caller goes or the deadline passes. Views stay open from the search
// to the answer, so vectors are encoded from where they lie.
//
// Payloads are on disk. When a point was changed between its view and the reading of its payload,
// the search is done again with new views; after a few times the payload is taken as it is now.

enum {
    INLINE_COST_NS = 1000000,
    ATTEMPTS_MAX = 4,
    ANSWER_SIZE_MAX = 256 << 20,
};

#define AS(type, message) ((const type *)(const void *)(message))

struct part {
    struct hosted *hosted;
    struct index_view view;
    struct index_hit *hits;
    uint32_t count;
    uint32_t taken; // into the answer
};

struct search {
    struct worker *worker;
    struct rpc *rpc;
    const Vectron__Worker__V1__SearchShardsRequest *message;
    struct part *parts;
    uint32_t part_count;
    uint32_t open_count; // of the parts' views
    struct index_search index_search;
    atomic_bool is_cancelled;
    struct arena *arena; // for hits and answer: the request's, or of its own for the pool
    Vectron__Worker__V1__SearchShardsResponse answer;
    uint64_t rows_compared;
    uint64_t started_ns;
    enum status status;
    struct error error;
};

static void close_views(struct search *search)
{
    while (search->open_count > 0)
        index_view_close(&search->parts[--search->open_count].view);
}

static void free_search(struct search *search)
{
    struct worker *worker = search->worker;
    close_views(search);
    for (uint32_t i = 0; i < search->part_count; i++)
        hosted_unref(search->parts[i].hosted);
    if (search->arena != rpc_arena(search->rpc))
        arena_destroy(search->arena);
    worker_end(worker); // the search itself lies in the request's memory
}

static enum status fail_memory(struct search *search)
{
    return error_set(&search->error, STATUS_EXHAUSTED,
                     "the answer takes more than %d bytes; ask for fewer hits, or without vectors "
                     "and payloads",
                     ANSWER_SIZE_MAX);
}

// Its view is open.
static enum status search_part(struct search *search, struct part *part)
{
    struct index_search wanted = search->index_search;
    struct index_stats stats = {0};
    enum status status = STATUS_OK;
    uint64_t start = clock_monotonic_ns();
    part->taken = 0;
    part->count = 0;
    if (atomic_load_explicit(&search->is_cancelled, memory_order_relaxed) ||
        start >= wanted.deadline_ns)
        return error_set(&search->error, STATUS_TIMEOUT, "the search was not begun in time");
    if (wanted.top_k > part->view.slot_count)
        wanted.top_k = part->view.slot_count;
    part->hits = arena_try_alloc(search->arena, wanted.top_k * sizeof(part->hits[0]));
    if (part->hits == NULL)
        return fail_memory(search);
    if (wanted.top_k > 0) // else there are no points
        status = index_search(&part->view, &wanted, part->hits, &part->count, &stats);
    if (status != STATUS_OK)
        return error_set(&search->error, status, "the search was not finished in time");
    search->rows_compared += stats.rows_compared;
    (void)atomic_fetch_add(&part->hosted->search_count, 1);
    (void)atomic_fetch_add(&part->hosted->search_ns, clock_monotonic_ns() - start);
    return STATUS_OK;
}

static enum status search_parts(struct search *search)
{
    for (uint32_t i = 0; i < search->part_count; i++) {
        struct part *part = &search->parts[i];
        index_view_open(shard_index(part->hosted->shard), &part->view);
        search->open_count = i + 1;
        TRY(search_part(search, part));
    }
    return STATUS_OK;
}

// The part whose next hit comes first; NULL: none is left.
static struct part *next_part(const struct search *search)
{
    struct part *best = NULL;
    for (uint32_t i = 0; i < search->part_count; i++) {
        struct part *part = &search->parts[i];
        if (part->taken == part->count)
            continue;
        if (best == NULL) {
            best = part;
            continue;
        }
        struct index_hit hit = part->hits[part->taken];
        struct index_hit other = best->hits[best->taken];
        bool is_first = hit.score < other.score;
        if (hit.score == other.score)
            is_first = str_compare(index_view_id(&part->view, hit.slot),
                                   index_view_id(&best->view, other.slot)) < 0;
        if (is_first)
            best = part;
    }
    return best;
}

// NOT_FOUND: the point was deleted meanwhile. ABORTED: changed, and there is another attempt.
static enum status fill_payload(struct search *search, struct part *part, uint32_t slot,
                                bool is_last_attempt, struct str *out_payload)
{
    struct shard *shard = part->hosted->shard;
    enum status status =
        shard_get_payload(shard, &part->view, slot, search->arena, &search->error, out_payload);
    if (status != STATUS_ABORTED || !is_last_attempt)
        return status;
    struct shard_point point;
    status =
        shard_get(shard, index_view_id(&part->view, slot), search->arena, &search->error, &point);
    if (status == STATUS_OK)
        *out_payload = point.payload;
    return status;
}

static enum status fill_hit(struct search *search, struct part *part, bool is_last_attempt,
                            Vectron__Worker__V1__ShardHit *out_hit)
{
    struct index_hit hit = part->hits[part->taken++];
    const float *vector = index_view_vector(&part->view, hit.slot);
    struct str payload = {0};
    vectron__worker__v1__shard_hit__init(out_hit);
    if (search->message->has_payloads)
        TRY(fill_payload(search, part, hit.slot, is_last_attempt, &payload));
    out_hit->id = arena_cstr(search->arena, index_view_id(&part->view, hit.slot));
    out_hit->score = hit.score;
    // protobuf-c knows no const; encoding only reads.
    if (search->message->has_vectors) {
        memcpy(&out_hit->vector, &vector, sizeof(vector));
        out_hit->n_vector = part->hosted->dimension;
    }
    memcpy(&out_hit->payload.data, &payload.data, sizeof(payload.data));
    out_hit->payload.len = payload.len;
    return STATUS_OK;
}

static uint32_t hit_count_max(const struct search *search)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < search->part_count; i++)
        count += search->parts[i].count;
    return count < search->index_search.top_k ? (uint32_t)count : search->index_search.top_k;
}

static enum status merge(struct search *search, bool is_last_attempt)
{
    uint32_t top_k = hit_count_max(search);
    Vectron__Worker__V1__ShardHit *hits = arena_try_alloc(search->arena, top_k * sizeof(*hits));
    Vectron__Worker__V1__ShardHit **list = arena_try_alloc(search->arena, top_k * sizeof(*list));
    if (hits == NULL || list == NULL)
        return fail_memory(search);
    uint32_t count = 0;
    while (count < top_k) {
        struct part *part = next_part(search);
        if (part == NULL)
            break;
        if (atomic_load_explicit(&search->is_cancelled, memory_order_relaxed))
            return error_set(&search->error, STATUS_CANCELLED, "the caller has gone");
        enum status status = fill_hit(search, part, is_last_attempt, &hits[count]);
        if (status == STATUS_NOT_FOUND)
            continue;
        TRY(status);
        list[count] = &hits[count];
        count++;
    }
    search->answer.hits = list;
    search->answer.n_hits = count;
    return STATUS_OK;
}

static void run_search(struct rpc *rpc, void *context)
{
    struct search *search = context;
    for (uint32_t attempt = 1;; attempt++) {
        bool is_last = attempt == ATTEMPTS_MAX;
        search->status = search_parts(search);
        if (search->status == STATUS_OK)
            search->status = merge(search, is_last);
        if (search->status != STATUS_ABORTED || is_last)
            return;
        close_views(search);
        if (search->arena != rpc_arena(rpc)) // a short one reads no payload, so it never gets here
            arena_reset(search->arena);
    }
}

static void search_done(struct rpc *rpc, void *context)
{
    struct search *search = context;
    struct worker *worker = search->worker;
    metric_observe(worker->search_seconds,
                   (double)(clock_monotonic_ns() - search->started_ns) / 1e9);
    metric_add(worker->rows_compared, search->rows_compared);
    if (rpc_is_done(rpc)) {
        // The caller has gone.
    } else if (search->status == STATUS_OK) {
        rpc_reply(rpc, &search->answer.base);
    } else {
        rpc_fail_error(rpc, search->status, &search->error);
    }
    free_search(search);
}

static void search_cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct search *search = context;
    atomic_store(&search->is_cancelled, true);
}

static struct search *create_search(struct rpc *rpc, struct worker *worker, struct hosted **shards,
                                    uint32_t count)
{
    const Vectron__Worker__V1__SearchShardsRequest *message =
        AS(Vectron__Worker__V1__SearchShardsRequest, rpc_request(rpc));
    struct search *search = arena_alloc(rpc_arena(rpc), sizeof(*search));
    search->worker = worker;
    search->rpc = rpc;
    search->message = message;
    search->parts = arena_alloc(rpc_arena(rpc), count * sizeof(search->parts[0]));
    search->part_count = count;
    for (uint32_t i = 0; i < count; i++)
        search->parts[i].hosted = shards[i];
    search->started_ns = clock_monotonic_ns();
    search->arena = rpc_arena(rpc);
    search->index_search = (struct index_search){
        .vector = message->vector,
        .top_k = message->top_k == 0 ? LIMIT_TOP_K_DEFAULT : message->top_k,
        .ef = message->ef,
        .is_exact = message->is_exact != 0,
        .deadline_ns = call_deadline_ns(rpc_call(rpc)),
        .cancelled = &search->is_cancelled,
    };
    vectron__worker__v1__search_shards_response__init(&search->answer);
    worker_begin(worker);
    return search;
}

static enum status check_search(const Vectron__Worker__V1__SearchShardsRequest *message,
                                struct hosted *const *shards, uint32_t count, struct error *error)
{
    if (message->top_k > LIMIT_TOP_K_MAX)
        return error_set(error, STATUS_INVALID, "top_k is %u; the limit is %d", message->top_k,
                         LIMIT_TOP_K_MAX);
    for (uint32_t i = 0; i < count; i++) {
        if (shards[i]->dimension != shards[0]->dimension ||
            shards[i]->distance != shards[0]->distance)
            return error_set(error, STATUS_INVALID, "shards %u and %u are not of one collection",
                             shards[0]->shard_id, shards[i]->shard_id);
    }
    return distance_check_vector(shards[0]->distance, shards[0]->dimension, message->vector,
                                 message->n_vector, error);
}

static bool is_short(const struct search *search)
{
    uint64_t cost = 0;
    if (search->message->has_payloads)
        return false; // waits for the disk
    for (uint32_t i = 0; i < search->part_count; i++)
        cost += index_search_cost_ns(shard_index(search->parts[i].hosted->shard),
                                     search->index_search.top_k);
    return cost < INLINE_COST_NS;
}

static void search_shards(struct rpc *rpc, struct worker *worker, struct hosted **shards,
                          uint32_t count)
{
    struct error error;
    enum status status = check_search(
        AS(Vectron__Worker__V1__SearchShardsRequest, rpc_request(rpc)), shards, count, &error);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        worker_release_shards(shards, count);
        return;
    }
    struct search *search = create_search(rpc, worker, shards, count);
    if (is_short(search)) {
        run_search(rpc, search);
        search_done(rpc, search);
        return;
    }
    // The loop goes on using the request's memory meanwhile.
    search->arena = arena_create(ANSWER_SIZE_MAX);
    rpc_on_cancel(rpc, search_cancelled, search);
    rpc_run_pooled(rpc, run_search, search_done, search);
    // Failed at once: the pool is full, and nobody calls search_done.
    if (rpc_is_done(rpc))
        free_search(search);
}

void worker_search_shards(struct rpc *rpc, void *context)
{
    const Vectron__Worker__V1__SearchShardsRequest *message =
        AS(Vectron__Worker__V1__SearchShardsRequest, rpc_request(rpc));
    worker_with_shards(rpc, context, message->shards, message->n_shards, search_shards);
}
