#include "store/shard.h"

#include <string.h>
#include <sys/statvfs.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "store/record.h"
#include "store/store_internal.h"

enum {
    QUEUE_COUNT_MAX = 4096,
    QUEUE_SIZE_MAX = 512 << 20,  // bytes; a request alone may be larger
    BATCH_SIZE_MAX = 32 << 20,   // of requests that are written together
    DRAIN_BATCHES_MAX = 8,       // before others get the thread
    LINK_POINTS = 24,            // between looks at the queue: some milliseconds
    DISK_RESERVE_MAX = 64 << 20, // kept for deletes and for the store's own housekeeping
    DISK_FLOOR = 1 << 20,        // not even deletes
    DISK_RESERVE_PART = 16,      // and at most one part of so many of the disk
};

// --- Life cycle

struct shard *shard_create(struct store *store, const struct store_entry *entry)
{
    struct shard *shard = mem_alloc(sizeof(*shard));
    shard->store = store;
    shard->number = entry->number;
    key_prefix(shard->prefix, KEY_POINT, entry->number);
    key_prefix(shard->prefix_end, KEY_POINT, entry->number + 1);
    shard->index = index_create(&(struct index_options){.dimension = entry->options.dimension,
                                                        .distance = entry->options.distance});
    shard->broken = map_create();
    shard->last = &shard->first;
    id_map_init(&shard->ids);
    shard_image_init(shard, &entry->options);
    pthread_mutex_init(&shard->mutex, NULL);
    return shard;
}

void shard_close(struct shard *shard)
{
    if (shard == NULL)
        return;
    struct error error;
    (void)error_set(&error, STATUS_CANCELLED, "the shard is closed");
    shard_refuse(shard, STATUS_CANCELLED, &error);
    (void)atomic_fetch_sub(&shard->store->point_bytes, shard->counted_bytes);
    index_destroy(shard->index);
    id_map_deinit(&shard->ids);
    shard_image_deinit(shard);
    map_destroy(shard->broken);
    pthread_mutex_destroy(&shard->mutex);
    store_release(shard->store, shard->number);
    mem_free(shard);
}

// --- The queue

static size_t write_size(const struct shard *shard, const struct shard_write *write)
{
    size_t size = 0;
    for (uint32_t i = 0; i < write->point_count; i++)
        size += write->points[i].id.len + write->points[i].payload.len;
    for (uint32_t i = 0; i < write->removed_count; i++)
        size += write->removed[i].len;
    const size_t fixed = RECORD_HEADER_SIZE + RECORD_CHECKSUM_SIZE + KEY_PREFIX_SIZE + 16;
    return size + write->removed_count * fixed +
           write->point_count * (index_dimension(shard->index) * sizeof(float) + fixed);
}

enum status shard_submit(struct shard *shard, struct shard_write *write, struct error *error,
                         bool *out_must_drain)
{
    ASSERT(write->done != NULL);
    write->size = write_size(shard, write);
    write->next = NULL;
    pthread_mutex_lock(&shard->mutex);
    bool is_full = shard->queue_count >= QUEUE_COUNT_MAX ||
                   (shard->queue_count > 0 && shard->queue_size + write->size > QUEUE_SIZE_MAX);
    if (!is_full) {
        *shard->last = write;
        shard->last = &write->next;
        shard->queue_count++;
        shard->queue_size += write->size;
        *out_must_drain = !shard->is_draining;
        shard->is_draining = true;
    }
    pthread_mutex_unlock(&shard->mutex);
    if (is_full)
        return error_set(error, STATUS_EXHAUSTED,
                         "the shard has %d requests or %d bytes waiting to be written; try again "
                         "in a second",
                         QUEUE_COUNT_MAX, QUEUE_SIZE_MAX);
    return STATUS_OK;
}

// As many as go together, at least one; NULL: the queue is empty.
static struct shard_write *pop_batch(struct shard *shard)
{
    size_t size = 0;
    pthread_mutex_lock(&shard->mutex);
    struct shard_write *first = shard->first;
    struct shard_write **end = &shard->first;
    while (*end != NULL && (size == 0 || size + (*end)->size <= BATCH_SIZE_MAX)) {
        size += (*end)->size > 0 ? (*end)->size : 1;
        shard->queue_size -= (*end)->size;
        shard->queue_count--;
        end = &(*end)->next;
    }
    if (first != NULL) {
        struct shard_write *rest = *end;
        *end = NULL;
        shard->first = rest;
        if (rest == NULL)
            shard->last = &shard->first;
    }
    pthread_mutex_unlock(&shard->mutex);
    return first;
}

