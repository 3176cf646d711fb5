#include "replica/snapshot_format.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

// A snapshot's bytes, as a disk or another member may give them: as they are, and behind a header
// that is right.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error error;
    struct span state;
    uint64_t index;
    if (snapshot_decode((struct span){data, size}, &error, &index, &state) == STATUS_OK)
        require(state.len == size - SNAPSHOT_HEADER_SIZE);

    uint8_t *file = mem_alloc(SNAPSHOT_HEADER_SIZE + size);
    snapshot_header_encode(7, (struct span){data, size}, file);
    if (size > 0)
        memcpy(file + SNAPSHOT_HEADER_SIZE, data, size);
    require(snapshot_decode((struct span){file, SNAPSHOT_HEADER_SIZE + size}, &error, &index,
                            &state) == STATUS_OK);
    require(index == 7 && state.len == size);
    mem_free(file);
    return 0;
}
