#pragma once

#include "authsvc/auth.h"

// A request on its way: admitted on the loop (admit.h), done on a thread of the service's own
// pools, answered on the loop. What an operation reads and makes lives in the work's arena.

struct work;

// Fills work->response and returns OK, or says in work->error why not. On a pool's thread.
typedef enum status (*operation_fn)(struct work *work);

enum access {
    ACCESS_ANYBODY,
    ACCESS_LOGIN,    // a login token
    ACCESS_IDENTITY, // proof of the secret of the tokens: the gateway, the operator
    ACCESS_CLUSTER,  // proof of the cluster secret
};

enum lane { LANE_RECORDS, LANE_PASSWORDS };

struct operation {
    operation_fn run;
    enum access access;
    enum lane lane;
    enum limited_call limit; // per address and minute
    bool is_limited;
    bool is_audited;
};

struct work {
    struct job job; // first
    struct authsvc *authsvc;
    struct rpc *rpc;
    struct arena *arena;
    const struct operation *operation;
    const ProtobufCMessage *request;
    const struct token *token; // ACCESS_LOGIN: as the interceptor found it
    struct str address;        // of the client
    uint64_t deadline_ns;      // monotonic
    atomic_bool has_gone;      // the caller
    enum status status;
    struct error error;
    const ProtobufCMessage *response;

    user_record *user; // after work_load_user
    uint64_t user_version;
    // For the audit log, when it is neither the token's user nor work->user, and what it is about.
    struct str audit_who;
    struct str audit_target;
};

// A method's handler; the method's tag is the index of its operation.
void work_start(struct rpc *rpc, void *context);
const struct operation *work_operation(const struct rpc *rpc);

// What the interceptor leaves for the work.
struct admission {
    struct str address;
    struct token token;
};

// The user whose login token it is, as he is now. UNAUTHENTICATED: he is gone, or has changed his
// password since.
enum status work_load_user(struct work *work);

// Repeat a change that loses races (ABORTED), each time from the reading on.
enum status work_repeat(struct work *work, enum status (*attempt)(struct work *work, void *context),
                        void *context);

// A message as its descriptor's init leaves it, in the work's arena.
void *work_message(struct work *work, const ProtobufCMessageDescriptor *descriptor);
