#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "net/server_testing.h"
#include "net/tls_internal.h"
#include "net/transport.h"

// Certificates made for the test: an authority, and what it signed.
struct identity {
    EVP_PKEY *key;
    X509 *certificate;
};

static char folder[64];

static const char *file_of(const char *name)
{
    static char paths[8][128];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

static struct identity make_identity(const struct identity *issuer, long serial)
{
    struct identity made = {EVP_EC_gen("P-256"), X509_new()};
    X509 *certificate = made.certificate;
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, made.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)(issuer == NULL ? "ca" : "test"), -1, -1, 0);
    const struct identity *by = issuer != NULL ? issuer : &made;
    X509_set_issuer_name(certificate, X509_get_subject_name(by->certificate));
    if (issuer == NULL)
        add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE");
    else
        add_extension(certificate, issuer->certificate, NID_subject_alt_name,
                      "DNS:test.example,IP:127.0.0.1");
    X509_sign(certificate, by->key, EVP_sha256());
    return made;
}

static void free_identity(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->certificate);
}

static void write_identity(const struct identity *identity, const char *name)
{
    char text[64];
    snprintf(text, sizeof(text), "%s.crt", name);
    FILE *file = fopen(file_of(text), "w");
    PEM_write_X509(file, identity->certificate);
    fclose(file);
    snprintf(text, sizeof(text), "%s.key", name);
    file = fopen(file_of(text), "w");
    PEM_write_PrivateKey(file, identity->key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
}

static struct identity authority;
static struct identity stranger; // another authority

static void make_files(void)
{
    if (folder[0] != '\0')
        return;
    snprintf(folder, sizeof(folder), "/tmp/vectron-tls-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    authority = make_identity(NULL, 1);
    stranger = make_identity(NULL, 2);
    write_identity(&authority, "ca");
    write_identity(&stranger, "stranger");
    struct identity server = make_identity(&authority, 100);
    write_identity(&server, "server");
    free_identity(&server);
    struct identity client = make_identity(&authority, 200);
    write_identity(&client, "client");
    free_identity(&client);
}

static void remove_files(void)
{
    const char *const names[] = {"ca", "stranger", "server", "client"};
    char text[64];
    for (int i = 0; i < 8; i++) {
        snprintf(text, sizeof(text), "%s.%s", names[i / 2], i % 2 == 0 ? "crt" : "key");
        unlink(file_of(text));
    }
    rmdir(folder);
    folder[0] = '\0';
    free_identity(&authority);
    free_identity(&stranger);
}

static struct tls *make_server_tls(bool asks_for_certificates)
{
    struct tls *tls = NULL;
    struct error error = {0};
    struct tls_options options = {
        .cert_file = str_from_cstr(file_of("server.crt")),
        .key_file = str_from_cstr(file_of("server.key")),
        .ca_file = asks_for_certificates ? str_from_cstr(file_of("ca.crt")) : (struct str){0}};
    if (!CHECK_OK(tls_server_create(&options, &error, &tls)))
        printf("%s\n", error.text);
    return tls;
}

// A blocking client of OpenSSL's own.
struct tls_client {
    int fd;
    SSL_CTX *context;
    SSL *session;
    bool is_open;
};

static void tls_client_open(struct tls_client *client, int port, const char *alpn,
                            const char *identity, int version_max)
{
    *client = (struct tls_client){.fd = test_connect(port)};
    client->context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(client->context, version_max);
    SSL_CTX_load_verify_locations(client->context, file_of("ca.crt"), NULL);
    SSL_CTX_set_verify(client->context, SSL_VERIFY_PEER, NULL);
    if (identity != NULL) {
        char text[64];
        snprintf(text, sizeof(text), "%s.crt", identity);
        SSL_CTX_use_certificate_chain_file(client->context, file_of(text));
        snprintf(text, sizeof(text), "%s.key", identity);
        SSL_CTX_use_PrivateKey_file(client->context, file_of(text), SSL_FILETYPE_PEM);
    }
    client->session = SSL_new(client->context);
    SSL_set1_host(client->session, "test.example");
    if (alpn != NULL)
        SSL_set_alpn_protos(client->session, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    SSL_set_fd(client->session, client->fd);
    client->is_open = SSL_connect(client->session) == 1;
}

static void tls_client_close(struct tls_client *client)
{
    ERR_clear_error();
    SSL_free(client->session);
    SSL_CTX_free(client->context);
    close(client->fd);
}

static bool asks_and_is_answered(struct tls_client *client)
{
    static const char request[] =
        "POST /Echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    char answer[1000];
    size_t len = 0;
    ERR_clear_error();
    if (!client->is_open || SSL_write(client->session, request, sizeof(request) - 1) <= 0)
        return false;
    while (len < sizeof(answer) - 1) {
        int size = SSL_read(client->session, answer + len, (int)(sizeof(answer) - 1 - len));
        if (size <= 0)
            return false;
        len += (size_t)size;
        answer[len] = '\0';
        if (strstr(answer, "\r\n\r\nhello") != NULL)
            return true;
    }
    return false;
}

static long serial_of(const struct tls_client *client)
{
    X509 *certificate = SSL_get1_peer_certificate(client->session);
    if (certificate == NULL)
        return -1;
    long serial = ASN1_INTEGER_get(X509_get_serialNumber(certificate));
    X509_free(certificate);
    return serial;
}

TEST(requests_over_tls)
{
    make_files();
    struct tls *tls = make_server_tls(false);
    struct test_server server;
    test_server_start(
        &server, &(struct listener_options){.has_http = true, .has_grpc = true, .tls = tls}, 0);
    struct tls_client client;
    tls_client_open(&client, server.port, NULL, NULL, TLS1_3_VERSION);
    CHECK(asks_and_is_answered(&client) && asks_and_is_answered(&client));
    tls_client_close(&client);

    tls_client_open(&client, server.port, "\x08http/1.1", NULL, TLS1_3_VERSION);
    CHECK(asks_and_is_answered(&client));
    tls_client_close(&client);

    tls_client_open(&client, server.port, "\x02h2\x08http/1.1", NULL, TLS1_3_VERSION);
    const unsigned char *alpn = NULL;
    unsigned size = 0;
    SSL_get0_alpn_selected(client.session, &alpn, &size);
    CHECK(client.is_open && size == 2 && memcmp(alpn, "h2", 2) == 0);
    tls_client_close(&client);

    tls_client_open(&client, server.port, "\x04none", NULL, TLS1_3_VERSION);
    CHECK(!client.is_open);
    tls_client_close(&client);
    tls_client_open(&client, server.port, NULL, NULL, TLS1_2_VERSION);
    CHECK(!client.is_open); // TLS 1.3 or nothing
    tls_client_close(&client);

    char answer[1000]; // no TLS at all
    CHECK(
        !test_exchange(server.port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", answer, sizeof(answer)) ||
        strstr(answer, "HTTP/") == NULL);
    test_server_stop(&server);
    tls_destroy(tls);
    remove_files();
}

// TLS 1.3 tells a client only after its handshake that its certificate is not accepted.
TEST(client_certificates)
{
    make_files();
    struct tls *tls = make_server_tls(true);
    struct test_server server;
    test_server_start(&server, &(struct listener_options){.has_http = true, .tls = tls}, 0);
    struct tls_client client;
    tls_client_open(&client, server.port, NULL, "client", TLS1_3_VERSION);
    CHECK(asks_and_is_answered(&client));
    tls_client_close(&client);
    tls_client_open(&client, server.port, NULL, NULL, TLS1_3_VERSION);
    CHECK(!asks_and_is_answered(&client));
    tls_client_close(&client);
    tls_client_open(&client, server.port, NULL, "stranger", TLS1_3_VERSION);
    CHECK(!asks_and_is_answered(&client));
    tls_client_close(&client);
    test_server_stop(&server);
    tls_destroy(tls);
    remove_files();
}

// --- New files

static _Atomic uint64_t clock_offset_ns;

static uint64_t shifted_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec +
           atomic_load(&clock_offset_ns);
}

static uint64_t unix_ms(void)
{
    return (uint64_t)time(NULL) * 1000;
}

static const struct clock_source shifted = {shifted_ns, unix_ms};

static long serial_served(int port)
{
    atomic_fetch_add(&clock_offset_ns, 2 * NS_PER_SECOND);
    struct tls_client client;
    tls_client_open(&client, port, NULL, NULL, TLS1_3_VERSION);
    long serial = client.is_open && asks_and_is_answered(&client) ? serial_of(&client) : -1;
    tls_client_close(&client);
    return serial;
}

TEST(changed_files_are_taken_over_and_broken_ones_are_not)
{
    clock_set_source(&shifted);
    make_files();
    struct tls *tls = make_server_tls(false);
    struct test_server server;
    test_server_start(&server, &(struct listener_options){.has_http = true, .tls = tls}, 0);
    CHECK_EQ_I64(serial_served(server.port), 100);
    struct tls_client old;
    tls_client_open(&old, server.port, NULL, NULL, TLS1_3_VERSION);

    struct identity renewed = make_identity(&authority, 101);
    write_identity(&renewed, "server");
    free_identity(&renewed);
    CHECK_EQ_I64(serial_served(server.port), 101);
    CHECK_EQ_U64(tls_reload_count(tls), 1);
    CHECK(asks_and_is_answered(&old)); // began with the old one and goes on
    tls_client_close(&old);

    FILE *file = fopen(file_of("server.crt"), "w");
    fprintf(file, "this is no certificate\n");
    fclose(file);
    CHECK_EQ_I64(serial_served(server.port), 101);
    CHECK(tls_reload_failure_count(tls) >= 1);
    unlink(file_of("server.key"));
    CHECK_EQ_I64(serial_served(server.port), 101);

    renewed = make_identity(&authority, 102);
    write_identity(&renewed, "server");
    free_identity(&renewed);
    CHECK_EQ_I64(serial_served(server.port), 102);
    test_server_stop(&server);
    tls_destroy(tls);
    remove_files();
    clock_set_source(NULL);
}

TEST(options_that_cannot_work)
{
    make_files();
    struct tls *tls = NULL;
    struct error error = {0};
    struct str certificate = str_from_cstr(file_of("server.crt"));
    struct str missing = str_from_cstr(file_of("missing"));
    CHECK_STATUS(tls_server_create(&(struct tls_options){0}, &error, &tls), STATUS_INVALID);
    CHECK_STATUS(tls_server_create(&(struct tls_options){.cert_file = certificate}, &error, &tls),
                 STATUS_INVALID);
    CHECK_STATUS(tls_server_create(&(struct tls_options){.cert_file = missing, .key_file = missing},
                                   &error, &tls),
                 STATUS_INVALID);
    CHECK(strstr(error.text, "missing") != NULL);
    CHECK_STATUS(
        tls_server_create(&(struct tls_options){.cert_file = certificate,
                                                .key_file = str_from_cstr(file_of("client.key"))},
                          &error, &tls),
        STATUS_INVALID);
    CHECK_STATUS(tls_client_create(&(struct tls_options){.ca_file = missing}, &error, &tls),
                 STATUS_INVALID);
    CHECK(tls == NULL);
    tls_destroy(NULL);
    remove_files();
}

// --- Our own client side

struct probe {
    struct task task;
    struct net *net;
    struct tls *tls;
    struct str authority;
    int port;
    bool was_opened;
    bool has_h2;
    char text[128];
    sem_t closed;
};

static void on_opened(struct transport *transport, void *context)
{
    struct probe *probe = context;
    probe->was_opened = true;
    probe->has_h2 = str_equal(transport_alpn(transport), STR("h2"));
    transport_finish(transport);
}

static void on_received(struct transport *transport, struct span bytes, void *context)
{
    (void)transport;
    (void)bytes;
    (void)context;
}

static void on_fill(struct transport *transport, struct buf *out, void *context)
{
    (void)transport;
    (void)out;
    (void)context;
}

static void on_closed(struct transport *transport, enum status status, struct str text,
                      void *context)
{
    (void)transport;
    (void)status;
    struct probe *probe = context;
    snprintf(probe->text, sizeof(probe->text), "%.*s", STR_ARG(text));
    sem_post(&probe->closed);
}

static const struct transport_handler probe_handler = {on_opened, on_received, on_fill, on_closed};

static void run_probe(struct task *task)
{
    struct probe *probe = (struct probe *)task;
    char port[16];
    snprintf(port, sizeof(port), "%d", probe->port);
    const struct transport_target target = {.host = STR("127.0.0.1"),
                                            .port = str_from_cstr(port),
                                            .tls = probe->tls,
                                            .authority = probe->authority};
    transport_connect(probe->net, loop_current(), &target, &probe_handler, probe);
}

static bool can_connect(struct probe *probe, struct str name)
{
    probe->authority = name;
    probe->was_opened = false;
    probe->task.run = run_probe;
    loop_post(net_loop(probe->net, 0), &probe->task);
    sem_wait(&probe->closed);
    return probe->was_opened;
}

TEST(the_name_in_the_certificate_is_checked)
{
    make_files();
    struct tls *tls = make_server_tls(false);
    struct test_server server;
    test_server_start(&server, &(struct listener_options){.has_grpc = true, .tls = tls}, 0);
    struct probe probe = {.net = server.net, .port = server.port};
    sem_init(&probe.closed, 0, 0);
    CHECK_OK(tls_client_create(&(struct tls_options){.ca_file = str_from_cstr(file_of("ca.crt"))},
                               NULL, &probe.tls));
    CHECK(can_connect(&probe, STR("test.example:443")) && probe.has_h2);
    CHECK(can_connect(&probe, STR("127.0.0.1:80")));
    CHECK(can_connect(&probe, STR("test.example")));
    CHECK(!can_connect(&probe, STR("other.example:443")));
    CHECK(strstr(probe.text, "hostname mismatch") != NULL);
    CHECK(!can_connect(&probe, STR("127.0.0.2")));
    tls_destroy(probe.tls);
    CHECK_OK(
        tls_client_create(&(struct tls_options){.ca_file = str_from_cstr(file_of("stranger.crt"))},
                          NULL, &probe.tls));
    CHECK(!can_connect(&probe, STR("test.example")));
    CHECK(strstr(probe.text, "TLS handshake") != NULL);
    test_server_stop(&server);
    tls_destroy(probe.tls);
    tls_destroy(tls);
    sem_destroy(&probe.closed);
    remove_files();
}

TEST_MAIN()
