#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "index/beam_internal.h"
#include "testing/test.h"

// The beam on random graphs, for each instruction set, against a plain one.

enum { SLOTS = 900, CODE_SIZE = 64, WIDTH_MAX = 200 };

struct fixture {
    struct rng rng;
    uint8_t *memory;
    uint8_t *codes;
    _Atomic uint32_t *links;
    uint32_t *links_memory;
    struct beam_search search;
};

static void set_up(struct fixture *fixture, uint64_t seed, uint32_t degree, uint32_t values)
{
    rng_init(&fixture->rng, seed);
    fixture->memory = mem_alloc((size_t)SLOTS * CODE_SIZE + 64);
    fixture->codes = fixture->memory + (64 - (uintptr_t)fixture->memory % 64);
    // Few values: many distances are equal.
    for (uint32_t i = 0; i < SLOTS * CODE_SIZE; i++)
        fixture->codes[i] = (uint8_t)(1 + rng_below(&fixture->rng, values));
    fixture->links_memory = mem_alloc((size_t)SLOTS * degree * sizeof(uint32_t) + 64);
    fixture->links =
        (void *)((char *)fixture->links_memory + (64 - (uintptr_t)fixture->links_memory % 64));
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        uint32_t count = 2 + (uint32_t)rng_below(&fixture->rng, degree - 1);
        for (uint32_t i = 0; i < degree; i++) {
            uint32_t link = (slot * 31 + i * 7 + (uint32_t)rng_below(&fixture->rng, 5)) % SLOTS;
            if (rng_below(&fixture->rng, 3) == 0)
                link |= LINK_OCCLUDED;
            // Doubles in a row are possible while it is changed, and do no harm to the portable
            // one; the others are compared on rows without.
            bool is_new = true;
            for (uint32_t k = 0; k < i; k++)
                is_new = is_new && ((fixture->links[slot * degree + k] ^ link) & LINK_SLOT) != 0;
            fixture->links[slot * degree + i] = i < count && is_new ? link : LINK_NONE;
            if (!is_new)
                count = i;
        }
    }
    fixture->search = (struct beam_search){
        .codes = {fixture->codes, CODE_SIZE},
        .layer = {.links = fixture->links, .degree = degree},
        .slot_count = SLOTS,
        .breadth = 4,
    };
}

static void tear_down(struct fixture *fixture)
{
    mem_free(fixture->memory);
    mem_free(fixture->links_memory);
}

TEST(every_instruction_set_finds_the_same)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct fixture fixture;
        set_up(&fixture, seed, seed % 2 == 0 ? 16 : 32, seed % 3 == 0 ? 3 : 127);
        struct beam_search *search = &fixture.search;
        search->entry = (uint32_t)rng_below(&fixture.rng, SLOTS);
        search->width = 1 + (uint32_t)rng_below(&fixture.rng, WIDTH_MAX);
        search->breadth = 1 + (uint32_t)rng_below(&fixture.rng, BEAM_BREADTH_MAX);
        search->k = 1 + (uint32_t)rng_below(&fixture.rng, 20);
        search->stop = seed % 4 == 0 ? 0 : 1 + (float)rng_unit(&fixture.rng);
        search->slot_count = seed % 5 == 0 ? search->entry + 1 : SLOTS;
        struct beam wanted;
        beam_init(&wanted);
        REQUIRE_OK(beam_reserve(&wanted, WIDTH_MAX, SLOTS, CODE_SIZE));
        memset(wanted.query, 60, CODE_SIZE);
        memset(wanted.visited, 0, SLOTS / 8 + 8);
        beam_run_portable(&wanted, search);
        CHECK(wanted.count > 0 && wanted.count <= search->width);
        for (uint32_t i = 0; kernel_at(i) != NULL; i++) {
            REQUIRE_OK(kernel_choose(str_from_cstr(kernel_at(i)->name), NULL));
            struct beam found;
            beam_init(&found);
            REQUIRE_OK(beam_reserve(&found, WIDTH_MAX, SLOTS, CODE_SIZE));
            memset(found.query, 60, CODE_SIZE);
            beam_run(&found, search);
            if (CHECK_EQ_U64(found.count, wanted.count)) {
                CHECK(memcmp(found.slots, wanted.slots, found.count * sizeof(uint32_t)) == 0);
                CHECK(memcmp(found.distances, wanted.distances, found.count * sizeof(int32_t)) ==
                      0);
            }
            CHECK_EQ_U64(found.compared, wanted.compared);
            beam_deinit(&found);
        }
        REQUIRE_OK(kernel_choose(STR(""), NULL));
        beam_deinit(&wanted);
        tear_down(&fixture);
    }
}

static int compare_numbers(const void *a, const void *b)
{
    int32_t left = *(const int32_t *)a;
    int32_t right = *(const int32_t *)b;
    return (left > right) - (left < right);
}

// As wide as all slots and without a stop it finds everything that can be reached, in order.
TEST(a_wide_beam_finds_all_that_can_be_reached)
{
    struct fixture fixture;
    set_up(&fixture, 5, 32, 127);
    struct beam_search *search = &fixture.search;
    search->width = SLOTS;
    bool reached[SLOTS] = {false};
    uint32_t queue[SLOTS];
    uint32_t count = 0;
    queue[count++] = 0;
    reached[0] = true;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t link = fixture.links[queue[i] * 32 + k];
            if (link == LINK_NONE)
                break;
            link &= LINK_SLOT;
            if (!reached[link])
                queue[count++] = link;
            reached[link] = true;
        }
    }
    int32_t distances[SLOTS];
    struct beam beam;
    beam_init(&beam);
    REQUIRE_OK(beam_reserve(&beam, SLOTS, SLOTS, CODE_SIZE));
    memset(beam.query, 64, CODE_SIZE);
    beam_run(&beam, search);
    CHECK(count > SLOTS / 2);
    CHECK_EQ_U64(beam.count, count);
    CHECK_EQ_U64(beam.compared, count);
    kernel_at(0)->code_l2(beam.query, &search->codes, queue, count, distances);
    qsort(distances, count, sizeof(distances[0]), compare_numbers);
    for (uint32_t i = 0; i < count && i < beam.count; i++) {
        CHECK_EQ_I64(beam.distances[i], distances[i]);
        CHECK(reached[beam.slots[i]]);
    }
    beam_deinit(&beam);
    tear_down(&fixture);
}

TEST_MAIN()
