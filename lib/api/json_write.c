#include <string.h>

#include "api/json.h"

static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

static void append_escaped(struct buf *out, uint8_t byte)
{
    static const char letters[] = "\"\\\b\f\n\r\t";
    static const char escapes[] = "\"\\bfnrt";
    const char *found = memchr(letters, byte, sizeof(letters) - 1);
    if (found != NULL) {
        buf_append_byte(out, '\\');
        buf_append_byte(out, (uint8_t)escapes[found - letters]);
    } else {
        buf_append_format(out, "\\u%04x", byte);
    }
}

void json_append_field_name(struct buf *out, const char *declared)
{
    bool is_upper = false;
    for (const char *c = declared; *c != '\0'; c++) {
        if (*c == '_') {
            is_upper = true;
            continue;
        }
        char letter = is_upper && *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
        buf_append_byte(out, (uint8_t)letter);
        is_upper = false;
    }
}

void json_append_string(struct buf *out, struct str text)
{
    buf_append_byte(out, '"');
    while (text.len > 0) {
        size_t plain = 0;
        while (plain < text.len && is_plain((uint8_t)text.data[plain]))
            plain++;
        buf_append(out, text.data, plain);
        text = (struct str){text.data + plain, text.len - plain};
        if (text.len == 0)
            break;
        size_t size = str_utf8_size(text);
        if (size > 1)
            buf_append(out, text.data, size);
        else if (size == 1)
            append_escaped(out, (uint8_t)text.data[0]);
        else
            buf_append_cstr(out, "\\ufffd"); // JSON is UTF-8, whatever came
        size += size == 0;
        text = (struct str){text.data + size, text.len - size};
    }
    buf_append_byte(out, '"');
}
