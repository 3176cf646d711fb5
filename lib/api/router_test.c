#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "api/health.pb-c.h"
#include "api/message.h"
#include "api/reflection.pb-c.h"
#include "api/rpc.h"
#include "api/vectron.pb-c.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "testing/test.h"

// A router on a real port and in the process, asked by a channel over both and by HTTP/1.1 over a
// socket. The services are the public ones with handlers that show what they were given.

enum { SECONDS_MAX = 20, ANSWER_SIZE_MAX = 1 << 20, GET_SIZE_MAX = 1000 };

#define INTERNAL_TOKEN "the-internal-token"

struct fixture {
    struct net *net;
    struct server *server;
    struct rpc_router *router;
    struct channel *channel; // over TCP
    struct channel *inproc;
    uint16_t port;
    char last_path[128]; // of the request that finished last
    atomic_uint finished_count;
    atomic_int last_status;
};

// --- The services

static void search(struct rpc *rpc, void *context)
{
    (void)context;
    const Vectron__V1__SearchRequest *request = (const void *)rpc_request(rpc);
    Vectron__V1__SearchResponse response = VECTRON__V1__SEARCH_RESPONSE__INIT;
    Vectron__V1__SearchResult result = VECTRON__V1__SEARCH_RESULT__INIT;
    Vectron__V1__SearchResult *results[] = {&result};
    result.id = request->collection;
    result.score = request->n_vector > 0 ? request->vector[0] : 0;
    response.results = results;
    response.n_results = 1;
    response.shards_total = request->top_k;
    response.shards_answered = request->include_metadata ? 1 : 0;
    rpc_reply(rpc, &response.base);
}

static void prepare_search(ProtobufCMessage *message)
{
    ((Vectron__V1__SearchRequest *)(void *)message)->include_metadata = true;
}

static void search_stream(struct rpc *rpc, void *context)
{
    (void)context;
    const Vectron__V1__SearchRequest *request = (const void *)rpc_request(rpc);
    for (uint32_t i = 0; i < request->top_k; i++) {
        Vectron__V1__SearchResponse response = VECTRON__V1__SEARCH_RESPONSE__INIT;
        response.shards_total = i;
        rpc_send(rpc, &response.base);
    }
    rpc_finish(rpc);
}

static void get(struct rpc *rpc, void *context)
{
    (void)context;
    const Vectron__V1__GetRequest *request = (const void *)rpc_request(rpc);
    Vectron__V1__GetResponse response = VECTRON__V1__GET_RESPONSE__INIT;
    Vectron__V1__Point point = VECTRON__V1__POINT__INIT;
    point.id = request->id;
    response.point = &point;
    rpc_reply(rpc, &response.base);
}

// The id says how it fails: "5", or "5:and any text".
static void delete (struct rpc *rpc, void *context)
{
    (void)context;
    const Vectron__V1__DeleteRequest *request = (const void *)rpc_request(rpc);
    uint64_t status = 0;
    struct str rest = str_from_cstr(request->id);
    CHECK(str_to_u64(str_cut(&rest, ':'), &status) && status < STATUS_COUNT);
    rpc_fail(rpc, (enum status)status, "it is \"%s\"", request->id);
}

static void count_work(struct rpc *rpc, void *context)
{
    (void)rpc;
    *(uint32_t *)context += 1;
}

static void work_done(struct rpc *rpc, void *context)
{
    Vectron__V1__UpsertResponse response = VECTRON__V1__UPSERT_RESPONSE__INIT;
    const Vectron__V1__UpsertRequest *request = (const void *)rpc_request(rpc);
    response.upserted = (int32_t)request->n_points * (int32_t) * (uint32_t *)context;
    rpc_reply(rpc, &response.base);
}

static void upsert(struct rpc *rpc, void *context)
{
    (void)context;
    uint32_t *count = arena_alloc(rpc_arena(rpc), sizeof(*count));
    rpc_run_pooled(rpc, count_work, work_done, count);
}

