#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "replica/group.h"
#include "replica/replica.h"

// A seeded world for Raft groups: up to five members with logs of their own, one virtual clock, a
// network that delays, drops, doubles and cuts, disks that take their time and members that are
// killed, changed and asked for the lead, all decided by the seed. It knows everything, so it sees
// what no member could: two leaders in a term, members that apply different commands, an
// acknowledged command that is gone, a read that misses one, a proposal that ends twice or never.

enum sim_bug { // planted, to show that the world would see it
    SIM_BUG_NONE,
    SIM_BUG_WRITTEN_TOO_EARLY,  // entries count as written before they are
    SIM_BUG_A_COMMAND_IS_MISSED // a member passes over one command in a thousand
};

struct sim_options {
    uint64_t seed;
    enum sim_bug bug;
    const char *folder; // for the logs; emptied first
    bool is_verbose;    // tells what happens
};

struct sim_result {
    char failure[256]; // empty: everything held
    uint64_t virtual_ms;
    uint64_t acknowledged_count;
    uint64_t read_count;
    uint64_t crash_count;
    uint64_t install_count;
    uint64_t change_count;
    uint64_t term; // the last
};

enum {
    MEMBERS_MAX = 5,
    FIRST_MEMBERS = 3,
    FAULTY_MS = 15000, // how long things go wrong
    CALM_MS = 15000,   // and how long everybody has to find together again
    ELECTION_MS = 300,
    GROUP_ID = 9,
    INDEX_MAX = 65536,
    PROPOSALS_MAX = 65536,
    TERMS_MAX = 4096,
    PATH_SIZE = 512,
};

enum event_kind { EVENT_MESSAGE, EVENT_TICK, EVENT_FLUSH, EVENT_WRITTEN, EVENT_INSTALLED };

struct event {
    struct event *next;
    uint64_t at_ms;
    enum event_kind kind;
    uint32_t member;
    uint32_t life; // of the member: an earlier one's events are void
    uint64_t value;
    uint32_t from;
    size_t size;
    uint8_t bytes[];
};

struct held {
    struct held *next;
    uint32_t to;
    size_t size;
    uint8_t bytes[];
};

struct world;

struct member {
    struct world *world;
    uint32_t number; // its id is one more
    uint32_t life;
    char path[PATH_SIZE];
    int directory_fd;
    struct wal *wal;
    struct group *group; // NULL: it is down
    bool is_flush_due;
    uint64_t batch;
    struct held *held;
    uint64_t machine_index;
    uint64_t hash;
    uint64_t snapshot_index; // durable
    uint64_t snapshot_hash;
    uint64_t installing_index;
};

enum fate { FATE_NONE, FATE_OPEN, FATE_ACKNOWLEDGED, FATE_LOST };

struct world {
    struct sim_options options;
    struct sim_result *result;
    struct rng rng;
    uint64_t now_ms;
    struct event *events; // by time
    struct member members[MEMBERS_MAX];
    bool is_cut[MEMBERS_MAX][MEMBERS_MAX];
    uint32_t drop_percent;
    uint32_t flush_ms;            // at most, until what was put is on disk
    uint64_t commands[INDEX_MAX]; // that were applied anywhere; 0: none
    uint64_t hashes[INDEX_MAX];   // of the state after it
    uint32_t leaders[TERMS_MAX];  // number + 1
    enum fate fates[PROPOSALS_MAX];
    uint64_t proposal_count;
    uint64_t acknowledged_index; // the largest
    uint64_t ended_at_ms;        // when the faults ended
    bool has_late_success;       // a command was acknowledged after that
};

struct read {
    uint64_t needed_index;
    struct member *member;
};

static uint64_t below(struct world *world, uint64_t limit)
{
    return rng_below(&world->rng, limit);
}

