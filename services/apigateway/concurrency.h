#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

// How many requests each user may have under way at once. Many threads, no lock. A fixed table:
// users are told apart by two hashes, so that one who is over his limit is taken for another only
// when both are the same.

struct concurrency;

struct concurrency *concurrency_create(uint32_t per_user); // per_user > 0
void concurrency_destroy(struct concurrency *concurrency); // concurrency may be NULL

// Hot path. False: as many as he may have are under way. After true comes concurrency_give once.
bool concurrency_take(struct concurrency *concurrency, struct str user_id);
void concurrency_give(struct concurrency *concurrency, struct str user_id);
