#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/str.h"

// Settings of a process: flags > environment > file > default. A program lists its settings once;
// --help, --print-config, the nearest-known-flag answer and docs/configuration.md come from the
// list. Read at start, by one thread; read-only afterwards.
//
// Flags are --name=value and --name value; --x and --x=true both set a bool. The names are the
// flags' without dashes in front; a variable GRPC_ADDR has the flag --grpc-addr. --config FILE
// holds `name = value` lines, # starts a comment.

enum setting_kind { SETTING_STR, SETTING_U64, SETTING_I64, SETTING_DOUBLE, SETTING_BOOL };

struct setting {
    const char *name;        // "grpc-addr"
    const char *environment; // "GRPC_ADDR", or NULL
    enum setting_kind kind;
    bool is_secret; // --print-config shows (set) or (not set) instead of the value
    const char *fallback;
    const char *help;
};

enum config_source { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_FLAG };

struct config;

// Everything from the command line, the environment and the file that --config names. Words that
// are no flags are kept (config_word). INVALID: unknown flag or bad value, error says which and
// names the nearest known one. settings must outlive the config.
enum status config_create(const struct setting *settings, uint32_t setting_count, int argc,
                          char *const *argv, struct error *error, struct config **out_config);
void config_destroy(struct config *config); // config may be NULL

struct str config_str(const struct config *config, const char *name); // NUL-terminated as well
uint64_t config_u64(const struct config *config, const char *name);
int64_t config_i64(const struct config *config, const char *name);
double config_double(const struct config *config, const char *name);
bool config_bool(const struct config *config, const char *name);
enum config_source config_source(const struct config *config, const char *name);
bool config_is_set(const struct config *config, const char *name); // not by default

bool config_has(const struct config *config, const char *name); // the list has such a setting

// Set a value as a flag would; used by `vectron dev` to wire its services.
enum status config_set(struct config *config, const char *name, struct str value,
                       struct error *error);

uint32_t config_word_count(const struct config *config);
struct str config_word(const struct config *config, uint32_t index);

bool config_wants_help(const struct config *config);
bool config_wants_version(const struct config *config);
bool config_wants_print(const struct config *config);
void config_print(const struct config *config, struct buf *out);
void config_print_help(const struct config *config, const char *usage, struct buf *out);

// What --config does with its file's text; path is for the errors. Flags and environment that were
// read before win.
enum status config_read_file(struct config *config, struct str text, const char *path,
                             struct error *error);

// The member of names that is nearest to word by edit distance, or NULL when none is near.
const char *config_nearest(const char *const *names, uint32_t name_count, struct str word);
