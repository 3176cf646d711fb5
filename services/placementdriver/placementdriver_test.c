#include "placementdriver/placementdriver.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/config.h"
#include "cluster/cluster_member.h"
#include "placementdriver/driver.h"
#include "server/process.h"
#include "testing/test.h"

// The whole service over the real router, asked as an operator asks it, watched by the cluster's
// client and joined by the cluster's member.

enum { SECONDS_MAX = 20, TEXT_SIZE = 640 };

#define AS(type, message) ((const PD(type) *)(const void *)(message))

struct fixture {
    struct net *net;
    struct config *config;
    struct driver *driver;
    struct channel *channel;
    struct arena *arena;
    struct error error;
    char folder[TEXT_SIZE];
    const char *internal; // the proof that calls show; NULL: none
};

static enum status try_start(struct fixture *f, const char *const settings[][2])
{
    static char program[] = "placementdriver";
    char *const arguments[] = {program, NULL};
    void *service = NULL;
    TRY(config_create(placementdriver_service.settings, placementdriver_service.setting_count, 1,
                      arguments, &f->error, &f->config));
    TRY(config_set(f->config, "grpc-addr", STR("inproc:pd"), &f->error));
    TRY(config_set(f->config, "data-dir", str_from_cstr(f->folder), &f->error));
    for (size_t i = 0; settings != NULL && settings[i][0] != NULL; i++)
        TRY(config_set(f->config, settings[i][0], str_from_cstr(settings[i][1]), &f->error));
    ready_set_prefix(NULL); // no ready line here
    TRY(placementdriver_service.start(f->net, f->config, &f->error, &service));
    f->driver = service;
    return channel_create(f->net, &(struct channel_options){.address = STR("inproc:pd")}, &f->error,
                          &f->channel);
}

static void start(struct fixture *f, const char *const settings[][2])
{
    if (!CHECK_OK(try_start(f, settings)))
        (void)fprintf(stderr, "placementdriver: %s\n", f->error.text);
}

static void stop(struct fixture *f)
{
    channel_destroy(f->channel);
    if (f->driver != NULL) {
        placementdriver_service.drain(f->driver, NS_PER_SECOND);
        placementdriver_service.stop(f->driver);
    }
    config_destroy(f->config);
    f->channel = NULL;
    f->driver = NULL;
    f->config = NULL;
}

static void open_fixture(struct fixture *f)
{
    *f = (struct fixture){.arena = arena_create(256 << 20)};
    (void)snprintf(f->folder, sizeof(f->folder), "%s/pd", test_temporary_folder());
    CHECK_OK(net_create(&(struct net_options){.loop_count = 2}, &f->error, &f->net));
}

static void close_fixture(struct fixture *f)
{
    stop(f);
    net_destroy(f->net);
    arena_destroy(f->arena);
}

// --- Calls. An answer is written in any case, NULL when there is none.

static enum status ask_service(struct fixture *f, const ProtobufCServiceDescriptor *service,
                               const char *method, const ProtobufCMessage *request,
                               const ProtobufCMessage **out_answer)
{
    const struct metadata proof = {STR("vectron-internal"), str_from_cstr(f->internal)};
    *out_answer = NULL;
    f->error = (struct error){0};
    return client_call_wait(
        &(struct client_request){
            .channel = f->channel,
            .service = service,
            .method = method,
            .message = request,
            .deadline_ns = clock_monotonic_ns() + SECONDS_MAX * NS_PER_SECOND,
            .metadata = &proof,
            .metadata_count = f->internal != NULL ? 1 : 0,
        },
        f->arena, &f->error, out_answer);
}

static enum status ask(struct fixture *f, const char *method, const ProtobufCMessage *request,
                       const ProtobufCMessage **out_answer)
{
    return ask_service(f, &vectron__placementdriver__v1__placement_service__descriptor, method,
                       request, out_answer);
}

static char *text(struct fixture *f, const char *words)
{
    return arena_cstr(f->arena, str_from_cstr(words));
}

