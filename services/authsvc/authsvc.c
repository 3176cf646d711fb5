#include "authsvc/authsvc.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "authsvc/admin.h"
#include "authsvc/admit.h"
#include "authsvc/audit_events.h"
#include "authsvc/departures.h"
#include "authsvc/identity.h"
#include "authsvc/identity_feed.h"
#include "authsvc/keys.h"
#include "authsvc/pd_store.h"
#include "authsvc/sdk_tokens.h"
#include "authsvc/users.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "identity/account_store_sqlite.h"
#include "identity/password.h"
#include "net/address.h"
#include "net/server.h"
#include "net/tls.h"
#include "server/pages.h"

// The auth service: settings, the listeners and what hangs on them, start and end.

enum {
    RECORD_THREADS = 4, // they wait for the store
    RECORD_QUEUE_MAX = 1024,
    PASSWORD_THREADS = 2, // each takes a processor and 19 MiB
    PATH_SIZE = 4096,
};

static const struct setting settings[] = {
    {"grpc-port", "GRPC_PORT", SETTING_STR, false, "localhost:8083", "where gRPC is served"},
    {"http-port", "HTTP_PORT", SETTING_STR, false, "localhost:8082", "where HTTP/JSON is served"},
    {"inproc-addr", NULL, SETTING_STR, false, "",
     "a second address for gRPC, for services of the same process (inproc:NAME)"},
    {"pd-addrs", "PD_ADDRS", SETTING_STR, false, "",
     "the placement drivers, a comma list: accounts are kept there; empty: in data-dir"},
    {"data-dir", "VECTRON_AUTH_DATA_DIR", SETTING_STR, false, "./auth-data",
     "where accounts are kept without pd-addrs"},
    {"audit-dir", "VECTRON_AUDIT_DIR", SETTING_STR, false, "",
     "where the audit log is kept; empty: the folder audit in data-dir"},
    {"trusted-proxies", "TRUSTED_PROXIES", SETTING_STR, false, "",
     "a comma list of CIDR ranges whose X-Forwarded-For is believed"},
    {"plan-changes", "VECTRON_PLAN_CHANGES", SETTING_STR, false, "self",
     "who may change a user's plan: self, or admin"},
    {"admin-email", "VECTRON_ADMIN_EMAIL", SETTING_STR, false, "",
     "the account with this e-mail is made an admin at start"},
    {"admin-password", "VECTRON_ADMIN_PASSWORD", SETTING_STR, true, "",
     "its password, when it has to be made or was no admin"},
    {"admin-password-file", "VECTRON_ADMIN_PASSWORD_FILE", SETTING_STR, false, "",
     "a file that holds that password"},
    {"cors-allowed-origins", "CORS_ALLOWED_ORIGINS", SETTING_STR, false, "",
     "a comma list of origins, or *; empty: same origin only"},
    {"grpc-tls-cert-file", "GRPC_TLS_CERT_FILE", SETTING_STR, false, "",
     "PEM certificate chain of the gRPC port"},
    {"grpc-tls-key-file", "GRPC_TLS_KEY_FILE", SETTING_STR, false, "", "its key, PEM"},
    {"http-tls-cert-file", "HTTP_TLS_CERT_FILE", SETTING_STR, false, "",
     "PEM certificate chain of the HTTP port"},
    {"http-tls-key-file", "HTTP_TLS_KEY_FILE", SETTING_STR, false, "", "its key, PEM"},
    SECRET_SETTINGS,
    TOKEN_KEY_SETTINGS,
    CLUSTER_SETTINGS,
};

// --- Operations

enum operation_index {
    REGISTER_USER,
    LOGIN,
    GET_USER_PROFILE,
    UPDATE_USER_PROFILE,
    DELETE_USER,
    CHANGE_PASSWORD,
    REFRESH_TOKEN,
    CREATE_API_KEY,
    LIST_API_KEYS,
    DELETE_API_KEY,
    CREATE_SDK_JWT,
    LIST_AUDIT_EVENTS,
    VALIDATE_API_KEY,
    GET_AUTH_DETAILS,
    WATCH_IDENTITY,
    LOOKUP_IDENTITY,
    REPORT_KEY_USE,
    MAKE_ADMIN,
};

