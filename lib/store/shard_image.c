#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "store/store_internal.h"

// The graph image of a shard: a file of its own beside RocksDB, written a piece at a time between
// writes, under another name until it is whole. It is only a help (index/image.h): one that is
// missing, damaged, old or of another shard costs the time to link points again, and nothing else.

enum {
    STEP_SLOTS = 2048,          // about a millisecond
    BLOCK_SIZE_MAX = 512 << 20, // of any step: a row of the largest dimension
    CHANGES_MIN = 1000,         // before it is written again
    CHANGES_PART = 8,           // and so many parts of all points
    DISK_SPARE = 256 << 20,     // is left for the points
    IMAGE_PATH_MAX = 4096 + 32,
};

struct image_metrics {
    struct metric *written;
    struct metric *failures;
    struct metric *broken;
};

static struct image_metrics image_metrics;

static void register_metrics(void)
{
    image_metrics = (struct image_metrics){
        .written = metric_counter("vectron_store_images_written_total", NULL,
                                  "Graph images that were written."),
        .failures = metric_counter("vectron_store_image_failures_total", NULL,
                                   "Graph images that the disk did not take."),
        .broken = metric_counter("vectron_store_images_broken_total", NULL,
                                 "Graph images that were damaged, of another shard or mostly empty "
                                 "when a shard was opened; the graph is built again."),
    };
}

static void count(struct metric *const *metric)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_metrics);
    metric_add(*metric, 1);
}

static bool image_path(const struct store *store, uint32_t number, const char *end,
                       char out[static IMAGE_PATH_MAX])
{
    int size = snprintf(out, IMAGE_PATH_MAX, "%s/%u%s", store->image_folder, number, end);
    return size > 0 && size < IMAGE_PATH_MAX;
}

void store_remove_image(struct store *store, uint32_t number)
{
    char path[IMAGE_PATH_MAX];
    // There may be none; one that stays is known to be of another shard.
    if (image_path(store, number, "", path))
        (void)unlink(path);
    if (image_path(store, number, ".new", path))
        (void)unlink(path);
}

// --- Writing

static void give_up(struct shard *shard)
{
    struct shard_image *image = &shard->image;
    char path[IMAGE_PATH_MAX];
    if (image->file >= 0)
        (void)close(image->file);
    image->file = -1;
    if (image_path(shard->store, shard->number, ".new", path))
        (void)unlink(path);
    count(&image_metrics.failures);
    // Again when there is more to keep.
    image->saved_changes = index_change_count(shard->index);
}

static bool write_buffer(struct shard *shard)
{
    struct buf *buffer = &shard->image.buffer;
    const uint8_t *data = buffer->data;
    size_t left = buffer->len;
    bool is_written = !buf_has_overflowed(buffer);
    while (is_written && left > 0) {
        ssize_t size = write(shard->image.file, data, left);
        if (size < 0 && errno == EINTR)
            continue;
        is_written = size > 0;
        data += size > 0 ? size : 0;
        left -= size > 0 ? (size_t)size : 0;
    }
    buf_clear(buffer);
    return is_written;
}

static bool has_room(const struct shard *shard)
{
    struct statvfs disk;
    if (statvfs(shard->store->image_folder, &disk) != 0)
        return false;
    return (uint64_t)disk.f_bavail * disk.f_frsize >
           DISK_SPARE + 2 * index_memory_size(shard->index);
}

static bool begin(struct shard *shard)
{
    struct shard_image *image = &shard->image;
    char path[IMAGE_PATH_MAX];
    image->changes = index_change_count(shard->index);
    image->next = 0;
    image->slot_count = index_slot_count(shard->index);
    if (!has_room(shard) || !image_path(shard->store, shard->number, ".new", path))
        return false;
    image->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (image->file < 0)
        return false;
    buf_clear(&image->buffer);
    return index_image_encode_header(shard->index, image->owner, &image->buffer) &&
           write_buffer(shard);
}