static enum status register_worker(struct fixture *f, const char *address, const char **out_id)
{
    PD(RegisterWorkerRequest) request = PD_INIT(REGISTER_WORKER_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.grpc_address = text(f, address);
    request.zone = text(f, "z1");
    enum status status = ask(f, "RegisterWorker", &request.base, &answer);
    *out_id = status == STATUS_OK ? AS(RegisterWorkerResponse, answer)->worker_id : "";
    return status;
}

static enum status create(struct fixture *f, const char *name, int32_t dimension,
                          const char *distance)
{
    PD(CreateCollectionRequest) request = PD_INIT(CREATE_COLLECTION_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.name = text(f, name);
    request.dimension = dimension;
    request.distance = text(f, distance);
    return ask(f, "CreateCollection", &request.base, &answer);
}

static enum status status_of(struct fixture *f, const char *name,
                             const PD(GetCollectionStatusResponse) * *out_status)
{
    PD(GetCollectionStatusRequest) request = PD_INIT(GET_COLLECTION_STATUS_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.name = text(f, name);
    enum status status = ask(f, "GetCollectionStatus", &request.base, &answer);
    *out_status = AS(GetCollectionStatusResponse, answer);
    return status;
}

static enum status heartbeat(struct fixture *f, const char *id, uint64_t *shards, size_t count,
                             bool *out_ok)
{
    PD(HeartbeatRequest) request = PD_INIT(HEARTBEAT_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.worker_id = text(f, id);
    request.vector_count = 7;
    request.running_shards = shards;
    request.n_running_shards = count;
    enum status status = ask(f, "Heartbeat", &request.base, &answer);
    *out_ok = status == STATUS_OK && AS(HeartbeatResponse, answer)->ok;
    return status;
}

// --- Collections and where points are

TEST(a_collection_from_its_creation_to_its_end)
{
    struct fixture f;
    const char *first = NULL;
    const char *second = NULL;
    const PD(GetCollectionStatusResponse) *status = NULL;
    const ProtobufCMessage *answer = NULL;
    bool is_known = false;
    open_fixture(&f);
    start(&f, NULL);
    // Nobody could hold it yet; right after a registration somebody can.
    CHECK_STATUS(create(&f, "u/c", 3, "dot"), STATUS_UNAVAILABLE);
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &first));
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7002", &second));
    REQUIRE_OK(create(&f, "u/c", 3, "dot"));
    CHECK_STATUS(create(&f, "u/c", 3, "dot"), STATUS_EXISTS);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("already exists"));

    REQUIRE_OK(status_of(&f, "u/c", &status));
    REQUIRE(status->n_shards == 2);
    CHECK_EQ_I64(status->dimension, 3);
    CHECK_CSTR(status->distance, "dot");
    CHECK_EQ_U64(status->shards[0]->key_range_start, 0);
    CHECK_EQ_U64(status->shards[1]->key_range_start, status->shards[0]->key_range_end + 1);
    CHECK_EQ_U64(status->shards[1]->key_range_end, UINT64_MAX);
    CHECK(!status->shards[0]->ready);
    uint64_t shard_id = status->shards[0]->shard_id;
    CHECK_OK(
        heartbeat(&f, status->shards[0]->leader_id == 1 ? first : second, &shard_id, 1, &is_known));
    CHECK(is_known);
    REQUIRE_OK(status_of(&f, "u/c", &status));
    CHECK(status->shards[0]->ready && !status->shards[1]->ready);

    PD(GetWorkerRequest) where = PD_INIT(GET_WORKER_REQUEST);
    where.collection = text(&f, "u/c");
    where.vector_id = text(&f, "apple");
    REQUIRE_OK(ask(&f, "GetWorker", &where.base, &answer));
    CHECK(AS(GetWorkerResponse, answer)->shard_id == status->shards[0]->shard_id ||
          AS(GetWorkerResponse, answer)->shard_id == status->shards[1]->shard_id);
    CHECK(AS(GetWorkerResponse, answer)->lease_expiry_unix_ms > 0);

    PD(ListWorkersForCollectionRequest) which = PD_INIT(LIST_WORKERS_FOR_COLLECTION_REQUEST);
    which.collection = where.collection;
    REQUIRE_OK(ask(&f, "ListWorkersForCollection", &which.base, &answer));
    REQUIRE(AS(ListWorkersForCollectionResponse, answer)->n_grpc_addresses == 2);
    CHECK_CSTR(AS(ListWorkersForCollectionResponse, answer)->grpc_addresses[0], "127.0.0.1:7001");

    PD(DeleteCollectionRequest) end = PD_INIT(DELETE_COLLECTION_REQUEST);
    end.name = where.collection;
    CHECK_OK(ask(&f, "DeleteCollection", &end.base, &answer));
    CHECK_STATUS(ask(&f, "DeleteCollection", &end.base, &answer), STATUS_NOT_FOUND);
    CHECK_STATUS(status_of(&f, "u/c", &status), STATUS_NOT_FOUND);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("\"c\" not found"));
    close_fixture(&f);
}

