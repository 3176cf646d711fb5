#include "replica/wal.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "replica/wal_internal.h"

// What the owner calls. A record gets its place in a segment when it is put; its bytes wait in a
// piece until they are flushed, and stay there until they are known to be on disk.

#define SEGMENT_SIZE       ((size_t)4 << 20)
#define LOG_SIZE_MAX       ((size_t)256 << 20)
#define SPARE_SIZE_MAX     ((size_t)1 << 30)
#define SPARE_RETRY_NS     1000000000ULL
#define COPY_SIZE_MIN      ((size_t)256 << 10) // a flush, at least
#define SEGMENT_SIZE_LEAST ((size_t)16 << 10)
enum { OPEN_COUNT_MAX = 8, SEGMENT_COUNT_STEP = 16 };

// --- Segments

struct wal_segment *wal_segment_of(const struct wal *wal, uint32_t number)
{
    if (wal->segment_count == 0 || number == 0)
        return NULL;
    uint64_t position = number - wal->segments[0]->header.number;
    return position < wal->segment_count ? wal->segments[position] : NULL;
}

static struct wal_segment *current(const struct wal *wal)
{
    return wal->segments[wal->segment_count - 1];
}

// Half of a new segment is left when the state of all groups has been written to it.
size_t wal_segment_size_wanted(const struct wal *wal)
{
    size_t size = 2 * wal->head_size + wal->segment_size / 2;
    return size < wal->segment_size ? wal->segment_size : size;
}

// Close what was used least recently, while too many files are open.
static void limit_open_files(struct wal *wal)
{
    while (wal->open_count > OPEN_COUNT_MAX) {
        struct wal_segment *found = NULL;
        for (size_t i = 0; i + 1 < wal->segment_count; i++) {
            struct wal_segment *segment = wal->segments[i];
            bool may_be_closed = segment->fd >= 0 && segment->piece_count == 0;
            if (may_be_closed && (found == NULL || segment->used_at < found->used_at))
                found = segment;
        }
        if (found == NULL)
            break;
        close(found->fd);
        found->fd = -1;
        wal->open_count--;
    }
}

void wal_push_segment(struct wal *wal, struct wal_segment *segment)
{
    if (wal->segment_count % SEGMENT_COUNT_STEP == 0)
        wal->segments = mem_resize(wal->segments, (wal->segment_count + SEGMENT_COUNT_STEP) *
                                                      sizeof(struct wal_segment *));
    wal->segments[wal->segment_count] = segment;
    wal->segment_count++;
    wal->size += segment->size;
    wal->open_count++;
    wal->use_count++;
    segment->used_at = wal->use_count;
    limit_open_files(wal);
}

static void retire_oldest(struct wal *wal)
{
    struct wal_segment *segment = wal->segments[0];
    ASSERT(segment->piece_count == 0 && segment->live_size == 0);
    wal->segment_count--;
    memmove(wal->segments, wal->segments + 1, wal->segment_count * sizeof(struct wal_segment *));
    wal->size -= segment->size;
    if (segment->fd >= 0)
        wal->open_count--;
    wal_writer_retire(&wal->writer, segment);
}

// --- What has been written meanwhile

static void reap_pieces(struct wal *wal, uint64_t written)
{
    while (wal->first_piece != wal->first_open && wal->first_piece->batch <= written) {
        struct wal_piece *piece = wal->first_piece;
        piece->segment->synced = piece->offset + piece->bytes.len;
        piece->segment->piece_count--;
        wal->first_piece = piece->next;
        if (wal->last_flushed == piece)
            wal->last_flushed = NULL;
        if (wal->last_piece == piece)
            wal->last_piece = NULL;
        buf_deinit(&piece->bytes);
        mem_free(piece);
    }
}

