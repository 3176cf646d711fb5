#pragma once

#include <stdbool.h>

#include "api/client.h"
#include "base/arena.h"
#include "base/error.h"
#include "cluster/cluster.h"
#include "identity/account_store.h"

// The account store in the placement driver's state. Calls wait while it does not answer, reading
// up to 5 s; writing fails at once, because nobody knows whether it happened.

// client is borrowed.
struct account_store *pd_store_create(struct cluster_client *client);
// Anything else of the same placement driver.
struct pd_question {
    const ProtobufCServiceDescriptor *service;
    const char *method;
    const ProtobufCMessage *message;
    bool may_repeat; // doing it twice does no harm
};

// NOT_FOUND, ABORTED, EXHAUSTED, UNAVAILABLE, TIMEOUT as the placement driver says them; whatever
// else it says is our BUG. The answer lies in the arena.
enum status pd_store_ask(struct account_store *store, const struct pd_question *question,
                         struct arena *arena, struct error *error,
                         const ProtobufCMessage **out_answer);
// Whoever waits gives up. Any thread.
void pd_store_interrupt(struct account_store *store);