TEST(wrong_input_names_field_value_and_limit)
{
    struct fixture f;
    const char *id = NULL;
    const ProtobufCMessage *answer = NULL;
    PD(GetWorkerRequest) where = PD_INIT(GET_WORKER_REQUEST);
    open_fixture(&f);
    start(&f, NULL);
    CHECK_STATUS(create(&f, "", 3, ""), STATUS_INVALID);
    CHECK_STATUS(create(&f, "a b", 3, ""), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("name"));
    CHECK_STATUS(create(&f, "c", 0, ""), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("dimension is 0"));
    CHECK_STATUS(create(&f, "c", 65536, ""), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("65535"));
    CHECK_STATUS(create(&f, "c", 3, "manhattan"), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("manhattan"));
    CHECK_STATUS(register_worker(&f, "nowhere", &id), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("grpc_address"));
    CHECK_STATUS(register_worker(&f, ":7001", &id), STATUS_INVALID);
    CHECK_STATUS(ask(&f, "GetWorker", &where.base, &answer), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(f.error.text), STR("vector_id"));
    close_fixture(&f);
}

// --- Workers

TEST(workers_come_and_go)
{
    struct fixture f;
    const char *id = NULL;
    const char *again = NULL;
    const ProtobufCMessage *answer = NULL;
    bool is_known = true;
    PD(ListWorkersRequest) list = PD_INIT(LIST_WORKERS_REQUEST);
    PD(DrainWorkerRequest) drain = PD_INIT(DRAIN_WORKER_REQUEST);
    PD(RemoveWorkerRequest) removal = PD_INIT(REMOVE_WORKER_REQUEST);
    open_fixture(&f);
    start(&f, NULL);
    CHECK_OK(heartbeat(&f, "77", NULL, 0, &is_known));
    CHECK(!is_known);
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &id));
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &again));
    CHECK_CSTR(again, id); // the same address is the same worker
    REQUIRE_OK(create(&f, "c", 2, ""));

    REQUIRE_OK(ask(&f, "ListWorkers", &list.base, &answer));
    REQUIRE(AS(ListWorkersResponse, answer)->n_workers == 1);
    const PD(WorkerInfo) *info = AS(ListWorkersResponse, answer)->workers[0];
    CHECK(info->healthy && info->state == 2 && info->n_collections == 1);
    CHECK_CSTR(info->collections[0], "c");

    drain.worker_id = text(&f, id);
    CHECK_OK(ask(&f, "DrainWorker", &drain.base, &answer));
    CHECK_STATUS(create(&f, "d", 2, ""), STATUS_UNAVAILABLE);
    removal.worker_id = drain.worker_id;
    CHECK_STATUS(ask(&f, "RemoveWorker", &removal.base, &answer), STATUS_PRECONDITION);
    PD(DeleteCollectionRequest) end = PD_INIT(DELETE_COLLECTION_REQUEST);
    end.name = text(&f, "c");
    CHECK_OK(ask(&f, "DeleteCollection", &end.base, &answer));
    CHECK_OK(ask(&f, "RemoveWorker", &removal.base, &answer));
    CHECK_STATUS(ask(&f, "RemoveWorker", &removal.base, &answer), STATUS_NOT_FOUND);
    drain.worker_id = text(&f, "not a number");
    CHECK_STATUS(ask(&f, "DrainWorker", &drain.base, &answer), STATUS_NOT_FOUND);
    CHECK_OK(heartbeat(&f, id, NULL, 0, &is_known));
    CHECK(!is_known);
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &again));
    CHECK(strcmp(again, id) != 0); // ids are never used again
    close_fixture(&f);
}

