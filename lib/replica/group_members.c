#include <string.h>

#include "base/mem.h"
#include "replica/group_internal.h"

// Changes of who is in the group, one at a time, and of who leads it.

enum { TRANSFER_MS_MAX = 2000 };

static uint64_t get_u64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

// The library's decoder trusts its bytes: version 1 u8, number of members u64, for each its id u64,
// its address ending in 0, its role u8; padding.
static bool are_members(struct span bytes)
{
    if (bytes.len < 9 || bytes.data[0] != 1)
        return false;
    uint64_t count = get_u64(bytes.data + 1);
    size_t at = 9;
    if (count == 0 || count > GROUP_MEMBERS_MAX)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        if (bytes.len - at < 8 || get_u64(bytes.data + at) == 0)
            return false;
        at += 8;
        const uint8_t *end = memchr(bytes.data + at, 0, bytes.len - at);
        if (end == NULL || (size_t)(end - bytes.data) + 2 > bytes.len || end[1] > RAFT_SPARE)
            return false;
        at = (size_t)(end - bytes.data) + 2;
    }
    return true;
}

int group_decode_members(struct span bytes, struct raft_configuration *out_members)
{
    if (!are_members(bytes))
        return RAFT_MALFORMED;
    struct buf copy;
    buf_init(&copy, SIZE_MAX);
    buf_append(&copy, bytes.data, bytes.len);
    int result = raft_configuration_decode(&(struct raft_buffer){copy.data, copy.len}, out_members);
    buf_deinit(&copy);
    return result;
}

uint32_t group_voter_count(const struct group *group)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < group->raft.configuration.n; i++)
        count += group->raft.configuration.servers[i].role == RAFT_VOTER;
    return count;
}

static const struct raft_server *find_member(const struct group *group, uint64_t member_id)
{
    for (unsigned i = 0; i < group->raft.configuration.n; i++) {
        if (group->raft.configuration.servers[i].id == member_id)
            return &group->raft.configuration.servers[i];
    }
    return NULL;
}

bool group_is_alone(const struct group *group)
{
    return group->raft.configuration.n == 1 &&
           group->raft.configuration.servers[0].id == group->options.node_id;
}

bool group_has_voter(const struct group *group, uint64_t member_id)
{
    const struct raft_server *member = find_member(group, member_id);
    return member != NULL && member->role == RAFT_VOTER;
}

uint32_t group_members(const struct group *group, struct group_member *out_members, uint32_t max)
{
    uint32_t count = group->raft.configuration.n < max ? group->raft.configuration.n : max;
    for (uint32_t i = 0; i < count; i++) {
        const struct raft_server *server = &group->raft.configuration.servers[i];
        out_members[i] = (struct group_member){
            .id = server->id,
            .address = str_from_cstr(server->address),
            .role = server->role == RAFT_VOTER ? GROUP_VOTER : GROUP_LEARNER,
        };
    }
    return count;
}

uint64_t group_match_index(const struct group *group, uint64_t member_id)
{
    raft_index index = 0;
    if (!group->is_leader || raft_match_index(&group->raft, member_id, &index) != 0)
        return 0;
    return index;
}

// --- Changes

static int add_member(struct raft_configuration *configuration, uint64_t id, struct str address,
                      int role)
{
    char text[256] = {0};
    if (address.len >= sizeof(text))
        return RAFT_MALFORMED;
    memcpy(text, address.data, address.len);
    return raft_configuration_add(configuration, id, text, role);
}

// The members after the change.
static int fill_changed(const struct group *group, const struct group_member *member,
                        bool is_removed, struct raft_configuration *out)
{
    int result = 0;
    bool is_there = false;
    for (unsigned i = 0; i < group->raft.configuration.n && result == 0; i++) {
        const struct raft_server *server = &group->raft.configuration.servers[i];
        bool is_it = server->id == member->id;
        is_there = is_there || is_it;
        if (is_it && is_removed)
            continue;
        result = add_member(out, server->id, str_from_cstr(server->address),
                            is_it && member->role == GROUP_VOTER ? RAFT_VOTER : server->role);
    }
    if (result == 0 && !is_there)
        result = add_member(out, member->id, member->address, RAFT_STANDBY);
    return result;
}

