#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/placementdriver.pb-c.h"
#include "api/worker.pb-c.h"
#include "apigateway/alerts.h"
#include "apigateway/gateway.h"
#include "base/arena.h"
#include "cluster/cluster.h"
#include "net/loop.h"

// One look at the whole cluster: every service is asked at once, each answer is timed, and what
// does not answer within two seconds counts as not reachable. Loop only; everything lies in the
// arena.

enum survey_kind {
    SURVEY_PLACEMENT_DRIVER,
    SURVEY_WORKER_LIST, // the placement driver that leads
    SURVEY_WORKER,
    SURVEY_AUTH,
    SURVEY_RERANKER,
};

struct survey;

struct survey_item {
    struct survey *survey;
    enum survey_kind kind;
    struct str address;
    uint64_t worker_id; // of a worker
    struct channel_call *call;
    uint64_t started_ns;
    double response_ms;
    bool is_reached;
    struct str error; // why not
    const ProtobufCMessage *answer;
};

struct survey {
    struct gateway *gateway;
    struct arena *arena;
    struct cluster_map *map; // referenced; NULL: none yet
    struct survey_item *items;
    uint32_t item_count;
    uint32_t pending_count;
    uint32_t critical_count; // conditions found, with done
    uint32_t warning_count;
    int64_t at; // Unix seconds
    void (*done)(struct survey *survey, void *context);
    void *context;
};

// done is called once, never before this returns, with the alerts brought up to date.
struct survey *survey_start(struct gateway *gateway, struct arena *arena,
                            void (*done)(struct survey *survey, void *context), void *context);
// No done will come.
void survey_cancel(struct survey *survey);
// After done, or instead of it after cancel: drops what the survey refers to.
void survey_release(struct survey *survey);

// What the workers and the placement driver said; NULL when they did not answer.
const Vectron__Worker__V1__ListShardsResponse *survey_shards(const struct survey *survey,
                                                             uint64_t worker_id);
const Vectron__Placementdriver__V1__ListWorkersResponse *
survey_workers(const struct survey *survey);
