#pragma once

#include "authsvc/work.h"

// API keys: a user's own, and what other services ask about one.

enum status keys_create(struct work *work);
enum status keys_list(struct work *work);
enum status keys_delete(struct work *work);
enum status keys_validate(struct work *work);
enum status keys_get_details(struct work *work);

// A key of the work's user. NOT_FOUND, with the sentence for it.
enum status keys_find(struct work *work, const char *key_id, struct found_key *out_key);

// Take a key and everything that leads to it out of the store.
enum status keys_remove(struct work *work, struct batch *batch, const struct found_key *key);
