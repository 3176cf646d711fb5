#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "replica/directory.h"
#include "replica/wal_internal.h"

// Reading the log at the start. The oldest segment that is left may begin anywhere in a group's
// history: entries of older ones are not known then, and by the end of the log each of them has
// been ended or copied, or something is missing. A segment's state of all groups may also have gone
// over into the next segment: a group without a state takes whatever comes.

#define SEGMENT_READ_MAX ((size_t)1 << 31)
#define PREFIX           "wal-"

static bool has_state(const struct wal_group *group)
{
    return group->snapshot_segment != 0;
}

// --- Records

static bool take_entry(struct wal_group *group, const struct wal_record *record,
                       const struct wal_place *place)
{
    uint64_t index = record->index;
    if (index == 0)
        return false;
    if (!has_state(group) && (group->count == 0 || index < group->first_index)) {
        wal_group_cut_back(group, 0);
        group->first_index = index;
    }
    if (!has_state(group) && !wal_group_cover(group, group->first_index, index - 1))
        return false;
    if (has_state(group) && index <= group->snapshot_index)
        return false;
    if (index < group->first_index || index > wal_group_last_index(group) + 1)
        return false;
    wal_group_cut_back(group, index - 1);
    wal_group_push(group, place);
    return true;
}

static bool take_copy(struct wal_group *group, const struct wal_record *record,
                      const struct wal_place *place)
{
    if (record->index == 0 ||
        (!has_state(group) && !wal_group_cover(group, record->index, record->index)))
        return false;
    const struct wal_place *held = wal_group_place(group, record->index);
    if (held == NULL || (held->segment != 0 && held->term != record->term))
        return false;
    wal_group_set(group, record->index, place);
    return true;
}

static bool take_snapshot(struct wal_group *group, const struct wal_record *record,
                          uint32_t segment)
{
    struct wal_snapshot snapshot;
    if (!wal_snapshot_decode(record, &snapshot) || snapshot.configuration.len > WAL_DATA_SIZE_MAX)
        return false;
    if (has_state(group) && record->index < group->snapshot_index)
        return false;
    // What the group has is a part of that, unless its beginning is not known.
    bool is_part = group->count > 0 && wal_group_last_index(group) >= snapshot.first_index;
    if (is_part) {
        wal_group_cut_front(group, snapshot.first_index);
        wal_group_cut_back(group, snapshot.last_index);
    } else {
        wal_group_cut_back(group, 0);
        group->first_index = snapshot.first_index;
    }
    if (snapshot.last_index >= snapshot.first_index &&
        !wal_group_cover(group, snapshot.first_index, snapshot.last_index))
        return false;
    if (group->first_index != snapshot.first_index ||
        wal_group_last_index(group) != snapshot.last_index)
        return false;
    wal_group_set_snapshot(group, record->index, record->term, &snapshot, segment);
    return true;
}

// False: no such record can be there.
static bool take_record(struct wal *wal, const struct wal_record *record, uint32_t segment,
                        size_t offset)
{
    struct wal_group *group = wal_find(wal, record->group_id);
    if (record->kind == WAL_END)
        return true;
    if (record->kind == WAL_REMOVE) {
        if (group != NULL)
            wal_group_destroy(group);
        return true;
    }
    if (group == NULL)
        group = wal_group_create(wal, record->group_id);
    struct wal_place place = {record->term, segment, (uint32_t)offset, (uint32_t)record->data.len,
                              record->entry_kind};
    switch (record->kind) {
    case WAL_ENTRY:
        return take_entry(group, record, &place);
    case WAL_COPY:
        return take_copy(group, record, &place);
    case WAL_VOTE:
        wal_group_set_vote(group, record->term, record->index, segment);
        return true;
    case WAL_SNAPSHOT:
        return take_snapshot(group, record, segment);
    default:
        return false;
    }
}

// --- Segments

struct recovery {
    uint64_t number; // of the segment that is being read
    struct buf bytes;
    bool has_ended;            // the segment before says that it is complete
    bool is_torn;              // or ends with bytes that never counted
    struct wal_segment *spare; // behind the one that is written to
    uint64_t surplus_count;    // behind that
    uint64_t left_over;        // a file on its way to be another segment; 0: none
};

