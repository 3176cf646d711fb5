#include <string.h>

#include "base/config_internal.h"

enum {
    WORD_SIZE_MAX = 64, // longer words are compared by their beginning
    FLAG_COLUMN = 30,   // where the help's sentences start
};

// --- The nearest name

static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c == '_' ? '-' : c; // a variable's name is near its flag's
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

// How many letters must be added, removed, replaced or swapped with their neighbour.
static unsigned edit_distance(struct str a, struct str b)
{
    a.len = a.len < WORD_SIZE_MAX ? a.len : WORD_SIZE_MAX;
    b.len = b.len < WORD_SIZE_MAX ? b.len : WORD_SIZE_MAX;
    unsigned rows[3][WORD_SIZE_MAX + 1] = {0};
    for (unsigned j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3];
        const unsigned *above_two = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            char from = fold(a.data[i - 1]);
            char to = fold(b.data[j - 1]);
            row[j] = least(above[j - 1] + (from != to), least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && from == fold(b.data[j - 2]) && fold(a.data[i - 2]) == to)
                row[j] = least(row[j], above_two[j - 2] + 1);
        }
    }
    return rows[a.len % 3][b.len];
}

const char *config_nearest(const char *const *names, uint32_t name_count, struct str word)
{
    const char *nearest = NULL;
    // More than a third wrong is another word.
    unsigned nearest_distance = least((unsigned)word.len, WORD_SIZE_MAX) / 3 + 1;
    if (word.len > 2 && nearest_distance < 2)
        nearest_distance = 2;
    for (uint32_t i = 0; i < name_count; i++) {
        unsigned distance = edit_distance(word, str_from_cstr(names[i]));
        if (distance <= nearest_distance && (nearest == NULL || distance < nearest_distance)) {
            nearest = names[i];
            nearest_distance = distance;
        }
    }
    return nearest;
}

const char *config_nearest_flag(const struct config *config, struct str word)
{
    const char *nearest = config_own_flags[0];
    unsigned nearest_distance = UINT32_MAX;
    for (uint32_t i = 0; i < config->setting_count; i++) {
        unsigned distance = edit_distance(word, str_from_cstr(config->settings[i].name));
        if (distance < nearest_distance) {
            nearest = config->settings[i].name;
            nearest_distance = distance;
        }
    }
    for (const char *const *own = config_own_flags; *own != NULL; own++) {
        unsigned distance = edit_distance(word, str_from_cstr(*own));
        if (distance < nearest_distance) {
            nearest = *own;
            nearest_distance = distance;
        }
    }
    return nearest;
}

// --- --print-config and --help

// A line break in a value must not make a second line.
static void append_value(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F)
            buf_append_format(out, "\\x%02x", (unsigned)*text);
        else
            buf_append_byte(out, (uint8_t)*text);
    }
}

void config_print(const struct config *config, struct buf *out)
{
    static const char *const source_names[] = {"default", "file", "environment", "flag"};
    for (uint32_t i = 0; i < config->setting_count; i++) {
        const struct config_value *value = &config->values[i];
        buf_append_format(out, "%s=", config->settings[i].name);
        if (config->settings[i].is_secret)
            buf_append_cstr(out, value->text[0] == '\0' ? "(not set)" : "(set)");
        else
            append_value(out, value->text);
        buf_append_format(out, "  # %s\n", source_names[value->source]);
    }
}

static const char *kind_word(enum setting_kind kind)
{
    switch (kind) {
    case SETTING_U64:
    case SETTING_I64:
    case SETTING_DOUBLE:
        return "=NUMBER";
    case SETTING_BOOL:
        return "[=true|false]";
    case SETTING_STR:
        break;
    }
    return "=TEXT";
}

static void print_flag(struct buf *out, const char *name, const char *value, const char *help)
{
    size_t start = out->len;
    buf_append_format(out, "  --%s%s", name, value);
    size_t width = out->len - start;
    if (width >= FLAG_COLUMN) {
        buf_append_byte(out, '\n');
        width = 0;
    }
    buf_append_format(out, "%*s%s", (int)(FLAG_COLUMN - width), "", help);
}

void config_print_help(const struct config *config, const char *usage, struct buf *out)
{
    buf_append_format(out, "%s\n\nFlags:\n", usage);
    for (uint32_t i = 0; i < config->setting_count; i++) {
        const struct setting *setting = &config->settings[i];
        print_flag(out, setting->name, kind_word(setting->kind), setting->help);
        const char *fallback = setting->fallback == NULL ? "" : setting->fallback;
        if (fallback[0] != '\0')
            buf_append_format(out, " (default %s)", fallback);
        if (setting->environment != NULL)
            buf_append_format(out, " [%s]", setting->environment);
        buf_append_byte(out, '\n');
    }
    print_flag(out, "config", "=FILE", "read settings from FILE: lines `name = value`\n");
    print_flag(out, "print-config", "", "show the settings and where they come from, and end\n");
    print_flag(out, "help", "", "show this and end; -h too\n");
    print_flag(out, "version", "", "show the version and end\n");
    buf_append_cstr(out, "\nA flag wins over the environment [IN BRACKETS], that over the file, "
                         "that over the default.\n");
}
