#pragma once

#include <stdarg.h>

#include "base/status.h"

// The sentence that goes with a status: which file, which field, which limit. A function that takes
// a struct error fills it when it fails; its caller may put words in front of it on the way up:
// "open shard 7: log 000012: checksum at byte 4096". Borrowed by nobody, copied freely; any thread.

enum { ERROR_TEXT_SIZE = 512 };

struct error {
    char text[ERROR_TEXT_SIZE]; // NUL-terminated UTF-8, cut at the end when too long
};

// Write the sentence and return status, so that a caller can say `return error_set(...)`: a macro,
// so that the analyzer sees which status that is. error may be NULL.
#define error_set(to, code, ...) (error_write((to), __VA_ARGS__), (enum status)(code))
void error_write(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void error_vwrite(struct error *error, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

// Put words in front of the sentence, followed by ": ". Returns status unchanged.
enum status error_prefix(struct error *error, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// The words for an errno ("No such file or directory"). Unlike strerror from any thread.
const char *error_system_text(int number);
