#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/hmac.h"
#include "server/audit_internal.h"

// {"seq":1,"time":1700000000000,"who":"","what":"","target":"","from":"","result":"","prev":"…",
// "hash":"…"}: always these members in this order, without escapes, so that there is one way to
// write an event and the hash is that of the bytes. hash is the HMAC-SHA256 of the line up to
// `,"hash"`, keyed with prev as it stands there; the first prev of a chain is 64 zeros.

enum { LINE_SIZE_MAX = 2048, READ_SIZE = 64 << 10 };

static const char no_hash[] = "0000000000000000000000000000000000000000000000000000000000000000";

// --- Writing

static void append_text(struct buf *out, const char *name, struct str text)
{
    buf_append_cstr(out, ",\"");
    buf_append_cstr(out, name);
    buf_append_cstr(out, "\":\"");
    for (size_t i = 0; i < text.len && i < AUDIT_TEXT_SIZE_MAX; i++) {
        char c = text.data[i];
        bool is_plain = c >= ' ' && c < 0x7f && c != '"' && c != '\\';
        buf_append_byte(out, (uint8_t)(is_plain ? c : '?'));
    }
    buf_append_byte(out, '"');
}

void audit_line_encode(struct buf *out, const struct audit_event *event, const char *previous_hash,
                       char out_hash[static AUDIT_HASH_SIZE + 1])
{
    size_t start = buf_span(out).len;
    const char *previous = previous_hash[0] != '\0' ? previous_hash : no_hash;
    buf_append_format(out, "{\"seq\":%llu,\"time\":%llu", (unsigned long long)event->sequence,
                      (unsigned long long)event->time_unix_ms);
    append_text(out, "who", event->who);
    append_text(out, "what", event->what);
    append_text(out, "target", event->target);
    append_text(out, "from", event->from);
    append_text(out, "result", event->result);
    append_text(out, "prev", str_from_cstr(previous));
    struct span all = buf_span(out);
    hmac_sha256_hex(str_span(str_from_cstr(previous)),
                    (struct span){all.data + start, all.len - start}, out_hash);
    append_text(out, "hash", str_from_cstr(out_hash));
    buf_append_cstr(out, "}\n");
}

// --- Reading

static bool take(struct str *rest, const char *text)
{
    struct str wanted = str_from_cstr(text);
    if (!str_starts_with(*rest, wanted))
        return false;
    rest->data += wanted.len;
    rest->len -= wanted.len;
    return true;
}

static bool take_number(struct str *rest, uint64_t *out_number)
{
    size_t len = 0;
    while (len < rest->len && rest->data[len] >= '0' && rest->data[len] <= '9')
        len++;
    struct str digits = {rest->data, len};
    rest->data += len;
    rest->len -= len;
    return str_to_u64(digits, out_number);
}

static bool take_text(struct str *rest, const char *start, struct str *out_text)
{
    if (!take(rest, start))
        return false;
    size_t len = 0;
    while (len < rest->len && rest->data[len] != '"' && rest->data[len] != '\\')
        len++;
    *out_text = (struct str){rest->data, len};
    rest->data += len;
    rest->len -= len;
    return len <= AUDIT_TEXT_SIZE_MAX && take(rest, "\"");
}

enum status audit_line_decode(struct str line, struct error *error, struct audit_event *out_event,
                              struct str *out_previous_hash)
{
    struct audit_event event = {0};
    struct str previous = {0};
    struct str rest = line;
    char hash[AUDIT_HASH_SIZE + 1];
    bool is_fine = take(&rest, "{\"seq\":") && take_number(&rest, &event.sequence) &&
                   take(&rest, ",\"time\":") && take_number(&rest, &event.time_unix_ms) &&
                   take_text(&rest, ",\"who\":\"", &event.who) &&
                   take_text(&rest, ",\"what\":\"", &event.what) &&
                   take_text(&rest, ",\"target\":\"", &event.target) &&
                   take_text(&rest, ",\"from\":\"", &event.from) &&
                   take_text(&rest, ",\"result\":\"", &event.result) &&
                   take_text(&rest, ",\"prev\":\"", &previous);
    size_t hashed_len = line.len - rest.len;
    is_fine = is_fine && take_text(&rest, ",\"hash\":\"", &event.hash) && str_equal_cstr(rest, "}");
    if (!is_fine || previous.len != AUDIT_HASH_SIZE)
        return error_set(error, STATUS_CORRUPT, "not a line of an audit log");
    hmac_sha256_hex(str_span(previous), str_span((struct str){line.data, hashed_len}), hash);
    if (!str_equal_cstr(event.hash, hash))
        return error_set(error, STATUS_CORRUPT, "event %llu was changed: its hash is another",
                         (unsigned long long)event.sequence);
    *out_event = event;
    *out_previous_hash = previous;
    return STATUS_OK;
}

