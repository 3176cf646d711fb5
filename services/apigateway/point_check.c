#include "apigateway/point_check.h"

#include <math.h>
#include <string.h>

#include "api/json.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/map.h"

enum { ID_SHOWN_MAX = 64, SMALL_MAP_MAX = 16 };

// --- Vectors and ids

// Exponent bits all set: infinity or NaN. Without a branch, so that the compiler can use wide
// registers; the error path looks for the place again.
static bool is_finite(const float *values, size_t count)
{
    const uint32_t exponent = 0x7f800000;
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        found |= (bits & exponent) == exponent;
    }
    return found == 0;
}

static bool is_zero(const float *values, size_t count)
{
    const uint32_t without_sign = 0x7fffffff;
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        found |= bits & without_sign;
    }
    return found == 0;
}

enum status vector_check(const float *values, size_t count, const struct point_rules *rules,
                         const char *subject, struct error *error)
{
    if (count != rules->dimension)
        return error_set(error, STATUS_INVALID,
                         "%s has %zu values; the dimension of the collection is %u", subject, count,
                         rules->dimension);
    if (!is_finite(values, count)) {
        size_t i = 0;
        while (isfinite(values[i]))
            i++;
        return error_set(error, STATUS_INVALID, "%s holds %f at position %zu; it must be finite",
                         subject, (double)values[i], i);
    }
    if (rules->is_cosine && is_zero(values, count))
        return error_set(error, STATUS_INVALID,
                         "%s is zero: it has no direction, which cosine needs", subject);
    return STATUS_OK;
}

enum status point_id_check(struct str id, const char *subject, struct error *error)
{
    if (id.len == 0)
        return error_set(error, STATUS_INVALID, "%s is empty", subject);
    if (id.len > LIMIT_POINT_ID_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "%s has %zu bytes; the limit is %d", subject,
                         id.len, LIMIT_POINT_ID_SIZE_MAX);
    return STATUS_OK;
}

// As much of it as is worth showing, cut between characters.
static struct str shown(struct str id)
{
    struct str rest = id;
    if (id.len <= ID_SHOWN_MAX)
        return id;
    for (;;) {
        size_t size = str_utf8_size(rest);
        if (size == 0 || (size_t)(rest.data - id.data) + size > ID_SHOWN_MAX)
            break;
        rest = (struct str){rest.data + size, rest.len - size};
    }
    return (struct str){id.data, (size_t)(rest.data - id.data)};
}

// --- Payloads in

static void append_member(struct buf *out, const Vectron__V1__Point__PayloadEntry *entry)
{
    if (out->len > 1)
        buf_append_byte(out, ',');
    json_append_string(out, str_from_cstr(entry->key));
    buf_append_byte(out, ':');
    json_append_string(out, str_from_cstr(entry->value));
}

static bool is_last_of_its_key_small(const Vectron__V1__Point *point, size_t index)
{
    for (size_t i = index + 1; i < point->n_payload; i++) {
        if (strcmp(point->payload[i]->key, point->payload[index]->key) == 0)
            return false;
    }
    return true;
}

// Of several entries with one key the last counts, as everywhere in protobuf's maps.
static void append_members(struct buf *out, const Vectron__V1__Point *point)
{
    if (point->n_payload <= SMALL_MAP_MAX) {
        for (size_t i = 0; i < point->n_payload; i++) {
            if (is_last_of_its_key_small(point, i))
                append_member(out, point->payload[i]);
        }
        return;
    }
    struct map *last = map_create();
    for (size_t i = 0; i < point->n_payload; i++)
        (void)map_put(last, str_from_cstr(point->payload[i]->key), point->payload[i]);
    for (size_t i = 0; i < point->n_payload; i++) {
        if (map_get(last, str_from_cstr(point->payload[i]->key)) == point->payload[i])
            append_member(out, point->payload[i]);
    }
    map_destroy(last);
}

static enum status fail_large(struct error *error)
{
    return error_set(error, STATUS_INVALID, "payload is larger than %d bytes as JSON",
                     LIMIT_PAYLOAD_SIZE_MAX);
}

