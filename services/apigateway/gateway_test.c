#include "apigateway/gateway.h"

#include "apigateway/gateway_testing.h"

// The whole gateway between services that are made up (gateway_testing.h).

static enum status create(struct fake_call *call, const char *name)
{
    const ProtobufCMessage *answer = NULL;
    Vectron__V1__CreateCollectionRequest request = VECTRON__V1__CREATE_COLLECTION_REQUEST__INIT;
    request.name = arena_cstr(call->arena, str_from_cstr(name));
    request.dimension = 1;
    request.distance = arena_cstr(call->arena, STR("euclidean"));
    return fake_ask(call, "CreateCollection", &request.base, &answer);
}

static enum status upsert(struct fake_call *call, const char *collection, uint32_t count)
{
    const ProtobufCMessage *answer = NULL;
    Vectron__V1__UpsertRequest request = VECTRON__V1__UPSERT_REQUEST__INIT;
    request.collection = arena_cstr(call->arena, str_from_cstr(collection));
    request.n_points = count;
    request.points = arena_alloc(call->arena, (count + 1) * sizeof(*request.points));
    for (uint32_t i = 0; i < count; i++) {
        Vectron__V1__Point *point = arena_alloc(call->arena, sizeof(*point));
        vectron__v1__point__init(point);
        point->id = arena_cstr(call->arena, arena_format(call->arena, "p%03u", i));
        point->n_vector = 1;
        point->vector = arena_alloc(call->arena, sizeof(float));
        point->vector[0] = (float)i;
        Vectron__V1__Point__PayloadEntry *entry = arena_alloc(call->arena, sizeof(*entry));
        vectron__v1__point__payload_entry__init(entry);
        entry->key = arena_cstr(call->arena, STR("n"));
        entry->value = arena_cstr(call->arena, arena_format(call->arena, "%u", i));
        point->payload = arena_alloc(call->arena, sizeof(*point->payload));
        point->payload[point->n_payload++] = entry;
        request.points[i] = point;
    }
    enum status status = fake_ask(call, "Upsert", &request.base, &answer);
    if (status == STATUS_OK)
        CHECK_EQ_I64(FAKE_AS(Vectron__V1__UpsertResponse, answer)->upserted, count);
    return status;
}

static enum status find(struct fake_call *call, const char *collection, uint32_t top_k,
                        uint32_t timeout_ms, const Vectron__V1__SearchResponse **out_response)
{
    const ProtobufCMessage *answer = NULL;
    float value = 7.2F;
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    request.collection = arena_cstr(call->arena, str_from_cstr(collection));
    request.n_vector = 1;
    request.vector = &value;
    request.top_k = top_k;
    request.timeout_ms = timeout_ms;
    request.include_metadata = true;
    request.include_vectors = true;
    enum status status = fake_ask(call, "Search", &request.base, &answer);
    *out_response = FAKE_AS(Vectron__V1__SearchResponse, answer);
    return status;
}

static enum status get(struct fake_call *call, const char *collection, const char *id)
{
    const ProtobufCMessage *answer = NULL;
    Vectron__V1__GetRequest request = VECTRON__V1__GET_REQUEST__INIT;
    request.collection = arena_cstr(call->arena, str_from_cstr(collection));
    request.id = arena_cstr(call->arena, str_from_cstr(id));
    enum status status = fake_ask(call, "Get", &request.base, &answer);
    if (status == STATUS_OK)
        CHECK_CSTR(FAKE_AS(Vectron__V1__GetResponse, answer)->point->id, id);
    return status;
}

static enum status list(struct fake_call *call)
{
    const ProtobufCMessage *answer = NULL;
    Vectron__V1__ListCollectionsRequest request = VECTRON__V1__LIST_COLLECTIONS_REQUEST__INIT;
    return fake_ask(call, "ListCollections", &request.base, &answer);
}

struct fixture {
    struct fake *fake;
    struct fake_call call;
};