// False: something came.
static bool stop_draining(struct shard *shard)
{
    pthread_mutex_lock(&shard->mutex);
    bool is_empty = shard->first == NULL;
    if (is_empty)
        shard->is_draining = false;
    pthread_mutex_unlock(&shard->mutex);
    return is_empty;
}

static bool link_some(struct shard *shard)
{
    bool has_more = !atomic_load(&shard->is_quiet) && index_link(shard->index, LINK_POINTS);
    shard_count_memory(shard);
    return has_more;
}

// What is done when nothing waits to be written.
static bool work(struct shard *shard)
{
    return link_some(shard) || (!atomic_load(&shard->is_quiet) && shard_image_step(shard));
}

static void complete(struct shard_write *write, enum status status, const struct error *error)
{
    while (write != NULL) {
        struct shard_write *next = write->next;
        write->done(write, status, error);
        write = next;
    }
}

void shard_refuse(struct shard *shard, enum status status, const struct error *error)
{
    pthread_mutex_lock(&shard->mutex);
    struct shard_write *first = shard->first;
    shard->first = NULL;
    shard->last = &shard->first;
    shard->queue_count = 0;
    shard->queue_size = 0;
    shard->is_draining = false;
    pthread_mutex_unlock(&shard->mutex);
    complete(first, status, error);
}

// --- Writing

// Some room is left when the disk gets full: deletes, and the compactions that give their space
// back, need it. At the very end deletes are refused too: a log that cannot be written is worse.
static enum status check_disk(const struct shard *shard, const struct shard_write *batch,
                              struct error *error)
{
    struct statvfs disk;
    if (statvfs(shard->store->path, &disk) != 0)
        return STATUS_OK; // the write will tell
    bool has_puts = false;
    uint64_t size = 0;
    for (; batch != NULL; batch = batch->next) {
        has_puts = has_puts || batch->point_count > 0;
        size += batch->size;
    }
    uint64_t reserve = (uint64_t)disk.f_blocks * disk.f_frsize / DISK_RESERVE_PART;
    uint64_t left = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (reserve > DISK_RESERVE_MAX)
        reserve = DISK_RESERVE_MAX;
    uint64_t wanted = has_puts ? reserve + 2 * size : DISK_FLOOR + 2 * size;
    if (left >= wanted)
        return STATUS_OK;
    return error_set(error, STATUS_EXHAUSTED,
                     "disk full: %llu bytes are left, %llu are needed, of which some are kept for "
                     "deletes and for maintenance",
                     (unsigned long long)left, (unsigned long long)wanted);
}

static bool puts_points(const struct shard_write *write)
{
    return write->point_count > 0;
}

static bool is_late(const struct shard_write *write)
{
    return write->deadline_ns != 0 && write->deadline_ns <= clock_monotonic_ns();
}

// Take the requests of a kind out of the batch and fail them; returns the others.
static struct shard_write *fail_some(struct shard_write *batch,
                                     bool (*is_one)(const struct shard_write *write),
                                     enum status status, const struct error *error)
{
    struct shard_write *kept = NULL;
    struct shard_write **end = &kept;
    while (batch != NULL) {
        struct shard_write *next = batch->next;
        batch->next = NULL;
        if (is_one(batch)) {
            batch->done(batch, status, error);
        } else {
            *end = batch;
            end = &batch->next;
        }
        batch = next;
    }
    return kept;
}

void shard_count_memory(struct shard *shard)
{
    uint64_t size = index_memory_size(shard->index) + id_map_memory_size(&shard->ids);
    // Unsigned: a smaller size takes off.
    (void)atomic_fetch_add(&shard->store->point_bytes, size - shard->counted_bytes);
    shard->counted_bytes = size;
    atomic_store(&shard->id_memory_size, id_map_memory_size(&shard->ids));
}

