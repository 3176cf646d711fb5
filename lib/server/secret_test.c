#include "server/secret.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing/test.h"

enum { THREAD_COUNT = 8, PATH_SIZE = 700 };

static const struct setting settings[] = {SECRET_SETTINGS, CLUSTER_SETTINGS};
static const struct setting jwt_only[] = {SECRET_SETTINGS};
static const struct setting cluster_only[] = {CLUSTER_SETTINGS};

static struct error error;

static struct config *make_config(const struct setting *table, uint32_t count)
{
    static char name[] = "program";
    static char *const argv[] = {name, NULL};
    struct config *config = NULL;
    CHECK_OK(config_create(table, count, 1, argv, &error, &config));
    return config;
}

static void set(struct config *config, const char *name, const char *value)
{
    CHECK_OK(config_set(config, name, str_from_cstr(value), &error));
}

static void path_in(const char *folder, const char *name, char path[static PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s/%s", folder, name);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

TEST(given_secrets)
{
    struct secrets secrets;
    struct config *config = make_config(settings, sizeof(settings) / sizeof(settings[0]));
    set(config, "jwt-secret", "0123456789abcdef0123456789abcdef");
    set(config, "cluster-secret", "together");
    REQUIRE_OK(secrets_load(config, &error, &secrets));
    CHECK_CSTR(secrets.jwt, "0123456789abcdef0123456789abcdef");
    CHECK_CSTR(secrets.cluster, "together");
    CHECK_EQ_U64(strlen(secrets.internal_token), 64);
    CHECK_EQ_U64(strlen(secrets.identity_token), 64);
    CHECK(strcmp(secrets.internal_token, secrets.identity_token) != 0);
    char before[65];
    memcpy(before, secrets.internal_token, sizeof(before));

    set(config, "cluster-secret", "");
    REQUIRE_OK(secrets_load(config, &error, &secrets));
    CHECK_CSTR(secrets.cluster, "");
    CHECK_CSTR(secrets.internal_token, "");
    set(config, "cluster-secret", "apart");
    REQUIRE_OK(secrets_load(config, &error, &secrets));
    CHECK(strcmp(secrets.internal_token, before) != 0);
    config_destroy(config);
}

TEST(short_and_long_secrets_are_refused)
{
    struct secrets secrets = {.jwt = "untouched"};
    struct config *config = make_config(jwt_only, 2);
    set(config, "jwt-secret", "0123456789abcdef0123456789abcde");
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_INVALID);
    CHECK_CSTR(error.text, "JWT_SECRET has 31 characters, 32 at least are needed");
    char text[400];
    memset(text, 'x', sizeof(text));
    text[256] = '\0';
    set(config, "jwt-secret", text);
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_INVALID);
    CHECK(!str_contains(str_from_cstr(error.text), STR("xxx"))); // never shown
    text[255] = '\0';
    set(config, "jwt-secret", text);
    CHECK_CSTR(secrets.jwt, "untouched");
    CHECK_OK(secrets_load(config, &error, &secrets));
    config_destroy(config);
}

TEST(the_file_is_made_once)
{
    char path[PATH_SIZE];
    path_in(test_temporary_folder(), "vectron.secret", path);
    struct config *config = make_config(jwt_only, 2);
    set(config, "secret-file", path);
    struct secrets first;
    struct secrets second;
    REQUIRE_OK(secrets_load(config, &error, &first));
    CHECK_EQ_U64(strlen(first.jwt), 64);
    struct stat info;
    CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600 && info.st_nlink == 1);
    REQUIRE_OK(secrets_load(config, &error, &second));
    CHECK_CSTR(second.jwt, first.jwt);
    CHECK_CSTR(second.identity_token, first.identity_token);
    config_destroy(config);
}

static char shared_path[PATH_SIZE];
static pthread_barrier_t barrier;

static void *load_together(void *result)
{
    struct config *config = make_config(jwt_only, 2);
    set(config, "secret-file", shared_path);
    pthread_barrier_wait(&barrier);
    struct error own_error;
    CHECK_OK(secrets_load(config, &own_error, result));
    config_destroy(config);
    return NULL;
}

