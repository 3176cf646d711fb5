#include "vectron/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "api/json.h"
#include "api/placementdriver.pb-c.h"
#include "api/vectron.pb-c.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"

enum {
    RETRY_PAUSE_MS = 200,
    TOKEN_SIZE_MAX = 16384,
    PATH_SIZE_MAX = 4096,
    ARENA_SIZE_MAX = 1 << 30, // a run may hold a large file of points
};

const struct setting session_settings[] = {
    {"addr", "VECTRON_ADDR", SETTING_STR, false, "127.0.0.1:8081", "the gateway's gRPC address"},
    {"auth-addr", "VECTRON_AUTH_ADDR", SETTING_STR, false, "127.0.0.1:8083",
     "the auth service's gRPC address"},
    {"token", "VECTRON_TOKEN", SETTING_STR, true, "",
     "SDK token for data verbs (else the one that `keys create --save` kept)"},
    {"login-token", "VECTRON_LOGIN_TOKEN", SETTING_STR, true, "",
     "login token for account verbs (else the one that `login` kept)"},
    {"tls", "VECTRON_TLS", SETTING_BOOL, false, "false", "connect with TLS"},
    {"tls-ca", "VECTRON_TLS_CA", SETTING_STR, false, "",
     "certificates to trust, PEM (else the system's)"},
    {"timeout-ms", NULL, SETTING_U64, false, "30000", "how long one call may take"},
    {"json", NULL, SETTING_BOOL, false, "false", "print JSON"},
};
const uint32_t session_setting_count = sizeof(session_settings) / sizeof(session_settings[0]);

enum status session_open(const struct config *config, struct session *session)
{
    *session = (struct session){.config = config, .is_json = config_bool(config, "json")};
    session->arena = arena_create(ARENA_SIZE_MAX);
    TRY(net_create(&(struct net_options){.loop_count = 1, .pool_thread_count = 1}, &session->error,
                   &session->net));
    if (config_bool(config, "tls") || config_str(config, "tls-ca").len > 0)
        TRY(tls_client_create(&(struct tls_options){.ca_file = config_str(config, "tls-ca")},
                              &session->error, &session->tls));
    TRY(channel_create(session->net,
                       &(struct channel_options){.address = config_str(config, "addr"),
                                                 .tls = session->tls,
                                                 .message_size_max = LIMIT_REQUEST_SIZE_GATEWAY},
                       &session->error, &session->gateway));
    return channel_create(
        session->net,
        &(struct channel_options){.address = config_str(config, "auth-addr"), .tls = session->tls},
        &session->error, &session->accounts);
}

void session_close(struct session *session)
{
    channel_destroy(session->gateway);
    channel_destroy(session->accounts);
    net_destroy(session->net);
    tls_destroy(session->tls);
    arena_destroy(session->arena);
}

static struct metadata bearer(struct session *session, struct str token)
{
    return (struct metadata){
        STR("authorization"),
        arena_format(session->arena, "Bearer %.*s", STR_ARG(token)),
    };
}

static enum status session_call(struct session *session, struct client_request *request,
                                struct metadata proof, struct arena *arena,
                                const ProtobufCMessage **out_response)
{
    request->deadline_ns =
        clock_monotonic_ns() + config_u64(session->config, "timeout-ms") * NS_PER_MS;
    request->metadata = &proof;
    request->metadata_count = proof.value.len > strlen("Bearer ") ? 1 : 0;
    return client_call_wait(request, arena, &session->error, out_response);
}

enum status session_call_data(struct session *session, const char *method,
                              const ProtobufCMessage *request, struct arena *arena,
                              const ProtobufCMessage **out_response)
{
    if (session->data_proof.len == 0) {
        struct str token = config_str(session->config, "token");
        if (token.len == 0)
            token = session_load(session, "sdk-token");
        if (token.len == 0)
            return error_set(&session->error, STATUS_UNAUTHENTICATED,
                             "an SDK token is needed: --token, VECTRON_TOKEN, or `vectron keys "
                             "create NAME --save` after `vectron login`");
        session->data_proof = bearer(session, token).value;
    }
    return session_call(session,
                        &(struct client_request){
                            .channel = session->gateway,
                            .service = &vectron__v1__vectron_service__descriptor,
                            .method = method,
                            .message = request,
                        },
                        (struct metadata){STR("authorization"), session->data_proof}, arena,
                        out_response);
}

enum status session_call_data_patiently(struct session *session, const char *method,
                                        const ProtobufCMessage *request, uint64_t retry_seconds,
                                        struct arena *arena, const ProtobufCMessage **out_response)
{
    uint64_t give_up_ns = clock_monotonic_ns() + retry_seconds * NS_PER_SECOND;
    for (;;) {
        enum status status = session_call_data(session, method, request, arena, out_response);
        bool may_pass = status == STATUS_UNAVAILABLE || status == STATUS_TIMEOUT ||
                        status == STATUS_EXHAUSTED || status == STATUS_NOT_LEADER;
        if (!may_pass || clock_monotonic_ns() + RETRY_PAUSE_MS * NS_PER_MS >= give_up_ns)
            return status;
        (void)poll(NULL, 0, RETRY_PAUSE_MS); // a pause; one that a signal ends early does no harm
    }
}

enum status session_call_account(struct session *session, const char *method,
                                 const ProtobufCMessage *request,
                                 const ProtobufCMessage **out_response)
{
    struct str token = config_str(session->config, "login-token");
    if (token.len == 0)
        token = session_load(session, "login-token");
    return session_call(session,
                        &(struct client_request){
                            .channel = session->accounts,
                            .service = &vectron__auth__v1__auth_service__descriptor,
                            .method = method,
                            .message = request,
                        },
                        bearer(session, token), session->arena, out_response);
}

