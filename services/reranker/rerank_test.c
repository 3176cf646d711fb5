#include "reranker/rerank.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/client.h"
#include "api/placementdriver.pb-c.h"
#include "base/clock.h"
#include "base/config.h"
#include "net/server.h"
#include "reranker/reranker.h"
#include "server/process.h"
#include "testing/test.h"

// The whole service over the real router, and its membership at a placement driver that this test
// plays.

#define AS(type, message) ((const Vectron__Reranker__V1__##type *)(const void *)(message))

struct fixture {
    struct net *net;
    struct config *config;
    void *service;
    struct channel *channel;
    struct arena *arena;
    struct error error;
    const char *internal; // the proof that calls show; NULL: none
};

static enum status try_start(struct fixture *f, const char *const settings[][2])
{
    static char program[] = "reranker";
    char *const arguments[] = {program, NULL};
    *f = (struct fixture){.arena = arena_create(256 << 20)};
    CHECK_OK(net_create(&(struct net_options){.loop_count = 2}, &f->error, &f->net));
    TRY(config_create(reranker_service.settings, reranker_service.setting_count, 1, arguments,
                      &f->error, &f->config));
    TRY(config_set(f->config, "port", STR("inproc:reranker"), &f->error));
    TRY(config_set(f->config, "pd-addrs", STR("inproc:pd"), &f->error));
    for (size_t i = 0; settings != NULL && settings[i][0] != NULL; i++)
        TRY(config_set(f->config, settings[i][0], str_from_cstr(settings[i][1]), &f->error));
    ready_set_prefix(NULL);
    TRY(reranker_service.start(f->net, f->config, &f->error, &f->service));
    return channel_create(f->net, &(struct channel_options){.address = STR("inproc:reranker")},
                          &f->error, &f->channel);
}

static void start(struct fixture *f, const char *const settings[][2])
{
    if (!CHECK_OK(try_start(f, settings)))
        (void)fprintf(stderr, "reranker: %s\n", f->error.text);
}

static void stop(struct fixture *f)
{
    channel_destroy(f->channel);
    if (f->service != NULL) {
        reranker_service.drain(f->service, NS_PER_SECOND);
        reranker_service.stop(f->service);
    }
    config_destroy(f->config);
    net_destroy(f->net);
    arena_destroy(f->arena);
}

static enum status ask(struct fixture *f, const char *method, const ProtobufCMessage *message,
                       const ProtobufCMessage **out_answer)
{
    struct metadata proof = {STR("vectron-internal"), str_from_cstr(f->internal)};
    f->error.text[0] = '\0';
    return client_call_wait(
        &(struct client_request){
            .channel = f->channel,
            .service = &vectron__reranker__v1__rerank_service__descriptor,
            .method = method,
            .message = message,
            .deadline_ns = clock_monotonic_ns() + 20 * NS_PER_SECOND,
            .metadata = &proof,
            .metadata_count = f->internal != NULL ? 1 : 0,
        },
        f->arena, &f->error, out_answer);
}

static Vectron__Reranker__V1__RerankRequest request_of(struct fixture *f, const char *query,
                                                       const float *scores, size_t count)
{
    Vectron__Reranker__V1__RerankRequest request = VECTRON__RERANKER__V1__RERANK_REQUEST__INIT;
    request.query = arena_cstr(f->arena, str_from_cstr(query));
    request.candidates = arena_alloc(f->arena, (count + 1) * sizeof(*request.candidates));
    for (size_t i = 0; i < count; i++) {
        Vectron__Reranker__V1__Candidate *candidate = arena_alloc(f->arena, sizeof(*candidate));
        vectron__reranker__v1__candidate__init(candidate);
        candidate->id = arena_cstr(f->arena, arena_format(f->arena, "p%zu", i));
        candidate->score = scores[i];
        request.candidates[request.n_candidates++] = candidate;
    }
    return request;
}

static const Vectron__Reranker__V1__RerankResponse *
rerank_all(struct fixture *f, const Vectron__Reranker__V1__RerankRequest *request)
{
    const ProtobufCMessage *answer = NULL;
    return CHECK_OK(ask(f, "Rerank", &request->base, &answer)) ? AS(RerankResponse, answer) : NULL;
}

TEST(the_order_of_the_scores)
{
    struct fixture f;
    start(&f, NULL);
    const float scores[] = {0.5F, 0.9F, -1, 0.9F, 0.7F};
    const char *const wanted[] = {"p1", "p3", "p4", "p0", "p2"};
    Vectron__Reranker__V1__RerankRequest request = request_of(&f, "query", scores, 5);
    const Vectron__Reranker__V1__RerankResponse *said = rerank_all(&f, &request);
    REQUIRE(said != NULL && said->n_results == 5);
    CHECK_CSTR(said->strategy_used, "passthrough");
    CHECK(!said->from_cache && said->latency_ms >= 0 && said->latency_ms < 1000);
    for (size_t i = 0; i < 5; i++) {
        CHECK_CSTR(said->results[i]->id, wanted[i]);
        CHECK(said->results[i]->rerank_score == said->results[i]->original_score);
        CHECK(said->results[i]->explanation[0] != '\0');
        if (i > 0)
            CHECK(said->results[i]->rerank_score <= said->results[i - 1]->rerank_score);
    }
    stop(&f);
}

