#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "api/bump_internal.h"
#include "base/error.h"
#include "base/str.h"

// JSON (RFC 8259) read front to back, value by value; no tree is made, so that what a document
// needs is decided by the message it is for and not by its text. Whoever reads asks for the kind of
// the next value and then reads or enters it:
//
//     TRY(json_enter_object(reader));
//     for (;;) {
//         TRY(json_next_member(reader, &has_member, &key));
//         if (!has_member)
//             break;
//         ... read one value
//     }
//
// The reader knows where it is, so that errors name the place: `points[3].vector[7]`. Every failure
// is INVALID (EXHAUSTED: no memory for a string). Any thread.

enum { JSON_DEPTH_MAX = 64 }; // objects and arrays in each other

enum json_kind {
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_STRING,
    JSON_NUMBER,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
    JSON_BAD, // no value begins here
};

struct json_step {
    bool is_object;
    struct str key; // of the member that is being read
    size_t count;   // members or elements that were begun
};

struct json_reader {
    const char *begin;
    const char *at;
    const char *end;
    struct bump *bump;
    struct error *error;
    size_t depth;
    struct json_step path[JSON_DEPTH_MAX];
};

void json_reader_init(struct json_reader *reader, struct str json, struct bump *bump,
                      struct error *error);
// Nothing but spaces may follow.
enum status json_reader_end(struct json_reader *reader);

enum json_kind json_peek(struct json_reader *reader); // skips spaces
// Without escapes a view of the text, else in the bump. No string holds a NUL.
enum status json_read_string(struct json_reader *reader, struct str *out_string);
// A copy in the bump, NUL-terminated.
enum status json_read_cstr(struct json_reader *reader, char **out_string);
enum status json_read_number(struct json_reader *reader, struct str *out_text);
enum status json_read_bool(struct json_reader *reader, bool *out_value);
enum status json_read_null(struct json_reader *reader);
// Any value, checked and left behind; out_text is where it stood.
enum status json_skip_value(struct json_reader *reader, struct str *out_text);

enum status json_enter_object(struct json_reader *reader);
enum status json_next_member(struct json_reader *reader, bool *out_has_member, struct str *out_key);
enum status json_enter_array(struct json_reader *reader);
enum status json_next_element(struct json_reader *reader, bool *out_has_element);

// An error at the value that is being read: "points[3].id: " and the words. The text is in front
// when it is not malformed JSON but a value that does not fit.
enum status json_fail(struct json_reader *reader, enum status status, const char *problem);
enum status json_fail_syntax(struct json_reader *reader, const char *expected);
