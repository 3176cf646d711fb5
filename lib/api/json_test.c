#include "api/json.h"

#include <math.h>
#include <string.h>

#include "api/auth.pb-c.h"
#include "api/placementdriver.pb-c.h"
#include "api/vectron.pb-c.h"
#include "base/limits.h"
#include "testing/test.h"

#define AS(type, message) ((const type *)(const void *)(message))

static struct arena *arena;
static struct error error;

static ProtobufCMessage *new_message(const ProtobufCMessageDescriptor *descriptor)
{
    arena_destroy(arena);
    arena = arena_create(64 << 20);
    error.text[0] = '\0';
    ProtobufCMessage *message = arena_alloc(arena, descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, message);
    return message;
}

static const ProtobufCMessage *decode(const ProtobufCMessageDescriptor *descriptor,
                                      const char *json)
{
    ProtobufCMessage *message = new_message(descriptor);
    if (!CHECK_STATUS(json_decode_message(str_from_cstr(json), arena, &error, message), STATUS_OK))
        CHECK_CSTR(error.text, "");
    return message;
}

static void check_fails(const ProtobufCMessageDescriptor *descriptor, const char *json,
                        const char *text)
{
    ProtobufCMessage *message = new_message(descriptor);
    CHECK_STATUS(json_decode_message(str_from_cstr(json), arena, &error, message), STATUS_INVALID);
    CHECK_CSTR(error.text, text);
}

static void check_encodes(const ProtobufCMessage *message, const char *wanted)
{
    struct buf out;
    buf_init(&out, SIZE_MAX);
    json_encode_message(message, &out);
    CHECK_STR(buf_str(&out), str_from_cstr(wanted));
    buf_deinit(&out);
}

static const ProtobufCMessageDescriptor *const search = &vectron__v1__search_request__descriptor;
static const ProtobufCMessageDescriptor *const upsert = &vectron__v1__upsert_request__descriptor;
static const ProtobufCMessageDescriptor *const point = &vectron__v1__point__descriptor;
static const ProtobufCMessageDescriptor *const key = &vectron__auth__v1__apikey__descriptor;

TEST(both_spellings)
{
    const Vectron__V1__SearchRequest *request =
        AS(Vectron__V1__SearchRequest,
           decode(search,
                  " {\"collection\":\"c\", \"topK\":5, \"include_vectors\":true,\n"
                  "\"vector\":[1, -0.5, 1e2, \"2.5\", 3.4028235e38, -0, \"NaN\", \"-Infinity\"],"
                  "\"timeoutMs\":\"7\",\"ef\":1e2,\"query\":null}\t"));
    CHECK_CSTR(request->collection, "c");
    CHECK_EQ_U64(request->top_k, 5);
    CHECK_EQ_U64(request->timeout_ms, 7);
    CHECK_EQ_U64(request->ef, 100);
    CHECK(request->include_vectors == 1 && request->include_metadata == 0);
    CHECK_CSTR(request->query, "");
    REQUIRE(request->n_vector == 8);
    CHECK(request->vector[0] == 1 && request->vector[1] == -0.5F && request->vector[2] == 100);
    CHECK(request->vector[3] == 2.5F && request->vector[4] == 3.4028235e38F);
    CHECK(request->vector[5] == 0 && signbit(request->vector[5]) != 0);
    CHECK(isnan(request->vector[6]) && isinf(request->vector[7]));
}

