#include "index/image.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/index_internal.h"
#include "index/index_tune.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers lie as in memory");

enum {
    MAGIC = 0x31494756, // "VGI1"
    VERSION = 1,
    HEADER_SIZE = 48, // without floats and checksum
    BLOCK_HEADER_SIZE = 8,
    POINT_HEADER_SIZE = 24,
    CHECKSUM_SIZE = 4,
    FLOATS_MAX = LIMIT_DIMENSION_MAX + 8,
    SLOTS_PER_POINT_MAX = 4,
    SLOTS_SPARE = 1 << 16,
};

#define ID_SEED UINT64_C(0x56474931)

static uint64_t hash_id(struct str id)
{
    return hash64((struct span){(const uint8_t *)id.data, id.len}, ID_SEED);
}

static uint32_t vector_checksum(const struct index *index, const float *vector)
{
    return crc32c(0, vector, index->options.dimension * sizeof(float));
}

// --- Writing

static void append_checksum(struct buf *out, size_t from)
{
    buf_append_u32(out, crc32c(0, out->data + from, out->len - from));
}

bool index_image_encode_header(const struct index *index, uint64_t owner, struct buf *out)
{
    const struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    if (graph == NULL)
        return false;
    size_t from = out->len;
    const struct quantizer *quantizer = graph_quantizer(graph);
    uint32_t float_count = quantizer_float_count(quantizer);
    buf_append_u32(out, MAGIC);
    buf_append_u32(out, VERSION);
    buf_append_u32(out, index->options.dimension);
    buf_append_u32(out, (uint32_t)index->options.distance);
    buf_append_u64(out, owner);
    buf_append_u32(out, index_slot_count(index));
    buf_append_u64(out, index->learned_count);
    buf_append_u32(out, float_count);
    buf_append_u64(out, tuner_save(atomic_load_explicit(&index->tuner, memory_order_relaxed)));
    float *floats = mem_alloc(float_count * sizeof(*floats));
    quantizer_save(quantizer, floats);
    buf_append(out, floats, float_count * sizeof(*floats));
    mem_free(floats);
    append_checksum(out, from);
    return true;
}

static void encode_point(const struct index *index, const struct graph *graph, uint32_t slot,
                         struct buf *out)
{
    const struct index_chunk *chunk =
        index_chunk_of(index, atomic_load_explicit(&index->directory, memory_order_relaxed), slot);
    uint32_t place = index_place_of(index, slot);
    buf_append_u32(out, slot);
    buf_append_u64(out, hash_id(index_id_cell_get(&chunk->ids[place])));
    buf_append_u64(out, atomic_load_explicit(&chunk->born[place], memory_order_relaxed));
    buf_append_u32(out, vector_checksum(index, chunk->vectors + (size_t)place * index->stride));
    graph_encode_slot(graph, slot, out);
}

void index_image_encode_block(const struct index *index, uint32_t first, uint32_t slot_count,
                              struct buf *out)
{
    const struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    size_t from = out->len;
    uint32_t code_size = quantizer_code_size(graph_quantizer(graph));
    uint32_t count = 0;
    size_t size = 0;
    for (uint32_t slot = first; slot < first + slot_count; slot++) {
        if (!graph_is_linked(graph, slot))
            continue;
        count++;
        size += POINT_HEADER_SIZE + graph_encoded_size(code_size, slot);
    }
    if (count == 0)
        return;
    buf_append_u32(out, count);
    buf_append_u32(out, (uint32_t)size);
    for (uint32_t slot = first; slot < first + slot_count; slot++) {
        if (graph_is_linked(graph, slot))
            encode_point(index, graph, slot, out);
    }
    append_checksum(out, from);
}

void index_image_encode_end(struct buf *out)
{
    size_t from = out->len;
    buf_append_u32(out, 0);
    buf_append_u32(out, 0);
    append_checksum(out, from);
}

// --- Reading

struct known_point {
    uint64_t key; // 0: nothing is here
    const uint8_t *bytes;
};

struct index_image {
    struct span bytes;
    struct index_options options;
    struct quantizer *quantizer;
    uint32_t code_size;
    uint32_t slot_count;
    uint64_t learned_count;
    uint64_t effort;
    size_t points_at; // the first block
    uint32_t point_count;
    struct known_point *points; // open-addressed
    uint64_t capacity;          // a power of two
    struct index *index;
    const uint8_t **by_slot; // what was put: its bytes
};

