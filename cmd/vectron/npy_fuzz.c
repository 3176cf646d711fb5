#include "vectron/npy.h"

#include <stddef.h>
#include <string.h>

#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Whatever the header claims, every row it promises must lie inside the bytes.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct npy npy;
    struct error error;
    if (npy_decode_header((struct span){data, size}, &error, &npy) != STATUS_OK)
        return 0;
    float *row = mem_alloc(npy.column_count * sizeof(float));
    if (npy.row_count > 0) {
        npy_row(&npy, 0, row);
        npy_row(&npy, npy.row_count - 1, row);
    }
    mem_free(row);
    return 0;
}
