#pragma once

#include "api/vectron.pb-c.h"
#include "api/worker.pb-c.h"
#include "apigateway/fanout.h"
#include "apigateway/merge.h"

// A search on its way: what search.c, rerank.c and search_stream.c hand on. In the request's arena.

struct search {
    struct fanout fanout; // first
    struct gateway *gateway;
    const Vectron__V1__SearchRequest *request;
    uint32_t top_k;
    bool is_stream;
    bool reranks;
    bool is_cosine;
    struct hit_list *lists; // the workers' answers
    size_t list_count;
    Vectron__Worker__V1__ShardHit **hits; // merged
    size_t hit_count;
    Vectron__V1__SearchResponse response;
};

// The hits are in response.results, in their own order: reorder them if the reranker answers in
// time, then call search_answer.
void search_rerank(struct rpc *rpc, struct search *search);
// Send response as the caller asked for it.
void search_answer(struct rpc *rpc, struct search *search);
// The same in messages.
void search_answer_stream(struct rpc *rpc, struct search *search);
