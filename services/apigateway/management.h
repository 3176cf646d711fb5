#pragma once

#include "api/rpc.h"
#include "apigateway/gateway.h"

// What an admin sees: GET /v1/system/health, /v1/admin/stats, /v1/admin/workers,
// /v1/admin/collections, /v1/alerts, and POST /v1/alerts/{id}/resolve. JSON of measured values;
// what is not known is 0 or null.

void management_add(struct rpc_router *router, struct gateway *gateway);
