#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

// Log lines to stderr, one write each: `key=value …` or JSON. Services log, libraries never do. A
// line has a time, a level, the service, an event (a few fixed words) and fields. Never a secret,
// a token or a password. Any thread.
//
//     log_info("shard opened", LOG_U64("shard", id), LOG_STR("collection", name));

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

enum log_kind { LOG_KIND_STR, LOG_KIND_U64, LOG_KIND_I64, LOG_KIND_DOUBLE };

struct log_field {
    const char *name;
    enum log_kind kind;
    struct str text;
    uint64_t number;
    double real;
};

#define LOG_STR(name, value)    ((struct log_field){name, LOG_KIND_STR, (value), 0, 0})
#define LOG_CSTR(name, value)   ((struct log_field){name, LOG_KIND_STR, str_from_cstr(value), 0, 0})
#define LOG_U64(name, value)    ((struct log_field){name, LOG_KIND_U64, {0}, (uint64_t)(value), 0})
#define LOG_I64(name, value)    ((struct log_field){name, LOG_KIND_I64, {0}, (uint64_t)(value), 0})
#define LOG_DOUBLE(name, value) ((struct log_field){name, LOG_KIND_DOUBLE, {0}, 0, (value)})

void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
// Whose lines these are; must outlive the process. Without it lines have no service.
void log_set_service(const char *name);
bool log_level_from_str(struct str text, enum log_level *out_level);
bool log_is_on(enum log_level level);

void log_write(enum log_level level, const char *event, const struct log_field *fields,
               uint32_t field_count);

// A closing empty field makes the macros work without any: ISO C wants something behind the comma.
#define LOG_FIRST(first, ...) first
#define LOG_REST(first, ...)  __VA_ARGS__
#define LOG_END               ((struct log_field){0})
#define LOG_AT(level, ...)                                                          \
    do {                                                                            \
        if (log_is_on(level)) {                                                     \
            const struct log_field log_fields[] = {LOG_REST(__VA_ARGS__, LOG_END)}; \
            log_write(level, LOG_FIRST(__VA_ARGS__, LOG_END), log_fields,           \
                      (uint32_t)(sizeof(log_fields) / sizeof(log_fields[0])) - 1);  \
        }                                                                           \
    } while (0)
#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)
