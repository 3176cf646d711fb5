#pragma once

#include "api/rpc.h"

// The pages that every HTTP port has, open to everybody: GET /healthz and /livez (the process
// runs), /readyz (200, or 503 with the reason) and /metrics (Prometheus' text format).

void pages_add(struct rpc_router *router);
