#include "reranker/rerank.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"

#define MESSAGE(name) Vectron__Reranker__V1__##name

static char strategy_name[] = "passthrough";
static char explanation[] = "the score of the search itself";

// --- Rerank

static enum status check(const MESSAGE(RerankRequest) * request, struct error *error)
{
    for (size_t i = 0; i < request->n_candidates; i++) {
        const MESSAGE(Candidate) *candidate = request->candidates[i];
        if (candidate->id[0] == '\0')
            return error_set(error, STATUS_INVALID, "candidates[%zu].id is empty", i);
        if (!isfinite(candidate->score))
            return error_set(error, STATUS_INVALID, "candidates[%zu].score is no finite number", i);
    }
    return STATUS_OK;
}

struct place {
    float score;
    size_t index;
};

// The best first; equal ones as they came.
static int compare_places(const void *a, const void *b)
{
    const struct place *left = a;
    const struct place *right = b;
    if (left->score != right->score)
        return left->score > right->score ? -1 : 1;
    return left->index < right->index ? -1 : left->index > right->index;
}

static struct place *order(const MESSAGE(RerankRequest) * request, struct arena *arena)
{
    struct place *places = arena_try_alloc(arena, (request->n_candidates + 1) * sizeof(*places));
    for (size_t i = 0; places != NULL && i < request->n_candidates; i++)
        places[i] = (struct place){request->candidates[i]->score, i};
    if (places != NULL && request->query[0] != '\0') // without a query the order stands
        qsort(places, request->n_candidates, sizeof(*places), compare_places);
    return places;
}

// False: no memory.
static bool fill(const MESSAGE(RerankRequest) * request, size_t count, struct arena *arena,
                 MESSAGE(RerankResponse) * response)
{
    struct place *places = order(request, arena);
    MESSAGE(ScoredCandidate) *scored = arena_try_alloc(arena, (count + 1) * sizeof(*scored));
    response->results = arena_try_alloc(arena, (count + 1) * sizeof(*response->results));
    if (places == NULL || scored == NULL || response->results == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        const MESSAGE(Candidate) *candidate = request->candidates[places[i].index];
        vectron__reranker__v1__scored_candidate__init(&scored[i]);
        scored[i].id = candidate->id;
        scored[i].rerank_score = candidate->score;
        scored[i].original_score = candidate->score;
        scored[i].explanation = explanation;
        response->results[response->n_results++] = &scored[i];
    }
    return true;
}

void rerank(struct rpc *rpc, void *context)
{
    (void)context;
    const MESSAGE(RerankRequest) *request = (const void *)rpc_request(rpc);
    MESSAGE(RerankResponse) response = VECTRON__RERANKER__V1__RERANK_RESPONSE__INIT;
    uint64_t started_ns = clock_monotonic_ns();
    struct error error;
    enum status status = check(request, &error);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    size_t count = request->n_candidates;
    if (request->top_n > 0 && (size_t)request->top_n < count)
        count = (size_t)request->top_n;
    if (!fill(request, count, rpc_arena(rpc), &response)) {
        rpc_fail(rpc, STATUS_EXHAUSTED, "%zu candidates need more memory than a request may have",
                 request->n_candidates);
        return;
    }
    response.strategy_used = strategy_name;
    response.latency_ms = (int64_t)((clock_monotonic_ns() - started_ns) / NS_PER_MS);
    rpc_reply(rpc, &response.base);
}

// --- What it is

void rerank_get_strategy(struct rpc *rpc, void *context)
{
    const struct rerank_settings *settings = context;
    static char version[] = VECTRON_VERSION;
    static char strategy_key[] = "asked_strategy";
    static char cache_key[] = "asked_cache";
    MESSAGE(GetStrategyResponse) response = VECTRON__RERANKER__V1__GET_STRATEGY_RESPONSE__INIT;
    MESSAGE(GetStrategyResponse__ConfigEntry)
    strategy = VECTRON__RERANKER__V1__GET_STRATEGY_RESPONSE__CONFIG_ENTRY__INIT;
    MESSAGE(GetStrategyResponse__ConfigEntry)
    cache = VECTRON__RERANKER__V1__GET_STRATEGY_RESPONSE__CONFIG_ENTRY__INIT;
    MESSAGE(GetStrategyResponse__ConfigEntry) * config[] = {&cache, &strategy};
    strategy.key = strategy_key;
    strategy.value = arena_cstr(rpc_arena(rpc), settings->asked_strategy);
    cache.key = cache_key;
    cache.value = arena_cstr(rpc_arena(rpc), settings->asked_cache);
    response.strategy_name = strategy_name;
    response.version = version;
    response.config = config;
    response.n_config = sizeof(config) / sizeof(config[0]);
    rpc_reply(rpc, &response.base);
}

void rerank_invalidate_cache(struct rpc *rpc, void *context)
{
    (void)context; // nothing is kept, so nothing is cleared
    MESSAGE(InvalidateCacheResponse)
    response = VECTRON__RERANKER__V1__INVALIDATE_CACHE_RESPONSE__INIT;
    rpc_reply(rpc, &response.base);
}
