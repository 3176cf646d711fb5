#include "base/hash.h"

#include <string.h>

#include "testing/test.h"

// Values of the reference implementation (xxHash 0.8) over the bytes i * 131 + 7. They decide where
// stored points are: a change here loses them.
static const struct {
    size_t size;
    uint64_t seed;
    uint64_t hash;
} golden[] = {
    // clang-format off
    {0, 0x0U, 0xEF46DB3751D8E999U},
    {0, 0x9E3779B97F4A7C15U, 0xC4349FC93C010000U},
    {1, 0x0U, 0xA96C7F0CE858BBB7U},
    {1, 0x9E3779B97F4A7C15U, 0x585882422A6165E7U},
    {3, 0x0U, 0xBED43740EE6332BBU},
    {3, 0x9E3779B97F4A7C15U, 0x45FA1406538FA168U},
    {4, 0x0U, 0xFA212AE44B3BB23DU},
    {4, 0x9E3779B97F4A7C15U, 0xA65107F22943365AU},
    {7, 0x0U, 0x2744460DD675D2C0U},
    {7, 0x9E3779B97F4A7C15U, 0xC9B637E2C4599DE2U},
    {8, 0x0U, 0x994B676B71CE94DDU},
    {8, 0x9E3779B97F4A7C15U, 0xCE592D5F53E192ECU},
    {9, 0x0U, 0x572B84C18B983AF8U},
    {9, 0x9E3779B97F4A7C15U, 0x5495AA796DE8AB73U},
    {15, 0x0U, 0x09E6451ED2FF8B1DU},
    {15, 0x9E3779B97F4A7C15U, 0x47A857D1F90C35E1U},
    {31, 0x0U, 0x6711D55E306B5D8FU},
    {31, 0x9E3779B97F4A7C15U, 0x24C4E99AB0404B5EU},
    {32, 0x0U, 0x07F7B8E3BC5D6E25U},
    {32, 0x9E3779B97F4A7C15U, 0x046E99BBDA1A814BU},
    {33, 0x0U, 0x09F85EEB4E1CBE9FU},
    {33, 0x9E3779B97F4A7C15U, 0xD7FE2BFEE6E4CDEDU},
    {63, 0x0U, 0xB7C9968C066CB6A5U},
    {63, 0x9E3779B97F4A7C15U, 0xBD457F9EA47180C8U},
    {64, 0x0U, 0x50D4159A0411632EU},
    {64, 0x9E3779B97F4A7C15U, 0xA768F350A8E4FCF6U},
    {100, 0x0U, 0x9DDADA11D3DC2D8FU},
    {100, 0x9E3779B97F4A7C15U, 0x35546BD9A4779AE4U},
    {300, 0x0U, 0xC68E7EF39B5CA10EU},
    {300, 0x9E3779B97F4A7C15U, 0xF740B6BA02E2A0BDU},
    // clang-format on
};

TEST(hashes_never_change)
{
    uint8_t bytes[301];
    for (size_t offset = 0; offset < 2; offset++) { // unaligned too
        for (size_t i = 0; i < 300; i++)
            bytes[offset + i] = (uint8_t)(i * 131 + 7);
        for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
            struct span span = {bytes + offset, golden[i].size};
            CHECK_EQ_U64(hash64(span, golden[i].seed), golden[i].hash);
        }
    }
    CHECK_EQ_U64(hash64(str_span(STR("point-42")), 0), 0xD3F6D3B84F138B9DU);
    CHECK_EQ_U64(hash64((struct span){0}, 0), 0xEF46DB3751D8E999U);
}

// Ids that people really use differ in a few low digits; they must still spread.
TEST(similar_ids_spread)
{
    unsigned counts[16] = {0};
    for (unsigned i = 0; i < 16000; i++) {
        char id[8] = {'d', 'o', 'c', '-'};
        id[4] = (char)('0' + i / 1000 % 10);
        id[5] = (char)('0' + i / 100 % 10);
        id[6] = (char)('0' + i / 10 % 10);
        id[7] = (char)('0' + i % 10);
        counts[hash64((struct span){(const uint8_t *)id, 8}, i / 10000) >> 60]++;
    }
    for (unsigned i = 0; i < 16; i++)
        CHECK(counts[i] > 850 && counts[i] < 1150);
}

TEST_MAIN()
