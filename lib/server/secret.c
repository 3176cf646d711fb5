#include "server/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "net/address.h"
#include "net/hmac.h"

enum {
    MADE_SIZE = 32, // random bytes of a secret that we make, written as hexadecimal digits
    PATH_SIZE = 4096,
};

static enum status read_whole(int file, const char *path, struct error *error, char *text,
                              size_t capacity, size_t *out_len)
{
    size_t len = 0;
    while (len < capacity) {
        ssize_t got = read(file, text + len, capacity - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(error, STATUS_IO, "cannot read the secret file %s: %s", path,
                             error_system_text(errno));
        if (got == 0)
            break;
        len += (size_t)got;
    }
    *out_len = len;
    return STATUS_OK;
}

static enum status copy_secret(struct str secret, const char *origin, struct error *error,
                               char out_secret[static SECRET_SIZE_MAX + 1])
{
    if (secret.len == 0)
        return error_set(error, STATUS_INVALID, "%s holds no secret", origin);
    if (secret.len > SECRET_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "%s holds a secret of more than %d characters",
                         origin, SECRET_SIZE_MAX);
    if (memchr(secret.data, '\0', secret.len) != NULL)
        return error_set(error, STATUS_INVALID, "%s holds a zero byte", origin);
    memcpy(out_secret, secret.data, secret.len);
    out_secret[secret.len] = '\0';
    return STATUS_OK;
}

static enum status read_open_file(int file, const char *path, struct error *error,
                                  char out_secret[static SECRET_SIZE_MAX + 1])
{
    char text[SECRET_SIZE_MAX + 64]; // some white space around it is fine
    size_t len = 0;
    enum status status = read_whole(file, path, error, text, sizeof(text), &len);
    if (status == STATUS_OK)
        status = copy_secret(str_trim((struct str){text, len}), path, error, out_secret);
    explicit_bzero(text, sizeof(text));
    return status;
}

enum status secret_read_file(const char *path, struct error *error,
                             char out_secret[static SECRET_SIZE_MAX + 1])
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_set(error, STATUS_IO, "cannot open the secret file %s: %s", path,
                         error_system_text(errno));
    enum status status = read_open_file(file, path, error, out_secret);
    (void)close(file); // was only read
    return status;
}

static enum status write_secret(int file, const char *path, struct error *error)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t random[MADE_SIZE];
    char text[2 * MADE_SIZE + 1];
    rng_secure(random, sizeof(random));
    for (unsigned i = 0; i < MADE_SIZE; i++) {
        text[2 * i] = digits[random[i] >> 4];
        text[2 * i + 1] = digits[random[i] & 15];
    }
    text[2 * MADE_SIZE] = '\n';
    ssize_t written = write(file, text, sizeof(text));
    int reason = written < 0 ? errno : ENOSPC;
    explicit_bzero(random, sizeof(random));
    explicit_bzero(text, sizeof(text));
    if (written == (ssize_t)sizeof(text) && fsync(file) == 0)
        return STATUS_OK;
    if (written == (ssize_t)sizeof(text))
        reason = errno;
    return error_set(error, STATUS_IO, "cannot write the secret file %s: %s", path,
                     error_system_text(reason));
}

// Give the file its name unless somebody else's has it. Some file systems have no hard links.
static enum status put_in_place(const char *made, const char *path, struct error *error)
{
    if (link(made, path) == 0 || errno == EEXIST)
        return STATUS_OK;
    if (renameat2(AT_FDCWD, made, AT_FDCWD, path, RENAME_NOREPLACE) == 0 || errno == EEXIST)
        return STATUS_OK;
    return error_set(error, STATUS_IO, "cannot make the secret file %s: %s", path,
                     error_system_text(errno));
}

// A folder remembers a new name for sure only once it is synced itself.
static void sync_folder_of(const char *path)
{
    char folder[PATH_SIZE];
    const char *slash = strrchr(path, '/');
    int len = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);
    (void)snprintf(folder, sizeof(folder), "%.*s", len, slash == NULL ? "." : path);
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return; // a crash of the machine may then bring forth another secret, nothing worse
    (void)fsync(file);
    (void)close(file);
}

// Two services that start at the same instant each write a file of their own; the first to give it
// the name wins, and both read what is there then.
static enum status make_secret_file(const char *path, struct error *error)
{
    char made[PATH_SIZE];
    uint64_t random;
    rng_secure(&random, sizeof(random));
    int len = snprintf(made, sizeof(made), "%s.%016llx", path, (unsigned long long)random);
    if (len < 0 || (size_t)len >= sizeof(made))
        return error_set(error, STATUS_INVALID, "the secret file's path is too long");
    int file = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return error_set(error, STATUS_IO, "cannot make the secret file %s: %s", path,
                         error_system_text(errno));
    enum status status = write_secret(file, path, error);
    (void)close(file); // synced above
    if (status == STATUS_OK)
        status = put_in_place(made, path, error);
    (void)unlink(made); // gone already when it was renamed
    sync_folder_of(path);
    return status;
}

