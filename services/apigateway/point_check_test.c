#include "apigateway/point_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apigateway/point_batch.h"
#include "base/limits.h"
#include "base/mem.h"
#include "testing/test.h"

static const struct point_rules cosine = {3, true};

static char empty_text[] = "";

static Vectron__V1__Point make_point(char *id, float *vector, size_t count)
{
    Vectron__V1__Point point = VECTRON__V1__POINT__INIT;
    point.id = id;
    point.vector = vector;
    point.n_vector = count;
    return point;
}

static struct str refusal_of(const Vectron__V1__Point *point, struct error *error)
{
    struct arena *arena = arena_create(16 << 20);
    Vectron__Worker__V1__ShardPoint out;
    CHECK_STATUS(point_convert(point, 3, &cosine, arena, error, &out), STATUS_INVALID);
    arena_destroy(arena);
    return str_from_cstr(error->text);
}

TEST(vectors)
{
    struct error error;
    static char id[] = "bad";
    float good[] = {1, 2, 3};
    float with_nan[] = {1, NAN, 3};
    float with_infinity[] = {1, 2, -INFINITY};
    float zero[] = {0, -0.0F, 0};
    Vectron__V1__Point point = make_point(id, good, 2);
    CHECK_STR(refusal_of(&point, &error),
              STR("points[3] (id \"bad\"): vector has 2 values; the dimension of the collection "
                  "is 3"));
    point = make_point(id, with_nan, 3);
    CHECK_CONTAINS(refusal_of(&point, &error), STR("vector holds nan at position 1"));
    point = make_point(id, with_infinity, 3);
    CHECK_CONTAINS(refusal_of(&point, &error), STR("vector holds -inf at position 2"));
    point = make_point(id, zero, 3);
    CHECK_CONTAINS(refusal_of(&point, &error), STR("vector is zero"));
    struct point_rules euclidean = {3, false};
    CHECK_OK(vector_check(zero, 3, &euclidean, "vector", &error));
    float tiny[] = {0, 1e-45F, 0};
    CHECK_OK(vector_check(tiny, 3, &cosine, "vector", &error));
}

TEST(ids)
{
    struct error error;
    float vector[] = {1, 2, 3};
    char id[600];
    memset(id, 'x', sizeof(id));
    id[512] = '\0';
    CHECK_OK(point_id_check(str_from_cstr(id), "id", &error));
    id[512] = 'x';
    id[513] = '\0';
    Vectron__V1__Point point = make_point(id, vector, 3);
    CHECK_CONTAINS(refusal_of(&point, &error), STR("id has 513 bytes; the limit is 512"));
    CHECK_CONTAINS(str_from_cstr(error.text), STR("xxx…\""));
    point = make_point(empty_text, vector, 3);
    CHECK_STR(refusal_of(&point, &error), STR("points[3] (id \"\"): id is empty"));
    // The shown part ends between characters.
    for (size_t i = 0; i + 2 < 520; i += 2)
        memcpy(id + i, "ä", 2);
    id[0] = 'a';
    memcpy(id + 1, "ä", 2);
    for (size_t i = 3; i + 2 < 560; i += 2)
        memcpy(id + i, "ä", 2);
    id[559] = '\0';
    point = make_point(id, vector, 3);
    CHECK(str_is_utf8(refusal_of(&point, &error)));
}

static Vectron__V1__Point__PayloadEntry make_entry(char *key, char *value)
{
    Vectron__V1__Point__PayloadEntry entry = VECTRON__V1__POINT__PAYLOAD_ENTRY__INIT;
    entry.key = key;
    entry.value = value;
    return entry;
}

static struct str json_of(const Vectron__V1__Point *point, struct arena *arena)
{
    struct error error;
    Vectron__Worker__V1__ShardPoint out;
    if (!CHECK_OK(point_convert(point, 0, &cosine, arena, &error, &out)))
        return STR("");
    return (struct str){(const char *)out.payload.data, out.payload.len};
}

TEST(payloads_as_maps)
{
    struct arena *arena = arena_create(16 << 20);
    float vector[] = {1, 2, 3};
    static char id[] = "a", a[] = "a", b[] = "b", quote[] = "\"\n", x[] = "x";
    Vectron__V1__Point point = make_point(id, vector, 3);
    CHECK_STR(json_of(&point, arena), STR(""));
    Vectron__V1__Point__PayloadEntry entries[] = {make_entry(a, quote), make_entry(b, x),
                                                  make_entry(a, x)};
    Vectron__V1__Point__PayloadEntry *list[] = {&entries[0], &entries[1], &entries[2]};
    point.payload = list;
    point.n_payload = 2;
    CHECK_STR(json_of(&point, arena), STR("{\"a\":\"\\\"\\n\",\"b\":\"x\"}"));
    // The last of a key counts.
    point.n_payload = 3;
    CHECK_STR(json_of(&point, arena), STR("{\"b\":\"x\",\"a\":\"x\"}"));
    arena_destroy(arena);
}

