#pragma once

#include "api/auth.pb-c.h"
#include "apigateway/gateway.h"
#include "net/channel.h"

// Keeps the directory current: a watch on the auth service that is opened again whenever it ends,
// and the report of when keys were last used. Lives on the first loop.

struct identity_watch;

// changed is called on the first loop when the first snapshot has come.
struct identity_watch *identity_watch_start(struct gateway *gateway,
                                            void (*changed)(struct gateway *gateway));
void identity_watch_stop(struct identity_watch *watch); // not on a loop; watch may be NULL

// The watch is open now. Any thread.
bool identity_watch_is_connected(const struct identity_watch *watch);

// Put what changed. Any thread.
void identity_apply(struct directory *directory, const Vectron__Auth__V1__IdentityChanges *changes);
// The metadata that proves a call to come from a service that knows the secret of the tokens.
struct metadata identity_proof(const struct gateway *gateway);
