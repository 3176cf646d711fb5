#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "store/record.h"
#include "store/store_internal.h"

// Reads a shard's records in the order of their ids and fills the index with them. A record that is
// not what was written is left out, remembered and counted: the others serve. A file that cannot be
// read is an error: how many points are missing is not known then.

enum { READAHEAD_SIZE = 2 << 20, RESERVE_STEP = 1024 };

struct loading {
    struct shard *shard;
    float *vector;             // aligned
    struct index_image *image; // NULL: there is none
    uint64_t sequence;
    uint32_t reserved;
};

static enum status reserve(struct loading *loading, struct error *error)
{
    if (loading->reserved > 0)
        return STATUS_OK;
    if (index_reserve(loading->shard->index, RESERVE_STEP) != STATUS_OK ||
        id_map_reserve(&loading->shard->ids, RESERVE_STEP) != STATUS_OK)
        return error_set(error, STATUS_EXHAUSTED, "its points do not fit into memory");
    loading->reserved = RESERVE_STEP;
    return STATUS_OK;
}

static void remember_broken(struct shard *shard, struct str id)
{
    (void)map_put(shard->broken, id, shard);
    (void)atomic_fetch_add(&shard->broken_count, 1);
}

static enum status load_record(struct loading *loading, struct str id, struct span value,
                               struct error *error)
{
    struct shard *shard = loading->shard;
    struct record record;
    bool is_named = id.len > 0 && id.len <= LIMIT_POINT_ID_SIZE_MAX;
    if (!is_named || record_decode(id, value, NULL, &record) != STATUS_OK || record.sequence == 0 ||
        record.sequence == UINT64_MAX || record.dimension != index_dimension(shard->index)) {
        remember_broken(shard, id);
        return STATUS_OK;
    }
    TRY(reserve(loading, error));
    memcpy(loading->vector, record.vector, record.dimension * sizeof(float));
    uint32_t slot = INDEX_SLOT_NONE;
    if (loading->image != NULL)
        slot = index_image_put(loading->image, id, loading->vector, record.sequence);
    if (slot == INDEX_SLOT_NONE)
        slot = index_put(shard->index, id, loading->vector, record.sequence);
    (void)id_map_put(&shard->ids, shard->index, id, slot);
    loading->reserved--;
    if (record.sequence > loading->sequence)
        loading->sequence = record.sequence;
    return STATUS_OK;
}

static enum status load_all(struct loading *loading, rocksdb_iterator_t *iterator,
                            const atomic_bool *cancelled, struct error *error)
{
    for (; rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        size_t key_size;
        size_t value_size;
        const char *key = rocksdb_iter_key(iterator, &key_size);
        const char *value = rocksdb_iter_value(iterator, &value_size);
        if (cancelled != NULL && atomic_load_explicit(cancelled, memory_order_relaxed))
            return error_set(error, STATUS_CANCELLED, "loading was given up");
        ASSERT(key_size >= KEY_PREFIX_SIZE);
        struct str id = {key + KEY_PREFIX_SIZE, key_size - KEY_PREFIX_SIZE};
        TRY(load_record(loading, id, (struct span){(const uint8_t *)value, value_size}, error));
    }
    char *message = NULL;
    rocksdb_iter_get_error(iterator, &message);
    return store_check(message, error);
}

enum status shard_load(struct shard *shard, const atomic_bool *cancelled, struct error *error)
{
    struct loading loading = {.shard = shard};
    struct span image_bytes;
    loading.vector = mem_alloc(index_dimension(shard->index) * sizeof(float));
    loading.image = shard_image_open(shard, &image_bytes);
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(options, 1);
    rocksdb_readoptions_set_fill_cache(options, 0);
    rocksdb_readoptions_set_readahead_size(options, READAHEAD_SIZE);
    rocksdb_readoptions_set_iterate_upper_bound(options, (const char *)shard->prefix_end,
                                                sizeof(shard->prefix_end));
    rocksdb_iterator_t *iterator = rocksdb_create_iterator(shard->store->database, options);
    rocksdb_iter_seek(iterator, (const char *)shard->prefix, sizeof(shard->prefix));
    enum status status = load_all(&loading, iterator, cancelled, error);
    rocksdb_iter_destroy(iterator);
    rocksdb_readoptions_destroy(options);
    mem_free(loading.vector);
    // Without memory for it the graph is built again when there is some.
    if (status == STATUS_OK && loading.image != NULL)
        (void)index_image_end(loading.image);
    shard_image_close(loading.image, image_bytes);
    if (status == STATUS_OK && loading.sequence > 0)
        index_publish(shard->index, loading.sequence);
    // What the image gave needs not be kept again.
    if (index_has_graph(shard->index))
        shard->image.saved_changes =
            index_change_count(shard->index) - index_unlinked_count(shard->index);
    shard_count_memory(shard);
    return status;
}
