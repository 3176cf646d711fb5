#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

enum { CAPACITY_MIN = 64 };

void buf_init(struct buf *buf, size_t size_max)
{
    *buf = (struct buf){.size_max = size_max};
}

void buf_deinit(struct buf *buf)
{
    mem_free(buf->data);
    *buf = (struct buf){.size_max = buf->size_max};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->has_overflowed = false;
}

void buf_consume(struct buf *buf, size_t size)
{
    ASSERT(size <= buf->len);
    buf->len -= size;
    if (size > 0 && buf->len > 0)
        memmove(buf->data, buf->data + size, buf->len);
}

bool buf_has_overflowed(const struct buf *buf)
{
    return buf->has_overflowed;
}

// Room for size more. The allocation has one byte more than the capacity, for the NUL of printf.
static bool grow(struct buf *buf, size_t size)
{
    if (buf->has_overflowed || buf->len > buf->size_max || size > buf->size_max - buf->len) {
        buf->has_overflowed = true;
        return false;
    }
    size_t needed = buf->len + size;
    if (needed <= buf->capacity && buf->data != NULL)
        return true;

    size_t capacity = buf->capacity > buf->size_max / 2 ? buf->size_max : buf->capacity * 2;
    if (capacity < CAPACITY_MIN)
        capacity = CAPACITY_MIN;
    if (capacity < needed)
        capacity = needed;
    uint8_t *data = capacity == SIZE_MAX ? NULL : mem_try_resize(buf->data, capacity + 1);
    if (data == NULL) {
        buf->has_overflowed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    if (size == 0 || !grow(buf, size))
        return;
    memcpy(buf->data + buf->len, data, size);
    buf->len += size;
}

void buf_append_str(struct buf *buf, struct str str)
{
    buf_append(buf, str.data, str.len);
}

void buf_append_cstr(struct buf *buf, const char *cstr)
{
    buf_append_str(buf, str_from_cstr(cstr));
}

void buf_append_byte(struct buf *buf, uint8_t byte)
{
    if (grow(buf, 1))
        buf->data[buf->len++] = byte;
}

void buf_append_format(struct buf *buf, const char *format, ...)
{
    if (!grow(buf, 0))
        return;
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    size_t room = buf->capacity - buf->len;
    int len = vsnprintf((char *)buf->data + buf->len, room + 1, format, arguments);
    va_end(arguments);
    ASSERT(len >= 0);
    if ((size_t)len > room) {
        if (!grow(buf, (size_t)len)) {
            va_end(again);
            return;
        }
        (void)vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, format, again); // measured
    }
    va_end(again);
    buf->len += (size_t)len;
}

void buf_append_u32(struct buf *buf, uint32_t value)
{
    uint8_t bytes[4];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    buf_append(buf, bytes, sizeof(bytes));
}

void buf_append_u64(struct buf *buf, uint64_t value)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    buf_append(buf, bytes, sizeof(bytes));
}

uint8_t *buf_reserve(struct buf *buf, size_t size)
{
    return grow(buf, size) ? buf->data + buf->len : NULL;
}

void buf_commit(struct buf *buf, size_t size)
{
    ASSERT(size <= buf->capacity - buf->len);
    buf->len += size;
}

struct span buf_span(const struct buf *buf)
{
    return (struct span){buf->data, buf->len};
}

struct str buf_str(const struct buf *buf)
{
    return (struct str){(const char *)buf->data, buf->len};
}

uint8_t *buf_detach(struct buf *buf)
{
    uint8_t *data = buf->data;
    *buf = (struct buf){.size_max = buf->size_max};
    return data;
}
