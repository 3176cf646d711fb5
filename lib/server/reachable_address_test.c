#include "server/reachable_address.h"

#include <unistd.h>

#include "testing/test.h"

TEST(all_interfaces_become_the_machines_name)
{
    static const char *const as_they_are[] = {"127.0.0.1:9090", "[::1]:9090", "inproc:worker",
                                              "node-7:9090"};
    static const char *const everywhere[] = {"0.0.0.0:9090", "[::]:9090", ":9090"};
    char address[REACHABLE_ADDRESS_SIZE];
    char host[256] = "";
    REQUIRE(gethostname(host, sizeof(host) - 1) == 0);
    for (size_t i = 0; i < sizeof(as_they_are) / sizeof(as_they_are[0]); i++) {
        reachable_address(as_they_are[i], address);
        CHECK_CSTR(address, as_they_are[i]);
    }
    for (size_t i = 0; i < sizeof(everywhere) / sizeof(everywhere[0]); i++) {
        reachable_address(everywhere[i], address);
        CHECK(str_starts_with(str_from_cstr(address), str_from_cstr(host)));
        CHECK(str_ends_with(str_from_cstr(address), STR(":9090")));
    }
}

TEST_MAIN()
