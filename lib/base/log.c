#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

enum {
    VALUE_SIZE_MAX = 2048, // of a field's text; longer values are cut
    LINE_SIZE_MAX = 1 << 20,
};

static _Atomic(enum log_level) level_least = LOG_INFO;
static _Atomic(enum log_format) format_used = LOG_FORMAT_TEXT;
static _Atomic(const char *) service_name;

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_least, level, memory_order_relaxed);
}

void log_set_format(enum log_format format)
{
    atomic_store_explicit(&format_used, format, memory_order_relaxed);
}

void log_set_service(const char *name)
{
    atomic_store_explicit(&service_name, name, memory_order_release);
}

bool log_level_from_str(struct str text, enum log_level *out_level)
{
    for (enum log_level level = LOG_DEBUG; level <= LOG_OFF; level++) {
        if (str_equal_ignoring_case(text, str_from_cstr(level_names[level]))) {
            *out_level = level;
            return true;
        }
    }
    if (str_equal_ignoring_case(text, STR("warning"))) {
        *out_level = LOG_WARN;
        return true;
    }
    return false;
}

bool log_is_on(enum log_level level)
{
    return level < LOG_OFF && level >= atomic_load_explicit(&level_least, memory_order_relaxed);
}

// What a terminal or a reader of lines would take for a command: control characters, those of
// Unicode's second block too.
static bool is_control(struct str character)
{
    uint8_t first = (uint8_t)character.data[0];
    if (character.len == 1)
        return first < 0x20 || first == 0x7F;
    return character.len == 2 && first == 0xC2 && (uint8_t)character.data[1] < 0xA0;
}

static void append_escaped(struct buf *out, struct str character)
{
    uint8_t last = (uint8_t)character.data[character.len - 1]; // is the code up to U+00BF
    if (last == '\n')
        buf_append_cstr(out, "\\n");
    else if (last == '\t')
        buf_append_cstr(out, "\\t");
    else if (last == '\r')
        buf_append_cstr(out, "\\r");
    else
        buf_append_format(out, "\\u%04x", last);
}

// A JSON string. A text line has the same one, so that no value can end its line or its quotes.
static void append_quoted(struct buf *out, struct str text)
{
    bool is_cut = text.len > VALUE_SIZE_MAX;
    if (is_cut)
        text.len = VALUE_SIZE_MAX;
    buf_append_byte(out, '"');
    while (text.len > 0) {
        size_t size = str_utf8_size(text);
        struct str character = {text.data, size};
        if (size == 0)
            buf_append_cstr(out, "\\ufffd");
        else if (is_control(character))
            append_escaped(out, character);
        else if (text.data[0] == '"' || text.data[0] == '\\')
            buf_append_format(out, "\\%c", text.data[0]);
        else
            buf_append_str(out, character);
        size_t step = size > 0 ? size : 1;
        text.data += step;
        text.len -= step;
    }
    if (is_cut)
        buf_append_cstr(out, "...");
    buf_append_byte(out, '"');
}

// Letters, digits and what addresses, paths and times are made of need no quotes in a text line.
static bool is_plain(struct str text)
{
    if (text.len == 0 || text.len > VALUE_SIZE_MAX)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_word && !str_contains(STR("_-./:@+,[]%"), (struct str){&c, 1}))
            return false;
    }
    return true;
}

static void append_text(struct buf *out, enum log_format format, struct str text)
{
    if (format == LOG_FORMAT_TEXT && is_plain(text))
        buf_append_str(out, text);
    else
        append_quoted(out, text);
}

static void append_name(struct buf *out, enum log_format format, const char *name)
{
    if (format == LOG_FORMAT_JSON) {
        buf_append_byte(out, out->len == 0 ? '{' : ',');
        append_quoted(out, str_from_cstr(name));
        buf_append_byte(out, ':');
        return;
    }
    if (out->len > 0)
        buf_append_byte(out, ' ');
    buf_append_cstr(out, name);
    buf_append_byte(out, '=');
}

static void append_real(struct buf *out, double value)
{
    if (isfinite(value))
        buf_append_format(out, "%.9g", value);
    else // JSON has no word for it
        buf_append_cstr(out, "null");
}

static void append_field(struct buf *out, enum log_format format, const struct log_field *field)
{
    append_name(out, format, field->name);
    switch (field->kind) {
    case LOG_KIND_STR:
        append_text(out, format, field->text);
        break;
    case LOG_KIND_U64:
        buf_append_format(out, "%llu", (unsigned long long)field->number);
        break;
    case LOG_KIND_I64:
        buf_append_format(out, "%lld", (long long)field->number);
        break;
    case LOG_KIND_DOUBLE:
        append_real(out, field->real);
        break;
    }
}

static void append_time(struct buf *out, enum log_format format)
{
    uint64_t now_ms = clock_unix_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc = {0};
    (void)gmtime_r(&seconds, &utc); // fails only for years that no clock shows
    char text[64];
    size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    append_name(out, format, "time");
    const char *quote = format == LOG_FORMAT_JSON ? "\"" : "";
    buf_append_format(out, "%s%.*s.%03uZ%s", quote, (int)len, text, (unsigned)(now_ms % 1000),
                      quote);
}

static void write_line(const struct buf *line)
{
    const uint8_t *at = line->data;
    size_t left = line->len;
    // One write unless it is interrupted or a full pipe takes only a part.
    while (left > 0) {
        ssize_t written = write(STDERR_FILENO, at, left);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return; // there is nobody to tell
        }
        at += written;
        left -= (size_t)written;
    }
}

void log_write(enum log_level level, const char *event, const struct log_field *fields,
               uint32_t field_count)
{
    if (level >= LOG_OFF)
        return;
    enum log_format format = atomic_load_explicit(&format_used, memory_order_relaxed);
    const char *service = atomic_load_explicit(&service_name, memory_order_acquire);
    int errno_before = errno;

    struct buf line;
    buf_init(&line, LINE_SIZE_MAX);
    append_time(&line, format);
    append_name(&line, format, "level");
    append_text(&line, format, str_from_cstr(level_names[level]));
    if (service != NULL) {
        append_name(&line, format, "service");
        append_text(&line, format, str_from_cstr(service));
    }
    append_name(&line, format, "event");
    append_text(&line, format, str_from_cstr(event));
    for (uint32_t i = 0; i < field_count; i++)
        append_field(&line, format, &fields[i]);
    buf_append_cstr(&line, format == LOG_FORMAT_JSON ? "}\n" : "\n");
    write_line(&line);
    buf_deinit(&line);
    errno = errno_before;
}