// An old segment goes when everything that ended what is in it is on disk.
static void reap(struct wal *wal)
{
    uint64_t written = wal_written(wal);
    if (wal->reaped_batch != written) {
        reap_pieces(wal, written);
        limit_open_files(wal);
        wal->reaped_batch = written;
    }
    uint64_t next_batch = wal->newest_batch + (wal->first_open != NULL);
    for (size_t i = 0; i + 1 < wal->segment_count && wal->segments[i]->pin_count == 0; i++) {
        if (wal->segments[i]->dead_batch == 0)
            wal->segments[i]->dead_batch = next_batch;
    }
    while (wal->segment_count > 1 && wal->segments[0]->pin_count == 0 &&
           wal->segments[0]->dead_batch <= written)
        retire_oldest(wal);
}

// --- Records

static struct wal_piece *open_piece(struct wal *wal, struct wal_segment *segment)
{
    if (wal->first_open != NULL && wal->last_piece->segment == segment)
        return wal->last_piece;
    struct wal_piece *piece = mem_alloc(sizeof(*piece));
    piece->segment = segment;
    piece->offset = segment->used;
    buf_init(&piece->bytes, SIZE_MAX);
    segment->piece_count++;
    if (wal->last_piece == NULL)
        wal->first_piece = piece;
    else
        wal->last_piece->next = piece;
    wal->last_piece = piece;
    if (wal->first_open == NULL)
        wal->first_open = piece;
    return piece;
}

// There is room. Returns where it is.
static struct wal_place append_here(struct wal *wal, struct wal_record *record,
                                    const struct wal_snapshot *snapshot)
{
    struct wal_segment *segment = current(wal);
    struct wal_piece *piece = open_piece(wal, segment);
    record->synced = (uint32_t)segment->synced;
    size_t size = piece->bytes.len;
    wal_record_encode(&segment->header, record, snapshot, &piece->bytes);
    ASSERT(!buf_has_overflowed(&piece->bytes));
    struct wal_place place = {record->term, (uint32_t)segment->header.number,
                              (uint32_t)segment->used, (uint32_t)record->data.len,
                              record->entry_kind};
    segment->used += piece->bytes.len - size;
    return place;
}

// Bytes that can still be put there; there is always room for the record that ends it.
static size_t room_left(const struct wal_segment *segment)
{
    size_t used = segment->used + WAL_RECORD_SIZE;
    return used < segment->size ? segment->size - used : 0;
}

static void begin_segment(struct wal *wal)
{
    struct error error = {{0}};
    struct wal_segment *segment =
        wal_writer_take_spare(&wal->writer, wal_segment_size_wanted(wal), &error);
    if (segment == NULL)
        wal_stop_process("there is no room for the next segment of the log", error.text);
    struct wal_record end = {.kind = WAL_END};
    (void)append_here(wal, &end, NULL); // nobody looks for it
    wal_push_segment(wal, segment);
}

static bool fits(const struct wal *wal, size_t size)
{
    return size <= room_left(current(wal));
}

static void put_snapshot_record(struct wal_group *group)
{
    struct wal *wal = group->wal;
    struct wal_snapshot snapshot = {
        .configuration_index = group->configuration_index,
        .first_index = group->first_index,
        .last_index = wal_group_last_index(group),
        .configuration = buf_span(&group->configuration),
    };
    struct wal_record record = {.kind = WAL_SNAPSHOT,
                                .group_id = group->id,
                                .index = group->snapshot_index,
                                .term = group->snapshot_term};
    struct wal_place place = append_here(wal, &record, &snapshot);
    wal_group_set_snapshot(group, group->snapshot_index, group->snapshot_term, &snapshot,
                           place.segment);
}

static void put_vote_record(struct wal_group *group)
{
    struct wal_record record = {
        .kind = WAL_VOTE, .group_id = group->id, .index = group->voted_for, .term = group->term};
    struct wal_place place = append_here(group->wal, &record, NULL);
    wal_group_set_vote(group, group->term, group->voted_for, place.segment);
}

// The state of a group fits; a group without a vote needs no record of it.
static void put_state(struct wal_group *group)
{
    put_snapshot_record(group);
    if (group->vote_segment != 0)
        put_vote_record(group);
}

// Each segment begins with the state of all groups, so that nothing older is needed for it. When
// they are too many for one segment the rest comes in the next.
static void put_head(struct wal *wal)
{
    size_t position = 0;
    struct str key;
    void *value;
    while (map_next(wal->groups, &position, &key, &value)) {
        struct wal_group *group = value;
        if (!fits(wal, wal_group_state_size(group)))
            begin_segment(wal);
        put_state(group);
    }
}

