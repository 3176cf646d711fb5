#include <string.h>

#include "api/wire_internal.h"

enum {
    VARINT_SIZE_MAX = 10,
    GROUP_DEPTH_MAX = 100,
};

static const char past_end[] = "length runs past its message";

uint64_t wire_load_u64(const uint8_t *bytes)
{
    return (uint64_t)wire_load_u32(bytes) | (uint64_t)wire_load_u32(bytes + 4) << 32;
}

uint32_t wire_load_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

const char *wire_read_varint(struct wire *wire, uint64_t *out_value)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < VARINT_SIZE_MAX; i++) {
        if (wire->at == wire->end)
            return "a number is cut off";
        uint8_t byte = *wire->at++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            if (i == VARINT_SIZE_MAX - 1 && byte > 1)
                return "a number has more than 64 bits";
            *out_value = value;
            return NULL;
        }
    }
    return "a number has more than 64 bits";
}

static const char *read_tag(struct wire *wire, uint32_t *out_number, unsigned *out_type)
{
    uint64_t tag = 0;
    const char *problem = wire_read_varint(wire, &tag);
    if (problem != NULL)
        return problem;
    if (tag > UINT32_MAX || tag >> 3 == 0)
        return "a field's number is out of range";
    *out_number = (uint32_t)(tag >> 3);
    *out_type = (unsigned)(tag & 7);
    return NULL;
}

static const char *read_fixed(struct wire *wire, size_t size, uint64_t *out_value)
{
    if ((size_t)(wire->end - wire->at) < size)
        return "a number is cut off";
    *out_value = size == 4 ? wire_load_u32(wire->at) : wire_load_u64(wire->at);
    wire->at += size;
    return NULL;
}

static const char *read_bytes(struct wire *wire, struct span *out_bytes)
{
    uint64_t len = 0;
    const char *problem = wire_read_varint(wire, &len);
    if (problem != NULL)
        return problem;
    if (len > (uint64_t)(wire->end - wire->at))
        return past_end;
    *out_bytes = (struct span){wire->at, (size_t)len};
    wire->at += len;
    return NULL;
}

static const char *read_value(struct wire *wire, unsigned type, struct wire_field *field)
{
    switch (type) {
    case WIRE_VARINT:
        return wire_read_varint(wire, &field->value);
    case WIRE_FIXED64:
        return read_fixed(wire, 8, &field->value);
    case WIRE_BYTES:
        return read_bytes(wire, &field->bytes);
    case WIRE_FIXED32:
        return read_fixed(wire, 4, &field->value);
    case WIRE_GROUP:
        return NULL;
    case WIRE_GROUP_END:
        return "a group ends that did not begin";
    default:
        return "an unknown wire type";
    }
}

const char *wire_read_field(struct wire *wire, struct wire_field *out_field)
{
    unsigned type = 0;
    const char *problem = read_tag(wire, &out_field->number, &type);
    if (problem == NULL)
        problem = read_value(wire, type, out_field);
    out_field->type = (enum wire_type)type;
    return problem;
}

const char *wire_skip_group(struct wire *wire, uint32_t number)
{
    uint32_t open[GROUP_DEPTH_MAX];
    size_t depth = 0;
    open[depth++] = number;
    while (depth > 0) {
        struct wire_field field = {0};
        unsigned type = 0;
        const char *problem = read_tag(wire, &field.number, &type);
        if (problem != NULL)
            return problem;
        if (type == WIRE_GROUP_END) {
            if (field.number != open[--depth])
                return "a group ends that did not begin";
            continue;
        }
        problem = read_value(wire, type, &field);
        if (problem != NULL)
            return problem;
        if (type != WIRE_GROUP)
            continue;
        if (depth == GROUP_DEPTH_MAX)
            return "groups are nested too deep";
        open[depth++] = field.number;
    }
    return NULL;
}