// clang-format off
static const struct operation operations[] = {
    [REGISTER_USER] = {users_register, ACCESS_ANYBODY, LANE_PASSWORDS, LIMITED_REGISTER, true,
                       true},
    [LOGIN] = {users_login, ACCESS_ANYBODY, LANE_PASSWORDS, LIMITED_LOGIN, true, true},
    [GET_USER_PROFILE] = {.run = users_get_profile, .access = ACCESS_LOGIN},
    [UPDATE_USER_PROFILE] = {.run = users_update_profile, .access = ACCESS_LOGIN,
                             .is_audited = true},
    [DELETE_USER] = {.run = users_delete, .access = ACCESS_LOGIN, .lane = LANE_PASSWORDS,
                     .is_audited = true},
    [CHANGE_PASSWORD] = {.run = users_change_password, .access = ACCESS_LOGIN,
                         .lane = LANE_PASSWORDS, .is_audited = true},
    [REFRESH_TOKEN] = {.run = users_refresh_token, .access = ACCESS_LOGIN, .is_audited = true},
    [CREATE_API_KEY] = {keys_create, ACCESS_LOGIN, LANE_RECORDS, LIMITED_CREATE_KEY, true, true},
    [LIST_API_KEYS] = {.run = keys_list, .access = ACCESS_LOGIN},
    [DELETE_API_KEY] = {.run = keys_delete, .access = ACCESS_LOGIN, .is_audited = true},
    [CREATE_SDK_JWT] = {sdk_tokens_create, ACCESS_LOGIN, LANE_RECORDS, LIMITED_CREATE_TOKEN, true,
                        true},
    [LIST_AUDIT_EVENTS] = {.run = audit_events_list, .access = ACCESS_LOGIN, .is_audited = true},
    [VALIDATE_API_KEY] = {.run = keys_validate, .access = ACCESS_CLUSTER},
    [GET_AUTH_DETAILS] = {.run = keys_get_details, .access = ACCESS_CLUSTER},
    [WATCH_IDENTITY] = {.access = ACCESS_IDENTITY}, // has a handler of its own
    [LOOKUP_IDENTITY] = {.run = identity_lookup, .access = ACCESS_IDENTITY},
    [REPORT_KEY_USE] = {.run = identity_report_use, .access = ACCESS_IDENTITY},
    [MAKE_ADMIN] = {.run = admin_make, .access = ACCESS_IDENTITY, .lane = LANE_PASSWORDS,
                    .is_audited = true},
};
// clang-format on

static const uint32_t calls_per_minute[LIMITED_CALL_COUNT] = {
    [LIMITED_LOGIN] = 5,         [LIMITED_REGISTER] = 3,  [LIMITED_CREATE_KEY] = 10,
    [LIMITED_CREATE_TOKEN] = 10, [LIMITED_AUDITED] = 300,
};

const struct operation *work_operation(const struct rpc *rpc)
{
    return &operations[rpc_method(rpc)->tag];
}