static void list(struct rpc *rpc, void *context)
{
    (void)context;
    Vectron__V1__ListCollectionsResponse response = VECTRON__V1__LIST_COLLECTIONS_RESPONSE__INIT;
    rpc_reply(rpc, &response.base);
}

static void never(struct rpc *rpc, void *context)
{
    (void)rpc;
    (void)context;
}

static void refresh(struct rpc *rpc, void *context)
{
    (void)context;
    Vectron__Auth__V1__RefreshTokenResponse response =
        VECTRON__AUTH__V1__REFRESH_TOKEN_RESPONSE__INIT;
    response.expires_at = INT64_C(9007199254740993);
    rpc_reply(rpc, &response.base);
}

static const struct rpc_method vectron_methods[] = {
    {.name = "Search", .handler = search, .prepare_http = prepare_search},
    {.name = "SearchStream", .handler = search_stream, .is_stream = true},
    {.name = "Get", .handler = get, .message_size_max = GET_SIZE_MAX},
    {.name = "Delete", .handler = delete},
    {.name = "Upsert", .handler = upsert},
    {.name = "ListCollections", .handler = list},
    {.name = "CreateCollection", .handler = never},
};

static const struct rpc_method auth_methods[] = {
    {.name = "RefreshToken", .handler = refresh, .is_http_only = true},
    {.name = "ValidateAPIKey", .handler = never, .is_internal = true},
};

// --- The fixture

static void intercept(struct rpc *rpc, void *context)
{
    (void)context;
    if (call_metadata(rpc_call(rpc), STR("x-refuse")).len > 0)
        rpc_fail(rpc, STATUS_UNAUTHENTICATED, "missing authorization");
    else
        rpc_proceed(rpc);
}

static void finished(const struct rpc *rpc, enum status status, uint64_t elapsed_ns, void *context)
{
    struct fixture *fixture = context;
    (void)elapsed_ns;
    struct str path = rpc_method_path(rpc);
    (void)snprintf(fixture->last_path, sizeof(fixture->last_path), "%.*s", STR_ARG(path));
    atomic_store(&fixture->last_status, (int)status);
    (void)atomic_fetch_add(&fixture->finished_count, 1);
}

static bool listen_on(struct fixture *fixture, struct str address, char out_address[static 128])
{
    return CHECK_OK(server_listen(fixture->server,
                                  &(struct listener_options){
                                      .address = address,
                                      .handler = &rpc_call_handler,
                                      .context = fixture->router,
                                      .has_grpc = true,
                                      .has_http = true,
                                      .message_size_max = 8 << 20,
                                  },
                                  NULL, out_address));
}

static bool set_up_with(struct fixture *fixture, size_t large_bytes_max)
{
    static atomic_uint count;
    char name[64];
    char bound[128];
    memset(fixture, 0, sizeof(*fixture));
    (void)snprintf(name, sizeof(name), "inproc:router-test-%u", atomic_fetch_add(&count, 1));
    if (!CHECK_OK(net_create(&(struct net_options){.loop_count = 1}, NULL, &fixture->net)))
        return false;
    fixture->router = rpc_router_create(&(struct rpc_router_options){
        .intercept = intercept,
        .finished = finished,
        .context = fixture,
        .internal_token = STR(INTERNAL_TOKEN),
        .cors_origins = STR("https://a.example, https://b.example"),
        .large_bytes_max = large_bytes_max,
    });
    rpc_router_add_service(fixture->router, &vectron__v1__vectron_service__descriptor,
                           vectron_methods, sizeof(vectron_methods) / sizeof(vectron_methods[0]),
                           fixture);
    rpc_router_add_service(fixture->router, &vectron__auth__v1__auth_service__descriptor,
                           auth_methods, sizeof(auth_methods) / sizeof(auth_methods[0]), fixture);
    rpc_router_add_routes(fixture->router);
    fixture->server = server_create(fixture->net);
    if (!listen_on(fixture, str_from_cstr(name), bound) ||
        !CHECK_OK(channel_create(fixture->net,
                                 &(struct channel_options){.address = str_from_cstr(name)}, NULL,
                                 &fixture->inproc)) ||
        !listen_on(fixture, STR("127.0.0.1:0"), bound) ||
        !CHECK_OK(channel_create(fixture->net,
                                 &(struct channel_options){.address = str_from_cstr(bound)}, NULL,
                                 &fixture->channel)))
        return false;
    uint64_t port = 0;
    const char *colon = strrchr(bound, ':');
    bool has_port = CHECK(colon != NULL && str_to_u64(str_from_cstr(colon + 1), &port));
    fixture->port = (uint16_t)port;
    return has_port;
}

