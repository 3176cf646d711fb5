#pragma once

#include "cluster/cluster.h"
#include "identity/account_store.h"

// The account store in the placement driver's state. Calls wait while it does not answer, reading
// up to 5 s; writing fails at once, because nobody knows whether it happened.

// client is borrowed.
struct account_store *pd_store_create(struct cluster_client *client);
// Whoever waits gives up. Any thread.
void pd_store_interrupt(struct account_store *store);
