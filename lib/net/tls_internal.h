#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"
#include "net/tls.h"

// A session for one connection, in accept or connect state; NULL when OpenSSL has no memory or the
// authority is no name. A server looks here whether its files changed. Any thread.
SSL *tls_session_create(struct tls *tls, struct str authority);
bool tls_is_server(const struct tls *tls);
// Put what OpenSSL has to say about the last failure of a handshake or a read into text.
void tls_error_text(const SSL *session, char *text, size_t size);

// For tests: how often new files were taken over and how often they were found broken.
uint64_t tls_reload_count(const struct tls *tls);
uint64_t tls_reload_failure_count(const struct tls *tls);
