#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "net/server.h"

// Whose address a request counts for: the peer's, or, when the peer is one of our proxies, what
// that proxy says. Made at start, read-only afterwards.

struct proxy_list;

// A comma list of CIDR ranges and addresses, IPv4 and IPv6; may be empty. INVALID: the error names
// the part that is wrong.
enum status proxy_list_create(struct str cidrs, struct error *error, struct proxy_list **out_list);
void proxy_list_destroy(struct proxy_list *list); // list may be NULL

bool proxy_list_has(const struct proxy_list *list, struct str address);

// The peer, unless it is a proxy: then the rightmost entry of x-forwarded-for that is none. Entries
// that are no addresses end the search, because what is left of them was not said by a proxy of
// ours. Borrowed from the arguments.
struct str client_address(const struct proxy_list *list, struct str peer, struct str forwarded_for);

// The same for a call on its loop, all its x-forwarded-for headers read as one list, and in the one
// spelling of that address, without a port. Lives as long as the call.
struct str client_address_of(const struct proxy_list *list, struct call *call);