TEST(large_maps)
{
    enum { COUNT = 100 };
    struct arena *arena = arena_create(16 << 20);
    float vector[] = {1, 2, 3};
    static char id[] = "a", k[] = "k", v[] = "v";
    Vectron__V1__Point point = make_point(id, vector, 3);
    Vectron__V1__Point__PayloadEntry same = make_entry(k, v);
    Vectron__V1__Point__PayloadEntry last = make_entry(k, id);
    Vectron__V1__Point__PayloadEntry *list[COUNT];
    for (int i = 0; i < COUNT; i++)
        list[i] = &same;
    list[COUNT - 1] = &last;
    point.payload = list;
    point.n_payload = COUNT;
    CHECK_STR(json_of(&point, arena), STR("{\"k\":\"a\"}"));
    arena_destroy(arena);
}

TEST(payloads_at_the_limit)
{
    struct arena *arena = arena_create(16 << 20);
    struct error error;
    float vector[] = {1, 2, 3};
    static char id[] = "a", k[] = "k";
    // {"k":"…"} is eight bytes around the value.
    char *value = mem_alloc(LIMIT_PAYLOAD_SIZE_MAX + 1);
    memset(value, 'v', LIMIT_PAYLOAD_SIZE_MAX - 8);
    Vectron__V1__Point point = make_point(id, vector, 3);
    Vectron__V1__Point__PayloadEntry entry = make_entry(k, value);
    Vectron__V1__Point__PayloadEntry *list[] = {&entry};
    point.payload = list;
    point.n_payload = 1;
    CHECK_EQ_U64(json_of(&point, arena).len, LIMIT_PAYLOAD_SIZE_MAX);
    value[LIMIT_PAYLOAD_SIZE_MAX - 8] = 'v';
    CHECK_CONTAINS(refusal_of(&point, &error), STR("payload is larger than 1048576 bytes"));
    mem_free(value);
    arena_destroy(arena);
}

TEST(both_views_at_once)
{
    struct error error;
    float vector[] = {1, 2, 3};
    static char id[] = "a", k[] = "k";
    Vectron__V1__Point point = make_point(id, vector, 3);
    Vectron__V1__Point__PayloadEntry entry = make_entry(k, k);
    Vectron__V1__Point__PayloadEntry *list[] = {&entry};
    Google__Protobuf__Struct document = GOOGLE__PROTOBUF__STRUCT__INIT;
    point.payload = list;
    point.n_payload = 1;
    point.document = &document;
    CHECK_CONTAINS(refusal_of(&point, &error), STR("payload and document"));
}

TEST(payloads_out)
{
    struct arena *arena = arena_create(1 << 20);
    struct payload_member *members = NULL;
    size_t count = 0;
    REQUIRE_OK(payload_to_members(STR("{\"s\":\"text\",\"n\":3,\"f\":2.5,\"l\":[1,2],\"z\":null}"),
                                  arena, &members, &count));
    const char *expected[] = {"s", "text", "n", "3", "f", "2.5", "l", "[1,2]", "z", "null"};
    REQUIRE(count == 5);
    for (size_t i = 0; i < count; i++) {
        CHECK_CSTR(members[i].key, expected[2 * i]);
        CHECK_CSTR(members[i].value, expected[2 * i + 1]);
    }
    Google__Protobuf__Struct *document = NULL;
    REQUIRE_OK(payload_to_document(STR("{\"n\":3}"), arena, &document));
    CHECK(document->n_fields == 1 && document->fields[0]->value->number_value == 3);
    REQUIRE_OK(payload_to_document(STR(""), arena, &document));
    CHECK(document->n_fields == 0);
    REQUIRE_OK(payload_to_members(STR(""), arena, &members, &count));
    CHECK(count == 0);
    CHECK_STATUS(payload_to_document(STR("[1"), arena, &document), STATUS_CORRUPT);
    CHECK_STATUS(payload_to_members(STR("{\"a\":"), arena, &members, &count), STATUS_CORRUPT);
    arena_destroy(arena);
}

TEST_MAIN()
