#include "apigateway/forward.h"

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "apigateway/identity_watch.h"
#include "base/limits.h"
#include "server/client_address.h"

enum { FORWARD_METADATA_MAX = 4 };

struct forwarded {
    struct rpc *rpc;
    struct channel_call *call;
    bool has_ended;
};

static void answered(enum status status, struct str text, const ProtobufCMessage *message,
                     void *context)
{
    struct forwarded *forwarded = context;
    struct rpc *rpc = forwarded->rpc;
    forwarded->has_ended = true;
    if (status == STATUS_OK)
        rpc_reply(rpc, message);
    else
        rpc_fail(rpc, status, "%.*s", STR_ARG(text));
    rpc_unref(rpc);
}

static void cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    struct forwarded *forwarded = context;
    if (forwarded->has_ended)
        return;
    forwarded->has_ended = true;
    channel_call_cancel(forwarded->call);
    rpc_unref(forwarded->rpc);
}

static void forward(struct rpc *rpc, void *context)
{
    struct gateway *gateway = context;
    struct call *call = rpc_call(rpc);
    struct metadata metadata[FORWARD_METADATA_MAX];
    uint32_t count = 0;
    struct str authorization = call_metadata(call, STR("authorization"));
    if (authorization.len > 0)
        metadata[count++] = (struct metadata){STR("authorization"), authorization};
    metadata[count++] = (struct metadata){STR("vectron-client-address"),
                                          client_address_of(gateway->trusted_proxies, call)};
    metadata[count++] = identity_proof(gateway);
    metadata[count++] = (struct metadata){STR("x-request-id"), call_request_id(call)};
    struct forwarded *forwarded = arena_alloc(rpc_arena(rpc), sizeof(*forwarded));
    forwarded->rpc = rpc;
    rpc_ref(rpc);
    rpc_on_cancel(rpc, cancelled, forwarded);
    forwarded->call = client_call(&(struct client_request){
        .channel = gateway->auth,
        .service = &vectron__auth__v1__auth_service__descriptor,
        .method = rpc_method(rpc)->name,
        .message = rpc_request(rpc),
        .deadline_ns = gateway_deadline_ns(rpc, DEFAULT_DEADLINE_SECONDS),
        .metadata = metadata,
        .metadata_count = count,
        .context = forwarded,
        .arena = rpc_arena(rpc),
        .done = answered,
    });
}

// The auth service takes no larger ones, and some of these need no token.
#define FORWARD(method)                                                         \
    {                                                                           \
        .name = (method), .handler = forward, .is_http_only = true,             \
        .message_size_max = LIMIT_REQUEST_SIZE_CONTROL, .tag = ACCESS_FORWARDED \
    }

// What has an HTTP binding; the calls between services are not for this port.
const struct rpc_method forwarded_methods[] = {
    FORWARD("RegisterUser"),      FORWARD("Login"),        FORWARD("GetUserProfile"),
    FORWARD("UpdateUserProfile"), FORWARD("DeleteUser"),   FORWARD("ChangePassword"),
    FORWARD("RefreshToken"),      FORWARD("CreateAPIKey"), FORWARD("ListAPIKeys"),
    FORWARD("DeleteAPIKey"),      FORWARD("CreateSDKJWT"), FORWARD("ListAuditEvents"),
};
const uint32_t forwarded_method_count = sizeof(forwarded_methods) / sizeof(forwarded_methods[0]);
