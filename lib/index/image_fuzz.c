#include "index/image.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mem.h"

// Bytes as an image: as they come, and then as changes to a good one, with all checksums put right,
// so that what stands behind them is reached. What opens is given to an index, whose invariants
// must hold.

enum { POINTS = 60, DIMENSION = 3, CHANGE_SIZE = 3, HEADER_CHECKED = 48 + 5 * 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct index_options options = {.dimension = DIMENSION,
                                             .distance = DISTANCE_EUCLIDEAN,
                                             .build_width = 20,
                                             .graph_points_min = 10};

static void vector_of(uint32_t number, float *out)
{
    out[0] = (float)(number % 7);
    out[1] = (float)(number % 5);
    out[2] = (float)number;
}

static struct str id_of(const uint32_t *number)
{
    return (struct str){(const char *)number, sizeof(*number)};
}

static void make_image(struct buf *out)
{
    struct index *index = index_create(&options);
    ASSERT(index_reserve(index, POINTS) == STATUS_OK);
    for (uint32_t i = 0; i < POINTS; i++) {
        float vector[DIMENSION];
        vector_of(i, vector);
        (void)index_put(index, id_of(&i), vector, 1);
    }
    index_publish(index, 1);
    while (index_link(index, 100))
        continue;
    ASSERT(index_image_encode_header(index, 1, out));
    index_image_encode_block(index, 0, POINTS, out);
    index_image_encode_end(out);
    index_destroy(index);
}

static void open_and_use(struct span bytes)
{
    struct index_image *image = NULL;
    if (index_image_open(bytes, &options, 1, NULL, &image) != STATUS_OK)
        return;
    struct index *index = index_create(&options);
    if (index_image_begin(image, index) != STATUS_OK) {
        index_destroy(index);
        index_image_close(image);
        return;
    }
    for (uint32_t i = 0; i < POINTS; i++) {
        float vector[DIMENSION];
        vector_of(i, vector);
        if (index_image_put(image, id_of(&i), vector, 1) == INDEX_SLOT_NONE) {
            ASSERT(index_reserve(index, 1) == STATUS_OK);
            (void)index_put(index, id_of(&i), vector, 1);
        }
    }
    ASSERT(index_image_end(image) == STATUS_OK);
    index_publish(index, 1);
    index_image_close(image);
    while (index_link(index, 100))
        continue;
    const float query[DIMENSION] = {1, 2, 3};
    struct index_hit hits[POINTS];
    uint32_t count = 0;
    struct index_view view;
    index_view_open(index, &view);
    const struct index_search search = {.vector = query, .top_k = 5, .deadline_ns = UINT64_MAX};
    ASSERT(index_search(&view, &search, hits, &count, NULL) == STATUS_OK);
    ASSERT(count == 5);
    index_view_close(&view);
    index_destroy(index);
}

static void put_checksum(uint8_t *bytes, size_t from, size_t to)
{
    uint32_t crc = crc32c(0, bytes + from, to - from);
    memcpy(bytes + to, &crc, sizeof(crc));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf good;
    if (good.data == NULL) {
        buf_init(&good, 1 << 20);
        make_image(&good);
    }
    open_and_use((struct span){data, size});
    uint8_t *changed = mem_alloc(good.len);
    memcpy(changed, good.data, good.len);
    for (size_t i = 0; i + CHANGE_SIZE <= size; i += CHANGE_SIZE) {
        size_t place = (size_t)data[i] << 8 | data[i + 1];
        changed[place % good.len] = data[i + 2];
    }
    uint32_t block_size;
    size_t block = HEADER_CHECKED + 4;
    put_checksum(changed, 0, HEADER_CHECKED);
    memcpy(&block_size, changed + block + 4, sizeof(block_size));
    if (block_size < good.len - block - 12)
        put_checksum(changed, block, block + 8 + block_size);
    put_checksum(changed, good.len - 12, good.len - 4);
    open_and_use((struct span){changed, good.len});
    mem_free(changed);
    return 0;
}