static enum status damaged(struct error *error, const struct wal_reader *reader, const char *what)
{
    return error_set(error, STATUS_CORRUPT, "byte %zu: %s", reader->offset, what);
}

static enum status take_records(struct wal *wal, struct recovery *recovery,
                                struct wal_segment *segment, struct error *error)
{
    struct wal_reader reader;
    TRY(wal_reader_init(&reader, buf_span(&recovery->bytes), error));
    struct wal_record record;
    enum wal_read result = WAL_READ_CLEAN;
    size_t offset = reader.offset;
    recovery->has_ended = false;
    recovery->is_torn = false;
    while (!recovery->has_ended &&
           (result = wal_reader_next(&reader, &record)) == WAL_READ_RECORD) {
        if (!take_record(wal, &record, (uint32_t)segment->header.number, offset)) {
            reader.offset = offset;
            return damaged(error, &reader, "a record that does not follow from those before it");
        }
        recovery->has_ended = record.kind == WAL_END;
        offset = reader.offset;
    }
    segment->used = reader.offset;
    segment->synced = reader.offset;
    if (result == WAL_READ_CORRUPT)
        return damaged(error, &reader, "damaged, and what follows says that it had been synced");
    recovery->is_torn = result == WAL_READ_TORN;
    return STATUS_OK;
}

// Segments behind one that is not complete were never written to, or that one is damaged. There are
// some when the log went from one to the next more than once since the last flush.
static enum status take_spare(struct wal *wal, struct recovery *recovery,
                              struct wal_segment *segment, struct error *error)
{
    const struct wal_segment *last = wal->segments[wal->segment_count - 1];
    struct wal_reader reader;
    TRY(wal_reader_init(&reader, buf_span(&recovery->bytes), error));
    if (wal_reader_find(&reader, 0)) {
        char name[WAL_NAME_SIZE];
        wal_name(last->header.number, name);
        return error_set(error, STATUS_CORRUPT,
                         "%s: byte %zu: damaged, a later segment has records", name, last->used);
    }
    if (recovery->spare == NULL) {
        recovery->spare = segment;
    } else {
        recovery->surplus_count++;
        wal_segment_destroy(segment);
    }
    return STATUS_OK;
}

static enum status read_segment(struct wal *wal, struct recovery *recovery, bool is_oldest,
                                struct error *error)
{
    struct wal_segment *segment = NULL;
    buf_clear(&recovery->bytes);
    TRY(wal_segment_open(wal->writer.directory_fd, recovery->number, error, &recovery->bytes,
                         &segment));
    enum status status = STATUS_OK;
    if (segment->header.number != recovery->number || segment->header.number > UINT32_MAX - 2) {
        if (is_oldest)
            recovery->left_over = recovery->number;
        else
            status = error_set(error, STATUS_CORRUPT, "byte 16: the number is %" PRIu64,
                               segment->header.number);
        wal_segment_destroy(segment);
    } else if (wal->segment_count > 0 && !recovery->has_ended) {
        status = take_spare(wal, recovery, segment, error);
        if (status != STATUS_OK)
            wal_segment_destroy(segment);
        return status; // which names the file
    } else {
        wal_push_segment(wal, segment);
        status = take_records(wal, recovery, segment, error);
    }
    if (status != STATUS_OK) {
        char name[WAL_NAME_SIZE];
        wal_name(recovery->number, name);
        status = error_prefix(error, status, "%s", name);
    }
    return status;
}

static enum status missing_segment(struct error *error, uint64_t number)
{
    char name[WAL_NAME_SIZE];
    wal_name(number, name);
    return error_set(error, STATUS_CORRUPT, "%s is missing", name);
}

static enum status read_segments(struct wal *wal, struct recovery *recovery,
                                 const uint64_t *numbers, size_t count, struct error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && numbers[i] != numbers[i - 1] + 1)
            return missing_segment(error, numbers[i - 1] + 1);
        recovery->number = numbers[i];
        TRY(read_segment(wal, recovery, i == 0, error));
    }
    if (recovery->has_ended)
        return missing_segment(error, numbers[count - 1] + 1);
    return STATUS_OK;
}

