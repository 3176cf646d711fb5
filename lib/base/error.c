#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// A sentence that was cut must still be UTF-8: step back over a character that lost its end.
static void cut_at_character(char *text, size_t len)
{
    size_t start = len;
    while (start > 0 && len - start < 4) {
        start--;
        unsigned char byte = (unsigned char)text[start];
        if ((byte & 0xC0) == 0x80)
            continue;
        size_t size = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
        if (start + size > len)
            text[start] = '\0';
        return;
    }
}

enum status error_set(struct error *error, enum status status, const char *format, ...)
{
    if (error == NULL)
        return status;
    // An argument may be the error's own text: build the sentence beside it.
    char text[ERROR_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (len < 0)
        text[0] = '\0';
    else if ((size_t)len >= sizeof(text))
        cut_at_character(text, sizeof(text) - 1);
    memcpy(error->text, text, sizeof(text));
    return status;
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
    if ((size_t)len >= sizeof(text) || (rest > 0 && used + (size_t)rest >= sizeof(text)))
        cut_at_character(text, sizeof(text) - 1);
    memcpy(error->text, text, sizeof(text));
    return status;
}

const char *error_system_text(int number)
{
    const char *text = strerrordesc_np(number);
    return text == NULL ? "unknown error" : text;
}
