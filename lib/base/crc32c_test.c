#include "base/crc32c.h"

#include <string.h>

#include "base/rng.h"
#include "testing/test.h"

// RFC 3720, appendix B.4, and the check value of the catalogues.
TEST(known_values)
{
    uint8_t bytes[32] = {0};
    CHECK_EQ_U64(crc32c(0, bytes, 32), 0x8A9136AA);
    memset(bytes, 0xFF, 32);
    CHECK_EQ_U64(crc32c(0, bytes, 32), 0x62A8AB43);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    CHECK_EQ_U64(crc32c(0, bytes, 32), 0x46DD794E);
    CHECK_EQ_U64(crc32c(0, "123456789", 9), 0xE3069283);
    CHECK_EQ_U64(crc32c(0, NULL, 0), 0);
    CHECK_EQ_U64(crc32c_portable(0, "123456789", 9), 0xE3069283);
}

TEST(parts_make_the_whole_with_and_without_instruction)
{
    uint8_t bytes[600];
    struct rng rng;
    rng_init(&rng, 5);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)rng_u64(&rng);
    for (int i = 0; i < 3000; i++) {
        size_t start = (size_t)rng_below(&rng, 50);
        size_t size = (size_t)rng_below(&rng, sizeof(bytes) - start);
        size_t cut = (size_t)rng_below(&rng, size + 1);
        uint32_t whole = crc32c(0, bytes + start, size);
        CHECK_EQ_U64(crc32c(crc32c(0, bytes + start, cut), bytes + start + cut, size - cut), whole);
        CHECK_EQ_U64(crc32c_portable(0, bytes + start, size), whole);
    }
}

TEST_MAIN()
