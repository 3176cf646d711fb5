#include "api/json.h"

#include <jansson.h>
#include <stdio.h>

#include "api/message.h"
#include "api/vectron.pb-c.h"
#include "base/clock.h"
#include "base/rng.h"

// A search by 128 floats: its JSON read by us and by jansson (which is then not yet a message), its
// wire form read, its JSON written.

enum { DIMENSION = 128, ROUNDS = 20000 };

static void print_row(const char *what, uint64_t start_ns)
{
    printf("%-24s %8.2f us\n", what, (double)(clock_monotonic_ns() - start_ns) / ROUNDS / 1000);
}

int main(void)
{
    struct rng rng;
    float vector[DIMENSION];
    struct buf json;
    struct buf wire;
    struct error error;
    struct arena *arena = arena_create(1 << 20);
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    rng_init(&rng, 1);
    for (size_t i = 0; i < DIMENSION; i++)
        vector[i] = (float)rng_unit(&rng) * 2 - 1;
    request.vector = vector;
    request.n_vector = DIMENSION;
    buf_init(&json, SIZE_MAX);
    buf_init(&wire, SIZE_MAX);
    json_encode_message(&request.base, &json);
    enum status status = message_encode(&request.base, &wire);

    uint64_t start_ns = clock_monotonic_ns();
    for (int i = 0; i < ROUNDS && status == STATUS_OK; i++) {
        Vectron__V1__SearchRequest *read = arena_alloc(arena, sizeof(*read));
        vectron__v1__search_request__init(read);
        status = json_decode_message(buf_str(&json), arena, &error, &read->base);
        arena_reset(arena);
    }
    print_row("JSON to message", start_ns);
    start_ns = clock_monotonic_ns();
    for (int i = 0; i < ROUNDS; i++)
        json_decref(json_loadb((const char *)json.data, json.len, 0, NULL));
    print_row("JSON to jansson's tree", start_ns);
    start_ns = clock_monotonic_ns();
    for (int i = 0; i < ROUNDS && status == STATUS_OK; i++) {
        ProtobufCMessage *read = NULL;
        status = message_decode(request.base.descriptor, buf_span(&wire), arena, &error, &read);
        arena_reset(arena);
    }
    print_row("wire to message", start_ns);
    start_ns = clock_monotonic_ns();
    for (int i = 0; i < ROUNDS; i++) {
        buf_clear(&json);
        json_encode_message(&request.base, &json);
    }
    print_row("message to JSON", start_ns);
    buf_deinit(&json);
    buf_deinit(&wire);
    arena_destroy(arena);
    return status == STATUS_OK ? 0 : 1;
}