TEST(sixty_four_bits_and_enums)
{
    const Vectron__Auth__V1__APIKey *record =
        AS(Vectron__Auth__V1__APIKey,
           decode(key, "{\"createdAt\":\"9007199254740993\",\"expires_at\":-9223372036854775808,"
                       "\"collections\":[\"a\",\"\"]}"));
    CHECK_EQ_I64(record->created_at, 9007199254740993);
    CHECK_EQ_I64(record->expires_at, INT64_MIN);
    REQUIRE(record->n_collections == 2);
    CHECK_CSTR(record->collections[1], "");
    const ProtobufCMessageDescriptor *plan =
        &vectron__auth__v1__update_user_profile_request__descriptor;
    static const char *const forms[] = {"{\"plan\":\"PAID\"}", "{\"plan\":2}", "{\"plan\":\"2\"}"};
    for (size_t i = 0; i < 3; i++)
        CHECK_EQ_I64(AS(Vectron__Auth__V1__UpdateUserProfileRequest, decode(plan, forms[i]))->plan,
                     2);
    check_fails(plan, "{\"plan\":\"GOLD\"}", "plan: is none of the names that it may be");
    const Vectron__V1__ShardStatus *shard =
        AS(Vectron__V1__ShardStatus, decode(&vectron__v1__shard_status__descriptor,
                                            "{\"replicas\":[\"18446744073709551615\",1]}"));
    CHECK_EQ_U64(shard->replicas[0], UINT64_MAX);
}

TEST(errors_name_the_place)
{
    check_fails(upsert, "{\"points\":[{},{},{},{\"vector\":[1,2,3,4,5,6,7,true]}]}",
                "points[3].vector[7]: is not a number");
    check_fails(upsert, "{\"points\":[{\"id\":7}]}", "points[0].id: is not a string");
    check_fails(upsert, "{\"points\":[{\"ids\":7}]}", "points[0].ids: there is no such field");
    check_fails(upsert, "{\"points\":[{\"document\":{}}]}",
                "points[0].document: there is no such field");
    check_fails(upsert, "{\"points\":{}}", "points: is not a list");
    check_fails(upsert, "{\"points\":[null]}", "points[0]: is not a JSON object");
    check_fails(upsert, "{\"points\":[{\"vector\":[1e39]}]}",
                "points[0].vector[0]: is out of range for a 32-bit float");
    check_fails(upsert, "{\"points\":[{\"vector\":[\"\"]}]}",
                "points[0].vector[0]: is not a number");
    check_fails(search, "{\"topK\":-1}", "topK: is not a whole number from 0 to 4294967295");
    check_fails(search, "{\"top_k\":1.5}", "top_k: is not a whole number from 0 to 4294967295");
    check_fails(search, "{\"top_k\":4294967296}",
                "top_k: is not a whole number from 0 to 4294967295");
    check_fails(search, "{\"exact\":\"true\"}", "exact: is neither true nor false");
    check_fails(search, "{\"top_k\":1,\"topK\":1}", "topK: comes twice");
    check_fails(search, "{\"collection\":\"a\\u0000\"}", "collection: holds a NUL character");
    check_fails(search, "{\"collection\":\"\\ud800\"}", "collection: has half of a surrogate pair");
    check_fails(search, "{\"collection\":\"\xff\"}", "collection: is not valid UTF-8");
    check_fails(search, "[]", "is not a JSON object");
}

TEST(malformed)
{
    check_fails(search, "", "malformed JSON at byte 0: expected a JSON object");
    check_fails(search, "{", "malformed JSON at byte 1: expected a name in quotes");
    check_fails(search, "{\"ef\":1} x", "malformed JSON at byte 9: expected the end");
    check_fails(search, "{\"ef\":}", "ef: malformed JSON at byte 6: expected a value");
    check_fails(search, "{\"ef\":01}",
                "ef: malformed JSON at byte 7: expected a comma or the end of the object");
    check_fails(search, "{\"ef\":1,}", "ef: malformed JSON at byte 8: expected a name in quotes");
    check_fails(search, "{\"ef\":-}", "ef: malformed JSON at byte 6: expected a number");
    check_fails(search, "{\"ef\" 1}", "ef: malformed JSON at byte 6: expected a colon");
    check_fails(search, "{\"exact\":tru}", "exact: malformed JSON at byte 9: expected a value");
    check_fails(search, "{\"vector\":[1,]}",
                "vector[1]: malformed JSON at byte 13: expected a value");
    check_fails(search, "{\"query\":\"a\nb\"}",
                "query: malformed JSON at byte 11: expected no control character in a string");
    check_fails(search, "{\"query\":\"a\\\"}",
                "query: malformed JSON at byte 14: expected the end of a string");
    check_fails(search, "{\"query\":\"\\x\"}", "query: has an escape that is none");
    check_fails(search, "{'query':1}", "malformed JSON at byte 1: expected a name in quotes");
}