// Room for a record of this size in the current segment.
static void make_room(struct wal *wal, size_t size)
{
    ASSERT(size <= wal->segment_size / 2);
    reap(wal); // the record shall say as much as is known to be synced
    while (!fits(wal, size)) {
        begin_segment(wal);
        put_head(wal);
    }
}

// --- Copying forward

// The oldest segment that holds something, if copying that is due: what a group that writes little
// has there keeps all later ones. Worth it while more than half of the log is not needed, so that
// each byte is copied for at least one that goes. NULL: not due.
static const struct wal_segment *find_copied(const struct wal *wal)
{
    uint64_t size = wal->size;
    for (size_t i = 0; i + 1 < wal->segment_count; i++) {
        const struct wal_segment *segment = wal->segments[i];
        if (size <= wal->size_max || wal->live_size >= size / 2)
            return NULL;
        if (segment->pin_count > 0)
            return segment->header.number == wal->copy_segment_blocked ? NULL : segment;
        size -= segment->size; // it only waits for what is not on disk yet
    }
    return NULL;
}

static void add_copy(struct wal *wal, uint64_t group_id, uint64_t index)
{
    // Doubles at each power of two.
    if ((wal->copy_count & (wal->copy_count - 1)) == 0)
        wal->copies = mem_resize(wal->copies, (wal->copy_count * 2 + 1) * sizeof(struct wal_copy));
    wal->copies[wal->copy_count] = (struct wal_copy){group_id, index};
    wal->copy_count++;
}

static void list_copies(struct wal *wal, uint64_t number)
{
    wal->copy_segment = number;
    wal->copy_count = 0;
    wal->copy_at = 0;
    size_t position = 0;
    struct str key;
    void *value;
    while (map_next(wal->groups, &position, &key, &value)) {
        const struct wal_group *group = value;
        if (group->snapshot_segment == number || group->vote_segment == number)
            add_copy(wal, group->id, 0);
        for (size_t i = 0; i < group->count; i++) {
            if (group->places[group->start + i].segment == number)
                add_copy(wal, group->id, group->first_index + i);
        }
    }
}

static enum status copy_entry(struct wal_group *group, uint64_t index, struct buf *data,
                              struct error *error)
{
    struct wal *wal = group->wal;
    buf_clear(data);
    TRY(wal_read(group, index, data, error));
    make_room(wal, WAL_RECORD_SIZE + data->len);
    const struct wal_place *held = wal_group_place(group, index);
    struct wal_record record = {.kind = WAL_COPY,
                                .entry_kind = held->kind,
                                .group_id = group->id,
                                .index = index,
                                .term = held->term,
                                .data = buf_span(data)};
    struct wal_place place = append_here(wal, &record, NULL);
    wal_group_set(group, index, &place);
    wal->copy_size += WAL_RECORD_SIZE + data->len;
    return STATUS_OK;
}

// False: it cannot be read; the segment stays, and so do those behind it.
static bool copy_one(struct wal *wal, const struct wal_copy *copy, struct buf *data)
{
    uint64_t number = wal->copy_segment;
    struct wal_group *group = wal_find(wal, copy->group_id);
    if (group == NULL)
        return true;
    if (copy->index == 0) {
        make_room(wal, wal_group_state_size(group));
        if (group->snapshot_segment == number || group->vote_segment == number)
            put_state(group);
        return true;
    }
    const struct wal_place *place = wal_group_place(group, copy->index);
    if (place == NULL || place->segment != number)
        return true;
    struct error error;
    return copy_entry(group, copy->index, data, &error) == STATUS_OK;
}

