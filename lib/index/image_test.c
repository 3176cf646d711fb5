#include "index/image.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "testing/test.h"

enum { POINTS = 1500, DIMENSION = 12, GRAPH_MIN = 100, BUILD_WIDTH = 60, OWNER = 77 };

static float vectors[POINTS][DIMENSION];
static uint32_t slots[POINTS];

static struct index_options options_for(enum distance distance)
{
    return (struct index_options){.dimension = DIMENSION,
                                  .distance = distance,
                                  .build_width = BUILD_WIDTH,
                                  .graph_points_min = GRAPH_MIN};
}

static struct str id_of(uint32_t number, char out[static 32])
{
    int size = snprintf(out, 32, "number-%u-of-all-points", number);
    return (struct str){out, (size_t)size};
}

static void make_vector(struct rng *rng, float *out)
{
    for (uint32_t i = 0; i < DIMENSION; i++)
        out[i] = (float)rng_unit(rng) - 0.5F;
}

static void put_again(struct index *index, uint32_t number, uint64_t sequence)
{
    char text[32];
    if (slots[number] != INDEX_SLOT_NONE)
        index_remove(index, slots[number], sequence);
    slots[number] = index_put(index, id_of(number, text), vectors[number], sequence);
}

static struct index *create(enum distance distance)
{
    struct index_options options = options_for(distance);
    struct index *index = index_create(&options);
    struct rng rng;
    rng_init(&rng, 3);
    CHECK_OK(index_reserve(index, POINTS));
    for (uint32_t i = 0; i < POINTS; i++) {
        make_vector(&rng, vectors[i]);
        slots[i] = INDEX_SLOT_NONE;
        put_again(index, i, 1);
    }
    index_publish(index, 1);
    while (index_link(index, 100))
        continue;
    return index;
}

static void encode(const struct index *index, struct buf *out)
{
    buf_init(out, 64 << 20);
    CHECK(index_image_encode_header(index, OWNER, out));
    uint32_t count = index_slot_count(index);
    for (uint32_t slot = 0; slot < count; slot += 100)
        index_image_encode_block(index, slot, count - slot < 100 ? count - slot : 100, out);
    index_image_encode_end(out);
    CHECK(!buf_has_overflowed(out));
}

// As a store does: all points that it has, in an order of its own. Returns how many the image knew.
static uint32_t load(struct index *index, struct index_image *image, const uint64_t *sequences)
{
    uint32_t known = 0;
    CHECK_OK(index_image_begin(image, index));
    for (uint32_t i = POINTS; i-- > 0;) {
        char text[32];
        if (sequences[i] == 0)
            continue;
        uint32_t slot = index_image_put(image, id_of(i, text), vectors[i], sequences[i]);
        if (slot == INDEX_SLOT_NONE) {
            CHECK_OK(index_reserve(index, 1));
            slot = index_put(index, id_of(i, text), vectors[i], sequences[i]);
        } else {
            known++;
        }
        slots[i] = slot;
    }
    CHECK_OK(index_image_end(image));
    index_publish(index, 9);
    return known;
}

static void check_invariants(const struct index *index)
{
    struct error error = {0};
    if (!CHECK_OK(index_check(index, &error)))
        printf("    %s\n", error.text);
}

// Every point is the nearest to its own vector.
static void check_found(struct index *index, const uint64_t *sequences)
{
    uint32_t missed = 0;
    struct index_view view;
    index_view_open(index, &view);
    for (uint32_t i = 0; i < POINTS; i++) {
        struct index_hit hits[10];
        uint32_t count = 0;
        const struct index_search search = {
            .vector = vectors[i], .top_k = 10, .deadline_ns = UINT64_MAX};
        CHECK_OK(index_search(&view, &search, hits, &count, NULL));
        CHECK_EQ_U64(count, 10);
        bool is_first = hits[0].slot == slots[i];
        CHECK(sequences[i] > 0 || !is_first);
        missed += sequences[i] > 0 && !is_first;
    }
    index_view_close(&view);
    CHECK(missed < POINTS / 100);
}

TEST(a_graph_comes_back_as_it_was)
{
    for (int distance = DISTANCE_COSINE; distance <= DISTANCE_DOT; distance++) {
        uint64_t sequences[POINTS];
        for (uint32_t i = 0; i < POINTS; i++)
            sequences[i] = 1;
        struct index *index = create((enum distance)distance);
        struct buf bytes;
        struct error error;
        encode(index, &bytes);
        struct index_effort effort = index_effort(index);
        CHECK(effort.recall > 0);
        index_destroy(index);

        struct index_options options = options_for((enum distance)distance);
        struct index_image *image = NULL;
        REQUIRE_OK(index_image_open(buf_span(&bytes), &options, OWNER, &error, &image));
        index = index_create(&options);
        CHECK_EQ_U64(load(index, image, sequences), POINTS);
        index_image_close(image);
        CHECK(index_has_graph(index));
        CHECK_EQ_U64(index_unlinked_count(index), 0);
        check_invariants(index);
        CHECK(index_effort(index).recall == effort.recall);
        CHECK(index_effort(index).stop == effort.stop);
        CHECK(!index_wants_link(index));
        // By dot a longer vector may well be nearer than the point itself.
        if (distance != DISTANCE_DOT)
            check_found(index, sequences);
        struct buf again;
        encode(index, &again);
        CHECK_EQ_U64(again.len, bytes.len);
        buf_deinit(&again);
        index_destroy(index);
        buf_deinit(&bytes);
    }
}

