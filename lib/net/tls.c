#include "net/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/tls_internal.h"

// The OpenSSL context is replaced as a whole when the files change: sessions hold a reference of
// their own to the one they began with.

struct file_state {
    struct timespec changed;
    off_t size;
    ino_t inode;
};

struct tls {
    bool is_server;
    char *cert_file; // NULL: none
    char *key_file;
    char *ca_file;
    pthread_mutex_t mutex; // guards what is below
    SSL_CTX *context;
    struct file_state files[3];
    uint64_t checked_ns;
    _Atomic uint64_t reload_count;
    _Atomic uint64_t reload_failure_count;
};

static const unsigned char alpn_names[] = "\x02h2\x08http/1.1";

static void first_error(char *text, size_t size)
{
    unsigned long code = ERR_get_error();
    if (code != 0)
        ERR_error_string_n(code, text, size);
    else
        snprintf(text, size, "unknown");
    ERR_clear_error();
}

void tls_error_text(const SSL *session, char *text, size_t size)
{
    long verified = SSL_get_verify_result(session);
    if (verified != X509_V_OK) {
        snprintf(text, size, "%s", X509_verify_cert_error_string(verified));
        ERR_clear_error();
        return;
    }
    unsigned long code = ERR_get_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    snprintf(text, size, "%s", reason != NULL ? reason : "the peer closed the connection");
    ERR_clear_error();
}

static int choose_alpn(SSL *session, const unsigned char **out, unsigned char *out_size,
                       const unsigned char *in, unsigned in_size, void *context)
{
    (void)session;
    (void)context;
    unsigned char *chosen = NULL;
    int result =
        SSL_select_next_proto(&chosen, out_size, alpn_names, sizeof(alpn_names) - 1, in, in_size);
    *out = chosen;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static enum status use_files(const struct tls *tls, SSL_CTX *context, struct error *error)
{
    char reason[160];
    if (tls->cert_file != NULL) {
        if (SSL_CTX_use_certificate_chain_file(context, tls->cert_file) != 1) {
            first_error(reason, sizeof(reason));
            return error_set(error, STATUS_INVALID, "certificate %s: %s", tls->cert_file, reason);
        }
        if (SSL_CTX_use_PrivateKey_file(context, tls->key_file, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(context) != 1) {
            first_error(reason, sizeof(reason));
            return error_set(error, STATUS_INVALID, "private key %s: %s", tls->key_file, reason);
        }
    }
    if (tls->ca_file != NULL && SSL_CTX_load_verify_locations(context, tls->ca_file, NULL) != 1) {
        first_error(reason, sizeof(reason));
        return error_set(error, STATUS_INVALID, "authority %s: %s", tls->ca_file, reason);
    }
    if (tls->is_server && tls->ca_file != NULL)
        SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(tls->ca_file));
    return STATUS_OK;
}

static enum status make_context(const struct tls *tls, struct error *error, SSL_CTX **out_context)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(tls->is_server ? TLS_server_method() : TLS_client_method());
    if (context == NULL)
        return error_set(error, STATUS_EXHAUSTED, "no memory for TLS");
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    if (tls->is_server) {
        SSL_CTX_set_alpn_select_cb(context, choose_alpn, NULL);
        // Stateless tickets: a client that comes back saves the handshake, and we hold nothing.
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_session_id_context(context, (const unsigned char *)"vectron", 7);
        if (tls->ca_file != NULL)
            SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    } else {
        static const unsigned char h2[] = "\x02h2";
        SSL_CTX_set_alpn_protos(context, h2, sizeof(h2) - 1);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        if (tls->ca_file == NULL)
            SSL_CTX_set_default_verify_paths(context);
    }
    enum status status = use_files(tls, context, error);
    if (status != STATUS_OK) {
        SSL_CTX_free(context);
        return status;
    }
    *out_context = context;
    return STATUS_OK;
}

static void look_at_files(const struct tls *tls, struct file_state states[3])
{
    const char *const names[3] = {tls->cert_file, tls->key_file, tls->ca_file};
    for (int i = 0; i < 3; i++) {
        struct stat found;
        states[i] = (struct file_state){0};
        if (names[i] != NULL && stat(names[i], &found) == 0) {
            states[i].changed = found.st_mtim;
            states[i].size = found.st_size;
            states[i].inode = found.st_ino;
        }
    }
}

static bool states_differ(const struct file_state a[3], const struct file_state b[3])
{
    for (int i = 0; i < 3; i++) {
        if (a[i].changed.tv_sec != b[i].changed.tv_sec ||
            a[i].changed.tv_nsec != b[i].changed.tv_nsec || a[i].size != b[i].size ||
            a[i].inode != b[i].inode)
            return true;
    }
    return false;
}

