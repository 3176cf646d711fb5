#include "base/map.h"

#include <pthread.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/rng.h"

// Linear probing, at most 3/4 full; a removal moves what follows back, so there are no tombstones.
// The hash is SipHash-1-3 under a key drawn once per process: unlike faster hashes it has no
// collisions that work for every key.

enum { SLOT_COUNT_MIN = 8 };

struct slot {
    char *key; // NULL: free
    size_t key_len;
    uint64_t hash;
    void *value;
};

struct map {
    struct slot *slots;
    size_t slot_count; // a power of two, or 0 before the first put
    size_t count;
};

static uint64_t hash_key[2];
static pthread_once_t hash_key_once = PTHREAD_ONCE_INIT;

static void draw_hash_key(void)
{
    rng_secure(hash_key, sizeof(hash_key));
}

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return (value << bits) | (value >> (64 - bits));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static uint64_t hash_str(struct str key)
{
    uint64_t v[4] = {0x736F6D6570736575U ^ hash_key[0], 0x646F72616E646F6DU ^ hash_key[1],
                     0x6C7967656E657261U ^ hash_key[0], 0x7465646279746573U ^ hash_key[1]};
    size_t left = key.len;
    const char *at = key.data;
    for (; left >= 8; left -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)key.len << 56;
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)(uint8_t)at[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xFF;
    for (unsigned i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct map *map_create(void)
{
    ASSERT(pthread_once(&hash_key_once, draw_hash_key) == 0);
    return mem_alloc(sizeof(struct map));
}

void map_destroy(struct map *map)
{
    if (map == NULL)
        return;
    for (size_t i = 0; i < map->slot_count; i++)
        mem_free(map->slots[i].key);
    mem_free(map->slots);
    mem_free(map);
}

size_t map_count(const struct map *map)
{
    return map->count;
}

// The slot that holds key, or the free one where it would go. There is always a free one.
static size_t find_slot(const struct map *map, struct str key, uint64_t hash)
{
    size_t mask = map->slot_count - 1;
    size_t i = (size_t)hash & mask;
    while (map->slots[i].key != NULL) {
        const struct slot *slot = &map->slots[i];
        if (slot->hash == hash && str_equal((struct str){slot->key, slot->key_len}, key))
            break;
        i = (i + 1) & mask;
    }
    return i;
}

void *map_get(const struct map *map, struct str key)
{
    if (map->count == 0)
        return NULL;
    return map->slots[find_slot(map, key, hash_str(key))].value;
}

static void grow(struct map *map)
{
    struct slot *old = map->slots;
    size_t old_count = map->slot_count;
    map->slot_count = old_count == 0 ? SLOT_COUNT_MIN : old_count * 2;
    map->slots = mem_alloc(map->slot_count * sizeof(map->slots[0]));
    size_t mask = map->slot_count - 1;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].key == NULL)
            continue;
        size_t to = (size_t)old[i].hash & mask;
        while (map->slots[to].key != NULL)
            to = (to + 1) & mask;
        map->slots[to] = old[i];
    }
    mem_free(old);
}

void *map_put(struct map *map, struct str key, void *value)
{
    ASSERT(value != NULL); // map_get could not tell it from absence
    if (map->count + 1 > map->slot_count / 4 * 3)
        grow(map);
    uint64_t hash = hash_str(key);
    struct slot *slot = &map->slots[find_slot(map, key, hash)];
    void *before = slot->value;
    if (slot->key == NULL) {
        slot->key = mem_alloc(key.len + 1);
        if (key.len > 0)
            memcpy(slot->key, key.data, key.len);
        slot->key_len = key.len;
        slot->hash = hash;
        map->count++;
    }
    slot->value = value;
    return before;
}

void *map_remove(struct map *map, struct str key)
{
    if (map->count == 0)
        return NULL;
    size_t hole = find_slot(map, key, hash_str(key));
    void *value = map->slots[hole].value;
    if (map->slots[hole].key == NULL)
        return NULL;
    mem_free(map->slots[hole].key);
    map->count--;

    // Move back whatever was pushed past its place by what stood in the hole.
    size_t mask = map->slot_count - 1;
    for (size_t i = (hole + 1) & mask; map->slots[i].key != NULL; i = (i + 1) & mask) {
        size_t home = (size_t)map->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct slot){0};
    return value;
}

bool map_next(const struct map *map, size_t *position, struct str *out_key, void **out_value)
{
    for (; *position < map->slot_count; (*position)++) {
        const struct slot *slot = &map->slots[*position];
        if (slot->key == NULL)
            continue;
        *out_key = (struct str){slot->key, slot->key_len};
        *out_value = slot->value;
        (*position)++;
        return true;
    }
    return false;
}