// --- Replicas

// What a worker says whose shard is a group.
struct group {
    uint64_t leader_id;
    uint64_t term;
    uint64_t members[3];
    size_t member_count;
};

static void say_group(struct fixture *f, const char *worker, uint64_t shard_id, struct group group)
{
    PD(HeartbeatRequest) request = PD_INIT(HEARTBEAT_REQUEST);
    PD(ShardLeaderInfo) leader = PD_INIT(SHARD_LEADER_INFO);
    PD(ShardMembershipInfo) membership = PD_INIT(SHARD_MEMBERSHIP_INFO);
    PD(ShardLeaderInfo) * leaders[] = {&leader};
    PD(ShardMembershipInfo) * memberships[] = {&membership};
    const ProtobufCMessage *answer = NULL;
    request.worker_id = text(f, worker);
    request.running_shards = &shard_id;
    request.n_running_shards = 1;
    leader.shard_id = shard_id;
    leader.leader_id = group.leader_id;
    leader.term = group.term;
    request.shard_leader_info = leaders;
    request.n_shard_leader_info = 1;
    membership.shard_id = shard_id;
    membership.node_ids = group.members;
    membership.n_node_ids = group.member_count;
    request.shard_membership = memberships;
    request.n_shard_membership = 1;
    CHECK_OK(ask(f, "Heartbeat", &request.base, &answer));
    CHECK(answer != NULL && AS(HeartbeatResponse, answer)->ok);
}

static const PD(MapShard) * first_shard(struct fixture *f)
{
    PD(GetMapRequest) request = PD_INIT(GET_MAP_REQUEST);
    const ProtobufCMessage *answer = NULL;
    CHECK_OK(ask_service(f, &vectron__placementdriver__v1__cluster_service__descriptor, "GetMap",
                         &request.base, &answer));
    if (answer == NULL || AS(ClusterMap, answer)->n_collections != 1)
        return NULL;
    return AS(ClusterMap, answer)->collections[0]->shards[0];
}

