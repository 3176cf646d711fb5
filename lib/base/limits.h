#pragma once

// Every number that a user can run into, in one place. A limit is inclusive. Those of the public
// contract are frozen; docs/limits.md lists them for people.

enum {
    LIMIT_DIMENSION_MAX = 65535,
    LIMIT_TOP_K_MAX = 10000,
    LIMIT_TOP_K_DEFAULT = 10,
    LIMIT_EF_MAX = 65536,
    LIMIT_POINT_ID_SIZE_MAX = 512,
    LIMIT_COLLECTION_NAME_SIZE_MAX = 128,
    LIMIT_KEY_NAME_SIZE_MAX = 128,
    LIMIT_PAYLOAD_SIZE_MAX = 1 << 20, // compact UTF-8 JSON, per point
    LIMIT_PAYLOAD_DEPTH_MAX = 32,
    LIMIT_EMAIL_SIZE_MAX = 254,
    LIMIT_PASSWORD_SIZE_MIN = 8,
    LIMIT_PASSWORD_SIZE_MAX = 128,

    LIMIT_REQUEST_SIZE_GATEWAY = 268435456,
    LIMIT_REQUEST_SIZE_WORKER = 268435456,
    LIMIT_REQUEST_SIZE_CONTROL = 4 << 20, // placement driver and auth service
    LIMIT_REQUEST_SIZE_RERANKER = 64 << 20,

    LIMIT_STREAM_RESULTS_PER_MESSAGE = 1000,
    LIMIT_SHARDS_PER_COLLECTION_DEFAULT_MAX = 8,
};
