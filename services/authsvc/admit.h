#pragma once

#include "api/rpc.h"

// Who may begin: the interceptor of both ports. Context is the struct authsvc. Loop.

void admit(struct rpc *rpc, void *context);