static struct fixture start(const char *rate_limit)
{
    struct fixture fixture = {.fake = fake_start(rate_limit)};
    fixture.call.fake = fixture.fake;
    fixture.call.arena = arena_create(64 << 20);
    fixture.call.key = fixture.fake->owner_key;
    return fixture;
}

static void stop(struct fixture *fixture)
{
    fake_stop(fixture->fake);
    arena_destroy(fixture->call.arena);
}

TEST(the_data_calls)
{
    struct fixture fixture = start("0");
    struct fake_call *call = &fixture.call;
    const Vectron__V1__SearchResponse *found = NULL;
    CHECK_OK(create(call, "c"));
    CHECK_STATUS(create(call, "c"), STATUS_EXISTS);
    CHECK_CSTR(call->error.text, "collection \"c\" already exists");
    CHECK_OK(upsert(call, "c", 0));
    CHECK_OK(upsert(call, "c", 100));
    CHECK_OK(get(call, "c", "p042"));
    CHECK_STATUS(get(call, "c", "p900"), STATUS_NOT_FOUND);
    CHECK_CSTR(call->error.text, "point \"p900\" not found");
    REQUIRE_OK(find(call, "c", 3, 0, &found));
    REQUIRE(found->n_results == 3);
    CHECK_CSTR(found->results[0]->id, "p007");
    CHECK_CSTR(found->results[1]->id, "p008");
    CHECK_CSTR(found->results[2]->id, "p006");
    CHECK_CSTR(found->results[0]->payload[0]->value, "7");
    CHECK(found->results[0]->document->n_fields == 1 && found->results[0]->n_vector == 1);
    CHECK(found->shards_total == FAKE_SHARDS && found->shards_answered == FAKE_SHARDS);
    REQUIRE_OK(find(call, "c", 0, 0, &found));
    CHECK_EQ_U64(found->n_results, 10);
    stop(&fixture);
}

TEST(one_call_for_all_shards_of_a_worker)
{
    struct fixture fixture = start("0");
    const Vectron__V1__SearchResponse *found = NULL;
    CHECK_OK(create(&fixture.call, "c"));
    CHECK_OK(find(&fixture.call, "c", 3, 0, &found));
    for (uint32_t i = 0; i < FAKE_WORKERS; i++)
        CHECK_EQ_U64(atomic_load(&fixture.fake->workers[i].calls), 1);
    stop(&fixture);
}

TEST(a_worker_that_is_not_ready_is_asked_again)
{
    struct fixture fixture = start("0");
    struct fake_call *call = &fixture.call;
    const Vectron__V1__SearchResponse *found = NULL;
    CHECK_OK(create(call, "c"));
    atomic_store(&fixture.fake->workers[0].failures_left, 3);
    CHECK_OK(upsert(call, "c", 100));
    atomic_store(&fixture.fake->workers[1].failures_left, 2);
    REQUIRE_OK(find(call, "c", 100, 0, &found));
    CHECK(found->n_results == 100 && found->shards_answered == FAKE_SHARDS);
    for (uint32_t i = 1; i < 100; i++)
        CHECK(found->results[i - 1]->score <= found->results[i]->score);
    // For ever: UNAVAILABLE within the caller's deadline or the gateway's own, with the reason.
    atomic_store(&fixture.fake->workers[0].failures_left, 1000000);
    atomic_store(&fixture.fake->workers[1].failures_left, 1000000);
    call->timeout_ms = 15000;
    CHECK_STATUS(find(call, "c", 1, 0, &found), STATUS_UNAVAILABLE);
    CHECK_CONTAINS(str_from_cstr(call->error.text), STR("not now"));
    stop(&fixture);
}

