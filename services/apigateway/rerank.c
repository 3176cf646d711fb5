#include "api/client.h"
#include "api/reranker.pb-c.h"
#include "apigateway/point_check.h"
#include "apigateway/search_internal.h"
#include "base/clock.h"
#include "base/map.h"

// A search's hits in the reranker's order. The answer says in the header vectron-rerank whether
// that happened: applied, late or failed. Whatever goes wrong, the search's own order stands.

struct rerank {
    struct rpc *rpc;
    struct search *search;
    struct channel_call *call;
    bool has_ended;
};

static enum status fill_metadata(struct arena *arena, const Vectron__Worker__V1__ShardHit *hit,
                                 Vectron__Reranker__V1__Candidate *candidate)
{
    struct payload_member *members = NULL;
    TRY(payload_to_members((struct str){(const char *)hit->payload.data, hit->payload.len}, arena,
                           &members, &candidate->n_metadata));
    size_t count = candidate->n_metadata;
    Vectron__Reranker__V1__Candidate__MetadataEntry *entries =
        arena_try_alloc(arena, (count + 1) * sizeof(*entries));
    candidate->metadata = arena_try_alloc(arena, (count + 1) * sizeof(*candidate->metadata));
    if (entries == NULL || candidate->metadata == NULL)
        return STATUS_EXHAUSTED;
    for (size_t i = 0; i < count; i++) {
        vectron__reranker__v1__candidate__metadata_entry__init(&entries[i]);
        entries[i].key = members[i].key;
        entries[i].value = members[i].value;
        candidate->metadata[i] = &entries[i];
    }
    return STATUS_OK;
}

static enum status build_request(const struct search *search, struct arena *arena,
                                 Vectron__Reranker__V1__RerankRequest *out_request)
{
    Vectron__Reranker__V1__Candidate *candidates =
        arena_try_alloc(arena, search->hit_count * sizeof(*candidates));
    out_request->candidates =
        arena_try_alloc(arena, search->hit_count * sizeof(*out_request->candidates));
    if (candidates == NULL || out_request->candidates == NULL)
        return STATUS_EXHAUSTED;
    for (size_t i = 0; i < search->hit_count; i++) {
        const Vectron__Worker__V1__ShardHit *hit = search->hits[i];
        vectron__reranker__v1__candidate__init(&candidates[i]);
        candidates[i].id = hit->id;
        // Greater is better there.
        candidates[i].score = search->is_cosine ? 1 - hit->score : -hit->score;
        TRY(fill_metadata(arena, hit, &candidates[i]));
        out_request->candidates[i] = &candidates[i];
    }
    out_request->query = search->request->query;
    out_request->n_candidates = search->hit_count;
    return STATUS_OK;
}

// Every hit must come back exactly once; an answer that says something else is not used.
static bool apply(struct search *search, const Vectron__Reranker__V1__RerankResponse *answer,
                  struct arena *arena)
{
    Vectron__V1__SearchResponse *response = &search->response;
    size_t count = response->n_results;
    if (answer->n_results != count)
        return false;
    Vectron__V1__SearchResult **ordered = arena_try_alloc(arena, count * sizeof(*ordered));
    if (ordered == NULL)
        return false;
    struct map *by_id = map_create();
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        (void)map_put(by_id, str_from_cstr(response->results[i]->id), response->results[i]);
    for (; found < count; found++) {
        Vectron__V1__SearchResult *result =
            map_remove(by_id, str_from_cstr(answer->results[found]->id));
        if (result == NULL)
            break;
        ordered[found] = result;
    }
    map_destroy(by_id);
    if (found < count)
        return false;
    for (size_t i = 0; i < count; i++)
        ordered[i]->rerank_score = answer->results[i]->rerank_score;
    response->results = ordered;
    return true;
}

static void cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct rerank *rerank = context;
    if (rerank->has_ended)
        return;
    rerank->has_ended = true;
    channel_call_cancel(rerank->call);
    rpc_unref(rerank->rpc);
}

static void reranked(enum status status, struct str text, const ProtobufCMessage *message,
                     void *context)
{
    (void)text;
    struct rerank *rerank = context;
    struct rpc *rpc = rerank->rpc;
    struct str outcome = status == STATUS_TIMEOUT ? STR("late") : STR("failed");
    rerank->has_ended = true;
    if (status == STATUS_OK &&
        apply(rerank->search, (const Vectron__Reranker__V1__RerankResponse *)(const void *)message,
              rpc_arena(rpc)))
        outcome = STR("applied");
    rpc_add_header(rpc, STR("vectron-rerank"), outcome);
    search_answer(rpc, rerank->search);
    rpc_unref(rpc);
}

void search_rerank(struct rpc *rpc, struct search *search)
{
    struct arena *arena = rpc_arena(rpc);
    Vectron__Reranker__V1__RerankRequest message = VECTRON__RERANKER__V1__RERANK_REQUEST__INIT;
    if (build_request(search, arena, &message) != STATUS_OK) {
        rpc_add_header(rpc, STR("vectron-rerank"), STR("failed"));
        search_answer(rpc, search);
        return;
    }
    struct rerank *rerank = arena_alloc(arena, sizeof(*rerank));
    uint64_t latest = clock_monotonic_ns() + search->gateway->rerank_timeout_ns;
    uint32_t metadata_count = 0;
    const struct metadata *metadata =
        cluster_client_metadata(search->gateway->cluster, &metadata_count);
    rerank->rpc = rpc;
    rerank->search = search;
    rpc_ref(rpc);
    rpc_on_cancel(rpc, cancelled, rerank);
    rerank->call = client_call(&(struct client_request){
        .channel = search->gateway->reranker,
        .service = &vectron__reranker__v1__rerank_service__descriptor,
        .method = "Rerank",
        .message = &message.base,
        .deadline_ns = search->fanout.deadline_ns < latest ? search->fanout.deadline_ns : latest,
        .metadata = metadata,
        .metadata_count = metadata_count,
        .context = rerank,
        .arena = arena,
        .done = reranked,
    });
}