static enum status check_change(const struct group *group, const struct group_member *member,
                                bool is_removed, struct error *error)
{
    const struct raft_server *present = find_member(group, member->id);
    if (group->has_failed || !group->is_leading)
        return error_set(error, STATUS_NOT_LEADER, "this member does not lead");
    if (group->raft.configuration_uncommitted_index != 0)
        return error_set(error, STATUS_PRECONDITION, "a change of members is under way");
    if (is_removed && present == NULL)
        return error_set(error, STATUS_PRECONDITION, "it is no member");
    if (is_removed && present->role == RAFT_VOTER && group_voter_count(group) == 1)
        return error_set(error, STATUS_PRECONDITION, "it is the only voter");
    if (!is_removed && present == NULL && member->role == GROUP_VOTER)
        return error_set(error, STATUS_PRECONDITION, "it must be a learner before it is a voter");
    if (!is_removed && present != NULL &&
        (present->role == RAFT_VOTER || member->role != GROUP_VOTER))
        return error_set(error, STATUS_PRECONDITION, "it is a member already");
    if (!is_removed && present == NULL && group->raft.configuration.n >= GROUP_MEMBERS_MAX)
        return error_set(error, STATUS_PRECONDITION, "there are %d members", GROUP_MEMBERS_MAX);
    return STATUS_OK;
}

enum status group_change(struct group *group, uint64_t now_ms, const struct group_member *member,
                         bool is_removed, struct error *error)
{
    struct raft_configuration configuration;
    struct raft_event event = {.time = now_ms, .type = RAFT_SUBMIT};
    struct raft_entry entry = {.term = raft_current_term(&group->raft), .type = RAFT_CHANGE};
    TRY(check_change(group, member, is_removed, error));
    raft_configuration_init(&configuration);
    int result = fill_changed(group, member, is_removed, &configuration);
    if (result == 0)
        result = raft_configuration_encode(&configuration, &entry.buf);
    raft_configuration_close(&configuration);
    if (result != 0)
        return error_set(error, STATUS_INVALID, "%s", raft_strerror(result));
    entry.batch = entry.buf.base;
    event.submit.entries = &entry;
    event.submit.n = 1;
    result = group_step(group, &event);
    if (result != 0) {
        raft_free(entry.batch);
        return error_set(error, STATUS_PRECONDITION, "%s", raft_strerror(result));
    }
    return STATUS_OK;
}

// --- The lead

enum status group_transfer(struct group *group, uint64_t now_ms, uint64_t to)
{
    if (group->has_failed || !group->is_leading)
        return STATUS_NOT_LEADER;
    if (to == group->options.node_id || !group_has_voter(group, to))
        return STATUS_INVALID;
    group->transfer_to = to;
    group->transfer_until_ms = now_ms + TRANSFER_MS_MAX;
    group_continue_transfer(group, now_ms);
    return STATUS_OK;
}

// The library would ask too early while entries are still on their way; the target ignores that and
// nobody asks again. So the question is put when it has everything.
void group_continue_transfer(struct group *group, uint64_t now_ms)
{
    if (group->transfer_to == 0)
        return;
    if (!group->is_leader || now_ms > group->transfer_until_ms) {
        group->transfer_to = 0;
        return;
    }
    if (raft_transferee(&group->raft) != 0 ||
        group_match_index(group, group->transfer_to) != raft_last_index(&group->raft))
        return;
    struct raft_event event = {.time = now_ms, .type = RAFT_TRANSFER};
    event.transfer.server_id = group->transfer_to;
    if (group_step(group, &event) != 0)
        group->transfer_to = 0;
}