static void fail(struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void fail(struct world *world, const char *format, ...)
{
    va_list arguments;
    if (world->result->failure[0] != '\0')
        return;
    va_start(arguments, format);
    (void)vsnprintf(world->result->failure, sizeof(world->result->failure), format, arguments);
    va_end(arguments);
}

static void tell(const struct world *world, const char *what, uint32_t number, uint64_t value)
{
    if (world->options.is_verbose)
        printf("%8llu ms  %s %u %llu\n", (unsigned long long)world->now_ms, what, number + 1,
               (unsigned long long)value);
}

// --- Events

static void add_event(struct world *world, struct event *event)
{
    struct event **link = &world->events;
    while (*link != NULL && (*link)->at_ms <= event->at_ms)
        link = &(*link)->next;
    event->next = *link;
    *link = event;
}

static struct event *new_event(struct member *member, enum event_kind kind, uint64_t delay_ms,
                               size_t size)
{
    struct event *event = mem_alloc(sizeof(*event) + size);
    event->at_ms = member->world->now_ms + delay_ms;
    event->kind = kind;
    event->member = member->number;
    event->life = member->life;
    event->size = size;
    return event;
}

static void schedule(struct member *member, enum event_kind kind, uint64_t delay_ms, uint64_t value)
{
    struct event *event = new_event(member, kind, delay_ms, 0);
    event->value = value;
    add_event(member->world, event);
}

// --- The disk

static int sim_sync(int fd)
{
    (void)fd;
    return 0; // killed processes are simulated; lost power is the log's own test
}

static int64_t sim_write(int fd, const void *bytes, size_t size, int64_t offset)
{
    return pwrite(fd, bytes, size, offset);
}

static const struct replica_files sim_files = {.write = sim_write, .sync = sim_sync};

static void wait_written(struct wal *wal, uint64_t batch)
{
    while (wal_written(wal) < batch)
        (void)sched_yield();
}

// --- The network

static void transmit(struct world *world, uint32_t from, uint32_t to, const uint8_t *bytes,
                     size_t size)
{
    uint32_t copies = below(world, 50) == 0 ? 2 : 1;
    if (world->is_cut[from][to] || below(world, 100) < world->drop_percent)
        return;
    for (uint32_t i = 0; i < copies; i++) {
        struct member *member = &world->members[to];
        uint64_t delay_ms = below(world, 20) == 0 ? below(world, 200) : 1 + below(world, 4);
        struct event *event = new_event(member, EVENT_MESSAGE, delay_ms, size);
        event->from = from;
        memcpy(event->bytes, bytes, size);
        add_event(world, event);
    }
}

static void host_send(uint64_t to, const PEER(PeerMessage) * message, bool is_held, void *context)
{
    struct member *member = context;
    size_t size = protobuf_c_message_get_packed_size(&message->base);
    struct held *held = mem_alloc(sizeof(*held) + size);
    if (to == 0 || to > MEMBERS_MAX) {
        mem_free(held);
        return;
    }
    held->to = (uint32_t)to - 1;
    held->size = size;
    (void)protobuf_c_message_pack(&message->base, held->bytes);
    if (!is_held) {
        transmit(member->world, member->number, held->to, held->bytes, size);
        mem_free(held);
        return;
    }
    struct held **link = &member->held;
    while (*link != NULL)
        link = &(*link)->next;
    *link = held;
}

static void release_held(struct member *member, bool is_sent)
{
    while (member->held != NULL) {
        struct held *held = member->held;
        member->held = held->next;
        if (is_sent)
            transmit(member->world, member->number, held->to, held->bytes, held->size);
        mem_free(held);
    }
}

// --- The machine: a hash of all commands in their order

static uint64_t mix(uint64_t hash, uint64_t command)
{
    return (hash ^ command) * 0x9e3779b97f4a7c15ULL + (hash >> 29);
}

static void end_proposal(struct world *world, void *proposal, enum fate fate)
{
    uint64_t number = (uint64_t)(uintptr_t)proposal;
    if (world->fates[number] != FATE_OPEN)
        fail(world, "proposal %llu ended twice", (unsigned long long)number);
    world->fates[number] = fate;
}

static void host_apply(uint64_t index, struct span command, void *proposal, void *context)
{
    struct member *member = context;
    struct world *world = member->world;
    uint64_t value = 0;
    memcpy(&value, command.data, command.len < 8 ? command.len : 8);
    if (index >= INDEX_MAX)
        return;
    if (world->commands[index] != 0 && world->commands[index] != value)
        fail(world, "member %u applies another command at index %llu", member->number + 1,
             (unsigned long long)index);
    world->commands[index] = value;
    if (index > member->machine_index) {
        bool is_missed =
            world->options.bug == SIM_BUG_A_COMMAND_IS_MISSED && below(world, 1000) == 0;
        member->hash = is_missed ? member->hash : mix(member->hash, value);
        member->machine_index = index;
        if (world->hashes[index] != 0 && world->hashes[index] != member->hash)
            fail(world, "member %u has another state at index %llu", member->number + 1,
                 (unsigned long long)index);
        world->hashes[index] = member->hash;
    }
    if (proposal == NULL)
        return;
    end_proposal(world, proposal, FATE_ACKNOWLEDGED);
    if ((uint64_t)(uintptr_t)proposal != value)
        fail(world, "an answer went to the wrong proposal");
    world->result->acknowledged_count++;
    if (index > world->acknowledged_index)
        world->acknowledged_index = index;
    if (world->ended_at_ms != 0)
        world->has_late_success = true;
}

static void host_lost(void *proposal, void *context)
{
    struct member *member = context;
    end_proposal(member->world, proposal, FATE_LOST);
}

static void host_read_done(void *done, enum status status, void *context)
{
    struct member *member = context;
    struct read *read = done;
    if (status == STATUS_OK) {
        member->world->result->read_count++;
        if (member->machine_index < read->needed_index)
            fail(member->world, "a read of member %u misses what was acknowledged",
                 member->number + 1);
    }
    mem_free(read);
}

static void host_lead_changed(bool is_leading, uint64_t term, void *context)
{
    struct member *member = context;
    struct world *world = member->world;
    tell(world, is_leading ? "leads" : "does not lead", member->number, term);
    if (!is_leading || term >= TERMS_MAX)
        return;
    world->result->term = term;
    if (world->leaders[term] != 0 && world->leaders[term] != member->number + 1)
        fail(world, "two leaders in term %llu", (unsigned long long)term);
    world->leaders[term] = member->number + 1;
}

static void host_install(uint64_t from, uint64_t index, uint64_t term, void *context)
{
    struct member *member = context;
    (void)from;
    (void)term;
    member->installing_index = index;
    schedule(member, EVENT_INSTALLED, 5 + below(member->world, 100), 0);
}

static void host_failed(struct str reason, void *context)
{
    struct member *member = context;
    fail(member->world, "member %u: %.*s", member->number + 1, STR_ARG(reason));
}

static const struct group_host host = {
    host_send, host_apply, host_lost, host_read_done, host_lead_changed, host_install, host_failed,
};

// From any member that has a snapshot that is new enough; else later.
static void try_install(struct member *member)
{
    struct world *world = member->world;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *source = &world->members[i];
        if (source == member || source->group == NULL || world->is_cut[i][member->number] ||
            source->snapshot_index < member->installing_index)
            continue;
        member->snapshot_index = source->snapshot_index;
        member->snapshot_hash = source->snapshot_hash;
        member->machine_index = source->snapshot_index;
        member->hash = source->snapshot_hash;
        world->result->install_count++;
        tell(world, "installs", member->number, source->snapshot_index);
        group_installed(member->group, world->now_ms);
        return;
    }
    schedule(member, EVENT_INSTALLED, 50, 0);
}