// The points went on changing: some are gone, some have other vectors, some came.
TEST(an_old_image_gives_what_is_still_true)
{
    uint64_t sequences[POINTS];
    struct rng rng;
    rng_init(&rng, 4);
    struct index *index = create(DISTANCE_EUCLIDEAN);
    REQUIRE_OK(index_reserve(index, 300));
    for (uint32_t i = 0; i < POINTS; i++)
        sequences[i] = 1;
    // Before the image: 200 were put a second time, half of them are not linked yet.
    for (uint32_t i = 0; i < 200; i++) {
        make_vector(&rng, vectors[i]);
        put_again(index, i, 2);
        sequences[i] = 2;
    }
    index_publish(index, 2);
    (void)index_link(index, 100);
    struct buf bytes;
    encode(index, &bytes);
    index_destroy(index);
    // After it: 300 are gone, 200 have other vectors under the same number, as after a start that
    // counts on from what is left.
    for (uint32_t i = 400; i < 700; i++)
        sequences[i] = 0;
    for (uint32_t i = 1000; i < 1200; i++)
        make_vector(&rng, vectors[i]);

    struct index_options options = options_for(DISTANCE_EUCLIDEAN);
    struct index_image *image = NULL;
    struct error error;
    REQUIRE_OK(index_image_open(buf_span(&bytes), &options, OWNER, &error, &image));
    index = index_create(&options);
    uint32_t known = load(index, image, sequences);
    index_image_close(image);
    CHECK(known >= POINTS - 700 && known <= POINTS - 500);
    CHECK_EQ_U64(index_point_count(index), POINTS - 300);
    CHECK_EQ_U64(index_unlinked_count(index), POINTS - 300 - known);
    check_invariants(index);
    check_found(index, sequences);
    while (index_link(index, 100))
        continue;
    CHECK_EQ_U64(index_unlinked_count(index), 0);
    check_invariants(index);
    check_found(index, sequences);
    // Slots of what is gone are used again.
    uint32_t slot_count = index_slot_count(index);
    REQUIRE_OK(index_reserve(index, 300));
    for (uint32_t i = 400; i < 700; i++) {
        slots[i] = INDEX_SLOT_NONE;
        put_again(index, i, 10);
    }
    index_publish(index, 10);
    CHECK_EQ_U64(index_slot_count(index), slot_count);
    index_destroy(index);
    buf_deinit(&bytes);
}

TEST(damage_is_found)
{
    struct index *index = create(DISTANCE_COSINE);
    struct buf bytes;
    encode(index, &bytes);
    index_destroy(index);
    struct index_options options = options_for(DISTANCE_COSINE);
    struct index_image *image = NULL;
    struct error error;
    struct rng rng;
    rng_init(&rng, 5);
    for (uint32_t i = 0; i < 400; i++) {
        // The first bytes, and others.
        size_t place = i < 150 ? i : rng_below(&rng, bytes.len);
        uint8_t flip = (uint8_t)(1U << rng_below(&rng, 8));
        bytes.data[place] ^= flip;
        CHECK_STATUS(index_image_open(buf_span(&bytes), &options, OWNER, &error, &image),
                     STATUS_CORRUPT);
        bytes.data[place] ^= flip;
        size_t cut = i < 100 ? i : rng_below(&rng, bytes.len);
        CHECK_STATUS(
            index_image_open((struct span){bytes.data, cut}, &options, OWNER, &error, &image),
            STATUS_CORRUPT);
    }
    buf_append_u32(&bytes, 0);
    CHECK_STATUS(index_image_open(buf_span(&bytes), &options, OWNER, &error, &image),
                 STATUS_CORRUPT);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("behind its end"));
    bytes.len -= 4;
    CHECK_STATUS(index_image_open(buf_span(&bytes), &options, OWNER + 1, &error, &image),
                 STATUS_PRECONDITION);
    options.dimension++;
    CHECK_STATUS(index_image_open(buf_span(&bytes), &options, OWNER, &error, &image),
                 STATUS_PRECONDITION);
    buf_deinit(&bytes);
}

TEST(without_a_graph_there_is_no_image)
{
    struct index_options options = options_for(DISTANCE_COSINE);
    struct index *index = index_create(&options);
    struct buf bytes;
    buf_init(&bytes, 1000);
    CHECK(!index_image_encode_header(index, OWNER, &bytes));
    CHECK(!index_has_graph(index));
    CHECK_EQ_U64(bytes.len, 0);
    buf_deinit(&bytes);
    index_destroy(index);
}

TEST_MAIN()