// The last two are for other services, which speak gRPC.
static const struct rpc_method auth_methods[] = {
    {.name = "RegisterUser", .handler = work_start, .tag = REGISTER_USER},
    {.name = "Login", .handler = work_start, .tag = LOGIN},
    {.name = "GetUserProfile", .handler = work_start, .tag = GET_USER_PROFILE},
    {.name = "UpdateUserProfile", .handler = work_start, .tag = UPDATE_USER_PROFILE},
    {.name = "DeleteUser", .handler = work_start, .tag = DELETE_USER},
    {.name = "ChangePassword", .handler = work_start, .tag = CHANGE_PASSWORD},
    {.name = "RefreshToken", .handler = work_start, .tag = REFRESH_TOKEN},
    {.name = "CreateAPIKey", .handler = work_start, .tag = CREATE_API_KEY},
    {.name = "ListAPIKeys", .handler = work_start, .tag = LIST_API_KEYS},
    {.name = "DeleteAPIKey", .handler = work_start, .tag = DELETE_API_KEY},
    {.name = "CreateSDKJWT", .handler = work_start, .tag = CREATE_SDK_JWT},
    {.name = "ListAuditEvents", .handler = work_start, .tag = LIST_AUDIT_EVENTS},
    {.name = "ValidateAPIKey", .handler = work_start, .tag = VALIDATE_API_KEY},
    {.name = "GetAuthDetailsForSDK", .handler = work_start, .tag = GET_AUTH_DETAILS},
};
enum { INTERNAL_AUTH_METHODS = 2 };

static const struct rpc_method identity_methods[] = {
    {.name = "WatchIdentity",
     .handler = identity_feed_watch,
     .is_stream = true,
     .tag = WATCH_IDENTITY},
    {.name = "LookupIdentity", .handler = work_start, .tag = LOOKUP_IDENTITY},
    {.name = "ReportKeyUse", .handler = work_start, .tag = REPORT_KEY_USE},
    {.name = "MakeAdmin", .handler = work_start, .tag = MAKE_ADMIN},
};

// --- What is under way

void authsvc_begin(struct authsvc *authsvc)
{
    pthread_mutex_lock(&authsvc->mutex);
    authsvc->busy_count++;
    pthread_mutex_unlock(&authsvc->mutex);
}

void authsvc_end(struct authsvc *authsvc)
{
    pthread_mutex_lock(&authsvc->mutex);
    if (--authsvc->busy_count == 0)
        pthread_cond_broadcast(&authsvc->changed);
    pthread_mutex_unlock(&authsvc->mutex);
}

static void wait_until_idle(struct authsvc *authsvc)
{
    pthread_mutex_lock(&authsvc->mutex);
    while (authsvc->busy_count > 0)
        pthread_cond_wait(&authsvc->changed, &authsvc->mutex);
    pthread_mutex_unlock(&authsvc->mutex);
}

void authsvc_set_prepared(struct authsvc *authsvc)
{
    pthread_mutex_lock(&authsvc->mutex);
    authsvc->is_prepared = true;
    pthread_cond_broadcast(&authsvc->changed);
    pthread_mutex_unlock(&authsvc->mutex);
}

enum status authsvc_wait_prepared(struct authsvc *authsvc, uint64_t deadline_ns,
                                  struct error *error)
{
    struct timespec end = {
        .tv_sec = (time_t)(deadline_ns / NS_PER_SECOND),
        .tv_nsec = (long)(deadline_ns % NS_PER_SECOND),
    };
    int result = 0;
    pthread_mutex_lock(&authsvc->mutex);
    while (!authsvc->is_prepared && !authsvc->is_stopping && result == 0)
        result = pthread_cond_timedwait(&authsvc->changed, &authsvc->mutex, &end);
    bool is_prepared = authsvc->is_prepared;
    pthread_mutex_unlock(&authsvc->mutex);
    return is_prepared ? STATUS_OK
                       : error_set(error, STATUS_UNAVAILABLE, "the accounts are not there yet");
}

// Whoever waits for the store or for its being there gives up.
static void interrupt(struct authsvc *authsvc)
{
    pthread_mutex_lock(&authsvc->mutex);
    authsvc->is_stopping = true;
    pthread_cond_broadcast(&authsvc->changed);
    pthread_mutex_unlock(&authsvc->mutex);
    if (authsvc->cluster != NULL && authsvc->store != NULL)
        pd_store_interrupt(authsvc->store);
}

// --- Start

