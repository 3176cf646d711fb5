#include "vectron/import_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

enum { STATE_SIZE_MAX = 4096, NUMBER_COUNT = 8 };

static const char *const number_names[NUMBER_COUNT] = {
    "source_size", "source_crc", "offset", "line", "ids_offset", "stored", "refused", "report_size",
};

// The numbers of a state in the order of their names.
static void numbers_of(struct import_state *state, uint64_t *out_numbers[static NUMBER_COUNT])
{
    uint64_t *numbers[NUMBER_COUNT] = {
        &state->source_size,   &state->source_crc,          &state->position.offset,
        &state->position.line, &state->position.ids_offset, &state->stored,
        &state->refused,       &state->report_size,
    };
    memcpy(out_numbers, numbers, sizeof(numbers));
}

enum status import_state_decode(struct str text, struct error *error,
                                struct import_state *out_state)
{
    struct import_state state = {0};
    uint64_t *numbers[NUMBER_COUNT];
    uint32_t seen = 0;
    numbers_of(&state, numbers);
    while (text.len > 0) {
        struct str value = str_cut(&text, '\n');
        struct str name = str_cut(&value, '=');
        if (str_equal(name, STR("collection")) && value.len < sizeof(state.collection)) {
            memcpy(state.collection, value.data, value.len);
            state.collection[value.len] = '\0';
            seen |= UINT32_C(1) << NUMBER_COUNT;
        }
        for (uint32_t i = 0; i < NUMBER_COUNT; i++) {
            if (str_equal_cstr(name, number_names[i]) && str_to_u64(value, numbers[i]))
                seen |= UINT32_C(1) << i;
        }
    }
    if (seen != (UINT32_C(1) << (NUMBER_COUNT + 1)) - 1)
        return error_set(error, STATUS_INVALID, "not the state of an import");
    *out_state = state;
    return STATUS_OK;
}

enum status import_state_load(const char *path, struct error *error, struct import_state *out_state)
{
    char text[STATE_SIZE_MAX];
    FILE *file = fopen(path, "rbe");
    if (file == NULL && errno == ENOENT)
        return STATUS_NOT_FOUND;
    if (file == NULL)
        return error_set(error, STATUS_IO, "open %s: %s", path, error_system_text(errno));
    size_t size = fread(text, 1, sizeof(text), file);
    (void)fclose(file); // it was only read
    return error_prefix(error, import_state_decode((struct str){text, size}, error, out_state),
                        "%s", path);
}

enum status import_state_save(const char *path, const struct import_state *state,
                              struct error *error)
{
    struct import_state copy = *state;
    uint64_t *numbers[NUMBER_COUNT];
    char text[STATE_SIZE_MAX];
    char fresh[4096];
    int size = snprintf(text, sizeof(text), "collection=%s\n", copy.collection);
    numbers_of(&copy, numbers);
    for (uint32_t i = 0; i < NUMBER_COUNT; i++)
        size += snprintf(text + size, sizeof(text) - (size_t)size, "%s=%" PRIu64 "\n",
                         number_names[i], *numbers[i]);
    if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
        return error_set(error, STATUS_INVALID, "the path %s is too long", path);
    int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0)
        return error_set(error, STATUS_IO, "write %s: %s", fresh, error_system_text(errno));
    bool is_written = write(file, text, (size_t)size) == size;
    if (close(file) != 0 || !is_written || rename(fresh, path) != 0)
        return error_set(error, STATUS_IO, "write %s: %s", path, error_system_text(errno));
    return STATUS_OK;
}
