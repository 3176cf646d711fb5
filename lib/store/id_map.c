#include "store/id_map.h"

#include <stdbool.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

// Linear probing; an entry's home is its tag scaled to the capacity, so a larger table has the same
// order and growing is one pass over it. Removing moves the entries behind it back: no tombstones.

struct id_entry {
    uint32_t tag;
    uint32_t slot; // INDEX_SLOT_NONE: the entry is empty
};

enum { CAPACITY_MIN = 16 };

void id_map_init(struct id_map *map)
{
    *map = (struct id_map){0};
    rng_secure(&map->seed, sizeof(map->seed));
}

void id_map_deinit(struct id_map *map)
{
    mem_free(map->entries);
}

static uint64_t home_of(const struct id_map *map, uint32_t tag)
{
    return tag * map->capacity >> 32;
}

static uint64_t next_place(const struct id_map *map, uint64_t place)
{
    return place + 1 == map->capacity ? 0 : place + 1;
}

static uint32_t tag_of(const struct id_map *map, struct str id)
{
    return (uint32_t)(hash64(str_span(id), map->seed) >> 32);
}

static void put_new(struct id_map *map, struct id_entry entry)
{
    uint64_t place = home_of(map, entry.tag);
    while (map->entries[place].slot != INDEX_SLOT_NONE)
        place = next_place(map, place);
    map->entries[place] = entry;
    map->count++;
}

static bool is_roomy(uint64_t count, uint64_t capacity)
{
    return count <= capacity / 5 * 4;
}

enum status id_map_reserve(struct id_map *map, uint32_t count)
{
    uint64_t wanted = map->count + count;
    if (is_roomy(wanted, map->capacity))
        return STATUS_OK;
    uint64_t capacity = map->capacity < CAPACITY_MIN ? CAPACITY_MIN : map->capacity;
    while (!is_roomy(wanted, capacity))
        capacity += capacity / 2;
    struct id_map grown = {.capacity = capacity, .seed = map->seed};
    grown.entries = mem_try_alloc(capacity * sizeof(grown.entries[0]));
    if (grown.entries == NULL)
        return STATUS_EXHAUSTED;
    for (uint64_t i = 0; i < capacity; i++)
        grown.entries[i].slot = INDEX_SLOT_NONE;
    for (uint64_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].slot != INDEX_SLOT_NONE)
            put_new(&grown, map->entries[i]);
    }
    mem_free(map->entries);
    *map = grown;
    return STATUS_OK;
}

// The place of the id's entry, or of the empty one where it would be.
static uint64_t find(const struct id_map *map, const struct index *index, struct str id,
                     uint32_t tag)
{
    uint64_t place = home_of(map, tag);
    for (;; place = next_place(map, place)) {
        const struct id_entry *entry = &map->entries[place];
        if (entry->slot == INDEX_SLOT_NONE)
            return place;
        if (entry->tag == tag && str_equal(index_id(index, entry->slot), id))
            return place;
    }
}

uint32_t id_map_get(const struct id_map *map, const struct index *index, struct str id)
{
    if (map->count == 0)
        return INDEX_SLOT_NONE;
    return map->entries[find(map, index, id, tag_of(map, id))].slot;
}

uint32_t id_map_put(struct id_map *map, const struct index *index, struct str id, uint32_t slot)
{
    ASSERT(is_roomy(map->count, map->capacity) && map->capacity > 0);
    uint32_t tag = tag_of(map, id);
    uint64_t place = find(map, index, id, tag);
    uint32_t before = map->entries[place].slot;
    map->entries[place] = (struct id_entry){tag, slot};
    map->count += before == INDEX_SLOT_NONE;
    return before;
}

// Whether an entry with this home, found at place, may move to the hole without being in front of
// its home: the hole lies cyclically in [home, place).
static bool may_move(uint64_t home, uint64_t hole, uint64_t place)
{
    if (hole <= place)
        return home <= hole || home > place;
    return home <= hole && home > place;
}

uint32_t id_map_remove(struct id_map *map, const struct index *index, struct str id)
{
    if (map->count == 0)
        return INDEX_SLOT_NONE;
    uint64_t hole = find(map, index, id, tag_of(map, id));
    uint32_t slot = map->entries[hole].slot;
    if (slot == INDEX_SLOT_NONE)
        return slot;
    uint64_t place = hole;
    for (;;) {
        place = next_place(map, place);
        if (map->entries[place].slot == INDEX_SLOT_NONE)
            break;
        if (may_move(home_of(map, map->entries[place].tag), hole, place)) {
            map->entries[hole] = map->entries[place];
            hole = place;
        }
    }
    map->entries[hole] = (struct id_entry){.slot = INDEX_SLOT_NONE};
    map->count--;
    return slot;
}

uint64_t id_map_memory_size(const struct id_map *map)
{
    return map->capacity * sizeof(map->entries[0]);
}