static void check_explained(struct fixture *f, uint32_t shard_id, const char *sentence)
{
    PD(ExplainShardRequest) request = PD_INIT(EXPLAIN_SHARD_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.shard_id = shard_id;
    CHECK_OK(ask_service(f, &vectron__placementdriver__v1__cluster_service__descriptor,
                         "ExplainShard", &request.base, &answer));
    if (answer != NULL)
        CHECK_CONTAINS(str_from_cstr(AS(ExplainShardResponse, answer)->text),
                       str_from_cstr(sentence));
}

// Until the schedulers have made the shard have as many replicas, or want that leader.
static const PD(MapShard) *
    wait_for_shard(struct fixture *f, size_t replica_count, uint64_t wanted_leader_id)
{
    const PD(MapShard) *shard = NULL;
    for (int i = 0; i < SECONDS_MAX * 20; i++) {
        shard = first_shard(f);
        if (shard == NULL ||
            (shard->n_replicas == replica_count && shard->wanted_leader_id == wanted_leader_id))
            return shard;
        nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
    CHECK_EQ_U64(shard->n_replicas, replica_count);
    CHECK_EQ_U64(shard->wanted_leader_id, wanted_leader_id);
    return shard;
}

static void drain_worker(struct fixture *f, const char *id)
{
    PD(DrainWorkerRequest) drain = PD_INIT(DRAIN_WORKER_REQUEST);
    const ProtobufCMessage *answer = NULL;
    drain.worker_id = text(f, id);
    CHECK_OK(ask(f, "DrainWorker", &drain.base, &answer));
}

TEST(a_drained_worker_hands_over_its_lead_and_its_replicas)
{
    struct fixture f;
    const char *id = NULL;
    const ProtobufCMessage *answer = NULL;
    PD(RebalanceRequest) rebalance = PD_INIT(REBALANCE_REQUEST);
    PD(RemoveWorkerRequest) removal = PD_INIT(REMOVE_WORKER_REQUEST);
    open_fixture(&f);
    start(&f, (const char *const[][2]){{"default-shards", "1"}, {NULL, NULL}});
    REQUIRE(f.driver != NULL);
    REQUIRE_OK(ask(&f, "Rebalance", &rebalance.base, &answer));
    CHECK_EQ_U64(AS(RebalanceResponse, answer)->started, STATE_REPLICATED_SHARDS);
    pthread_mutex_lock(&f.driver->lock);
    f.driver->replication_factor = 2; // as if workers ran groups
    pthread_mutex_unlock(&f.driver->lock);
    for (int i = 1; i <= 3; i++) {
        char address[32];
        (void)snprintf(address, sizeof(address), "127.0.0.1:700%d", i);
        REQUIRE_OK(register_worker(&f, address, &id));
    }
    REQUIRE_OK(create(&f, "c", 2, ""));
    const PD(MapShard) *shard = first_shard(&f);
    REQUIRE(shard != NULL && shard->n_replicas == 2);
    CHECK(shard->replicas[0] == 1 && shard->replicas[1] == 2);
    CHECK(shard->leader_id == 0 && shard->wanted_leader_id == 1 && shard->epoch == 1);
    uint32_t shard_id = shard->shard_id;
    check_explained(&f, shard_id, "no worker says that it leads");

    // The higher term is right, whoever says it.
    say_group(&f, "1", shard_id, (struct group){1, 5, {1, 2}, 2});
    say_group(&f, "2", shard_id, (struct group){2, 4, {2}, 1});
    shard = first_shard(&f);
    REQUIRE(shard != NULL);
    CHECK(shard->leader_id == 1 && shard->wanted_leader_id == 0);
    check_explained(&f, shard_id, "worker 1 leads. nothing is to be done.");

    drain_worker(&f, "1");
    (void)wait_for_shard(&f, 2, 2); // the lead first
    say_group(&f, "2", shard_id, (struct group){2, 6, {1, 2}, 2});
    shard = wait_for_shard(&f, 3, 0);
    CHECK(shard->leader_id == 2 && shard->replicas[2] == 3 && shard->epoch == 2);
    check_explained(&f, shard_id, "the leader has not made a voter yet of worker 3.");
    removal.worker_id = text(&f, "1");
    CHECK_STATUS(ask(&f, "RemoveWorker", &removal.base, &answer), STATUS_PRECONDITION);
    say_group(&f, "2", shard_id, (struct group){2, 6, {1, 2, 3}, 3});
    shard = wait_for_shard(&f, 2, 0);
    CHECK(shard->replicas[0] == 2 && shard->replicas[1] == 3 && shard->epoch == 3);
    CHECK_OK(ask(&f, "RemoveWorker", &removal.base, &answer));
    REQUIRE_OK(ask(&f, "Rebalance", &rebalance.base, &answer));
    CHECK(AS(RebalanceResponse, answer)->started);
    close_fixture(&f);
}

TEST(rerankers_are_known_while_they_are_heard_of)
{
    struct fixture f;
    const ProtobufCMessage *answer = NULL;
    PD(GetRerankerRequest) any = PD_INIT(GET_RERANKER_REQUEST);
    PD(RegisterRerankerRequest) request = PD_INIT(REGISTER_RERANKER_REQUEST);
    PD(RerankerHeartbeatRequest) beat = PD_INIT(RERANKER_HEARTBEAT_REQUEST);
    PD(ListRerankersRequest) list = PD_INIT(LIST_RERANKERS_REQUEST);
    open_fixture(&f);
    start(&f, NULL);
    CHECK_STATUS(ask(&f, "GetReranker", &any.base, &answer), STATUS_UNAVAILABLE);
    request.grpc_address = text(&f, "127.0.0.1:50051");
    REQUIRE_OK(ask(&f, "RegisterReranker", &request.base, &answer));
    beat.reranker_id = AS(RegisterRerankerResponse, answer)->reranker_id;
    REQUIRE_OK(ask(&f, "RerankerHeartbeat", &beat.base, &answer));
    CHECK(AS(RerankerHeartbeatResponse, answer)->ok);
    REQUIRE_OK(ask(&f, "GetReranker", &any.base, &answer));
    CHECK_CSTR(AS(GetRerankerResponse, answer)->grpc_address, "127.0.0.1:50051");
    REQUIRE_OK(ask(&f, "ListRerankers", &list.base, &answer));
    CHECK_EQ_U64(AS(ListRerankersResponse, answer)->n_rerankers, 1);
    beat.reranker_id = text(&f, "99");
    REQUIRE_OK(ask(&f, "RerankerHeartbeat", &beat.base, &answer));
    CHECK(!AS(RerankerHeartbeatResponse, answer)->ok);
    close_fixture(&f);
}

// --- The values of the auth service

static enum status put(struct fixture *f, const char *key, const char *value, uint64_t version,
                       bool is_removed)
{
    PD(PutStateRequest) request = PD_INIT(PUT_STATE_REQUEST);
    PD(StateEntry) entry = PD_INIT(STATE_ENTRY);
    PD(StateEntry) * entries[] = {&entry};
    const ProtobufCMessage *answer = NULL;
    entry.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)text(f, key)};
    entry.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)text(f, value)};
    entry.version = version;
    entry.is_removed = is_removed;
    request.entries = entries;
    request.n_entries = 1;
    return ask_service(f, &vectron__placementdriver__v1__state_service__descriptor, "PutState",
                       &request.base, &answer);
}

