#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

// A value from outside may hold any bytes, and a cut may fall into a character. The sentence goes
// into JSON and logs, so it is UTF-8 whatever happens.
static void make_utf8(char *text, bool was_cut)
{
    struct str rest = str_from_cstr(text);
    while (rest.len > 0) {
        size_t size = str_utf8_size(rest);
        char *at = text + (rest.data - text);
        if (size == 0 && was_cut && rest.len < 4) {
            *at = '\0';
            return;
        }
        if (size == 0) {
            *at = '?';
            size = 1;
        }
        rest.data += size;
        rest.len -= size;
    }
}

void error_write(struct error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error_vwrite(error, format, arguments);
    va_end(arguments);
}

void error_vwrite(struct error *error, const char *format, va_list arguments)
{
    if (error == NULL)
        return;
    // An argument may be the error's own text: build the sentence beside it.
    char text[ERROR_TEXT_SIZE];
    int len = vsnprintf(text, sizeof(text), format, arguments);
    if (len < 0)
        text[0] = '\0';
    make_utf8(text, len >= (int)sizeof(text));
    memcpy(error->text, text, sizeof(text));
}

enum status error_prefix(struct error *error, enum status status, const char *format, ...)
{
    if (error == NULL)
        return status;
    char text[ERROR_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (len < 0)
        return status;

    size_t used = strnlen(text, sizeof(text) - 1);
    int rest = snprintf(text + used, sizeof(text) - used, ": %s", error->text);
    make_utf8(text, rest < 0 || used + (size_t)rest >= sizeof(text));
    memcpy(error->text, text, sizeof(text));
    return status;
}

const char *error_system_text(int number)
{
    const char *text = strerrordesc_np(number);
    return text == NULL ? "unknown error" : text;
}