// --- Files

struct reader {
    struct audit_lines *lines;
    struct error *error;
    uint64_t number;
    char *text; // READ_SIZE bytes
    size_t len;
};

// Hands out the whole lines that are there and keeps the rest.
static enum status hand_out(struct reader *reader)
{
    size_t at = 0;
    for (;;) {
        char *end = memchr(reader->text + at, '\n', reader->len - at);
        if (end == NULL)
            break;
        struct str line = {reader->text + at, (size_t)(end - reader->text) - at};
        TRY(reader->lines->each(line, ++reader->number, reader->lines->context, reader->error));
        at += line.len + 1;
        reader->lines->tail_offset += line.len + 1;
    }
    if (reader->len - at > LINE_SIZE_MAX)
        return error_set(reader->error, STATUS_CORRUPT, "line %llu is too long",
                         (unsigned long long)reader->number + 1);
    memmove(reader->text, reader->text + at, reader->len - at);
    reader->len -= at;
    return STATUS_OK;
}

static enum status read_all(struct reader *reader, int file, const char *path)
{
    for (;;) {
        ssize_t got = read(file, reader->text + reader->len, READ_SIZE - reader->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(reader->error, STATUS_IO, "cannot read %s: %s", path,
                             error_system_text(errno));
        if (got == 0)
            return STATUS_OK;
        reader->len += (size_t)got;
        reader->lines->size += (uint64_t)got;
        TRY(hand_out(reader));
    }
}

enum status audit_read_lines(const char *path, struct audit_lines *lines, struct error *error)
{
    lines->tail_offset = 0;
    lines->size = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_set(error, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                         "cannot open %s: %s", path, error_system_text(errno));
    struct reader reader = {.lines = lines, .error = error, .text = mem_alloc(READ_SIZE)};
    enum status status = read_all(&reader, file, path);
    mem_free(reader.text);
    (void)close(file); // was only read
    return status;
}

static enum status check_line(struct str line, uint64_t number, void *context, struct error *error)
{
    struct audit_chain *chain = context;
    struct audit_event event = {0};
    struct str previous = {0};
    enum status status = audit_line_decode(line, error, &event, &previous);
    if (status != STATUS_OK)
        return error_prefix(error, status, "line %llu", (unsigned long long)number);
    bool is_first = chain->hash[0] == '\0';
    if (!is_first && event.sequence != chain->sequence + 1)
        return error_set(error, STATUS_CORRUPT, "line %llu: event %llu follows event %llu",
                         (unsigned long long)number, (unsigned long long)event.sequence,
                         (unsigned long long)chain->sequence);
    if (!is_first && !str_equal_cstr(previous, chain->hash))
        return error_set(error, STATUS_CORRUPT,
                         "line %llu: event %llu does not follow what stands before it",
                         (unsigned long long)number, (unsigned long long)event.sequence);
    chain->sequence = event.sequence;
    chain->count++;
    memcpy(chain->hash, event.hash.data, AUDIT_HASH_SIZE);
    chain->hash[AUDIT_HASH_SIZE] = '\0';
    return STATUS_OK;
}

enum status audit_check_file(const char *path, struct audit_chain *chain, struct error *error)
{
    struct audit_lines lines = {.each = check_line, .context = chain};
    TRY(audit_read_lines(path, &lines, error));
    if (lines.tail_offset != lines.size)
        return error_set(error, STATUS_CORRUPT, "the last line is cut");
    return STATUS_OK;
}
