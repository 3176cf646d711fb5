#include "apigateway/pd_call.h"

#include "api/client.h"
#include "api/placementdriver.pb-c.h"
#include "base/clock.h"
#include "base/rng.h"
#include "net/loop.h"

enum { PAUSE_MS_MIN = 10, PAUSE_MS_MAX = 500 };

struct attempt {
    struct pd_request request;
    struct channel *channel;
    struct channel_call *call; // NULL: none in flight
    struct timer retry;
    uint64_t deadline_ns;
    uint64_t retry_until_ns;
    uint32_t count;
    bool has_ended;
};

static void attempt_end(struct attempt *attempt)
{
    attempt->has_ended = true;
    timer_stop(&attempt->retry);
    rpc_unref(attempt->request.rpc);
}

static void cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct attempt *attempt = context;
    if (attempt->has_ended)
        return;
    if (attempt->call != NULL)
        channel_call_cancel(attempt->call);
    attempt_end(attempt);
}

// False: it has been tried long enough.
static bool retry_later(struct attempt *attempt)
{
    uint64_t seed;
    struct rng rng;
    rng_secure(&seed, sizeof(seed));
    rng_init(&rng, seed);
    uint64_t pause_ms = (uint64_t)PAUSE_MS_MIN << (attempt->count < 6 ? attempt->count : 6);
    if (pause_ms > PAUSE_MS_MAX)
        pause_ms = PAUSE_MS_MAX;
    uint64_t pause_ns = (pause_ms / 2 + rng_below(&rng, pause_ms)) * NS_PER_MS;
    if (clock_monotonic_ns() + pause_ns >= attempt->retry_until_ns)
        return false;
    timer_start(&attempt->retry, pause_ns);
    return true;
}

static void answered(enum status status, struct str text, const ProtobufCMessage *message,
                     void *context)
{
    struct attempt *attempt = context;
    struct cluster_client *cluster = attempt->request.gateway->cluster;
    attempt->call = NULL;
    if (status == STATUS_UNAVAILABLE || status == STATUS_NOT_LEADER || status == STATUS_CANCELLED) {
        cluster_client_pd_failed(cluster, attempt->channel);
        if (retry_later(attempt))
            return;
        status = STATUS_UNAVAILABLE;
    }
    attempt->request.done(attempt->request.rpc, status, text, message, attempt->count > 1,
                          attempt->request.context);
    attempt_end(attempt);
}

static void send(struct attempt *attempt)
{
    uint32_t metadata_count = 0;
    const struct pd_request *request = &attempt->request;
    struct cluster_client *cluster = request->gateway->cluster;
    const struct metadata *metadata = cluster_client_metadata(cluster, &metadata_count);
    attempt->count++;
    attempt->channel = cluster_client_pd(cluster);
    attempt->call = client_call(&(struct client_request){
        .channel = attempt->channel,
        .service = &vectron__placementdriver__v1__placement_service__descriptor,
        .method = request->method,
        .message = request->message,
        .deadline_ns = attempt->deadline_ns,
        .metadata = metadata,
        .metadata_count = metadata_count,
        .context = attempt,
        .arena = rpc_arena(request->rpc),
        .done = answered,
    });
}

static void retry_fired(struct timer *timer)
{
    send((struct attempt *)(void *)((char *)timer - offsetof(struct attempt, retry)));
}

void pd_call(const struct pd_request *request)
{
    struct rpc *rpc = request->rpc;
    struct attempt *attempt = arena_alloc(rpc_arena(rpc), sizeof(*attempt));
    uint64_t latest = clock_monotonic_ns() + RETRY_SECONDS_MAX * NS_PER_SECOND;
    attempt->request = *request;
    attempt->deadline_ns = gateway_deadline_ns(rpc, DEFAULT_DEADLINE_SECONDS);
    attempt->retry_until_ns = attempt->deadline_ns < latest ? attempt->deadline_ns : latest;
    timer_init(&attempt->retry, call_loop(rpc_call(rpc)), retry_fired);
    rpc_ref(rpc);
    rpc_on_cancel(rpc, cancelled, attempt);
    send(attempt);
}
