#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/config_internal.h"
#include "base/mem.h"

enum {
    FILE_SIZE_MAX = 1 << 20,
    SHOWN_SIZE_MAX = 100, // of a bad value, in an error
    SOURCE_SIZE_MAX = 320,
};

const char *const config_own_flags[] = {"config", "print-config", "help", "version", NULL};

static char *copy_str(struct str text)
{
    char *copy = mem_alloc(text.len + 1);
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

static int shown_len(struct str text)
{
    return (int)(text.len < SHOWN_SIZE_MAX ? text.len : SHOWN_SIZE_MAX);
}

// --- Values

static bool parse_bool(struct str text, bool *out_value)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (str_equal_ignoring_case(text, str_from_cstr(words[i]))) {
            *out_value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

// What is wrong with the text for a setting of this kind, or NULL.
static const char *parse_value(enum setting_kind kind, struct str text, struct config_value *value)
{
    switch (kind) {
    case SETTING_STR:
        return NULL;
    case SETTING_U64:
        return str_to_u64(text, &value->parsed.u64) ? NULL : "is not a whole number from 0";
    case SETTING_I64:
        return str_to_i64(text, &value->parsed.i64) ? NULL : "is not a whole number";
    case SETTING_DOUBLE:
        return str_to_double(text, &value->parsed.real) ? NULL : "is not a number";
    case SETTING_BOOL:
        return parse_bool(text, &value->parsed.flag) ? NULL : "is not true or false";
    }
    return "has no kind";
}

static size_t find_setting(const struct config *config, struct str name)
{
    for (uint32_t i = 0; i < config->setting_count; i++) {
        if (str_equal_cstr(name, config->settings[i].name))
            return i;
    }
    return SIZE_MAX;
}

// origin says where the text stands ("in the file x, line 3"), or is empty for a flag.
static enum status set_value(struct config *config, size_t index, struct str text,
                             enum config_source source, const char *origin, struct error *error)
{
    const struct setting *setting = &config->settings[index];
    if (text.len > 0 && memchr(text.data, '\0', text.len) != NULL)
        return error_set(error, STATUS_INVALID, "--%s%s: the value has a zero byte", setting->name,
                         origin);
    struct config_value value = {.source = source};
    const char *wrong = parse_value(setting->kind, text, &value);
    if (wrong != NULL)
        return error_set(error, STATUS_INVALID, "--%s%s: \"%.*s\" %s", setting->name, origin,
                         shown_len(text), text.data, wrong);
    value.text = copy_str(text);
    mem_free(config->values[index].text);
    config->values[index] = value;
    return STATUS_OK;
}

static void set_fallbacks(struct config *config)
{
    for (uint32_t i = 0; i < config->setting_count; i++) {
        const struct setting *setting = &config->settings[i];
        ASSERT(find_setting(config, str_from_cstr(setting->name)) == i); // each name once
        struct str fallback = str_from_cstr(setting->fallback);
        struct config_value *value = &config->values[i];
        *value = (struct config_value){.source = CONFIG_DEFAULT};
        // A number without a default is 0 and shows as empty.
        ASSERT(fallback.len == 0 || parse_value(setting->kind, fallback, value) == NULL);
        value->text = copy_str(fallback);
    }
}

// --- Flags

static enum status fail_unknown(const struct config *config, struct str name, const char *origin,
                                struct error *error)
{
    return error_set(error, STATUS_INVALID, "unknown flag --%.*s%s, did you mean --%s?",
                     shown_len(name), name.data, origin, config_nearest_flag(config, name));
}

static void add_word(struct config *config, const char *word)
{
    config->words =
        mem_resize((void *)config->words, (config->word_count + 1) * sizeof(config->words[0]));
    config->words[config->word_count++] = copy_str(str_from_cstr(word));
}

// The command line as it is walked through.
struct arguments {
    int count;
    int index; // of the next one
    char *const *words;
};

// The value of a flag that was given without `=`: the next word. A word that looks like a flag is
// none, so that a forgotten value does not swallow the next flag; --name=--value says so on
// purpose.
static enum status take_value(struct arguments *arguments, struct str name, struct error *error,
                              struct str *out_value)
{
    const char *next =
        arguments->index < arguments->count ? arguments->words[arguments->index] : NULL;
    if (next == NULL || strncmp(next, "--", 2) == 0)
        return error_set(error, STATUS_INVALID, "--%.*s needs a value", shown_len(name), name.data);
    arguments->index++;
    *out_value = str_from_cstr(next);
    return STATUS_OK;
}

// --x alone sets a bool; a word behind it is its value only when it can be nothing else.
static struct str take_bool(struct arguments *arguments)
{
    bool ignored;
    if (arguments->index < arguments->count) {
        struct str next = str_from_cstr(arguments->words[arguments->index]);
        if (parse_bool(next, &ignored)) {
            arguments->index++;
            return next;
        }
    }
    return STR("true");
}

// --help, --version and --print-config, which may also be written --help=false.
static enum status read_own_switch(bool *wants, struct str name, bool has_value, struct str value,
                                   struct error *error)
{
    if (!has_value) {
        *wants = true;
        return STATUS_OK;
    }
    if (!parse_bool(value, wants))
        return error_set(error, STATUS_INVALID, "--%.*s: \"%.*s\" is not true or false",
                         shown_len(name), name.data, shown_len(value), value.data);
    return STATUS_OK;
}

static enum status read_flag(struct config *config, struct str text, struct arguments *arguments,
                             struct error *error)
{
    bool has_value = str_contains(text, STR("="));
    struct str value = text;
    struct str name = str_cut(&value, '=');

    if (str_equal_cstr(name, "help"))
        return read_own_switch(&config->wants_help, name, has_value, value, error);
    if (str_equal_cstr(name, "version"))
        return read_own_switch(&config->wants_version, name, has_value, value, error);
    if (str_equal_cstr(name, "print-config"))
        return read_own_switch(&config->wants_print, name, has_value, value, error);

    bool is_config = str_equal_cstr(name, "config");
    size_t index = is_config ? SIZE_MAX : find_setting(config, name);
    if (index == SIZE_MAX && !is_config)
        return fail_unknown(config, name, "", error);
    if (!has_value && !is_config && config->settings[index].kind == SETTING_BOOL)
        value = take_bool(arguments);
    else if (!has_value)
        TRY(take_value(arguments, name, error, &value));
    if (!is_config)
        return set_value(config, index, value, CONFIG_FLAG, "", error);
    mem_free(config->file);
    config->file = copy_str(value);
    return STATUS_OK;
}

static enum status read_flags(struct config *config, struct arguments *arguments,
                              struct error *error)
{
    bool has_flags_ended = false;
    while (arguments->index < arguments->count) {
        const char *word = arguments->words[arguments->index++];
        if (has_flags_ended || word[0] != '-' || word[1] == '\0') {
            add_word(config, word);
        } else if (strcmp(word, "--") == 0) {
            has_flags_ended = true;
        } else if (strcmp(word, "-h") == 0) {
            config->wants_help = true;
        } else if (word[1] != '-') {
            struct str name = str_from_cstr(word + 1);
            return error_set(error, STATUS_INVALID,
                             "unknown flag %.*s, flags have two dashes, did you mean --%s?",
                             shown_len(name) + 1, word, config_nearest_flag(config, name));
        } else {
            TRY(read_flag(config, str_from_cstr(word + 2), arguments, error));
        }
    }
    return STATUS_OK;
}

// --- Environment

static enum status read_environment(struct config *config, struct error *error)
{
    for (uint32_t i = 0; i < config->setting_count; i++) {
        const char *name = config->settings[i].environment;
        if (name == NULL || config->values[i].source == CONFIG_FLAG)
            continue;
        // Before other threads start; nobody changes the environment.
        const char *value = getenv(name); // NOLINT(concurrency-mt-unsafe)
        if (value == NULL || value[0] == '\0')
            continue;
        char origin[SOURCE_SIZE_MAX];
        (void)snprintf(origin, sizeof(origin), " (from %s)", name); // cut when absurdly long
        TRY(set_value(config, i, str_from_cstr(value), CONFIG_ENVIRONMENT, origin, error));
    }
    return STATUS_OK;
}

// --- File

// A # starts a comment where a line starts or behind a blank: secrets and addresses may hold one.
static struct str cut_comment(struct str line)
{
    for (size_t i = 0; i < line.len; i++) {
        if (line.data[i] != '#')
            continue;
        if (i == 0 || line.data[i - 1] == ' ' || line.data[i - 1] == '\t')
            return (struct str){line.data, i};
    }
    return line;
}

static enum status read_line(struct config *config, struct str line, const char *origin,
                             struct error *error)
{
    struct str value = str_trim(cut_comment(line));
    if (value.len == 0)
        return STATUS_OK;
    if (!str_contains(value, STR("=")))
        return error_set(error, STATUS_INVALID, "not `name = value`%s: \"%.*s\"", origin,
                         shown_len(value), value.data);
    struct str name = str_trim(str_cut(&value, '='));
    size_t index = find_setting(config, name);
    if (index == SIZE_MAX)
        return fail_unknown(config, name, origin, error);
    if (config->values[index].source > CONFIG_FILE)
        return STATUS_OK;
    return set_value(config, index, str_trim(value), CONFIG_FILE, origin, error);
}

enum status config_read_file(struct config *config, struct str text, const char *path,
                             struct error *error)
{
    for (unsigned number = 1; text.len > 0; number++) {
        struct str line = str_cut(&text, '\n');
        char origin[SOURCE_SIZE_MAX];
        (void)snprintf(origin, sizeof(origin), " (%.200s, line %u)", path, number); // may be cut
        TRY(read_line(config, line, origin, error));
    }
    return STATUS_OK;
}

static enum status load_file(struct config *config, struct error *error)
{
    enum status status = STATUS_OK;
    char *text = NULL;
    FILE *file = fopen(config->file, "re");
    if (file == NULL)
        return error_set(error, STATUS_IO, "--config %s: cannot open: %s", config->file,
                         error_system_text(errno));

    text = mem_alloc(FILE_SIZE_MAX + 1);
    size_t size = fread(text, 1, FILE_SIZE_MAX + 1, file);
    if (ferror(file))
        status = error_set(error, STATUS_IO, "--config %s: cannot read: %s", config->file,
                           error_system_text(errno));
    else if (size > FILE_SIZE_MAX)
        status = error_set(error, STATUS_INVALID, "--config %s: longer than %d bytes", config->file,
                           FILE_SIZE_MAX);
    else
        status = config_read_file(config, (struct str){text, size}, config->file, error);
    mem_free(text);
    (void)fclose(file); // was only read
    return status;
}

// --- Life cycle

static enum status read_all(struct config *config, struct arguments *arguments, struct error *error)
{
    TRY(read_flags(config, arguments, error));
    // Who asks for help gets it, whatever the environment holds.
    if (config->wants_help || config->wants_version)
        return STATUS_OK;
    TRY(read_environment(config, error));
    return config->file == NULL ? STATUS_OK : load_file(config, error);
}

enum status config_create(const struct setting *settings, uint32_t setting_count, int argc,
                          char *const *argv, struct error *error, struct config **out_config)
{
    struct config *config = mem_alloc(sizeof(*config));
    config->settings = settings;
    config->setting_count = setting_count;
    config->values = mem_alloc((setting_count + 1) * sizeof(config->values[0]));
    set_fallbacks(config);

    struct arguments arguments = {.count = argc, .index = 1, .words = argv};
    enum status status = read_all(config, &arguments, error);
    if (status != STATUS_OK) {
        config_destroy(config);
        return status;
    }
    *out_config = config;
    return STATUS_OK;
}

void config_destroy(struct config *config)
{
    if (config == NULL)
        return;
    for (uint32_t i = 0; i < config->setting_count; i++)
        mem_free(config->values[i].text);
    for (uint32_t i = 0; i < config->word_count; i++)
        mem_free(config->words[i]);
    mem_free(config->values);
    mem_free((void *)config->words);
    mem_free(config->file);
    mem_free(config);
}

enum status config_set(struct config *config, const char *name, struct str value,
                       struct error *error)
{
    size_t index = find_setting(config, str_from_cstr(name));
    if (index == SIZE_MAX)
        return fail_unknown(config, str_from_cstr(name), "", error);
    return set_value(config, index, value, CONFIG_FLAG, "", error);
}

// --- Questions

static const struct config_value *get(const struct config *config, const char *name)
{
    size_t index = find_setting(config, str_from_cstr(name));
    ASSERT(index != SIZE_MAX);
    return &config->values[index];
}

static const struct config_value *get_kind(const struct config *config, const char *name,
                                           enum setting_kind kind)
{
    const struct config_value *value = get(config, name);
    ASSERT(config->settings[value - config->values].kind == kind);
    return value;
}

struct str config_str(const struct config *config, const char *name)
{
    return str_from_cstr(get(config, name)->text);
}

uint64_t config_u64(const struct config *config, const char *name)
{
    return get_kind(config, name, SETTING_U64)->parsed.u64;
}

int64_t config_i64(const struct config *config, const char *name)
{
    return get_kind(config, name, SETTING_I64)->parsed.i64;
}

double config_double(const struct config *config, const char *name)
{
    return get_kind(config, name, SETTING_DOUBLE)->parsed.real;
}

bool config_bool(const struct config *config, const char *name)
{
    return get_kind(config, name, SETTING_BOOL)->parsed.flag;
}

enum config_source config_source(const struct config *config, const char *name)
{
    return get(config, name)->source;
}

bool config_is_set(const struct config *config, const char *name)
{
    return get(config, name)->source != CONFIG_DEFAULT;
}

bool config_has(const struct config *config, const char *name)
{
    return find_setting(config, str_from_cstr(name)) != SIZE_MAX;
}

uint32_t config_word_count(const struct config *config)
{
    return config->word_count;
}

struct str config_word(const struct config *config, uint32_t index)
{
    ASSERT(index < config->word_count);
    return str_from_cstr(config->words[index]);
}

bool config_wants_help(const struct config *config)
{
    return config->wants_help;
}

bool config_wants_version(const struct config *config)
{
    return config->wants_version;
}

bool config_wants_print(const struct config *config)
{
    return config->wants_print;
}
