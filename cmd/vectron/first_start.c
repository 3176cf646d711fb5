#include "vectron/first_start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/auth.pb-c.h"
#include "api/client.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

enum {
    PATH_SIZE = 4096,
    LOGIN_SIZE_MAX = 512,
    TOKEN_SIZE_MAX = 16384,
    PASSWORD_SIZE = 24,
    START_SECONDS_MAX = 20,
    TOKEN_LIFE_SECONDS = 365 * 86400,
};

static enum status write_secret_file(const char *folder, const char *name, const char *text,
                                     struct error *error)
{
    char path[PATH_SIZE];
    char scratch[PATH_SIZE + 8];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    (void)snprintf(scratch, sizeof(scratch), "%s.new", path);
    int file = open(scratch, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool is_written =
        file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && fsync(file) == 0;
    if (file >= 0 && close(file) != 0)
        is_written = false;
    if (!is_written || rename(scratch, path) != 0)
        return error_set(error, STATUS_IO, "write %s: %s", path, strerrordesc_np(errno));
    return STATUS_OK;
}

// Empty when there is no such file.
static enum status read_secret_file(const char *folder, const char *name, char *out_text,
                                    size_t size, struct error *error)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    out_text[0] = '\0';
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return errno == ENOENT
                   ? STATUS_OK
                   : error_set(error, STATUS_IO, "open %s: %s", path, strerrordesc_np(errno));
    ssize_t got = read(file, out_text, size - 1);
    (void)close(file); // it was only read
    if (got < 0)
        return error_set(error, STATUS_IO, "read %s: %s", path, strerrordesc_np(errno));
    out_text[got] = '\0';
    return STATUS_OK;
}

// Letters and digits without those that look alike, in groups; three classes for sure.
static void make_password(char out[static PASSWORD_SIZE])
{
    static const char alphabet[] = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    uint8_t random[PASSWORD_SIZE];
    rng_secure(random, sizeof(random));
    for (uint32_t i = 0; i < PASSWORD_SIZE - 1; i++)
        out[i] = i % 6 == 5 ? '-' : alphabet[random[i] % (sizeof(alphabet) - 1)];
    out[0] = "ABCDEFGH"[random[0] % 8];
    out[1] = "abcdefgh"[random[1] % 8];
    out[2] = "23456789"[random[2] % 8];
    out[PASSWORD_SIZE - 1] = '\0';
}

enum status first_start_open(struct str data_dir, struct error *error, struct first_start *out)
{
    char login[LOGIN_SIZE_MAX];
    *out = (struct first_start){0};
    if (data_dir.len == 0 || data_dir.len >= sizeof(out->folder))
        return error_set(error, STATUS_INVALID, "--data-dir: 1 to %zu characters",
                         sizeof(out->folder) - 1);
    (void)snprintf(out->folder, sizeof(out->folder), "%.*s", STR_ARG(data_dir));
    if (mkdir(out->folder, 0700) != 0 && errno != EEXIST)
        return error_set(error, STATUS_IO, "make %s: %s", out->folder, strerrordesc_np(errno));
    TRY(read_secret_file(out->folder, "admin-login", login, sizeof(login), error));
    struct str rest = str_trim(str_from_cstr(login));
    if (rest.len > 0) {
        struct str email = str_cut(&rest, ' ');
        if (rest.len == 0 || email.len >= sizeof(out->email) || rest.len >= sizeof(out->password))
            return error_set(error, STATUS_CORRUPT, "%s/admin-login: expected EMAIL PASSWORD",
                             out->folder);
        (void)snprintf(out->email, sizeof(out->email), "%.*s", STR_ARG(email));
        (void)snprintf(out->password, sizeof(out->password), "%.*s", STR_ARG(rest));
        return STATUS_OK;
    }
    out->is_first = true;
    (void)snprintf(out->email, sizeof(out->email), "admin@vectron.local");
    make_password(out->password);
    (void)snprintf(login, sizeof(login), "%s %s\n", out->email, out->password);
    return write_secret_file(out->folder, "admin-login", login, error);
}

