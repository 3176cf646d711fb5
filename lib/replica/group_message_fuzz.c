#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "replica/group.h"
#include "replica/replica.h"

// Messages from the other members of a group, as bytes that nobody vouches for. The group may drop
// them or give up; it must not crash, apply twice, or go back. Input: records of sender u8, size
// u16, a message; an empty one lets time pass.

enum { NODE_ID = 1, MEMBER_COUNT = 3, GROUP_ID = 1, ELECTION_MS = 100 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fixture {
    struct group *group;
    uint64_t now_ms;
    uint64_t applied_index;
    bool must_install;
    bool has_failed;
};

static struct wal *wal; // one for all inputs: a log is slow to make

static void send_nothing(uint64_t to, const PEER(PeerMessage) * message, bool is_held,
                         void *context)
{
    (void)to;
    (void)message;
    (void)is_held;
    (void)context;
}

static void apply(uint64_t index, struct span command, void *proposal, void *context)
{
    struct fixture *fixture = context;
    (void)command;
    if (proposal != NULL || index <= fixture->applied_index)
        abort();
    fixture->applied_index = index;
}

static void lost(void *proposal, void *context)
{
    (void)proposal;
    (void)context;
    abort(); // nothing was proposed
}

static void read_done(void *read, enum status status, void *context)
{
    (void)read;
    (void)status;
    (void)context;
}

static void lead_changed(bool is_leading, uint64_t term, void *context)
{
    (void)is_leading;
    (void)term;
    (void)context;
}

static void install(uint64_t from, uint64_t index, uint64_t term, void *context)
{
    struct fixture *fixture = context;
    (void)from;
    (void)term;
    fixture->must_install = true;
    fixture->applied_index = index > fixture->applied_index ? index : fixture->applied_index;
}

static void failed(struct str reason, void *context)
{
    struct fixture *fixture = context;
    (void)reason;
    fixture->has_failed = true;
}

static const struct group_host host = {send_nothing, apply,   lost,  read_done,
                                       lead_changed, install, failed};

static int64_t sink_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

static const struct replica_files files = {.write = sink_write, .sync = no_sync};

static void settle(struct fixture *fixture)
{
    if (fixture->must_install && !fixture->has_failed) {
        fixture->must_install = false;
        group_installed(fixture->group, fixture->now_ms);
    }
    uint64_t batch = wal_flush(wal);
    group_flushed(fixture->group, batch);
    while (wal_written(wal) < batch)
        (void)usleep(20);
    group_written(fixture->group, fixture->now_ms, batch);
}

static void take(struct fixture *fixture, uint64_t from, const uint8_t *bytes, size_t size)
{
    fixture->now_ms += 1 + size % 50;
    if (size == 0) {
        fixture->now_ms += 2 * ELECTION_MS;
        group_tick(fixture->group, fixture->now_ms);
        return;
    }
    PEER(PeerMessage) *message = vectron__replica__v1__peer_message__unpack(NULL, size, bytes);
    if (message != NULL)
        group_receive(fixture->group, fixture->now_ms, from, message);
    vectron__replica__v1__peer_message__free_unpacked(message, NULL);
}

static void open_fixture(struct fixture *fixture)
{
    static const char *const names[] = {"1", "2", "3"};
    struct group_member members[MEMBER_COUNT];
    struct error error;
    for (uint32_t i = 0; i < MEMBER_COUNT; i++)
        members[i] = (struct group_member){i + 1, str_from_cstr(names[i]), GROUP_VOTER};
    *fixture = (struct fixture){.now_ms = 1000};
    if (group_create(
            &(struct group_options){
                .group_id = GROUP_ID,
                .node_id = NODE_ID,
                .wal = wal,
                .host = &host,
                .context = fixture,
                .now_ms = fixture->now_ms,
                .seed = 7,
                .election_ms = ELECTION_MS,
                .heartbeat_ms = ELECTION_MS / 10,
                .members = members,
                .member_count = MEMBER_COUNT,
            },
            &error, &fixture->group) != STATUS_OK)
        abort();
}

static void close_fixture(struct fixture *fixture)
{
    group_destroy(fixture->group);
    wal_remove(wal, wal_find(wal, GROUP_ID));
    (void)wal_flush(wal);
}

static char folder[] = "/tmp/group_message_fuzz.XXXXXX";

static void remove_folder(void)
{
    DIR *list = opendir(folder);
    const struct dirent *entry;
    wal_close(wal);
    while (list != NULL && (entry = readdir(list)) != NULL) // NOLINT(concurrency-mt-unsafe)
        (void)unlinkat(dirfd(list), entry->d_name, 0);
    if (list != NULL)
        (void)closedir(list);
    (void)rmdir(folder);
}

static void open_log(void)
{
    struct error error;
    if (mkdtemp(folder) == NULL)
        abort();
    const struct wal_options options = {
        .directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        .files = &files,
    };
    if (wal_open(&options, &error, &wal) != STATUS_OK || atexit(remove_folder) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (wal == NULL)
        open_log();
    struct fixture fixture;
    open_fixture(&fixture);
    settle(&fixture);
    while (size >= 3 && !fixture.has_failed) {
        uint64_t from = data[0] % (MEMBER_COUNT + 1) + 1;
        size_t length = (size_t)data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        take(&fixture, from, data, length);
        data += length;
        size -= length;
        settle(&fixture);
    }
    close_fixture(&fixture);
    return 0;
}
