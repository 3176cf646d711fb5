#include "apigateway/authenticate.h"

#include <string.h>

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "apigateway/concurrency.h"
#include "apigateway/identity_watch.h"
#include "apigateway/rate_limit.h"
#include "base/clock.h"

// Hot path: a token that was seen before costs a look-up, no lock and no allocation but the
// request's own.

enum { LOOKUP_SECONDS_MAX = 5, RECHECK_MEMORY_MAX = 64 << 10 };

struct lookup {
    struct rpc *rpc;
    struct gateway *gateway;
};

static struct str authorization_of(struct rpc *rpc)
{
    return call_metadata(rpc_call(rpc), STR("authorization"));
}

const struct caller *authenticated_caller(const struct rpc *rpc)
{
    return rpc_user(rpc);
}

static enum access access_of(const struct rpc *rpc)
{
    return (enum access)rpc_method(rpc)->tag;
}

// An SDK token does data calls and nothing else.
static const char *refuse_sdk(const struct rpc *rpc)
{
    if (rpc_method(rpc) == NULL)
        return "management calls need a login token of an admin; this is an SDK token";
    if (access_of(rpc) == ACCESS_LOGIN)
        return "account calls need a login token; this is an SDK token";
    return NULL;
}

static const char *needed_role(enum access access)
{
    static const char *const roles[] = {
        [ACCESS_READER] = "reader",
        [ACCESS_WRITER] = "writer",
        [ACCESS_OWNER] = "owner",
    };
    return roles[access];
}

static bool is_permitted(struct rpc *rpc, const struct caller *caller)
{
    if (caller->kind == TOKEN_SDK) {
        const char *refusal = refuse_sdk(rpc);
        if (refusal != NULL) {
            rpc_fail(rpc, STATUS_FORBIDDEN, "%s", refusal);
            return false;
        }
        const char *role = needed_role(access_of(rpc));
        if (!role_includes(caller->role, str_from_cstr(role))) {
            rpc_fail(rpc, STATUS_FORBIDDEN, "this call needs the role %s; the key's role is %.*s",
                     role, STR_ARG(caller->role));
            return false;
        }
        return true;
    }
    if (!rpc_is_http(rpc)) {
        rpc_fail(rpc, STATUS_UNAUTHENTICATED,
                 "a login token opens no gRPC call of the gateway: use an SDK token");
        return false;
    }
    if (rpc_method(rpc) == NULL && !caller->is_admin) {
        rpc_fail(rpc, STATUS_FORBIDDEN, "management calls need the role admin");
        return false;
    }
    return true;
}

static void fail_rate(struct rpc *rpc, double per_second, const char *whose, uint64_t wait_ns)
{
    uint64_t seconds = (wait_ns + NS_PER_SECOND - 1) / NS_PER_SECOND;
    if (seconds == 0)
        seconds = 1;
    rpc_add_header(rpc, STR("retry-after"),
                   arena_format(rpc_arena(rpc), "%llu", (unsigned long long)seconds));
    rpc_fail(rpc, STATUS_EXHAUSTED,
             "rate limit of %g requests per second and %s reached: come back in %llu ms",
             per_second, whose, (unsigned long long)(wait_ns / NS_PER_MS + 1));
}

static bool is_within_rate(struct rpc *rpc, const struct gateway *gateway,
                           const struct caller *caller)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t wait_ns = 0;
    // The key first: what it may not do takes nothing from the user's other keys.
    if (gateway->key_requests != NULL && caller->kind == TOKEN_SDK &&
        !rate_limit_take(gateway->key_requests, caller->key_id, now_ns, &wait_ns)) {
        fail_rate(rpc, gateway->key_rate_limit_rps, "API key", wait_ns);
        return false;
    }
    if (gateway->requests != NULL &&
        !rate_limit_take(gateway->requests, caller->user_id, now_ns, &wait_ns)) {
        fail_rate(rpc, gateway->rate_limit_rps, "user", wait_ns);
        return false;
    }
    return true;
}

static bool is_within_concurrency(struct rpc *rpc, const struct gateway *gateway,
                                  const struct caller *caller)
{
    if (gateway->under_way == NULL || concurrency_take(gateway->under_way, caller->user_id))
        return true;
    rpc_add_header(rpc, STR("retry-after"), STR("1"));
    rpc_fail(rpc, STATUS_EXHAUSTED,
             "limit of %llu requests at once per user reached: come back when one has ended",
             (unsigned long long)gateway->under_way_max);
    return false;
}

