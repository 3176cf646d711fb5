#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "replica/wal_internal.h"

enum { CAPACITY_MIN = 16 };

// An entry takes some bytes on disk: more of them than this are not there.
#define COUNT_MAX ((uint64_t)1 << 30)

static void pin(struct wal *wal, uint32_t number, size_t size)
{
    struct wal_segment *segment = wal_segment_of(wal, number);
    if (segment == NULL)
        return;
    segment->pin_count++;
    segment->live_size += size;
    wal->live_size += size;
}

static void unpin(struct wal *wal, uint32_t number, size_t size)
{
    struct wal_segment *segment = wal_segment_of(wal, number);
    if (segment == NULL)
        return;
    ASSERT(segment->pin_count > 0 && segment->live_size >= size);
    segment->pin_count--;
    segment->live_size -= size;
    wal->live_size -= size;
}

static void pin_place(struct wal_group *group, const struct wal_place *place)
{
    pin(group->wal, place->segment, WAL_RECORD_SIZE + place->size);
}

static void unpin_place(struct wal_group *group, const struct wal_place *place)
{
    unpin(group->wal, place->segment, WAL_RECORD_SIZE + place->size);
}

struct wal_group *wal_group_create(struct wal *wal, uint64_t id)
{
    struct wal_group *group = mem_alloc(sizeof(*group));
    group->wal = wal;
    group->id = id;
    group->first_index = 1;
    buf_init(&group->configuration, WAL_DATA_SIZE_MAX);
    wal->head_size += wal_group_state_size(group);
    struct str key = {(const char *)&group->id, sizeof(group->id)};
    void *before = map_put(wal->groups, key, group);
    ASSERT(before == NULL);
    return group;
}

void wal_group_destroy(struct wal_group *group)
{
    struct wal *wal = group->wal;
    wal_group_cut_front(group, wal_group_last_index(group) + 1);
    unpin(wal, group->vote_segment, 0);
    unpin(wal, group->snapshot_segment, 0);
    wal->head_size -= wal_group_state_size(group);
    struct str key = {(const char *)&group->id, sizeof(group->id)};
    void *before = map_remove(wal->groups, key);
    ASSERT(before == group);
    buf_deinit(&group->configuration);
    mem_free(group->places);
    mem_free(group);
}

size_t wal_group_state_size(const struct wal_group *group)
{
    return 2 * WAL_RECORD_SIZE + WAL_SNAPSHOT_SIZE + group->configuration.len;
}

// --- The table of entries

uint64_t wal_group_last_index(const struct wal_group *group)
{
    return group->first_index + group->count - 1;
}

struct wal_place *wal_group_place(const struct wal_group *group, uint64_t index)
{
    if (index < group->first_index || index - group->first_index >= group->count)
        return NULL;
    return &group->places[group->start + (index - group->first_index)];
}

// A table of this many, with room before the first.
static void resize(struct wal_group *group, size_t room, size_t capacity)
{
    struct wal_place *places = mem_alloc(capacity * sizeof(*places));
    if (group->count > 0)
        memcpy(places + room, group->places + group->start, group->count * sizeof(*places));
    mem_free(group->places);
    group->places = places;
    group->start = room;
    group->capacity = capacity;
}

// After entries went: a table that is mostly empty shrinks.
static void shrink(struct wal_group *group)
{
    if (group->count == 0)
        group->start = 0;
    if (group->capacity > 4 * CAPACITY_MIN && group->count < group->capacity / 4)
        resize(group, 0, group->capacity / 2);
}

void wal_group_push(struct wal_group *group, const struct wal_place *place)
{
    if (group->start + group->count == group->capacity) {
        size_t capacity = group->count * 2 < CAPACITY_MIN ? CAPACITY_MIN : group->count * 2;
        resize(group, 0, capacity);
    }
    group->places[group->start + group->count] = *place;
    group->count++;
    pin_place(group, place);
}

void wal_group_set(struct wal_group *group, uint64_t index, const struct wal_place *place)
{
    struct wal_place *held = wal_group_place(group, index);
    ASSERT(held != NULL);
    unpin_place(group, held);
    *held = *place;
    pin_place(group, place);
}

void wal_group_cut_front(struct wal_group *group, uint64_t first_index)
{
    while (group->count > 0 && group->first_index < first_index) {
        unpin_place(group, &group->places[group->start]);
        group->start++;
        group->count--;
        group->first_index++;
    }
    if (group->first_index < first_index)
        group->first_index = first_index;
    shrink(group);
}

void wal_group_cut_back(struct wal_group *group, uint64_t last_index)
{
    while (group->count > 0 && wal_group_last_index(group) > last_index) {
        unpin_place(group, &group->places[group->start + group->count - 1]);
        group->count--;
    }
    shrink(group);
}

bool wal_group_cover(struct wal_group *group, uint64_t first_index, uint64_t last_index)
{
    if (group->count == 0)
        group->first_index = first_index;
    if (last_index >= first_index && last_index - first_index >= COUNT_MAX)
        return false;
    if (first_index < group->first_index) {
        uint64_t more = group->first_index - first_index;
        if (more >= COUNT_MAX)
            return false;
        resize(group, more, more + group->count); // the room before the first is zeroed
        group->start = 0;
        group->count += more;
        group->first_index = first_index;
    }
    if (last_index > wal_group_last_index(group) &&
        last_index - wal_group_last_index(group) >= COUNT_MAX)
        return false;
    while (wal_group_last_index(group) < last_index)
        wal_group_push(group, &(struct wal_place){0});
    return true;
}

// --- The state

void wal_group_set_vote(struct wal_group *group, uint64_t term, uint64_t voted_for,
                        uint32_t segment)
{
    group->term = term;
    group->voted_for = voted_for;
    unpin(group->wal, group->vote_segment, 0);
    group->vote_segment = segment;
    pin(group->wal, segment, 0);
}

void wal_group_set_snapshot(struct wal_group *group, uint64_t index, uint64_t term,
                            const struct wal_snapshot *snapshot, uint32_t segment)
{
    group->snapshot_index = index;
    group->snapshot_term = term;
    group->configuration_index = snapshot->configuration_index;
    // When a segment begins the configuration is the one that the group has already.
    if (snapshot->configuration.data != group->configuration.data) {
        group->wal->head_size -= group->configuration.len;
        buf_clear(&group->configuration);
        buf_append(&group->configuration, snapshot->configuration.data,
                   snapshot->configuration.len);
        ASSERT(!buf_has_overflowed(&group->configuration));
        group->wal->head_size += group->configuration.len;
    }
    unpin(group->wal, group->snapshot_segment, 0);
    group->snapshot_segment = segment;
    pin(group->wal, segment, 0);
}
