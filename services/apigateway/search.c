#include "apigateway/search.h"

#include "apigateway/collection_find.h"
#include "apigateway/point_check.h"
#include "apigateway/search_internal.h"
#include "base/clock.h"
#include "base/limits.h"

// Hot path: no lock, no log, and no allocation but the request's own. The leaders of the shards are
// asked at once, one call for all shards of a worker; their sorted hits are merged.

void search_prepare_http(ProtobufCMessage *message)
{
    ((Vectron__V1__SearchRequest *)(void *)message)->include_metadata = true;
}

// --- Asking the workers

static const ProtobufCMessage *build_search(struct fanout *fanout, const uint32_t *parts,
                                            uint32_t part_count)
{
    struct search *search = (struct search *)fanout;
    const Vectron__V1__SearchRequest *request = search->request;
    struct arena *arena = rpc_arena(fanout->rpc);
    Vectron__Worker__V1__SearchShardsRequest *message = arena_alloc(arena, sizeof(*message));
    vectron__worker__v1__search_shards_request__init(message);
    message->shards = arena_alloc(arena, part_count * sizeof(*message->shards));
    for (uint32_t i = 0; i < part_count; i++)
        message->shards[i] = fanout_shard_ref(fanout, parts[i]);
    message->n_shards = part_count;
    message->n_vector = request->n_vector;
    message->vector = request->vector;
    message->top_k = search->top_k;
    message->ef = request->ef;
    message->is_exact = request->exact;
    message->has_vectors = request->include_vectors;
    message->has_payloads = request->include_metadata || search->reranks;
    return &message->base;
}

static void search_answered(struct fanout *fanout, const ProtobufCMessage *answer)
{
    struct search *search = (struct search *)fanout;
    const Vectron__Worker__V1__SearchShardsResponse *response =
        (const Vectron__Worker__V1__SearchShardsResponse *)(const void *)answer;
    search->lists[search->list_count++] = (struct hit_list){response->hits, response->n_hits};
}

// --- Building the answer

static enum status fill_payload(struct rpc *rpc, struct str json, Vectron__V1__SearchResult *result)
{
    struct arena *arena = rpc_arena(rpc);
    struct payload_member *members = NULL;
    TRY(payload_to_document(json, arena, &result->document));
    if (rpc_is_http(rpc)) // one object there, and that is the document
        return STATUS_OK;
    TRY(payload_to_members(json, arena, &members, &result->n_payload));
    result->payload = arena_try_alloc(arena, (result->n_payload + 1) * sizeof(*result->payload));
    Vectron__V1__SearchResult__PayloadEntry *entries =
        arena_try_alloc(arena, (result->n_payload + 1) * sizeof(*entries));
    if (result->payload == NULL || entries == NULL)
        return STATUS_EXHAUSTED;
    for (size_t i = 0; i < result->n_payload; i++) {
        vectron__v1__search_result__payload_entry__init(&entries[i]);
        entries[i].key = members[i].key;
        entries[i].value = members[i].value;
        result->payload[i] = &entries[i];
    }
    return STATUS_OK;
}

static enum status build_response(struct rpc *rpc, struct search *search)
{
    struct arena *arena = rpc_arena(rpc);
    Vectron__V1__SearchResponse *response = &search->response;
    vectron__v1__search_response__init(response);
    response->shards_total = search->fanout.part_count;
    response->shards_answered = search->fanout.answered_count;
    search->hits =
        merge_hits(search->lists, search->list_count, search->top_k, arena, &search->hit_count);
    Vectron__V1__SearchResult *results =
        arena_try_alloc(arena, (search->hit_count + 1) * sizeof(*results));
    response->results =
        arena_try_alloc(arena, (search->hit_count + 1) * sizeof(*response->results));
    if (search->hits == NULL || results == NULL || response->results == NULL)
        return STATUS_EXHAUSTED;
    response->n_results = search->hit_count;
    for (size_t i = 0; i < search->hit_count; i++) {
        const Vectron__Worker__V1__ShardHit *hit = search->hits[i];
        Vectron__V1__SearchResult *result = &results[i];
        vectron__v1__search_result__init(result);
        result->id = hit->id;
        result->score = hit->score;
        result->n_vector = hit->n_vector;
        result->vector = hit->vector;
        response->results[i] = result;
        if (search->request->include_metadata)
            TRY(fill_payload(rpc, (struct str){(const char *)hit->payload.data, hit->payload.len},
                             result));
    }
    return STATUS_OK;
}

