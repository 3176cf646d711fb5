#pragma once

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "replica/wal.h"

// A model of the log for its tests: a plain array of groups. What step number n does depends on the
// seed, on n and on the state only, so a log that lost its end can be compared with the model after
// every number of steps. Each step makes one record at most.

enum { MODEL_GROUP_MAX = 512, MODEL_ENTRY_MAX = 512, MODEL_CONFIGURATION_MAX = 64 };

struct model_entry {
    uint64_t term;
    uint32_t size;
    uint32_t seed;
};

struct model_group {
    bool exists;
    uint64_t term;
    uint64_t voted_for;
    uint64_t snapshot_index;
    uint64_t snapshot_term;
    uint64_t configuration_index;
    uint32_t configuration_seed;
    uint32_t configuration_size;
    uint64_t first_index;
    uint32_t count;
    struct model_entry entries[MODEL_ENTRY_MAX];
};

struct model {
    uint64_t seed;
    uint64_t step_count;
    uint32_t group_count;
    uint32_t entry_size_max;
    struct model_group *groups;
};

static inline void model_init(struct model *model, uint64_t seed, uint32_t group_count,
                              uint32_t entry_size_max)
{
    *model = (struct model){.seed = seed,
                            .group_count = group_count,
                            .entry_size_max = entry_size_max,
                            .groups = calloc(group_count, sizeof(struct model_group))};
}

static inline void model_deinit(struct model *model)
{
    free(model->groups);
}

// Ids are neither small nor dense.
static inline uint64_t model_group_id(uint32_t position)
{
    return (uint64_t)position * 0x9e3779b97f4a7c15U + 1;
}

static inline void model_fill(uint8_t *bytes, uint32_t size, uint32_t seed)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)((seed + i) * 2654435761U >> 24);
}

static inline uint64_t model_last_index(const struct model_group *group)
{
    return group->first_index + group->count - 1;
}

static inline void model_cut_front(struct model_group *group, uint64_t first_index)
{
    if (first_index <= group->first_index)
        return;
    uint32_t count = (uint32_t)(first_index - group->first_index);
    group->count -= count;
    memmove(group->entries, group->entries + count, group->count * sizeof(struct model_entry));
    group->first_index = first_index;
}

// wal_group is NULL in the steps below when there is only the model.

static inline void model_put_entry(struct model *model, struct model_group *group, struct rng *rng,
                                   struct wal_group *wal_group)
{
    uint64_t index = model_last_index(group) + 1;
    // Now and then an entry replaces others, but none that is in the snapshot.
    uint64_t replaceable = model_last_index(group) - group->snapshot_index;
    if (replaceable > 0 && rng_below(rng, 8) == 0)
        index -= rng_below(rng, (replaceable < 10 ? replaceable : 10)) + 1;
    group->count = (uint32_t)(index - group->first_index);
    struct model_entry *entry = &group->entries[group->count];
    entry->term = group->term + 1;
    entry->size = (uint32_t)rng_below(rng, model->entry_size_max + 1);
    if (rng_below(rng, 4) > 0)
        entry->size /= 10;
    entry->seed = (uint32_t)rng_u64(rng);
    group->count++;
    if (wal_group == NULL)
        return;
    uint8_t *data = malloc(entry->size + 1);
    model_fill(data, entry->size, entry->seed);
    struct wal_entry put = {entry->term, (uint8_t)entry->seed, {data, entry->size}};
    wal_put_entries(wal_group, index, &put, 1);
    free(data);
}

static inline void model_put_snapshot(struct model_group *group, struct rng *rng,
                                      struct wal_group *wal_group)
{
    uint64_t behind = model_last_index(group) - group->snapshot_index;
    uint64_t index = group->snapshot_index + rng_below(rng, behind + 1);
    uint64_t term = group->snapshot_term;
    if (index > group->snapshot_index)
        term = group->entries[index - group->first_index].term;
    bool is_installed = rng_below(rng, 5) == 0;
    if (is_installed) {
        index = model_last_index(group) + 1 + rng_below(rng, 100);
        term = group->term + 1;
    }
    uint64_t keep_from = index + 1 - rng_below(rng, index < 10 ? index + 1 : 10);
    group->snapshot_index = index;
    group->snapshot_term = term;
    group->configuration_index = rng_below(rng, index + 1);
    group->configuration_seed = (uint32_t)rng_u64(rng);
    group->configuration_size = (uint32_t)rng_below(rng, MODEL_CONFIGURATION_MAX + 1);
    if (is_installed) {
        group->count = 0;
        group->first_index = index + 1;
    } else {
        model_cut_front(group, keep_from);
    }
    if (wal_group == NULL)
        return;
    uint8_t bytes[MODEL_CONFIGURATION_MAX];
    model_fill(bytes, group->configuration_size, group->configuration_seed);
    struct span configuration = {bytes, group->configuration_size};
    wal_put_snapshot(wal_group, index, term, configuration, group->configuration_index, keep_from);
}