TEST(strings)
{
    const Vectron__V1__SearchRequest *request = AS(
        Vectron__V1__SearchRequest,
        decode(search,
               "{\"query\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83D\\ude00é😀\"}"));
    CHECK_CSTR(request->query, "\"\\/\b\f\n\r\tAé€😀é😀");
    struct buf out;
    buf_init(&out, 1000);
    json_append_string(&out, str_from_cstr(request->query));
    json_append_string(&out, STR("\x01\x1f\x7f\xff"
                                 "e\xe2\x82"));
    CHECK_STR(buf_str(&out), STR("\"\\\"\\\\/\\b\\f\\n\\r\\tAé€😀é😀\""
                                 "\"\\u0001\\u001f\x7f\\ufffde\\ufffd\\ufffd\""));
    buf_deinit(&out);
}

TEST(payloads_in)
{
    const Vectron__V1__UpsertRequest *request = AS(
        Vectron__V1__UpsertRequest,
        decode(upsert, "{\"points\":[{\"payload\":{ \"a\" : [1.0, 1e2, \"x\\u0041\", null, true],"
                       "\"n\":12345678901234567890, \"o\":{}}},{\"payload\":null}]}"));
    REQUIRE(request->n_points == 2);
    CHECK(request->points[0]->n_payload == 0 && request->points[1]->document == NULL);
    const Google__Protobuf__Struct *document = request->points[0]->document;
    REQUIRE(document != NULL && document->n_fields == 3);
    CHECK_CSTR(document->fields[0]->key, "a");
    CHECK_EQ_U64(document->fields[0]->value->list_value->n_values, 5);
    CHECK(document->fields[1]->value->number_value == 12345678901234567890.0);
    struct str json;
    CHECK_OK(json_from_struct(&document->base, "payload", arena, &error, &json));
    CHECK_STR(json, STR("{\"a\":[1,100,\"xA\",null,true],\"n\":12345678901234567890,\"o\":{}}"));
    // As a message to somebody else it has its fields and nothing more.
    uint8_t packed[200];
    size_t size = protobuf_c_message_get_packed_size(&document->base);
    REQUIRE(size < sizeof(packed));
    (void)protobuf_c_message_pack(&document->base, packed);
    ProtobufCMessage *copy =
        protobuf_c_message_unpack(&google__protobuf__struct__descriptor, NULL, size, packed);
    REQUIRE(copy != NULL);
    CHECK_EQ_U64(copy->n_unknown_fields, 0);
    CHECK_OK(json_from_struct(copy, "payload", arena, &error, &json));
    CHECK_STR(json, STR("{\"a\":[1,100,\"xA\",null,true],\"n\":1.2345678901234567e+19,\"o\":{}}"));
    protobuf_c_message_free_unpacked(copy, NULL);

    // A request's body keeps the text alone.
    ProtobufCMessage *message = new_message(upsert);
    REQUIRE_OK(
        json_decode_body(STR("{\"points\":[{\"payload\":{\"a\": 1}}]}"), arena, &error, message));
    document = AS(Vectron__V1__UpsertRequest, message)->points[0]->document;
    CHECK_EQ_U64(document->n_fields, 0);
    CHECK_OK(json_from_struct(&document->base, "payload", arena, &error, &json));
    CHECK_STR(json, STR("{\"a\":1}"));
    check_encodes(message, "{\"collection\":\"\",\"points\":[{\"id\":\"\",\"vector\":[],"
                           "\"payload\":{\"a\":1}}]}");
    message = new_message(upsert);
    CHECK_OK(json_decode_body(STR(" \n"), arena, &error, message));
}

