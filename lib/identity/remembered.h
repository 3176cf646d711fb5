#pragma once

#include "identity/directory.h"

// Tokens that were found good, with what they were found to mean. Private to the directory. Reading
// takes no lock and any number of threads may do it; everything else is for one thread at a time
// (the directory's lock). Bounded: 4,096 tokens, the least recently used of four goes.

struct remembered;

// Called for a key whose token is forgotten or whose use is taken.
typedef void (*remembered_use_fn)(struct str key_id, int64_t last_used_at, void *context);

struct remembered *remembered_create(void);
void remembered_destroy(struct remembered *remembered);

uint64_t remembered_hash(const struct remembered *remembered, struct str jwt);

// Hot path. NOT_FOUND: not remembered; error is not touched. EXHAUSTED: no room in the arena. Notes
// the use of the token. Whether it has expired meanwhile is the caller's question.
enum status remembered_get(struct remembered *remembered, struct str jwt, uint64_t hash,
                           struct arena *arena, struct error *error, struct caller *out_caller);

void remembered_put(struct remembered *remembered, struct str jwt, uint64_t hash,
                    const struct caller *caller, remembered_use_fn used, void *context);
void remembered_forget_key(struct remembered *remembered, struct str key_id, remembered_use_fn used,
                           void *context);
void remembered_forget_user(struct remembered *remembered, struct str user_id,
                            remembered_use_fn used, void *context);
void remembered_forget_all(struct remembered *remembered, remembered_use_fn used, void *context);
void remembered_take_uses(struct remembered *remembered, remembered_use_fn used, void *context);

// EXHAUSTED: no room in the arena.
enum status caller_copy(const struct caller *caller, struct arena *arena, struct error *error,
                        struct caller *out_caller);