// One more step, on the log too unless wal is NULL.
static inline void model_step(struct model *model, struct wal *wal)
{
    struct rng rng;
    rng_init(&rng, model->seed * 1000003 + model->step_count);
    model->step_count++;
    // The first groups are written to much more often than the last ones.
    uint64_t bound = rng_below(&rng, model->group_count) + 1;
    uint32_t position = (uint32_t)rng_below(&rng, rng_below(&rng, bound) + 1);
    struct model_group *group = &model->groups[position];
    uint64_t id = model_group_id(position);
    if (!group->exists) {
        *group = (struct model_group){.exists = true, .first_index = 1};
        if (wal != NULL)
            (void)wal_add(wal, id);
        return;
    }
    struct wal_group *wal_group = wal == NULL ? NULL : wal_find(wal, id);
    uint64_t what = rng_below(&rng, 1000);
    if (what < 2) {
        group->exists = false;
        if (wal != NULL)
            wal_remove(wal, wal_group);
    } else if (what < 100) {
        group->term += rng_below(&rng, 3);
        group->voted_for = rng_below(&rng, 5);
        if (wal != NULL)
            wal_put_vote(wal_group, group->term, group->voted_for);
    } else if (what < 120 || group->count == MODEL_ENTRY_MAX) {
        model_put_snapshot(group, &rng, wal_group);
    } else {
        model_put_entry(model, group, &rng, wal_group);
    }
}

// --- Comparing

static inline uint32_t digest_u64(uint32_t digest, uint64_t value)
{
    return crc32c(digest, &value, sizeof(value));
}

static inline uint32_t digest_entry(uint32_t digest, uint64_t term, uint8_t kind, struct span data)
{
    digest = digest_u64(digest, term);
    digest = digest_u64(digest, kind);
    digest = digest_u64(digest, data.len);
    return crc32c(digest, data.data, data.len);
}

static inline uint32_t digest_state(uint32_t digest, const struct wal_state *state)
{
    digest = digest_u64(digest, state->term);
    digest = digest_u64(digest, state->voted_for);
    digest = digest_u64(digest, state->snapshot_index);
    digest = digest_u64(digest, state->snapshot_term);
    digest = digest_u64(digest, state->configuration_index);
    digest = crc32c(digest, state->configuration.data, state->configuration.len);
    digest = digest_u64(digest, state->first_index);
    return digest_u64(digest, state->last_index);
}

static inline uint32_t model_digest(const struct model *model)
{
    uint32_t digest = 0;
    uint8_t *data = malloc(model->entry_size_max + 1);
    for (uint32_t position = 0; position < model->group_count; position++) {
        const struct model_group *group = &model->groups[position];
        if (!group->exists)
            continue;
        uint8_t configuration[MODEL_CONFIGURATION_MAX];
        model_fill(configuration, group->configuration_size, group->configuration_seed);
        struct wal_state state = {group->term,
                                  group->voted_for,
                                  group->snapshot_index,
                                  group->snapshot_term,
                                  {configuration, group->configuration_size},
                                  group->configuration_index,
                                  group->first_index,
                                  model_last_index(group)};
        digest = digest_u64(digest, model_group_id(position));
        digest = digest_state(digest, &state);
        for (uint32_t i = 0; i < group->count; i++) {
            const struct model_entry *entry = &group->entries[i];
            model_fill(data, entry->size, entry->seed);
            digest = digest_entry(digest, entry->term, (uint8_t)entry->seed,
                                  (struct span){data, entry->size});
        }
    }
    free(data);
    return digest;
}

// Of the groups that a model of this many can have. False: an entry cannot be read.
static inline bool wal_digest(struct wal *wal, uint32_t group_count, uint32_t *out_digest,
                              struct error *error)
{
    uint32_t digest = 0;
    struct buf data;
    buf_init(&data, SIZE_MAX);
    bool is_read = true;
    for (uint32_t position = 0; position < group_count && is_read; position++) {
        uint64_t id = model_group_id(position);
        struct wal_group *group = wal_find(wal, id);
        if (group == NULL)
            continue;
        struct wal_state state;
        wal_state(group, &state);
        digest = digest_u64(digest, id);
        digest = digest_state(digest, &state);
        for (uint64_t index = state.first_index; index <= state.last_index && is_read; index++) {
            uint64_t term = 0;
            uint8_t kind = 0;
            uint32_t size = 0;
            buf_clear(&data);
            is_read = wal_entry_info(group, index, &term, &kind, &size) &&
                      wal_read(group, index, &data, error) == STATUS_OK && data.len == size;
            digest = digest_entry(digest, term, kind, buf_span(&data));
        }
    }
    buf_deinit(&data);
    *out_digest = digest;
    return is_read;
}
