#pragma once

#include "base/config.h"
#include "base/error.h"
#include "base/str.h"

// The secrets that services share, read once at start. Never logged, never printed.
//
// JWT_SECRET (32 characters at least), or the file VECTRON_SECRET_FILE (./vectron.secret), which
// the first service of a folder makes (mode 0600, put in place whole, so that two that start
// together agree). VECTRON_JWT_PREVIOUS_SECRET or VECTRON_JWT_PREVIOUS_SECRET_FILE: one that is
// accepted besides it while it is being changed. VECTRON_CLUSTER_SECRET or
// VECTRON_CLUSTER_SECRET_FILE: proof between services.

enum { SECRET_SIZE_MAX = 255, JWT_SECRET_SIZE_MIN = 32 };

struct secrets {
    char jwt[SECRET_SIZE_MAX + 1];          // NUL-terminated
    char previous_jwt[SECRET_SIZE_MAX + 1]; // accepted as well; empty: there is none
    char cluster[SECRET_SIZE_MAX + 1];      // empty: there is none
    char internal_token[65];          // hex; derived from the cluster secret, empty without one
    char identity_token[65];          // hex; derived from the JWT secret: gateway to auth service
    char previous_identity_token[65]; // the same of the other one
};

// Rows for a service's table of settings.
// clang-format off
#define SECRET_SETTINGS                                                              \
    {"jwt-secret", "JWT_SECRET", SETTING_STR, true, "",                              \
     "secret of HS256 tokens, 32 characters at least"},                              \
    {"secret-file", "VECTRON_SECRET_FILE", SETTING_STR, false, "./vectron.secret",   \
     "where the secret is kept when JWT_SECRET is not set"},                         \
    {"jwt-previous-secret", "VECTRON_JWT_PREVIOUS_SECRET", SETTING_STR, true, "",    \
     "a secret that is accepted as well, while the secret is being changed"},        \
    {"jwt-previous-secret-file", "VECTRON_JWT_PREVIOUS_SECRET_FILE", SETTING_STR,    \
     false, "", "a file that holds it"}

#define CLUSTER_SETTINGS                                                             \
    {"cluster-secret", "VECTRON_CLUSTER_SECRET", SETTING_STR, true, "",              \
     "proof between services; without it they listen on loopback only"},             \
    {"cluster-secret-file", "VECTRON_CLUSTER_SECRET_FILE", SETTING_STR, false, "",   \
     "a file that holds the cluster secret"}
// clang-format on

// Reads what config has settings for. INVALID: too short or too long. IO: the file.
enum status secrets_load(const struct config *config, struct error *error, struct secrets *out);
// The same for who is no service: a file that is not there is not made, but INVALID.
enum status secrets_read(const struct config *config, struct error *error, struct secrets *out);

// A listener of an internal service: loopback, inproc or with a cluster secret, else INVALID with
// the reason.
enum status secrets_check_internal_address(const struct secrets *secrets, struct str address,
                                           struct error *error);

// What a file that holds a secret says, without white space at its ends. INVALID:
// empty or longer than SECRET_SIZE_MAX. IO: cannot be read.
enum status secret_read_file(const char *path, struct error *error,
                             char out_secret[static SECRET_SIZE_MAX + 1]);