static void nest(struct buf *out, const char *open, const char *close, int depth)
{
    buf_clear(out);
    for (int i = 1; i < depth; i++)
        buf_append_cstr(out, open);
    buf_append_cstr(out, "{}");
    for (int i = 1; i < depth; i++)
        buf_append_cstr(out, close);
}

TEST(payload_limits)
{
    struct buf text;
    struct str json;
    arena_destroy(arena);
    arena = arena_create(64 << 20);
    buf_init(&text, SIZE_MAX);
    nest(&text, "{\"a\":", "}", 32);
    CHECK_OK(json_compact_payload(buf_str(&text), "payload", arena, &error, &json));
    ProtobufCMessage *message = NULL;
    CHECK_OK(json_to_struct(json, arena, &error, &message));
    nest(&text, "{\"a\":", "}", 33);
    CHECK_STATUS(json_compact_payload(buf_str(&text), "payload", arena, &error, &json),
                 STATUS_INVALID);
    CHECK_CONTAINS(str_from_cstr(error.text), STR("is nested deeper than 32"));
    nest(&text, "{\"a\":[", "]}", 60);
    CHECK_STATUS(json_compact_payload(buf_str(&text), "payload", arena, &error, &json),
                 STATUS_INVALID);

    // Exactly as large as it may be, spaces not counted; then one more.
    buf_clear(&text);
    buf_append_cstr(&text, "{ \"a\" : \"");
    for (size_t i = 8; i < LIMIT_PAYLOAD_SIZE_MAX; i++)
        buf_append_byte(&text, 'x');
    buf_append_cstr(&text, "\" }");
    CHECK_OK(json_compact_payload(buf_str(&text), "payload", arena, &error, &json));
    CHECK_EQ_U64(json.len, LIMIT_PAYLOAD_SIZE_MAX);
    text.len -= 3;
    buf_append_cstr(&text, "x\"}");
    CHECK_STATUS(json_compact_payload(buf_str(&text), "points[3].payload", arena, &error, &json),
                 STATUS_INVALID);
    CHECK_CSTR(error.text, "points[3].payload: is larger than 1048576 bytes as compact JSON");

    // What unfolds most: a list of digits as large as a payload may be.
    buf_clear(&text);
    buf_append_cstr(&text, "{\"a\":[0");
    while (text.len < LIMIT_PAYLOAD_SIZE_MAX - 4)
        buf_append_cstr(&text, ",1");
    buf_append_cstr(&text, "]}");
    CHECK_OK(json_to_struct(buf_str(&text), arena, &error, &message));
    buf_deinit(&text);
}

static void check_payload_fails(const char *json, const char *text)
{
    struct str out;
    CHECK_STATUS(json_compact_payload(str_from_cstr(json), "payload", arena, &error, &out),
                 STATUS_INVALID);
    CHECK_CSTR(error.text, text);
}

TEST(payload_errors)
{
    arena_destroy(arena);
    arena = arena_create(1 << 20);
    check_payload_fails("[]", "payload: is not a JSON object");
    check_payload_fails("{\"a\":1} {}", "payload: malformed JSON at byte 8: expected the end");
    check_payload_fails("{\"a\":{\"b\":1,\"b\":2}}", "payload: a.b: comes twice");
    check_payload_fails("{\"a\":[1,{\"b\":1e999}]}", "payload: a[1].b: is out of range");
    check_payload_fails("{\"a\":nul}", "payload: a: malformed JSON at byte 5: expected a value");
    check_payload_fails("{\"1\":1,\"2\":1,\"3\":1,\"4\":1,\"5\":1,\"6\":1,\"7\":1,\"8\":1,\"9\":1,"
                        "\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"d\":1}",
                        "payload: d: comes twice");
    check_payload_fails("{\"1\":1,\"2\":1,\"3\":1,\"4\":1,\"5\":1,\"6\":1,\"7\":1,\"8\":1,\"9\":1,"
                        "\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":",
                        "payload: e: malformed JSON at byte 83: expected a value");
    struct str out;
    CHECK_OK(json_compact_payload(STR(" { } "), "payload", arena, &error, &out));
    CHECK_STR(out, STR("{}"));
    CHECK_OK(json_compact_payload(STR("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":2}]}"), "payload",
                                  arena, &error, &out));
}