static char *copy(struct str text)
{
    if (text.len == 0)
        return NULL;
    char *cstr = mem_alloc(text.len + 1);
    memcpy(cstr, text.data, text.len);
    return cstr;
}

static enum status tls_create(const struct tls_options *options, bool is_server,
                              struct error *error, struct tls **out_tls)
{
    if ((options->cert_file.len == 0) != (options->key_file.len == 0))
        return error_set(error, STATUS_INVALID, "a certificate and its private key go together");
    if (is_server && options->cert_file.len == 0)
        return error_set(error, STATUS_INVALID, "a TLS server needs a certificate");
    struct tls *tls = mem_alloc(sizeof(*tls));
    tls->is_server = is_server;
    tls->cert_file = copy(options->cert_file);
    tls->key_file = copy(options->key_file);
    tls->ca_file = copy(options->ca_file);
    pthread_mutex_init(&tls->mutex, NULL);
    look_at_files(tls, tls->files);
    tls->checked_ns = clock_monotonic_ns();
    enum status status = make_context(tls, error, &tls->context);
    if (status != STATUS_OK) {
        tls_destroy(tls);
        return status;
    }
    *out_tls = tls;
    return STATUS_OK;
}

enum status tls_server_create(const struct tls_options *options, struct error *error,
                              struct tls **out_tls)
{
    return tls_create(options, true, error, out_tls);
}

enum status tls_client_create(const struct tls_options *options, struct error *error,
                              struct tls **out_tls)
{
    return tls_create(options, false, error, out_tls);
}

void tls_destroy(struct tls *tls)
{
    if (tls == NULL)
        return;
    SSL_CTX_free(tls->context);
    pthread_mutex_destroy(&tls->mutex);
    mem_free(tls->cert_file);
    mem_free(tls->key_file);
    mem_free(tls->ca_file);
    mem_free(tls);
}

// Under the lock. A broken or half-written set of files is tried again at the next look, because
// only what was taken over is remembered.
static void reload_if_changed(struct tls *tls)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns - tls->checked_ns < NS_PER_SECOND)
        return;
    tls->checked_ns = now_ns;
    struct file_state states[3];
    look_at_files(tls, states);
    if (!states_differ(states, tls->files))
        return;
    SSL_CTX *context = NULL;
    if (make_context(tls, NULL, &context) != STATUS_OK) {
        atomic_fetch_add(&tls->reload_failure_count, 1);
        return;
    }
    SSL_CTX_free(tls->context);
    tls->context = context;
    memcpy(tls->files, states, sizeof(states));
    atomic_fetch_add(&tls->reload_count, 1);
}

// The name of a certificate is checked for clients; an IP address is no name for SNI.
static bool set_authority(SSL *session, struct str authority)
{
    char host[256];
    const char *colon = authority.len > 0 ? memrchr(authority.data, ':', authority.len) : NULL;
    if (authority.len > 0 && authority.data[0] == '[') {
        const char *bracket = memchr(authority.data, ']', authority.len);
        if (bracket == NULL)
            return false;
        authority = (struct str){authority.data + 1, (size_t)(bracket - authority.data) - 1};
    } else if (colon != NULL && memchr(authority.data, ':', authority.len) == colon) {
        authority.len = (size_t)(colon - authority.data);
    }
    if (authority.len == 0 || authority.len >= sizeof(host))
        return false;
    memcpy(host, authority.data, authority.len);
    host[authority.len] = '\0';
    unsigned char ip[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), host) == 1;
    SSL_set_hostflags(session, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(session, host) == 1 && SSL_set_tlsext_host_name(session, host) == 1;
}

SSL *tls_session_create(struct tls *tls, struct str authority)
{
    ERR_clear_error();
    pthread_mutex_lock(&tls->mutex);
    reload_if_changed(tls);
    SSL *session = SSL_new(tls->context); // with its own reference to the context
    pthread_mutex_unlock(&tls->mutex);
    if (session == NULL)
        return NULL;
    if (tls->is_server) {
        SSL_set_accept_state(session);
        return session;
    }
    SSL_set_connect_state(session);
    if (!set_authority(session, authority)) {
        SSL_free(session);
        return NULL;
    }
    return session;
}

bool tls_is_server(const struct tls *tls)
{
    return tls->is_server;
}

uint64_t tls_reload_count(const struct tls *tls)
{
    return atomic_load(&tls->reload_count);
}

uint64_t tls_reload_failure_count(const struct tls *tls)
{
    return atomic_load(&tls->reload_failure_count);
}
