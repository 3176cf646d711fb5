#pragma once

#include "api/rpc.h"
#include "apigateway/gateway.h"

// Who is calling and whether he may: the interceptor of both listeners. context is the gateway.

void authenticate(struct rpc *rpc, void *context);

// Who that was. NULL for a forwarded call.
const struct caller *authenticated_caller(const struct rpc *rpc);

// Whether the caller's token is still good, for answers that take long. Loop only.
// When a request has ended, whether it was let in or not.
void authentication_ended(const struct rpc *rpc, const struct gateway *gateway);

bool authentication_still_holds(struct rpc *rpc, struct gateway *gateway);
