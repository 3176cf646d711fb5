#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "store/store_internal.h"

enum {
    WRITE_BUFFER_SIZE = 16 << 20,
    WRITE_BUFFER_COUNT = 3,
    LOG_SIZE_MAX = 64 << 20, // of the write-ahead log, before buffers are flushed
    BLOCK_CACHE_SIZE = 32 << 20,
    BLOCK_SIZE = 16 << 10,
    OPEN_FILES_MAX = 512,
    BACKGROUND_JOBS = 2,
    INFO_LOG_SIZE_MAX = 1 << 20,
    INFO_LOG_COUNT = 2,
    INFO_LOG_FATAL = 4,
    FILTER_BITS = 10,

    DESCRIPTOR_MAGIC = 0x31445356, // "VSD1"
    DESCRIPTOR_FIXED_SIZE = 28,
    DESCRIPTOR_TEXT_MAX = 4096,
};

void key_prefix(uint8_t out[static KEY_PREFIX_SIZE], char kind, uint32_t number)
{
    uint32_t big_endian = __builtin_bswap32(number);
    out[0] = (uint8_t)kind;
    memcpy(out + 1, &big_endian, sizeof(big_endian));
}

enum status store_check(char *message, struct error *error)
{
    if (message == NULL)
        return STATUS_OK;
    struct str text = str_from_cstr(message);
    enum status status = STATUS_IO;
    if (str_contains(text, STR("No space left")) || str_contains(text, STR("quota exceeded")))
        status = STATUS_EXHAUSTED;
    else if (str_starts_with(text, STR("Corruption")))
        status = STATUS_CORRUPT;
    (void)error_set(error, status, "%s", message);
    rocksdb_free(message);
    return status;
}

// Once RocksDB could not write its log it must not be asked again: it clears the error by itself
// when there is room on the disk, but the log's writer is spoilt, and an assertion in it stops the
// process. So the first failure is the last write; reads go on.
enum status store_write(struct store *store, rocksdb_writebatch_t *batch, struct error *error)
{
    char *message = NULL;
    enum status status = STATUS_OK;
    if (atomic_load(&store->is_failed)) {
        status = error_set(error, STATUS_IO,
                           "the log in %s could not be written; restart when the disk has room",
                           store->path);
    } else {
        rocksdb_write(store->database, store->durable, batch, &message);
        if (message != NULL && str_contains(str_from_cstr(message), STR(".log")))
            atomic_store(&store->is_failed, true);
        status = store_check(message, error);
    }
    rocksdb_writebatch_destroy(batch);
    return status;
}

// --- Opening

static rocksdb_options_t *create_options(struct store *store)
{
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_write_buffer_size(options, WRITE_BUFFER_SIZE);
    rocksdb_options_set_max_write_buffer_number(options, WRITE_BUFFER_COUNT);
    rocksdb_options_set_max_total_wal_size(options, LOG_SIZE_MAX);
    rocksdb_options_set_max_open_files(options, OPEN_FILES_MAX);
    rocksdb_options_set_max_background_jobs(options, BACKGROUND_JOBS);
    // RocksDB's own log stops the process when the disk is full (an assertion in its writer), so
    // nothing is written there once the store is open. What fails comes back as a status.
    rocksdb_options_set_info_log_level(options, INFO_LOG_FATAL);
    rocksdb_options_set_max_log_file_size(options, INFO_LOG_SIZE_MAX);
    rocksdb_options_set_keep_log_file_num(options, INFO_LOG_COUNT);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_bytes_per_sync(options, 1 << 20);
    // Vectors do not get smaller.
    rocksdb_options_set_compression(options, rocksdb_no_compression);

    store->cache = rocksdb_cache_create_lru(BLOCK_CACHE_SIZE);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, store->cache);
    rocksdb_block_based_options_set_block_size(table, BLOCK_SIZE);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_bloom_full(FILTER_BITS));
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    return options;
}

// The folder itself must be on disk before anything in it counts as written.
static enum status make_folder(const char *path, struct error *error)
{
    if (mkdir(path, 0700) != 0) {
        if (errno == EEXIST)
            return STATUS_OK;
        return error_set(error, errno == ENOSPC ? STATUS_EXHAUSTED : STATUS_IO, "make %s: %s", path,
                         error_system_text(errno));
    }
    size_t cut = strlen(path);
    while (cut > 0 && path[cut - 1] != '/')
        cut--;
    char parent[4096] = ".";
    if (cut > 0 && cut < sizeof(parent)) {
        memcpy(parent, path, cut);
        parent[cut] = '\0';
    }
    int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_synced = folder >= 0 && fsync(folder) == 0;
    int number = errno;
    if (folder >= 0)
        (void)close(folder);
    if (!is_synced)
        return error_set(error, STATUS_IO, "sync %s: %s", parent, error_system_text(number));
    return STATUS_OK;
}

