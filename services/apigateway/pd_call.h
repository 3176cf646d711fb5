#pragma once

#include "api/rpc.h"
#include "apigateway/gateway.h"

// One call to the placement driver for a request, repeated with jittered pauses while none answers.
// Loop only.

struct pd_request {
    struct rpc *rpc;
    struct gateway *gateway;
    const char *method;              // of PlacementService
    const ProtobufCMessage *message; // in the request's arena
    void *context;
    // Not called once the caller has gone. message lives in the request's arena; NULL with a status
    // and its text. was_repeated: an earlier attempt may have done the work already.
    void (*done)(struct rpc *rpc, enum status status, struct str text,
                 const ProtobufCMessage *message, bool was_repeated, void *context);
};

void pd_call(const struct pd_request *request);
