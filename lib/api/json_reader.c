#include <stdio.h>
#include <string.h>

#include "api/json_number_internal.h"
#include "api/json_reader_internal.h"

enum { PATH_SIZE_MAX = 200 };

void json_reader_init(struct json_reader *reader, struct str json, struct bump *bump,
                      struct error *error)
{
    // The path is written before it is read.
    reader->begin = json.len > 0 ? json.data : "";
    reader->at = reader->begin;
    reader->end = reader->begin + json.len;
    reader->bump = bump;
    reader->error = error;
    reader->depth = 0;
}

// --- Errors

static size_t append_step(char *path, size_t len, const struct json_step *step)
{
    size_t room = PATH_SIZE_MAX - len;
    int written;
    if (step->is_object)
        written = snprintf(path + len, room, "%s%.*s", len > 0 ? "." : "",
                           (int)(step->key.len < 64 ? step->key.len : 64), step->key.data);
    else
        written = snprintf(path + len, room, "[%zu]", step->count - 1);
    if (written < 0)
        return len;
    return (size_t)written < room ? len + (size_t)written : PATH_SIZE_MAX - 1;
}

enum status json_fail(struct json_reader *reader, enum status status, const char *problem)
{
    char path[PATH_SIZE_MAX] = "";
    size_t len = 0;
    for (size_t i = 0; i < reader->depth && reader->path[i].count > 0; i++)
        len = append_step(path, len, &reader->path[i]);
    if (len == 0)
        return error_set(reader->error, status, "%s", problem);
    return error_set(reader->error, status, "%s: %s", path, problem);
}

enum status json_fail_syntax(struct json_reader *reader, const char *expected)
{
    char problem[128];
    (void)snprintf(problem, sizeof(problem), "malformed JSON at byte %zu: expected %s",
                   (size_t)(reader->at - reader->begin), expected);
    return json_fail(reader, STATUS_INVALID, problem);
}

// --- Single values

static void skip_spaces(struct json_reader *reader)
{
    while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\n' ||
                                        *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
}

static bool take(struct json_reader *reader, char c)
{
    skip_spaces(reader);
    if (reader->at == reader->end || *reader->at != c)
        return false;
    reader->at++;
    return true;
}

enum json_kind json_peek(struct json_reader *reader)
{
    skip_spaces(reader);
    if (reader->at == reader->end)
        return JSON_BAD;
    switch (*reader->at) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return *reader->at == '-' || (*reader->at >= '0' && *reader->at <= '9') ? JSON_NUMBER
                                                                                : JSON_BAD;
    }
}

static enum status read_literal(struct json_reader *reader, struct str literal)
{
    skip_spaces(reader);
    struct str rest = {reader->at, (size_t)(reader->end - reader->at)};
    if (!str_starts_with(rest, literal))
        return json_fail_syntax(reader, "a value");
    reader->at += literal.len;
    return STATUS_OK;
}

enum status json_read_bool(struct json_reader *reader, bool *out_value)
{
    bool value = json_peek(reader) == JSON_TRUE;
    TRY(read_literal(reader, value ? STR("true") : STR("false")));
    *out_value = value;
    return STATUS_OK;
}

enum status json_read_null(struct json_reader *reader)
{
    return read_literal(reader, STR("null"));
}

enum status json_read_number(struct json_reader *reader, struct str *out_text)
{
    skip_spaces(reader);
    struct str text = {reader->at, (size_t)(reader->end - reader->at)};
    text.len = json_number_size(text);
    if (text.len == 0)
        return json_fail_syntax(reader, "a number");
    reader->at += text.len;
    *out_text = text;
    return STATUS_OK;
}

// --- Strings

// Up to the closing quote, which is left behind. Escapes are not looked at.
static enum status scan_string(struct json_reader *reader, struct str *out_raw,
                               bool *out_has_escapes)
{
    if (!take(reader, '"'))
        return json_fail_syntax(reader, "a string");
    const char *start = reader->at;
    bool has_escapes = false;
    while (reader->at < reader->end && *reader->at != '"') {
        if ((unsigned char)*reader->at < 0x20)
            return json_fail_syntax(reader, "no control character in a string");
        if (*reader->at == '\\') {
            has_escapes = true;
            reader->at++;
            if (reader->at == reader->end)
                break;
        }
        reader->at++;
    }
    if (reader->at >= reader->end) {
        reader->at = reader->end;
        return json_fail_syntax(reader, "the end of a string");
    }
    *out_raw = (struct str){start, (size_t)(reader->at - start)};
    *out_has_escapes = has_escapes;
    reader->at++;
    if (!str_is_utf8(*out_raw))
        return json_fail(reader, STATUS_INVALID, "is not valid UTF-8");
    return STATUS_OK;
}

