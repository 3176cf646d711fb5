// Verbs about where shards are: they ask the placement driver itself, and so need the secret of the
// cluster when it has one.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/placementdriver.pb-c.h"
#include "server/secret.h"
#include "vectron/verb.h"

#define MESSAGE(name) Vectron__Placementdriver__V1__##name

static const struct setting cluster_settings[] = {
    {"pd-addrs", "PD_ADDRS", SETTING_STR, false, "localhost:6001",
     "the placement drivers, a comma list"},
    CLUSTER_SETTINGS,
};
enum { CLUSTER_SETTING_COUNT = sizeof(cluster_settings) / sizeof(cluster_settings[0]) };

static enum status ask(struct session *session, const char *method, const ProtobufCMessage *request,
                       const ProtobufCMessage **out_response)
{
    struct secrets secrets = {0};
    TRY(secrets_read(session->config, &session->error, &secrets));
    struct str proof = arena_str(session->arena, str_from_cstr(secrets.internal_token));
    explicit_bzero(&secrets, sizeof(secrets));
    return session_call_cluster(session, proof, method, request, out_response);
}

// --- shards

static bool is_learner(const MESSAGE(MapShard) * shard, uint64_t worker_id)
{
    for (size_t i = 0; i < shard->n_learners; i++) {
        if (shard->learners[i] == worker_id)
            return true;
    }
    return false;
}

static void print_shard(const MESSAGE(MapCollection) * collection, const MESSAGE(MapShard) * shard,
                        const MESSAGE(ListShardStepsResponse) * steps)
{
    printf("%-8u %-32s %-6" PRIu64 " %-7" PRIu64, shard->shard_id, collection->name, shard->epoch,
           shard->leader_id);
    for (size_t i = 0; i < shard->n_replicas; i++)
        printf("%s%" PRIu64 "%s", i > 0 ? "," : " ", shard->replicas[i],
               is_learner(shard, shard->replicas[i]) ? "(learner)" : "");
    for (size_t i = 0; i < steps->n_steps; i++) {
        const MESSAGE(ShardStep) *step = steps->steps[i];
        if (step->shard_id == shard->shard_id)
            printf("  %s %" PRIu64 ": %s", step->step, step->worker_id, step->reason);
    }
    printf("\n");
}

static enum status run_shards(struct session *session)
{
    MESSAGE(GetMapRequest) map_request = VECTRON__PLACEMENTDRIVER__V1__GET_MAP_REQUEST__INIT;
    MESSAGE(ListShardStepsRequest)
    step_request = VECTRON__PLACEMENTDRIVER__V1__LIST_SHARD_STEPS_REQUEST__INIT;
    const ProtobufCMessage *map_message = NULL;
    const ProtobufCMessage *step_message = NULL;
    struct str only = {0};
    if (config_word_count(session->config) > 0)
        only = session_word(session, 0);
    TRY(ask(session, "GetMap", &map_request.base, &map_message));
    TRY(ask(session, "ListShardSteps", &step_request.base, &step_message));
    const MESSAGE(ClusterMap) *map = (const void *)map_message;
    if (session->is_json) {
        session_print_json(map_message);
        session_print_json(step_message);
        return STATUS_OK;
    }
    printf("%-8s %-32s %-6s %-7s %s\n", "SHARD", "COLLECTION", "EPOCH", "LEADER",
           "REPLICAS, AND WHAT COMES NEXT");
    for (size_t i = 0; i < map->n_collections; i++) {
        const MESSAGE(MapCollection) *collection = map->collections[i];
        for (size_t k = 0; k < collection->n_shards; k++) {
            if (only.len == 0 || str_equal_cstr(only, collection->name))
                print_shard(collection, collection->shards[k], (const void *)step_message);
        }
    }
    return STATUS_OK;
}

// --- why

static enum status run_why(struct session *session)
{
    MESSAGE(ExplainShardRequest)
    request = VECTRON__PLACEMENTDRIVER__V1__EXPLAIN_SHARD_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    uint64_t shard_id = 0;
    struct str word = session_word(session, 0);
    if (!str_to_u64(word, &shard_id) || shard_id > UINT32_MAX)
        return error_set(&session->error, STATUS_INVALID,
                         "\"%.*s\" is no shard; `vectron shards` lists them", STR_ARG(word));
    request.shard_id = (uint32_t)shard_id;
    TRY(ask(session, "ExplainShard", &request.base, &message));
    const MESSAGE(ExplainShardResponse) *response = (const void *)message;
    if (session->is_json)
        session_print_json(message);
    else
        printf("%s\n", response->text);
    return STATUS_OK;
}

const struct verb cluster_verbs[] = {
    {"shards", "[COLLECTION]", "where the shards are and what is to change", cluster_settings,
     CLUSTER_SETTING_COUNT, 0, 1, run_shards},
    {"why", "SHARD", "why a shard moves, does not move, or is not as it should be",
     cluster_settings, CLUSTER_SETTING_COUNT, 1, 1, run_why},
};
const uint32_t cluster_verb_count = sizeof(cluster_verbs) / sizeof(cluster_verbs[0]);
