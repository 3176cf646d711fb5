#include "api/message.h"

#include <stdio.h>
#include <string.h>

#include "api/placementdriver.pb-c.h"
#include "api/vectron.pb-c.h"
#include "api/worker.pb-c.h"
#include "testing/test.h"

static bool has_floats(const float *values, size_t count, const float *wanted, size_t wanted_count)
{
    const void *bits = values;
    const void *wanted_bits = wanted;
    return count == wanted_count && memcmp(bits, wanted_bits, count * sizeof(float)) == 0;
}

#define AS(type, message) ((const type *)(const void *)(message))
// The bytes of a literal, which may hold NULs.
#define BYTES(literal)    str_span(STR(literal))

static struct arena *arena;
static struct error error;

static enum status decode(const ProtobufCMessageDescriptor *descriptor, struct span bytes,
                          ProtobufCMessage **out_message)
{
    arena_destroy(arena);
    arena = arena_create(64 << 20);
    error.text[0] = '\0';
    return message_decode(descriptor, bytes, arena, &error, out_message);
}

static void check_fails(const ProtobufCMessageDescriptor *descriptor, struct span bytes,
                        const char *text)
{
    ProtobufCMessage *message = NULL;
    CHECK_STATUS(decode(descriptor, bytes, &message), STATUS_INVALID);
    CHECK(message == NULL);
    CHECK_CSTR(error.text, text);
}

static const Vectron__V1__SearchRequest *decode_search(struct span bytes)
{
    ProtobufCMessage *message = NULL;
    if (!CHECK_OK(decode(&vectron__v1__search_request__descriptor, bytes, &message)))
        return NULL;
    return AS(Vectron__V1__SearchRequest, message);
}

TEST(every_kind_of_field)
{
    float values[] = {1.5F, -0.0F, 3e38F};
    uint64_t replicas[] = {1, 300, UINT64_MAX};
    static char id[] = "a", key[] = "k", value[] = "", name[] = "Ünï";
    Vectron__V1__Point__PayloadEntry entry = VECTRON__V1__POINT__PAYLOAD_ENTRY__INIT;
    Vectron__V1__Point__PayloadEntry *entries[] = {&entry};
    Vectron__V1__Point point = VECTRON__V1__POINT__INIT;
    Vectron__V1__ShardStatus shard = VECTRON__V1__SHARD_STATUS__INIT;
    Vectron__V1__ShardStatus *shards[] = {&shard, &shard};
    Vectron__V1__GetCollectionStatusResponse status =
        VECTRON__V1__GET_COLLECTION_STATUS_RESPONSE__INIT;
    ProtobufCMessage *message = NULL;
    struct buf buf;
    buf_init(&buf, 1 << 20);

    entry.key = key;
    entry.value = value;
    point.id = id;
    point.n_vector = 3;
    point.vector = values;
    point.n_payload = 1;
    point.payload = entries;
    REQUIRE_OK(message_encode(&point.base, &buf));
    REQUIRE_OK(decode(&vectron__v1__point__descriptor, buf_span(&buf), &message));
    const Vectron__V1__Point *copy = AS(Vectron__V1__Point, message);
    CHECK_CSTR(copy->id, "a");
    REQUIRE(copy->n_vector == 3 && copy->n_payload == 1);
    CHECK(has_floats(copy->vector, copy->n_vector, values, 3));
    CHECK_CSTR(copy->payload[0]->key, "k");
    CHECK_CSTR(copy->payload[0]->value, "");
    CHECK(copy->document == NULL);

    buf_clear(&buf);
    shard.shard_id = 7;
    shard.replicas = replicas;
    shard.n_replicas = 3;
    shard.ready = 1;
    status.name = name;
    status.dimension = -5;
    status.shards = shards;
    status.n_shards = 2;
    REQUIRE_OK(message_encode(&status.base, &buf));
    REQUIRE_OK(
        decode(&vectron__v1__get_collection_status_response__descriptor, buf_span(&buf), &message));
    const Vectron__V1__GetCollectionStatusResponse *other =
        AS(Vectron__V1__GetCollectionStatusResponse, message);
    CHECK_CSTR(other->name, "Ünï");
    CHECK_CSTR(other->distance, "");
    CHECK_EQ_I64(other->dimension, -5);
    REQUIRE(other->n_shards == 2 && other->shards[1]->n_replicas == 3);
    CHECK(memcmp(other->shards[1]->replicas, replicas, sizeof(replicas)) == 0);
    CHECK(other->shards[0]->ready == 1);
    buf_deinit(&buf);
}

