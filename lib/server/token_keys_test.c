#include "server/token_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/signature_testing.h"
#include "testing/test.h"

enum { PATH_SIZE = 256 };

static const struct setting settings[] = {TOKEN_KEY_SETTINGS};

struct files {
    char folder[64];
    char es[PATH_SIZE];
    char es_public[PATH_SIZE];
    char ed[PATH_SIZE];
};

static void write_file(const struct files *files, const char *name, const char *text,
                       char out_path[static PATH_SIZE])
{
    (void)snprintf(out_path, PATH_SIZE, "%s/%s", files->folder, name);
    FILE *file = fopen(out_path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static struct files set_up(void)
{
    struct files files = {.folder = "/tmp/token_keys_XXXXXX"};
    CHECK(mkdtemp(files.folder) != NULL);
    write_file(&files, "es.pem", TEST_KEY_ES256_PRIVATE, files.es);
    write_file(&files, "es.pub", TEST_KEY_ES256_OTHER_PUBLIC, files.es_public);
    write_file(&files, "ed.pem", TEST_KEY_EDDSA_PRIVATE, files.ed);
    return files;
}

static void tear_down(struct files *files)
{
    (void)unlink(files->es);
    (void)unlink(files->es_public);
    (void)unlink(files->ed);
    (void)rmdir(files->folder);
}

static enum status load(const char *algorithm, const char *own, const char *accepted,
                        bool must_sign, struct error *error, struct token_keys *out_keys)
{
    static char name[] = "program";
    static char *const argv[] = {name, NULL};
    struct config *config = NULL;
    CHECK_OK(config_create(settings, 3, 1, argv, error, &config));
    CHECK_OK(config_set(config, "jwt-algorithm", str_from_cstr(algorithm), error));
    CHECK_OK(config_set(config, "jwt-key-file", str_from_cstr(own), error));
    CHECK_OK(config_set(config, "jwt-accepted-keys", str_from_cstr(accepted), error));
    enum status status = token_keys_load(config, must_sign, error, out_keys);
    config_destroy(config);
    return status;
}

TEST(what_is_set_is_read)
{
    struct files files = set_up();
    struct error error = {0};
    struct token_keys keys;
    char list[2 * PATH_SIZE + 4];
    CHECK_OK(load("HS256", "", "", true, &error, &keys));
    CHECK_EQ_U64(keys.count, 0);
    (void)snprintf(list, sizeof(list), " %s , %s,", files.es_public, files.es);
    CHECK_OK(load("ES256", files.es, list, true, &error, &keys));
    CHECK_EQ_U64(keys.count, 3);
    CHECK(signature_key_can_sign(keys.keys[0]) && !signature_key_can_sign(keys.keys[1]));
    token_keys_unload(&keys);
    CHECK_OK(load("ES256", "", files.es_public, false, &error, &keys));
    CHECK_EQ_U64(keys.count, 1);
    token_keys_unload(&keys);
    CHECK_OK(load("EdDSA", files.ed, "", true, &error, &keys));
    token_keys_unload(&keys);
    tear_down(&files);
}

TEST(what_does_not_fit_is_refused)
{
    struct files files = set_up();
    const struct {
        const char *algorithm;
        const char *own;
        const char *accepted;
        bool must_sign;
        enum status status;
        const char *text;
    } cases[] = {
        {"none", "", "", false, STATUS_INVALID, "is not HS256, ES256 or EdDSA"},
        {"", "", "", false, STATUS_INVALID, "is not HS256, ES256 or EdDSA"},
        {"hs256", "", "", false, STATUS_INVALID, "is not HS256, ES256 or EdDSA"},
        {"HS256", files.es, "", false, STATUS_INVALID, "jwt-algorithm is HS256"},
        {"HS256", "", files.es_public, false, STATUS_INVALID, "jwt-algorithm is HS256"},
        {"ES256", "", "", false, STATUS_INVALID, "must name a key"},
        {"ES256", "", "", true, STATUS_INVALID, "must name a private key"},
        {"ES256", files.es_public, "", true, STATUS_INVALID, "must name a private key"},
        {"ES256", "", files.es, true, STATUS_INVALID, "must name a private key"},
        {"ES256", files.ed, "", true, STATUS_INVALID, "is a key for EdDSA"},
        {"EdDSA", files.ed, files.es_public, true, STATUS_INVALID, "is a key for ES256"},
        {"EdDSA", "/nowhere/key.pem", "", true, STATUS_IO, "cannot open /nowhere/key.pem"},
        {"EdDSA", "/dev/null", "", true, STATUS_INVALID, "holds no key"},
        {"EdDSA", "/dev/zero", "", true, STATUS_INVALID, "more than"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error = {0};
        struct token_keys keys;
        CHECK_STATUS(load(cases[i].algorithm, cases[i].own, cases[i].accepted, cases[i].must_sign,
                          &error, &keys),
                     cases[i].status);
        CHECK_CONTAINS(str_from_cstr(error.text), str_from_cstr(cases[i].text));
    }
    tear_down(&files);
}

TEST(too_many_keys)
{
    struct files files = set_up();
    struct error error = {0};
    struct token_keys keys;
    char list[TOKEN_KEY_FILES_MAX * PATH_SIZE] = "";
    for (int i = 0; i < TOKEN_KEY_FILES_MAX; i++) {
        strncat(list, files.es_public, sizeof(list) - strlen(list) - 1);
        strncat(list, ",", sizeof(list) - strlen(list) - 1);
    }
    CHECK_STATUS(load("ES256", files.es, list, true, &error, &keys), STATUS_INVALID);
    CHECK_OK(load("ES256", "", list, false, &error, &keys));
    token_keys_unload(&keys);
    tear_down(&files);
}

TEST_MAIN()