static enum status load_jwt(const struct config *config, bool makes_file, struct error *error,
                            char out_secret[static SECRET_SIZE_MAX + 1])
{
    struct str given = config_str(config, "jwt-secret");
    const char *origin = "JWT_SECRET";
    if (given.len > 0) {
        TRY(copy_secret(given, origin, error, out_secret));
    } else {
        origin = config_str(config, "secret-file").data;
        if (origin[0] == '\0')
            return error_set(error, STATUS_INVALID,
                             "neither JWT_SECRET nor VECTRON_SECRET_FILE is set");
        bool is_missing = access(origin, F_OK) != 0 && errno == ENOENT;
        if (is_missing && !makes_file)
            return error_set(error, STATUS_INVALID, "JWT_SECRET is not set and there is no %s",
                             origin);
        if (is_missing)
            TRY(make_secret_file(origin, error));
        TRY(secret_read_file(origin, error, out_secret));
    }
    size_t len = strlen(out_secret);
    if (len < JWT_SECRET_SIZE_MIN)
        return error_set(error, STATUS_INVALID, "%s has %zu characters, %d at least are needed",
                         origin, len, JWT_SECRET_SIZE_MIN);
    return STATUS_OK;
}

static enum status load_previous_jwt(const struct config *config, struct error *error,
                                     char out_secret[static SECRET_SIZE_MAX + 1])
{
    struct str given = config_str(config, "jwt-previous-secret");
    struct str path = config_str(config, "jwt-previous-secret-file");
    if (given.len == 0 && path.len == 0)
        return STATUS_OK;
    if (given.len > 0)
        TRY(copy_secret(given, "VECTRON_JWT_PREVIOUS_SECRET", error, out_secret));
    else
        TRY(secret_read_file(path.data, error, out_secret));
    if (strlen(out_secret) < JWT_SECRET_SIZE_MIN)
        return error_set(error, STATUS_INVALID,
                         "VECTRON_JWT_PREVIOUS_SECRET has %zu characters, %d at least are needed",
                         strlen(out_secret), JWT_SECRET_SIZE_MIN);
    return STATUS_OK;
}

static enum status load_cluster(const struct config *config, struct error *error,
                                char out_secret[static SECRET_SIZE_MAX + 1])
{
    struct str given = config_str(config, "cluster-secret");
    struct str path = config_str(config, "cluster-secret-file");
    if (given.len > 0)
        return copy_secret(given, "VECTRON_CLUSTER_SECRET", error, out_secret);
    if (path.len > 0)
        return secret_read_file(path.data, error, out_secret);
    return STATUS_OK;
}

static void derive_token(const char *secret, struct str label, char out_token[static 65])
{
    if (secret[0] != '\0')
        hmac_sha256_hex(str_span(str_from_cstr(secret)), str_span(label), out_token);
}

static enum status load(const struct config *config, bool makes_file, struct error *error,
                        struct secrets *out)
{
    struct secrets secrets = {0};
    enum status status = STATUS_OK;
    if (config_has(config, "jwt-secret"))
        status = load_jwt(config, makes_file, error, secrets.jwt);
    if (status == STATUS_OK && config_has(config, "jwt-previous-secret"))
        status = load_previous_jwt(config, error, secrets.previous_jwt);
    if (status == STATUS_OK && config_has(config, "cluster-secret"))
        status = load_cluster(config, error, secrets.cluster);
    if (status == STATUS_OK) {
        derive_token(secrets.cluster, STR("vectron internal token 1"), secrets.internal_token);
        derive_token(secrets.jwt, STR("vectron identity token 1"), secrets.identity_token);
        derive_token(secrets.previous_jwt, STR("vectron identity token 1"),
                     secrets.previous_identity_token);
        *out = secrets;
    }
    explicit_bzero(&secrets, sizeof(secrets));
    return status;
}

enum status secrets_load(const struct config *config, struct error *error, struct secrets *out)
{
    return load(config, true, error, out);
}

enum status secrets_read(const struct config *config, struct error *error, struct secrets *out)
{
    return load(config, false, error, out);
}

enum status secrets_check_internal_address(const struct secrets *secrets, struct str address,
                                           struct error *error)
{
    struct address parsed;
    TRY(address_parse(address, error, &parsed));
    if (secrets->cluster[0] != '\0' || address_is_local(&parsed))
        return STATUS_OK;
    return error_set(error, STATUS_INVALID,
                     "%.*s is not a loopback address: an internal service listens elsewhere only "
                     "with VECTRON_CLUSTER_SECRET or VECTRON_CLUSTER_SECRET_FILE set",
                     STR_ARG(address));
}
