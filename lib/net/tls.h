#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

// TLS 1.3 for listeners and channels. A server context looks at its files at most once a second, at
// a handshake, and takes new ones over when they changed; when the new ones are broken it keeps the
// old ones and counts it. Made at start, read-only for users afterwards; shared by all loops.

struct tls;

struct tls_options {
    struct str cert_file; // PEM, chain; a server must have one, a client may (mutual TLS)
    struct str key_file;  // PEM
    struct str ca_file;   // PEM: whom to trust. Server: set means that clients must show a
                          // certificate. Client: empty means the system's list
};

enum status tls_server_create(const struct tls_options *options, struct error *error,
                              struct tls **out_tls);
enum status tls_client_create(const struct tls_options *options, struct error *error,
                              struct tls **out_tls);
void tls_destroy(struct tls *tls); // tls may be NULL; after its listeners and channels