static bool finish(struct shard *shard)
{
    struct shard_image *image = &shard->image;
    char path[IMAGE_PATH_MAX];
    char final_path[IMAGE_PATH_MAX];
    index_image_encode_end(&image->buffer);
    bool is_done = write_buffer(shard) && fdatasync(image->file) == 0;
    is_done = close(image->file) == 0 && is_done;
    image->file = -1;
    is_done = is_done && image_path(shard->store, shard->number, ".new", path) &&
              image_path(shard->store, shard->number, "", final_path) &&
              rename(path, final_path) == 0;
    if (!is_done)
        return false;
    image->saved_changes = image->changes;
    count(&image_metrics.written);
    return true;
}

static bool is_worth_writing(const struct shard *shard)
{
    uint64_t changes = index_change_count(shard->index) - shard->image.saved_changes;
    return index_has_graph(shard->index) && changes >= CHANGES_MIN &&
           changes >= index_point_count(shard->index) / CHANGES_PART;
}

// What is written now shows how much there is to write: true: call again.
static bool step(struct shard *shard)
{
    struct shard_image *image = &shard->image;
    if (image->file < 0) {
        if (!begin(shard))
            give_up(shard);
        return image->file >= 0;
    }
    if (image->next < image->slot_count) {
        uint32_t left = image->slot_count - image->next;
        uint32_t size = left < STEP_SLOTS ? left : STEP_SLOTS;
        index_image_encode_block(shard->index, image->next, size, &image->buffer);
        image->next += size;
        if (write_buffer(shard))
            return true;
    } else if (finish(shard)) {
        return false;
    }
    give_up(shard);
    return false;
}

bool shard_image_step(struct shard *shard)
{
    if (shard->image.file < 0 && !is_worth_writing(shard))
        return false;
    return step(shard);
}

void shard_save_image(struct shard *shard)
{
    if (!index_has_graph(shard->index) ||
        index_change_count(shard->index) == shard->image.saved_changes)
        return;
    while (step(shard))
        continue;
}

// --- Reading

void shard_image_init(struct shard *shard, const struct shard_options *options)
{
    struct str incarnation = options->incarnation;
    shard->image = (struct shard_image){.file = -1};
    shard->image.owner = hash64((struct span){(const uint8_t *)incarnation.data, incarnation.len},
                                options->shard_id);
    buf_init(&shard->image.buffer, BLOCK_SIZE_MAX);
}

void shard_image_deinit(struct shard *shard)
{
    if (shard->image.file >= 0)
        (void)close(shard->image.file);
    buf_deinit(&shard->image.buffer);
}

struct index_image *shard_image_open(struct shard *shard, struct span *out_bytes)
{
    char path[IMAGE_PATH_MAX];
    struct stat info;
    struct index_image *image = NULL;
    *out_bytes = (struct span){0};
    if (!image_path(shard->store, shard->number, "", path))
        return NULL;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return NULL;
    if (fstat(file, &info) == 0 && info.st_size > 0) {
        void *memory =
            mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
        if (memory != MAP_FAILED)
            *out_bytes = (struct span){memory, (size_t)info.st_size};
    }
    (void)close(file);
    const struct index_options options = {.dimension = index_dimension(shard->index),
                                          .distance = index_distance(shard->index)};
    // Why it cannot be used makes no difference: the graph is built again.
    if (out_bytes->len > 0 &&
        index_image_open(*out_bytes, &options, shard->image.owner, NULL, &image) == STATUS_OK &&
        index_image_begin(image, shard->index) == STATUS_OK)
        return image;
    count(&image_metrics.broken);
    shard_image_close(image, *out_bytes);
    *out_bytes = (struct span){0};
    return NULL;
}

void shard_image_close(struct index_image *image, struct span bytes)
{
    index_image_close(image);
    if (bytes.len == 0)
        return;
    void *memory;
    memcpy(&memory, &bytes.data, sizeof(memory)); // it came from mmap
    (void)munmap(memory, bytes.len);
}