static uint64_t version_of(struct fixture *f, const char *key)
{
    PD(GetStateRequest) request = PD_INIT(GET_STATE_REQUEST);
    const ProtobufCMessage *answer = NULL;
    request.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)text(f, key)};
    enum status status = ask_service(f, &vectron__placementdriver__v1__state_service__descriptor,
                                     "GetState", &request.base, &answer);
    return CHECK_OK(status) ? AS(GetStateResponse, answer)->entry->version : 0;
}

TEST(entries_change_by_compare_and_set)
{
    struct fixture f;
    const ProtobufCMessage *answer = NULL;
    open_fixture(&f);
    start(&f, NULL);
    CHECK_EQ_U64(version_of(&f, "k/1"), 0);
    CHECK_OK(put(&f, "k/1", "one", 0, false));
    CHECK_STATUS(put(&f, "k/1", "two", 0, false), STATUS_ABORTED);
    uint64_t version = version_of(&f, "k/1");
    CHECK(version > 0);
    CHECK_OK(put(&f, "k/1", "two", version, false));
    CHECK_STATUS(put(&f, "", "x", 0, false), STATUS_INVALID);
    for (int i = 0; i < 5; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "l/%d", i);
        CHECK_OK(put(&f, key, "v", 0, false));
    }
    PD(ListStateRequest) list = PD_INIT(LIST_STATE_REQUEST);
    list.prefix = (ProtobufCBinaryData){2, (uint8_t *)text(&f, "l/")};
    list.after = (ProtobufCBinaryData){3, (uint8_t *)text(&f, "l/1")};
    list.limit = 2;
    REQUIRE_OK(ask_service(&f, &vectron__placementdriver__v1__state_service__descriptor,
                           "ListState", &list.base, &answer));
    const PD(ListStateResponse) *page = AS(ListStateResponse, answer);
    REQUIRE(page->n_entries == 2);
    CHECK(memcmp(page->entries[0]->key.data, "l/2", 3) == 0 && page->has_more);
    CHECK_OK(put(&f, "k/1", "", version_of(&f, "k/1"), true));
    CHECK_EQ_U64(version_of(&f, "k/1"), 0);
    close_fixture(&f);
}

// --- What a restart leaves