static bool set_up(struct fixture *fixture)
{
    return set_up_with(fixture, 0);
}

static void tear_down(struct fixture *fixture)
{
    channel_destroy(fixture->channel);
    channel_destroy(fixture->inproc);
    server_destroy(fixture->server);
    net_destroy(fixture->net);
    rpc_router_destroy(fixture->router);
}

// --- Asking

// What came of the last call.
static struct error error;

static enum status ask(struct channel *channel, const ProtobufCServiceDescriptor *service,
                       const char *method, const ProtobufCMessage *request, struct arena *arena,
                       const ProtobufCMessage **out_message)
{
    error = (struct error){0};
    return client_call_wait(
        &(struct client_request){
            .channel = channel,
            .service = service,
            .method = method,
            .message = request,
            .deadline_ns = clock_monotonic_ns() + SECONDS_MAX * NS_PER_SECOND,
        },
        arena, &error, out_message);
}

// The whole answer to one HTTP/1.1 request, in memory of the arena.
static struct str http(const struct fixture *fixture, struct arena *arena, const char *head,
                       const char *body)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(fixture->port)};
    struct buf answer;
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!CHECK(connect(peer, (const struct sockaddr *)&address, sizeof(address)) == 0)) {
        (void)close(peer);
        return STR("");
    }
    struct str request =
        arena_format(arena, "%s\r\nhost: x\r\nconnection: close\r\ncontent-length: %zu\r\n\r\n%s",
                     head, strlen(body), body);
    CHECK(write(peer, request.data, request.len) == (ssize_t)request.len);
    buf_init(&answer, ANSWER_SIZE_MAX);
    for (;;) {
        uint8_t *room = buf_reserve(&answer, 65536);
        ssize_t size = room != NULL ? read(peer, room, 65536) : 0;
        if (size <= 0)
            break;
        buf_commit(&answer, (size_t)size);
    }
    struct str text = arena_str(arena, buf_str(&answer));
    buf_deinit(&answer);
    (void)close(peer);
    return text;
}

// --- gRPC

static void grpc_calls(struct channel *channel, struct arena *arena)
{
    const ProtobufCServiceDescriptor *service = &vectron__v1__vectron_service__descriptor;
    const ProtobufCMessage *message = NULL;
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    float vector[] = {2.5F};
    static char name[] = "fruit";
    request.collection = name;
    request.vector = vector;
    request.n_vector = 1;
    request.top_k = 7;
    CHECK_OK(ask(channel, service, "Search", &request.base, arena, &message));
    REQUIRE(message != NULL);
    const Vectron__V1__SearchResponse *found = (const void *)message;
    CHECK_CSTR(found->results[0]->id, "fruit");
    CHECK(found->results[0]->score == 2.5F);
    CHECK_EQ_U64(found->shards_total, 7);
    CHECK_EQ_U64(found->shards_answered, 0); // prepare_http is for HTTP

    Vectron__V1__DeleteRequest delete_request = VECTRON__V1__DELETE_REQUEST__INIT;
    for (int status = 1; status < STATUS_COUNT; status++) {
        char id[16];
        enum status wanted = status_from_grpc_code(status_grpc_code((enum status)status));
        (void)snprintf(id, sizeof(id), "%d", status);
        delete_request.id = id;
        CHECK_STATUS(ask(channel, service, "Delete", &delete_request.base, arena, &message),
                     wanted);
        CHECK_CONTAINS(str_from_cstr(error.text), str_from_cstr(id));
    }
}