static enum status members_to_json(const Vectron__V1__Point *point, struct arena *arena,
                                   struct error *error, struct str *out_json)
{
    size_t size = 0;
    // Every entry takes its own bytes and six more ("":"",), so nothing large is even looked at.
    for (size_t i = 0; i < point->n_payload && size <= LIMIT_PAYLOAD_SIZE_MAX; i++)
        size += strlen(point->payload[i]->key) + strlen(point->payload[i]->value) + 6;
    if (size > LIMIT_PAYLOAD_SIZE_MAX)
        return fail_large(error);
    struct buf json;
    buf_init(&json, LIMIT_PAYLOAD_SIZE_MAX);
    buf_append_byte(&json, '{');
    append_members(&json, point);
    buf_append_byte(&json, '}');
    enum status status = STATUS_OK;
    if (buf_has_overflowed(&json)) {
        status = fail_large(error);
    } else {
        char *copy = arena_try_alloc(arena, json.len);
        if (copy == NULL)
            status = error_set(error, STATUS_EXHAUSTED, "the request needs too much memory");
        else
            *out_json = (struct str){memcpy(copy, json.data, json.len), json.len};
    }
    buf_deinit(&json);
    return status;
}

static enum status payload_convert(const Vectron__V1__Point *point, struct arena *arena,
                                   struct error *error, struct str *out_json)
{
    *out_json = STR("");
    if (point->n_payload > 0 && point->document != NULL)
        return error_set(error, STATUS_INVALID,
                         "both payload and document are set; only one of them may be");
    if (point->n_payload > 0)
        return members_to_json(point, arena, error, out_json);
    if (point->document != NULL)
        return json_from_struct(&point->document->base, "payload", arena, error, out_json);
    return STATUS_OK;
}

static enum status convert(const Vectron__V1__Point *point, const struct point_rules *rules,
                           struct arena *arena, struct error *error,
                           Vectron__Worker__V1__ShardPoint *out_point)
{
    struct str payload;
    TRY(point_id_check(str_from_cstr(point->id), "id", error));
    TRY(vector_check(point->vector, point->n_vector, rules, "vector", error));
    TRY(payload_convert(point, arena, error, &payload));
    vectron__worker__v1__shard_point__init(out_point);
    out_point->id = point->id;
    out_point->n_vector = point->n_vector;
    out_point->vector = point->vector;
    out_point->payload.len = payload.len;
    // protobuf-c knows no const; nobody writes there.
    memcpy(&out_point->payload.data, &payload.data, sizeof(payload.data));
    return STATUS_OK;
}

enum status point_convert(const Vectron__V1__Point *point, size_t index,
                          const struct point_rules *rules, struct arena *arena, struct error *error,
                          Vectron__Worker__V1__ShardPoint *out_point)
{
    enum status status = convert(point, rules, arena, error, out_point);
    if (status == STATUS_OK)
        return STATUS_OK;
    struct str id = str_from_cstr(point->id);
    struct str part = shown(id);
    return error_prefix(error, status, "points[%zu] (id \"%.*s%s\")", index, STR_ARG(part),
                        part.len < id.len ? "…" : "");
}

// --- Payloads out

enum status payload_to_document(struct str json, struct arena *arena,
                                Google__Protobuf__Struct **out_document)
{
    struct error error = {0};
    ProtobufCMessage *message = NULL;
    enum status status = json_to_struct(json.len > 0 ? json : STR("{}"), arena, &error, &message);
    if (status != STATUS_OK)
        return status == STATUS_EXHAUSTED ? status : STATUS_CORRUPT;
    *out_document = (Google__Protobuf__Struct *)(void *)message;
    return STATUS_OK;
}

struct member_list {
    struct arena *arena;
    struct payload_member *members;
    size_t count;
    size_t capacity;
    bool is_exhausted;
};

static char *copy_cstr(struct arena *arena, struct str str)
{
    char *copy = arena_try_alloc(arena, str.len + 1);
    if (copy != NULL && str.len > 0)
        memcpy(copy, str.data, str.len);
    return copy;
}

static void add_member(struct str key, struct str value, void *context)
{
    struct member_list *list = context;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 8 : list->capacity * 2;
        struct payload_member *members = arena_try_alloc(list->arena, capacity * sizeof(*members));
        if (members == NULL) {
            list->is_exhausted = true;
            return;
        }
        if (list->count > 0)
            memcpy(members, list->members, list->count * sizeof(*members));
        list->members = members;
        list->capacity = capacity;
    }
    struct payload_member *member = &list->members[list->count];
    member->key = copy_cstr(list->arena, key);
    member->value = copy_cstr(list->arena, value);
    if (member->key == NULL || member->value == NULL)
        list->is_exhausted = true;
    else
        list->count++;
}

enum status payload_to_members(struct str json, struct arena *arena,
                               struct payload_member **out_members, size_t *out_count)
{
    struct member_list list = {.arena = arena};
    if (json.len > 0 && json_for_each_member(json, arena, add_member, &list) != STATUS_OK)
        return STATUS_CORRUPT;
    if (list.is_exhausted)
        return STATUS_EXHAUSTED;
    *out_members = list.members;
    *out_count = list.count;
    return STATUS_OK;
}
