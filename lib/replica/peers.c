#include <stdio.h>
#include <string.h>

#include "api/client.h"
#include "base/clock.h"
#include "net/address.h"
#include "replica/node_internal.h"

// Messages between nodes: all groups' messages to one node go as one call on one connection, the
// next one when it was answered, so what comes meanwhile makes the next call. Raft takes messages
// that get lost, so nothing is kept for a node that cannot be reached.

enum {
    DELIVER_TIMEOUT_MS = 2000,
    RETRY_MS = 50,
    MESSAGES_TAG = 5 << 3 | 2, // DeliverRequest.messages, length-delimited
    VARINT_SIZE_MAX = 10,
};

struct peer *node_peer(struct replica_node *node, uint64_t id)
{
    struct peer *found = NULL;
    pthread_mutex_lock(&node->lock);
    for (uint32_t i = 0; i < node->peer_count && found == NULL; i++) {
        if (node->peers[i]->id == id)
            found = node->peers[i];
    }
    pthread_mutex_unlock(&node->lock);
    return found;
}

void peer_free(struct peer *peer)
{
    channel_destroy(peer->channel);
    buf_deinit(&peer->queue);
    mem_free(peer);
}

static enum status open_channel(const struct replica_node *node, struct str address,
                                struct error *error, struct channel **out_channel)
{
    return channel_create(node->net,
                          &(struct channel_options){
                              .address = address,
                              .message_size_max = 16 << 20,
                              .backoff_ms_max = 500,
                          },
                          error, out_channel);
}

enum status replica_node_set_peer(struct replica_node *node, uint64_t node_id, struct str address,
                                  struct error *error)
{
    struct peer *peer = node_peer(node, node_id);
    struct channel *channel;
    if (node_id == node->options.node_id)
        return STATUS_OK;
    if (address.len >= ADDRESS_SIZE)
        return error_set(error, STATUS_INVALID, "an address of %zu bytes", address.len);
    if (peer != NULL && str_equal(str_from_cstr(peer->address), address))
        return STATUS_OK;
    if (peer == NULL && node->peer_count == NODE_PEERS_MAX)
        return error_set(error, STATUS_EXHAUSTED, "there are %d nodes", NODE_PEERS_MAX);
    TRY(open_channel(node, address, error, &channel));
    bool is_new = peer == NULL;
    if (is_new) {
        peer = mem_alloc(sizeof(*peer));
        peer->node = node;
        peer->id = node_id;
        buf_init(&peer->queue, PEER_QUEUE_SIZE_MAX);
    }
    pthread_mutex_lock(&node->lock);
    struct channel *old = peer->channel;
    peer->channel = channel;
    (void)snprintf(peer->address, sizeof(peer->address), "%.*s", STR_ARG(address));
    if (is_new)
        node->peers[node->peer_count++] = peer;
    pthread_mutex_unlock(&node->lock);
    channel_destroy(old);
    return STATUS_OK;
}

// --- Out

static void append_message(struct buf *out, const PEER(PeerMessage) * message)
{
    size_t size = protobuf_c_message_get_packed_size(&message->base);
    uint8_t *room = buf_reserve(out, size + 1 + VARINT_SIZE_MAX);
    if (room == NULL) {
        buf_clear(out); // lost, with what waits before it: it is asked for again
        out->has_overflowed = false;
        return;
    }
    uint8_t *end = room;
    *end++ = MESSAGES_TAG;
    size_t rest = size;
    while (rest >= 0x80) {
        *end++ = (uint8_t)(rest | 0x80);
        rest >>= 7;
    }
    *end++ = (uint8_t)rest;
    (void)protobuf_c_message_pack(&message->base, end);
    buf_commit(out, (size_t)(end - room) + size);
}

static void hold(struct replica_node *node, uint64_t to, const PEER(PeerMessage) * message)
{
    struct buf bytes;
    buf_init(&bytes, PEER_QUEUE_SIZE_MAX);
    append_message(&bytes, message);
    struct held_message *held = mem_alloc(sizeof(*held) + bytes.len);
    held->batch = UINT64_MAX;
    held->to = to;
    held->size = bytes.len;
    if (bytes.len > 0)
        memcpy(held->bytes, bytes.data, bytes.len);
    *node->held_last = held;
    node->held_last = &held->next;
    buf_deinit(&bytes);
}

void peer_send(struct replica_node *node, uint64_t to, const PEER(PeerMessage) * message,
               bool is_held)
{
    struct peer *peer = node_peer(node, to);
    if (peer == NULL)
        return;
    if (is_held)
        hold(node, to, message);
    else
        append_message(&peer->queue, message);
    node_turn(node);
}

void peers_release_held(struct replica_node *node, uint64_t written)
{
    while (node->held != NULL && node->held->batch <= written) {
        struct held_message *held = node->held;
        struct peer *peer = node_peer(node, held->to);
        node->held = held->next;
        if (peer != NULL && peer->queue.len + held->size <= PEER_QUEUE_SIZE_MAX)
            buf_append(&peer->queue, held->bytes, held->size);
        mem_free(held);
    }
    if (node->held == NULL)
        node->held_last = &node->held;
}

static void send_queue(struct peer *peer);

static void delivered(enum status status, struct str text, void *context)
{
    (void)text;
    struct peer *peer = context;
    peer->is_sending = false;
    node_sent(peer->node);
    if (status != STATUS_OK) {
        buf_clear(&peer->queue);
        peer->send_again_ns = loop_now_ns(peer->node->loop) + RETRY_MS * NS_PER_MS;
    }
    send_queue(peer);
}

