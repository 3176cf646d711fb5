#include "api/json.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "api/auth.pb-c.h"
#include "api/message.h"
#include "api/placementdriver.pb-c.h"
#include "api/vectron.pb-c.h"
#include "base/assert.h"

// The first byte picks a message or the payload functions, the rest is text. Payloads are compared
// with jansson: both take a text or both refuse it. A
// message that is accepted is written, read again and written again: the same text.

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &vectron__v1__create_collection_request__descriptor,
    &vectron__v1__upsert_request__descriptor,
    &vectron__v1__search_request__descriptor,
    &vectron__v1__search_response__descriptor,
    &vectron__v1__submit_feedback_request__descriptor,
    &vectron__v1__update_user_profile_request__descriptor,
    &vectron__auth__v1__login_request__descriptor,
    &vectron__auth__v1__create_apikey_request__descriptor,
    &vectron__auth__v1__list_apikeys_response__descriptor,
    &vectron__placementdriver__v1__heartbeat_request__descriptor,
    &vectron__placementdriver__v1__list_state_response__descriptor,
    &google__protobuf__struct__descriptor,
};
enum { DESCRIPTOR_COUNT = sizeof(descriptors) / sizeof(descriptors[0]) };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ProtobufCMessage *new_message(struct arena *arena,
                                     const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = arena_alloc(arena, descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, message);
    return message;
}

static void check_message(const ProtobufCMessageDescriptor *descriptor, struct str text,
                          struct arena *arena)
{
    struct error error = {0};
    struct buf first;
    struct buf second;
    struct buf wire;
    ProtobufCMessage *message = new_message(arena, descriptor);
    if (json_decode_message(text, arena, &error, message) != STATUS_OK) {
        ASSERT(error.text[0] != '\0');
        return;
    }
    buf_init(&first, SIZE_MAX);
    buf_init(&second, SIZE_MAX);
    buf_init(&wire, SIZE_MAX);
    json_encode_message(message, &first);
    ProtobufCMessage *again = new_message(arena, descriptor);
    ASSERT(json_decode_message(buf_str(&first), arena, &error, again) == STATUS_OK);
    json_encode_message(again, &second);
    ASSERT(str_equal(buf_str(&first), buf_str(&second)));
    // What came as JSON goes over the wire.
    ASSERT(message_encode(message, &wire) == STATUS_OK);
    ASSERT(message_decode(descriptor, buf_span(&wire), arena, &error, &again) == STATUS_OK);
    buf_deinit(&wire);
    buf_deinit(&second);
    buf_deinit(&first);
}

static void count_member(struct str key, struct str value, void *context)
{
    (void)key;
    (void)value;
    *(size_t *)context += 1;
}

// Jansson refuses integers of more than 64 bits, we do not; we have our limits for size and depth.
static bool may_differ(const json_error_t *theirs, const struct error *ours)
{
    return json_error_code(theirs) == json_error_numeric_overflow ||
           strstr(ours->text, "is nested") != NULL || strstr(ours->text, "is larger") != NULL ||
           strstr(ours->text, "is out of range") != NULL;
}

static void check_payload(struct str text, struct arena *arena)
{
    struct error error = {0};
    json_error_t json_error = {0};
    struct str compacted;
    json_t *theirs = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &json_error);
    enum status status = json_compact_payload(text, "payload", arena, &error, &compacted);
    bool is_object = theirs != NULL && json_is_object(theirs);
    ASSERT((status == STATUS_OK) == is_object || may_differ(&json_error, &error));
    if (status == STATUS_OK) {
        size_t members = 0;
        ProtobufCMessage *message = NULL;
        struct str again;
        ASSERT(json_for_each_member(compacted, arena, count_member, &members) == STATUS_OK);
        ASSERT(json_to_struct(compacted, arena, &error, &message) == STATUS_OK);
        ASSERT(json_compact_payload(compacted, "payload", arena, &error, &again) == STATUS_OK);
        ASSERT(str_equal(again, compacted));
        if (is_object) {
            ASSERT(members == json_object_size(theirs));
            json_t *ours = json_loadb(compacted.data, compacted.len, 0, &json_error);
            ASSERT(ours != NULL || json_error_code(&json_error) == json_error_numeric_overflow);
            ASSERT(ours == NULL || json_object_size(ours) == members);
            json_decref(ours);
        }
    }
    json_decref(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct arena *arena = arena_create(64 << 20);
    struct str text = {(const char *)data + 1, size - 1};
    size_t choice = data[0] % (2 * DESCRIPTOR_COUNT);
    if (choice < DESCRIPTOR_COUNT)
        check_message(descriptors[choice], text, arena);
    else if (memchr(data, 0, size) == NULL) // jansson overlooks a NUL behind a number
        check_payload(text, arena);
    arena_destroy(arena);
    return 0;
}
