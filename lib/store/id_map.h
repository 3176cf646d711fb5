#pragma once

#include <stdint.h>

#include "base/str.h"
#include "index/index.h"

// From a point's id to its slot. It keeps no id: 32 bits of a seeded hash and the slot, 8 bytes an
// entry, in an open-addressed table ordered by hash; the index holds the ids that they are compared
// with. The writer's thread only.

struct id_map {
    struct id_entry *entries;
    uint64_t capacity;
    uint64_t count;
    uint64_t seed; // random: nobody can choose ids that collide
};

void id_map_init(struct id_map *map);
void id_map_deinit(struct id_map *map);
// Room for so many more. EXHAUSTED: no memory.
enum status id_map_reserve(struct id_map *map, uint32_t count);

// INDEX_SLOT_NONE: not there.
uint32_t id_map_get(const struct id_map *map, const struct index *index, struct str id);
// The slot that the id had, or INDEX_SLOT_NONE. The room was reserved.
uint32_t id_map_put(struct id_map *map, const struct index *index, struct str id, uint32_t slot);
uint32_t id_map_remove(struct id_map *map, const struct index *index, struct str id);

uint64_t id_map_memory_size(const struct id_map *map);
