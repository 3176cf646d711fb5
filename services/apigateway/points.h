#pragma once

#include "api/rpc.h"

// The calls on single points and batches of them. context is the gateway.

void points_upsert(struct rpc *rpc, void *context);
void points_get(struct rpc *rpc, void *context);
void points_delete(struct rpc *rpc, void *context);