// --- Lives

static void end_turn(struct member *member)
{
    struct world *world = member->world;
    if (member->group == NULL)
        return;
    uint64_t timeout_ms = group_timeout_ms(member->group);
    if (timeout_ms != UINT64_MAX)
        schedule(member, EVENT_TICK, timeout_ms > world->now_ms ? timeout_ms - world->now_ms : 1,
                 0);
    if (member->is_flush_due)
        return;
    member->is_flush_due = true;
    schedule(member, EVENT_FLUSH, below(world, world->flush_ms), 0);
    if (world->options.bug == SIM_BUG_WRITTEN_TOO_EARLY) {
        group_flushed(member->group, member->batch + 1);
        group_written(member->group, world->now_ms, member->batch + 1);
    }
}

static void flush(struct member *member)
{
    struct world *world = member->world;
    member->is_flush_due = false;
    uint64_t batch = wal_flush(member->wal);
    if (batch == member->batch) {
        release_held(member, true);
        return;
    }
    wait_written(member->wal, batch);
    member->batch = batch;
    group_flushed(member->group, batch);
    schedule(member, EVENT_WRITTEN, below(world, 10) == 0 ? below(world, 100) : below(world, 4),
             batch);
}

static void start(struct member *member)
{
    struct world *world = member->world;
    struct error error = {{0}};
    struct group_member members[FIRST_MEMBERS];
    static const char *const names[] = {"1", "2", "3", "4", "5"};
    for (uint32_t i = 0; i < FIRST_MEMBERS; i++)
        members[i] = (struct group_member){i + 1, str_from_cstr(names[i]), GROUP_VOTER};
    member->life++;
    member->is_flush_due = false;
    member->machine_index = member->snapshot_index;
    member->hash = member->snapshot_hash;
    member->directory_fd = open(member->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status status = wal_open(&(struct wal_options){.directory_fd = member->directory_fd,
                                                        .files = &sim_files,
                                                        .segment_size = 16 << 10},
                                  &error, &member->wal);
    if (status == STATUS_OK)
        status = group_create(
            &(struct group_options){
                .group_id = GROUP_ID,
                .node_id = member->number + 1,
                .wal = member->wal,
                .host = &host,
                .context = member,
                .now_ms = world->now_ms,
                .seed = (uint32_t)below(world, UINT32_MAX),
                .election_ms = ELECTION_MS,
                .heartbeat_ms = ELECTION_MS / 6,
                .members = members,
                .member_count = member->number < FIRST_MEMBERS ? FIRST_MEMBERS : 0,
                .applied_index = member->snapshot_index,
            },
            &error, &member->group);
    if (status != STATUS_OK)
        fail(world, "member %u does not start: %s", member->number + 1, error.text);
    member->batch = 0;
    tell(world, "starts", member->number, member->snapshot_index);
    end_turn(member);
}

static void empty_folder(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
    }
    if (folder != NULL)
        (void)closedir(folder);
}

