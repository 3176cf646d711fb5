#include "placementdriver/state.h"

#include <stdlib.h>

#include "base/arena.h"
#include "placementdriver/command.h"

// Bytes as a snapshot of the state, and as a list of commands (each with its length in front) for
// an empty state. Whatever is accepted keeps the invariants.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// What is written is read again, and is then written as the same bytes.
static void check_bytes(const struct state *state)
{
    struct state copy;
    struct error error;
    struct buf first;
    struct buf second;
    buf_init(&first, SIZE_MAX);
    buf_init(&second, SIZE_MAX);
    state_init(&copy);
    state_encode(state, &first);
    if (state_decode(buf_span(&first), &error, &copy) != STATUS_OK)
        abort();
    state_encode(&copy, &second);
    if (!str_equal(buf_str(&first), buf_str(&second)))
        abort();
    state_deinit(&copy);
    buf_deinit(&first);
    buf_deinit(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state state;
    struct error error;
    state_init(&state);
    if (state_decode((struct span){data, size}, &error, &state) == STATUS_OK) {
        check_bytes(&state);
    }
    state_deinit(&state);

    state_init(&state);
    uint64_t index = 0;
    while (size > 0) {
        size_t length = data[0] < size ? data[0] : size - 1;
        struct answer answer;
        if (state_apply(&state, index + 1, (struct span){data + 1, length}, &answer) == STATUS_OK)
            index++;
        data += length + 1;
        size -= length + 1;
    }
    if (state_check(&state, &error) != STATUS_OK)
        abort();
    state_deinit(&state);
    return 0;
}