// A part with each flush, in proportion to what is written, so that no flush is long.
static void copy_forward(struct wal *wal)
{
    size_t size = 0;
    for (const struct wal_piece *piece = wal->first_open; piece != NULL; piece = piece->next)
        size += piece->bytes.len;
    uint64_t copied_max = wal->copy_size + (2 * size < COPY_SIZE_MIN ? COPY_SIZE_MIN : 2 * size);
    struct buf data;
    buf_init(&data, SIZE_MAX);
    while (wal->copy_size < copied_max) {
        const struct wal_segment *segment = NULL;
        if (wal->copy_at == wal->copy_count && (segment = find_copied(wal)) != NULL)
            list_copies(wal, segment->header.number);
        // Not with the last room that there is on disk.
        bool has_failed;
        if (wal->copy_at == wal->copy_count ||
            wal_writer_spare_size(&wal->writer, &has_failed) == 0)
            break;
        if (!copy_one(wal, &wal->copies[wal->copy_at], &data)) {
            wal->copy_failure_count++;
            wal->copy_segment_blocked = wal->copy_segment;
        }
        wal->copy_at++;
    }
    buf_deinit(&data);
}

// --- Changes

void wal_put_vote(struct wal_group *group, uint64_t term, uint64_t voted_for)
{
    make_room(group->wal, WAL_RECORD_SIZE);
    group->term = term;
    group->voted_for = voted_for;
    put_vote_record(group);
}

void wal_put_entries(struct wal_group *group, uint64_t first_index, const struct wal_entry *entries,
                     uint32_t count)
{
    ASSERT(first_index >= group->first_index && first_index <= wal_group_last_index(group) + 1);
    // The log could not be read any more: a group's state says that nothing of it is missing.
    ASSERT(count == 0 || first_index > group->snapshot_index);
    for (uint32_t i = 0; i < count; i++) {
        ASSERT(entries[i].data.len <= WAL_DATA_SIZE_MAX);
        make_room(group->wal, WAL_RECORD_SIZE + entries[i].data.len);
        struct wal_record record = {.kind = WAL_ENTRY,
                                    .entry_kind = entries[i].kind,
                                    .group_id = group->id,
                                    .index = first_index + i,
                                    .term = entries[i].term,
                                    .data = entries[i].data};
        struct wal_place place = append_here(group->wal, &record, NULL);
        wal_group_cut_back(group, first_index + i - 1);
        wal_group_push(group, &place);
    }
}

void wal_put_snapshot(struct wal_group *group, uint64_t index, uint64_t term,
                      struct span configuration, uint64_t configuration_index, uint64_t keep_from)
{
    ASSERT(configuration.len <= WAL_DATA_SIZE_MAX && index >= group->snapshot_index);
    // First of all: a new segment begins with the group as it was.
    make_room(group->wal, 2 * WAL_RECORD_SIZE + WAL_SNAPSHOT_SIZE + configuration.len);
    const struct wal_place *place = wal_group_place(group, index);
    bool is_held = place != NULL ? place->term == term
                                 : index == group->snapshot_index && term == group->snapshot_term &&
                                       index + 1 >= group->first_index;
    if (!is_held) {
        wal_group_cut_back(group, 0);
        group->first_index = index + 1;
    } else {
        wal_group_cut_front(group, keep_from < index + 1 ? keep_from : index + 1);
    }
    struct wal_snapshot snapshot = {.configuration_index = configuration_index,
                                    .configuration = configuration};
    wal_group_set_snapshot(group, index, term, &snapshot, group->snapshot_segment);
    put_snapshot_record(group);
}

struct wal_group *wal_add(struct wal *wal, uint64_t group_id)
{
    ASSERT(wal_find(wal, group_id) == NULL);
    make_room(wal, 2 * WAL_RECORD_SIZE + WAL_SNAPSHOT_SIZE);
    struct wal_group *group = wal_group_create(wal, group_id);
    put_snapshot_record(group);
    return group;
}

void wal_remove(struct wal *wal, struct wal_group *group)
{
    struct wal_record record = {.kind = WAL_REMOVE, .group_id = group->id};
    make_room(wal, WAL_RECORD_SIZE);
    (void)append_here(wal, &record, NULL); // nothing is to be found there
    wal_group_destroy(group);
}

