#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/map.h"

// Speed of what every request and every byte on disk goes through.

enum { KEY_COUNT = 100000, KEY_SIZE = 24, BLOCK_SIZE = 65536, ROUND_COUNT = 2000 };

static uint8_t block[BLOCK_SIZE];
static char keys[KEY_COUNT][KEY_SIZE];

static void report(const char *what, uint64_t start_ns, double count, const char *unit)
{
    double seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    printf("%-24s %10.1f %s\n", what, count / seconds / 1e6, unit);
}

static struct str key(unsigned i)
{
    return str_from_cstr(keys[i]);
}

int main(void)
{
    uint64_t sum = 0;
    uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < ROUND_COUNT; i++)
        sum += hash64((struct span){block, BLOCK_SIZE}, i);
    report("hash64, 64 KiB", start_ns, (double)ROUND_COUNT * BLOCK_SIZE, "MB/s");

    start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < ROUND_COUNT; i++)
        sum += crc32c(i, block, BLOCK_SIZE);
    report("crc32c, 64 KiB", start_ns, (double)ROUND_COUNT * BLOCK_SIZE, "MB/s");

    for (unsigned i = 0; i < KEY_COUNT; i++)
        (void)snprintf(keys[i], KEY_SIZE, "point-%08u", i); // fits
    start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < KEY_COUNT; i++)
        sum += hash64(str_span(key(i)), 0);
    report("hash64, 14 bytes", start_ns, KEY_COUNT, "M/s");

    struct map *map = map_create();
    start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < KEY_COUNT; i++)
        (void)map_put(map, key(i), keys[i]);
    report("map_put", start_ns, KEY_COUNT, "M/s");
    start_ns = clock_monotonic_ns();
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < KEY_COUNT; i++)
            sum += map_get(map, key(i)) == keys[i];
    }
    report("map_get", start_ns, 10.0 * KEY_COUNT, "M/s");
    map_destroy(map);
    printf("(%" PRIu64 ")\n", sum); // so that nothing is left out
    return 0;
}