void search_answer(struct rpc *rpc, struct search *search)
{
    if (search->is_stream)
        search_answer_stream(rpc, search);
    else
        rpc_reply(rpc, &search->response.base);
}

static void search_done(struct fanout *fanout, enum status status, struct str text)
{
    struct search *search = (struct search *)fanout;
    struct rpc *rpc = fanout->rpc;
    if (status == STATUS_CANCELLED)
        return;
    if (status != STATUS_OK) {
        rpc_fail(rpc, status, "%.*s", STR_ARG(text));
        return;
    }
    status = build_response(rpc, search);
    if (status == STATUS_EXHAUSTED)
        rpc_fail(rpc, status,
                 "the answer needs more memory than a request may have: ask for a smaller top_k, "
                 "or without vectors and payloads");
    else if (status != STATUS_OK)
        rpc_fail(rpc, status, "a payload cannot be shown: %s", status_text(status));
    else if (search->reranks && search->hit_count > 0)
        search_rerank(rpc, search);
    else
        search_answer(rpc, search);
}

static const struct fanout_ops search_ops = {
    .method = "SearchShards",
    .groups_by_worker = true,
    .build = build_search,
    .answered = search_answered,
    .done = search_done,
};

// --- The request

static void search_found(struct rpc *rpc, struct cluster_map *map,
                         const struct cluster_collection *collection, void *context)
{
    struct search *search = context;
    struct arena *arena = rpc_arena(rpc);
    const Vectron__V1__SearchRequest *request = search->request;
    struct error error;
    search->is_cosine = str_equal_cstr(collection->distance, "cosine");
    struct point_rules rules = {collection->dimension, search->is_cosine};
    enum status status = vector_check(request->vector, request->n_vector, &rules, "vector", &error);
    if (status != STATUS_OK) {
        rpc_fail_error(rpc, status, &error);
        return;
    }
    uint32_t count = collection->shard_count;
    struct fanout_part *parts = arena_alloc(arena, count * sizeof(*parts));
    for (uint32_t i = 0; i < count; i++) {
        parts[i].shard_index = i;
        parts[i].shard_id = collection->shards[i].shard_id;
    }
    search->lists = arena_alloc(arena, count * sizeof(*search->lists));
    search->fanout = (struct fanout){
        .rpc = rpc,
        .gateway = search->gateway,
        .ops = &search_ops,
        .parts = parts,
        .part_count = count,
        .deadline_ns = gateway_deadline_ns(rpc, DEFAULT_DEADLINE_SECONDS),
        .partial_ns = request->timeout_ms > 0
                          ? clock_monotonic_ns() + request->timeout_ms * NS_PER_MS
                          : UINT64_MAX,
    };
    fanout_start(&search->fanout, map, collection);
}

static void start(struct rpc *rpc, struct gateway *gateway, bool is_stream)
{
    const Vectron__V1__SearchRequest *request =
        (const Vectron__V1__SearchRequest *)(const void *)rpc_request(rpc);
    if (request->top_k > LIMIT_TOP_K_MAX) {
        rpc_fail(rpc, STATUS_INVALID, "top_k is %u; the limit is %d", request->top_k,
                 LIMIT_TOP_K_MAX);
        return;
    }
    if (request->ef > LIMIT_EF_MAX) {
        rpc_fail(rpc, STATUS_INVALID, "ef is %u; the limit is %d", request->ef, LIMIT_EF_MAX);
        return;
    }
    struct search *search = arena_alloc(rpc_arena(rpc), sizeof(*search));
    search->gateway = gateway;
    search->request = request;
    search->top_k = request->top_k > 0 ? request->top_k : LIMIT_TOP_K_DEFAULT;
    search->is_stream = is_stream;
    search->reranks = gateway->reranks && request->query[0] != '\0';
    collection_find(rpc, gateway, str_from_cstr(request->collection), "collection", search_found,
                    search);
}

void search(struct rpc *rpc, void *context)
{
    start(rpc, context, false);
}

void search_stream(struct rpc *rpc, void *context)
{
    start(rpc, context, true);
}
