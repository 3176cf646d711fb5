#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// A hash map from bytes to a pointer, with open addressing and a seeded hash (an attacker who
// chooses the keys cannot make them collide). It copies the keys and never touches the values. One
// thread, or a lock of the owner's.

struct map;

struct map *map_create(void);
void map_destroy(struct map *map); // map may be NULL; the values are the caller's
size_t map_count(const struct map *map);

void *map_get(const struct map *map, struct str key); // NULL: not there
// The value that was there, or NULL. A value is never NULL.
void *map_put(struct map *map, struct str key, void *value);
void *map_remove(struct map *map, struct str key); // the value that was there, or NULL

// Walk in no particular order; the map must not change meanwhile. Start with *position = 0.
bool map_next(const struct map *map, size_t *position, struct str *out_key, void **out_value);
