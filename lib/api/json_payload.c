#include <string.h>

#include "api/json.h"
#include "api/json_number_internal.h"
#include "api/json_reader_internal.h"
#include "api/json_struct_internal.h"
#include "base/limits.h"
#include "base/map.h"

// A payload is checked and written again in one pass, without a tree: open objects wait on a stack
// that is as high as a payload may be deep, each with the names it has had.

enum { SMALL_NAMES_MAX = 12 }; // so many are compared one by one; a hash map costs more

struct names {
    struct str small[SMALL_NAMES_MAX];
    size_t count;
    struct map *large; // from the first name on that small has no place for
};

struct compaction {
    struct json_reader *reader;
    struct buf *out;
    size_t base; // depth of the reader outside of the payload
    size_t open; // objects and arrays of the payload
    struct names names[LIMIT_PAYLOAD_DEPTH_MAX];
};

static const char too_large[] = "is larger than 1048576 bytes as compact JSON";
static const char too_deep[] = "is nested deeper than 32";
_Static_assert(LIMIT_PAYLOAD_SIZE_MAX == 1048576 && LIMIT_PAYLOAD_DEPTH_MAX == 32,
               "the sentences above say so");

// --- Names of one object

static bool names_add(struct names *names, struct str name)
{
    static char mark_place;
    void *mark = &mark_place; // a map's values are never NULL, and nobody looks at this one
    if (names->large != NULL)
        return map_put(names->large, name, mark) == NULL;
    for (size_t i = 0; i < names->count; i++) {
        if (str_equal(names->small[i], name))
            return false;
    }
    if (names->count < SMALL_NAMES_MAX) {
        names->small[names->count++] = name;
        return true;
    }
    names->large = map_create();
    for (size_t i = 0; i < names->count; i++)
        (void)map_put(names->large, names->small[i], mark); // all are different
    return map_put(names->large, name, mark) == NULL;
}

static void names_clear(struct names *names)
{
    map_destroy(names->large);
    names->large = NULL;
    names->count = 0;
}

// --- Compaction

static enum status compact_number(struct compaction *compaction)
{
    struct str text;
    double value = 0;
    TRY(json_read_number(compaction->reader, &text));
    if (!json_number_to_double(text, &value))
        return json_fail(compaction->reader, STATUS_INVALID, "is out of range");
    if (json_number_is_integer(text))
        buf_append_str(compaction->out, text);
    else
        json_append_double(compaction->out, value);
    return STATUS_OK;
}

static enum status compact_scalar(struct compaction *compaction, enum json_kind kind)
{
    struct str text;
    bool flag = false;
    switch (kind) {
    case JSON_STRING:
        TRY(json_read_string(compaction->reader, &text));
        json_append_string(compaction->out, text);
        return STATUS_OK;
    case JSON_NUMBER:
        return compact_number(compaction);
    case JSON_TRUE:
    case JSON_FALSE:
        TRY(json_read_bool(compaction->reader, &flag));
        buf_append_cstr(compaction->out, flag ? "true" : "false");
        return STATUS_OK;
    case JSON_NULL:
        buf_append_cstr(compaction->out, "null");
        return json_read_null(compaction->reader);
    default:
        return json_fail_syntax(compaction->reader, "a value");
    }
}

static enum status compact_enter(struct compaction *compaction, enum json_kind kind)
{
    if (compaction->open == LIMIT_PAYLOAD_DEPTH_MAX)
        return json_fail(compaction->reader, STATUS_INVALID, too_deep);
    struct names *names = &compaction->names[compaction->open++];
    names->count = 0;
    names->large = NULL;
    buf_append_byte(compaction->out, kind == JSON_OBJECT ? '{' : '[');
    return kind == JSON_OBJECT ? json_enter_object(compaction->reader)
                               : json_enter_array(compaction->reader);
}

// Behind a value: to the next one of the innermost container, closing those that end.
static enum status compact_advance(struct compaction *compaction, bool *out_has_next)
{
    struct json_reader *reader = compaction->reader;
    *out_has_next = false;
    while (compaction->open > 0) {
        struct json_step *step = &reader->path[reader->depth - 1];
        bool is_first = step->count == 0;
        bool is_object = step->is_object;
        struct names *names = &compaction->names[compaction->open - 1];
        struct str key;
        if (is_object)
            TRY(json_next_member(reader, out_has_next, &key));
        else
            TRY(json_next_element(reader, out_has_next));
        if (!*out_has_next) {
            buf_append_byte(compaction->out, is_object ? '}' : ']');
            names_clear(names);
            compaction->open--;
            continue;
        }
        if (!is_first)
            buf_append_byte(compaction->out, ',');
        if (is_object) {
            if (!names_add(names, key))
                return json_fail(reader, STATUS_INVALID, "comes twice");
            json_append_string(compaction->out, key);
            buf_append_byte(compaction->out, ':');
        }
        return STATUS_OK;
    }
    return STATUS_OK;
}

