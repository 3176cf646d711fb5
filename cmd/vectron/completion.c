#include <stdio.h>
#include <string.h>

#include "vectron/verb.h"

// The words that may follow a first word, or the first words themselves (first empty).
static void print_words(struct str first)
{
    const char *last = "";
    for (uint32_t i = 0; verb_at(i) != NULL; i++) {
        struct str rest = str_from_cstr(verb_at(i)->name);
        const char *name = rest.data;
        struct str word = str_cut(&rest, ' ');
        if (first.len > 0) {
            if (str_equal(word, first) && rest.len > 0)
                printf(" %.*s", STR_ARG(rest));
        } else if (strncmp(last, name, word.len) != 0 || last[word.len] > ' ') {
            printf(" %.*s", STR_ARG(word));
            last = name;
        }
    }
}

static void print_flags(void)
{
    for (uint32_t i = 0; i < session_setting_count; i++)
        printf(" --%s", session_settings[i].name);
}

int completion_print(struct str shell)
{
    bool is_zsh = str_equal_cstr(shell, "zsh");
    if (!is_zsh && !str_equal_cstr(shell, "bash")) {
        fputs("usage: vectron completion bash|zsh\n", stderr);
        return 2;
    }
    if (is_zsh)
        puts("autoload -U +X bashcompinit && bashcompinit");
    fputs("_vectron() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} words\n"
          "    case $COMP_CWORD in\n"
          "    1) words=\"dev completion",
          stdout);
    print_words((struct str){0});
    puts("\" ;;\n    2)\n        case ${COMP_WORDS[1]} in");
    static const char *const groups[] = {"keys", "collections", "points", "admin"};
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        printf("        %s) words=\"", groups[i]);
        print_words(str_from_cstr(groups[i]));
        puts("\" ;;");
    }
    puts("        completion) words=\"bash zsh\" ;;\n        esac\n        ;;\n    esac");
    fputs("    case $word in -*) words=\"", stdout);
    print_flags();
    puts("\" ;; esac\n"
         "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
         "}\n"
         "complete -o default -F _vectron vectron");
    return 0;
}