static void copy_file(int from_folder, int to_folder, const char *name)
{
    static char bytes[256 << 10];
    int from = openat(from_folder, name, O_RDONLY | O_CLOEXEC);
    int to = openat(to_folder, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int64_t offset = 0;
    ssize_t size;
    while (from >= 0 && to >= 0 && (size = pread(from, bytes, sizeof(bytes), offset)) > 0) {
        if (pwrite(to, bytes, (size_t)size, offset) != size)
            abort(); // no simulation without a disk
        offset += size;
    }
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
}

static void copy_folder(const char *from_path, const char *to_path)
{
    DIR *from = opendir(from_path);
    const struct dirent *entry;
    (void)mkdir(to_path, 0700);
    empty_folder(to_path);
    int to = open(to_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (from != NULL && (entry = readdir(from)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        if (entry->d_name[0] != '.')
            copy_file(dirfd(from), to, entry->d_name);
    }
    if (from != NULL)
        (void)closedir(from);
    close(to);
}

// What is in its memory is gone. The log would write it when it is closed, so its files are put
// back to what they were at the kill.
static void stop(struct member *member)
{
    char saved[PATH_SIZE + 8];
    if (member->group == NULL)
        return;
    tell(member->world, "is killed", member->number, 0);
    (void)snprintf(saved, sizeof(saved), "%s.saved", member->path);
    copy_folder(member->path, saved);
    member->life++;
    group_destroy(member->group);
    member->group = NULL;
    release_held(member, false);
    wal_close(member->wal);
    member->wal = NULL;
    close(member->directory_fd);
    copy_folder(saved, member->path);
}

static struct member *leader(struct world *world)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct group_status status;
        if (world->members[i].group == NULL)
            continue;
        group_status(world->members[i].group, &status);
        if (status.is_leading)
            return &world->members[i];
    }
    return NULL;
}

// --- What happens

static void propose(struct world *world)
{
    struct member *member = &world->members[below(world, MEMBERS_MAX)];
    struct span commands[4];
    uint64_t values[4];
    void *proposals[4];
    uint32_t count = 1 + (uint32_t)below(world, 4);
    struct member *leading = leader(world);
    if (below(world, 4) != 0 && leading != NULL)
        member = leading;
    if (member->group == NULL || world->proposal_count + 4 >= PROPOSALS_MAX)
        return;
    for (uint32_t i = 0; i < count; i++) {
        values[i] = ++world->proposal_count;
        commands[i] = (struct span){(const uint8_t *)&values[i], sizeof(values[i])};
        proposals[i] = (void *)(uintptr_t)values[i]; // NOLINT(performance-no-int-to-ptr): a number
        world->fates[values[i]] = FATE_OPEN;
    }
    if (group_propose(member->group, world->now_ms, commands, proposals, count) != STATUS_OK) {
        for (uint32_t i = 0; i < count; i++)
            world->fates[values[i]] = FATE_NONE;
    }
    end_turn(member);
}

static void read_somewhere(struct world *world)
{
    struct member *member = &world->members[below(world, MEMBERS_MAX)];
    if (member->group == NULL)
        return;
    struct read *read = mem_alloc(sizeof(*read));
    *read = (struct read){world->acknowledged_index, member};
    group_read(member->group, world->now_ms, read);
    end_turn(member);
}

static void take_snapshot(struct world *world)
{
    struct member *member = &world->members[below(world, MEMBERS_MAX)];
    struct group_status status;
    if (member->group == NULL)
        return;
    group_status(member->group, &status);
    if (status.is_installing || member->machine_index <= member->snapshot_index ||
        status.applied_index < member->machine_index)
        return;
    member->snapshot_index = status.applied_index;
    member->snapshot_hash = member->hash;
    group_snapshotted(member->group, world->now_ms, status.applied_index,
                      (uint32_t)below(world, 20));
    end_turn(member);
}

static void change_members(struct world *world)
{
    struct member *member = leader(world);
    static const char *const names[] = {"1", "2", "3", "4", "5"};
    uint32_t other = (uint32_t)below(world, MEMBERS_MAX);
    struct group_member change = {other + 1, str_from_cstr(names[other]), GROUP_LEARNER};
    struct error error;
    if (member == NULL)
        return;
    uint32_t voters = 0;
    struct group_member present[MEMBERS_MAX];
    uint32_t count = group_members(member->group, present, MEMBERS_MAX);
    for (uint32_t i = 0; i < count; i++)
        voters += present[i].role == GROUP_VOTER;
    bool is_removed = below(world, 3) == 0 && voters > 2;
    change.role = below(world, 2) == 0 ? GROUP_LEARNER : GROUP_VOTER;
    if (group_change(member->group, world->now_ms, &change, is_removed, &error) == STATUS_OK) {
        world->result->change_count++;
        tell(world, is_removed ? "removes" : "adds", member->number, change.id);
    }
    end_turn(member);
}

static void cut_somewhere(struct world *world)
{
    uint32_t a = (uint32_t)below(world, MEMBERS_MAX);
    uint32_t b = (uint32_t)below(world, MEMBERS_MAX);
    switch (below(world, 4)) {
    case 0: // one way
        world->is_cut[a][b] = true;
        break;
    case 1: // a member alone
        for (uint32_t i = 0; i < MEMBERS_MAX; i++)
            world->is_cut[a][i] = world->is_cut[i][a] = true;
        break;
    case 2:
        world->is_cut[a][b] = world->is_cut[b][a] = true;
        break;
    default:
        memset(world->is_cut, 0, sizeof(world->is_cut));
        world->drop_percent = (uint32_t)below(world, 15);
    }
}

static void crash_or_start(struct world *world)
{
    struct member *member = &world->members[below(world, MEMBERS_MAX)];
    struct member *leading = leader(world);
    if (below(world, 3) == 0 && leading != NULL)
        member = leading;
    if (member->group == NULL) {
        start(member);
        return;
    }
    stop(member);
    world->result->crash_count++;
}

static void fault(struct world *world)
{
    struct member *member = leader(world);
    switch (below(world, 8)) {
    case 0:
    case 1:
        crash_or_start(world);
        break;
    case 6:
    case 7: // killed and there again at once
        member = &world->members[below(world, MEMBERS_MAX)];
        if (member->group != NULL) {
            stop(member);
            start(member);
            world->result->crash_count++;
        }
        break;
    case 2:
        cut_somewhere(world);
        break;
    case 3:
        change_members(world);
        break;
    case 4:
        if (member != NULL) {
            (void)group_transfer(member->group, world->now_ms, 1 + below(world, MEMBERS_MAX));
            end_turn(member);
        }
        break;
    default:
        memset(world->is_cut, 0, sizeof(world->is_cut));
        for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
            if (world->members[i].group == NULL && below(world, 2) == 0)
                start(&world->members[i]);
        }
    }
}