static enum status compact(struct compaction *compaction)
{
    bool has_next = true;
    if (json_peek(compaction->reader) != JSON_OBJECT)
        return json_fail(compaction->reader, STATUS_INVALID, "is not a JSON object");
    while (has_next) {
        enum json_kind kind = json_peek(compaction->reader);
        if (kind == JSON_OBJECT || kind == JSON_ARRAY)
            TRY(compact_enter(compaction, kind));
        else
            TRY(compact_scalar(compaction, kind));
        if (buf_has_overflowed(compaction->out))
            return json_fail(compaction->reader, STATUS_INVALID, too_large);
        TRY(compact_advance(compaction, &has_next));
    }
    if (buf_has_overflowed(compaction->out))
        return json_fail(compaction->reader, STATUS_INVALID, too_large);
    return STATUS_OK;
}

enum status json_read_payload(struct json_reader *reader, struct buf *scratch, struct str *out_json)
{
    struct compaction compaction; // its names are not worth clearing
    compaction.reader = reader;
    compaction.out = scratch;
    compaction.open = 0;
    buf_clear(scratch);
    enum status status = compact(&compaction);
    while (compaction.open > 0)
        names_clear(&compaction.names[--compaction.open]);
    if (status != STATUS_OK)
        return status;
    char *copy = bump_alloc(reader->bump, scratch->len + 1, 1);
    if (copy == NULL)
        return json_fail(reader, STATUS_EXHAUSTED, "the request takes too much memory");
    memcpy(copy, scratch->data, scratch->len);
    *out_json = (struct str){copy, scratch->len};
    return STATUS_OK;
}

enum status json_compact_payload(struct str json, const char *field, struct arena *arena,
                                 struct error *error, struct str *out_json)
{
    struct bump bump;
    struct json_reader reader;
    struct buf scratch;
    struct str compacted = STR("");
    bump_init(&bump, arena, json.len, BUMP_FACTOR);
    json_reader_init(&reader, json, &bump, error);
    buf_init(&scratch, LIMIT_PAYLOAD_SIZE_MAX);
    enum status status = json_read_payload(&reader, &scratch, &compacted);
    if (status == STATUS_OK)
        status = json_reader_end(&reader);
    buf_deinit(&scratch);
    if (status != STATUS_OK)
        return error_prefix(error, status, "%s", field);
    *out_json = compacted;
    return STATUS_OK;
}

// --- Structs

enum status json_from_struct(const ProtobufCMessage *message, const char *field,
                             struct arena *arena, struct error *error, struct str *out_json)
{
    struct str text = struct_text(message);
    if (text.len > 0) {
        *out_json = text;
        return STATUS_OK;
    }
    struct buf json;
    buf_init(&json, LIMIT_PAYLOAD_SIZE_MAX);
    enum status status = STATUS_OK;
    const char *problem = json_write_wellknown(&json, message, LIMIT_PAYLOAD_DEPTH_MAX);
    char *copy = NULL;
    if (problem == NULL && buf_has_overflowed(&json))
        problem = too_large;
    if (problem != NULL) {
        status = error_set(error, STATUS_INVALID, "%s %s", field, problem);
    } else {
        copy = arena_try_alloc(arena, json.len);
        if (copy == NULL)
            status =
                error_set(error, STATUS_EXHAUSTED, "%s: the request takes too much memory", field);
        else
            *out_json = (struct str){memcpy(copy, json.data, json.len), json.len};
    }
    buf_deinit(&json);
    return status;
}

enum status json_to_struct(struct str json, struct arena *arena, struct error *error,
                           ProtobufCMessage **out_message)
{
    struct str compacted = {0};
    TRY(json_compact_payload(json, "payload", arena, error, &compacted));
    return struct_build(compacted, arena, error, out_message);
}

enum status json_for_each_member(struct str json, struct arena *arena,
                                 void (*each)(struct str key, struct str value, void *context),
                                 void *context)
{
    struct bump bump;
    struct json_reader reader;
    bump_init(&bump, arena, json.len, BUMP_FACTOR);
    json_reader_init(&reader, json, &bump, NULL);
    TRY(json_enter_object(&reader));
    for (;;) {
        bool has_member = false;
        struct str key;
        struct str value;
        TRY(json_next_member(&reader, &has_member, &key));
        if (!has_member)
            return json_reader_end(&reader);
        if (json_peek(&reader) == JSON_STRING)
            TRY(json_read_string(&reader, &value));
        else
            TRY(json_skip_value(&reader, &value));
        each(key, value, context);
    }
}