TEST(without_a_query_the_order_stands)
{
    struct fixture f;
    start(&f, NULL);
    const float scores[] = {1, 3, 2};
    Vectron__Reranker__V1__RerankRequest request = request_of(&f, "", scores, 3);
    const Vectron__Reranker__V1__RerankResponse *said = rerank_all(&f, &request);
    REQUIRE(said != NULL && said->n_results == 3);
    for (size_t i = 0; i < 3; i++)
        CHECK_STR(str_from_cstr(said->results[i]->id), arena_format(f.arena, "p%zu", i));
    stop(&f);
}

TEST(top_n)
{
    struct fixture f;
    start(&f, NULL);
    const float scores[] = {1, 3, 2};
    const struct {
        int32_t top_n;
        size_t count;
    } cases[] = {{0, 3}, {-1, 3}, {INT32_MIN, 3}, {1, 1}, {2, 2}, {3, 3}, {INT32_MAX, 3}};
    Vectron__Reranker__V1__RerankRequest request = request_of(&f, "query", scores, 3);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request.top_n = cases[i].top_n;
        const Vectron__Reranker__V1__RerankResponse *said = rerank_all(&f, &request);
        REQUIRE(said != NULL);
        CHECK_EQ_U64(said->n_results, cases[i].count);
        CHECK_CSTR(said->results[0]->id, "p1");
    }
    request.n_candidates = 0;
    const Vectron__Reranker__V1__RerankResponse *said = rerank_all(&f, &request);
    CHECK(said != NULL && said->n_results == 0);
    stop(&f);
}

TEST(wrong_input)
{
    struct fixture f;
    start(&f, NULL);
    const float wrong[] = {NAN, INFINITY, -INFINITY};
    const ProtobufCMessage *answer = NULL;
    for (size_t i = 0; i < 3; i++) {
        const float scores[] = {1, wrong[i]};
        Vectron__Reranker__V1__RerankRequest request = request_of(&f, "query", scores, 2);
        CHECK_STATUS(ask(&f, "Rerank", &request.base, &answer), STATUS_INVALID);
        CHECK_CSTR(f.error.text, "candidates[1].score is no finite number");
    }
    const float scores[] = {1, 2};
    static char empty[] = "";
    Vectron__Reranker__V1__RerankRequest request = request_of(&f, "query", scores, 2);
    request.candidates[0]->id = empty;
    CHECK_STATUS(ask(&f, "Rerank", &request.base, &answer), STATUS_INVALID);
    CHECK_CSTR(f.error.text, "candidates[0].id is empty");
    stop(&f);
}

TEST(ten_thousand_candidates)
{
    struct fixture f;
    enum { COUNT = 10000 };
    start(&f, NULL);
    float *scores = arena_alloc(f.arena, COUNT * sizeof(float));
    for (size_t i = 0; i < COUNT; i++)
        scores[i] = (float)((i * 7919) % COUNT);
    Vectron__Reranker__V1__RerankRequest request = request_of(&f, "query", scores, COUNT);
    const Vectron__Reranker__V1__RerankResponse *said = rerank_all(&f, &request);
    REQUIRE(said != NULL && said->n_results == COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        if (said->results[i]->rerank_score != (float)(COUNT - 1 - i)) {
            CHECK(said->results[i]->rerank_score == (float)(COUNT - 1 - i));
            break;
        }
    }
    stop(&f);
}

TEST(strategy_and_cache)
{
    struct fixture f;
    start(&f, (const char *const[][2]){{"strategy", "rule"}, {NULL, NULL}});
    const ProtobufCMessage *answer = NULL;
    Vectron__Reranker__V1__GetStrategyRequest strategy =
        VECTRON__RERANKER__V1__GET_STRATEGY_REQUEST__INIT;
    REQUIRE_OK(ask(&f, "GetStrategy", &strategy.base, &answer));
    const Vectron__Reranker__V1__GetStrategyResponse *said = AS(GetStrategyResponse, answer);
    CHECK_CSTR(said->strategy_name, "passthrough");
    CHECK(said->version[0] != '\0');
    REQUIRE(said->n_config == 2);
    CHECK_CSTR(said->config[1]->key, "asked_strategy");
    CHECK_CSTR(said->config[1]->value, "rule");
    Vectron__Reranker__V1__InvalidateCacheRequest invalidate =
        VECTRON__RERANKER__V1__INVALIDATE_CACHE_REQUEST__INIT;
    REQUIRE_OK(ask(&f, "InvalidateCache", &invalidate.base, &answer));
    CHECK_EQ_I64(AS(InvalidateCacheResponse, answer)->entries_cleared, 0);
    stop(&f);
}