static void collect(struct str member, struct str value, void *context)
{
    struct buf *out = context;
    buf_append_str(out, member);
    buf_append_byte(out, '=');
    buf_append_str(out, value);
    buf_append_byte(out, ';');
}

TEST(members)
{
    struct buf out;
    arena_destroy(arena);
    arena = arena_create(1 << 20);
    buf_init(&out, 1000);
    CHECK_OK(json_for_each_member(
        STR("{\"a\":\"x\\n\",\"b\":1.50,\"c\":{\"d\":[1,2]},\"e\":null,\"\":true}"), arena, collect,
        &out));
    CHECK_STR(buf_str(&out), STR("a=x\n;b=1.50;c={\"d\":[1,2]};e=null;=true;"));
    CHECK_STATUS(json_for_each_member(STR("{\"a\":1}}"), arena, collect, &out), STATUS_INVALID);
    CHECK_STATUS(json_for_each_member(STR("7"), arena, collect, &out), STATUS_INVALID);
    buf_deinit(&out);
}

TEST(structs_that_are_no_payload)
{
    struct str json;
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Struct__FieldsEntry entry = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    Google__Protobuf__Struct__FieldsEntry *entries[] = {&entry};
    Google__Protobuf__Struct document = GOOGLE__PROTOBUF__STRUCT__INIT;
    arena_destroy(arena);
    arena = arena_create(1 << 20);
    document.n_fields = 1;
    document.fields = entries;
    // A value that is not there, or of no kind, is null.
    CHECK_OK(json_from_struct(&document.base, "payload", arena, &error, &json));
    CHECK_STR(json, STR("{\"\":null}"));
    entry.value = &value;
    CHECK_OK(json_from_struct(&document.base, "payload", arena, &error, &json));
    CHECK_STR(json, STR("{\"\":null}"));
    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    value.number_value = (double)NAN;
    CHECK_STATUS(json_from_struct(&document.base, "points[3].payload", arena, &error, &json),
                 STATUS_INVALID);
    CHECK_CSTR(error.text, "points[3].payload holds a number that is not finite");
    // One that contains itself is only deep.
    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    value.struct_value = &document;
    CHECK_STATUS(json_from_struct(&document.base, "payload", arena, &error, &json), STATUS_INVALID);
    CHECK_CSTR(error.text, "payload is nested deeper than 32");
}