TEST(grpc_over_a_connection_and_in_process)
{
    struct fixture fixture;
    struct arena *arena = arena_create(16 << 20);
    REQUIRE(set_up(&fixture));
    grpc_calls(fixture.channel, arena);
    grpc_calls(fixture.inproc, arena);
    tear_down(&fixture);
    CHECK_EQ_U64(atomic_load(&fixture.finished_count), 2 * STATUS_COUNT);
    arena_destroy(arena);
}

// A header's value must not begin or end with a space; a text that was cut may.
TEST(an_error_may_end_in_a_space)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    const ProtobufCMessage *message = NULL;
    Vectron__V1__DeleteRequest request = VECTRON__V1__DELETE_REQUEST__INIT;
    char id[2 * ERROR_TEXT_SIZE] = "5:";
    memset(id + 2, ' ', sizeof(id) - 3);
    request.id = id;
    REQUIRE(set_up(&fixture));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        CHECK_STATUS(ask(channels[i], &vectron__v1__vectron_service__descriptor, "Delete",
                         &request.base, arena, &message),
                     STATUS_EXISTS);
        CHECK_CONTAINS(str_from_cstr(error.text), STR("it is \"5: "));
    }
    tear_down(&fixture);
    arena_destroy(arena);
}

// So many points of 100 values, 400 bytes each and a little.
static Vectron__V1__UpsertRequest *large_request(struct arena *arena, size_t point_count)
{
    enum { VALUES = 100 };
    Vectron__V1__UpsertRequest *request = arena_alloc(arena, sizeof(*request));
    Vectron__V1__Point *points = arena_alloc(arena, point_count * sizeof(*points));
    Vectron__V1__Point **list_of_points = arena_alloc(arena, point_count * sizeof(void *));
    float *values = arena_alloc(arena, VALUES * sizeof(*values));
    vectron__v1__upsert_request__init(request);
    for (size_t i = 0; i < point_count; i++) {
        vectron__v1__point__init(&points[i]);
        points[i].vector = values;
        points[i].n_vector = VALUES;
        list_of_points[i] = &points[i];
    }
    request->points = list_of_points;
    request->n_points = point_count;
    return request;
}

TEST(a_request_over_a_mebibyte_is_decoded_on_the_pool)
{
    enum { POINTS = 3000 };
    struct fixture fixture;
    struct arena *arena = arena_create(64 << 20);
    const ProtobufCMessage *message = NULL;
    const Vectron__V1__UpsertRequest *request = large_request(arena, POINTS);
    REQUIRE(set_up(&fixture));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(ask(channels[i], &vectron__v1__vectron_service__descriptor, "Upsert",
                     &request->base, arena, &message));
        REQUIRE(message != NULL);
        CHECK_EQ_I64(((const Vectron__V1__UpsertResponse *)(const void *)message)->upserted,
                     POINTS);
    }
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST(large_requests_share_a_budget)
{
    struct fixture fixture;
    struct arena *arena = arena_create(64 << 20);
    const ProtobufCServiceDescriptor *service = &vectron__v1__vectron_service__descriptor;
    const ProtobufCMessage *message = NULL;
    const Vectron__V1__UpsertRequest *fitting = large_request(arena, 3500);
    const Vectron__V1__UpsertRequest *too_large = large_request(arena, 7000);
    REQUIRE(set_up_with(&fixture, 2 << 20));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        // What a request took is given back with it, also when it was refused.
        for (int round = 0; round < 3; round++) {
            CHECK_OK(ask(channels[i], service, "Upsert", &fitting->base, arena, &message));
            CHECK_STATUS(ask(channels[i], service, "Upsert", &too_large->base, arena, &message),
                         STATUS_EXHAUSTED);
            CHECK_CONTAINS(str_from_cstr(error.text), STR("2097152 bytes"));
        }
    }
    tear_down(&fixture);
    arena_destroy(arena);
}

static char *repeat(struct arena *arena, char letter, size_t count)
{
    char *text = arena_alloc(arena, count + 1);
    memset(text, letter, count);
    text[count] = '\0';
    return text;
}