static bool read_hex4(struct str text, size_t at, uint32_t *out_value)
{
    uint32_t value = 0;
    if (text.len < at + 4)
        return false;
    for (size_t i = at; i < at + 4; i++) {
        char c = text.data[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return false;
        value = value << 4 | digit;
    }
    *out_value = value;
    return true;
}

static size_t put_utf8(char *out, uint32_t character)
{
    if (character < 0x80) {
        out[0] = (char)character;
        return 1;
    }
    if (character < 0x800) {
        out[0] = (char)(0xC0 | character >> 6);
        out[1] = (char)(0x80 | (character & 0x3F));
        return 2;
    }
    if (character < 0x10000) {
        out[0] = (char)(0xE0 | character >> 12);
        out[1] = (char)(0x80 | (character >> 6 & 0x3F));
        out[2] = (char)(0x80 | (character & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | character >> 18);
    out[1] = (char)(0x80 | (character >> 12 & 0x3F));
    out[2] = (char)(0x80 | (character >> 6 & 0x3F));
    out[3] = (char)(0x80 | (character & 0x3F));
    return 4;
}

// The text behind \u, at *at; a character beyond the first 65,536 takes two of them.
static const char *read_unicode(struct str raw, size_t *at, uint32_t *out_character)
{
    uint32_t high = 0;
    uint32_t low = 0;
    if (!read_hex4(raw, *at, &high))
        return "has an escape that is none";
    *at += 4;
    if (high == 0)
        return "holds a NUL character";
    *out_character = high;
    if (high < 0xD800 || high > 0xDFFF)
        return NULL;
    if (high > 0xDBFF || *at + 6 > raw.len || raw.data[*at] != '\\' || raw.data[*at + 1] != 'u' ||
        !read_hex4(raw, *at + 2, &low) || low < 0xDC00 || low > 0xDFFF)
        return "has half of a surrogate pair";
    *at += 6;
    *out_character = 0x10000 + ((high - 0xD800) << 10 | (low - 0xDC00));
    return NULL;
}

// An escape is never shorter than what it stands for: out has room for raw.len bytes.
static const char *unescape(struct str raw, char *out, size_t *out_size)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    size_t size = 0;
    size_t at = 0;
    while (at < raw.len) {
        if (raw.data[at] != '\\') {
            out[size++] = raw.data[at++];
            continue;
        }
        char letter = raw.data[at + 1];
        at += 2;
        if (letter == 'u') {
            uint32_t character = 0;
            const char *problem = read_unicode(raw, &at, &character);
            if (problem != NULL)
                return problem;
            size += put_utf8(out + size, character);
            continue;
        }
        const char *found = memchr(letters, letter, sizeof(letters) - 1);
        if (found == NULL)
            return "has an escape that is none";
        out[size++] = meanings[found - letters];
    }
    *out_size = size;
    return NULL;
}

static enum status copy_string(struct json_reader *reader, struct str raw, bool has_escapes,
                               char **out_copy, size_t *out_size)
{
    char *copy = bump_alloc(reader->bump, raw.len + 1, 1);
    if (copy == NULL)
        return json_fail(reader, STATUS_EXHAUSTED, "the request takes too much memory");
    *out_size = raw.len;
    if (has_escapes) {
        const char *problem = unescape(raw, copy, out_size);
        if (problem != NULL)
            return json_fail(reader, STATUS_INVALID, problem);
        copy[*out_size] = '\0';
    } else if (raw.len > 0) {
        memcpy(copy, raw.data, raw.len);
    }
    *out_copy = copy;
    return STATUS_OK;
}

enum status json_read_string(struct json_reader *reader, struct str *out_string)
{
    struct str raw;
    bool has_escapes = false;
    TRY(scan_string(reader, &raw, &has_escapes));
    if (has_escapes) {
        char *copy = NULL;
        size_t size = 0;
        TRY(copy_string(reader, raw, true, &copy, &size));
        raw = (struct str){copy, size};
    }
    *out_string = raw;
    return STATUS_OK;
}

enum status json_read_cstr(struct json_reader *reader, char **out_string)
{
    struct str raw;
    bool has_escapes;
    size_t size;
    TRY(scan_string(reader, &raw, &has_escapes));
    return copy_string(reader, raw, has_escapes, out_string, &size);
}

// --- Objects and arrays

static enum status enter(struct json_reader *reader, char bracket)
{
    if (!take(reader, bracket))
        return json_fail_syntax(reader, bracket == '{' ? "an object" : "an array");
    if (reader->depth == JSON_DEPTH_MAX)
        return json_fail(reader, STATUS_INVALID, "is nested too deep");
    struct json_step *step = &reader->path[reader->depth++];
    step->is_object = bracket == '{';
    step->key = STR("");
    step->count = 0;
    return STATUS_OK;
}

// Behind a value, or at the beginning: whether another one follows.
static enum status next(struct json_reader *reader, bool *out_has_next)
{
    struct json_step *step = &reader->path[reader->depth - 1];
    if (take(reader, step->is_object ? '}' : ']')) {
        reader->depth--;
        *out_has_next = false;
        return STATUS_OK;
    }
    if (step->count > 0 && !take(reader, ','))
        return json_fail_syntax(reader, step->is_object ? "a comma or the end of the object"
                                                        : "a comma or the end of the array");
    *out_has_next = true;
    return STATUS_OK;
}

enum status json_enter_object(struct json_reader *reader)
{
    return enter(reader, '{');
}

enum status json_enter_array(struct json_reader *reader)
{
    return enter(reader, '[');
}

enum status json_next_member(struct json_reader *reader, bool *out_has_member, struct str *out_key)
{
    bool has_member = false;
    TRY(next(reader, &has_member));
    if (has_member) {
        struct json_step *step = &reader->path[reader->depth - 1];
        struct str key;
        if (json_peek(reader) != JSON_STRING)
            return json_fail_syntax(reader, "a name in quotes");
        TRY(json_read_string(reader, &key));
        step->key = key;
        step->count++;
        if (!take(reader, ':'))
            return json_fail_syntax(reader, "a colon");
        *out_key = key;
    }
    *out_has_member = has_member;
    return STATUS_OK;
}

enum status json_next_element(struct json_reader *reader, bool *out_has_element)
{
    bool has_element = false;
    TRY(next(reader, &has_element));
    if (has_element)
        reader->path[reader->depth - 1].count++;
    *out_has_element = has_element;
    return STATUS_OK;
}

static enum status skip_scalar(struct json_reader *reader, enum json_kind kind)
{
    struct str text;
    bool value;
    switch (kind) {
    case JSON_STRING:
        return json_read_string(reader, &text);
    case JSON_NUMBER:
        return json_read_number(reader, &text);
    case JSON_TRUE:
    case JSON_FALSE:
        return json_read_bool(reader, &value);
    case JSON_NULL:
        return json_read_null(reader);
    default:
        return json_fail_syntax(reader, "a value");
    }
}

// Close what ends here, up to the depth; false in *out_has_next: all of it is closed.
static enum status skip_to_next(struct json_reader *reader, size_t depth, bool *out_has_next)
{
    *out_has_next = false;
    while (reader->depth > depth && !*out_has_next) {
        struct str key;
        if (reader->path[reader->depth - 1].is_object)
            TRY(json_next_member(reader, out_has_next, &key));
        else
            TRY(json_next_element(reader, out_has_next));
    }
    return STATUS_OK;
}

enum status json_skip_value(struct json_reader *reader, struct str *out_text)
{
    const size_t depth = reader->depth;
    (void)json_peek(reader); // so that spaces in front are not part of it
    const char *start = reader->at;
    bool has_next = true;
    while (has_next) {
        enum json_kind kind = json_peek(reader);
        if (kind == JSON_OBJECT)
            TRY(json_enter_object(reader));
        else if (kind == JSON_ARRAY)
            TRY(json_enter_array(reader));
        else
            TRY(skip_scalar(reader, kind));
        TRY(skip_to_next(reader, depth, &has_next));
    }
    *out_text = (struct str){start, (size_t)(reader->at - start)};
    return STATUS_OK;
}

enum status json_reader_end(struct json_reader *reader)
{
    skip_spaces(reader);
    return reader->at == reader->end ? STATUS_OK : json_fail_syntax(reader, "the end");
}
