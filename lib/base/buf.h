#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// A growing run of bytes with a maximum. When an append would pass the maximum nothing is appended
// and the buffer remembers it: check buf_has_overflowed once, at the end. One thread. A struct buf
// is visible so that it can be embedded; touch it through these functions only.

struct buf {
    uint8_t *data;
    size_t len;
    size_t capacity;
    size_t size_max;
    bool has_overflowed;
};

void buf_init(struct buf *buf, size_t size_max);
void buf_deinit(struct buf *buf);
void buf_clear(struct buf *buf);                // keeps the memory
void buf_consume(struct buf *buf, size_t size); // drop size bytes from the front
bool buf_has_overflowed(const struct buf *buf);

void buf_append(struct buf *buf, const void *data, size_t size);
void buf_append_str(struct buf *buf, struct str str);
void buf_append_cstr(struct buf *buf, const char *cstr);
void buf_append_byte(struct buf *buf, uint8_t byte);
void buf_append_format(struct buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void buf_append_u32(struct buf *buf, uint32_t value); // little-endian
void buf_append_u64(struct buf *buf, uint64_t value); // little-endian

// Room for size more bytes at the end, then buf_commit what was written. NULL: over the maximum.
uint8_t *buf_reserve(struct buf *buf, size_t size);
void buf_commit(struct buf *buf, size_t size);

struct span buf_span(const struct buf *buf); // borrowed until the next change
struct str buf_str(const struct buf *buf);   // borrowed until the next change
uint8_t *buf_detach(struct buf *buf);        // the caller frees it with mem_free; buf is empty