TEST(a_method_may_take_less_than_its_listener)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    const ProtobufCServiceDescriptor *service = &vectron__v1__vectron_service__descriptor;
    const ProtobufCMessage *message = NULL;
    Vectron__V1__GetRequest request = VECTRON__V1__GET_REQUEST__INIT;
    REQUIRE(set_up(&fixture));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        request.id = repeat(arena, 'x', GET_SIZE_MAX - 10);
        CHECK_OK(ask(channels[i], service, "Get", &request.base, arena, &message));
        request.id = repeat(arena, 'x', GET_SIZE_MAX + 1);
        CHECK_STATUS(ask(channels[i], service, "Get", &request.base, arena, &message),
                     STATUS_EXHAUSTED);
        CHECK_CONTAINS(str_from_cstr(error.text),
                       STR("message of 1004 bytes is over the limit of 1000 bytes"));
    }
    tear_down(&fixture);
    arena_destroy(arena);
}

// Health and pages need no token, so they take little.
TEST(what_is_open_to_all_takes_little)
{
    enum { TOO_MUCH = (64 << 10) + 1 };
    struct fixture fixture;
    struct arena *arena = arena_create(4 << 20);
    const ProtobufCMessage *message = NULL;
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    REQUIRE(set_up(&fixture));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        request.service = repeat(arena, 'x', TOO_MUCH - 100);
        CHECK_STATUS(ask(channels[i], &grpc__health__v1__health__descriptor, "Check", &request.base,
                         arena, &message),
                     STATUS_NOT_FOUND);
        request.service = repeat(arena, 'x', TOO_MUCH);
        CHECK_STATUS(ask(channels[i], &grpc__health__v1__health__descriptor, "Check", &request.base,
                         arena, &message),
                     STATUS_EXHAUSTED);
    }
    struct str answer =
        http(&fixture, arena, "GET /docs HTTP/1.1", repeat(arena, 'x', TOO_MUCH - 1));
    CHECK(str_starts_with(answer, STR("HTTP/1.1 200")));
    answer = http(&fixture, arena, "GET /docs HTTP/1.1", repeat(arena, 'x', TOO_MUCH));
    CHECK(str_starts_with(answer, STR("HTTP/1.1 413")));
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST(what_a_port_does_not_serve)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    const ProtobufCMessage *message = NULL;
    REQUIRE(set_up(&fixture));
    const ProtobufCServiceDescriptor *auth = &vectron__auth__v1__auth_service__descriptor;
    Vectron__Auth__V1__LoginRequest login = VECTRON__AUTH__V1__LOGIN_REQUEST__INIT;
    Vectron__Auth__V1__RefreshTokenRequest token = VECTRON__AUTH__V1__REFRESH_TOKEN_REQUEST__INIT;
    Vectron__Auth__V1__ValidateAPIKeyRequest validate =
        VECTRON__AUTH__V1__VALIDATE_APIKEY_REQUEST__INIT;
    CHECK_STATUS(ask(fixture.channel, auth, "Login", &login.base, arena, &message),
                 STATUS_UNIMPLEMENTED);
    CHECK_STATUS(ask(fixture.channel, auth, "RefreshToken", &token.base, arena, &message),
                 STATUS_UNIMPLEMENTED);
    CHECK_STATUS(ask(fixture.channel, auth, "ValidateAPIKey", &validate.base, arena, &message),
                 STATUS_FORBIDDEN);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("internal"));
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST(a_deadline_ends_a_call_that_nobody_answers)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    const ProtobufCMessage *message = NULL;
    Vectron__V1__CreateCollectionRequest request = VECTRON__V1__CREATE_COLLECTION_REQUEST__INIT;
    REQUIRE(set_up(&fixture));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        CHECK_STATUS(client_call_wait(
                         &(struct client_request){
                             .channel = channels[i],
                             .service = &vectron__v1__vectron_service__descriptor,
                             .method = "CreateCollection",
                             .message = &request.base,
                             .deadline_ns = clock_monotonic_ns() + 50 * NS_PER_MS,
                         },
                         arena, &error, &message),
                     STATUS_TIMEOUT);
    }
    tear_down(&fixture);
    CHECK_EQ_U64(atomic_load(&fixture.finished_count), 2);
    arena_destroy(arena);
}

