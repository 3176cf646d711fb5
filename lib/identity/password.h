#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

// Passwords: the rules for them, and argon2id (RFC 9106) as libsodium has it. Hashing is slow on
// purpose and takes 19 MiB; at most two are computed at once in a process, and at most
// PASSWORD_WAITING_MAX callers wait for their turn, so that a flood of logins takes neither the
// memory nor the processors. Any thread that may wait (not a loop).

enum { PASSWORD_HASH_SIZE = 128, PASSWORD_WAITING_MAX = 64 };

// Once at start, before anything else here: makes the hash that stands in for unknown users.
enum status password_init(struct error *error);

// 8 to 128 characters of at least 3 of the 4 classes (lower case, upper case, digits, others).
// INVALID: the error says what is missing, never what was given.
enum status password_check_rules(struct str password, struct error *error);

// NUL-terminated text that holds algorithm, cost, salt and hash. EXHAUSTED: too many are waiting.
enum status password_hash(struct str password, struct error *error,
                          char out_hash[static PASSWORD_HASH_SIZE]);
// hash is NULL when there is no such user: it takes as long and is never right. EXHAUSTED: too many
// are waiting.
enum status password_verify(const char *hash, struct str password, struct error *error,
                            bool *out_is_right);

// An e-mail address as it is kept: trimmed, ASCII letters in lower case. INVALID: empty, longer
// than 254 bytes, no UTF-8, not exactly one @ with something on both sides, spaces or control
// characters.
enum status email_normalise(struct str email, struct arena *arena, struct error *error,
                            struct str *out_email);
