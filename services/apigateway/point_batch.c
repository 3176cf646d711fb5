#include "apigateway/point_batch.h"

#include <string.h>

#include "base/hash.h"
#include "base/rng.h"

static enum status fail_memory(struct error *error)
{
    return error_set(error, STATUS_EXHAUSTED, "the request needs too much memory");
}

// Open addressing over the ids, twice as large as needed. The seed keeps who chooses the ids from
// making them collide.
struct id_table {
    uint32_t *slots; // index of a point plus one; 0: free
    size_t mask;
    uint64_t seed;
};

static enum status table_create(size_t count, struct arena *arena, struct id_table *out_table)
{
    size_t size = 4;
    while (size < count * 2)
        size *= 2;
    uint32_t *slots = arena_try_alloc(arena, size * sizeof(*slots));
    if (slots == NULL)
        return STATUS_EXHAUSTED;
    *out_table = (struct id_table){.slots = slots, .mask = size - 1};
    rng_secure(&out_table->seed, sizeof(out_table->seed));
    return STATUS_OK;
}

// False: a point of this id is there already.
static bool table_add(struct id_table *table, const Vectron__Worker__V1__ShardPoint *points,
                      uint32_t index)
{
    struct str id = str_from_cstr(points[index].id);
    size_t slot = hash64(str_span(id), table->seed) & table->mask;
    while (table->slots[slot] != 0) {
        if (strcmp(points[table->slots[slot] - 1].id, points[index].id) == 0)
            return false;
        slot = (slot + 1) & table->mask;
    }
    table->slots[slot] = index + 1;
    return true;
}

// From the last to the first, so that the last of an id stays. shards[i] receives the index of the
// point's shard, or UINT32_MAX for a point that is replaced.
static void choose_shards(const Vectron__Worker__V1__ShardPoint *points, uint32_t count,
                          const struct cluster_collection *collection, struct id_table *table,
                          uint32_t *shards)
{
    for (uint32_t i = count; i-- > 0;) {
        const struct cluster_shard *shard =
            cluster_collection_route(collection, str_from_cstr(points[i].id));
        shards[i] =
            table_add(table, points, i) ? (uint32_t)(shard - collection->shards) : UINT32_MAX;
    }
}

static enum status group(Vectron__Worker__V1__ShardPoint *points, uint32_t count,
                         const struct cluster_collection *collection, struct arena *arena,
                         struct point_batch *out_batch)
{
    uint32_t *shards = arena_try_alloc(arena, count * sizeof(*shards));
    size_t *starts = arena_try_alloc(arena, (collection->shard_count + 1) * sizeof(*starts));
    Vectron__Worker__V1__ShardPoint **sorted = arena_try_alloc(arena, count * sizeof(*sorted));
    struct point_group *groups = arena_try_alloc(arena, collection->shard_count * sizeof(*groups));
    struct id_table table;
    if (shards == NULL || starts == NULL || sorted == NULL || groups == NULL)
        return STATUS_EXHAUSTED;
    TRY(table_create(count, arena, &table));
    choose_shards(points, count, collection, &table, shards);
    for (uint32_t i = 0; i < count; i++) {
        if (shards[i] != UINT32_MAX)
            starts[shards[i] + 1]++;
    }
    uint32_t group_count = 0;
    for (uint32_t i = 0; i < collection->shard_count; i++) {
        if (starts[i + 1] > 0)
            groups[group_count++] = (struct point_group){i, sorted + starts[i], starts[i + 1]};
        starts[i + 1] += starts[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        if (shards[i] != UINT32_MAX)
            sorted[starts[shards[i]]++] = &points[i];
    }
    *out_batch = (struct point_batch){groups, group_count};
    return STATUS_OK;
}

enum status point_batch_create(const Vectron__V1__UpsertRequest *request,
                               const struct cluster_collection *collection, struct arena *arena,
                               struct error *error, struct point_batch *out_batch)
{
    struct point_rules rules = {
        .dimension = collection->dimension,
        .is_cosine = str_equal_cstr(collection->distance, "cosine"),
    };
    if (request->n_points >= UINT32_MAX)
        return fail_memory(error);
    uint32_t count = (uint32_t)request->n_points;
    Vectron__Worker__V1__ShardPoint *points = arena_try_alloc(arena, count * sizeof(*points));
    if (points == NULL && count > 0)
        return fail_memory(error);
    for (uint32_t i = 0; i < count; i++) {
        vectron__worker__v1__shard_point__init(&points[i]);
        TRY(point_convert(request->points[i], i, &rules, arena, error, &points[i]));
    }
    enum status status = group(points, count, collection, arena, out_batch);
    return status == STATUS_OK ? status : fail_memory(error);
}