static enum status check_memory(const struct shard *shard, uint64_t count, struct error *error)
{
    uint64_t most = atomic_load_explicit(&shard->store->memory_max, memory_order_relaxed);
    uint64_t wanted = index_growth_size(shard->index, (uint32_t)count);
    if (most == 0 || wanted == 0)
        return STATUS_OK;
    uint64_t used = atomic_load(&shard->store->point_bytes) + store_memory_size(shard->store);
    if (used <= most && wanted <= most - used)
        return STATUS_OK;
    return error_set(error, STATUS_EXHAUSTED,
                     "the memory budget (--memory) is %llu bytes: %llu are used, %llu more are "
                     "needed for %llu points",
                     (unsigned long long)most, (unsigned long long)used, (unsigned long long)wanted,
                     (unsigned long long)count);
}

static enum status reserve(struct shard *shard, const struct shard_write *batch,
                           struct error *error)
{
    uint64_t count = 0;
    for (const struct shard_write *write = batch; write != NULL; write = write->next)
        count += write->point_count;
    if (count == 0)
        return STATUS_OK;
    if (count <= UINT32_MAX)
        TRY(check_memory(shard, count, error));
    if (count > UINT32_MAX || index_reserve(shard->index, (uint32_t)count) != STATUS_OK ||
        id_map_reserve(&shard->ids, (uint32_t)count) != STATUS_OK)
        return error_set(error, STATUS_EXHAUSTED, "there is no memory for %llu more points",
                         (unsigned long long)count);
    return STATUS_OK;
}

static void batch_put(const struct shard *shard, rocksdb_writebatch_t *batch,
                      const struct shard_point *point, uint64_t sequence)
{
    const struct record_input input = {
        .id = point->id,
        .sequence = sequence,
        .vector = point->vector,
        .dimension = index_dimension(shard->index),
        .payload = point->payload,
    };
    struct record_frame frame;
    record_encode(&input, &frame);
    const char *const keys[] = {(const char *)shard->prefix, point->id.data};
    const size_t key_sizes[] = {sizeof(shard->prefix), point->id.len};
    const char *const values[] = {(const char *)frame.header, (const char *)point->vector,
                                  point->payload.data, (const char *)frame.checksum};
    const size_t value_sizes[] = {sizeof(frame.header), input.dimension * sizeof(float),
                                  point->payload.len, sizeof(frame.checksum)};
    rocksdb_writebatch_putv(batch, 2, keys, key_sizes, 4, values, value_sizes);
}

static void batch_remove(const struct shard *shard, rocksdb_writebatch_t *batch, struct str id)
{
    char key[KEY_PREFIX_SIZE + LIMIT_POINT_ID_SIZE_MAX];
    ASSERT(id.len <= LIMIT_POINT_ID_SIZE_MAX);
    memcpy(key, shard->prefix, KEY_PREFIX_SIZE);
    memcpy(key + KEY_PREFIX_SIZE, id.data, id.len);
    rocksdb_writebatch_delete(batch, key, KEY_PREFIX_SIZE + id.len);
}

// What a commit counts; registering again gives the same metrics.
struct commit_metrics {
    struct metric *seconds;
    struct metric *points;
    struct metric *failures;
};

static struct commit_metrics commit_metrics;

static void register_metrics(void)
{
    commit_metrics = (struct commit_metrics){
        .seconds = metric_histogram("vectron_store_commit_seconds", NULL,
                                    "Time to write and sync a batch of requests."),
        .points =
            metric_counter("vectron_store_points_written_total", NULL, "Points put or removed."),
        .failures = metric_counter("vectron_store_commit_failures_total", NULL,
                                   "Batches that the disk refused."),
    };
}

static void count_commit(const struct shard_write *batch, enum status status, uint64_t elapsed_ns)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_metrics);
    metric_observe(commit_metrics.seconds, (double)elapsed_ns / 1e9);
    if (status != STATUS_OK)
        metric_add(commit_metrics.failures, 1);
    for (; batch != NULL && status == STATUS_OK; batch = batch->next)
        metric_add(commit_metrics.points, batch->point_count + (uint64_t)batch->removed_count);
}

static enum status write_batch(struct shard *shard, const struct shard_write *first,
                               uint64_t sequence, struct error *error)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (const struct shard_write *write = first; write != NULL; write = write->next) {
        for (uint32_t i = 0; i < write->point_count; i++)
            batch_put(shard, batch, &write->points[i], sequence);
        for (uint32_t i = 0; i < write->removed_count; i++)
            batch_remove(shard, batch, write->removed[i]);
    }
    size_t size = 0;
    (void)rocksdb_writebatch_data(batch, &size);
    TRY(store_write(shard->store, batch, error));
    (void)atomic_fetch_add(&shard->written_bytes, size);
    (void)atomic_fetch_add(&shard->store->written_bytes, size);
    return STATUS_OK;
}

