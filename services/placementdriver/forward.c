#include "api/client.h"
#include "base/clock.h"
#include "placementdriver/driver.h"

// Any placement driver may be asked: one that does not lead hands the request to the one that does
// and its answer back, streams included. A request is handed on once: while the lead changes hands
// two drivers may each take the other for the leader.

#define FORWARDED STR("vectron-forwarded")

// While the lead changes hands a request waits for it a little, instead of failing.
enum { WAIT_MS = 3000, LOOK_MS = 50 };

struct forwarded {
    struct driver *driver;
    struct rpc *rpc;
    const ProtobufCServiceDescriptor *service;
    struct timer timer;        // to look again who leads
    uint64_t until_ns;         // monotonic
    struct channel_call *call; // NULL: not begun, or it has ended
    bool was_forwarded;
};

// NULL: a service that is of each node, e.g. for the other members.
static const ProtobufCServiceDescriptor *service_of(struct str path)
{
    static const ProtobufCServiceDescriptor *const services[] = {
        &vectron__placementdriver__v1__placement_service__descriptor,
        &vectron__placementdriver__v1__cluster_service__descriptor,
        &vectron__placementdriver__v1__state_service__descriptor,
    };
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
        if (str_contains(path, str_from_cstr(services[i]->name)))
            return services[i];
    }
    return NULL;
}

static void answered(enum status status, struct str text, const ProtobufCMessage *message,
                     void *context)
{
    struct forwarded *forwarded = context;
    struct rpc *rpc = forwarded->rpc;
    bool is_stream = rpc_method(rpc)->is_stream;
    if (is_stream && message != NULL) {
        if (!rpc_is_done(rpc))
            rpc_send(rpc, message);
        return;
    }
    forwarded->call = NULL;
    if (!rpc_is_done(rpc)) {
        if (status != STATUS_OK)
            rpc_fail(rpc, status, "%.*s", STR_ARG(text));
        else if (is_stream)
            rpc_finish(rpc);
        else
            rpc_reply(rpc, message);
    }
    rpc_unref(rpc);
}

static void cancelled(struct rpc *rpc, void *context)
{
    struct forwarded *forwarded = context;
    if (forwarded->call == NULL && !timer_is_running(&forwarded->timer))
        return;
    timer_stop(&forwarded->timer);
    if (forwarded->call != NULL)
        channel_call_cancel(forwarded->call);
    forwarded->call = NULL;
    rpc_unref(rpc);
}

static void hand_on(struct forwarded *forwarded, struct channel *leader)
{
    struct driver *driver = forwarded->driver;
    struct rpc *rpc = forwarded->rpc;
    const struct metadata metadata[] = {
        {FORWARDED, STR("1")},
        {STR("vectron-internal"), str_from_cstr(driver->secrets.internal_token)},
    };
    forwarded->call = client_call(&(struct client_request){
        .channel = leader,
        .service = forwarded->service,
        .method = rpc_method(rpc)->name,
        .message = rpc_request(rpc),
        .deadline_ns = call_deadline_ns(rpc_call(rpc)),
        .is_stream = rpc_method(rpc)->is_stream,
        .metadata = metadata,
        .metadata_count = driver->secrets.internal_token[0] != '\0' ? 2 : 1,
        .context = forwarded,
        .done = answered,
    });
}

static void look(struct forwarded *forwarded)
{
    struct driver *driver = forwarded->driver;
    struct rpc *rpc = forwarded->rpc;
    struct channel *leader =
        forwarded->was_forwarded ? NULL : replica_leader_channel(driver->replica);
    if (atomic_load_explicit(&driver->leads, memory_order_acquire)) { // it is this one by now
        rpc_method(rpc)->handler(rpc, driver);
        rpc_unref(rpc);
    } else if (leader != NULL) {
        hand_on(forwarded, leader);
    } else if (loop_now_ns(call_loop(rpc_call(rpc))) < forwarded->until_ns) {
        timer_start(&forwarded->timer, LOOK_MS * NS_PER_MS);
    } else {
        rpc_fail(rpc, STATUS_UNAVAILABLE, "no placement driver leads at the moment: try again");
        rpc_unref(rpc);
    }
}

static void look_again(struct timer *timer)
{
    look((struct forwarded *)(void *)((char *)timer - offsetof(struct forwarded, timer)));
}

bool driver_forward(struct rpc *rpc, void *context)
{
    struct driver *driver = context;
    const struct rpc_method *method = rpc_method(rpc);
    const ProtobufCServiceDescriptor *service =
        method == NULL || method->tag == METHOD_OF_EACH ? NULL : service_of(rpc_method_path(rpc));
    if (service == NULL || atomic_load_explicit(&driver->leads, memory_order_acquire))
        return false;
    struct loop *loop = call_loop(rpc_call(rpc));
    struct forwarded *forwarded = arena_alloc(rpc_arena(rpc), sizeof(*forwarded));
    *forwarded = (struct forwarded){
        .driver = driver,
        .rpc = rpc,
        .service = service,
        .until_ns = loop_now_ns(loop) + WAIT_MS * NS_PER_MS,
        .was_forwarded = call_metadata(rpc_call(rpc), FORWARDED).len > 0,
    };
    timer_init(&forwarded->timer, loop, look_again);
    rpc_ref(rpc);
    rpc_on_cancel(rpc, cancelled, forwarded);
    look(forwarded);
    return true;
}