TEST(packed_unpacked_and_split)
{
    static const float wanted[] = {1, 2, 3, 4, 5};
    // 12: field 2, packed; 15: field 2, one float.
    static const struct span forms[] = {
        {(const uint8_t *)"\x12\x14\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40", 22},
        {(const uint8_t *)"\x15\0\0\x80\x3f\x15\0\0\0\x40\x15\0\0\x40\x40\x15\0\0\x80\x40"
                          "\x15\0\0\xa0\x40",
         25},
        {(const uint8_t *)"\x12\x08\0\0\x80\x3f\0\0\0\x40\x0a\x01"
                          "a\x15\0\0\x40\x40\x12\x00\x12\x08\0\0\x80\x40\0\0\xa0\x40",
         30},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const Vectron__V1__SearchRequest *request = decode_search(forms[i]);
        REQUIRE(request != NULL);
        CHECK(has_floats(request->vector, request->n_vector, wanted, 5));
    }
    // Varints in the same three ways: replicas of a shard.
    static const struct span numbers[] = {
        {(const uint8_t *)"\x12\x04\x01\xac\x02\x03", 6},
        {(const uint8_t *)"\x10\x01\x10\xac\x02\x10\x03", 7},
        {(const uint8_t *)"\x12\x03\x01\xac\x02\x10\x03", 7},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        ProtobufCMessage *message = NULL;
        REQUIRE_OK(decode(&vectron__v1__shard_status__descriptor, numbers[i], &message));
        const Vectron__V1__ShardStatus *shard = AS(Vectron__V1__ShardStatus, message);
        REQUIRE(shard->n_replicas == 3);
        CHECK(shard->replicas[0] == 1 && shard->replicas[1] == 300 && shard->replicas[2] == 3);
    }
}