// --- The whole

static enum status check_group(const struct wal_group *group, struct error *error)
{
    if (!has_state(group))
        return error_set(error, STATUS_CORRUPT, "the state of group %" PRIu64 " is missing",
                         group->id);
    for (size_t i = 0; i < group->count; i++) {
        if (group->places[group->start + i].segment == 0)
            return error_set(error, STATUS_CORRUPT,
                             "entry %" PRIu64 " of group %" PRIu64 " is missing",
                             group->first_index + i, group->id);
    }
    return STATUS_OK;
}

// Without a gap at any time.
static enum status remove_surplus(struct wal *wal, const struct recovery *recovery,
                                  struct error *error)
{
    for (uint64_t i = recovery->surplus_count; i > 0; i--) {
        char name[WAL_NAME_SIZE];
        wal_name(recovery->spare->header.number + i, name);
        TRY(directory_remove_file(wal->writer.directory_fd, name, error));
        TRY(directory_sync(wal->writer.directory_fd, error));
    }
    return STATUS_OK;
}

// Also what was written but not synced before the stop counts from now on. When the last segment is
// empty the one before it may be such; what comes earlier was synced before that got its first
// byte.
static enum status sync_end(const struct wal *wal, struct error *error)
{
    for (size_t i = wal->segment_count > 1 ? wal->segment_count - 2 : 0; i < wal->segment_count;
         i++) {
        // Files are closed oldest first, never these two.
        ASSERT(wal->segments[i]->fd >= 0);
        if (wal->writer.files->sync(wal->segments[i]->fd) != 0)
            return error_set(error, STATUS_IO, "sync: %s", error_system_text(errno));
    }
    return STATUS_OK;
}

static enum status settle(struct wal *wal, struct recovery *recovery, struct error *error)
{
    if (wal->segment_count == 0 && recovery->left_over != 0)
        return missing_segment(error, recovery->left_over + 1);
    if (wal->segment_count == 0) {
        struct wal_segment *segment = NULL;
        TRY(wal_segment_create(&wal->writer, 1, wal->segment_size, error, &segment));
        wal_push_segment(wal, segment);
    }
    size_t position = 0;
    struct str key;
    void *value;
    while (map_next(wal->groups, &position, &key, &value))
        TRY(check_group(value, error));
    const struct wal_segment *last = wal->segments[wal->segment_count - 1];
    if (recovery->is_torn)
        TRY(wal_segment_wipe(&wal->writer, last, last->used, error));
    TRY(sync_end(wal, error));
    if (recovery->left_over != 0) {
        char name[WAL_NAME_SIZE];
        wal_name(recovery->left_over, name);
        TRY(directory_remove_file(wal->writer.directory_fd, name, error));
    }
    // A process may have ended between a file's new name and this.
    TRY(directory_sync(wal->writer.directory_fd, error));
    TRY(remove_surplus(wal, recovery, error));
    wal->writer.spare = recovery->spare;
    recovery->spare = NULL;
    wal->writer.spare_state = wal->writer.spare == NULL ? WAL_SPARE_WANTED : WAL_SPARE_READY;
    wal->writer.spare_number = last->header.number + 1;
    wal->writer.spare_size = wal_segment_size_wanted(wal);
    return STATUS_OK;
}

enum status wal_recover(struct wal *wal, struct error *error)
{
    uint64_t *numbers = NULL;
    size_t count = 0;
    TRY(directory_list_numbers(wal->writer.directory_fd, PREFIX, error, &numbers, &count));
    struct recovery recovery = {0};
    buf_init(&recovery.bytes, SEGMENT_READ_MAX);
    enum status status = STATUS_OK;
    if (count > 0)
        status = read_segments(wal, &recovery, numbers, count, error);
    if (status == STATUS_OK)
        status = settle(wal, &recovery, error);
    buf_deinit(&recovery.bytes);
    wal_segment_destroy(recovery.spare);
    mem_free(numbers);
    return status;
}