// --- Descriptors: magic u32 · shard id u32 · dimension u32 · map version u64 · distance u32 ·
// size of the incarnation u16 · size of the collection's name u16 · both texts · CRC-32C u32

static enum status decode_descriptor(struct span bytes, struct shard_options *out_options)
{
    uint32_t numbers[3];
    uint32_t distance;
    uint16_t sizes[2];
    uint32_t crc;
    if (bytes.len < DESCRIPTOR_FIXED_SIZE + sizeof(crc))
        return STATUS_CORRUPT;
    memcpy(&crc, bytes.data + bytes.len - sizeof(crc), sizeof(crc));
    if (crc32c(0, bytes.data, bytes.len - sizeof(crc)) != crc)
        return STATUS_CORRUPT;
    memcpy(numbers, bytes.data, sizeof(numbers));
    memcpy(&out_options->map_version, bytes.data + 12, sizeof(out_options->map_version));
    memcpy(&distance, bytes.data + 20, sizeof(distance));
    memcpy(sizes, bytes.data + 24, sizeof(sizes));
    if (numbers[0] != DESCRIPTOR_MAGIC || distance > DISTANCE_DOT || numbers[2] == 0 ||
        numbers[2] > LIMIT_DIMENSION_MAX ||
        bytes.len != DESCRIPTOR_FIXED_SIZE + (size_t)sizes[0] + sizes[1] + sizeof(crc))
        return STATUS_CORRUPT;
    const char *texts = (const char *)bytes.data + DESCRIPTOR_FIXED_SIZE;
    out_options->shard_id = numbers[1];
    out_options->dimension = numbers[2];
    out_options->distance = (enum distance)distance;
    out_options->incarnation = (struct str){texts, sizes[0]};
    out_options->collection = (struct str){texts + sizes[0], sizes[1]};
    return STATUS_OK;
}

static enum status write_descriptor(struct store *store, uint32_t number,
                                    const struct shard_options *options, struct error *error)
{
    struct buf value;
    buf_init(&value, DESCRIPTOR_FIXED_SIZE + 2 * DESCRIPTOR_TEXT_MAX + sizeof(uint32_t));
    buf_append_u32(&value, DESCRIPTOR_MAGIC);
    buf_append_u32(&value, options->shard_id);
    buf_append_u32(&value, options->dimension);
    buf_append_u64(&value, options->map_version);
    buf_append_u32(&value, (uint32_t)options->distance);
    buf_append_u32(&value, (uint32_t)(options->incarnation.len | options->collection.len << 16));
    buf_append_str(&value, options->incarnation);
    buf_append_str(&value, options->collection);
    buf_append_u32(&value, crc32c(0, value.data, value.len));
    uint8_t key[KEY_PREFIX_SIZE];
    key_prefix(key, KEY_DESCRIPTOR, number);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_writebatch_put(batch, (const char *)key, sizeof(key), (const char *)value.data,
                           value.len);
    buf_deinit(&value);
    return store_write(store, batch, error);
}

// --- Entries

