
#include "base/config.h"

#include "base/assert.h"

// A settings file may be anything: it is read or refused with a sentence, and what was read prints
// as one line per setting.

static const struct setting settings[] = {
    {"addr", NULL, SETTING_STR, false, "localhost:1", ""},
    {"count", NULL, SETTING_U64, false, "1", ""},
    {"rps", NULL, SETTING_I64, false, "-1", ""},
    {"boost", NULL, SETTING_DOUBLE, false, "0.5", ""},
    {"cache", NULL, SETTING_BOOL, false, "false", ""},
    {"secret", NULL, SETTING_STR, true, "", ""},
};

enum { SETTING_COUNT = sizeof(settings) / sizeof(settings[0]) };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char name[] = "program";
    static char *const argv[] = {name, NULL};
    struct error error = {0};
    struct config *config = NULL;
    enum status status = config_create(settings, SETTING_COUNT, 1, argv, &error, &config);
    ASSERT(status == STATUS_OK);
    status = config_read_file(config, (struct str){(const char *)data, size}, "fuzz", &error);
    ASSERT(status == STATUS_OK || (status == STATUS_INVALID && error.text[0] != '\0'));

    struct buf out;
    buf_init(&out, 1 << 26);
    config_print(config, &out);
    ASSERT(!buf_has_overflowed(&out));
    unsigned line_count = 0;
    struct str rest = buf_str(&out);
    for (; rest.len > 0; line_count++)
        (void)str_cut(&rest, '\n');
    ASSERT(line_count == SETTING_COUNT);
    buf_deinit(&out);
    config_destroy(config);
    return 0;
}