static enum status start_tls(const struct config *config, const char *cert_name,
                             const char *key_name, struct error *error, struct tls **out_tls)
{
    struct tls_options options = {
        .cert_file = config_str(config, cert_name),
        .key_file = config_str(config, key_name),
    };
    if (options.cert_file.len == 0 && options.key_file.len == 0)
        return STATUS_OK;
    if (options.cert_file.len == 0 || options.key_file.len == 0)
        return error_set(error, STATUS_INVALID, "%s and %s are set together or not at all",
                         cert_name, key_name);
    return tls_server_create(&options, error, out_tls);
}

static enum status read_plan_changes(struct authsvc *authsvc, const struct config *config,
                                     struct error *error)
{
    struct str text = config_str(config, "plan-changes");
    if (!str_equal_cstr(text, "self") && !str_equal_cstr(text, "admin"))
        return error_set(error, STATUS_INVALID, "plan-changes: \"%.*s\" is neither self nor admin",
                         STR_ARG(text));
    authsvc->users_choose_plan = str_equal_cstr(text, "self");
    return STATUS_OK;
}

static void committed(void *context)
{
    struct authsvc *authsvc = context;
    identity_feed_wake(authsvc->feed);
}

// Nobody but this process reaches a placement driver that is a part of it.
static bool is_in_process(struct str pd_addresses)
{
    return str_starts_with(str_trim(pd_addresses), STR("inproc:"));
}

static enum status start_store(struct authsvc *authsvc, const struct config *config,
                               struct error *error)
{
    struct str pd_addresses = config_str(config, "pd-addrs");
    struct str folder = config_str(config, "data-dir");
    if (pd_addresses.len == 0)
        return account_store_sqlite_create(folder, error, &authsvc->store);
    if (config_is_set(config, "data-dir"))
        log_warn("pd-addrs and data-dir are both set: accounts are kept at the placement driver",
                 LOG_STR("pd-addrs", pd_addresses));
    enum status status = cluster_client_create(
        &(struct cluster_client_options){
            .net = authsvc->net,
            .pd_addresses = pd_addresses,
            .internal_token = str_from_cstr(authsvc->secrets.internal_token),
            .has_no_watch = true,
        },
        error, &authsvc->cluster);
    if (status != STATUS_OK)
        return error_prefix(error, status, "pd-addrs");
    authsvc->store = pd_store_create(authsvc->cluster);
    authsvc->is_shared = !is_in_process(pd_addresses);
    return STATUS_OK;
}

// The public keys that tokens are checked with here.
static void answer_keys(struct rpc *rpc, void *context)
{
    struct str keys = token_authority_print_keys(context, rpc_arena(rpc));
    call_reply(rpc_call(rpc), 200, STR("application/jwk-set+json"), str_span(keys));
}

static void start_routers(struct authsvc *authsvc, const struct config *config)
{
    struct rpc_router_options options = {
        .intercept = admit,
        .context = authsvc,
        .cors_origins = config_str(config, "cors-allowed-origins"),
    };
    uint32_t count = sizeof(auth_methods) / sizeof(auth_methods[0]);
    struct str reason = STR("the store of the accounts has not answered yet");
    authsvc->grpc_router = rpc_router_create(&options);
    rpc_router_add_service(authsvc->grpc_router, &vectron__auth__v1__auth_service__descriptor,
                           auth_methods, count, authsvc);
    rpc_router_add_service(authsvc->grpc_router, &vectron__auth__v1__identity_service__descriptor,
                           identity_methods, sizeof(identity_methods) / sizeof(identity_methods[0]),
                           authsvc);
    pages_add(authsvc->grpc_router);
    rpc_router_set_ready(authsvc->grpc_router, false, reason);

    authsvc->http_router = rpc_router_create(&options);
    rpc_router_add_service(authsvc->http_router, &vectron__auth__v1__auth_service__descriptor,
                           auth_methods, count - INTERNAL_AUTH_METHODS, authsvc);
    rpc_router_add_routes(authsvc->http_router);
    pages_add(authsvc->http_router);
    rpc_router_add_page(authsvc->http_router, "GET", "/.well-known/jwks.json", true, answer_keys,
                        authsvc->authority);
    rpc_router_set_ready(authsvc->http_router, false, reason);
}

