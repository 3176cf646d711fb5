#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

// Key pairs that sign, in the form that JOSE wants (RFC 7518, RFC 8037): ES256 (P-256 and SHA-256)
// and EdDSA (Ed25519). A key is constant once read: any thread.

enum signature_algorithm { SIGNATURE_ES256, SIGNATURE_EDDSA };

// Both have the same sizes: R and S, or x and y, of 32 bytes each; EdDSA's public key is 32 bytes.
enum { SIGNATURE_SIZE = 64, SIGNATURE_PUBLIC_SIZE_MAX = 64 };

struct signature_key;

// A private or a public key in PEM (PKCS #8, SEC 1, SubjectPublicKeyInfo), without a passphrase.
// INVALID: neither, or of another kind; the error never holds a part of the text.
enum status signature_key_read(struct str pem, struct error *error, struct signature_key **out_key);
void signature_key_destroy(struct signature_key *key); // key may be NULL

enum signature_algorithm signature_key_algorithm(const struct signature_key *key);
const char *signature_algorithm_name(enum signature_algorithm algorithm); // "ES256", "EdDSA"
bool signature_key_can_sign(const struct signature_key *key);             // it is a private one
// The public part: x and y, or Ed25519's 32 bytes. Borrowed from the key.
struct span signature_key_public(const struct signature_key *key);

// BUG: the key is a public one, or the library failed.
enum status signature_sign(const struct signature_key *key, struct span data, struct error *error,
                           uint8_t out_signature[static SIGNATURE_SIZE]);
bool signature_verify(const struct signature_key *key, struct span data, struct span signature);
