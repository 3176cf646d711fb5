#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/client.h"
#include "base/crc32c.h"
#include "replica/directory.h"
#include "replica/node_internal.h"
#include "replica/snapshot_format.h"

// Snapshots of machines whose state is in memory. Made: the state is encoded in one turn, written
// on the pool, and only then told to the group. Fetched: read in parts from the member that leads,
// checked whole, written, taken over, told to the group. The last two files are kept, because
// somebody may be reading the older one and the log's newest record may not be on disk.

enum { NAME_SIZE = 64, TRAILING = 4096, RETRY_MS = 200, READ_TIMEOUT_MS = 5000, KEPT = 2 };
#define STATE_SIZE_MAX ((size_t)2 << 30)
#define PART_SIZE      ((size_t)1 << 20)

static void prefix_of(uint64_t group_id, char out[static NAME_SIZE])
{
    (void)snprintf(out, NAME_SIZE, "snapshot-%016" PRIx64 "-", group_id);
}

static void name_of(uint64_t group_id, uint64_t index, char out[static NAME_SIZE])
{
    (void)snprintf(out, NAME_SIZE, "snapshot-%016" PRIx64 "-%016" PRIx64, group_id, index);
}

// --- Loading

static enum status load_file(struct replica *replica, uint64_t index, struct error *error)
{
    char name[NAME_SIZE];
    struct buf bytes;
    struct span state;
    uint64_t index_inside;
    name_of(replica->group_id, index, name);
    buf_init(&bytes, STATE_SIZE_MAX + SNAPSHOT_HEADER_SIZE);
    enum status status = directory_read_file(replica->node->directory_fd, name, error, &bytes);
    if (status == STATUS_OK)
        status = snapshot_decode(buf_span(&bytes), error, &index_inside, &state);
    if (status == STATUS_OK && index_inside != index)
        status = error_set(error, STATUS_CORRUPT, "it says index %" PRIu64, index_inside);
    if (status == STATUS_OK)
        status = replica->machine->decode(state, error, replica->context);
    buf_deinit(&bytes);
    return status == STATUS_OK ? status : error_prefix(error, status, "%s", name);
}

enum status snapshot_load(struct replica *replica, uint64_t index_min, struct error *error)
{
    char prefix[NAME_SIZE];
    uint64_t *numbers = NULL;
    size_t count = 0;
    prefix_of(replica->group_id, prefix);
    TRY(directory_list_numbers(replica->node->directory_fd, prefix, error, &numbers, &count));
    enum status status =
        index_min == 0 ? STATUS_OK
                       : error_set(error, STATUS_CORRUPT,
                                   "the snapshot up to %" PRIu64 ", after which the log begins, "
                                   "is missing",
                                   index_min);
    // An older one does as well, as long as the log goes on from it.
    for (size_t i = count; i > 0 && numbers[i - 1] >= index_min; i--) {
        status = load_file(replica, numbers[i - 1], error);
        if (status != STATUS_OK) {
            node_trouble(replica, str_from_cstr(error->text));
            continue;
        }
        replica->snapshot_index = numbers[i - 1];
        replica->machine_index = numbers[i - 1];
        atomic_store(&replica->applied, numbers[i - 1]);
        break;
    }
    mem_free(numbers);
    return status;
}

// --- Writing

struct snapshot_job {
    struct job job; // first
    struct replica *replica;
    uint64_t index;
    uint8_t header[SNAPSHOT_HEADER_SIZE];
    struct buf state;
    enum status status;
    struct error error;
};

// On the pool. That an old file stays is no failure.
static void remove_older(const struct replica *replica, uint64_t index)
{
    char name[NAME_SIZE];
    uint64_t *numbers = NULL;
    size_t count = 0;
    struct error error;
    prefix_of(replica->group_id, name);
    if (directory_list_numbers(replica->node->directory_fd, name, &error, &numbers, &count) !=
        STATUS_OK)
        return;
    size_t end = 0; // of those up to index
    while (end < count && numbers[end] <= index)
        end++;
    for (size_t i = 0; i + KEPT < end; i++) {
        name_of(replica->group_id, numbers[i], name);
        (void)directory_remove_file(replica->node->directory_fd, name, &error);
    }
    mem_free(numbers);
}

