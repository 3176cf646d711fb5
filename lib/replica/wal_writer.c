#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "replica/wal_internal.h"

// The thread that writes: it takes all pieces that wait, writes them, syncs, says so; then it sees
// to the spare segment and to the dead ones.

// What is flushed while the disk is busy becomes one write up to this size.
#define PIECE_SIZE_MAX ((size_t)1 << 20)

static int64_t system_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

static int system_sync(int fd)
{
    return fdatasync(fd);
}

static const struct replica_files system_files = {system_write, system_sync, NULL};

void wal_stop_process(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s; stopping\n", what, why);
    abort();
}

// The kernel may have dropped the pages that it could not write: trying again could succeed without
// anything having been written.
static void stop_after(const char *call, int number) __attribute__((noreturn, cold));
static void stop_after(const char *call, int number)
{
    char what[96];
    (void)snprintf(what, sizeof(what), "%s of the log failed, what is on disk is unknown", call);
    wal_stop_process(what, error_system_text(number));
}

// --- The thread

static void write_piece(const struct wal_writer *writer, const struct wal_piece *piece)
{
    struct span left = {piece->bytes.data, piece->bytes.len};
    size_t offset = piece->offset;
    while (left.len > 0) {
        int64_t written =
            writer->files->write(piece->segment->fd, left.data, left.len, (int64_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            stop_after("write", written == 0 ? ENOSPC : errno);
        left.data += written;
        left.len -= (size_t)written;
        offset += (size_t)written;
    }
}

static void sync_segment(const struct wal_writer *writer, const struct wal_segment *segment)
{
    if (writer->files->sync(segment->fd) != 0)
        stop_after("fdatasync", errno);
}

// A segment is synced before the next one is written to: whatever is in a segment says that all
// before it is whole. Once the last batch is told, the pieces are the owner's again.
static void write_pieces(struct wal_writer *writer, const struct wal_piece *first,
                         uint64_t last_batch)
{
    uint64_t started_ns = clock_monotonic_ns();
    const struct wal_segment *segment = first->segment;
    for (const struct wal_piece *piece = first; piece != NULL; piece = piece->next_queued) {
        if (piece->segment != segment)
            sync_segment(writer, segment);
        segment = piece->segment;
        write_piece(writer, piece);
    }
    sync_segment(writer, segment);
    atomic_fetch_add_explicit(&writer->sync_ns, clock_monotonic_ns() - started_ns,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&writer->batch_count, 1, memory_order_relaxed);
    atomic_store_explicit(&writer->written, last_batch, memory_order_release);
    if (writer->written_fn != NULL)
        writer->written_fn(last_batch, writer->context);
}

// Two dead segments may not go in the wrong order: what ends a record must outlive it.
static void remove_held(struct wal_writer *writer)
{
    struct error error;
    if (writer->held != NULL && wal_segment_remove(writer, writer->held, &error) != STATUS_OK)
        wal_stop_process("a segment of the log cannot be removed", error.text);
    wal_segment_destroy(writer->held);
    writer->held = NULL;
}

// One dead segment is held back, to become the next spare: its blocks have been written before, so
// a sync has less to do than with new ones.
static void retire(struct wal_writer *writer, struct wal_segment **retired, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        remove_held(writer);
        writer->held = retired[i];
    }
    mem_free(retired);
}

static enum status make_spare(struct wal_writer *writer, uint64_t number, size_t size,
                              struct wal_segment **spare, struct error *error)
{
    if (*spare != NULL) {
        enum status status = wal_segment_grow(writer, *spare, size, error);
        if (status != STATUS_EXHAUSTED || writer->held == NULL)
            return status;
        remove_held(writer); // its blocks may be enough
        return wal_segment_grow(writer, *spare, size, error);
    }
    if (writer->held != NULL && writer->held->size >= size) {
        struct wal_segment *held = writer->held;
        TRY(wal_segment_recycle(writer, held, number, error));
        writer->held = NULL;
        *spare = held;
        return STATUS_OK;
    }
    remove_held(writer); // too small for now, and its blocks may be needed
    return wal_segment_create(writer, number, size, error, spare);
}

// Under the lock, which is given up meanwhile. Nobody else touches the spare while it is wanted.
static void work_on_spare(struct wal_writer *writer)
{
    uint64_t number = writer->spare_number;
    size_t size = writer->spare_size;
    struct wal_segment *spare = writer->spare;
    pthread_mutex_unlock(&writer->lock);
    struct error error = {{0}};
    enum status status = make_spare(writer, number, size, &spare, &error);
    pthread_mutex_lock(&writer->lock);
    writer->spare = spare;
    writer->spare_state = status == STATUS_OK ? WAL_SPARE_READY : WAL_SPARE_FAILED;
    writer->spare_error = error;
    pthread_cond_signal(&writer->answer);
}

// Under the lock. False: nothing to do.
static bool work(struct wal_writer *writer)
{
    struct wal_piece *first = writer->first;
    struct wal_segment **retired = writer->retired;
    size_t retired_count = writer->retired_count;
    if (first != NULL) {
        uint64_t last_batch = writer->last->batch;
        writer->first = NULL;
        writer->last = NULL;
        pthread_mutex_unlock(&writer->lock);
        write_pieces(writer, first, last_batch);
        pthread_mutex_lock(&writer->lock);
    } else if (retired_count > 0) {
        writer->retired = NULL;
        writer->retired_count = 0;
        // There is room again.
        if (writer->spare_state == WAL_SPARE_FAILED)
            writer->spare_state = WAL_SPARE_WANTED;
        pthread_mutex_unlock(&writer->lock);
        retire(writer, retired, retired_count);
        pthread_mutex_lock(&writer->lock);
    } else if (writer->spare_state == WAL_SPARE_WANTED && !writer->is_closing) {
        work_on_spare(writer);
    } else {
        return false;
    }
    return true;
}

static void *run_thread(void *context)
{
    struct wal_writer *writer = context;
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        if (work(writer))
            continue;
        if (writer->is_closing)
            break;
        pthread_cond_wait(&writer->wake, &writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    remove_held(writer);
    return NULL;
}

// --- The owner's side

void wal_writer_init(struct wal_writer *writer, const struct wal_options *options)
{
    writer->directory_fd = options->directory_fd;
    writer->files = options->files == NULL ? &system_files : options->files;
    writer->written_fn = options->written;
    writer->context = options->context;
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->wake, NULL);
    pthread_cond_init(&writer->answer, NULL);
}

enum status wal_writer_start(struct wal_writer *writer, struct error *error)
{
    if (pthread_create(&writer->thread, NULL, run_thread, writer) != 0)
        return error_set(error, STATUS_IO, "cannot start a thread");
    writer->has_thread = true;
    return STATUS_OK;
}

void wal_writer_deinit(struct wal_writer *writer)
{
    if (writer->has_thread) {
        pthread_mutex_lock(&writer->lock);
        writer->is_closing = true;
        pthread_cond_signal(&writer->wake);
        pthread_mutex_unlock(&writer->lock);
        pthread_join(writer->thread, NULL);
    }
    wal_segment_destroy(writer->spare);
    pthread_cond_destroy(&writer->answer);
    pthread_cond_destroy(&writer->wake);
    pthread_mutex_destroy(&writer->lock);
}

bool wal_writer_push(struct wal_writer *writer, struct wal_piece *last_flushed,
                     struct wal_piece *first, uint64_t batch)
{
    bool is_merged = false;
    pthread_mutex_lock(&writer->lock);
    struct wal_piece *last = writer->last;
    if (last != NULL && last == last_flushed && last->segment == first->segment &&
        last->bytes.len + first->bytes.len <= PIECE_SIZE_MAX) {
        buf_append(&last->bytes, first->bytes.data, first->bytes.len);
        ASSERT(!buf_has_overflowed(&last->bytes));
        last->batch = batch;
        is_merged = true;
    }
    for (struct wal_piece *piece = is_merged ? first->next : first; piece != NULL;
         piece = piece->next) {
        piece->batch = batch;
        piece->next_queued = NULL;
        if (writer->last == NULL)
            writer->first = piece;
        else
            writer->last->next_queued = piece;
        writer->last = piece;
    }
    pthread_cond_signal(&writer->wake);
    pthread_mutex_unlock(&writer->lock);
    return is_merged;
}

void wal_writer_want(struct wal_writer *writer, size_t size)
{
    pthread_mutex_lock(&writer->lock);
    if (size > writer->spare_size)
        writer->spare_size = size;
    writer->spare_state = WAL_SPARE_WANTED;
    pthread_cond_signal(&writer->wake);
    pthread_mutex_unlock(&writer->lock);
}

// Under the lock.
static void wait_for_spare(struct wal_writer *writer)
{
    while (writer->spare_state == WAL_SPARE_WANTED)
        pthread_cond_wait(&writer->answer, &writer->lock);
}

size_t wal_writer_spare_size(struct wal_writer *writer, bool *out_has_failed)
{
    pthread_mutex_lock(&writer->lock);
    wait_for_spare(writer);
    size_t size = writer->spare == NULL ? 0 : writer->spare->size;
    *out_has_failed = writer->spare_state == WAL_SPARE_FAILED;
    pthread_mutex_unlock(&writer->lock);
    return size;
}

struct wal_segment *wal_writer_take_spare(struct wal_writer *writer, size_t next_size,
                                          struct error *error)
{
    pthread_mutex_lock(&writer->lock);
    wait_for_spare(writer);
    if (writer->spare == NULL) {
        writer->spare_state = WAL_SPARE_WANTED;
        pthread_cond_signal(&writer->wake);
        wait_for_spare(writer);
    }
    struct wal_segment *spare = writer->spare;
    if (spare == NULL) {
        *error = writer->spare_error;
    } else {
        writer->spare = NULL;
        writer->spare_state = WAL_SPARE_WANTED;
        writer->spare_number = spare->header.number + 1;
        writer->spare_size = next_size;
        pthread_cond_signal(&writer->wake);
    }
    pthread_mutex_unlock(&writer->lock);
    return spare;
}

void wal_writer_retire(struct wal_writer *writer, struct wal_segment *segment)
{
    pthread_mutex_lock(&writer->lock);
    writer->retired =
        mem_resize(writer->retired, (writer->retired_count + 1) * sizeof(struct wal_segment *));
    writer->retired[writer->retired_count] = segment;
    writer->retired_count++;
    pthread_cond_signal(&writer->wake);
    pthread_mutex_unlock(&writer->lock);
}