TEST(those_who_start_together_agree)
{
    for (int round = 0; round < 20; round++) {
        pthread_t threads[THREAD_COUNT];
        static struct secrets secrets[THREAD_COUNT];
        path_in(test_temporary_folder(), "vectron.secret", shared_path);
        CHECK(pthread_barrier_init(&barrier, NULL, THREAD_COUNT) == 0);
        for (int i = 0; i < THREAD_COUNT; i++)
            CHECK(pthread_create(&threads[i], NULL, load_together, &secrets[i]) == 0);
        for (int i = 0; i < THREAD_COUNT; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_EQ_U64(strlen(secrets[0].jwt), 64);
        for (int i = 1; i < THREAD_COUNT; i++)
            CHECK_CSTR(secrets[i].jwt, secrets[0].jwt);
        pthread_barrier_destroy(&barrier);
    }
}

TEST(bad_files)
{
    char path[PATH_SIZE];
    struct secrets secrets;
    const char *folder = test_temporary_folder();
    struct config *config = make_config(jwt_only, 2);
    path_in(folder, "short", path);
    write_file(path, "too short\n");
    set(config, "secret-file", path);
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("short has 9 characters, 32 at least"));
    path_in(folder, "empty", path);
    write_file(path, "\n");
    set(config, "secret-file", path);
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("empty holds no secret"));
    path_in(folder, "no/such/folder", path);
    set(config, "secret-file", path);
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_IO);
    set(config, "secret-file", folder);
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_IO);
    set(config, "secret-file", "");
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_INVALID);
    config_destroy(config);
}

TEST(cluster_secret_from_a_file)
{
    char path[PATH_SIZE];
    struct secrets secrets;
    struct config *config = make_config(cluster_only, 2);
    path_in(test_temporary_folder(), "cluster", path);
    write_file(path, "  together\r\n");
    set(config, "cluster-secret-file", path);
    REQUIRE_OK(secrets_load(config, &error, &secrets));
    CHECK_CSTR(secrets.cluster, "together");
    CHECK_CSTR(secrets.jwt, "");
    CHECK_CSTR(secrets.identity_token, "");
    CHECK(unlink(path) == 0);
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("No such file"));
    CHECK(access(path, F_OK) != 0); // is never made
    config_destroy(config);
}

TEST(internal_services_stay_on_loopback)
{
    struct secrets secrets = {0};
    CHECK_OK(secrets_check_internal_address(&secrets, STR("127.0.0.1:1"), &error));
    CHECK_OK(secrets_check_internal_address(&secrets, STR("localhost:1"), &error));
    CHECK_OK(secrets_check_internal_address(&secrets, STR("[::1]:1"), &error));
    CHECK_OK(secrets_check_internal_address(&secrets, STR("inproc:worker"), &error));
    CHECK_STATUS(secrets_check_internal_address(&secrets, STR(":1"), &error), STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("VECTRON_CLUSTER_SECRET"));
    CHECK_STATUS(secrets_check_internal_address(&secrets, STR("0.0.0.0:1"), &error),
                 STATUS_INVALID);
    CHECK_STATUS(secrets_check_internal_address(&secrets, STR("nonsense"), &error), STATUS_INVALID);
    secrets.cluster[0] = 'x';
    CHECK_OK(secrets_check_internal_address(&secrets, STR(":1"), &error));
    CHECK_STATUS(secrets_check_internal_address(&secrets, STR("nonsense"), &error), STATUS_INVALID);
}

TEST(the_previous_secret)
{
    struct secrets before;
    struct secrets secrets;
    struct config *config = make_config(settings, sizeof(settings) / sizeof(settings[0]));
    set(config, "jwt-secret", "0123456789abcdef0123456789abcdef");
    REQUIRE_OK(secrets_load(config, &error, &before));
    CHECK_CSTR(before.previous_jwt, "");
    CHECK_CSTR(before.previous_identity_token, "");
    set(config, "jwt-secret", "fedcba9876543210fedcba9876543210");
    set(config, "jwt-previous-secret", "0123456789abcdef0123456789abcdef");
    REQUIRE_OK(secrets_load(config, &error, &secrets));
    CHECK_CSTR(secrets.previous_jwt, before.jwt);
    CHECK_CSTR(secrets.previous_identity_token, before.identity_token);
    CHECK(strcmp(secrets.identity_token, before.identity_token) != 0);
    set(config, "jwt-previous-secret", "short");
    CHECK_STATUS(secrets_load(config, &error, &secrets), STATUS_INVALID);
    CHECK(strstr(error.text, "short") == NULL);

    char path[PATH_SIZE];
    path_in(test_temporary_folder(), "previous", path);
    write_file(path, "0123456789abcdef0123456789abcdef\n");
    set(config, "jwt-previous-secret", "");
    set(config, "jwt-previous-secret-file", path);
    REQUIRE_OK(secrets_load(config, &error, &secrets));
    CHECK_CSTR(secrets.previous_jwt, before.jwt);
    config_destroy(config);
}

TEST_MAIN()
