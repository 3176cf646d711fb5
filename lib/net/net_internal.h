#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "net/net.h"

// What lib/net's own parts need of the net. Any thread unless said otherwise.

// Whatever lives on a loop (a connection, a server, a channel) holds the net from its creation to
// its end; net_destroy waits until nobody holds it.
void net_hold(struct net *net);
void net_release(struct net *net);

// The budget for bytes in flight. Taking is refused when the budget would be passed; what cannot be
// refused any more is charged without a question.
bool net_memory_take(struct net *net, size_t size);
void net_memory_charge(struct net *net, size_t size);
void net_memory_give(struct net *net, size_t size);
bool net_memory_is_over(const struct net *net);

// Names behind `inproc:` addresses. One listener per name; EXISTS when the name is taken.
struct listener;
enum status net_inproc_add(struct net *net, struct str name, struct listener *listener);
void net_inproc_remove(struct net *net, struct str name);
// The listener behind a name, or NULL. pin is called on it under the lock, so that a listener that
// is going away cannot go before it was pinned.
struct listener *net_inproc_find(struct net *net, struct str name,
                                 bool (*pin)(struct listener *listener));