static void warn_when_open(struct str text, const struct tls *tls)
{
    struct address address;
    if (tls == NULL && address_parse(text, NULL, &address) == STATUS_OK &&
        !address_is_local(&address))
        log_warn("listening without TLS: passwords and tokens can be read on the way",
                 LOG_STR("address", text));
}

static enum status listen_on(struct authsvc *authsvc, struct str address,
                             struct listener_options options, struct error *error,
                             char out_address[static 128])
{
    options.address = address;
    options.handler = &rpc_call_handler;
    options.is_public = true;
    options.message_size_max = LIMIT_REQUEST_SIZE_CONTROL;
    TRY(server_listen(authsvc->server, &options, error, out_address));
    warn_when_open(address, options.tls);
    ready_add(options.has_grpc ? "grpc" : "http", out_address);
    return STATUS_OK;
}

// For services of the same process; without TLS, because nothing goes over a wire.
static enum status listen_in_process(struct authsvc *authsvc, struct str address,
                                     struct listener_options options, struct error *error)
{
    char bound[128];
    if (address.len == 0)
        return STATUS_OK;
    if (!str_starts_with(address, STR("inproc:")))
        return error_set(error, STATUS_INVALID, "\"%.*s\" is not inproc:NAME", STR_ARG(address));
    options.tls = NULL;
    return listen_on(authsvc, address, options, error, bound);
}

static enum status start_listeners(struct authsvc *authsvc, const struct config *config,
                                   struct error *error)
{
    struct listener_options grpc = {
        .context = authsvc->grpc_router,
        .tls = authsvc->grpc_tls,
        .has_grpc = true,
        .has_http = true, // health and metrics
    };
    struct listener_options http = {
        .context = authsvc->http_router,
        .tls = authsvc->http_tls,
        .has_http = true,
    };
    authsvc->server = server_create(authsvc->net);
    enum status status =
        listen_on(authsvc, config_str(config, "grpc-port"), grpc, error, authsvc->grpc_address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "grpc-port");
    status =
        listen_on(authsvc, config_str(config, "http-port"), http, error, authsvc->http_address);
    if (status != STATUS_OK)
        return error_prefix(error, status, "http-port");
    status = listen_in_process(authsvc, config_str(config, "inproc-addr"), grpc, error);
    return status == STATUS_OK ? status : error_prefix(error, status, "inproc-addr");
}

static enum status start_authority(struct authsvc *authsvc, struct error *error)
{
    return token_authority_create(
        &(struct token_authority_options){
            .secret = str_from_cstr(authsvc->secrets.jwt),
            .previous_secret = str_from_cstr(authsvc->secrets.previous_jwt),
            .keys = authsvc->token_keys.keys,
            .key_count = authsvc->token_keys.count,
        },
        error, &authsvc->authority);
}

static enum status start_audit(struct authsvc *authsvc, const struct config *config,
                               struct error *error)
{
    char folder[PATH_SIZE];
    struct str given = config_str(config, "audit-dir");
    if (given.len == 0) {
        (void)snprintf(folder, sizeof(folder), "%s/audit", config_str(config, "data-dir").data);
        given = str_from_cstr(folder);
    }
    TRY(audit_open(given, error, &authsvc->audit));
    return audit_add(authsvc->audit,
                     &(struct audit_event){.what = STR("Start"), .result = STR("OK")}, error);
}

