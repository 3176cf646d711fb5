#pragma once

#include "api/rpc.h"
#include "authsvc/auth.h"

// What gateways watch: everything once, then each change. One thread of its own reads the record of
// changes (at once when this process made one, and every half second when others may have) and
// hands what is new to the loops of the watchers. The same thread prepares the service at its start
// (the admin), as soon as the store answers, and says on the routers whether it does.

struct identity_feed;

struct identity_feed *identity_feed_create(struct authsvc *authsvc);
void identity_feed_destroy(struct identity_feed *feed); // feed may be NULL; when no watch is left

// IO: no thread can be had.
enum status identity_feed_start(struct identity_feed *feed, struct error *error);
void identity_feed_stop(struct identity_feed *feed); // not on a loop; fine when it was not started

// Something was changed here. Any thread.
void identity_feed_wake(struct identity_feed *feed);
// End all watches, and refuse new ones. Any thread.
void identity_feed_drain(struct identity_feed *feed);

// The handler of WatchIdentity.
void identity_feed_watch(struct rpc *rpc, void *context);
