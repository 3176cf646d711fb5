#include "store/store.h"

#include <stdio.h>

#include "store/shard.h"
#include "store/store_testing.h"
#include "testing/test.h"

static const struct shard_options plain = {
    .shard_id = 7,
    .incarnation = {"first", 5},
    .collection = {"user/words", 10},
    .dimension = 2,
    .distance = DISTANCE_COSINE,
    .map_version = 12,
};

static struct str path_in(const char *folder, const char *name)
{
    static char path[4200];
    int size = snprintf(path, sizeof(path), "%s/%s", folder, name);
    return (struct str){path, (size_t)size};
}

static void ignore(struct shard_write *write, enum status status, const struct error *error)
{
    (void)error;
    CHECK_OK(status);
    write->size = 0;
}

static void put(struct shard *shard, const char *id)
{
    struct error error;
    const float vector[] = {1, 2};
    const struct shard_point point = {str_from_cstr(id), vector, STR("{\"a\":1}")};
    struct shard_write write = {.points = &point, .point_count = 1, .done = ignore};
    bool must_drain = false;
    CHECK_OK(shard_submit(shard, &write, &error, &must_drain));
    CHECK(must_drain);
    CHECK(!shard_drain(shard));
}

struct seen {
    uint32_t count;
    uint64_t version;
};

static void see(const struct shard_options *options, void *context)
{
    struct seen *seen = context;
    seen->count++;
    seen->version = options->map_version;
    CHECK_EQ_U64(options->shard_id, 7);
    CHECK_STR(options->collection, STR("user/words"));
}

TEST(shards_are_known_after_the_store_was_closed)
{
    struct str path = path_in(test_temporary_folder(), "db");
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    struct shard_stats stats;
    REQUIRE_OK(store_open(path, &error, &store));
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    struct shard *again = NULL;
    CHECK_STATUS(store_open_shard(store, &plain, NULL, &error, &again), STATUS_EXISTS);
    put(shard, "one");
    put(shard, "two");
    shard_close(shard);
    store_close(store);

    REQUIRE_OK(store_open(path, &error, &store));
    struct seen seen = {0};
    store_for_each_shard(store, see, &seen);
    CHECK_EQ_U64(seen.count, 1);
    CHECK_EQ_U64(seen.version, 12);
    struct shard_options other = plain;
    other.dimension = 3;
    CHECK_STATUS(store_open_shard(store, &other, NULL, &error, &shard), STATUS_PRECONDITION);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("dimension 2, cosine, not as"));
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, 2);
    CHECK_EQ_U64(stats.sequence, 2);
    CHECK(stats.memory_bytes > 0);
    shard_close(shard);
    store_close(store);
}

TEST(the_same_number_from_another_placement_driver_is_another_shard)
{
    struct str path = path_in(test_temporary_folder(), "db");
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct shard *other = NULL;
    struct error error;
    struct shard_stats stats;
    struct shard_options second = plain;
    second.incarnation = STR("second");
    REQUIRE_OK(store_open(path, &error, &store));
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    REQUIRE_OK(store_open_shard(store, &second, NULL, &error, &other));
    put(shard, "one");
    put(shard, "two");
    put(other, "one");
    shard_stats(other, &stats);
    CHECK_EQ_U64(stats.points, 1);
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, 2);
    shard_close(shard);
    shard_close(other);
    store_close(store);
}

TEST(a_dropped_shard_is_gone_for_good)
{
    struct str path = path_in(test_temporary_folder(), "db");
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    struct shard_stats stats;
    struct seen seen = {0};
    REQUIRE_OK(store_open(path, &error, &store));
    CHECK_OK(store_drop_shard(store, 7, plain.incarnation, &error));
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    put(shard, "one");
    CHECK_STATUS(store_drop_shard(store, 7, plain.incarnation, &error), STATUS_PRECONDITION);
    shard_close(shard);
    CHECK_OK(store_drop_shard(store, 7, STR("another"), &error));
    REQUIRE_OK(store_drop_shard(store, 7, plain.incarnation, &error));
    store_for_each_shard(store, see, &seen);
    CHECK_EQ_U64(seen.count, 0);
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, 0);
    put(shard, "three");
    shard_close(shard);
    store_close(store);
    REQUIRE_OK(store_open(path, &error, &store));
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    shard_stats(shard, &stats);
    CHECK_EQ_U64(stats.points, 1);
    shard_close(shard);
    struct store_stats all;
    store_stats(store, &all);
    CHECK(all.disk_bytes > 0);
    store_close(store);
}

TEST(two_on_one_folder_and_a_folder_that_cannot_be_are_errors)
{
    const char *folder = test_temporary_folder();
    struct store *store = NULL;
    struct store *second = NULL;
    struct error error;
    CHECK_STATUS(store_open(path_in(folder, "no/such"), &error, &store), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("No such file"));
    REQUIRE_OK(store_open(path_in(folder, "db"), &error, &store));
    CHECK_STATUS(store_open(path_in(folder, "db"), &error, &second), STATUS_IO);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("lock"));
    store_close(store);
}

TEST(opening_can_be_given_up)
{
    struct store *store = NULL;
    struct shard *shard = NULL;
    struct error error;
    const atomic_bool cancelled = true;
    REQUIRE_OK(store_open(path_in(test_temporary_folder(), "db"), &error, &store));
    REQUIRE_OK(store_open_shard(store, &plain, &cancelled, &error, &shard));
    put(shard, "one");
    shard_close(shard);
    CHECK_STATUS(store_open_shard(store, &plain, &cancelled, &error, &shard), STATUS_CANCELLED);
    REQUIRE_OK(store_open_shard(store, &plain, NULL, &error, &shard));
    shard_close(shard);
    store_close(store);
}

TEST_MAIN()
