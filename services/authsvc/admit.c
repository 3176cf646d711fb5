#include "authsvc/admit.h"

#include "authsvc/work.h"

// The kind of token and its signature are checked here; whether its user still exists is the
// work's business, which reads him anyway.

// An empty secret is nobody's.
static bool is_proved(struct str secret, struct str shown)
{
    return secret.len > 0 && str_equal_in_constant_time(secret, shown);
}

static bool is_gateway(struct rpc *rpc, const struct authsvc *authsvc)
{
    const struct secrets *secrets = &authsvc->secrets;
    struct str shown = call_metadata(rpc_call(rpc), STR("vectron-identity"));
    return is_proved(str_from_cstr(secrets->identity_token), shown) ||
           is_proved(str_from_cstr(secrets->previous_identity_token), shown);
}

// The gateway passes on whom it calls for.
static struct str address_of(struct rpc *rpc, const struct authsvc *authsvc)
{
    struct str passed_on = call_metadata(rpc_call(rpc), STR("vectron-client-address"));
    if (passed_on.len > 0 && is_gateway(rpc, authsvc))
        return passed_on;
    return client_address_of(authsvc->trusted_proxies, rpc_call(rpc));
}

static bool has_login_token(struct rpc *rpc, const struct authsvc *authsvc, struct token *out_token)
{
    struct error error = {0};
    struct str rest = str_trim(call_metadata(rpc_call(rpc), STR("authorization")));
    if (rest.len == 0) {
        rpc_fail(rpc, STATUS_UNAUTHENTICATED, "missing authorization");
        return false;
    }
    struct str scheme = str_cut(&rest, ' ');
    struct str jwt = str_trim(rest);
    if (!str_equal_ignoring_case(scheme, STR("bearer")) || jwt.len == 0 ||
        token_verify(authsvc->authority, jwt, rpc_arena(rpc), &error, out_token) != STATUS_OK) {
        rpc_fail(rpc, STATUS_UNAUTHENTICATED, "invalid or expired token");
        return false;
    }
    if (out_token->kind != TOKEN_LOGIN) {
        rpc_fail(rpc, STATUS_FORBIDDEN,
                 "account and key calls need a login token; this is an SDK token");
        return false;
    }
    return true;
}

static bool has_access(struct rpc *rpc, const struct authsvc *authsvc, enum access access,
                       struct token *out_token)
{
    struct str internal = call_metadata(rpc_call(rpc), STR("vectron-internal"));
    bool is_known = true;
    switch (access) {
    case ACCESS_ANYBODY:
        return true;
    case ACCESS_LOGIN:
        return has_login_token(rpc, authsvc, out_token);
    case ACCESS_IDENTITY:
        is_known = is_gateway(rpc, authsvc);
        break;
    case ACCESS_CLUSTER:
        is_known = is_proved(str_from_cstr(authsvc->secrets.internal_token), internal);
        break;
    }
    if (!is_known)
        rpc_fail(rpc, STATUS_FORBIDDEN,
                 "%.*s is only for the other services: their proof is missing or wrong",
                 STR_ARG(rpc_method_path(rpc)));
    return is_known;
}

static bool is_within_limit(struct rpc *rpc, const struct authsvc *authsvc,
                            const struct operation *operation, struct str address)
{
    uint32_t wait_seconds = 0;
    if (!operation->is_limited ||
        rate_limiter_take(authsvc->limiter, operation->limit, address, &wait_seconds))
        return true;
    rpc_add_header(rpc, STR("retry-after"), arena_format(rpc_arena(rpc), "%u", wait_seconds));
    rpc_fail(rpc, STATUS_EXHAUSTED,
             "%s: the limit of %u calls per minute and address is reached: come back in %u s",
             rpc_method(rpc)->name, rate_limiter_per_minute(authsvc->limiter, operation->limit),
             wait_seconds);
    return false;
}

// The audit log is bounded, so a user who could write into it as fast as he likes could push out
// what stands there. Calls with a limit per address have that.
static bool is_within_audited(struct rpc *rpc, const struct authsvc *authsvc,
                              const struct operation *operation, struct str user_id)
{
    uint32_t wait_seconds = 0;
    if (!operation->is_audited || operation->is_limited || operation->access != ACCESS_LOGIN ||
        rate_limiter_take(authsvc->limiter, LIMITED_AUDITED, user_id, &wait_seconds))
        return true;
    rpc_add_header(rpc, STR("retry-after"), arena_format(rpc_arena(rpc), "%u", wait_seconds));
    rpc_fail(rpc, STATUS_EXHAUSTED,
             "the limit of %u account and key calls per minute and user is reached: come back in "
             "%u s",
             rate_limiter_per_minute(authsvc->limiter, LIMITED_AUDITED), wait_seconds);
    return false;
}

void admit(struct rpc *rpc, void *context)
{
    const struct authsvc *authsvc = context;
    if (rpc_method(rpc) == NULL) { // a page
        rpc_proceed(rpc);
        return;
    }
    const struct operation *operation = work_operation(rpc);
    struct admission *admission = arena_alloc(rpc_arena(rpc), sizeof(*admission));
    if (!has_access(rpc, authsvc, operation->access, &admission->token))
        return;
    admission->address = address_of(rpc, authsvc);
    if (!is_within_limit(rpc, authsvc, operation, admission->address) ||
        !is_within_audited(rpc, authsvc, operation, admission->token.user_id))
        return;
    rpc_set_user(rpc, admission);
    rpc_proceed(rpc);
}
