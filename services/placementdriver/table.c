#include "placementdriver/table.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

// Large enough that the list of chunks stays short, small enough that moving half of one is
// nothing.
enum { CHUNK_COUNT_MAX = 256 };

struct table_item {
    struct str key;
    void *value;
};

struct table_chunk {
    size_t count;
    struct table_item items[CHUNK_COUNT_MAX];
};

void table_init(struct table *table)
{
    *table = (struct table){0};
}

void table_deinit(struct table *table)
{
    for (size_t i = 0; i < table->chunk_count; i++)
        mem_free(table->chunks[i]);
    mem_free(table->chunks);
    table_init(table);
}

// The chunk in which the key is or belongs: the last that starts at or below it.
static size_t find_chunk(const struct table *table, struct str key)
{
    size_t low = 0;
    size_t high = table->chunk_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (str_compare(table->chunks[middle]->items[0].key, key) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// The first item in the chunk that is not below the key.
static size_t find_item(const struct table_chunk *chunk, struct str key)
{
    size_t low = 0;
    size_t high = chunk->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (str_compare(chunk->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool item_is(const struct table_chunk *chunk, size_t item, struct str key)
{
    return item < chunk->count && str_equal(chunk->items[item].key, key);
}

void *table_get(const struct table *table, struct str key)
{
    if (table->chunk_count == 0)
        return NULL;
    const struct table_chunk *chunk = table->chunks[find_chunk(table, key)];
    size_t item = find_item(chunk, key);
    return item_is(chunk, item, key) ? chunk->items[item].value : NULL;
}

static struct table_chunk *insert_chunk(struct table *table, size_t place)
{
    if (table->chunk_count == table->chunk_capacity) {
        table->chunk_capacity = table->chunk_capacity == 0 ? 4 : table->chunk_capacity * 2;
        table->chunks =
            mem_resize(table->chunks, table->chunk_capacity * sizeof(struct table_chunk *));
    }
    memmove(table->chunks + place + 1, table->chunks + place,
            (table->chunk_count - place) * sizeof(struct table_chunk *));
    table->chunk_count++;
    table->chunks[place] = mem_alloc(sizeof(struct table_chunk));
    return table->chunks[place];
}

static void split_chunk(struct table *table, size_t place)
{
    struct table_chunk *upper = insert_chunk(table, place + 1);
    struct table_chunk *lower = table->chunks[place];
    size_t half = lower->count / 2;
    upper->count = lower->count - half;
    memcpy(upper->items, lower->items + half, upper->count * sizeof(upper->items[0]));
    lower->count = half;
}

void table_put(struct table *table, struct str key, void *value)
{
    if (table->chunk_count == 0)
        insert_chunk(table, 0);
    size_t place = find_chunk(table, key);
    if (table->chunks[place]->count == CHUNK_COUNT_MAX) {
        split_chunk(table, place);
        place = find_chunk(table, key);
    }
    struct table_chunk *chunk = table->chunks[place];
    size_t item = find_item(chunk, key);
    ASSERT(!item_is(chunk, item, key));
    memmove(chunk->items + item + 1, chunk->items + item,
            (chunk->count - item) * sizeof(chunk->items[0]));
    chunk->items[item] = (struct table_item){key, value};
    chunk->count++;
    table->count++;
}

void *table_remove(struct table *table, struct str key)
{
    if (table->chunk_count == 0)
        return NULL;
    size_t place = find_chunk(table, key);
    struct table_chunk *chunk = table->chunks[place];
    size_t item = find_item(chunk, key);
    if (!item_is(chunk, item, key))
        return NULL;
    void *value = chunk->items[item].value;
    chunk->count--;
    table->count--;
    memmove(chunk->items + item, chunk->items + item + 1,
            (chunk->count - item) * sizeof(chunk->items[0]));
    if (chunk->count == 0) {
        mem_free(chunk);
        table->chunk_count--;
        memmove(table->chunks + place, table->chunks + place + 1,
                (table->chunk_count - place) * sizeof(struct table_chunk *));
    }
    return value;
}

struct table_cursor table_seek(const struct table *table, struct str from)
{
    struct table_cursor cursor = {.table = table};
    if (table->chunk_count > 0) {
        cursor.chunk = find_chunk(table, from);
        cursor.item = find_item(table->chunks[cursor.chunk], from);
    }
    return cursor;
}

void *table_next(struct table_cursor *cursor)
{
    const struct table *table = cursor->table;
    while (cursor->chunk < table->chunk_count) {
        const struct table_chunk *chunk = table->chunks[cursor->chunk];
        if (cursor->item < chunk->count)
            return chunk->items[cursor->item++].value;
        cursor->chunk++;
        cursor->item = 0;
    }
    return NULL;
}