// --- Health

TEST(health_follows_readiness)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    const ProtobufCServiceDescriptor *service = &grpc__health__v1__health__descriptor;
    const ProtobufCMessage *message = NULL;
    static char names[][32] = {"", "vectron.v1.VectronService", "grpc.health.v1.Health"};
    static char unknown[] = "no.Such";
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    REQUIRE(set_up(&fixture));
    for (int is_ready = 0; is_ready < 2; is_ready++) {
        rpc_router_set_ready(fixture.router, is_ready == 1, STR("still asleep"));
        for (size_t i = 0; i < 3; i++) {
            request.service = names[i];
            CHECK_OK(ask(fixture.channel, service, "Check", &request.base, arena, &message));
            REQUIRE(message != NULL);
            CHECK_EQ_U64(
                ((const Grpc__Health__V1__HealthCheckResponse *)(const void *)message)->status,
                is_ready == 1 ? 1 : 2);
        }
    }
    request.service = unknown;
    CHECK_STATUS(ask(fixture.channel, service, "Check", &request.base, arena, &message),
                 STATUS_NOT_FOUND);
    tear_down(&fixture);
    arena_destroy(arena);
}

// --- Streams: called on the loop, watched by the test

struct stream {
    struct task task; // first
    struct fixture *fixture;
    struct channel *channel;
    const ProtobufCServiceDescriptor *service;
    const char *method;
    const ProtobufCMessage *request;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t numbers[64];
    uint32_t count;
    bool has_ended;
    enum status status;
    struct channel_call *call;
};

static void stream_done(enum status status, struct str text, const ProtobufCMessage *message,
                        void *context)
{
    struct stream *stream = context;
    (void)text;
    pthread_mutex_lock(&stream->lock);
    if (message == NULL) {
        stream->has_ended = true;
        stream->status = status;
    } else if (message->descriptor == &vectron__v1__search_response__descriptor) {
        stream->numbers[stream->count++] =
            ((const Vectron__V1__SearchResponse *)(const void *)message)->shards_total;
    } else {
        stream->numbers[stream->count++] =
            ((const Grpc__Health__V1__HealthCheckResponse *)(const void *)message)->status;
    }
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

static void stream_run(struct task *task)
{
    struct stream *stream = (struct stream *)(void *)task;
    stream->call = client_call(&(struct client_request){
        .channel = stream->channel,
        .service = stream->service,
        .method = stream->method,
        .message = stream->request,
        .deadline_ns = UINT64_MAX,
        .is_stream = true,
        .context = stream,
        .done = stream_done,
    });
}

static void stream_open(struct stream *stream)
{
    stream->task.run = stream_run;
    (void)pthread_mutex_init(&stream->lock, NULL);
    (void)pthread_cond_init(&stream->changed, NULL);
    loop_post(net_loop(stream->fixture->net, 0), &stream->task);
}

static void stream_wait(struct stream *stream, uint32_t count, bool has_ended)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += SECONDS_MAX;
    int result = 0;
    pthread_mutex_lock(&stream->lock);
    while (result == 0 && (stream->count < count || stream->has_ended < has_ended))
        result = pthread_cond_timedwait(&stream->changed, &stream->lock, &until);
    CHECK(result == 0);
    pthread_mutex_unlock(&stream->lock);
}

TEST(a_stream_comes_message_by_message)
{
    struct fixture fixture;
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    request.top_k = 5;
    REQUIRE(set_up(&fixture));
    struct channel *const channels[] = {fixture.channel, fixture.inproc};
    for (size_t i = 0; i < 2; i++) {
        struct stream stream = {
            .fixture = &fixture,
            .channel = channels[i],
            .service = &vectron__v1__vectron_service__descriptor,
            .method = "SearchStream",
            .request = &request.base,
        };
        stream_open(&stream);
        stream_wait(&stream, 5, true);
        CHECK(stream.status == STATUS_OK && stream.count == 5);
        for (uint32_t k = 0; k < stream.count; k++)
            CHECK_EQ_U64(stream.numbers[k], k);
    }
    tear_down(&fixture);
}

