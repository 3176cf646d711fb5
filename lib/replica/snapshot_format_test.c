#include "replica/snapshot_format.h"

#include <string.h>

#include "testing/test.h"

TEST(a_snapshot_survives_nothing_but_itself)
{
    static const char text[] = "the whole state";
    struct span state = {(const uint8_t *)text, sizeof(text)};
    uint8_t file[SNAPSHOT_HEADER_SIZE + sizeof(text)];
    struct error error;
    struct span out;
    uint64_t index = 0;
    snapshot_header_encode(99, state, file);
    memcpy(file + SNAPSHOT_HEADER_SIZE, text, sizeof(text));
    struct span bytes = {file, sizeof(file)};
    REQUIRE_OK(snapshot_decode(bytes, &error, &index, &out));
    CHECK_EQ_U64(index, 99);
    CHECK(out.len == sizeof(text) && memcmp(out.data, text, sizeof(text)) == 0);
    for (size_t i = 0; i < 8 * sizeof(file); i++) {
        file[i / 8] ^= (uint8_t)(1 << i % 8);
        CHECK_STATUS(snapshot_decode(bytes, &error, &index, &out), STATUS_CORRUPT);
        file[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t size = 0; size < sizeof(file); size++)
        CHECK_STATUS(snapshot_decode((struct span){file, size}, &error, &index, &out),
                     STATUS_CORRUPT);
}

TEST_MAIN()