static void write_file(struct job *job)
{
    struct snapshot_job *snapshot = (struct snapshot_job *)(void *)job;
    char name[NAME_SIZE];
    struct span head = {snapshot->header, sizeof(snapshot->header)};
    name_of(snapshot->replica->group_id, snapshot->index, name);
    snapshot->status = directory_write_file(snapshot->replica->node->directory_fd, name, head,
                                            buf_span(&snapshot->state), &snapshot->error);
    if (snapshot->status == STATUS_OK)
        remove_older(snapshot->replica, snapshot->index);
}

static void job_free(struct snapshot_job *snapshot)
{
    buf_deinit(&snapshot->state);
    mem_free(snapshot);
}

static void made(struct job *job)
{
    struct snapshot_job *snapshot = (struct snapshot_job *)(void *)job;
    struct replica *replica = snapshot->replica;
    replica->snapshot_job = NULL;
    if (snapshot->status == STATUS_OK) {
        replica->snapshot_index = snapshot->index;
        group_snapshotted(replica->group, node_now_ms(replica->node), snapshot->index, TRAILING);
    } else {
        // The log still has everything. Trying again at each write would only make them slow.
        replica->snapshot_size_at = replica->size_since_snapshot + replica->log_size_max;
        (void)atomic_fetch_add(&replica->snapshot_failure_count, 1);
        node_trouble(replica, str_from_cstr(snapshot->error.text));
    }
    job_free(snapshot);
    if (replica->ended != NULL)
        replica_job_ended(replica);
    else
        replica_arm(replica);
}

void snapshot_make(struct replica *replica)
{
    struct snapshot_job *snapshot = mem_alloc(sizeof(*snapshot));
    snapshot->replica = replica;
    snapshot->index = replica->machine_index;
    snapshot->job = (struct job){.loop = replica->node->loop, .run = write_file, .done = made};
    buf_init(&snapshot->state, STATE_SIZE_MAX);
    replica->machine->encode(&snapshot->state, replica->context);
    bool is_whole = !buf_has_overflowed(&snapshot->state);
    snapshot_header_encode(snapshot->index, buf_span(&snapshot->state), snapshot->header);
    replica->snapshot_size_at = replica->size_since_snapshot + replica->log_size_max;
    if (!is_whole || pool_submit(net_pool(replica->node->net), &snapshot->job) != STATUS_OK) {
        (void)atomic_fetch_add(&replica->snapshot_failure_count, 1);
        job_free(snapshot);
        return;
    }
    replica->size_since_snapshot = 0;
    replica->snapshot_size_at = replica->log_size_max;
    replica->snapshot_job = snapshot;
}

// --- Serving

struct serving {
    struct replica_node *node;
    enum status status;
    uint64_t index;
    uint64_t total_size;
    size_t size;
    uint8_t *bytes; // in the request's arena
};

static enum status choose_file(struct serving *serving, const PEER(ReadSnapshotRequest) * request)
{
    char prefix[NAME_SIZE];
    uint64_t *numbers = NULL;
    size_t count = 0;
    serving->index = request->index;
    if (request->offset > 0)
        return STATUS_OK;
    prefix_of(request->group_id, prefix);
    TRY(directory_list_numbers(serving->node->directory_fd, prefix, NULL, &numbers, &count));
    bool has_one = count > 0 && numbers[count - 1] >= request->index;
    if (has_one)
        serving->index = numbers[count - 1];
    mem_free(numbers);
    return has_one ? STATUS_OK : STATUS_NOT_FOUND;
}