enum status first_start_configure_auth(const struct first_start *first_start,
                                       struct config *auth_config, struct error *error)
{
    TRY(config_set(auth_config, "admin-email", str_from_cstr(first_start->email), error));
    return config_set(auth_config, "admin-password", str_from_cstr(first_start->password), error);
}

// A call of the auth service in this process.
struct account_call {
    struct channel *channel;
    struct arena *arena;
    struct metadata authorization;
};

static enum status account_call(const struct account_call *call, const char *method,
                                const ProtobufCMessage *request, struct error *error,
                                const ProtobufCMessage **out_response)
{
    return client_call_wait(
        &(struct client_request){
            .channel = call->channel,
            .service = &vectron__auth__v1__auth_service__descriptor,
            .method = method,
            .message = request,
            .deadline_ns = clock_monotonic_ns() + START_SECONDS_MAX * NS_PER_SECOND,
            .waits_for_ready = true,
            .metadata = &call->authorization,
            .metadata_count = call->authorization.name.len > 0 ? 1 : 0,
        },
        call->arena, error, out_response);
}

static enum status make_sdk_token(struct first_start *first_start, struct account_call *call,
                                  struct error *error)
{
    Vectron__Auth__V1__LoginRequest login = VECTRON__AUTH__V1__LOGIN_REQUEST__INIT;
    Vectron__Auth__V1__CreateAPIKeyRequest create = VECTRON__AUTH__V1__CREATE_APIKEY_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    static char key_name[] = "vectron dev";
    static char role[] = "owner";

    login.email = first_start->email;
    login.password = first_start->password;
    TRY(account_call(call, "Login", &login.base, error, &message));
    const Vectron__Auth__V1__LoginResponse *session = (const void *)message;
    call->authorization = (struct metadata){
        STR("authorization"), arena_format(call->arena, "Bearer %s", session->jwt_token)};
    create.name = key_name;
    create.role = role;
    create.expires_in_seconds = TOKEN_LIFE_SECONDS;
    TRY(account_call(call, "CreateAPIKey", &create.base, error, &message));
    const Vectron__Auth__V1__CreateAPIKeyResponse *key = (const void *)message;
    (void)snprintf(first_start->sdk_token, TOKEN_SIZE_MAX, "%s", key->sdk_jwt);
    return write_secret_file(first_start->folder, "sdk-token", first_start->sdk_token, error);
}

enum status first_start_finish(struct first_start *first_start, struct net *net,
                               struct error *error)
{
    struct account_call call = {0};
    first_start->sdk_token = mem_alloc(TOKEN_SIZE_MAX);
    TRY(read_secret_file(first_start->folder, "sdk-token", first_start->sdk_token, TOKEN_SIZE_MAX,
                         error));
    if (first_start->sdk_token[0] != '\0')
        return STATUS_OK;
    TRY(channel_create(net, &(struct channel_options){.address = STR("inproc:authsvc")}, error,
                       &call.channel));
    call.arena = arena_create(1 << 20);
    enum status status = make_sdk_token(first_start, &call, error);
    arena_destroy(call.arena);
    channel_destroy(call.channel);
    return status == STATUS_OK ? status : error_prefix(error, status, "make the first SDK token");
}

void first_start_print(const struct first_start *first_start)
{
    printf("data directory: %s\n", first_start->folder);
    if (first_start->is_first)
        printf("admin login: %s %s\n", first_start->email, first_start->password);
    else
        printf("admin login: in %s/admin-login\n", first_start->folder);
    printf("SDK token: export VECTRON_TOKEN=%s\n", first_start->sdk_token);
}

void first_start_close(struct first_start *first_start)
{
    mem_free(first_start->sdk_token);
    first_start->sdk_token = NULL;
}
