// Verbs on collections: they need an SDK token.
#include <inttypes.h>
#include <stdio.h>

#include "api/vectron.pb-c.h"
#include "vectron/verb.h"

static const struct setting create_settings[] = {
    {"dimension", NULL, SETTING_U64, false, "0", "numbers in a vector, 1 to 65535"},
    {"distance", NULL, SETTING_STR, false, "cosine", "cosine, euclidean or dot"},
};

static enum status run_create(struct session *session)
{
    Vectron__V1__CreateCollectionRequest request = VECTRON__V1__CREATE_COLLECTION_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    uint64_t dimension = config_u64(session->config, "dimension");
    if (dimension > INT32_MAX)
        return error_set(&session->error, STATUS_INVALID, "--dimension: %" PRIu64 " is too large",
                         dimension);
    request.name = session_word_cstr(session, 0);
    request.dimension = (int32_t)dimension;
    request.distance = arena_cstr(session->arena, config_str(session->config, "distance"));
    TRY(session_call_data(session, "CreateCollection", &request.base, session->arena, &message));
    if (session->is_json)
        session_print_json(message);
    else
        printf("created %s\n", request.name);
    return STATUS_OK;
}

static enum status run_list(struct session *session)
{
    Vectron__V1__ListCollectionsRequest request = VECTRON__V1__LIST_COLLECTIONS_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    TRY(session_call_data(session, "ListCollections", &request.base, session->arena, &message));
    const Vectron__V1__ListCollectionsResponse *response = (const void *)message;
    if (session->is_json) {
        session_print_json(message);
        return STATUS_OK;
    }
    for (size_t i = 0; i < response->n_collections; i++)
        printf("%s\n", response->collections[i]);
    return STATUS_OK;
}

static enum status run_status(struct session *session)
{
    Vectron__V1__GetCollectionStatusRequest request =
        VECTRON__V1__GET_COLLECTION_STATUS_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.name = session_word_cstr(session, 0);
    TRY(session_call_data(session, "GetCollectionStatus", &request.base, session->arena, &message));
    const Vectron__V1__GetCollectionStatusResponse *response = (const void *)message;
    if (session->is_json) {
        session_print_json(message);
        return STATUS_OK;
    }
    printf("%s: %d dimensions, %s, %zu shards\n", response->name, response->dimension,
           response->distance, response->n_shards);
    for (size_t i = 0; i < response->n_shards; i++) {
        const Vectron__V1__ShardStatus *shard = response->shards[i];
        printf("  shard %u: leader %" PRIu64 ", %zu replicas, %s\n", shard->shard_id,
               shard->leader_id, shard->n_replicas, shard->ready ? "ready" : "not ready");
    }
    return STATUS_OK;
}

static enum status run_delete(struct session *session)
{
    Vectron__V1__DeleteCollectionRequest request = VECTRON__V1__DELETE_COLLECTION_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    request.name = session_word_cstr(session, 0);
    TRY(session_call_data(session, "DeleteCollection", &request.base, session->arena, &message));
    if (session->is_json)
        session_print_json(message);
    else
        printf("deleted %s\n", request.name);
    return STATUS_OK;
}

const struct verb collection_verbs[] = {
    {"collections create", "NAME --dimension N", "make a collection", create_settings,
     sizeof(create_settings) / sizeof(create_settings[0]), 1, 1, run_create},
    {"collections list", "", "the names of the collections", NULL, 0, 0, 0, run_list},
    {"collections status", "NAME", "dimension, distance and shards", NULL, 0, 1, 1, run_status},
    {"collections delete", "NAME", "delete a collection and its points", NULL, 0, 1, 1, run_delete},
};
const uint32_t collection_verb_count = sizeof(collection_verbs) / sizeof(collection_verbs[0]);