static void forget_broken(struct shard *shard, struct str id)
{
    if (map_count(shard->broken) > 0 && map_remove(shard->broken, id) != NULL)
        (void)atomic_fetch_sub(&shard->broken_count, 1);
}

static void apply_write(struct shard *shard, const struct shard_write *write, uint64_t sequence)
{
    for (uint32_t i = 0; i < write->point_count; i++) {
        const struct shard_point *point = &write->points[i];
        uint32_t slot = index_put(shard->index, point->id, point->vector, sequence);
        uint32_t before = id_map_put(&shard->ids, shard->index, point->id, slot);
        if (before != INDEX_SLOT_NONE)
            index_remove(shard->index, before, sequence);
        forget_broken(shard, point->id);
    }
    for (uint32_t i = 0; i < write->removed_count; i++) {
        uint32_t slot = id_map_remove(&shard->ids, shard->index, write->removed[i]);
        if (slot != INDEX_SLOT_NONE)
            index_remove(shard->index, slot, sequence);
        forget_broken(shard, write->removed[i]);
    }
}

static void commit(struct shard *shard, struct shard_write *batch)
{
    struct error error = {0};
    enum status status = check_disk(shard, batch, &error);
    if (status == STATUS_OK)
        status = reserve(shard, batch, &error);
    if (status != STATUS_OK) {
        batch = fail_some(batch, puts_points, status, &error);
        status = batch == NULL ? STATUS_OK : check_disk(shard, batch, &error);
    }
    if (status != STATUS_OK)
        complete(batch, status, &error);
    if (batch == NULL || status != STATUS_OK)
        return;
    uint64_t sequence = index_sequence(shard->index) + 1;
    uint64_t start = clock_monotonic_ns();
    status = write_batch(shard, batch, sequence, &error);
    count_commit(batch, status, clock_monotonic_ns() - start);
    if (status == STATUS_OK) {
        for (const struct shard_write *write = batch; write != NULL; write = write->next)
            apply_write(shard, write, sequence);
        index_publish(shard->index, sequence);
        shard_count_memory(shard);
    }
    complete(batch, status, &error);
}

bool shard_drain(struct shard *shard)
{
    for (uint32_t i = 0; i < DRAIN_BATCHES_MAX; i++) {
        // Searches scan what is not linked: before that takes too long, writers wait.
        while (index_is_behind(shard->index) && link_some(shard))
            continue;
        struct shard_write *batch = pop_batch(shard);
        if (batch == NULL) {
            if (!work(shard) && stop_draining(shard))
                return false;
            continue;
        }
        // Nobody waits for these any more: the time is better spent on the others.
        struct error error;
        enum status status = error_set(&error, STATUS_TIMEOUT, "the shard had no time for it");
        batch = fail_some(batch, is_late, status, &error);
        if (batch != NULL)
            commit(shard, batch);
    }
    return true;
}

bool shard_wake(struct shard *shard)
{
    if (atomic_load(&shard->is_quiet) || !index_wants_link(shard->index))
        return false;
    pthread_mutex_lock(&shard->mutex);
    bool must_drain = !shard->is_draining;
    shard->is_draining = true;
    pthread_mutex_unlock(&shard->mutex);
    return must_drain;
}

void shard_quiesce(struct shard *shard)
{
    atomic_store(&shard->is_quiet, true);
}

// --- Reading

// The record's bytes are borrowed from the slice.
static enum status read_record(struct shard *shard, struct str id, struct error *error,
                               rocksdb_pinnableslice_t **out_slice, struct record *out_record)
{
    char key[KEY_PREFIX_SIZE + LIMIT_POINT_ID_SIZE_MAX];
    if (id.len > LIMIT_POINT_ID_SIZE_MAX)
        return STATUS_NOT_FOUND;
    memcpy(key, shard->prefix, KEY_PREFIX_SIZE);
    memcpy(key + KEY_PREFIX_SIZE, id.data, id.len);
    char *message = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned(
        shard->store->database, shard->store->reading, key, KEY_PREFIX_SIZE + id.len, &message);
    TRY(store_check(message, error));
    if (slice == NULL)
        return STATUS_NOT_FOUND;
    size_t size = 0;
    const char *value = rocksdb_pinnableslice_value(slice, &size);
    enum status status =
        record_decode(id, (struct span){(const uint8_t *)value, size}, error, out_record);
    if (status == STATUS_OK && out_record->dimension != index_dimension(shard->index))
        status = error_set(error, STATUS_CORRUPT, "record has dimension %u", out_record->dimension);
    if (status != STATUS_OK) {
        rocksdb_pinnableslice_destroy(slice);
        return status;
    }
    *out_slice = slice;
    return STATUS_OK;
}

