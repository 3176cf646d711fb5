#include "vectron/verb.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "server/process.h"
#include "vectron/dev.h"

enum { SETTINGS_MAX = 48, NAMES_MAX = 64 };

const struct verb *verb_at(uint32_t index)
{
    if (index < account_verb_count)
        return &account_verbs[index];
    index -= account_verb_count;
    if (index < collection_verb_count)
        return &collection_verbs[index];
    index -= collection_verb_count;
    if (index < point_verb_count)
        return &point_verbs[index];
    index -= point_verb_count;
    static const struct verb *const files[] = {&import_verb, &export_verb, &inspect_verb};
    const uint32_t file_count = sizeof(files) / sizeof(files[0]);
    if (index < file_count)
        return files[index];
    index -= file_count;
    if (index < admin_verb_count)
        return &admin_verbs[index];
    index -= admin_verb_count;
    return index < cluster_verb_count ? &cluster_verbs[index] : NULL;
}

static void print_usage(FILE *file)
{
    fputs("usage: vectron VERB [arguments] [--flags]\n\n"
          "  dev                                   the whole of Vectron in one process, on "
          "loopback\n",
          file);
    for (uint32_t i = 0; verb_at(i) != NULL; i++) {
        const struct verb *verb = verb_at(i);
        int width = fprintf(file, "  %s %s", verb->name, verb->arguments);
        fprintf(file, "%*s%s\n", width < 40 ? 40 - width : 1, "", verb->summary);
    }
    fputs("  completion bash|zsh                   a script for the shell\n\n"
          "`vectron VERB --help` shows the flags of a verb.\n",
          file);
}

// The verb whose words stand at the front of the arguments; how many words those are.
static const struct verb *verb_find(int argc, char **argv, int *out_words)
{
    for (uint32_t i = 0; verb_at(i) != NULL; i++) {
        const struct verb *verb = verb_at(i);
        struct str rest = str_from_cstr(verb->name);
        int words = 0;
        while (rest.len > 0 && words + 1 < argc &&
               str_equal_cstr(str_cut(&rest, ' '), argv[words + 1])) {
            words++;
            if (rest.len == 0) {
                *out_words = words;
                return verb;
            }
        }
    }
    return NULL;
}

static int reject_unknown(int argc, char **argv)
{
    const char *names[NAMES_MAX] = {"dev", "completion"};
    char text[256];
    uint32_t count = 2;
    for (uint32_t i = 0; verb_at(i) != NULL && count < NAMES_MAX; i++)
        names[count++] = verb_at(i)->name;
    (void)snprintf(text, sizeof(text), "%s%s%s", argv[1], argc > 2 && argv[2][0] != '-' ? " " : "",
                   argc > 2 && argv[2][0] != '-' ? argv[2] : "");
    const char *nearest = config_nearest(names, count, str_from_cstr(text));
    fprintf(stderr, "vectron: unknown verb '%s'", text);
    if (nearest != NULL)
        fprintf(stderr, "; did you mean '%s'?", nearest);
    fputs(" (`vectron --help` lists them)\n", stderr);
    return 2;
}

static int run_verb(const struct verb *verb, const struct config *config)
{
    struct session session;
    enum status status = session_open(config, &session);
    if (status == STATUS_OK)
        status = verb->run(&session);
    if (status != STATUS_OK)
        fprintf(stderr, "vectron: %s: %s\n", status_name(status), session.error.text);
    session_close(&session);
    return status == STATUS_OK ? 0 : 1;
}

static int verb_start(const struct verb *verb, int argc, char **argv)
{
    struct setting settings[SETTINGS_MAX];
    uint32_t count = session_setting_count;
    struct config *config = NULL;
    struct error error = {0};
    struct buf text;
    int code = 2;

    memcpy(settings, session_settings, sizeof(settings[0]) * session_setting_count);
    for (uint32_t i = 0; i < verb->setting_count && count < SETTINGS_MAX; i++)
        settings[count++] = verb->settings[i];
    buf_init(&text, 1 << 20);
    if (config_create(settings, count, argc, argv, &error, &config) != STATUS_OK) {
        fprintf(stderr, "vectron %s: %s\n", verb->name, error.text);
        goto out;
    }
    uint32_t words = config_word_count(config);
    if (config_wants_help(config)) {
        char usage[256];
        (void)snprintf(usage, sizeof(usage), "vectron %s %s\n\n%s", verb->name, verb->arguments,
                       verb->summary);
        config_print_help(config, usage, &text);
        code = 0;
    } else if (config_wants_print(config)) {
        config_print(config, &text);
        code = 0;
    } else if (words < verb->word_min || words > verb->word_max) {
        fprintf(stderr, "usage: vectron %s %s\n", verb->name, verb->arguments);
    } else {
        code = run_verb(verb, config);
    }
    if (text.len > 0)
        fwrite(text.data, 1, text.len, stdout);
out:
    config_destroy(config);
    buf_deinit(&text);
    return code;
}

int verb_main(int argc, char **argv)
{
    int words = 0;
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("%s\n", version_text());
        return 0;
    }
    if (strcmp(argv[1], "dev") == 0)
        return dev_main(argc - 1, argv + 1);
    if (strcmp(argv[1], "completion") == 0)
        return completion_print(str_from_cstr(argc > 2 ? argv[2] : ""));
    const struct verb *verb = verb_find(argc, argv, &words);
    if (verb == NULL)
        return reject_unknown(argc, argv);
    return verb_start(verb, argc - words, argv + words);
}
