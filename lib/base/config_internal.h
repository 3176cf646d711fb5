#pragma once

#include "base/config.h"

// What config.c (reading) and config_print.c (showing) share.

struct config_value {
    char *text; // NUL-terminated, owned
    enum config_source source;
    union {
        uint64_t u64;
        int64_t i64;
        double real;
        bool flag;
    } parsed;
};

struct config {
    const struct setting *settings;
    struct config_value *values; // one for each setting
    uint32_t setting_count;
    uint32_t word_count;
    char **words; // owned
    char *file;   // that --config named, or NULL
    bool wants_help;
    bool wants_version;
    bool wants_print;
};

// Flags that every program has; NULL ends them.
extern const char *const config_own_flags[];

// The known flag that is nearest to word, however far that is.
const char *config_nearest_flag(const struct config *config, struct str word);
