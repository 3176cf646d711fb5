#pragma once

#include "base/str.h"

// Where others reach a service whose listener is bound: all interfaces is no address, so the
// machine's name takes its place. Any thread.

enum { REACHABLE_ADDRESS_SIZE = 280 };

// bound as server_listen wrote it, with the real port. NUL-terminated.
void reachable_address(const char *bound, char out_address[static REACHABLE_ADDRESS_SIZE]);
