#include "server/reachable_address.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "net/address.h"

void reachable_address(const char *bound, char out_address[static REACHABLE_ADDRESS_SIZE])
{
    struct address address;
    char host[256] = "";
    (void)snprintf(out_address, REACHABLE_ADDRESS_SIZE, "%s", bound);
    if (address_parse(str_from_cstr(bound), NULL, &address) != STATUS_OK || address.is_inproc)
        return;
    bool is_everywhere = address.host[0] == '\0' || strcmp(address.host, "0.0.0.0") == 0 ||
                         strcmp(address.host, "::") == 0;
    if (is_everywhere && gethostname(host, sizeof(host) - 1) == 0)
        (void)snprintf(out_address, REACHABLE_ADDRESS_SIZE, "%s:%s", host, address.port);
}
