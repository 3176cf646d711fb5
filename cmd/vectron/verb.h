#pragma once

#include <stdint.h>

#include "base/config.h"
#include "vectron/session.h"

// The words that follow `vectron` on the command line. Each verb has its own settings besides the
// common ones, so that a flag of another verb is an error. One thread.

struct verb {
    const char *name;      // "points upsert"
    const char *arguments; // "COLLECTION [ID…]"
    const char *summary;
    const struct setting *settings; // its own
    uint32_t setting_count;
    uint32_t word_min; // arguments behind the name
    uint32_t word_max;
    // Returns STATUS_OK, or fills the session's error.
    enum status (*run)(struct session *session);
};

extern const struct verb account_verbs[];
extern const uint32_t account_verb_count;
extern const struct verb admin_verbs[];
extern const uint32_t admin_verb_count;
extern const struct verb cluster_verbs[];
extern const uint32_t cluster_verb_count;
extern const struct verb collection_verbs[];
extern const uint32_t collection_verb_count;
extern const struct verb point_verbs[];
extern const uint32_t point_verb_count;
extern const struct verb import_verb;
extern const struct verb export_verb;
extern const struct verb inspect_verb;

// Run the command line; the exit code is 0, 1 (it failed) or 2 (it was not understood).
int verb_main(int argc, char **argv);

// Every verb in the order of the help; NULL behind the last one.
const struct verb *verb_at(uint32_t index);

// `vectron completion bash|zsh`: print a script that the shell evaluates. 2: another shell.
int completion_print(struct str shell);