static void deliver(struct member *member, const struct event *event)
{
    PEER(PeerMessage) *message =
        vectron__replica__v1__peer_message__unpack(NULL, event->size, event->bytes);
    if (message != NULL)
        group_receive(member->group, member->world->now_ms, event->from + 1, message);
    vectron__replica__v1__peer_message__free_unpacked(message, NULL);
}

static void handle(struct world *world, const struct event *event)
{
    struct member *member = &world->members[event->member];
    bool is_message = event->kind == EVENT_MESSAGE; // for whoever is there when it comes
    if (member->group == NULL || (!is_message && event->life != member->life))
        return;
    switch (event->kind) {
    case EVENT_MESSAGE:
        deliver(member, event);
        break;
    case EVENT_TICK:
        if (group_timeout_ms(member->group) > world->now_ms)
            return; // there is a later one
        group_tick(member->group, world->now_ms);
        break;
    case EVENT_FLUSH:
        flush(member);
        return;
    case EVENT_WRITTEN:
        group_written(member->group, world->now_ms, event->value);
        release_held(member, true);
        break;
    case EVENT_INSTALLED:
        try_install(member);
        break;
    }
    end_turn(member);
}

static void run_until(struct world *world, uint64_t until_ms, bool has_faults)
{
    uint64_t next_work_ms = world->now_ms;
    uint64_t next_fault_ms = world->now_ms + 1000;
    while (world->now_ms < until_ms && world->result->failure[0] == '\0') {
        uint64_t event_ms = world->events != NULL ? world->events->at_ms : UINT64_MAX;
        if (next_work_ms <= event_ms) {
            world->now_ms = next_work_ms;
            next_work_ms += 5 + below(world, 20);
            propose(world);
            if (below(world, 3) == 0)
                read_somewhere(world);
            if (below(world, 10) == 0)
                take_snapshot(world);
            if (has_faults && world->now_ms >= next_fault_ms) {
                next_fault_ms = world->now_ms + 50 + below(world, 600);
                fault(world);
            }
            continue;
        }
        struct event *event = world->events;
        world->events = event->next;
        world->now_ms = event_ms;
        handle(world, event);
        mem_free(event);
    }
}