TEST(malformed)
{
    const ProtobufCMessageDescriptor *search = &vectron__v1__search_request__descriptor;
    const ProtobufCMessageDescriptor *upsert = &vectron__v1__upsert_request__descriptor;
    check_fails(search, BYTES("\x0a"), "collection: a number is cut off");
    check_fails(search,
                BYTES("\x0a\x05"
                      "abcd"),
                "collection: length runs past its message");
    check_fails(search, BYTES("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                "collection: length runs past its message");
    check_fails(search,
                BYTES("\x0a\x02"
                      "a\0"),
                "collection: holds a NUL character");
    check_fails(search, BYTES("\x0a\x02\xc3\x28"), "collection: is not valid UTF-8");
    check_fails(search, BYTES("\x12\x03\0\0\0"), "vector: its length is no whole count of numbers");
    check_fails(search, BYTES("\x15\0\0\0"), "vector: a number is cut off");
    check_fails(search, BYTES("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
                "top_k: a number has more than 64 bits");
    check_fails(search, BYTES("\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
                "top_k: a number has more than 64 bits");
    check_fails(search, BYTES("\x00"), "a field's number is out of range");
    check_fails(search, BYTES("\x07"), "a field's number is out of range");
    check_fails(search, BYTES("\x0f"), "collection: an unknown wire type");
    check_fails(search, BYTES("\x0c"), "collection: a group ends that did not begin");
    check_fails(search, BYTES("\xfb\x01\x0c"), "a group ends that did not begin");
    check_fails(search, BYTES("\xfb\x01"), "a number is cut off");
    // In the second point: its vector is longer than the point.
    check_fails(upsert, BYTES("\x12\x00\x12\x04\x12\x08\0\0"),
                "points[1].vector: length runs past its message");
    check_fails(upsert, BYTES("\x12\x05\x1a\x03\x12\x01\xff"),
                "points[0].payload[0].value: is not valid UTF-8");
    check_fails(&vectron__v1__shard_status__descriptor, BYTES("\x12\x02\x01\x80"),
                "replicas: a number is cut off");
}

TEST(what_is_unknown_is_skipped)
{
    // Field 99 in each wire type, a group with a group in it, and field 1 as a number.
    const Vectron__V1__SearchRequest *request =
        decode_search(BYTES("\x98\x06\x01\x99\x06________\x9a\x06\x02__\x9d\x06____"
                            "\x9b\x06\x08\x01\x0b\x0c\x9c\x06\x08\x05\x18\x03"));
    REQUIRE(request != NULL);
    CHECK_EQ_U64(request->top_k, 3);
    CHECK_CSTR(request->collection, "");
    CHECK_EQ_U64(request->base.n_unknown_fields, 0);
}

TEST(last_one_wins_and_messages_merge)
{
    ProtobufCMessage *message = NULL;
    const Vectron__V1__SearchRequest *request = decode_search(BYTES("\x0a\x01"
                                                                    "a\x18\x01\x0a\x01"
                                                                    "b\x18\x02"));
    REQUIRE(request != NULL);
    CHECK_CSTR(request->collection, "b");
    CHECK_EQ_U64(request->top_k, 2);

    // GetResponse.point twice: id from the second, vector of both, map of both by key.
    REQUIRE_OK(decode(&vectron__v1__get_response__descriptor,
                      BYTES("\x0a\x16\x0a\x01"
                            "a\x15\0\0\x80\x3f\x1a\x06\x0a\x01k\x12\x01v\x1a\x04\x0a\x02xy"
                            "\x0a\x10\x0a\x01"
                            "b\x15\0\0\0\x40\x1a\x06\x0a\x01k\x12\x01w"),
                      &message));
    const Vectron__V1__Point *point = AS(Vectron__V1__GetResponse, message)->point;
    CHECK_CSTR(point->id, "b");
    REQUIRE(point->n_vector == 2 && point->n_payload == 2);
    CHECK(point->vector[0] == 1 && point->vector[1] == 2);
    CHECK_CSTR(point->payload[0]->key, "xy");
    CHECK_CSTR(point->payload[0]->value, "");
    CHECK_CSTR(point->payload[1]->key, "k");
    CHECK_CSTR(point->payload[1]->value, "w");

    // A oneof: the last field counts, and the same message twice is merged.
    REQUIRE_OK(decode(&google__protobuf__value__descriptor,
                      BYTES("\x11\0\0\0\0\0\0\xf0\x3f\x1a\x01s\x32\x02\x0a\x00\x32\x02\x0a\x00"),
                      &message));
    const Google__Protobuf__Value *value = AS(Google__Protobuf__Value, message);
    CHECK_EQ_I64(value->kind_case, GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE);
    CHECK_EQ_U64(value->list_value->n_values, 2);
    REQUIRE_OK(decode(&google__protobuf__value__descriptor,
                      BYTES("\x32\x02\x0a\x00\x11\0\0\0\0\0\0\xf0\x3f"), &message));
    value = AS(Google__Protobuf__Value, message);
    CHECK_EQ_I64(value->kind_case, GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE);
    CHECK(value->number_value == 1);
}

TEST(large_maps_keep_the_last_of_a_key)
{
    struct buf buf;
    ProtobufCMessage *message = NULL;
    buf_init(&buf, 1 << 20);
    for (int i = 0; i < 100; i++) {
        uint8_t entry[] = {
            0x1a, 6, 0x0a, 1, (uint8_t)('a' + i % 20), 0x12, 1, (uint8_t)(' ' + i / 20)};
        buf_append(&buf, entry, sizeof(entry));
    }
    REQUIRE_OK(decode(&vectron__v1__point__descriptor, buf_span(&buf), &message));
    const Vectron__V1__Point *point = AS(Vectron__V1__Point, message);
    REQUIRE(point->n_payload == 20);
    for (size_t i = 0; i < 20; i++) {
        CHECK_EQ_I64(point->payload[i]->key[0], 'a' + (int)i);
        CHECK_CSTR(point->payload[i]->value, "$");
    }
    buf_deinit(&buf);
}

// A Value that holds a list that holds a Value …: two levels each.
static struct span nested_value(uint8_t bytes[static 1024], size_t levels)
{
    size_t start = 1024;
    for (size_t i = 0; i < levels; i++) {
        size_t len = 1024 - start;
        if (len >= 0x80)
            bytes[--start] = (uint8_t)(len >> 7);
        bytes[--start] = (uint8_t)((len & 0x7f) | (len >= 0x80 ? 0x80 : 0));
        bytes[--start] = i % 2 == 0 ? 0x0a : 0x32;
    }
    return (struct span){bytes + start, 1024 - start};
}

TEST(depth_is_bounded)
{
    uint8_t bytes[1024];
    ProtobufCMessage *message = NULL;
    CHECK_OK(decode(&google__protobuf__value__descriptor, nested_value(bytes, 126), &message));
    CHECK_STATUS(decode(&google__protobuf__value__descriptor, nested_value(bytes, 128), &message),
                 STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("nested more than 128 deep"));
    // Groups in an unknown field.
    memset(bytes, 0x0b, sizeof(bytes));
    check_fails(&google__protobuf__list_value__descriptor, (struct span){bytes, sizeof(bytes)},
                "values[0]: groups are nested too deep");
}

TEST(memory_is_bounded)
{
    enum { COUNT = 4 << 20 };
    struct buf buf;
    ProtobufCMessage *message = NULL;
    buf_init(&buf, SIZE_MAX);
    uint8_t *bytes = buf_reserve(&buf, COUNT);
    REQUIRE(bytes != NULL);
    // Two million empty points of 80 bytes each.
    for (size_t i = 0; i < COUNT; i += 2) {
        bytes[i] = 0x12;
        bytes[i + 1] = 0;
    }
    CHECK_STATUS(
        decode(&vectron__v1__upsert_request__descriptor, (struct span){bytes, COUNT}, &message),
        STATUS_EXHAUSTED);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("takes too much memory"));
    CHECK(arena_size(arena) <= 17 * (size_t)COUNT + (1 << 20));
    // As many unknown fields cost nothing, as many unpacked floats four bytes each.
    for (size_t i = 0; i < COUNT; i += 2) {
        bytes[i] = 0x7a;
        bytes[i + 1] = 0;
    }
    CHECK_OK(
        decode(&vectron__v1__upsert_request__descriptor, (struct span){bytes, COUNT}, &message));
    CHECK(arena_size(arena) < 100000);
    size_t count = COUNT / 5;
    for (size_t i = 0; i < count; i++)
        memcpy(bytes + i * 5, "\x15\0\0\x80\x3f", 5);
    const Vectron__V1__SearchRequest *request = decode_search((struct span){bytes, count * 5});
    CHECK(request != NULL && request->n_vector == count);
    // An arena that is smaller than that.
    struct arena *small = arena_create(1000);
    CHECK_STATUS(message_decode(&vectron__v1__search_request__descriptor,
                                (struct span){bytes, count * 5}, small, &error, &message),
                 STATUS_EXHAUSTED);
    arena_destroy(small);
    buf_deinit(&buf);
}

// Points as small as they get stay within the budget, however many come.
TEST(small_points_fit)
{
    struct buf buf;
    ProtobufCMessage *message = NULL;
    buf_init(&buf, SIZE_MAX);
    for (int i = 0; i < 300000; i++)
        buf_append(&buf, "\x12\x0b\x0a\x03xyz\x12\x04\0\0\x80\x3f", 13);
    CHECK_OK(decode(&vectron__v1__upsert_request__descriptor, buf_span(&buf), &message));
    buf_clear(&buf);
    for (int i = 0; i < 300000; i++)
        buf_append(&buf, "\x12\x13\x0a\x01x\x12\x04\0\0\x80\x3f\x1a\x08\x0a\x02kk\x12\x02vv", 21);
    CHECK_OK(decode(&vectron__v1__upsert_request__descriptor, buf_span(&buf), &message));
    buf_deinit(&buf);
}

TEST(encode_into_a_full_buffer)
{
    Vectron__V1__SearchRequest request = VECTRON__V1__SEARCH_REQUEST__INIT;
    struct buf buf;
    buf_init(&buf, 1);
    CHECK_OK(message_encode(&request.base, &buf)); // nothing is set: no bytes
    request.top_k = 10;
    CHECK_STATUS(message_encode(&request.base, &buf), STATUS_EXHAUSTED);
    CHECK_EQ_U64(buf.len, 0);
    buf_deinit(&buf);
    arena_destroy(arena);
    arena = NULL;
}

TEST_MAIN()
