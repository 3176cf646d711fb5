#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/vectron.pb-c.h"
#include "api/worker.pb-c.h"
#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"

// What may be stored and asked for, and the two views of a payload. Any thread.

struct point_rules {
    uint32_t dimension;
    bool is_cosine; // a zero vector has no direction
};

// INVALID: the error names what is wrong: the wrong number of values, one that is not finite, zero
// under cosine. subject stands in front ("vector").
enum status vector_check(const float *values, size_t count, const struct point_rules *rules,
                         const char *subject, struct error *error);

// INVALID: empty, or over 512 bytes.
enum status point_id_check(struct str id, const char *subject, struct error *error);

// A point of a request as the worker takes it; its id and vector are the point's. INVALID: the
// error names the point by index and id.
enum status point_convert(const Vectron__V1__Point *point, size_t index,
                          const struct point_rules *rules, struct arena *arena, struct error *error,
                          Vectron__Worker__V1__ShardPoint *out_point);

// The payload that a worker stored, as the document and, for gRPC, as the string map. CORRUPT: it
// is no JSON object.
enum status payload_to_document(struct str json, struct arena *arena,
                                Google__Protobuf__Struct **out_document);

// Key and value of each member, the values as text; NULL-terminated strings in the arena.
struct payload_member {
    char *key;
    char *value;
};
enum status payload_to_members(struct str json, struct arena *arena,
                               struct payload_member **out_members, size_t *out_count);
