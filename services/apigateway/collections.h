#pragma once

#include "api/rpc.h"

// The calls on collections. context is the gateway.

void collections_create(struct rpc *rpc, void *context);
void collections_list(struct rpc *rpc, void *context);
void collections_delete(struct rpc *rpc, void *context);
void collections_status(struct rpc *rpc, void *context);
