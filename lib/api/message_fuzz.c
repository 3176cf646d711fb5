#include "api/message.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "api/auth.pb-c.h"
#include "api/placementdriver.pb-c.h"
#include "api/reflection.pb-c.h"
#include "api/reranker.pb-c.h"
#include "api/vectron.pb-c.h"
#include "api/worker.pb-c.h"
#include "base/assert.h"

// The first byte picks the message, the rest are its bytes. What is accepted must survive: encode,
// read with protobuf-c and with ours, encode again: the same bytes.

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &vectron__v1__create_collection_request__descriptor,
    &vectron__v1__upsert_request__descriptor,
    &vectron__v1__search_request__descriptor,
    &vectron__v1__search_response__descriptor,
    &vectron__v1__get_request__descriptor,
    &vectron__v1__submit_feedback_request__descriptor,
    &vectron__v1__update_user_profile_request__descriptor,
    &vectron__v1__get_collection_status_response__descriptor,
    &vectron__auth__v1__register_user_request__descriptor,
    &vectron__auth__v1__create_apikey_request__descriptor,
    &vectron__auth__v1__list_apikeys_response__descriptor,
    &vectron__auth__v1__identity_changes__descriptor,
    &vectron__placementdriver__v1__heartbeat_request__descriptor,
    &vectron__placementdriver__v1__register_worker_request__descriptor,
    &vectron__placementdriver__v1__cluster_map__descriptor,
    &vectron__reranker__v1__rerank_request__descriptor,
    &vectron__worker__v1__upsert_points_request__descriptor,
    &vectron__worker__v1__search_shards_request__descriptor,
    &grpc__reflection__v1__server_reflection_request__descriptor,
    &google__protobuf__struct__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const ProtobufCMessageDescriptor *descriptor, struct arena *arena,
                        const struct buf *bytes)
{
    struct error error = {0};
    ProtobufCMessage *ours = NULL;
    struct buf again;
    ASSERT(message_decode(descriptor, buf_span(bytes), arena, &error, &ours) == STATUS_OK);
    ProtobufCMessage *theirs = protobuf_c_message_unpack(descriptor, NULL, bytes->len, bytes->data);
    ASSERT(theirs != NULL);
    buf_init(&again, SIZE_MAX);
    ASSERT(message_encode(ours, &again) == STATUS_OK);
    ASSERT(again.len == bytes->len &&
           (again.len == 0 || memcmp(again.data, bytes->data, again.len) == 0));
    buf_clear(&again);
    ASSERT(message_encode(theirs, &again) == STATUS_OK);
    ASSERT(again.len == bytes->len &&
           (again.len == 0 || memcmp(again.data, bytes->data, again.len) == 0));
    buf_deinit(&again);
    protobuf_c_message_free_unpacked(theirs, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *descriptor =
        descriptors[data[0] % (sizeof(descriptors) / sizeof(descriptors[0]))];
    struct arena *arena = arena_create(32 << 20);
    struct error error = {0};
    ProtobufCMessage *message = NULL;
    struct buf bytes;
    buf_init(&bytes, SIZE_MAX);
    enum status status =
        message_decode(descriptor, (struct span){data + 1, size - 1}, arena, &error, &message);
    if (status == STATUS_OK) {
        ASSERT(message_encode(message, &bytes) == STATUS_OK);
        check_again(descriptor, arena, &bytes);
    } else {
        ASSERT(error.text[0] != '\0');
    }
    buf_deinit(&bytes);
    arena_destroy(arena);
    return 0;
}