static enum status copy_out(struct arena *arena, const void *data, size_t size, struct error *error,
                            void *out_copy)
{
    void *copy = arena_try_alloc(arena, size > 0 ? size : 1);
    if (copy == NULL)
        return error_set(error, STATUS_EXHAUSTED, "the answer needs too much memory");
    memcpy(copy, data, size);
    memcpy(out_copy, &copy, sizeof(copy));
    return STATUS_OK;
}

enum status shard_get(struct shard *shard, struct str id, struct arena *arena, struct error *error,
                      struct shard_point *out_point)
{
    rocksdb_pinnableslice_t *slice = NULL;
    struct record record;
    struct shard_point point = {.id = id};
    TRY(read_record(shard, id, error, &slice, &record));
    enum status status =
        copy_out(arena, record.vector, record.dimension * sizeof(float), error, &point.vector);
    if (status == STATUS_OK)
        status =
            copy_out(arena, record.payload.data, record.payload.len, error, &point.payload.data);
    point.payload.len = record.payload.len;
    rocksdb_pinnableslice_destroy(slice);
    if (status == STATUS_OK)
        *out_point = point;
    return status;
}

enum status shard_get_payload(struct shard *shard, const struct index_view *view, uint32_t slot,
                              struct arena *arena, struct error *error, struct str *out_payload)
{
    rocksdb_pinnableslice_t *slice = NULL;
    struct record record;
    struct str payload;
    enum status status = read_record(shard, index_view_id(view, slot), error, &slice, &record);
    if (status == STATUS_NOT_FOUND)
        return STATUS_ABORTED;
    TRY(status);
    if (record.sequence != index_view_sequence(view, slot))
        status = STATUS_ABORTED;
    if (status == STATUS_OK)
        status = copy_out(arena, record.payload.data, record.payload.len, error, &payload.data);
    payload.len = record.payload.len;
    rocksdb_pinnableslice_destroy(slice);
    if (status == STATUS_OK)
        *out_payload = payload;
    return status;
}

struct index *shard_index(struct shard *shard)
{
    return shard->index;
}

// Files are measured; what is still in buffers is shared out by how much each shard wrote.
static uint64_t disk_bytes(struct shard *shard)
{
    const char *start = (const char *)shard->prefix;
    const char *limit = (const char *)shard->prefix_end;
    const size_t size = KEY_PREFIX_SIZE;
    uint64_t files = 0;
    uint64_t buffers = 0;
    char *message = NULL;
    rocksdb_approximate_sizes(shard->store->database, 1, &start, &size, &limit, &size, &files,
                              &message);
    if (store_check(message, NULL) != STATUS_OK)
        files = 0;
    (void)rocksdb_property_int(shard->store->database, "rocksdb.cur-size-all-mem-tables", &buffers);
    uint64_t all = atomic_load(&shard->store->written_bytes);
    uint64_t own = atomic_load(&shard->written_bytes);
    uint64_t buffered = all < buffers ? all : buffers;
    return files + (all == 0 ? 0 : (uint64_t)((double)buffered * (double)own / (double)all));
}

void shard_stats(struct shard *shard, struct shard_stats *out_stats)
{
    *out_stats = (struct shard_stats){
        .points = index_point_count(shard->index),
        .broken_points = atomic_load(&shard->broken_count),
        .disk_bytes = disk_bytes(shard),
        .memory_bytes = index_memory_size(shard->index) + atomic_load(&shard->id_memory_size),
        .unlinked_points = index_unlinked_count(shard->index),
        .sequence = index_sequence(shard->index),
    };
}

void shard_memory(const struct shard *shard, struct shard_memory *out_memory)
{
    *out_memory = (struct shard_memory){
        .graph_bytes = index_graph_size(shard->index),
        .id_bytes = atomic_load(&shard->id_memory_size),
    };
}