static void admit(struct rpc *rpc, struct gateway *gateway, const struct caller *caller)
{
    if (!is_permitted(rpc, caller) || !is_within_rate(rpc, gateway, caller) ||
        !is_within_concurrency(rpc, gateway, caller))
        return;
    struct caller *kept = arena_alloc(rpc_arena(rpc), sizeof(*kept));
    *kept = *caller;
    rpc_set_user(rpc, kept);
    rpc_proceed(rpc);
}

static void refuse(struct rpc *rpc, enum status status, const struct error *error)
{
    rpc_fail(rpc, status, "%s", error->text[0] != '\0' ? error->text : status_text(status));
}

static void looked_up(enum status status, struct str text, const ProtobufCMessage *message,
                      void *context)
{
    (void)text; // what the auth service says of itself is of no use to the caller
    struct lookup *lookup = context;
    struct rpc *rpc = lookup->rpc;
    struct gateway *gateway = lookup->gateway;
    struct error error = {0};
    struct caller caller;
    if (rpc_is_done(rpc)) {
        rpc_unref(rpc);
        return;
    }
    enum status checked =
        directory_check(gateway->directory, authorization_of(rpc), rpc_arena(rpc), &error, &caller);
    // What the watch has brought meanwhile is newer than this answer.
    if (checked == STATUS_UNAVAILABLE && status == STATUS_OK) {
        identity_apply(gateway->directory,
                       (const Vectron__Auth__V1__IdentityChanges *)(const void *)message);
        checked = directory_check(gateway->directory, authorization_of(rpc), rpc_arena(rpc), &error,
                                  &caller);
    }
    if (checked == STATUS_OK)
        admit(rpc, gateway, &caller);
    else if (checked == STATUS_UNAVAILABLE)
        rpc_fail(rpc, STATUS_UNAVAILABLE, "the auth service does not answer: try again");
    else
        refuse(rpc, checked, &error);
    rpc_unref(rpc);
}

// The token is sound but names a key or user of which this gateway has not heard.
static void look_up(struct rpc *rpc, struct gateway *gateway, const struct caller *caller)
{
    struct arena *arena = rpc_arena(rpc);
    struct lookup *lookup = arena_alloc(arena, sizeof(*lookup));
    *lookup = (struct lookup){rpc, gateway};
    Vectron__Auth__V1__LookupIdentityRequest message =
        VECTRON__AUTH__V1__LOOKUP_IDENTITY_REQUEST__INIT;
    message.key_id = arena_cstr(arena, caller->key_id);
    message.user_id = arena_cstr(arena, caller->user_id);
    struct metadata proof = identity_proof(gateway);
    uint64_t latest = clock_monotonic_ns() + LOOKUP_SECONDS_MAX * NS_PER_SECOND;
    uint64_t deadline = gateway_deadline_ns(rpc, LOOKUP_SECONDS_MAX);
    rpc_ref(rpc);
    (void)client_call(&(struct client_request){
        .channel = gateway->auth,
        .service = &vectron__auth__v1__identity_service__descriptor,
        .method = "LookupIdentity",
        .message = &message.base,
        .deadline_ns = deadline < latest ? deadline : latest,
        .waits_for_ready = true,
        .metadata = &proof,
        .metadata_count = 1,
        .context = lookup,
        .done = looked_up,
    });
}

void authenticate(struct rpc *rpc, void *context)
{
    struct gateway *gateway = context;
    struct error error = {0};
    struct caller caller;
    if (rpc_method(rpc) != NULL && access_of(rpc) == ACCESS_FORWARDED) {
        rpc_proceed(rpc);
        return;
    }
    enum status status =
        directory_check(gateway->directory, authorization_of(rpc), rpc_arena(rpc), &error, &caller);
    if (status == STATUS_OK)
        admit(rpc, gateway, &caller);
    else if (status == STATUS_UNAVAILABLE)
        look_up(rpc, gateway, &caller);
    else
        refuse(rpc, status, &error);
}

// Whoever was let in has left a caller behind.
void authentication_ended(const struct rpc *rpc, const struct gateway *gateway)
{
    const struct caller *caller = authenticated_caller(rpc);
    if (caller != NULL && gateway->under_way != NULL)
        concurrency_give(gateway->under_way, caller->user_id);
}

bool authentication_still_holds(struct rpc *rpc, struct gateway *gateway)
{
    struct arena *arena = arena_create(RECHECK_MEMORY_MAX);
    struct error error = {0};
    struct caller caller;
    enum status status =
        directory_check(gateway->directory, authorization_of(rpc), arena, &error, &caller);
    arena_destroy(arena);
    // What is not known any more is asked for again with the next call.
    return status == STATUS_OK || status == STATUS_UNAVAILABLE;
}