static enum status start_parts(struct authsvc *authsvc, const struct config *config,
                               struct error *error)
{
    TRY(secrets_load(config, error, &authsvc->secrets));
    TRY(token_keys_load(config, true, error, &authsvc->token_keys));
    TRY(start_authority(authsvc, error));
    TRY(password_init(error));
    TRY(proxy_list_create(config_str(config, "trusted-proxies"), error, &authsvc->trusted_proxies));
    TRY(read_plan_changes(authsvc, config, error));
    TRY(admin_create(config, error, &authsvc->admin));
    TRY(start_tls(config, "grpc-tls-cert-file", "grpc-tls-key-file", error, &authsvc->grpc_tls));
    TRY(start_tls(config, "http-tls-cert-file", "http-tls-key-file", error, &authsvc->http_tls));
    TRY(start_audit(authsvc, config, error));
    authsvc->limiter = rate_limiter_create(calls_per_minute);
    authsvc->record_pool = pool_create(RECORD_THREADS, RECORD_QUEUE_MAX);
    authsvc->password_pool = pool_create(PASSWORD_THREADS, PASSWORD_WAITING_MAX);
    TRY(start_store(authsvc, config, error));
    authsvc->feed = identity_feed_create(authsvc);
    authsvc->accounts = accounts_create(authsvc->store, committed, authsvc);
    start_routers(authsvc, config);
    if (authsvc->cluster != NULL)
        TRY(departures_start(authsvc, error, &authsvc->departures));
    TRY(start_listeners(authsvc, config, error));
    return identity_feed_start(authsvc->feed, error);
}

// --- End

static void authsvc_drain(void *service, uint64_t grace_ns)
{
    struct authsvc *authsvc = service;
    identity_feed_drain(authsvc->feed);
    rpc_router_drain(authsvc->grpc_router);
    rpc_router_drain(authsvc->http_router);
    server_drain(authsvc->server, grace_ns);
}

static void authsvc_stop(void *service)
{
    struct authsvc *authsvc = service;
    interrupt(authsvc);
    if (authsvc->feed != NULL)
        identity_feed_stop(authsvc->feed);
    server_destroy(authsvc->server);
    // Callers have gone; what they left behind ends by itself.
    wait_until_idle(authsvc);
    departures_stop(authsvc->departures);
    pool_destroy(authsvc->record_pool);
    pool_destroy(authsvc->password_pool);
    identity_feed_destroy(authsvc->feed);
    rpc_router_destroy(authsvc->grpc_router);
    rpc_router_destroy(authsvc->http_router);
    accounts_destroy(authsvc->accounts);
    account_store_destroy(authsvc->store);
    cluster_client_destroy(authsvc->cluster);
    rate_limiter_destroy(authsvc->limiter);
    audit_close(authsvc->audit);
    tls_destroy(authsvc->http_tls);
    tls_destroy(authsvc->grpc_tls);
    admin_destroy(authsvc->admin);
    proxy_list_destroy(authsvc->trusted_proxies);
    token_authority_destroy(authsvc->authority);
    token_keys_unload(&authsvc->token_keys);
    explicit_bzero(&authsvc->secrets, sizeof(authsvc->secrets));
    pthread_cond_destroy(&authsvc->changed);
    pthread_mutex_destroy(&authsvc->mutex);
    mem_free(authsvc);
}

static enum status authsvc_start(struct net *net, const struct config *config, struct error *error,
                                 void **out_service)
{
    struct authsvc *authsvc = mem_alloc(sizeof(*authsvc));
    pthread_condattr_t attributes;
    authsvc->net = net;
    pthread_mutex_init(&authsvc->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&authsvc->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    enum status status = start_parts(authsvc, config, error);
    if (status != STATUS_OK) {
        authsvc_stop(authsvc);
        return status;
    }
    *out_service = authsvc;
    return STATUS_OK;
}

const struct service_ops authsvc_service = {
    .name = "authsvc",
    .settings = settings,
    .setting_count = sizeof(settings) / sizeof(settings[0]),
    .start = authsvc_start,
    .drain = authsvc_drain,
    .stop = authsvc_stop,
};
