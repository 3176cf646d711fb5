#include "server/token_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PEM_SIZE_MAX = 16 << 10, PATH_SIZE_MAX = 4095 };

static enum status read_text(const char *path, struct error *error, char *text, size_t capacity,
                             size_t *out_len)
{
    size_t len = 0;
    ssize_t got = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_set(error, STATUS_IO, "cannot open %s: %s", path, error_system_text(errno));
    do {
        got = read(file, text + len, capacity - len);
        if (got > 0)
            len += (size_t)got;
    } while ((got > 0 && len < capacity) || (got < 0 && errno == EINTR));
    int reason = errno;
    (void)close(file); // was only read
    if (got < 0)
        return error_set(error, STATUS_IO, "cannot read %s: %s", path, error_system_text(reason));
    if (len == capacity)
        return error_set(error, STATUS_INVALID, "%s: more than %zu bytes", path, capacity - 1);
    *out_len = len;
    return STATUS_OK;
}

static enum status add(struct token_keys *keys, struct str path, enum signature_algorithm algorithm,
                       struct error *error)
{
    char name[PATH_SIZE_MAX + 1];
    char text[PEM_SIZE_MAX + 1];
    size_t len = 0;
    struct signature_key *key = NULL;
    if (keys->count == TOKEN_KEY_FILES_MAX)
        return error_set(error, STATUS_INVALID, "more than %d keys", TOKEN_KEY_FILES_MAX);
    if (path.len > PATH_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "a path of %zu bytes", path.len);
    memcpy(name, path.data, path.len);
    name[path.len] = '\0';
    enum status status = read_text(name, error, text, sizeof(text), &len);
    if (status != STATUS_OK)
        return status;
    status = signature_key_read((struct str){text, len}, error, &key);
    explicit_bzero(text, sizeof(text));
    if (status != STATUS_OK)
        return error_prefix(error, status, "%s", name);
    keys->keys[keys->count++] = key;
    if (signature_key_algorithm(key) != algorithm)
        return error_set(error, STATUS_INVALID, "%s is a key for %s, jwt-algorithm is %s", name,
                         signature_algorithm_name(signature_key_algorithm(key)),
                         signature_algorithm_name(algorithm));
    return STATUS_OK;
}

static enum status load(const struct config *config, enum signature_algorithm algorithm,
                        bool must_sign, struct error *error, struct token_keys *keys)
{
    struct str own = str_trim(config_str(config, "jwt-key-file"));
    struct str rest = config_str(config, "jwt-accepted-keys");
    const char *name = signature_algorithm_name(algorithm);
    if (own.len > 0)
        TRY(add(keys, own, algorithm, error));
    if (must_sign && (keys->count == 0 || !signature_key_can_sign(keys->keys[0])))
        return error_set(error, STATUS_INVALID,
                         "jwt-algorithm is %s: jwt-key-file must name a private key", name);
    while (rest.len > 0) {
        struct str path = str_trim(str_cut(&rest, ','));
        if (path.len > 0)
            TRY(add(keys, path, algorithm, error));
    }
    if (keys->count == 0)
        return error_set(error, STATUS_INVALID,
                         "jwt-algorithm is %s: jwt-key-file or jwt-accepted-keys must name a key",
                         name);
    return STATUS_OK;
}

enum status token_keys_load(const struct config *config, bool must_sign, struct error *error,
                            struct token_keys *out_keys)
{
    struct str name = str_trim(config_str(config, "jwt-algorithm"));
    struct token_keys keys = {0};
    enum status status = STATUS_OK;
    if (str_equal_cstr(name, "HS256")) {
        if (config_str(config, "jwt-key-file").len > 0 ||
            config_str(config, "jwt-accepted-keys").len > 0)
            return error_set(error, STATUS_INVALID,
                             "jwt-key-file and jwt-accepted-keys are for ES256 and EdDSA, "
                             "jwt-algorithm is HS256");
    } else if (str_equal_cstr(name, "ES256")) {
        status = load(config, SIGNATURE_ES256, must_sign, error, &keys);
    } else if (str_equal_cstr(name, "EdDSA")) {
        status = load(config, SIGNATURE_EDDSA, must_sign, error, &keys);
    } else {
        return error_set(error, STATUS_INVALID,
                         "jwt-algorithm: \"%.*s\" is not HS256, ES256 or EdDSA", STR_ARG(name));
    }
    if (status != STATUS_OK) {
        token_keys_unload(&keys);
        return status;
    }
    *out_keys = keys;
    return STATUS_OK;
}

void token_keys_unload(struct token_keys *keys)
{
    for (uint32_t i = 0; i < keys->count; i++)
        signature_key_destroy(keys->keys[i]);
    *keys = (struct token_keys){0};
}
