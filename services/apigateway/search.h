#pragma once

#include "api/rpc.h"

// Search and SearchStream. context is the gateway.

void search(struct rpc *rpc, void *context);
void search_stream(struct rpc *rpc, void *context);
// Payloads come over HTTP unless the body says otherwise.
void search_prepare_http(ProtobufCMessage *message);