static void read_part(struct rpc *rpc, void *context)
{
    struct serving *serving = context;
    const PEER(ReadSnapshotRequest) *request = (const void *)rpc_request(rpc);
    char name[NAME_SIZE];
    struct stat info;
    serving->status = choose_file(serving, request);
    if (serving->status != STATUS_OK)
        return;
    name_of(request->group_id, serving->index, name);
    int fd = openat(serving->node->directory_fd, name, O_RDONLY | O_CLOEXEC);
    serving->status = fd < 0 ? STATUS_NOT_FOUND : STATUS_OK;
    if (fd < 0)
        return;
    ssize_t size = -1;
    if (fstat(fd, &info) == 0) {
        size = pread(fd, serving->bytes, serving->size, (off_t)request->offset);
        serving->total_size = (uint64_t)info.st_size;
    }
    close(fd);
    serving->size = size < 0 ? 0 : (size_t)size;
    serving->status = size < 0 ? STATUS_IO : STATUS_OK;
}

static void answer_part(struct rpc *rpc, void *context)
{
    const struct serving *serving = context;
    PEER(ReadSnapshotResponse) response = PEER_INIT(READ_SNAPSHOT_RESPONSE);
    if (serving->status != STATUS_OK) {
        rpc_fail(rpc, serving->status, "there is no such snapshot");
        return;
    }
    response.data = (ProtobufCBinaryData){serving->size, serving->bytes};
    response.crc32c = crc32c(0, serving->bytes, serving->size);
    response.total_size = serving->total_size;
    response.index = serving->index;
    rpc_reply(rpc, &response.base);
}

void snapshot_serve(struct rpc *rpc, void *context)
{
    const PEER(ReadSnapshotRequest) *request = (const void *)rpc_request(rpc);
    struct serving *serving = arena_alloc(rpc_arena(rpc), sizeof(*serving));
    size_t size = request->size < PART_SIZE ? request->size : PART_SIZE;
    *serving = (struct serving){
        .node = context, .size = size, .bytes = arena_alloc(rpc_arena(rpc), size + 1)};
    rpc_run_pooled(rpc, read_part, answer_part, serving);
}

// --- Fetching

struct snapshot_fetch {
    struct replica *replica;
    struct timer timer;
    struct channel_call *call; // NULL: none
    uint64_t from;
    uint64_t index_min;
    uint64_t index; // of the snapshot that is being read; 0: not known yet
    struct buf bytes;
    struct snapshot_job *job; // writes it
    bool is_cancelled;
};

static void fetch_next(struct snapshot_fetch *fetch);

static void fetch_free(struct snapshot_fetch *fetch)
{
    timer_stop(&fetch->timer);
    struct replica *replica = fetch->replica;
    replica->fetch = NULL;
    buf_deinit(&fetch->bytes);
    mem_free(fetch);
    replica_job_ended(replica);
}

void snapshot_fetch_cancel(struct replica *replica)
{
    struct snapshot_fetch *fetch = replica->fetch;
    if (fetch == NULL)
        return;
    fetch->is_cancelled = true;
    if (fetch->call != NULL)
        channel_call_cancel(fetch->call);
    fetch->call = NULL;
    if (fetch->job == NULL)
        fetch_free(fetch);
}

static void fetch_again(struct snapshot_fetch *fetch)
{
    struct group_status status;
    group_status(fetch->replica->group, &status);
    if (status.leader_id != 0)
        fetch->from = status.leader_id;
    fetch->index = 0;
    buf_clear(&fetch->bytes);
    timer_start(&fetch->timer, RETRY_MS * NS_PER_MS);
}

static void fetch_timer(struct timer *timer)
{
    fetch_next(
        (struct snapshot_fetch *)(void *)((char *)timer - offsetof(struct snapshot_fetch, timer)));
}

static void take_over(struct snapshot_fetch *fetch, const struct snapshot_job *job)
{
    struct replica *replica = fetch->replica;
    struct error error = job->error;
    struct span state = buf_span(&job->state);
    enum status status = job->status;
    if (status == STATUS_OK)
        status = replica->machine->decode(state, &error, replica->context);
    if (status != STATUS_OK) {
        node_trouble(replica, str_from_cstr(error.text));
        fetch_again(fetch);
        return;
    }
    replica->machine_index = fetch->index;
    replica->snapshot_index = fetch->index;
    replica->size_since_snapshot = 0;
    atomic_store(&replica->applied, fetch->index);
    fetch_free(fetch);
    group_installed(replica->group, node_now_ms(replica->node));
    replica_arm(replica);
}

