#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/call_internal.h"
#include "net/channel_internal.h"
#include "net/grpc_text.h"
#include "net/net_internal.h"

// Calls to a listener of the same process. Both sides of a call live on the caller's loop: its
// request is handed to the handler as it is, without a copy, and what the handler answers waits in
// the call's inbox until the call's own task delivers it. So neither side ever runs inside the
// other, and a handler meets the same deadlines, limits and cancellations as on a connection.
//
// A listener that is not there yet is like a port where nobody listens: calls fail, or wait for it
// when they are told to.

enum { PEERS_KEPT_MAX = 128 };

// The listener's side of a call.
struct inproc_call {
    struct call call; // first
    struct inproc_call *next;
    struct channel_loop *owner;
    struct channel_call *client; // NULL: the caller has gone
};

static void inproc_send(struct call *call, struct span message)
{
    struct inproc_call *peer = (struct inproc_call *)call;
    struct channel_call *client = peer->client;
    if (client == NULL || client->has_end || channel_call_put_message(client, message))
        return;
    channel_call_set_end(client, STATUS_EXHAUSTED,
                         STR("the memory for messages is used up, try again later"));
    channel_call_schedule(client);
}

static void inproc_finish(struct call *call, enum status status, struct str text)
{
    struct inproc_call *peer = (struct inproc_call *)call;
    struct channel_call *client = peer->client;
    if (client == NULL || client->has_end)
        return;
    // What a peer on the other side of a connection would see of it.
    channel_call_set_end(client, status_from_grpc_code(status_grpc_code(status)), text);
    channel_call_schedule(client);
}

static void inproc_reply(struct call *call, int http_code, struct str content_type,
                         struct span body)
{
    (void)call;
    (void)http_code;
    (void)content_type;
    (void)body;
    ASSERT(false); // only gRPC calls come this way
}

static size_t inproc_queued_size(const struct call *call)
{
    const struct inproc_call *peer = (const struct inproc_call *)call;
    return peer->client != NULL ? channel_call_queued_size(peer->client) : 0;
}

static void inproc_release(struct call *call)
{
    struct inproc_call *peer = (struct inproc_call *)call;
    struct channel_loop *owner = peer->owner;
    ASSERT(peer->client == NULL);
    if (owner->kept_peer_count < PEERS_KEPT_MAX && !owner->is_closing) {
        peer->next = owner->kept_peers;
        owner->kept_peers = peer;
        owner->kept_peer_count++;
    } else {
        mem_free(peer);
    }
    channel_loop_leave(owner);
}

static const struct call_ops ops = {
    .send = inproc_send,
    .finish = inproc_finish,
    .reply = inproc_reply,
    .queued_size = inproc_queued_size,
    .release = inproc_release,
};

void inproc_free_kept(struct channel_loop *owner)
{
    while (owner->kept_peers != NULL) {
        struct inproc_call *peer = owner->kept_peers;
        owner->kept_peers = peer->next;
        mem_free(peer);
    }
    owner->kept_peer_count = 0;
}

// --- The start

static struct inproc_call *peer_create(struct channel_call *client, struct listener *listener)
{
    struct channel_loop *owner = client->owner;
    struct inproc_call *peer = owner->kept_peers;
    if (peer != NULL) {
        owner->kept_peers = peer->next;
        owner->kept_peer_count--;
    } else {
        peer = mem_alloc(sizeof(*peer));
    }
    channel_loop_enter(owner);
    call_init(&peer->call, listener, owner->loop, &ops);
    call_set_inproc(&peer->call);
    peer->owner = owner;
    peer->client = client;
    client->peer = peer;
    peer->call.kind = CALL_GRPC;
    peer->call.verb = STR("POST");
    peer->call.peer = STR("inproc");
    peer->call.deadline_ns = client->deadline_ns; // the caller's own timer ends it
    call_set_target(&peer->call, client->path);
    return peer;
}

static bool put_headers(struct inproc_call *peer)
{
    const struct channel_call *client = peer->client;
    bool have_room = call_put_header(&peer->call, STR("content-type"), STR("application/grpc"));
    for (uint32_t i = 0; i < client->metadata_count && have_room; i++) {
        struct str name = client->metadata[i].name;
        struct str value = client->metadata[i].value;
        if (str_ends_with(name, STR("-bin"))) // as it would come over a connection
            value = grpc_base64_encode(client->arena, str_span(value));
        have_room = call_put_header(&peer->call, name, value);
    }
    return have_room;
}

static struct str describe_size(const struct inproc_call *peer)
{
    return arena_format(peer->client->arena,
                        "a message of %zu bytes is over the limit of %zu bytes",
                        channel_call_message(peer->client).len, peer->call.message_size_max);
}

// The handler may answer at once, and may end the caller's call.
static void run_request(struct inproc_call *peer)
{
    struct call *call = &peer->call;
    call_ref(call);
    call_start(call);
    if (peer->client != NULL && channel_call_message(peer->client).len > call->message_size_max)
        call_fail(call, STATUS_EXHAUSTED, describe_size(peer));
    if (peer->client != NULL)
        call_deliver(call, channel_call_message(peer->client));
    if (peer->client != NULL)
        call_half_close(call);
    call_unref(call);
}

void inproc_start(struct channel_call *client)
{
    struct channel_loop *owner = client->owner;
    const struct channel *channel = owner->channel;
    struct listener *listener =
        net_inproc_find(channel->net, str_from_cstr(channel->address.host), listener_pin);
    if (listener == NULL) {
        channel_loop_failed(owner, arena_format(client->arena, "%.*s: nobody listens there",
                                                STR_ARG(channel->name)));
        channel_loop_wait(owner, client);
        return;
    }
    owner->failure_count = 0;
    owner->retry_at_ns = 0;
    if (!listener_has_grpc(listener)) {
        listener_unpin(listener);
        channel_call_fail_soon(client, STATUS_UNIMPLEMENTED, STR("no gRPC is served there"));
        return;
    }
    struct inproc_call *peer = peer_create(client, listener);
    if (!put_headers(peer)) {
        channel_call_fail_soon(client, STATUS_EXHAUSTED,
                               STR("the metadata of the call is over the limit of 16384 bytes"));
        return;
    }
    run_request(peer);
}

// --- From the caller

void inproc_detach(struct channel_call *client)
{
    struct inproc_call *peer = client->peer;
    client->peer = NULL;
    peer->client = NULL;
    call_cancel(&peer->call); // nothing when it was answered
    call_unref(&peer->call);
}

void inproc_taken(struct channel_call *client, size_t size_before)
{
    struct inproc_call *peer = client->peer;
    if (size_before >= CHANNEL_QUEUE_LOW && channel_call_queued_size(client) < CHANNEL_QUEUE_LOW)
        call_tell_writable(&peer->call);
}