static uint32_t u32_at(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static uint64_t u64_at(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static uint64_t key_of(uint64_t id_hash, uint64_t sequence, uint32_t checksum)
{
    const uint64_t words[3] = {id_hash, sequence, checksum};
    uint64_t key = hash64((struct span){(const uint8_t *)words, sizeof(words)}, ID_SEED);
    return key == 0 ? 1 : key;
}

static enum status decode_header(struct index_image *image, uint64_t owner, struct error *error)
{
    struct span bytes = image->bytes;
    if (bytes.len < HEADER_SIZE + CHECKSUM_SIZE)
        return error_set(error, STATUS_CORRUPT, "graph image of %zu bytes is too short", bytes.len);
    uint32_t float_count = u32_at(bytes.data + 36);
    size_t size = HEADER_SIZE + (size_t)float_count * sizeof(float);
    if (u32_at(bytes.data) != MAGIC || u32_at(bytes.data + 4) != VERSION)
        return error_set(error, STATUS_CORRUPT, "graph image does not start with VGI1, version 1");
    if (float_count > FLOATS_MAX || bytes.len < size + CHECKSUM_SIZE ||
        crc32c(0, bytes.data, size) != u32_at(bytes.data + size))
        return error_set(error, STATUS_CORRUPT, "graph image's header is damaged");
    if (u32_at(bytes.data + 8) != image->options.dimension ||
        u32_at(bytes.data + 12) != (uint32_t)image->options.distance ||
        u64_at(bytes.data + 16) != owner)
        return error_set(error, STATUS_PRECONDITION, "graph image is of another shard");
    image->slot_count = u32_at(bytes.data + 24);
    image->learned_count = u64_at(bytes.data + 28);
    image->effort = u64_at(bytes.data + 40);
    image->points_at = size + CHECKSUM_SIZE;
    float *floats = mem_alloc((float_count + 1) * sizeof(*floats));
    memcpy(floats, bytes.data + HEADER_SIZE, float_count * sizeof(*floats));
    image->quantizer =
        quantizer_restore(image->options.distance, image->options.dimension, floats, float_count);
    mem_free(floats);
    if (image->quantizer == NULL || image->slot_count > GRAPH_SLOTS_MAX)
        return error_set(error, STATUS_CORRUPT, "graph image's header makes no sense");
    image->code_size = quantizer_code_size(image->quantizer);
    return STATUS_OK;
}

// The bytes of the point that starts here; 0: more than there are.
static size_t point_size(const struct index_image *image, const uint8_t *bytes, size_t left)
{
    if (left < POINT_HEADER_SIZE || u32_at(bytes) >= image->slot_count)
        return 0;
    size_t size = POINT_HEADER_SIZE + graph_encoded_size(image->code_size, u32_at(bytes));
    return size <= left ? size : 0;
}

static void remember(struct index_image *image, const uint8_t *bytes)
{
    uint64_t key = key_of(u64_at(bytes + 4), u64_at(bytes + 12), u32_at(bytes + 20));
    uint64_t place = key & (image->capacity - 1);
    while (image->points[place].key != 0)
        place = (place + 1) & (image->capacity - 1);
    image->points[place] = (struct known_point){key, bytes};
}

// With remembering the points, or only checking and counting them.
static enum status read_block(struct index_image *image, size_t *at, bool is_remembering,
                              struct error *error)
{
    struct span bytes = image->bytes;
    size_t left = bytes.len - *at;
    const uint8_t *block = bytes.data + *at;
    if (left < BLOCK_HEADER_SIZE + CHECKSUM_SIZE ||
        u32_at(block + 4) > left - BLOCK_HEADER_SIZE - CHECKSUM_SIZE)
        return error_set(error, STATUS_CORRUPT, "graph image ends at byte %zu", bytes.len);
    uint32_t count = u32_at(block);
    size_t size = u32_at(block + 4);
    if (!is_remembering &&
        crc32c(0, block, BLOCK_HEADER_SIZE + size) != u32_at(block + BLOCK_HEADER_SIZE + size))
        return error_set(error, STATUS_CORRUPT, "graph image is damaged behind byte %zu", *at);
    const uint8_t *point = block + BLOCK_HEADER_SIZE;
    for (uint32_t i = 0; i < count; i++) {
        size_t point_bytes = point_size(image, point, size);
        if (point_bytes == 0)
            return error_set(error, STATUS_CORRUPT,
                             "graph image: point %u of the block at byte "
                             "%zu makes no sense",
                             i, *at);
        if (is_remembering)
            remember(image, point);
        point += point_bytes;
        size -= point_bytes;
    }
    if (size != 0)
        return error_set(error, STATUS_CORRUPT, "graph image: the block at byte %zu is too long",
                         *at);
    *at += BLOCK_HEADER_SIZE + u32_at(block + 4) + CHECKSUM_SIZE;
    return STATUS_OK;
}

static enum status read_blocks(struct index_image *image, bool is_remembering, struct error *error)
{
    uint64_t points = 0;
    size_t at = image->points_at;
    for (;;) {
        size_t start = at;
        TRY(read_block(image, &at, is_remembering, error));
        uint32_t count = u32_at(image->bytes.data + start);
        if (count == 0)
            break;
        points += count;
    }
    if (at != image->bytes.len)
        return error_set(error, STATUS_CORRUPT, "graph image goes on behind its end, at byte %zu",
                         at);
    if (points > image->slot_count)
        return error_set(error, STATUS_CORRUPT, "graph image has more points than slots");
    // So memory follows the points that there are, not the slots that are claimed; and an index
    // that has shrunk gets small again.
    if (image->slot_count > points * SLOTS_PER_POINT_MAX + SLOTS_SPARE)
        return error_set(error, STATUS_PRECONDITION, "graph image has few points in many slots");
    image->point_count = (uint32_t)points;
    return STATUS_OK;
}

enum status index_image_open(struct span bytes, const struct index_options *options, uint64_t owner,
                             struct error *error, struct index_image **out_image)
{
    struct index_image *image = mem_alloc(sizeof(*image));
    image->bytes = bytes;
    image->options = *options;
    enum status status = decode_header(image, owner, error);
    if (status == STATUS_OK)
        status = read_blocks(image, false, error);
    if (status == STATUS_OK) {
        image->capacity = 16;
        while (image->capacity < (uint64_t)image->point_count * 2)
            image->capacity *= 2;
        image->points = mem_try_alloc(image->capacity * sizeof(image->points[0]));
        image->by_slot = mem_try_alloc(((size_t)image->slot_count + 1) * sizeof(image->by_slot[0]));
        if (image->points == NULL || image->by_slot == NULL)
            status = error_set(error, STATUS_EXHAUSTED, "the graph image does not fit into memory");
    }
    if (status == STATUS_OK)
        status = read_blocks(image, true, error);
    if (status != STATUS_OK) {
        index_image_close(image);
        return status;
    }
    *out_image = image;
    return STATUS_OK;
}

enum status index_image_inspect(struct span bytes, struct error *error,
                                struct index_image_info *out_info)
{
    struct index_image *image;
    if (bytes.len < HEADER_SIZE)
        return error_set(error, STATUS_CORRUPT, "graph image of %zu bytes is too short", bytes.len);
    const struct index_options options = {
        .dimension = u32_at(bytes.data + 8),
        .distance = (enum distance)u32_at(bytes.data + 12),
    };
    if (options.distance > DISTANCE_DOT || options.dimension == 0 ||
        options.dimension > LIMIT_DIMENSION_MAX)
        return error_set(error, STATUS_CORRUPT, "graph image: distance %u, dimension %u",
                         options.distance, options.dimension);
    TRY(index_image_open(bytes, &options, u64_at(bytes.data + 16), error, &image));
    *out_info = (struct index_image_info){options.dimension, options.distance, image->slot_count,
                                          image->point_count};
    index_image_close(image);
    return STATUS_OK;
}

void index_image_close(struct index_image *image)
{
    if (image == NULL)
        return;
    quantizer_destroy(image->quantizer);
    mem_free(image->points);
    mem_free(image->by_slot);
    mem_free(image);
}

// --- Giving it to an index

enum status index_image_begin(struct index_image *image, struct index *index)
{
    ASSERT(image->index == NULL && index_slot_count(index) == 0);
    TRY(index_restore_slots(index, image->slot_count));
    image->index = index;
    return STATUS_OK;
}

uint32_t index_image_put(struct index_image *image, struct str id, const float *vector,
                         uint64_t sequence)
{
    uint64_t key = key_of(hash_id(id), sequence, vector_checksum(image->index, vector));
    uint64_t place = key & (image->capacity - 1);
    while (image->points[place].key != 0 && image->points[place].key != key)
        place = (place + 1) & (image->capacity - 1);
    const uint8_t *bytes = image->points[place].bytes;
    if (bytes == NULL || image->by_slot[u32_at(bytes)] != NULL)
        return INDEX_SLOT_NONE;
    uint32_t slot = u32_at(bytes);
    image->by_slot[slot] = bytes;
    index_put_at(image->index, slot, id, vector, sequence);
    return slot;
}

static void unlink_all(const struct index_image *image)
{
    struct index *index = image->index;
    for (uint32_t slot = 0; slot < image->slot_count; slot++) {
        if (image->by_slot[slot] != NULL)
            index_link_put(index, index_chunk_of(index, atomic_load(&index->directory), slot),
                           slot);
    }
}

enum status index_image_end(struct index_image *image)
{
    struct index *index = image->index;
    index_restore_end(index, image->slot_count);
    struct graph *graph =
        graph_restore(&(struct graph_options){.distance = index->options.distance,
                                              .dimension = index->options.dimension,
                                              .epoch = &index->epoch,
                                              .build_width = index->options.build_width},
                      image->quantizer, index_slot_count(index));
    if (graph == NULL) {
        unlink_all(image);
        return STATUS_EXHAUSTED;
    }
    image->quantizer = NULL; // the graph's now
    for (uint32_t slot = 0; slot < image->slot_count; slot++) {
        if (image->by_slot[slot] != NULL)
            graph_restore_slot(graph, slot, image->by_slot[slot] + POINT_HEADER_SIZE);
    }
    graph_restore_end(graph);
    index_link_restore(index, graph, image->learned_count);
    tuner_restore(atomic_load_explicit(&index->tuner, memory_order_relaxed), image->effort);
    return STATUS_OK;
}
