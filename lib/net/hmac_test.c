#include "net/hmac.h"

#include <string.h>

#include "testing/test.h"

// RFC 4231, test cases 2 and 6.
TEST(known_values)
{
    char hex[65];
    hmac_sha256_hex(str_span(STR("Jefe")), str_span(STR("what do ya want for nothing?")), hex);
    CHECK_CSTR(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");

    uint8_t key[131];
    memset(key, 0xAA, sizeof(key));
    hmac_sha256_hex((struct span){key, sizeof(key)},
                    str_span(STR("Test Using Larger Than Block-Size Key - Hash Key First")), hex);
    CHECK_CSTR(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(nothing_at_all)
{
    char hex[65];
    hmac_sha256_hex((struct span){0}, (struct span){0}, hex);
    CHECK_CSTR(hex, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST_MAIN()
