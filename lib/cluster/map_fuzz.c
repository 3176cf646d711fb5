#include <stdlib.h>

#include "cluster/cluster.h"

// Bytes as a message that a placement driver could have sent. What becomes a map keeps what its
// readers rely on: every hash has a shard, and no replica is there twice.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_shard(const struct cluster_shard *shard)
{
    for (uint32_t i = 1; i < shard->replica_count; i++) {
        if (shard->replica_ids[i] <= shard->replica_ids[i - 1])
            abort();
    }
    for (uint32_t i = 0; i < shard->learner_count; i++) {
        if (!cluster_shard_has_replica(shard, shard->learner_ids[i]) ||
            !cluster_shard_has_learner(shard, shard->learner_ids[i]))
            abort();
    }
    if (shard->leader != NULL && shard->leader->worker_id != shard->leader_id)
        abort();
}

static void check_map(const struct cluster_map *map)
{
    for (uint32_t i = 0; i < map->collection_count; i++) {
        const struct cluster_collection *collection = &map->collections[i];
        const struct str id = STR("point");
        const struct cluster_shard *shard = cluster_collection_route(collection, id);
        if (routing_hash(id) < shard->range_start || routing_hash(id) > shard->range_end)
            abort();
        for (uint32_t k = 0; k < collection->shard_count; k++)
            check_shard(&collection->shards[k]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Vectron__Placementdriver__V1__ClusterMap *message =
        vectron__placementdriver__v1__cluster_map__unpack(NULL, size, data);
    struct cluster_map *map = NULL;
    struct error error;
    if (message == NULL)
        return 0;
    if (cluster_map_create(message, &error, &map) == STATUS_OK)
        check_map(map);
    cluster_map_unref(map);
    vectron__placementdriver__v1__cluster_map__free_unpacked(message, NULL);
    return 0;
}