TEST(what_does_not_answer_in_time_is_left_out)
{
    struct fixture fixture = start("0");
    struct fake_call *call = &fixture.call;
    const Vectron__V1__SearchResponse *found = NULL;
    CHECK_OK(create(call, "c"));
    CHECK_OK(upsert(call, "c", 100));
    atomic_store(&fixture.fake->workers[1].hangs, true);
    REQUIRE_OK(find(call, "c", 100, 100, &found));
    CHECK_EQ_U64(found->shards_total, FAKE_SHARDS);
    CHECK_EQ_U64(found->shards_answered, FAKE_SHARDS / 2);
    CHECK(found->n_results > 0 && found->n_results < 100);
    // Without a time for partial answers it is the caller's deadline that ends it.
    call->timeout_ms = 200;
    CHECK_STATUS(find(call, "c", 100, 0, &found), STATUS_TIMEOUT);
    for (uint32_t i = 0; i < fixture.fake->workers[1].hung_count; i++)
        rpc_unref(fixture.fake->workers[1].hung[i]);
    stop(&fixture);
}

TEST(collections_that_others_made_are_found)
{
    struct fixture fixture = start("0");
    struct fake *fake = fixture.fake;
    const Vectron__V1__SearchResponse *found = NULL;
    CHECK_OK(create(&fixture.call, "c"));
    pthread_mutex_lock(&fake->lock);
    fake->collections[1] = (struct fake_collection){.first_shard_id = 100, .epoch = 1};
    (void)snprintf(fake->collections[1].name, sizeof(fake->collections[1].name), "%s",
                   FAKE_USER "/other");
    fake->collection_count = 2;
    pthread_mutex_unlock(&fake->lock);
    CHECK_OK(find(&fixture.call, "other", 1, 0, &found));
    // Names that nobody knows do not make the placement driver busy.
    unsigned before = atomic_load(&fake->map_requests);
    for (int i = 0; i < 200; i++)
        CHECK_STATUS(find(&fixture.call, "absent", 1, 0, &found), STATUS_NOT_FOUND);
    CHECK_CSTR(fixture.call.error.text, "collection \"absent\" not found");
    CHECK(atomic_load(&fake->map_requests) - before < 60);
    stop(&fixture);
}

TEST(roles_and_tokens)
{
    struct fixture fixture = start("0");
    struct fake_call *call = &fixture.call;
    const Vectron__V1__SearchResponse *found = NULL;
    CHECK_OK(create(call, "c"));
    call->key = fixture.fake->reader_key;
    CHECK_OK(find(call, "c", 1, 0, &found));
    CHECK_STATUS(upsert(call, "c", 1), STATUS_FORBIDDEN);
    CHECK_CONTAINS(str_from_cstr(call->error.text), STR("role writer"));
    CHECK_STATUS(create(call, "d"), STATUS_FORBIDDEN);
    CHECK_CONTAINS(str_from_cstr(call->error.text), STR("role owner"));
    call->key = NULL;
    CHECK_STATUS(list(call), STATUS_UNAUTHENTICATED);
    CHECK_CSTR(call->error.text, "missing authorization");
    stop(&fixture);
}

TEST(a_key_that_is_not_known_is_looked_up_once)
{
    struct fixture fixture = start("0");
    fixture.call.key = fixture.fake->hidden_key;
    CHECK_OK(list(&fixture.call));
    CHECK_OK(list(&fixture.call));
    CHECK_EQ_U64(atomic_load(&fixture.fake->lookups), 1);
    stop(&fixture);
}

TEST(more_than_the_rate)
{
    struct fixture fixture = start("5");
    int refused = 0;
    for (int i = 0; i < 20; i++) {
        enum status status = list(&fixture.call);
        refused += status == STATUS_EXHAUSTED;
        CHECK(status == STATUS_OK || status == STATUS_EXHAUSTED);
    }
    CHECK(refused > 0);
    CHECK_CONTAINS(str_from_cstr(fixture.call.error.text), STR("rate limit of 5 requests"));
    stop(&fixture);
}

TEST_MAIN()
