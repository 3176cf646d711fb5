#pragma once

// The one error type of the project. A function that can fail returns enum status and nothing else;
// what it produces goes through its last parameters, which are untouched unless it returns
// STATUS_OK. Ignoring a status does not compile.
//
// A status says what the caller can do about the failure. Where a person will need to know which
// file or which field, the function also takes a struct error (error.h). The table holds, for each
// status, its gRPC code, its HTTP code and its sentence: services answer with them unchanged.

#define STATUS_MAP(X)                                              \
    /* name            gRPC HTTP  text */                          \
    X(OK, 0, 200, "ok")                                            \
    X(CANCELLED, 1, 499, "the caller gave up")                     \
    X(INVALID, 3, 400, "the request is malformed or out of range") \
    X(TIMEOUT, 4, 504, "the deadline passed")                      \
    X(NOT_FOUND, 5, 404, "not found")                              \
    X(EXISTS, 6, 409, "it already exists")                         \
    X(FORBIDDEN, 7, 403, "this caller may not do this")            \
    X(EXHAUSTED, 8, 429, "a limit is reached")                     \
    X(PRECONDITION, 9, 400, "the state does not allow this")       \
    X(ABORTED, 10, 409, "lost a race with another change")         \
    X(UNIMPLEMENTED, 12, 501, "no such method")                    \
    X(BUG, 13, 500, "internal error")                              \
    X(UNAVAILABLE, 14, 503, "try again")                           \
    X(NOT_LEADER, 14, 503, "another node leads this shard")        \
    X(IO, 13, 500, "the operating system failed us")               \
    X(CORRUPT, 15, 500, "stored bytes are not what was written")   \
    X(UNAUTHENTICATED, 16, 401, "no or unusable token")

// clang-format 14 does not know an attribute on an enum.
// clang-format off
enum [[nodiscard]] status {
#define X(name, grpc, http, text) STATUS_##name,
    STATUS_MAP(X)
#undef X
    STATUS_COUNT
};
// clang-format on

const char *status_name(enum status status);
const char *status_text(enum status status);
int status_http_code(enum status status);
int status_grpc_code(enum status status);

// The status that stands for a gRPC code that a peer sent; codes we have no use for become BUG.
enum status status_from_grpc_code(int grpc_code);

// Return early with the status of a call that failed.
#define TRY(call)                        \
    do {                                 \
        enum status try_status = (call); \
        if (try_status != STATUS_OK)     \
            return try_status;           \
    } while (0)
