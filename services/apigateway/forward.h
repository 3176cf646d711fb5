#pragma once

#include "api/rpc.h"
#include "apigateway/gateway.h"

// The auth service's methods on the gateway's HTTP port: each request goes there as it is, with the
// caller's token and address, and its answer comes back.

extern const struct rpc_method forwarded_methods[];
extern const uint32_t forwarded_method_count;
