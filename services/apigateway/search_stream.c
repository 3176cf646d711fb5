#include "apigateway/authenticate.h"
#include "apigateway/search_internal.h"
#include "base/limits.h"
#include "net/loop.h"

// The results of a search in messages, as fast as the client takes them. Before each message, and
// while the client takes none, the caller's token is looked at again: a deleted key ends the stream
// within a second.

// A message is kept well under the 4 MiB that gRPC clients take unless told otherwise.
enum { RECHECK_MS = 400, QUEUED_SIZE_MAX = 1 << 20, MESSAGE_SIZE_MAX = 2 << 20 };

struct stream {
    struct rpc *rpc;
    struct search *search;
    size_t sent_count;
    struct timer recheck;
    bool has_ended;
};

static void stream_end(struct stream *stream)
{
    if (stream->has_ended)
        return;
    stream->has_ended = true;
    timer_stop(&stream->recheck);
    rpc_unref(stream->rpc);
}

static void cancelled(struct rpc *rpc, void *context)
{
    (void)rpc;
    stream_end(context);
}

static bool stream_is_permitted(struct stream *stream)
{
    if (authentication_still_holds(stream->rpc, stream->search->gateway))
        return true;
    rpc_fail(stream->rpc, STATUS_UNAUTHENTICATED, "API key revoked");
    stream_end(stream);
    return false;
}

static void recheck_fired(struct timer *timer)
{
    struct stream *stream =
        (struct stream *)(void *)((char *)timer - offsetof(struct stream, recheck));
    if (stream_is_permitted(stream))
        timer_start(&stream->recheck, RECHECK_MS * NS_PER_MS);
}

// How many of the results, at least one, go into the next message.
static size_t next_count(Vectron__V1__SearchResult *const *results, size_t left)
{
    size_t count = 0;
    size_t size = 0;
    while (count < left && count < LIMIT_STREAM_RESULTS_PER_MESSAGE) {
        size += protobuf_c_message_get_packed_size(&results[count]->base);
        if (count > 0 && size > MESSAGE_SIZE_MAX)
            break;
        count++;
    }
    return count;
}

// Only the last message has the shard counts.
static void send_next(struct stream *stream)
{
    Vectron__V1__SearchResponse *whole = &stream->search->response;
    Vectron__V1__SearchResponse message = VECTRON__V1__SEARCH_RESPONSE__INIT;
    message.results = whole->results + stream->sent_count;
    message.n_results = next_count(message.results, whole->n_results - stream->sent_count);
    stream->sent_count += message.n_results;
    if (stream->sent_count == whole->n_results) {
        message.shards_total = whole->shards_total;
        message.shards_answered = whole->shards_answered;
        message.staleness_ms = whole->staleness_ms;
    }
    rpc_send(stream->rpc, &message.base);
}

static void send_more(struct stream *stream)
{
    const Vectron__V1__SearchResponse *whole = &stream->search->response;
    do {
        if (!stream_is_permitted(stream))
            return;
        send_next(stream);
    } while (stream->sent_count < whole->n_results &&
             rpc_queued_size(stream->rpc) < QUEUED_SIZE_MAX);
    if (stream->sent_count < whole->n_results)
        return;
    rpc_finish(stream->rpc);
    stream_end(stream);
}

static void writable(struct rpc *rpc, void *context)
{
    struct stream *stream = context;
    if (!stream->has_ended && !rpc_is_done(rpc))
        send_more(stream);
}

void search_answer_stream(struct rpc *rpc, struct search *search)
{
    struct stream *stream = arena_alloc(rpc_arena(rpc), sizeof(*stream));
    stream->rpc = rpc;
    stream->search = search;
    rpc_ref(rpc);
    rpc_on_cancel(rpc, cancelled, stream);
    rpc_on_writable(rpc, writable, stream);
    timer_init(&stream->recheck, call_loop(rpc_call(rpc)), recheck_fired);
    timer_start(&stream->recheck, RECHECK_MS * NS_PER_MS);
    send_more(stream);
}
