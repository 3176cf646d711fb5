#include "net/grpc_text.h"

#include <string.h>

#include "base/assert.h"

// What can be decoded can be encoded again, and encoding is undone by decoding.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct arena *arena = arena_create((size_t)1 << 24);
    uint64_t timeout_ns = 0;
    if (grpc_timeout_parse(text, &timeout_ns)) {
        char out[GRPC_TIMEOUT_SIZE];
        uint64_t again = 0;
        ASSERT(grpc_timeout_parse(grpc_timeout_format(timeout_ns, out), &again));
        ASSERT(again <= timeout_ns || timeout_ns == 0);
    }
    struct str encoded = grpc_percent_encode(arena, text);
    ASSERT(str_equal(grpc_percent_decode(arena, encoded), text));
    (void)grpc_percent_decode(arena, text);
    uint8_t *bytes = arena_alloc(arena, size + 1);
    size_t len = 0;
    (void)grpc_base64_decode(text, bytes, &len);
    ASSERT(len <= size);
    struct str base64 = grpc_base64_encode(arena, (struct span){data, size});
    uint8_t *again = arena_alloc(arena, base64.len + 1);
    ASSERT(grpc_base64_decode(base64, again, &len) && len == size);
    ASSERT(size == 0 || memcmp(again, data, size) == 0);
    arena_destroy(arena);
    return 0;
}