static char *copy_text(struct str text)
{
    char *copy = mem_alloc(text.len + 1);
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

static char *join_text(struct str first, struct str second)
{
    char *copy = mem_alloc(first.len + second.len + 1);
    memcpy(copy, first.data, first.len);
    memcpy(copy + first.len, second.data, second.len);
    return copy;
}

static struct store_entry *add_entry(struct store *store, uint32_t number,
                                     const struct shard_options *options)
{
    if (store->entry_count == store->entry_capacity) {
        store->entry_capacity = store->entry_capacity == 0 ? 8 : store->entry_capacity * 2;
        store->entries =
            mem_resize(store->entries, store->entry_capacity * sizeof(store->entries[0]));
    }
    struct store_entry *entry = &store->entries[store->entry_count++];
    *entry = (struct store_entry){.number = number, .options = *options};
    entry->options.incarnation.data = copy_text(options->incarnation);
    entry->options.collection.data = copy_text(options->collection);
    return entry;
}

static void free_text(struct str text)
{
    char *memory;
    memcpy(&memory, &text.data, sizeof(memory)); // it came from copy_text
    mem_free(memory);
}

static void remove_entry(struct store *store, struct store_entry *entry)
{
    free_text(entry->options.incarnation);
    free_text(entry->options.collection);
    *entry = store->entries[--store->entry_count];
}

static struct store_entry *find_entry(struct store *store, uint32_t shard_id,
                                      struct str incarnation)
{
    for (uint32_t i = 0; i < store->entry_count; i++) {
        struct store_entry *entry = &store->entries[i];
        if (entry->options.shard_id == shard_id &&
            str_equal(entry->options.incarnation, incarnation))
            return entry;
    }
    return NULL;
}

static struct store_entry *entry_of_number(struct store *store, uint32_t number)
{
    for (uint32_t i = 0; i < store->entry_count; i++) {
        if (store->entries[i].number == number)
            return &store->entries[i];
    }
    return NULL;
}

static enum status read_entries(struct store *store, struct error *error)
{
    rocksdb_iterator_t *iterator = rocksdb_create_iterator(store->database, store->reading);
    enum status status = STATUS_OK;
    const char first = KEY_DESCRIPTOR;
    for (rocksdb_iter_seek(iterator, &first, 1); rocksdb_iter_valid(iterator);
         rocksdb_iter_next(iterator)) {
        size_t key_size;
        size_t value_size;
        const char *key = rocksdb_iter_key(iterator, &key_size);
        const char *value = rocksdb_iter_value(iterator, &value_size);
        uint32_t number;
        struct shard_options options;
        if (key_size != KEY_PREFIX_SIZE || key[0] != KEY_DESCRIPTOR)
            break;
        memcpy(&number, key + 1, sizeof(number));
        number = __builtin_bswap32(number);
        status = decode_descriptor((struct span){(const uint8_t *)value, value_size}, &options);
        if (status != STATUS_OK) {
            status = error_set(error, status, "descriptor %u is broken", number);
            break;
        }
        (void)add_entry(store, number, &options);
    }
    if (status == STATUS_OK) {
        char *message = NULL;
        rocksdb_iter_get_error(iterator, &message);
        status = store_check(message, error);
    }
    rocksdb_iter_destroy(iterator);
    return status;
}

enum status store_open(struct str path, struct error *error, struct store **out_store)
{
    struct store *store = mem_alloc(sizeof(*store));
    pthread_mutex_init(&store->mutex, NULL);
    store->path = copy_text(path);
    store->image_folder = join_text(path, STR("-graphs"));
    store->options = create_options(store);
    store->durable = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(store->durable, 1);
    store->reading = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(store->reading, 1);

    char *message = NULL;
    enum status status = make_folder(store->path, error);
    if (status == STATUS_OK)
        status = make_folder(store->image_folder, error);
    if (status == STATUS_OK) {
        store->database = rocksdb_open(store->options, store->path, &message);
        status = store_check(message, error);
    }
    if (status == STATUS_OK)
        status = read_entries(store, error);
    if (status != STATUS_OK) {
        store_close(store);
        return error_prefix(error, status, "open %.*s", STR_ARG(path));
    }
    *out_store = store;
    return STATUS_OK;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    while (store->entry_count > 0) {
        ASSERT(!store->entries[0].is_open);
        remove_entry(store, &store->entries[0]);
    }
    if (store->database != NULL) {
        rocksdb_cancel_all_background_work(store->database, 1);
        rocksdb_close(store->database);
    }
    rocksdb_readoptions_destroy(store->reading);
    rocksdb_writeoptions_destroy(store->durable);
    rocksdb_options_destroy(store->options);
    rocksdb_cache_destroy(store->cache);
    pthread_mutex_destroy(&store->mutex);
    mem_free(store->entries);
    mem_free(store->path);
    mem_free(store->image_folder);
    mem_free(store);
}

// --- Shards

static uint32_t free_number(struct store *store)
{
    uint32_t number = 1;
    for (uint32_t i = 0; i < store->entry_count; i++) {
        if (store->entries[i].number >= number)
            number = store->entries[i].number + 1;
    }
    return number;
}

static enum status check_entry(const struct store_entry *entry, const struct shard_options *options,
                               struct error *error)
{
    const struct shard_options *stored = &entry->options;
    if (entry->is_open)
        return error_set(error, STATUS_EXISTS, "shard %u is open already", options->shard_id);
    if (stored->dimension != options->dimension || stored->distance != options->distance ||
        !str_equal(stored->collection, options->collection))
        return error_set(error, STATUS_PRECONDITION,
                         "shard %u is stored as %.*s, dimension %u, %s, not as %.*s, dimension %u, "
                         "%s",
                         options->shard_id, STR_ARG(stored->collection), stored->dimension,
                         distance_name(stored->distance), STR_ARG(options->collection),
                         options->dimension, distance_name(options->distance));
    return STATUS_OK;
}

// Finds or makes the entry and marks it open.
static enum status take_entry(struct store *store, const struct shard_options *options,
                              struct error *error, struct store_entry *out_entry)
{
    pthread_mutex_lock(&store->mutex);
    struct store_entry *entry = find_entry(store, options->shard_id, options->incarnation);
    enum status status = STATUS_OK;
    if (entry != NULL) {
        status = check_entry(entry, options, error);
    } else {
        uint32_t number = free_number(store);
        status = write_descriptor(store, number, options, error);
        if (status == STATUS_OK)
            entry = add_entry(store, number, options);
    }
    if (status == STATUS_OK) {
        entry->is_open = true;
        *out_entry = *entry;
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

void store_release(struct store *store, uint32_t number)
{
    pthread_mutex_lock(&store->mutex);
    struct store_entry *entry = entry_of_number(store, number);
    ASSERT(entry != NULL && entry->is_open);
    entry->is_open = false;
    pthread_mutex_unlock(&store->mutex);
}

enum status store_open_shard(struct store *store, const struct shard_options *options,
                             const atomic_bool *cancelled, struct error *error,
                             struct shard **out_shard)
{
    ASSERT(options->incarnation.len <= DESCRIPTOR_TEXT_MAX &&
           options->collection.len <= DESCRIPTOR_TEXT_MAX);
    struct store_entry entry;
    enum status status = take_entry(store, options, error, &entry);
    if (status == STATUS_OK) {
        struct shard *shard = shard_create(store, &entry);
        status = shard_load(shard, cancelled, error);
        if (status == STATUS_OK)
            *out_shard = shard;
        else
            shard_close(shard);
    }
    if (status != STATUS_OK)
        return error_prefix(error, status, "open shard %u", options->shard_id);
    return STATUS_OK;
}

void store_for_each_shard(struct store *store,
                          void (*each)(const struct shard_options *options, void *context),
                          void *context)
{
    pthread_mutex_lock(&store->mutex);
    for (uint32_t i = 0; i < store->entry_count; i++)
        each(&store->entries[i].options, context);
    pthread_mutex_unlock(&store->mutex);
}

// The descriptor and the points in one batch: there is no half of a shard.
static enum status remove_data(struct store *store, uint32_t number, struct error *error)
{
    uint8_t descriptor[KEY_PREFIX_SIZE];
    uint8_t first[KEY_PREFIX_SIZE];
    uint8_t end[KEY_PREFIX_SIZE];
    key_prefix(descriptor, KEY_DESCRIPTOR, number);
    key_prefix(first, KEY_POINT, number);
    key_prefix(end, KEY_POINT, number + 1);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_writebatch_delete(batch, (const char *)descriptor, sizeof(descriptor));
    rocksdb_writebatch_delete_range(batch, (const char *)first, sizeof(first), (const char *)end,
                                    sizeof(end));
    TRY(store_write(store, batch, error));
    char *message = NULL;
    // Whole files of it go now, the rest with the next compaction. A failure costs space only.
    rocksdb_delete_file_in_range(store->database, (const char *)first, sizeof(first),
                                 (const char *)end, sizeof(end), &message);
    (void)store_check(message, NULL);
    message = NULL;
    rocksdb_suggest_compact_range(store->database, (const char *)first, sizeof(first),
                                  (const char *)end, sizeof(end), &message);
    (void)store_check(message, NULL);
    return STATUS_OK;
}

enum status store_drop_shard(struct store *store, uint32_t shard_id, struct str incarnation,
                             struct error *error)
{
    enum status status = STATUS_OK;
    pthread_mutex_lock(&store->mutex);
    struct store_entry *entry = find_entry(store, shard_id, incarnation);
    if (entry != NULL && entry->is_open)
        status = error_set(error, STATUS_PRECONDITION, "it is open");
    else if (entry != NULL)
        status = remove_data(store, entry->number, error);
    if (status == STATUS_OK && entry != NULL) {
        store_remove_image(store, entry->number);
        remove_entry(store, entry);
    }
    pthread_mutex_unlock(&store->mutex);
    if (status != STATUS_OK)
        return error_prefix(error, status, "drop shard %u", shard_id);
    return STATUS_OK;
}

static uint64_t read_property(struct store *store, const char *name)
{
    uint64_t value = 0;
    return rocksdb_property_int(store->database, name, &value) == 0 ? value : 0;
}

void store_set_memory_max(struct store *store, uint64_t bytes)
{
    atomic_store(&store->memory_max, bytes);
}

uint64_t store_memory_size(struct store *store)
{
    return read_property(store, "rocksdb.cur-size-all-mem-tables") +
           read_property(store, "rocksdb.block-cache-usage") +
           read_property(store, "rocksdb.estimate-table-readers-mem");
}

void store_stats(struct store *store, struct store_stats *out_stats)
{
    *out_stats = (struct store_stats){
        .disk_bytes = read_property(store, "rocksdb.total-sst-files-size") +
                      read_property(store, "rocksdb.cur-size-all-mem-tables"),
        .memory_bytes = store_memory_size(store),
        .point_bytes = atomic_load(&store->point_bytes),
        .memory_max = atomic_load(&store->memory_max),
    };
}
