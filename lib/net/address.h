#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/str.h"

// HOST:PORT, :PORT (all interfaces), [IPv6]:PORT, inproc:NAME, as every flag takes them.

struct address {
    bool is_inproc;
    char host[256]; // empty: all interfaces; or the name behind inproc:
    char port[8];
};

// INVALID: the error says what is wrong with which text.
enum status address_parse(struct str text, struct error *error, struct address *out_address);
// Loopback or inproc: nobody from outside can connect. Names are looked up (localhost).
bool address_is_local(const struct address *address);
