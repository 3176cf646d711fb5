#include <stdio.h>

#include "base/str.h"
#include "cluster/cluster.h"
#include "testing/test.h"

#define MESSAGE(name) Vectron__Placementdriver__V1__##name
#define INIT(NAME)    VECTRON__PLACEMENTDRIVER__V1__##NAME##__INIT

enum { COUNT_MAX = 8 };

struct sample {
    MESSAGE(ClusterMap) map;
    MESSAGE(MapCollection) collection;
    MESSAGE(MapCollection) * collections[1];
    MESSAGE(MapShard) shard[COUNT_MAX];
    MESSAGE(MapShard) * shards[COUNT_MAX];
    MESSAGE(MapWorker) worker[2];
    MESSAGE(MapWorker) * workers[2];
    uint64_t replicas[COUNT_MAX][2];
    uint64_t learners[2];
};

static char docs[] = "docs";
static char cosine[] = "cosine";
static char address[] = "localhost:9090";
static char incarnation[] = "abc";

// One collection of `count` shards over two workers, in equal ranges.
static void sample_init(struct sample *sample, uint32_t count)
{
    *sample = (struct sample){.map = INIT(CLUSTER_MAP), .collection = INIT(MAP_COLLECTION)};
    sample->map.version = 7;
    sample->map.incarnation = incarnation;
    sample->collection.name = docs;
    sample->collection.distance = cosine;
    sample->collection.dimension = 128;
    sample->collection.n_shards = count;
    sample->collection.shards = sample->shards;
    for (uint32_t i = 0; i < count; i++) {
        MESSAGE(MapShard) *shard = &sample->shard[i];
        *shard = (MESSAGE(MapShard))INIT(MAP_SHARD);
        shard->shard_id = i + 1;
        shard->epoch = 1;
        shard->range_start = i * (UINT64_MAX / count);
        shard->range_end = i + 1 == count ? UINT64_MAX : (i + 1) * (UINT64_MAX / count) - 1;
        shard->leader_id = i % 2 + 1;
        shard->wanted_leader_id = 2;
        sample->learners[0] = 1;
        shard->learners = sample->learners;
        shard->n_learners = 1;
        sample->replicas[i][0] = 2;
        sample->replicas[i][1] = 1;
        shard->replicas = sample->replicas[i];
        shard->n_replicas = 2;
        sample->shards[i] = shard;
    }
    sample->collections[0] = &sample->collection;
    sample->map.collections = sample->collections;
    sample->map.n_collections = 1;
    for (uint32_t i = 0; i < 2; i++) {
        sample->worker[i] = (MESSAGE(MapWorker))INIT(MAP_WORKER);
        sample->worker[i].worker_id = i + 1;
        sample->worker[i].grpc_address = address;
        sample->worker[i].healthy = i == 0;
        sample->worker[i].state = VECTRON__PLACEMENTDRIVER__V1__WORKER_STATE__WORKER_STATE_READY;
        sample->workers[i] = &sample->worker[i];
    }
    sample->map.workers = sample->workers;
    sample->map.n_workers = 2;
}

TEST(routing_hash_never_changes)
{
    // Stored points depend on these values.
    CHECK(routing_hash(STR("")) == routing_hash(STR("")));
    CHECK(routing_hash(STR("a")) == 0xee0999903f5d1c4bU);
    CHECK(routing_hash(STR("point-42")) == 0x6382a5321aa0fc28U);
}

TEST(map_holds_what_the_message_says)
{
    struct sample sample;
    struct error error;
    struct cluster_map *map = NULL;
    sample_init(&sample, 4);
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_OK);
    if (map == NULL)
        return;
    CHECK(map->version == 7 && str_equal(map->incarnation, STR("abc")));
    const struct cluster_collection *collection = cluster_map_find(map, STR("docs"));
    CHECK(collection != NULL && collection->dimension == 128 && collection->shard_count == 4);
    CHECK(cluster_map_find(map, STR("doc")) == NULL);
    CHECK(cluster_map_find(map, STR("docsx")) == NULL);
    CHECK(cluster_map_worker(map, 3) == NULL);
    const struct cluster_worker *worker = cluster_map_worker(map, 1);
    CHECK(worker != NULL && worker->is_healthy && worker->state == CLUSTER_WORKER_READY);
    if (collection != NULL) {
        const struct cluster_shard *shard = &collection->shards[1];
        CHECK(shard->leader == cluster_map_worker(map, 2));
        CHECK(str_equal(shard->leader_address, STR("localhost:9090")));
        CHECK(shard->replica_count == 2 && shard->replica_ids[0] == 1);
        CHECK(cluster_shard_has_replica(shard, 2) && !cluster_shard_has_replica(shard, 3));
        CHECK(cluster_shard_has_learner(shard, 1) && !cluster_shard_has_learner(shard, 2));
        CHECK_EQ_U64(shard->wanted_leader_id, 2);
    }
    cluster_map_ref(map);
    cluster_map_unref(map);
    cluster_map_unref(map);
}

TEST(every_point_has_the_shard_of_its_hash)
{
    for (uint32_t count = 1; count <= COUNT_MAX; count++) {
        struct sample sample;
        struct error error;
        struct cluster_map *map = NULL;
        sample_init(&sample, count);
        CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_OK);
        if (map == NULL)
            return;
        uint32_t hits[COUNT_MAX + 1] = {0};
        for (int i = 0; i < 1000; i++) {
            char id[32];
            int size = snprintf(id, sizeof(id), "point-%d", i);
            struct str text = {id, (size_t)size};
            const struct cluster_shard *shard =
                cluster_collection_route(&map->collections[0], text);
            uint64_t hash = routing_hash(text);
            CHECK(shard->range_start <= hash && hash <= shard->range_end);
            hits[shard->shard_id]++;
        }
        for (uint32_t i = 1; i <= count; i++)
            CHECK(hits[i] > 1000 / count / 2);
        cluster_map_unref(map);
    }
}

TEST(broken_maps_are_refused)
{
    struct error error;
    struct cluster_map *map = NULL;
    struct sample sample;
    sample_init(&sample, 3);
    sample.shard[1].range_start++; // a gap
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    sample_init(&sample, 3);
    sample.shard[1].range_end++; // an overlap
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    sample_init(&sample, 3);
    sample.shard[2].range_end--; // not up to the end
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    sample_init(&sample, 3);
    sample.shard[1].range_end = UINT64_MAX; // the end comes early
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    sample_init(&sample, 0);
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    sample_init(&sample, 1);
    sample.replicas[0][1] = 2; // both on one worker
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("shard 1: worker 2 is named twice"));
    sample_init(&sample, 1);
    sample.learners[0] = 3; // no replica
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    sample_init(&sample, 1);
    sample.worker[1].worker_id = 1;
    CHECK(cluster_map_create(&sample.map, &error, &map) == STATUS_CORRUPT);
    CHECK(map == NULL);
}

TEST_MAIN()
