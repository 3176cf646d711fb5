#pragma once

#include <protobuf-c/protobuf-c.h>

#include "api/rpc.h"
#include "base/arena.h"
#include "net/channel.h"

// Calls to other services as messages: channel.h with encoding and decoding around it. Loop only,
// except client_call_wait.

struct client_request {
    struct channel *channel;
    const ProtobufCServiceDescriptor *service;
    const char *method; // "Search"
    const ProtobufCMessage *message;
    uint64_t deadline_ns; // monotonic; UINT64_MAX: none
    bool waits_for_ready;
    bool is_stream; // the answer is a server stream
    const struct metadata *metadata;
    uint32_t metadata_count;
    void *context;
    // Unary: the answer, or NULL with a status and its text. Stream: called for each message with
    // STATUS_OK, then once with NULL and the final status. message and text are borrowed until it
    // returns, unless arena was given: then the message lives there.
    struct arena *arena; // NULL: memory that goes with the call, or with each message of a stream
    void (*done)(enum status status, struct str text, const ProtobufCMessage *message,
                 void *context);
};

struct channel_call *client_call(const struct client_request *request);
// Not on a loop. The answer lies in the arena.
enum status client_call_wait(const struct client_request *request, struct arena *arena,
                             struct error *error, const ProtobufCMessage **out_message);