// --- The verdict

static void check_end(struct world *world)
{
    struct member *last = leader(world);
    struct group_member members[MEMBERS_MAX];
    if (last == NULL || !world->has_late_success) {
        fail(world, "nothing is acknowledged though everybody is there again");
        return;
    }
    uint32_t count = group_members(last->group, members, MEMBERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const struct member *member = &world->members[members[i].id - 1];
        if (member->machine_index + 200 < last->machine_index)
            fail(world, "member %u is at %llu, the leader at %llu", member->number + 1,
                 (unsigned long long)member->machine_index,
                 (unsigned long long)last->machine_index);
    }
    // Each command once in the history, and each acknowledged one in it.
    static uint8_t times[PROPOSALS_MAX];
    memset(times, 0, sizeof(times));
    for (uint64_t i = 0; i < INDEX_MAX; i++) {
        if (world->commands[i] != 0 && ++times[world->commands[i]] > 1)
            fail(world, "command %llu was applied twice", (unsigned long long)world->commands[i]);
    }
    for (uint64_t i = 1; i <= world->proposal_count; i++) {
        if (world->fates[i] == FATE_ACKNOWLEDGED && times[i] != 1)
            fail(world, "command %llu was acknowledged and is gone", (unsigned long long)i);
    }
}

static void sim_run(const struct sim_options *options, struct sim_result *out_result)
{
    struct world *world = mem_alloc(sizeof(*world));
    *out_result = (struct sim_result){0};
    world->options = *options;
    world->result = out_result;
    world->now_ms = 1000;
    rng_init(&world->rng, options->seed);
    static const uint32_t flush_ms[] = {3, 3, 20, 120};
    world->flush_ms = flush_ms[below(world, 4)];
    (void)mkdir(options->folder, 0700);
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        struct member *member = &world->members[i];
        member->world = world;
        member->number = i;
        (void)snprintf(member->path, sizeof(member->path), "%s/member%u", options->folder, i + 1);
        (void)mkdir(member->path, 0700);
        empty_folder(member->path);
        start(member);
    }
    run_until(world, world->now_ms + FAULTY_MS, true);
    memset(world->is_cut, 0, sizeof(world->is_cut));
    world->drop_percent = 0;
    world->ended_at_ms = world->now_ms;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        if (world->members[i].group == NULL)
            start(&world->members[i]);
    }
    run_until(world, world->now_ms + CALM_MS, false);
    if (out_result->failure[0] == '\0')
        check_end(world);
    out_result->virtual_ms = world->now_ms;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        stop(&world->members[i]);
    for (uint64_t i = 1; i <= world->proposal_count; i++) {
        if (world->fates[i] == FATE_OPEN)
            fail(world, "proposal %llu never ended", (unsigned long long)i);
    }
    while (world->events != NULL) {
        struct event *next = world->events->next;
        mem_free(world->events);
        world->events = next;
    }
    mem_free(world);
}
