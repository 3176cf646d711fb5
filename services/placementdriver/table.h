#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// An ordered map from bytes to a pointer: a sorted list of sorted chunks, so that millions of keys
// can be walked in order and changed one by one without moving them all. The keys belong to the
// values and must not change while they are in. One thread, or the owner's lock.

struct table_chunk;

struct table {
    struct table_chunk **chunks; // none is empty
    size_t chunk_count;
    size_t chunk_capacity;
    size_t count;
};

void table_init(struct table *table);
void table_deinit(struct table *table); // the values are the caller's

void *table_get(const struct table *table, struct str key); // NULL: not there
// The key must not be there yet.
void table_put(struct table *table, struct str key, void *value);
void *table_remove(struct table *table, struct str key); // the value that was there, or NULL

// Walk in the order of the keys, from the first that is not below `from`. The table must not change
// meanwhile.
struct table_cursor {
    const struct table *table;
    size_t chunk;
    size_t item;
};

struct table_cursor table_seek(const struct table *table, struct str from);
void *table_next(struct table_cursor *cursor); // NULL: no more