TEST(a_restart_keeps_everything)
{
    struct fixture f;
    const char *id = NULL;
    const char *again = NULL;
    const PD(GetCollectionStatusResponse) *status = NULL;
    open_fixture(&f);
    start(&f, NULL);
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &id));
    REQUIRE_OK(create(&f, "kept", 5, "euclidean"));
    CHECK_OK(put(&f, "k", "v", 0, false));
    REQUIRE_OK(status_of(&f, "kept", &status));
    uint32_t shard_id = status->shards[0]->shard_id;
    for (int round = 0; round < 3; round++) {
        stop(&f);
        start(&f, NULL);
        REQUIRE_OK(status_of(&f, "kept", &status));
        CHECK_EQ_U64(status->shards[0]->shard_id, shard_id);
        CHECK_EQ_I64(status->dimension, 5);
        CHECK(version_of(&f, "k") > 0);
    }
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &again));
    CHECK_CSTR(again, id);
    close_fixture(&f);
}

TEST(settings_that_cannot_be)
{
    static const char *const wrong[][2][2] = {
        {{"grpc-addr", "nowhere"}, {NULL}},
        {{"grpc-addr", "0.0.0.0:6001"}, {NULL}}, // without a cluster secret
        {{"initial-members", "1:a:1,2:b:2"}, {NULL}},
        {{"initial-members", "2:localhost:7001"}, {NULL}},
        {{"default-shards", "100000"}, {NULL}},
        {{"replication-factor", "0"}, {NULL}},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct fixture f;
        open_fixture(&f);
        CHECK_STATUS(try_start(&f, wrong[i]), STATUS_INVALID);
        CHECK_CONTAINS(str_from_cstr(f.error.text), str_from_cstr(wrong[i][0][0]));
        close_fixture(&f);
    }
}

TEST(with_a_cluster_secret_every_call_must_prove_it)
{
    static const char *const settings[][2] = {
        {"cluster-secret", "a secret that the whole cluster shares"}, {NULL}};
    struct fixture f;
    const char *id = NULL;
    open_fixture(&f);
    start(&f, settings);
    CHECK_STATUS(register_worker(&f, "127.0.0.1:7001", &id), STATUS_FORBIDDEN);
    f.internal = "0000000000000000000000000000000000000000000000000000000000000000";
    CHECK_STATUS(register_worker(&f, "127.0.0.1:7001", &id), STATUS_FORBIDDEN);
    f.internal = f.driver->secrets.internal_token;
    CHECK_OK(register_worker(&f, "127.0.0.1:7001", &id));
    close_fixture(&f);
}

// --- The cluster's client and member

struct watcher {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t map_count;
    uint32_t collection_count; // of the newest map
    uint32_t healthy_count;
    uint64_t member_id;
    uint32_t registered_count;
};

static void map_changed(struct cluster_map *map, void *context)
{
    struct watcher *watcher = context;
    pthread_mutex_lock(&watcher->lock);
    watcher->map_count++;
    watcher->collection_count = map->collection_count;
    watcher->healthy_count = 0;
    for (uint32_t i = 0; i < map->worker_count; i++)
        watcher->healthy_count += map->workers[i].is_healthy;
    pthread_cond_broadcast(&watcher->changed);
    pthread_mutex_unlock(&watcher->lock);
}

static void member_registered(uint64_t id, void *context)
{
    struct watcher *watcher = context;
    pthread_mutex_lock(&watcher->lock);
    watcher->member_id = id;
    watcher->registered_count++;
    pthread_cond_broadcast(&watcher->changed);
    pthread_mutex_unlock(&watcher->lock);
}

#define WAIT_UNTIL(watcher, condition)                                                      \
    do {                                                                                    \
        struct timespec until;                                                              \
        CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);                                  \
        until.tv_sec += SECONDS_MAX;                                                        \
        int result = 0;                                                                     \
        pthread_mutex_lock(&(watcher)->lock);                                               \
        while (!(condition) && result == 0)                                                 \
            result = pthread_cond_timedwait(&(watcher)->changed, &(watcher)->lock, &until); \
        CHECK(condition);                                                                   \
        pthread_mutex_unlock(&(watcher)->lock);                                             \
    } while (0)

