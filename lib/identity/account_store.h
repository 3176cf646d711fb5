#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

// Where accounts are kept: small values under keys, each with a version, changed by
// compare-and-set. An interface with two implementations: a file of this process
// (account_store_sqlite.h), or the placement driver's replicated state. What the values mean is not
// known here. Any thread; calls wait for disk or network, so never on a loop.

enum { ACCOUNT_KEY_SIZE_MAX = 512, ACCOUNT_VALUE_SIZE_MAX = 64 << 10, ACCOUNT_LIST_MAX = 1000 };

struct account_entry {
    struct str key;
    struct str value;
    uint64_t version; // in a put: the one expected, 0: there is no such entry yet
    bool is_removed;  // in a put: the entry goes
};

struct account_list {
    struct str prefix;
    struct str after; // go on behind this key; empty: from the start
    uint32_t limit;   // 1 to ACCOUNT_LIST_MAX
};

struct account_page {
    const struct account_entry *entries; // by key, bytewise
    uint32_t count;
    bool has_more;
};

struct account_store;

struct account_store_ops {
    enum status (*get)(struct account_store *store, struct str key, struct arena *arena,
                       struct error *error, struct account_entry *out_entry);
    enum status (*list)(struct account_store *store, const struct account_list *list,
                        struct arena *arena, struct error *error, struct account_page *out_page);
    enum status (*put)(struct account_store *store, const struct account_entry *entries,
                       uint32_t count, struct error *error);
    void (*destroy)(struct account_store *store);
};

// An implementation begins with this.
struct account_store {
    const struct account_store_ops *ops;
};

void account_store_destroy(struct account_store *store); // store may be NULL

// NOT_FOUND, and whatever keeps the store from answering: IO, CORRUPT, UNAVAILABLE, TIMEOUT. What
// comes back lives in the arena; EXHAUSTED when it does not fit there.
enum status account_store_get(struct account_store *store, struct str key, struct arena *arena,
                              struct error *error, struct account_entry *out_entry);
enum status account_store_list(struct account_store *store, const struct account_list *list,
                               struct arena *arena, struct error *error,
                               struct account_page *out_page);
// All or nothing. ABORTED: an entry's version is not the one expected; read again and try again.
// On UNAVAILABLE and TIMEOUT it may have happened.
enum status account_store_put(struct account_store *store, const struct account_entry *entries,
                              uint32_t count, struct error *error);