static void fetched_written(struct job *job)
{
    struct snapshot_job *written = (struct snapshot_job *)(void *)job;
    struct snapshot_fetch *fetch = written->replica->fetch;
    fetch->job = NULL;
    if (fetch->is_cancelled)
        fetch_free(fetch);
    else
        take_over(fetch, written);
    job_free(written);
}

static void fetch_finish(struct snapshot_fetch *fetch)
{
    struct replica *replica = fetch->replica;
    struct error error = {{0}};
    struct span state;
    uint64_t index = 0;
    if (snapshot_decode(buf_span(&fetch->bytes), &error, &index, &state) != STATUS_OK ||
        index != fetch->index) {
        node_trouble(replica, str_from_cstr(error.text));
        fetch_again(fetch);
        return;
    }
    struct snapshot_job *job = mem_alloc(sizeof(*job));
    job->replica = replica;
    job->index = index;
    job->job =
        (struct job){.loop = replica->node->loop, .run = write_file, .done = fetched_written};
    buf_init(&job->state, STATE_SIZE_MAX);
    buf_append(&job->state, state.data, state.len);
    snapshot_header_encode(index, state, job->header);
    if (buf_has_overflowed(&job->state) ||
        pool_submit(net_pool(replica->node->net), &job->job) != STATUS_OK) {
        job_free(job);
        fetch_again(fetch);
        return;
    }
    fetch->job = job;
}

static void fetched(enum status status, struct str text, const ProtobufCMessage *message,
                    void *context)
{
    (void)text;
    struct snapshot_fetch *fetch = context;
    const PEER(ReadSnapshotResponse) *part = (const void *)message;
    fetch->call = NULL;
    bool is_right = status == STATUS_OK && part->data.len > 0 &&
                    part->crc32c == crc32c(0, part->data.data, part->data.len) &&
                    part->index >= fetch->index_min &&
                    (fetch->index == 0 || part->index == fetch->index) &&
                    part->total_size <= STATE_SIZE_MAX + SNAPSHOT_HEADER_SIZE;
    if (!is_right) {
        fetch_again(fetch);
        return;
    }
    fetch->index = part->index;
    buf_append(&fetch->bytes, part->data.data, part->data.len);
    if (buf_has_overflowed(&fetch->bytes) || fetch->bytes.len > part->total_size)
        fetch_again(fetch);
    else if (fetch->bytes.len == part->total_size)
        fetch_finish(fetch);
    else
        fetch_next(fetch);
}

static void fetch_next(struct snapshot_fetch *fetch)
{
    struct replica *replica = fetch->replica;
    struct replica_node *node = replica->node;
    struct peer *peer = node_peer(node, fetch->from);
    if (peer == NULL) {
        fetch_again(fetch);
        return;
    }
    PEER(ReadSnapshotRequest) request = PEER_INIT(READ_SNAPSHOT_REQUEST);
    request.group_id = replica->group_id;
    request.index = fetch->index == 0 ? fetch->index_min : fetch->index;
    request.offset = fetch->bytes.len;
    request.size = PART_SIZE;
    fetch->call = client_call(&(struct client_request){
        .channel = peer->channel,
        .service = &vectron__replica__v1__peer_service__descriptor,
        .method = "ReadSnapshot",
        .message = &request.base,
        .deadline_ns = loop_now_ns(node->loop) + READ_TIMEOUT_MS * NS_PER_MS,
        .metadata = &node->metadata,
        .metadata_count = node->metadata_count,
        .context = fetch,
        .done = fetched,
    });
}

void snapshot_fetch_start(struct replica *replica, uint64_t from, uint64_t index_min)
{
    struct snapshot_fetch *fetch = mem_alloc(sizeof(*fetch));
    fetch->replica = replica;
    fetch->from = from;
    fetch->index_min = index_min;
    timer_init(&fetch->timer, replica->node->loop, fetch_timer);
    buf_init(&fetch->bytes, STATE_SIZE_MAX + SNAPSHOT_HEADER_SIZE);
    replica->fetch = fetch;
    fetch_next(fetch);
}
