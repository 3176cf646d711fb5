#pragma once

#include "api/reranker.pb-c.h"
#include "api/rpc.h"

// The methods of the rerank service. This version has no strategy of its own: it puts the hits into
// the order of the scores that they came with, and says so in strategy_used. Their context is
// struct rerank_settings.

struct rerank_settings {
    struct str asked_strategy; // what was asked for at start; shown by GetStrategy
    struct str asked_cache;
};

void rerank(struct rpc *rpc, void *context);
void rerank_get_strategy(struct rpc *rpc, void *context);
void rerank_invalidate_cache(struct rpc *rpc, void *context);
