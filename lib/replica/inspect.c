#include "replica/inspect.h"

#include <raft.h>
#include <string.h>

#include "base/mem.h"
#include "replica/wal_format.h"

enum { GROUPS_MAX = 4096 };

// What a segment has of one group.
struct group_summary {
    uint64_t group_id;
    uint64_t entry_count;
    uint64_t first_index;
    uint64_t last_index;
    uint64_t term; // of the last vote
    uint64_t snapshot_index;
    bool is_removed;
};

struct summary {
    struct group_summary groups[GROUPS_MAX];
    uint32_t count;
};

bool log_segment_is(struct span bytes)
{
    return bytes.len >= 8 && memcmp(bytes.data, "VECTRWAL", 8) == 0;
}

static const char *entry_name(uint8_t kind)
{
    switch (kind) {
    case RAFT_COMMAND:
        return "command";
    case RAFT_BARRIER:
        return "barrier";
    case RAFT_CHANGE:
        return "members";
    default:
        return "unknown";
    }
}

static const char *record_name(enum wal_kind kind)
{
    switch (kind) {
    case WAL_ENTRY:
        return "entry";
    case WAL_COPY:
        return "copy";
    case WAL_VOTE:
        return "vote";
    case WAL_SNAPSHOT:
        return "snapshot";
    case WAL_REMOVE:
        return "removed";
    case WAL_END:
        return "end";
    }
    return "unknown";
}

// NULL: there are too many groups.
static struct group_summary *summary_of(struct summary *summary, uint64_t group_id)
{
    for (uint32_t i = 0; i < summary->count; i++) {
        if (summary->groups[i].group_id == group_id)
            return &summary->groups[i];
    }
    if (summary->count == GROUPS_MAX)
        return NULL;
    struct group_summary *added = &summary->groups[summary->count++];
    *added = (struct group_summary){.group_id = group_id};
    return added;
}

static void count_record(struct summary *summary, const struct wal_record *record)
{
    struct group_summary *group =
        record->kind == WAL_END ? NULL : summary_of(summary, record->group_id);
    if (group == NULL)
        return;
    if (record->kind == WAL_ENTRY || record->kind == WAL_COPY) {
        if (group->entry_count == 0 || record->index < group->first_index)
            group->first_index = record->index;
        group->entry_count++;
        group->last_index = record->index;
    } else if (record->kind == WAL_VOTE) {
        group->term = record->term;
    } else if (record->kind == WAL_SNAPSHOT) {
        group->snapshot_index = record->index;
    } else {
        group->is_removed = true;
    }
}

static void print_record(const struct wal_record *record, size_t offset, struct buf *out)
{
    buf_append_format(out, "  byte %zu  %s", offset, record_name(record->kind));
    if (record->kind != WAL_END)
        buf_append_format(out, " group %llu index %llu term %llu",
                          (unsigned long long)record->group_id, (unsigned long long)record->index,
                          (unsigned long long)record->term);
    if (record->kind == WAL_ENTRY || record->kind == WAL_COPY)
        buf_append_format(out, " %s, %zu bytes", entry_name(record->entry_kind), record->data.len);
    buf_append_byte(out, '\n');
}

static void print_groups(const struct summary *summary, struct buf *out)
{
    for (uint32_t i = 0; i < summary->count; i++) {
        const struct group_summary *group = &summary->groups[i];
        buf_append_format(out, "  group %llu: term %llu, snapshot up to %llu",
                          (unsigned long long)group->group_id, (unsigned long long)group->term,
                          (unsigned long long)group->snapshot_index);
        if (group->entry_count > 0)
            buf_append_format(
                out, ", %llu entries from %llu to %llu", (unsigned long long)group->entry_count,
                (unsigned long long)group->first_index, (unsigned long long)group->last_index);
        buf_append_cstr(out, group->is_removed ? ", removed\n" : "\n");
    }
}

enum status log_segment_inspect(struct span bytes, bool has_records, struct buf *out,
                                struct error *error)
{
    struct wal_reader reader;
    struct wal_record record;
    TRY(wal_reader_init(&reader, bytes, error));
    struct summary *summary = mem_alloc(sizeof(*summary));
    enum wal_read result;
    uint64_t count = 0;
    size_t offset = reader.offset;
    while ((result = wal_reader_next(&reader, &record)) == WAL_READ_RECORD) {
        if (has_records)
            print_record(&record, offset, out);
        count_record(summary, &record);
        count++;
        offset = reader.offset;
    }
    buf_append_format(out, "segment %llu of the log: %llu records in %zu of %zu bytes\n",
                      (unsigned long long)reader.header.number, (unsigned long long)count, offset,
                      bytes.len);
    print_groups(summary, out);
    mem_free(summary);
    if (result == WAL_READ_TORN)
        buf_append_format(out, "  a torn tail from byte %zu on, which was never acknowledged\n",
                          offset);
    return result == WAL_READ_CORRUPT
               ? error_set(error, STATUS_CORRUPT,
                           "damaged at byte %zu; what follows was acknowledged", offset)
               : STATUS_OK;
}