uint64_t wal_flush(struct wal *wal)
{
    reap(wal);
    if (wal->first_open == NULL)
        return wal->newest_batch;
    copy_forward(wal);
    wal->newest_batch++;
    struct wal_piece *first = wal->first_open;
    bool is_merged = wal_writer_push(&wal->writer, wal->last_flushed, first, wal->newest_batch);
    struct wal_piece *last = wal->last_piece;
    wal->first_open = NULL;
    if (is_merged) {
        first->segment->piece_count--;
        wal->last_flushed->next = first->next;
        if (last == first)
            last = wal->last_flushed;
        buf_deinit(&first->bytes);
        mem_free(first);
    }
    wal->last_flushed = last;
    wal->last_piece = last;
    return wal->newest_batch;
}

bool wal_has_room(struct wal *wal, size_t bytes)
{
    reap(wal);
    // Votes of all groups, their snapshots, and some more.
    size_t reserve = wal->head_size + wal->segment_size / 16;
    if (bytes > SPARE_SIZE_MAX / 2)
        return false;
    if (bytes + reserve <= room_left(current(wal)))
        return true;
    size_t wanted = WAL_HEADER_SIZE + WAL_RECORD_SIZE + wal->head_size + bytes + reserve;
    bool has_failed;
    if (wal_writer_spare_size(&wal->writer, &has_failed) >= wanted)
        return true;
    uint64_t now_ns = clock_monotonic_ns();
    if (has_failed && now_ns - wal->spare_failed_ns < SPARE_RETRY_NS)
        return false;
    size_t usual = wal_segment_size_wanted(wal);
    wal_writer_want(&wal->writer, wanted < usual ? usual : wanted);
    size_t size = wal_writer_spare_size(&wal->writer, &has_failed);
    if (has_failed)
        wal->spare_failed_ns = now_ns;
    return size >= wanted;
}

// --- Questions

struct wal_group *wal_find(struct wal *wal, uint64_t group_id)
{
    return map_get(wal->groups, (struct str){(const char *)&group_id, sizeof(group_id)});
}

void wal_for_each(struct wal *wal,
                  void (*each)(uint64_t group_id, struct wal_group *group, void *context),
                  void *context)
{
    size_t position = 0;
    struct str key;
    void *value;
    while (map_next(wal->groups, &position, &key, &value))
        each(((struct wal_group *)value)->id, value, context);
}

void wal_state(const struct wal_group *group, struct wal_state *out_state)
{
    *out_state = (struct wal_state){
        .term = group->term,
        .voted_for = group->voted_for,
        .snapshot_index = group->snapshot_index,
        .snapshot_term = group->snapshot_term,
        .configuration = buf_span(&group->configuration),
        .configuration_index = group->configuration_index,
        .first_index = group->first_index,
        .last_index = wal_group_last_index(group),
    };
}

bool wal_entry_info(const struct wal_group *group, uint64_t index, uint64_t *out_term,
                    uint8_t *out_kind, uint32_t *out_size)
{
    const struct wal_place *place = wal_group_place(group, index);
    if (place == NULL)
        return false;
    *out_term = place->term;
    *out_kind = place->kind;
    *out_size = place->size;
    return true;
}

// NULL: its bytes are not in memory any more.
static const struct wal_piece *find_piece(const struct wal *wal, const struct wal_place *place)
{
    const struct wal_segment *segment = wal_segment_of(wal, place->segment);
    ASSERT(segment != NULL); // an entry's place keeps its segment
    if (place->offset < segment->synced)
        return NULL;
    for (const struct wal_piece *piece = wal->first_piece; piece != NULL; piece = piece->next) {
        if (piece->segment == segment && place->offset >= piece->offset &&
            place->offset - piece->offset < piece->bytes.len)
            return piece;
    }
    return NULL;
}

