#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A view of bytes: a pointer and a length, owned by somebody else. str is text, span is bytes; both
// are values, copied freely. Text has no NUL at its end; only what goes to libc has one
// (arena_cstr). Any thread.

struct str {
    const char *data;
    size_t len;
};

struct span {
    const uint8_t *data;
    size_t len;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
// printf("%.*s", STR_ARG(s))
#define STR_ARG(s)   (int)(s).len, (s).data

struct str str_from_cstr(const char *cstr); // NULL becomes empty
struct span str_span(struct str str);
struct str span_str(struct span span);

bool str_equal(struct str a, struct str b);
bool str_equal_cstr(struct str a, const char *b);
// In a time that tells nothing of where they differ; for secrets.
bool str_equal_in_constant_time(struct str a, struct str b);
bool str_equal_ignoring_case(struct str a, struct str b); // ASCII only
int str_compare(struct str a, struct str b);              // bytewise, shorter first
bool str_starts_with(struct str str, struct str prefix);
bool str_ends_with(struct str str, struct str suffix);
bool str_contains(struct str str, struct str needle);
struct str str_trim(struct str str); // spaces, tabs, CR, LF at both ends

// Cut at the first separator: returns what is before it and leaves the rest in *rest. Without a
// separator the whole comes back and *rest becomes empty.
struct str str_cut(struct str *rest, char separator);

// The whole text must be one number. False: it is none, or out of range.
bool str_to_u64(struct str str, uint64_t *out_value);
bool str_to_i64(struct str str, int64_t *out_value);
bool str_to_double(struct str str, double *out_value);

// Valid UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF).
bool str_is_utf8(struct str str);
// Bytes of the first character; 0 when str is empty or does not start with valid UTF-8.
size_t str_utf8_size(struct str str);
