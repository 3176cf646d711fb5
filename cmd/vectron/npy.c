#include "vectron/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

// Where the value of a key of the header's Python dictionary starts; empty when it has no such key.
static struct str header_value(struct str header, struct str key)
{
    for (size_t i = 0; i + key.len < header.len; i++) {
        if (memcmp(header.data + i, key.data, key.len) != 0)
            continue;
        struct str rest = {header.data + i + key.len, header.len - i - key.len};
        (void)str_cut(&rest, ':');
        return str_trim(rest);
    }
    return (struct str){0};
}

// "(20000, 100)" as two numbers.
static bool parse_shape(struct str text, uint64_t *out_rows, uint64_t *out_columns)
{
    if (text.len == 0 || text.data[0] != '(')
        return false;
    struct str inside = {text.data + 1, text.len - 1};
    struct str shape = str_cut(&inside, ')');
    struct str rows = str_trim(str_cut(&shape, ','));
    struct str columns = str_trim(str_cut(&shape, ','));
    return str_trim(shape).len == 0 && str_to_u64(rows, out_rows) &&
           str_to_u64(columns, out_columns);
}

enum status npy_decode_header(struct span bytes, struct error *error, struct npy *out_npy)
{
    if (bytes.len < 10 || memcmp(bytes.data, "\x93NUMPY", 6) != 0)
        return error_set(error, STATUS_INVALID, "not a .npy file");
    uint8_t version = bytes.data[6];
    size_t prefix = version == 1 ? 10 : 12;
    if (version < 1 || version > 3 || bytes.len < prefix)
        return error_set(error, STATUS_INVALID, ".npy version %u is not known", version);
    uint64_t size = bytes.data[8] | (uint64_t)bytes.data[9] << 8;
    if (version > 1)
        size |= (uint64_t)bytes.data[10] << 16 | (uint64_t)bytes.data[11] << 24;
    if (size > bytes.len - prefix)
        return error_set(error, STATUS_INVALID, "the header is cut off");

    struct str header = {(const char *)bytes.data + prefix, size};
    struct str type = header_value(header, STR("'descr'"));
    struct npy npy = {0};
    if (str_starts_with(type, STR("'<f4'")))
        npy.value_size = 4;
    else if (str_starts_with(type, STR("'<f8'")))
        npy.value_size = 8;
    else
        return error_set(error, STATUS_INVALID,
                         "values must be little-endian float32 or float64 ('<f4', '<f8')");
    if (!str_starts_with(header_value(header, STR("'fortran_order'")), STR("False")))
        return error_set(error, STATUS_INVALID, "the matrix must lie row by row (C order)");
    uint64_t columns = 0;
    if (!parse_shape(header_value(header, STR("'shape'")), &npy.row_count, &columns))
        return error_set(error, STATUS_INVALID, "the shape must be (rows, columns)");
    if (columns == 0 || columns > LIMIT_DIMENSION_MAX)
        return error_set(error, STATUS_INVALID, "%llu columns; a vector has 1 to %d",
                         (unsigned long long)columns, LIMIT_DIMENSION_MAX);
    npy.column_count = (uint32_t)columns;
    size_t room = bytes.len - prefix - size;
    if (npy.row_count > room / npy.value_size / columns)
        return error_set(error, STATUS_INVALID, "the file is shorter than its shape says");
    npy.values = bytes.data + prefix + size;
    *out_npy = npy;
    return STATUS_OK;
}

enum status npy_open(const char *path, struct error *error, struct npy *out_npy)
{
    struct stat info;
    struct npy npy = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0) {
        enum status status =
            error_set(error, STATUS_IO, "open %s: %s", path, strerrordesc_np(errno));
        if (file >= 0)
            (void)close(file); // it was only read
        return status;
    }
    void *map = info.st_size == 0
                    ? MAP_FAILED
                    : mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    (void)close(file); // the map stays
    if (map == MAP_FAILED)
        return error_set(error, STATUS_INVALID, "%s: not a .npy file", path);
    enum status status = npy_decode_header((struct span){map, (size_t)info.st_size}, error, &npy);
    if (status != STATUS_OK) {
        (void)munmap(map, (size_t)info.st_size);
        return error_prefix(error, status, "%s", path);
    }
    npy.map = map;
    npy.map_size = (size_t)info.st_size;
    *out_npy = npy;
    return STATUS_OK;
}

void npy_close(struct npy *npy)
{
    if (npy->map != NULL)
        (void)munmap(npy->map, npy->map_size);
    *npy = (struct npy){0};
}

void npy_row(const struct npy *npy, uint64_t row, float *out_values)
{
    const uint8_t *start = npy->values + row * npy->column_count * npy->value_size;
    if (npy->value_size == sizeof(float)) {
        memcpy(out_values, start, npy->column_count * sizeof(float));
        return;
    }
    for (uint32_t i = 0; i < npy->column_count; i++) {
        double value;
        memcpy(&value, start + i * sizeof(double), sizeof(value));
        out_values[i] = (float)value;
    }
}