TEST(only_for_the_other_services)
{
    struct fixture f;
    const ProtobufCMessage *answer = NULL;
    Vectron__Reranker__V1__GetStrategyRequest request =
        VECTRON__RERANKER__V1__GET_STRATEGY_REQUEST__INIT;
    start(&f, (const char *const[][2]){{"cluster-secret", "between us"}, {NULL, NULL}});
    CHECK_STATUS(ask(&f, "GetStrategy", &request.base, &answer), STATUS_FORBIDDEN);
    f.internal = "nonsense";
    CHECK_STATUS(ask(&f, "GetStrategy", &request.base, &answer), STATUS_FORBIDDEN);
    stop(&f);
}

TEST(wrong_settings)
{
    const char *const wrong[][2] = {{"port", "nonsense"},
                                    {"port", "0.0.0.0:0"},
                                    {"port", ":0"},
                                    {"port", "70000"},
                                    {"pd-addrs", "nonsense"}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct fixture f;
        const char *const settings[][2] = {{wrong[i][0], wrong[i][1]}, {NULL, NULL}};
        CHECK(try_start(&f, settings) != STATUS_OK);
        CHECK_CONTAINS(str_from_cstr(f.error.text), str_from_cstr(wrong[i][0]));
        stop(&f);
    }
}

// --- Membership

struct driver {
    struct rpc_router *router;
    struct server *server;
    atomic_uint registrations;
    atomic_uint heartbeats;
    atomic_bool has_forgotten; // the next heartbeat's sender
    char address[128];
};

static void register_reranker(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const Vectron__Placementdriver__V1__RegisterRerankerRequest *request =
        (const void *)rpc_request(rpc);
    Vectron__Placementdriver__V1__RegisterRerankerResponse response =
        VECTRON__PLACEMENTDRIVER__V1__REGISTER_RERANKER_RESPONSE__INIT;
    static char id[] = "7";
    response.reranker_id = id;
    response.success = true;
    (void)snprintf(driver->address, sizeof(driver->address), "%s", request->grpc_address);
    atomic_fetch_add(&driver->registrations, 1);
    rpc_reply(rpc, &response.base);
}

static void take_heartbeat(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const Vectron__Placementdriver__V1__RerankerHeartbeatRequest *request =
        (const void *)rpc_request(rpc);
    Vectron__Placementdriver__V1__RerankerHeartbeatResponse response =
        VECTRON__PLACEMENTDRIVER__V1__RERANKER_HEARTBEAT_RESPONSE__INIT;
    CHECK_CSTR(request->reranker_id, "7");
    response.ok = !atomic_exchange(&driver->has_forgotten, false);
    atomic_fetch_add(&driver->heartbeats, 1);
    rpc_reply(rpc, &response.base);
}

static const struct rpc_method driver_methods[] = {
    {.name = "RegisterReranker", .handler = register_reranker},
    {.name = "RerankerHeartbeat", .handler = take_heartbeat},
};

static void driver_start(struct driver *driver, struct net *net)
{
    struct error error = {0};
    char bound[128];
    driver->router = rpc_router_create(&(struct rpc_router_options){0});
    rpc_router_add_service(driver->router,
                           &vectron__placementdriver__v1__placement_service__descriptor,
                           driver_methods, 2, driver);
    driver->server = server_create(net);
    CHECK_OK(server_listen(driver->server,
                           &(struct listener_options){.address = STR("inproc:pd"),
                                                      .handler = &rpc_call_handler,
                                                      .context = driver->router,
                                                      .has_grpc = true,
                                                      .message_size_max = 4 << 20},
                           &error, bound));
}

static bool wait_for(const atomic_uint *counter, unsigned least)
{
    uint64_t end_ns = clock_monotonic_ns() + 15 * NS_PER_SECOND;
    struct timespec pause = {.tv_nsec = 5000000};
    while (atomic_load(counter) < least && clock_monotonic_ns() < end_ns)
        (void)nanosleep(&pause, NULL); // a poll with a deadline
    return atomic_load(counter) >= least;
}

TEST(it_becomes_a_member_and_stays_one)
{
    struct fixture f;
    struct driver driver = {0};
    const float scores[] = {1, 2};
    start(&f, NULL);
    // It serves before any placement driver is there.
    Vectron__Reranker__V1__RerankRequest request = request_of(&f, "query", scores, 2);
    CHECK(rerank_all(&f, &request) != NULL);
    driver_start(&driver, f.net);
    CHECK(wait_for(&driver.registrations, 1));
    CHECK(wait_for(&driver.heartbeats, 1));
    CHECK_CSTR(driver.address, "inproc:reranker");
    atomic_store(&driver.has_forgotten, true);
    CHECK(wait_for(&driver.registrations, 2));
    reranker_service.drain(f.service, NS_PER_SECOND);
    reranker_service.stop(f.service);
    f.service = NULL;
    server_destroy(driver.server);
    rpc_router_destroy(driver.router);
    stop(&f);
}

TEST_MAIN()