TEST(the_map_is_pushed_and_members_stay_known)
{
    struct fixture f;
    struct watcher watcher = {.lock = PTHREAD_MUTEX_INITIALIZER,
                              .changed = PTHREAD_COND_INITIALIZER};
    struct cluster_client *client = NULL;
    open_fixture(&f);
    // Both start before there is anybody to talk to.
    REQUIRE_OK(cluster_client_create(
        &(struct cluster_client_options){.net = f.net,
                                         .pd_addresses = STR("127.0.0.1:1, inproc:pd"),
                                         .changed = map_changed,
                                         .context = &watcher},
        &f.error, &client));
    CHECK(cluster_client_map(client) == NULL && !cluster_client_is_connected(client));
    struct cluster_member *member = cluster_member_create(&(struct cluster_member_options){
        .client = client,
        .net = f.net,
        .kind = CLUSTER_MEMBER_WORKER,
        .grpc_address = STR("127.0.0.1:7009"),
        .identity = STR("the-same-worker"),
        .registered = member_registered,
        .context = &watcher,
    });
    start(&f, NULL);
    WAIT_UNTIL(&watcher, watcher.member_id > 0 && watcher.healthy_count == 1);
    REQUIRE_OK(create(&f, "pushed", 2, ""));
    WAIT_UNTIL(&watcher, watcher.collection_count == 1);
    struct cluster_map *map = cluster_client_map(client);
    REQUIRE(map != NULL);
    const struct cluster_collection *collection = cluster_map_find(map, STR("pushed"));
    REQUIRE(collection != NULL);
    CHECK(cluster_collection_route(collection, STR("x"))->leader_id == watcher.member_id);
    CHECK(cluster_map_worker(map, watcher.member_id)->channel != NULL);
    uint64_t version = map->version;
    cluster_map_unref(map);
    // A restart is found again, by the same id, and versions go on.
    uint64_t id = watcher.member_id;
    uint32_t map_count = watcher.map_count;
    stop(&f);
    start(&f, NULL);
    WAIT_UNTIL(&watcher, watcher.map_count > map_count);
    map = cluster_client_map(client);
    CHECK(map != NULL && map->version > version);
    cluster_map_unref(map);
    CHECK_EQ_U64(cluster_member_id(member), id);
    // Who was removed registers again and is somebody new.
    PD(RemoveWorkerRequest) removal = PD_INIT(REMOVE_WORKER_REQUEST);
    PD(DeleteCollectionRequest) end = PD_INIT(DELETE_COLLECTION_REQUEST);
    const ProtobufCMessage *answer = NULL;
    end.name = text(&f, "pushed");
    CHECK_OK(ask(&f, "DeleteCollection", &end.base, &answer));
    removal.worker_id = id_to_text(f.arena, id);
    CHECK_OK(ask(&f, "RemoveWorker", &removal.base, &answer));
    cluster_member_hurry(member);
    WAIT_UNTIL(&watcher, watcher.registered_count >= 2 && watcher.member_id != id);
    cluster_member_destroy(member);
    cluster_client_destroy(client);
    close_fixture(&f);
}

TEST(a_worker_that_falls_silent_is_unhealthy)
{
    struct fixture f;
    struct watcher watcher = {.lock = PTHREAD_MUTEX_INITIALIZER,
                              .changed = PTHREAD_COND_INITIALIZER};
    struct cluster_client *client = NULL;
    const char *id = NULL;
    bool is_known = false;
    open_fixture(&f);
    start(&f, NULL);
    REQUIRE_OK(
        cluster_client_create(&(struct cluster_client_options){.net = f.net,
                                                               .pd_addresses = STR("inproc:pd"),
                                                               .changed = map_changed,
                                                               .context = &watcher},
                              &f.error, &client));
    REQUIRE_OK(register_worker(&f, "127.0.0.1:7001", &id));
    WAIT_UNTIL(&watcher, watcher.healthy_count == 1);
    WAIT_UNTIL(&watcher, watcher.healthy_count == 0);
    CHECK_STATUS(create(&f, "c", 2, ""), STATUS_UNAVAILABLE);
    CHECK_OK(heartbeat(&f, id, NULL, 0, &is_known));
    WAIT_UNTIL(&watcher, watcher.healthy_count == 1);
    cluster_client_destroy(client);
    close_fixture(&f);
}

TEST_MAIN()