TEST(watchers_of_health_hear_of_changes)
{
    struct fixture fixture;
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    REQUIRE(set_up(&fixture));
    struct stream stream = {
        .fixture = &fixture,
        .channel = fixture.channel,
        .service = &grpc__health__v1__health__descriptor,
        .method = "Watch",
        .request = &request.base,
    };
    stream_open(&stream);
    stream_wait(&stream, 1, false);
    rpc_router_set_ready(fixture.router, true, STR(""));
    stream_wait(&stream, 2, false);
    rpc_router_set_ready(fixture.router, false, STR("going"));
    stream_wait(&stream, 3, false);
    CHECK(stream.numbers[0] == 2 && stream.numbers[1] == 1 && stream.numbers[2] == 2);
    struct stream unknown = stream;
    static char name[] = "no.Such";
    request.service = name;
    unknown.count = 0;
    stream_open(&unknown);
    stream_wait(&unknown, 1, false);
    CHECK(unknown.numbers[0] == 3);
    // A drain lets them go at once.
    uint64_t started_ns = clock_monotonic_ns();
    rpc_router_drain(fixture.router);
    server_drain(fixture.server, SECONDS_MAX * NS_PER_SECOND);
    CHECK(clock_monotonic_ns() - started_ns < 5 * NS_PER_SECOND);
    stream_wait(&stream, 3, true);
    stream_wait(&unknown, 1, true);
    CHECK(stream.status == STATUS_UNAVAILABLE);
    tear_down(&fixture);
}

// --- HTTP

TEST(http_finds_methods_by_verb_and_path)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    REQUIRE(set_up(&fixture));
    struct str answer =
        http(&fixture, arena, "POST /v1/collections/fru%69t/points/search?top_k=4 HTTP/1.1",
             "{\"vector\":[1.5],\"collection\":\"other\"}");
    CHECK(str_starts_with(answer, STR("HTTP/1.1 200")));
    CHECK_CONTAINS(answer, STR("content-type: application/json"));
    CHECK_CONTAINS(answer, STR("\"id\":\"fruit\",\"score\":1.5"));
    CHECK_CONTAINS(answer, STR("\"shardsTotal\":4,\"shardsAnswered\":1"));
    // "search" is a point's id for the other verbs; %2F stays inside of its segment.
    answer = http(&fixture, arena, "GET /v1/collections/c/points/search HTTP/1.1", "");
    CHECK_CONTAINS(answer, STR("\"id\":\"search\""));
    answer = http(&fixture, arena, "GET /v1/collections/c/points/a%2Fb HTTP/1.1", "");
    CHECK_CONTAINS(answer, STR("\"id\":\"a/b\""));
    answer = http(&fixture, arena, "POST /v1/auth/refresh HTTP/1.1", "");
    CHECK_CONTAINS(answer, STR("\"expiresAt\":\"9007199254740993\""));
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST(http_says_what_is_wrong)
{
    static const struct {
        const char *head;
        const char *body;
        const char *code;
        const char *text;
    } cases[] = {
        {"GET /v1/nothing HTTP/1.1", "", "404", "\"code\":5"},
        {"GET /v1/collections/ HTTP/1.1", "", "404", "not found"},
        {"PATCH /v1/collections HTTP/1.1", "", "405", "allow: POST, GET"},
        {"GET /v1/collections/c/points/%zz HTTP/1.1", "", "400", "hexadecimal"},
        {"GET /v1/collections/c/points/a%00 HTTP/1.1", "", "400", "NUL"},
        {"GET /v1/collections?nonsense=1 HTTP/1.1", "", "400", "nonsense"},
        {"POST /v1/collections/c/points/search HTTP/1.1", "{", "400", "\"code\":3"},
        {"POST /v1/collections/c/points/search HTTP/1.1", "{\"vektor\":[1]}", "400", "vektor"},
        {"POST /v1/collections/c/points/search HTTP/1.1", "{\"vector\":\"x\"}", "400", "vector"},
        {"GET /v1/collections HTTP/1.1\r\nx-refuse: 1", "", "401", "www-authenticate: Bearer"},
    };
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    REQUIRE(set_up(&fixture));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str answer = http(&fixture, arena, cases[i].head, cases[i].body);
        CHECK_CONTAINS(answer, str_from_cstr(cases[i].code));
        CHECK_CONTAINS(answer, str_from_cstr(cases[i].text));
    }
    for (int status = 1; status < STATUS_COUNT; status++) {
        char head[96];
        char line[32];
        (void)snprintf(head, sizeof(head), "DELETE /v1/collections/c/points/%d HTTP/1.1", status);
        (void)snprintf(line, sizeof(line), "HTTP/1.1 %d", status_http_code((enum status)status));
        struct str answer = http(&fixture, arena, head, "");
        CHECK(str_starts_with(answer, str_from_cstr(line)));
        CHECK_CONTAINS(answer, STR("\"details\":[]"));
        if (status == STATUS_EXHAUSTED || status == STATUS_UNAVAILABLE)
            CHECK_CONTAINS(answer, STR("retry-after: 1"));
    }
    tear_down(&fixture);
    arena_destroy(arena);
}