static void send_queue(struct peer *peer)
{
    struct replica_node *node = peer->node;
    uint64_t now_ns = loop_now_ns(node->loop);
    if (peer->is_sending || peer->queue.len == 0 || node->is_closing)
        return;
    if (now_ns < peer->send_again_ns) {
        buf_clear(&peer->queue);
        return;
    }
    PEER(DeliverRequest) head = PEER_INIT(DELIVER_REQUEST);
    head.cluster_id = node->options.cluster_id;
    head.from = node->options.node_id;
    head.to = peer->id;
    head.address = node->address;
    struct buf request;
    buf_init(&request, SIZE_MAX);
    uint8_t *room = buf_reserve(&request, protobuf_c_message_get_packed_size(&head.base));
    buf_commit(&request, protobuf_c_message_pack(&head.base, room));
    buf_append(&request, peer->queue.data, peer->queue.len);
    buf_clear(&peer->queue);
    if (peer->queue.capacity > (size_t)1 << 20) { // a burst must not stay in memory
        buf_deinit(&peer->queue);
        buf_init(&peer->queue, PEER_QUEUE_SIZE_MAX);
    }
    peer->is_sending = true;
    pthread_mutex_lock(&node->lock);
    (void)channel_call(peer->channel, &(struct channel_request){
                                          .path = STR("/vectron.replica.v1.PeerService/Deliver"),
                                          .message = buf_span(&request),
                                          .deadline_ns = now_ns + DELIVER_TIMEOUT_MS * NS_PER_MS,
                                          .metadata = &node->metadata,
                                          .metadata_count = node->metadata_count,
                                          .context = peer,
                                          .done = delivered,
                                      });
    pthread_mutex_unlock(&node->lock);
    buf_deinit(&request);
}

void peers_flush(struct replica_node *node)
{
    for (uint32_t i = 0; i < node->peer_count; i++)
        send_queue(node->peers[i]);
}

// --- In

struct delivery {
    struct task task; // to the first loop and back
    struct replica_node *node;
    struct rpc *rpc;
};

static void answer_delivery(struct task *task)
{
    struct delivery *delivery = (struct delivery *)(void *)task;
    struct rpc *rpc = delivery->rpc;
    PEER(DeliverResponse) response = PEER_INIT(DELIVER_RESPONSE);
    if (!rpc_is_done(rpc))
        rpc_reply(rpc, &response.base);
    rpc_unref(rpc);
}

static void learn_address(struct replica_node *node, struct peer *peer, const char *address)
{
    if (strlen(address) >= ADDRESS_SIZE || strcmp(peer->public_address, address) == 0)
        return;
    pthread_mutex_lock(&node->lock);
    (void)snprintf(peer->public_address, sizeof(peer->public_address), "%s", address);
    pthread_mutex_unlock(&node->lock);
}

// Entries that the disk has no room for are as if lost on their way; votes and heartbeats go on.
static bool has_room_for(struct replica_node *node, const PEER(PeerMessage) * message)
{
    size_t size = 0;
    for (size_t i = 0; i < message->n_entries; i++)
        size += message->entries[i]->data.len + WAL_ENTRY_OVERHEAD;
    return size == 0 || wal_has_room(node->wal, size);
}

static void take_delivery(struct task *task)
{
    struct delivery *delivery = (struct delivery *)(void *)task;
    struct replica_node *node = delivery->node;
    const PEER(DeliverRequest) *request = (const void *)rpc_request(delivery->rpc);
    struct peer *peer = node_peer(node, request->from);
    uint64_t now_ms = node_now_ms(node);
    if (peer != NULL && !node->is_closing) {
        learn_address(node, peer, request->address);
        peer->send_again_ns = 0; // it is there
        for (size_t i = 0; i < request->n_messages; i++) {
            struct replica *replica = node_find(node, request->messages[i]->group_id);
            if (replica == NULL || !has_room_for(node, request->messages[i]))
                continue; // not opened yet, or closed
            group_receive(replica->group, now_ms, request->from, request->messages[i]);
            replica_arm(replica);
        }
        node_turn(node);
    }
    task->run = answer_delivery;
    loop_post(call_loop(rpc_call(delivery->rpc)), task);
}

static void deliver(struct rpc *rpc, void *context)
{
    struct replica_node *node = context;
    const PEER(DeliverRequest) *request = (const void *)rpc_request(rpc);
    if (request->cluster_id != node->options.cluster_id || request->to != node->options.node_id) {
        rpc_fail(rpc, STATUS_PRECONDITION, "this is node %llu of cluster %llu",
                 (unsigned long long)node->options.node_id,
                 (unsigned long long)node->options.cluster_id);
        return;
    }
    struct delivery *delivery = arena_alloc(rpc_arena(rpc), sizeof(*delivery));
    *delivery = (struct delivery){{.run = take_delivery}, node, rpc};
    rpc_ref(rpc);
    loop_post(node->loop, &delivery->task);
}

static const struct rpc_method methods[] = {
    {.name = "Deliver", .handler = deliver, .is_internal = true, .message_size_max = 128 << 20},
    {.name = "ReadSnapshot", .handler = snapshot_serve, .is_internal = true},
};

void peers_add_service(struct replica_node *node, struct rpc_router *router)
{
    rpc_router_add_service(router, &vectron__replica__v1__peer_service__descriptor, methods,
                           sizeof(methods) / sizeof(methods[0]), node);
}