static enum status read_file(struct wal_group *group, uint64_t index, const struct wal_place *place,
                             struct buf *out, struct error *error)
{
    struct wal *wal = group->wal;
    struct wal_segment *segment = wal_segment_of(wal, place->segment);
    size_t size = WAL_RECORD_SIZE + place->size;
    uint8_t *bytes = buf_reserve(out, size);
    if (bytes == NULL)
        return error_set(error, STATUS_EXHAUSTED, "no memory for an entry of %u bytes",
                         place->size);
    bool was_open = segment->fd >= 0;
    enum status status =
        wal_segment_read(wal->writer.directory_fd, segment, place->offset, bytes, size, error);
    wal->use_count++;
    segment->used_at = wal->use_count;
    wal->open_count += !was_open && segment->fd >= 0;
    limit_open_files(wal);
    TRY(status);
    struct wal_record record;
    if (!wal_record_decode(&segment->header, (struct span){bytes, size}, 0, &record) ||
        record.group_id != group->id || record.index != index || record.term != place->term) {
        char name[WAL_NAME_SIZE];
        wal_name(place->segment, name);
        return error_set(error, STATUS_CORRUPT,
                         "%s: byte %u: damaged, entry %" PRIu64 " of group %" PRIu64
                         " should be there",
                         name, place->offset, index, group->id);
    }
    memmove(bytes, record.data.data, place->size);
    buf_commit(out, place->size);
    return STATUS_OK;
}

enum status wal_read(struct wal_group *group, uint64_t index, struct buf *out, struct error *error)
{
    reap(group->wal);
    const struct wal_place *place = wal_group_place(group, index);
    if (place == NULL)
        return error_set(error, STATUS_NOT_FOUND, "entry %" PRIu64 " of group %" PRIu64, index,
                         group->id);
    const struct wal_piece *piece = find_piece(group->wal, place);
    if (piece == NULL)
        return read_file(group, index, place, out, error);
    size_t offset = place->offset - piece->offset + WAL_RECORD_SIZE;
    buf_append(out, piece->bytes.data + offset, place->size);
    if (buf_has_overflowed(out))
        return error_set(error, STATUS_EXHAUSTED, "no memory for an entry of %u bytes",
                         place->size);
    return STATUS_OK;
}

uint64_t wal_written(const struct wal *wal)
{
    return atomic_load_explicit(&wal->writer.written, memory_order_acquire);
}

void wal_stats(const struct wal *wal, struct wal_stats *out_stats)
{
    *out_stats = (struct wal_stats){
        .size = wal->size,
        .live_size = wal->live_size,
        .segment_count = wal->segment_count,
        .batch_count = atomic_load_explicit(&wal->writer.batch_count, memory_order_relaxed),
        .sync_ns = atomic_load_explicit(&wal->writer.sync_ns, memory_order_relaxed),
        .copy_size = wal->copy_size,
        .copy_failure_count = wal->copy_failure_count,
    };
}

// --- Life cycle

static void destroy(struct wal *wal)
{
    wal_writer_deinit(&wal->writer);
    reap_pieces(wal, wal->newest_batch);
    size_t position = 0;
    struct str key;
    void *value;
    while (map_next(wal->groups, &position, &key, &value)) {
        struct wal_group *group = value;
        buf_deinit(&group->configuration);
        mem_free(group->places);
        mem_free(group);
    }
    map_destroy(wal->groups);
    for (size_t i = 0; i < wal->segment_count; i++)
        wal_segment_destroy(wal->segments[i]);
    mem_free(wal->segments);
    mem_free(wal->copies);
    mem_free(wal);
}

enum status wal_open(const struct wal_options *options, struct error *error, struct wal **out_wal)
{
    struct wal *wal = mem_alloc(sizeof(*wal));
    wal_writer_init(&wal->writer, options);
    wal->segment_size = options->segment_size == 0 ? SEGMENT_SIZE : options->segment_size;
    wal->size_max = options->size_max == 0 ? LOG_SIZE_MAX : options->size_max;
    ASSERT(wal->segment_size >= SEGMENT_SIZE_LEAST && wal->segment_size <= SPARE_SIZE_MAX);
    wal->groups = map_create();
    enum status status = wal_recover(wal, error);
    if (status == STATUS_OK)
        status = wal_writer_start(&wal->writer, error);
    if (status != STATUS_OK)
        destroy(wal);
    else
        *out_wal = wal;
    return status;
}

void wal_close(struct wal *wal)
{
    if (wal == NULL)
        return;
    (void)wal_flush(wal); // the writer writes all of it before it ends
    destroy(wal);
}