TEST(out)
{
    check_encodes(new_message(point), "{\"id\":\"\",\"vector\":[],\"payload\":{}}");
    check_encodes(new_message(search),
                  "{\"collection\":\"\",\"vector\":[],\"topK\":0,\"query\":\"\",\"timeoutMs\":0,"
                  "\"includeVectors\":false,\"includeMetadata\":false,\"exact\":false,\"ef\":0,"
                  "\"maxStalenessMs\":0}");
    check_encodes(new_message(&vectron__v1__get_response__descriptor), "{\"point\":null}");
    check_encodes(new_message(&vectron__auth__v1__user_profile__descriptor),
                  "{\"id\":\"\",\"email\":\"\",\"createdAt\":\"0\",\"plan\":\"PLAN_UNSPECIFIED\","
                  "\"subscriptionStatus\":\"SUBSCRIPTION_STATUS_UNSPECIFIED\"}");
    check_encodes(decode(&vectron__auth__v1__user_profile__descriptor,
                         "{\"createdAt\":1700000000,\"plan\":77}"),
                  "{\"id\":\"\",\"email\":\"\",\"createdAt\":\"1700000000\",\"plan\":77,"
                  "\"subscriptionStatus\":\"SUBSCRIPTION_STATUS_UNSPECIFIED\"}");
    check_encodes(
        decode(&vectron__placementdriver__v1__worker_info__descriptor,
               "{\"metadata\":{\"a\":\"b\",\"c\":\"\"},\"state\":\"WORKER_STATE_READY\"}"),
        "{\"workerId\":\"\",\"grpcAddress\":\"\",\"raftAddress\":\"\",\"collections\":[],"
        "\"lastHeartbeat\":\"0\",\"healthy\":false,\"metadata\":{\"a\":\"b\",\"c\":\"\"},"
        "\"state\":\"WORKER_STATE_READY\"}");
    check_fails(&vectron__placementdriver__v1__worker_info__descriptor,
                "{\"metadata\":{\"a\":\"b\",\"a\":\"\"}}", "metadata: has a name that comes twice");
    check_encodes(decode(&vectron__placementdriver__v1__state_entry__descriptor,
                         "{\"key\":\"AQI=\",\"value\":\"_-8\",\"version\":\"1\"}"),
                  "{\"key\":\"AQI=\",\"value\":\"/+8=\",\"version\":\"1\",\"isRemoved\":false}");
    check_fails(&vectron__placementdriver__v1__state_entry__descriptor, "{\"key\":\"!\"}",
                "key: is not base64");
    // The simple form of a payload shows when there is no document.
    static char k[] = "k", v[] = "v";
    Vectron__V1__Point__PayloadEntry entry = VECTRON__V1__POINT__PAYLOAD_ENTRY__INIT;
    Vectron__V1__Point__PayloadEntry *entries[] = {&entry};
    Vectron__V1__Point simple = VECTRON__V1__POINT__INIT;
    Google__Protobuf__Struct document = GOOGLE__PROTOBUF__STRUCT__INIT;
    entry.key = k;
    entry.value = v;
    simple.n_payload = 1;
    simple.payload = entries;
    check_encodes(&simple.base, "{\"id\":\"\",\"vector\":[],\"payload\":{\"k\":\"v\"}}");
    simple.document = &document;
    check_encodes(&simple.base, "{\"id\":\"\",\"vector\":[],\"payload\":{}}");
    check_encodes(&document.base, "{}");
}

TEST(fields_from_addresses)
{
    Vectron__V1__SearchRequest *request = (Vectron__V1__SearchRequest *)(void *)new_message(search);
    ProtobufCMessage *message = &request->base;
    CHECK_OK(json_set_field(message, STR("collection"), STR("a b"), arena, &error));
    CHECK_OK(json_set_field(message, STR("topK"), STR("12"), arena, &error));
    CHECK_OK(json_set_field(message, STR("exact"), STR("true"), arena, &error));
    CHECK_CSTR(request->collection, "a b");
    CHECK(request->top_k == 12 && request->exact == 1);
    CHECK_STATUS(json_set_field(message, STR("vector"), STR("1"), arena, &error), STATUS_INVALID);
    CHECK_CSTR(error.text, "vector: cannot be given in the address");
    CHECK_STATUS(json_set_field(message, STR("x"), STR("1"), arena, &error), STATUS_INVALID);
    CHECK_CSTR(error.text, "x: there is no such field");
    CHECK_STATUS(json_set_field(message, STR("ef"), STR(""), arena, &error), STATUS_INVALID);
    CHECK_STATUS(json_set_field(message, STR("query"), STR("\xff"), arena, &error), STATUS_INVALID);
    CHECK_STATUS(json_set_field(message, STR("query"), STR("a\0b"), arena, &error), STATUS_INVALID);
    CHECK_STATUS(json_set_field(message, STR("exact"), STR("1"), arena, &error), STATUS_INVALID);
    arena_destroy(arena);
    arena = NULL;
}

TEST_MAIN()
