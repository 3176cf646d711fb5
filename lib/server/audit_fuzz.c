#include <string.h>

#include "base/assert.h"
#include "server/audit_internal.h"

// The bytes as a line of an audit log, and as the texts of an event, which must come back.

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char hash[AUDIT_HASH_SIZE + 1];
    struct audit_event event = {.sequence = size};
    struct str rest = {(const char *)data, size};
    struct str previous = {0};
    struct error error = {0};
    struct buf line;
    (void)audit_line_decode(rest, &error, &event, &previous); // either way is fine
    event = (struct audit_event){.sequence = size};
    event.who = str_cut(&rest, '\0');
    event.what = str_cut(&rest, '\0');
    event.target = rest;
    buf_init(&line, 4096);
    audit_line_encode(&line, &event, "", hash);
    struct span bytes = buf_span(&line);
    ASSERT(!buf_has_overflowed(&line) && bytes.data[bytes.len - 1] == '\n');
    ASSERT(memchr(bytes.data, '\n', bytes.len - 1) == NULL);
    ASSERT(audit_line_decode((struct str){(const char *)bytes.data, bytes.len - 1}, &error, &event,
                             &previous) == STATUS_OK);
    ASSERT(event.sequence == size && str_equal_cstr(event.hash, hash));
    buf_deinit(&line);
    return 0;
}