enum status session_call_identity(struct session *session, struct str proof, const char *method,
                                  const ProtobufCMessage *request,
                                  const ProtobufCMessage **out_response)
{
    return session_call(session,
                        &(struct client_request){
                            .channel = session->accounts,
                            .service = &vectron__auth__v1__identity_service__descriptor,
                            .method = method,
                            .message = request,
                        },
                        (struct metadata){STR("vectron-identity"), proof}, session->arena,
                        out_response);
}

static enum status call_placement_driver(struct session *session, struct str address,
                                         struct str proof, const char *method,
                                         const ProtobufCMessage *request,
                                         const ProtobufCMessage **out_response)
{
    struct channel *channel = NULL;
    TRY(channel_create(session->net,
                       &(struct channel_options){.address = address,
                                                 .message_size_max = LIMIT_REQUEST_SIZE_GATEWAY},
                       &session->error, &channel));
    enum status status = session_call(
        session,
        &(struct client_request){
            .channel = channel,
            .service = &vectron__placementdriver__v1__cluster_service__descriptor,
            .method = method,
            .message = request,
        },
        (struct metadata){STR("vectron-internal"), proof}, session->arena, out_response);
    channel_destroy(channel);
    return status;
}

enum status session_call_cluster(struct session *session, struct str proof, const char *method,
                                 const ProtobufCMessage *request,
                                 const ProtobufCMessage **out_response)
{
    struct str rest = config_str(session->config, "pd-addrs");
    enum status status = error_set(&session->error, STATUS_INVALID, "pd-addrs is empty");
    while (rest.len > 0) {
        struct str address = str_trim(str_cut(&rest, ','));
        status = call_placement_driver(session, address, proof, method, request, out_response);
        if (status != STATUS_UNAVAILABLE && status != STATUS_NOT_LEADER)
            return status;
    }
    return status;
}

struct str session_word(const struct session *session, uint32_t index)
{
    return config_word(session->config, index);
}

char *session_word_cstr(const struct session *session, uint32_t index)
{
    return arena_cstr(session->arena, session_word(session, index));
}

void session_print_json(const ProtobufCMessage *message)
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    json_encode_message(message, &text);
    buf_append_byte(&text, '\n');
    fwrite(text.data, 1, text.len, stdout);
    buf_deinit(&text);
}

// The folder of the tokens, made when it is missing.
static enum status token_path(struct session *session, const char *name, bool makes_folder,
                              char out_path[static PATH_SIZE_MAX])
{
    const char *home = getenv("VECTRON_HOME"); // NOLINT(concurrency-mt-unsafe): nobody changes it
    char folder[PATH_SIZE_MAX / 2];
    if (home != NULL && home[0] != '\0') {
        (void)snprintf(folder, sizeof(folder), "%s", home);
    } else {
        home = getenv("HOME"); // NOLINT(concurrency-mt-unsafe): nobody changes it
        if (home == NULL || home[0] == '\0')
            return error_set(&session->error, STATUS_INVALID,
                             "neither VECTRON_HOME nor HOME is set");
        (void)snprintf(folder, sizeof(folder), "%s/.vectron", home);
    }
    if (makes_folder && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return error_set(&session->error, STATUS_IO, "make %s: %s", folder, strerrordesc_np(errno));
    (void)snprintf(out_path, PATH_SIZE_MAX, "%s/%s", folder, name);
    return STATUS_OK;
}

enum status session_save(struct session *session, const char *name, struct str text)
{
    char path[PATH_SIZE_MAX];
    TRY(token_path(session, name, true, path));
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return error_set(&session->error, STATUS_IO, "write %s: %s", path, strerrordesc_np(errno));
    bool is_written =
        fchmod(file, 0600) == 0 && write(file, text.data, text.len) == (ssize_t)text.len;
    if (close(file) != 0 || !is_written)
        return error_set(&session->error, STATUS_IO, "write %s: %s", path, strerrordesc_np(errno));
    return STATUS_OK;
}

struct str session_load(struct session *session, const char *name)
{
    char path[PATH_SIZE_MAX];
    struct str text = {0};
    struct error ignored = session->error;
    if (token_path(session, name, false, path) == STATUS_OK &&
        session_read_file(session, str_from_cstr(path), TOKEN_SIZE_MAX, &text) == STATUS_OK)
        text = str_trim(text);
    session->error = ignored; // a missing file is an answer here, not a failure
    return text;
}

enum status session_read_file(struct session *session, struct str path, size_t size_max,
                              struct str *out_text)
{
    const char *name = arena_cstr(session->arena, path);
    FILE *file = str_equal_cstr(path, "-") ? stdin : fopen(name, "rbe");
    if (file == NULL)
        return error_set(&session->error, STATUS_IO, "open %s: %s", name, strerrordesc_np(errno));
    struct buf text;
    buf_init(&text, size_max);
    size_t size = 0;
    do {
        char piece[16384];
        size = fread(piece, 1, sizeof(piece), file);
        buf_append(&text, piece, size);
    } while (size > 0 && !buf_has_overflowed(&text));
    bool has_failed = ferror(file) != 0;
    if (file != stdin)
        (void)fclose(file); // it was only read
    enum status status = STATUS_OK;
    if (has_failed)
        status = error_set(&session->error, STATUS_IO, "read %s: %s", name, strerrordesc_np(errno));
    else if (buf_has_overflowed(&text))
        status = error_set(&session->error, STATUS_INVALID, "%s is larger than %zu bytes", name,
                           size_max);
    else
        *out_text = arena_str(session->arena, buf_str(&text));
    buf_deinit(&text);
    return status;
}