// Where a text is cut may be inside of a character.
TEST(an_error_that_is_cut_stays_text)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    REQUIRE(set_up(&fixture));
    for (size_t shift = 0; shift < 4; shift++) {
        struct buf head;
        buf_init(&head, 1 << 16);
        buf_append_cstr(&head, "DELETE /v1/collections/c/points/5:");
        for (size_t i = 0; i < shift; i++)
            buf_append_byte(&head, 'x');
        for (size_t i = 0; i < ERROR_TEXT_SIZE / 4; i++)
            buf_append_cstr(&head, "%F0%9F%98%80");
        buf_append_cstr(&head, " HTTP/1.1");
        struct str answer = http(&fixture, arena, arena_cstr(arena, buf_str(&head)), "");
        CHECK(str_starts_with(answer, STR("HTTP/1.1 409")));
        CHECK_CONTAINS(answer, STR("\xF0\x9F\x98\x80\""));
        CHECK(str_is_utf8(answer));
        buf_deinit(&head);
    }
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST(other_origins_only_as_configured)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    REQUIRE(set_up(&fixture));
    struct str answer =
        http(&fixture, arena, "OPTIONS /v1/collections HTTP/1.1\r\norigin: https://b.example", "");
    CHECK(str_starts_with(answer, STR("HTTP/1.1 204")));
    CHECK_CONTAINS(answer, STR("access-control-allow-origin: https://b.example"));
    CHECK_CONTAINS(answer, STR("access-control-allow-methods: POST, GET, OPTIONS"));
    CHECK_CONTAINS(answer, STR("vary: origin"));
    answer =
        http(&fixture, arena, "GET /v1/collections HTTP/1.1\r\norigin: https://b.example.evil", "");
    CHECK(str_starts_with(answer, STR("HTTP/1.1 200")));
    CHECK(!str_contains(answer, STR("access-control-allow-origin")));
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST(the_interface_describes_itself)
{
    struct fixture fixture;
    struct arena *arena = arena_create(1 << 20);
    REQUIRE(set_up(&fixture));
    struct str answer = http(&fixture, arena, "GET /openapi.json HTTP/1.1", "");
    CHECK_CONTAINS(answer, STR("\"/v1/collections/{collection}/points/search\":{\"post\""));
    CHECK_CONTAINS(answer, STR("\"#/components/schemas/vectron.v1.SearchRequest\""));
    answer = http(&fixture, arena, "GET /docs HTTP/1.1", "");
    CHECK_CONTAINS(answer, STR("/v1/collections/{collection}/points/search"));
    answer = http(&fixture, arena, "HEAD /docs HTTP/1.1", "");
    CHECK(str_starts_with(answer, STR("HTTP/1.1 200")) && !str_contains(answer, STR("<html")));
    tear_down(&fixture);
    arena_destroy(arena);
}

TEST_MAIN()
